"""A django-redis client for which a value that can't be read is a miss, never an error."""

from collections.abc import Iterable
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django_redis.client import DefaultClient
from django_redis.exceptions import ConnectionInterrupted
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from resilient_cache.log import Quiet
from resilient_cache.responses import UnsendableResponse
from resilient_cache.serializer import UnreadableValue, ValueTooLarge

_MISSING = object()
_log = Quiet(10)


class Client(DefaultClient):
    """OPTIONS["CLIENT_CLASS"] of resilient_cache.backend.RedisCache."""

    def get_client(self, write: bool = True, tried: Any = None) -> Redis:
        """
        Return the redis-py client of the first server in LOCATION, for reads and for writes.

        A replica can lag behind, and would serve what was invalidated on its primary.
        """
        return super().get_client(True, tried)

    def encode(self, value: Any, **kwargs: Any) -> Any:
        """Return what Redis is to store. An int beyond 64 bits is packed: hiredis can crash."""
        if type(value) is int and not -(2**63) <= value < 2**63:
            return super().encode(value, allow_int=False)
        return super().encode(value, **kwargs)

    def readable(self, key: str, value: Any, default: Any = None) -> Any:
        """Return what Redis holds at `key` as `value`, or `default`: nothing, or unreadable."""
        if value is None:
            return default
        try:
            return self.decode(value)
        except UnreadableValue as error:
            _log.warning("The value of %.200r can't be read, so it is a miss: %s", str(key), error)
            self.cache_event("refused", key)
            return default

    def cache_event(self, what: str, key: str) -> None:
        """Tell the redis-py client, if it is an instrument, what happened at `key`."""
        if tell := getattr(self.get_client(write=False), "cache_event", None):
            tell(what, str(key))

    def get(
        self,
        key: str,
        default: Any = None,
        version: Any = None,
        client: Redis | None = None,
    ) -> Any:
        """Return the value at `key`, or `default` if it is missing or can't be read."""
        client = client or self.get_client(write=False)
        name = self.make_key(key, version=version)
        try:
            value = client.get(name)
        except RedisError as error:
            raise ConnectionInterrupted(connection=client) from error
        return self.readable(name, value, default)

    def get_with_ttl(
        self, key: str, default: Any, version: Any = None, client: Redis | None = None
    ) -> tuple[Any, int]:
        """Return (value or default, milliseconds left) in one round trip. -1: no timeout."""
        client = client or self.get_client(write=False)
        name = self.make_key(key, version=version)
        try:
            pipeline = client.pipeline(transaction=False)
            pipeline.get(name)
            pipeline.pttl(name)
            value, ttl = pipeline.execute()
        except RedisError as error:
            raise ConnectionInterrupted(connection=client) from error
        return self.readable(name, value, default), ttl

    def get_many(
        self, keys: Iterable[str], version: Any = None, client: Redis | None = None
    ) -> dict[str, Any]:
        """Return a dict of the keys that have a readable value."""
        names = {self.make_key(key, version=version): key for key in keys}
        if not names:
            return {}
        client = client or self.get_client(write=False)
        try:
            values = client.mget(*names)
        except RedisError as error:
            raise ConnectionInterrupted(connection=client) from error
        found = {
            key: self.readable(name, value, _MISSING)
            for (name, key), value in zip(names.items(), values, strict=True)
            if value is not None
        }
        return {key: value for key, value in found.items() if value is not _MISSING}

    def has_key(self, key: str, version: Any = None, client: Redis | None = None) -> bool:
        """Return whether get() would find a value. It reads the value: EXISTS can't tell."""
        return self.get(key, _MISSING, version, client) is not _MISSING

    def add(
        self,
        key: str,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: Any = None,
        client: Redis | None = None,
    ) -> bool:
        """Store `value` unless the key has a readable one. Return whether it was stored."""
        if super().add(key, value, timeout, version, client):
            return True
        try:
            if self.has_key(key, version, client):
                return False
        except ConnectionInterrupted as error:
            if not isinstance(error.__cause__, ResponseError):
                raise  # Redis is down. Otherwise the key holds a list or the like.
        # Redis has something at the key that can't be read, and NX would refuse for ever.
        return self.set(key, value, timeout, version, client)

    def set(
        self,
        key: str,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: Any = None,
        client: Redis | None = None,
        **kwargs: Any,
    ) -> bool:
        """
        Store `value` and return whether Redis took it.

        A value that is too large, or a response that no server can send, is not stored.
        """
        try:
            return super().set(key, value, timeout, version, client, **kwargs)
        except (ValueTooLarge, UnsendableResponse) as error:
            _log.warning("The value for %.200r is not cached: %s", key, error)
            if not kwargs.get("nx"):
                # Otherwise the value that this one should have replaced would live on.
                self.delete(key, version=version, client=client)
            return False

    def set_many(
        self,
        data: dict[str, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: Any = None,
        client: Redis | None = None,
    ) -> list[str]:
        """Store a dict of values in one round trip. Return the keys of those too large."""
        client = client or self.get_client(write=True)
        pipeline = client.pipeline()
        failed = [
            key
            for key, value in data.items()
            if not self.set(key, value, timeout, version, client=pipeline)
        ]
        try:
            pipeline.execute()
        except RedisError as error:
            raise ConnectionInterrupted(connection=client) from error
        return failed

    def incr(
        self,
        key: str,
        delta: int = 1,
        version: Any = None,
        client: Redis | None = None,
        ignore_key_check: bool = False,
    ) -> int:
        """
        Add `delta` to the number at `key` and return the sum.

        Raises ValueError when the key is missing, as Django has it, and also when it holds
        something else than a whole number. django-redis uses a Lua script for this, which not
        every Redis user may run.
        """
        client = client or self.get_client(write=True)
        number, had = self.get_with_ttl(key, _MISSING, version, client)
        if type(number) is not int and not ignore_key_check:
            raise ValueError(f"Key {key!r} has no whole number")
        name = self.make_key(key, version=version)
        pipeline = client.pipeline(transaction=False)
        pipeline.incrby(name, delta)
        pipeline.pttl(name)
        try:
            total, has = pipeline.execute()
            if had not in (-1, -2) and has == -1:
                # It expired between the two round trips. Counted on, it would never expire.
                client.delete(name)
                raise ValueError(f"Key {key!r} has no whole number")
        except ResponseError as error:
            if type(number) is not int:
                raise ConnectionInterrupted(connection=client) from error
            # More than 64 bits: Redis can't count that far, and Python can.
            timeout = None if had == -1 else had / 1000
            total = number + delta
            self.set(key, total, timeout, version, client)
        except RedisError as error:
            raise ConnectionInterrupted(connection=client) from error
        return total

    def decr(
        self, key: str, delta: int = 1, version: Any = None, client: Redis | None = None
    ) -> int:
        """Subtract `delta` from the number at `key`. See incr()."""
        return self.incr(key, -delta, version, client)
