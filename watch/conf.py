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
    # REDIS_CLIENT_CLASS, under its KEY_PREFIX (or its alias): SITE_ALIAS, and then the others
    # in the order of CACHES.
    "LEVELS": None,
    # Alias that the cache middleware keeps whole pages in. By default CACHE_MIDDLEWARE_ALIAS,
    # and none when FetchFromCacheMiddleware is not in MIDDLEWARE.
    "SITE_ALIAS": None,
    # Beginnings of keys (behind prefix and version) that hold bookkeeping of a CLIENT_CLASS of
    # your own and no cached value: they are shown, and count for nothing.
    "ASIDE": [],
    # Paths that are neither watched nor given headers. STATIC_URL is always one of them.
    "SKIP_PATHS": ["/watch/"],
    # Source files below this folder are "yours": their lines are shown as those that asked.
    # By default BASE_DIR, or the current folder.
    "ROOT": None,
    # Whether /watch/code shows the source of views and templates. By default as DEBUG says.
    "SHOW_CODE": None,
    # The stream of events: its key, and about how many it keeps.
    "STREAM": "watch:events",
    "STREAM_LENGTH": 2000,
    # Where it is: a URL, or by default the server of the first level, with the database
    # after the last one that CACHES uses. Sentinel needs the URL.
    "STREAM_URL": None,
}


@dataclass(frozen=True, slots=True)
class Config:
    """WATCH with its defaults filled in from the other settings."""

    levels: tuple  # names, outermost first
    rings: tuple  # the same, and also while nothing is watched
    aliases: dict  # name: alias
    site: str | None  # the level of whole pages that every request passes
    prefixes: tuple  # (what a key starts with, name), the longest first
    servers: dict  # address(): name, for keys that have no prefix
    aside: tuple
    skip_paths: tuple
    root: str
    show_code: bool
    stream: str
    stream_length: int
    stream_connection: dict  # what redis-py needs to connect

    def level_of(self, key, fallback):
        """Return the level that `key` belongs to, or `fallback`."""
        for prefix, name in self.prefixes:
            if key.startswith(prefix):
                return name
        return fallback

    def name_of(self, key):
        """Return what the project calls `key`: without prefix and version."""
        for prefix, _ in self.prefixes:
            if key.startswith(prefix):
                return key[len(prefix) :].partition(":")[2]
        # As Django makes it without a KEY_PREFIX: ":1:name".
        return key[1:].partition(":")[2] if key.startswith(":") else key

    def is_aside(self, key):
        """Return whether `key` is one that ASIDE names."""
        return bool(self.aside) and self.name_of(key).startswith(self.aside)


@cache
def config():
    """Return the Config of the current settings."""
    given = DEFAULTS | getattr(settings, "WATCH", {})
    redis_aliases = {
        alias: options
        for alias, options in settings.CACHES.items()
        if "REDIS_CLIENT_CLASS" in options.get("OPTIONS", {})
    }
    site_alias = given["SITE_ALIAS"] or (
        settings.CACHE_MIDDLEWARE_ALIAS if _has_site_middleware() else None
    )
    all_names = given["LEVELS"] or {
        alias: options.get("KEY_PREFIX") or alias
        for alias, options in sorted(settings.CACHES.items(), key=lambda one: one[0] != site_alias)
        if alias in redis_aliases or options["BACKEND"].startswith("django_redis.")
    }
    names = {alias: name for alias, name in all_names.items() if alias in redis_aliases}
    prefixes = [
        (f"{redis_aliases[alias]['KEY_PREFIX']}:", name)
        for alias, name in names.items()
        if redis_aliases[alias].get("KEY_PREFIX")
    ]
    # A database that two levels share says nothing about the level of a key.
    servers = {}
    for alias, name in names.items():
        for url in urls(redis_aliases[alias]["LOCATION"]):
            server = address(parse_url(url))
            servers[server] = None if server in servers else name
    return Config(
        levels=tuple(names.values()),
        rings=tuple(all_names.values()),
        aliases={name: alias for alias, name in names.items()},
        site=names.get(site_alias),
        prefixes=tuple(sorted(prefixes, key=lambda pair: -len(pair[0]))),
        servers=servers,
        aside=tuple(given["ASIDE"]),
        skip_paths=tuple(filter(None, [settings.STATIC_URL, *given["SKIP_PATHS"]])),
        root=str(Path(given["ROOT"] or getattr(settings, "BASE_DIR", "")).resolve()),
        show_code=settings.DEBUG if given["SHOW_CODE"] is None else given["SHOW_CODE"],
        stream=given["STREAM"],
        stream_length=given["STREAM_LENGTH"],
        stream_connection=_stream_connection(given["STREAM_URL"], list(redis_aliases.values())),
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


def urls(location):
    """Return the URLs in an alias's LOCATION."""
    return location.split(",") if isinstance(location, str) else list(location)


def _has_site_middleware():
    classes = (import_string(path) for path in settings.MIDDLEWARE)
    return any(
        isinstance(item, type) and issubclass(item, FetchFromCacheMiddleware) for item in classes
    )


def _stream_connection(url, redis_caches):
    if url:
        return parse_url(url)
    if not redis_caches:
        return {}
    locations = [parse_url(url) for cache in redis_caches for url in urls(cache["LOCATION"])]
    options = redis_caches[0].get("OPTIONS", {})
    pool_options = options.get("CONNECTION_POOL_KWARGS", {})
    connection = locations[0] | {"db": 1 + max(address(found)[1] for found in locations)}
    for name in ("username", "password"):
        if value := options.get(name.upper()) or pool_options.get(name):
            connection[name] = value
    return connection | {
        name: value for name, value in pool_options.items() if name.startswith("ssl_")
    }
