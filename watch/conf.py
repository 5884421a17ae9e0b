"""
Settings: WATCH = {...} in settings.py. Everything in it is optional; see README.md.

`config()` is what the rest of this app reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.cache import caches
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.http import HttpRequest
from django.middleware.cache import FetchFromCacheMiddleware
from django.utils.module_loading import import_string
from django_redis.cache import RedisCache
from redis import ConnectionPool
from redis.connection import parse_url

DEFAULTS: dict[str, Any] = {
    # Alias: name of the level, outermost first. By default every alias that has this app's
    # REDIS_CLIENT_CLASS, under its KEY_PREFIX (or its alias): SITE_ALIAS, and then the others
    # in the order of CACHES.
    "LEVELS": None,
    # Name of a level: what the x-ray and the wall call it. Other levels keep their names.
    "TITLES": {
        "site": "Whole site",
        "view": "Per view",
        "fragment": "Fragment",
        "low-level": "Low-level",
    },
    # Alias in which the cache middleware stores whole pages. By default CACHE_MIDDLEWARE_ALIAS,
    # if FetchFromCacheMiddleware or a subclass is in MIDDLEWARE.
    "SITE_ALIAS": None,
    # What the names of keys begin with, behind prefix and version: keys of whole pages ...
    "PAGES": ["page:", "views.decorators.cache.cache_page."],
    # ... of the list of headers that a page varies on ...
    "VARY": ["views.decorators.cache.cache_header."],
    # ... of bookkeeping, which is neither a hit nor a miss ...
    "ASIDE": ["group:"],
    # ... and of locks: bookkeeping, too, and the wall does not tell when one is deleted.
    "LOCKS": ["lock:"],
    # Paths that are neither watched nor given headers. STATIC_URL is always one of them.
    "SKIP_PATHS": ["/watch/"],
    # Source files below this folder are "yours": their lines are shown as those that asked.
    # By default BASE_DIR, or the current folder. Packages below it (a folder with a
    # pyproject.toml, a virtual environment) are not yours.
    "ROOT": None,
    # Whether /watch/code shows the source of views and templates. By default as DEBUG says.
    "SHOW_CODE": None,
    # Whether the wall is there: True, False, or the dotted path of a function that is given the
    # request, and says so. Where it is not, its addresses are 404.
    "WALL": True,
    # Whether the wall shows the values of keys and lets keys expire.
    "KEY_ACTIONS": False,
    # Streams that a process may hold open for walls. Each holds a thread of the server.
    "STREAMS": 1,
    # Serializers whose loads() runs no code, whatever the bytes are, besides these three. The
    # values of any other are not shown.
    "SAFE_SERIALIZERS": [
        "django_redis.serializers.json.JSONSerializer",
        "django_redis.serializers.msgpack.MSGPackSerializer",
        "resilient_cache.serializer.SafeSerializer",
    ],
    # The stream of events: its key, and about how many it keeps.
    "STREAM": "watch:events",
    "STREAM_LENGTH": 2000,
    # Where it is: a URL, or by default the server of the first level, with the database
    # after the last one that CACHES uses. Sentinel needs the URL.
    "STREAM_URL": None,
}

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Config:
    """WATCH with its defaults filled in from the other settings."""

    levels: tuple[str, ...]  # names, outermost first
    titles: tuple[tuple[str, str], ...]  # (name, title), and also while no alias is watched
    aliases: dict[str, str]  # name: alias
    site: str | None  # the level of whole pages that every request passes
    prefixes: tuple[tuple[str, str], ...]  # (what a key starts with, name), the longest first
    servers: dict[Address, str | None]  # address(): name, for keys that have no prefix
    pages: tuple[str, ...]
    vary: tuple[str, ...]
    aside: tuple[str, ...]  # the locks among them
    locks: tuple[str, ...]
    skip_paths: tuple[str, ...]
    root: str
    show_code: bool
    wall: bool | Callable[[HttpRequest], bool]
    key_actions: bool
    streams: int
    safe_serializers: tuple[str, ...]
    stream: str
    stream_length: int
    stream_connection: dict[str, Any]  # what redis-py needs to connect

    def level_of(self, key: str, fallback: str | None) -> str | None:
        """Return the level that `key` belongs to, or `fallback`."""
        for prefix, name in self.prefixes:
            if key.startswith(prefix):
                return name
        return fallback

    def name_of(self, key: str) -> str:
        """Return what the project calls `key`: without prefix and version."""
        for prefix, _ in self.prefixes:
            if key.startswith(prefix):
                return key[len(prefix) :].partition(":")[2]
        # As Django makes it without a KEY_PREFIX: ":1:name".
        return key[1:].partition(":")[2] if key.startswith(":") else key

    def title_of(self, level: str) -> str:
        """Return what people read as the name of a level."""
        return dict(self.titles).get(level, level)

    def has_wall(self, request: HttpRequest) -> bool:
        """Return whether this request may see the wall."""
        return self.wall(request) if callable(self.wall) else self.wall


@cache
def config() -> Config:
    """Return the Config of the current settings."""
    given = DEFAULTS | _given()
    on_redis = {alias: found for alias, found in settings.CACHES.items() if _is_on_redis(found)}
    site_alias = given["SITE_ALIAS"] or (
        settings.CACHE_MIDDLEWARE_ALIAS if _has_site_middleware() else None
    )
    all_names = given["LEVELS"] or {
        alias: found.get("KEY_PREFIX") or alias
        for alias, found in sorted(on_redis.items(), key=lambda one: one[0] != site_alias)
    }
    names = {
        alias: name
        for alias, name in all_names.items()
        if "REDIS_CLIENT_CLASS" in on_redis.get(alias, {}).get("OPTIONS", {})
    }
    titles = DEFAULTS["TITLES"] | _given().get("TITLES", {})
    prefixes = [
        (f"{on_redis[alias]['KEY_PREFIX']}:", name)
        for alias, name in names.items()
        if on_redis[alias].get("KEY_PREFIX")
    ]
    # A database that two levels share says nothing about the level of a key.
    servers: dict[Address, str | None] = {}
    for alias, name in names.items():
        server = address(pool_of(alias).connection_kwargs)
        servers[server] = None if server in servers else name
    return Config(
        levels=tuple(names.values()),
        titles=tuple((name, titles.get(name, name)) for name in all_names.values()),
        aliases={name: alias for alias, name in names.items()},
        site=names.get(site_alias),
        prefixes=tuple(sorted(prefixes, key=lambda pair: -len(pair[0]))),
        servers=servers,
        pages=tuple(given["PAGES"]),
        vary=tuple(given["VARY"]),
        aside=(*given["ASIDE"], *given["LOCKS"]),
        locks=tuple(given["LOCKS"]),
        skip_paths=tuple(filter(None, [settings.STATIC_URL, *given["SKIP_PATHS"]])),
        root=str(Path(given["ROOT"] or getattr(settings, "BASE_DIR", "")).resolve()),
        show_code=settings.DEBUG if given["SHOW_CODE"] is None else given["SHOW_CODE"],
        wall=import_string(given["WALL"]) if isinstance(given["WALL"], str) else given["WALL"],
        key_actions=given["KEY_ACTIONS"],
        streams=given["STREAMS"],
        safe_serializers=(*DEFAULTS["SAFE_SERIALIZERS"], *_given().get("SAFE_SERIALIZERS", ())),
        stream=given["STREAM"],
        stream_length=given["STREAM_LENGTH"],
        stream_connection=_stream_connection(given["STREAM_URL"], list(names), list(on_redis)),
    )


@receiver(setting_changed)
def _forget(**kwargs: Any) -> None:
    config.cache_clear()


def address(parameters: Mapping[str, Any]) -> Address:
    """Return which database of which server these connection parameters lead to."""
    if "path" in parameters:
        server = str(parameters["path"])
    else:
        server = f"{parameters.get('host', 'localhost')}:{parameters.get('port', 6379)}"
    return server, int(parameters.get("db") or 0)


def pool_of(alias: str) -> ConnectionPool:
    """
    Return the connection pool of an alias. It connects to nothing.

    The alias's own client is asked, because LOCATION is not all that says where it leads:
    OPTIONS may name a database or a password, too.
    """
    cache: Any = caches[alias]
    pool: ConnectionPool = cache.client.get_client(write=True).connection_pool
    return pool


def serializer_of(alias: str) -> str:
    """
    Return the dotted path of what reads the values of an alias, or "" for django-redis's pickle.

    OPTIONS["SERIALIZER"] names it, or DEFAULT_SERIALIZER of the BACKEND class.
    """
    found = settings.CACHES[alias]
    default = getattr(import_string(found["BACKEND"]), "DEFAULT_SERIALIZER", "")
    name: str = found.get("OPTIONS", {}).get("SERIALIZER") or default
    return name


def _given() -> dict[str, Any]:
    return dict(getattr(settings, "WATCH", {}))


def unknown_settings() -> list[str]:
    """Return what stands in WATCH and is not a setting of this app."""
    return sorted(set(_given()) - set(DEFAULTS))


def _is_on_redis(found: Mapping[str, Any]) -> bool:
    backend = import_string(found["BACKEND"])
    return isinstance(backend, type) and issubclass(backend, RedisCache)


def _has_site_middleware() -> bool:
    classes = (import_string(path) for path in settings.MIDDLEWARE)
    return any(
        isinstance(item, type) and issubclass(item, FetchFromCacheMiddleware) for item in classes
    )


def _stream_connection(url: str | None, watched: list[str], on_redis: list[str]) -> dict[str, Any]:
    """Return what connects to the stream: as the first level does, but to the next database."""
    if url:
        return dict(parse_url(url))
    if not watched:
        return {}
    pool = pool_of(watched[0])
    databases = [address(pool_of(alias).connection_kwargs)[1] for alias in on_redis]
    return {
        **pool.connection_kwargs,
        "connection_class": pool.connection_class,
        "db": 1 + max(databases),
    }
