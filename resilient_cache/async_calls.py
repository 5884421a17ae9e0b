"""
The async methods that Django makes of several others, each in one call to the cache.

BaseCache.aincr() is a get and a set: two tasks may both add 1 to the same number, and the key gets
the default timeout. BaseCache.aget_many() is one round trip per key. Here each runs the method
without the `a` in a thread, beside the event loop.
"""

from collections.abc import Iterable
from typing import Any

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT


async def _in_thread(method: Any, *args: Any, **kwargs: Any) -> Any:
    return await sync_to_async(method, thread_sensitive=False)(*args, **kwargs)


class AsyncCalls:
    """A mixin for a cache backend, which has the methods that are named here."""

    incr: Any
    decr: Any
    get_many: Any
    set_many: Any
    delete_many: Any
    incr_version: Any

    async def aincr(self, key: str, delta: int = 1, version: Any = None) -> Any:
        """incr() for async views: atomic, and the key keeps the time that it has left."""
        return await _in_thread(self.incr, key, delta, version)

    async def adecr(self, key: str, delta: int = 1, version: Any = None) -> Any:
        """decr() for async views: atomic, and the key keeps the time that it has left."""
        return await _in_thread(self.decr, key, delta, version)

    async def aget_many(self, keys: Iterable[str], version: Any = None) -> Any:
        """get_many() for async views: one round trip."""
        return await _in_thread(self.get_many, keys, version)

    async def aset_many(
        self,
        data: dict[str, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: Any = None,
        **kwargs: Any,
    ) -> Any:
        """set_many() for async views: one round trip."""
        return await _in_thread(self.set_many, data, timeout, version, **kwargs)

    async def adelete_many(self, keys: Iterable[str], version: Any = None) -> Any:
        """delete_many() for async views: one round trip."""
        return await _in_thread(self.delete_many, keys, version)

    async def aincr_version(self, key: str, delta: int = 1, version: Any = None) -> Any:
        """incr_version() for async views."""
        return await _in_thread(self.incr_version, key, delta, version)
