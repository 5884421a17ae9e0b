"""
BACKEND = "resilient_cache.backend.RedisCache": django-redis that a site can depend on.

It is django_redis.cache.RedisCache with other defaults and one rule: an error of Redis never
escapes. Everything that django-redis documents for OPTIONS works here, too.
"""

from asyncio import CancelledError
from contextlib import suppress
from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.exceptions import ImproperlyConfigured
from django_redis.exceptions import ConnectionInterrupted
from django_redis.pool import ConnectionFactory

from resilient_cache import guard
from resilient_cache.async_calls import AsyncCalls
from resilient_cache.breaker import Breaker
from resilient_cache.guard import MISSING
from resilient_cache.location import database_url
from resilient_cache.quiet import QuietCache

# Seconds that connecting, or waiting for an answer, may take. A cache that needs longer than
# the page it saves is no help. redis-py's own default is 5.
REDIS_TIMEOUT = 0.25


class PoolFactory(ConnectionFactory):
    """
    Gives each alias a pool of its own settings.

    django-redis shares a pool between all aliases with the same URL, whatever their options.
    Its docs name this method as the one to replace for that.
    """

    _own_pools: dict[str, Any] = {}

    def get_or_create_connection_pool(self, params: dict[str, Any]) -> Any:
        key = repr((sorted(params.items(), key=str), self.pool_cls, self.pool_cls_kwargs))
        if key not in self._own_pools:
            self._own_pools[key] = self.get_connection_pool(params)
        return self._own_pools[key]


DEFAULT_OPTIONS = {
    "CLIENT_CLASS": "resilient_cache.client.Client",
    "CONNECTION_FACTORY": "resilient_cache.backend.PoolFactory",
    "CONNECTION_POOL_CLASS": "resilient_cache.breaker.BreakerPool",
    "IGNORE_EXCEPTIONS": True,
    "SERIALIZER": "resilient_cache.serializer.SafeSerializer",
}


class RedisCache(AsyncCalls, QuietCache):
    """
    A cache whose errors never escape and whose get_or_set() builds once.

    OPTIONS["db"] is added to the database that LOCATION names, 0 if it names none. A LOCATION
    that can't work is named by `manage.py check`; using the cache raises ImproperlyConfigured.
    """

    # What reads the values of an alias that names no SERIALIZER, for tools that show values.
    DEFAULT_SERIALIZER = DEFAULT_OPTIONS["SERIALIZER"]

    def __init__(self, server: str | list[str], params: dict[str, Any]) -> None:
        options = DEFAULT_OPTIONS | params.get("OPTIONS", {})
        timeouts = {"socket_timeout": REDIS_TIMEOUT, "socket_connect_timeout": REDIS_TIMEOUT}
        options["CONNECTION_POOL_KWARGS"] = timeouts | options.get("CONNECTION_POOL_KWARGS", {})
        locations = [server] if isinstance(server, str) else list(server or [])
        # Asked once. Django calls close() for each alias after each request, and a setting that
        # is missing takes 5 us to look up.
        self.closes_connections = options.get(
            "CLOSE_CONNECTION", getattr(settings, "DJANGO_REDIS_CLOSE_CONNECTION", False)
        )
        self.problem: ImproperlyConfigured | None = None
        try:
            # As a list, because django-redis splits a text at each comma, also in a password.
            locations = [database_url(url, options.get("db", 0)) for url in locations]
        except ImproperlyConfigured as problem:
            self.problem = problem  # Raised here, no system check could name it.
        super().__init__(locations, params | {"OPTIONS": options})

    @property
    def client(self) -> Any:
        """The django-redis client. Raises ImproperlyConfigured for a LOCATION that can't work."""
        if self.problem is not None:
            raise self.problem
        return super().client

    def close(self, **kwargs: Any) -> None:
        """Close the connections, if DJANGO_REDIS_CLOSE_CONNECTION says so. By default they stay."""
        if self.closes_connections:
            super().close(**kwargs)

    @property
    def breaker(self) -> Breaker:
        """The circuit breaker of this alias's server."""
        return self.client.get_client(write=True).connection_pool.breaker

    def cache_event(self, what: str, key: str, version: Any = None) -> None:
        """Tell an instrument what this cache knows of `key`. See README.md."""
        self.client.cache_event(what, self.client.make_key(key, version=version))

    def add(self, *args: Any, **kwargs: Any) -> bool | None:
        """Store a value unless the key has one. None: Redis is down or refuses writes."""
        if self.breaker.refuses_writes:
            return None  # A full Redis would refuse each of a page's writes, one by one.
        try:
            return self.client.add(*args, **kwargs)
        except ConnectionInterrupted:
            return None

    def set(self, *args: Any, **kwargs: Any) -> bool:
        """
        Store a value. Return whether Redis has it now.

        If Redis is full, the key is deleted: its old value is not what the caller wants there.
        """
        if not self.breaker.refuses_writes:
            with suppress(ConnectionInterrupted):
                return self.client.set(*args, **kwargs)
        if self.breaker.refuses_writes and not kwargs.get("nx"):
            self._delete_for_set(*args, **kwargs)
        return False

    def _delete_for_set(
        self, key: str, value: Any, timeout: Any = None, version: Any = None, *_: Any, **__: Any
    ) -> None:
        with suppress(ConnectionInterrupted):
            self.client.delete(key, version=version)

    def set_many(
        self,
        data: dict[str, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: Any = None,
        **kwargs: Any,
    ) -> list[str]:
        """Store a dict of values. Return the keys that were not stored, as Django has it."""
        try:
            return self.client.set_many(data, timeout, version, **kwargs)
        except ConnectionInterrupted:
            if self.breaker.refuses_writes:
                self.delete_many(list(data), version)  # As set() does.
            return list(data)

    def delete_many(self, keys: Any, version: Any = None, **kwargs: Any) -> int | None:
        """Delete these keys. Return how many there were, or None if Redis did not do it."""
        try:
            return self.client.delete_many(keys, version, **kwargs)
        except ConnectionInterrupted:
            return None

    def incr_version(self, key: str, delta: int = 1, version: Any = None) -> int | None:
        """
        Move a value to `version` + delta, with the time it has left. Return its new version.

        Raises ValueError when the key is missing. A cached None is a value, as Django has it.
        None: Redis is down or full.
        """
        version = self.version if version is None else version
        try:
            value, ttl = self.client.get_with_ttl(key, MISSING, version)
            if value is MISSING:
                raise ValueError(f"Key {key!r} not found")
            # -1: no timeout. -2: it expired between the two commands, so 0.
            timeout = None if ttl == -1 else max(ttl, 0) / 1000
            self.client.set(key, value, timeout, version + delta)
            self.client.delete(key, version=version)
        except ConnectionInterrupted:
            return None
        return version + delta

    def clear(self) -> bool | None:
        """
        Delete every key of this alias's database (FLUSHDB). Return None if Redis did not do it.

        Two aliases in one database have to differ in more than the prefix: see the system checks.
        """
        try:
            self.client.clear()
        except ConnectionInterrupted:
            return None
        return True

    def get_or_set(
        self, key: str, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> Any:
        """
        Return the value at `key`. If it is missing, store and return `default`.

        If `default` can be called, it is: once, for all requests that miss at the same time.
        In the last tenth of the timeout (at most 10 s) one request builds the next value. What
        is stored is the plain value, which get() reads.
        """
        value, lock = guard.run(self._turn(key, timeout, version))
        if value is not MISSING:
            return value
        try:
            with guard.building(lock):
                value = default() if callable(default) else default
            return self._store(key, value, timeout, version, lock)
        except BaseException:
            if lock:
                lock.release(stored=False)
            raise

    async def aget_or_set(
        self, key: str, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> Any:
        """get_or_set() for async views. `default` may be an async function."""
        value, lock = await guard.arun(self._turn(key, timeout, version))
        if value is not MISSING:
            return value
        try:
            with guard.building(lock):
                if iscoroutinefunction(default):
                    value = await default()
                else:
                    value = default() if callable(default) else default
            store = sync_to_async(self._store, thread_sensitive=False)
            return await store(key, value, timeout, version, lock)
        except BaseException as error:
            if lock:
                stored = None if isinstance(error, CancelledError) else False
                await sync_to_async(lock.release, thread_sensitive=False)(stored)
            raise

    def _store(
        self, key: str, value: Any, timeout: Any, version: Any, lock: guard.Lock | None
    ) -> Any:
        """Store what was built. Return it, or what another client has stored meanwhile."""
        stored: bool | None
        if lock and lock.refreshes:
            found, is_due, _ = self._look(key, timeout, version)
            if found is MISSING or is_due:
                stored = self.set(key, value, timeout, version)
            else:  # Another client has stored a newer value since this build began.
                value, stored = found, True
        else:
            # Not set(), for the same reason.
            stored = self.add(key, value, timeout, version)
            if stored is False and (found := self.get(key, MISSING, version)) is not MISSING:
                value, stored = found, True
        if lock:
            lock.release(bool(stored) and timeout != 0)
        return value

    def _look(self, key: str, timeout: Any, version: Any, again: bool = True) -> guard.Look:
        seconds = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        before_its_end = 1000 * guard.early(seconds) if seconds else 0
        try:
            value, ttl = self.client.get_with_ttl(key, MISSING, version)
        except ConnectionInterrupted:
            return MISSING, False, None
        if again:
            self.cache_event("again", key, version)
        return value, 0 <= ttl <= before_its_end and value is not MISSING, None

    def _turn(self, key: str, timeout: Any, version: Any) -> guard.Turn:
        if version is None:
            version = self.version
        first = self._look(key, timeout, version, again=False)
        return (
            yield from guard.turn(
                self,
                lambda: str(key),
                lambda: self._look(key, timeout, version),
                first,
                version=version,
            )
        )
