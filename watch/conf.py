"""
Settings: WATCH = {...} in settings.py. Everything in it is optional; see README.md.

`config()` is what the rest of this app reads.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.middleware.cache import FetchFromCacheMiddleware
from django.utils.module_loading import import_string
from redis.connection import parse_url

DEFAULTS = {
    # Alias: name of the level, outermost first. By default every alias that has this app's
    # REDIS_CLIENT_CLASS, in the order of CACHES, under its KEY_PREFIX (or its alias).
    "LEVELS": None,
    # Alias that the cache middleware keeps whole pages in. By default CACHE_MIDDLEWARE_ALIAS,
    # and none when FetchFromCacheMiddleware is not in MIDDLEWARE.
    "SITE_ALIAS": None,
    # Paths that are neither watched nor given headers. STATIC_URL is always one of them.
    "SKIP_PATHS": ["/watch/"],
    # Source files below this folder are "yours": their lines are shown as those that asked.
    # By default BASE_DIR, or the current folder.
    "ROOT": None,
    # The stream of events: its key, its Redis database on the server of the first level
    # (by default the one after the last that CACHES uses), and about how many it keeps.
    "STREAM": "watch:events",
    "STREAM_DATABASE": None,
    "STREAM_LENGTH": 2000,
}


@dataclass(frozen=True, slots=True)
class Config:
    """WATCH with its defaults filled in from the other settings."""

    levels: tuple  # names, outermost first
    aliases: dict  # name: alias
    site: str | None  # the level of whole pages that every request passes
    prefixes: tuple  # (what a key starts with, name), the longest first
    servers: dict  # address(): name, for keys that have no prefix
    skip_paths: tuple
    root: str
    stream: str
    stream_database: int
    stream_length: int

    def level_of(self, key, fallback):
        """Return the level that `key` belongs to, or `fallback`."""
        for prefix, name in self.prefixes:
            if key.startswith(prefix):
                return name
        return fallback


@cache
def config():
    """Return the Config of the current settings."""
    given = DEFAULTS | getattr(settings, "WATCH", {})
    redis_aliases = {
        alias: options
        for alias, options in settings.CACHES.items()
        if "REDIS_CLIENT_CLASS" in options.get("OPTIONS", {})
    }
    names = given["LEVELS"] or {
        alias: options.get("KEY_PREFIX") or alias for alias, options in redis_aliases.items()
    }
    names = {alias: name for alias, name in names.items() if alias in redis_aliases}
    prefixes = [
        (f"{redis_aliases[alias]['KEY_PREFIX']}:", name)
        for alias, name in names.items()
        if redis_aliases[alias].get("KEY_PREFIX")
    ]
    # `last wins` would be a guess: a server that two levels share says nothing about a key.
    servers = {}
    for alias, name in names.items():
        for server in addresses(redis_aliases[alias]["LOCATION"]):
            servers[server] = None if server in servers else name
    site_alias = given["SITE_ALIAS"] or (
        settings.CACHE_MIDDLEWARE_ALIAS if _has_site_middleware() else None
    )
    return Config(
        levels=tuple(names.values()),
        aliases={name: alias for alias, name in names.items()},
        site=names.get(site_alias),
        prefixes=tuple(sorted(prefixes, key=lambda pair: -len(pair[0]))),
        servers=servers,
        skip_paths=tuple(filter(None, [settings.STATIC_URL, *given["SKIP_PATHS"]])),
        root=str(Path(given["ROOT"] or getattr(settings, "BASE_DIR", "")).resolve()),
        stream=given["STREAM"],
        stream_database=_free_database()
        if given["STREAM_DATABASE"] is None
        else given["STREAM_DATABASE"],
        stream_length=given["STREAM_LENGTH"],
    )


@receiver(setting_changed)
def _forget(**kwargs):
    config.cache_clear()


def address(parameters):
    """Return which database of which server these connection parameters lead to."""
    if "path" in parameters:
        server = parameters["path"]
    else:
        server = f"{parameters.get('host', 'localhost')}:{parameters.get('port', 6379)}"
    return server, int(parameters.get("db") or 0)


def addresses(location):
    """Return the address() of each URL in an alias's LOCATION."""
    urls = location.split(",") if isinstance(location, str) else location
    return [address(parse_url(url)) for url in urls]


def _has_site_middleware():
    classes = (import_string(path) for path in settings.MIDDLEWARE)
    return any(
        isinstance(item, type) and issubclass(item, FetchFromCacheMiddleware) for item in classes
    )


def _free_database():
    used = [
        number
        for options in settings.CACHES.values()
        if "REDIS_CLIENT_CLASS" in options.get("OPTIONS", {})
        for _, number in addresses(options["LOCATION"])
    ]
    return max(used, default=-1) + 1
