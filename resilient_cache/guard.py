"""
A guard against stampedes (dogpile, thundering herd): of all requests that miss, one builds.

The request that misses tries to take a lock: a key beside the value's, set with add() and a
timeout.

- With the lock it looks once more, because the value may have been stored since. Without
  this second look every request that missed would build after all, one after the other.
- Without the lock it waits until the value is there, and takes it.
- In the last part of a value's time, one request takes the lock and builds the next value.
  The others get the value that is still valid, and no request waits.

Waiting is bounded. A request waits no longer than the last build took, plus EXTRA_WAIT seconds;
then it builds for itself. No more than RESILIENT_CACHE["MAX_WAITING"] threads of a process wait.
Where the cache takes no lock (Redis is down or full) the value is built at once.

It works on any of Django's cache backends.
"""

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

from asgiref.local import Local
from asgiref.sync import sync_to_async
from django.core.cache.backends.base import BaseCache
from django.core.signals import request_finished
from django.dispatch import receiver

from resilient_cache.compat import asgi_request
from resilient_cache.conf import conf

LOCK_TIMEOUT = 10  # Seconds after which the lock of a killed process ends.
# Seconds that a request waits where it is unknown how long the last build took, and the
# seconds that it waits longer than that build otherwise.
FIRST_WAIT, EXTRA_WAIT = 2.0, 0.3
# Seconds between two looks at a lock: the first pause, and what the pauses grow to.
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.05
# What a lock holds for ABANDONED_TIMEOUT seconds when there is nothing to wait for.
ABANDONED, ABANDONED_TIMEOUT = "abandoned", 1
# Seconds for which a page that could not be stored is built without a lock.
UNSTORABLE_TIMEOUT = 60
MISSING: Any = object()
# (value or MISSING, whether to build the next one, seconds that the last build took)
Look = tuple[Any, bool, float | None]


class Memory:
    """What this process knows of the latest 1,000 keys. Safe to use from any thread."""

    def __init__(self) -> None:
        self._values: dict[str, float] = {}

    def __setitem__(self, key: str, value: float) -> None:
        if len(self._values) >= 1000:
            self._values.clear()
        self._values[key] = value

    def get(self, key: str, default: float) -> float:
        return self._values.get(key, default)


_build_seconds = Memory()
_unstorable_until = Memory()  # time.monotonic()


class Lock:
    """The lock for one key. It ends with the request that holds it, at the latest."""

    def __init__(self, cache: BaseCache, key: str, version: Any = None) -> None:
        self.cache, self.version, self.value_key = cache, version, key
        self.key = f"lock:{key}"
        # What this process remembers of a key is no use for the same key at another alias.
        self.name = f"{cache.key_prefix}:{key}"
        self.token = secrets.token_hex(8)
        self.began = 0.0
        self.is_held = False
        self.refreshes = False  # Whether the value is there and only near its end.

    def acquire(self) -> bool | None:
        """Return whether it is ours now. None: the cache takes no lock, so do without."""
        taken = self.cache.add(self.key, self.token, LOCK_TIMEOUT, version=self.version)
        if taken:
            self.began, self.is_held = time.monotonic(), True
            held = held_locks()
            held[:] = [*(lock for lock in held if lock.is_held), self]
        return None if taken is None else bool(taken)

    def holder(self) -> Any:
        """Return the token of the request that holds it, ABANDONED, or None."""
        return self.cache.get(self.key, version=self.version)

    def release(self, stored: bool | None = True) -> None:
        """
        Let go of the lock. Without a stored value, all requests that wait go on at once.

        None: nothing was built, because another request had stored the value meanwhile, or
        because this one was cancelled.
        Only the holder's own token is deleted. Between the look and the deletion the lock can
        expire and be taken by another request: then a second request may build, once.
        """
        if not self.is_held:
            return
        self.is_held = False
        if stored:
            _build_seconds[self.name] = time.monotonic() - self.began
        elif stored is False:
            _unstorable_until[self.name] = time.monotonic() + UNSTORABLE_TIMEOUT
        if self.holder() == self.token:
            if stored is False:
                self.cache.set(self.key, ABANDONED, ABANDONED_TIMEOUT, version=self.version)
            else:
                self.cache.delete(self.key, version=self.version)


_held = Local()
_held_in: WeakKeyDictionary[Any, list[Lock]] = WeakKeyDictionary()


def held_locks() -> list[Lock]:
    """Return the list of the locks that this request has taken."""
    if scope := asgi_request():
        return _held_in.setdefault(scope, [])
    try:
        locks: list[Lock] = _held.locks
    except AttributeError:
        locks = _held.locks = []
    return locks


# The tokens of the locks under which this thread or task builds just now.
_building: ContextVar[frozenset[str]] = ContextVar("building", default=frozenset())


@contextmanager
def building(lock: Lock | None) -> Iterator[None]:
    """Build under this lock. What asks for the same key meanwhile does not wait for it."""
    outer = _building.set(_building.get() | {lock.token} if lock else _building.get())
    try:
        yield
    finally:
        _building.reset(outer)


@receiver(request_finished)
def release_locks(**kwargs: Any) -> None:
    """Release what a request still holds: its response was never stored, or never rendered."""
    if locks := held_locks():
        for lock in locks:
            lock.release(stored=False)
        locks.clear()


class _Waiting:
    """Counts the threads of this process that wait."""

    def __init__(self) -> None:
        self._count, self._mutex = 0, threading.Lock()

    def enter(self) -> bool:
        with self._mutex:
            if self._count >= conf()["MAX_WAITING"]:
                return False
            self._count += 1
            return True

    def leave(self) -> None:
        with self._mutex:
            self._count -= 1


_waiting = _Waiting()


def cache_event(cache: BaseCache, what: str, key: str, version: Any = None) -> None:
    """Tell an instrument what the cache knows of `key` and Redis does not. See README.md."""
    if tell := getattr(cache, "cache_event", None):
        tell(what, key, version=version)


Turn = Generator[float, None, tuple[Any, Lock | None]]


def turn(
    cache: BaseCache,
    key_of: Callable[[], str],
    look: Callable[[], Look],
    first: Look,
    *,
    version: Any = None,
) -> Turn:
    """
    Return (value, None), or (MISSING, lock) if the caller is to build.

    A generator: it yields the seconds to sleep, so that run() can serve threads and arun() the
    event loop. `look()` reads the cache; `first` is what it gave the first time. `key_of()` is
    asked after each look, because a page that varies has a key for each variant. (MISSING, None)
    means: build, without a lock.
    """
    value, is_due, seconds = first
    waits_until: float | None = None
    try:
        while True:
            if value is not MISSING and not is_due:
                return value, None
            lock = Lock(cache, key_of(), version)
            if value is MISSING and time.monotonic() < _unstorable_until.get(lock.name, 0):
                return MISSING, None
            taken = lock.acquire()
            if taken is None:
                return value, None
            if taken:
                # Another request may have stored it between our first look and our lock.
                value, is_due, _ = look()
                if value is not MISSING and not is_due:
                    lock.release(None)
                    return value, None
                if lock.key == f"lock:{key_of()}":
                    lock.refreshes = value is not MISSING
                    return MISSING, lock
                lock.release(None)  # It varies, as the second look has told: another key.
                continue
            if value is not MISSING:
                return value, None  # Another request builds the next one.
            now = time.monotonic()
            holder, pause = lock.holder(), FIRST_PAUSE
            if holder in _building.get():
                return MISSING, None  # The value asks for itself while it is built.
            if waits_until is None:
                if not _waiting.enter():
                    return MISSING, None
                waits_until = now + (
                    FIRST_WAIT
                    if (took := seconds or _build_seconds.get(lock.name, 0)) == 0
                    else min(took, LOCK_TIMEOUT) + EXTRA_WAIT
                )
            while holder is not None and holder != ABANDONED and now < waits_until:
                yield min(pause, waits_until - now)
                pause = min(pause * 1.5, LONGEST_PAUSE)
                now, before, holder = time.monotonic(), holder, lock.holder()
                if holder != before:
                    break
            if holder == ABANDONED or now >= waits_until:
                return MISSING, None
            value, is_due, _ = look()
            if value is not MISSING:
                cache_event(cache, "collapsed", key_of(), version)
                return value, None
    finally:
        if waits_until is not None:
            _waiting.leave()


def run(steps: Turn) -> tuple[Any, Lock | None]:
    """Run turn() in a thread."""
    while True:
        try:
            pause = next(steps)
        except StopIteration as end:
            return end.value
        time.sleep(pause)


async def arun(steps: Turn) -> tuple[Any, Lock | None]:
    """Run turn() beside the event loop: neither a cache call nor a sleep blocks it."""

    def step() -> tuple[float | None, Any]:
        try:
            return next(steps), None
        except StopIteration as end:
            return None, end.value

    try:
        while True:
            # Not thread-sensitive: Django has one such thread for all requests.
            running = asyncio.ensure_future(sync_to_async(step, thread_sensitive=False)())
            try:
                pause, result = await asyncio.shield(running)
            except asyncio.CancelledError:
                _, result = await running  # The thread goes on, and may just have taken the lock.
                if result and result[1]:
                    await sync_to_async(result[1].release, thread_sensitive=False)(None)
                raise
            if pause is None:
                return result
            await asyncio.sleep(pause)
    finally:
        with suppress(ValueError):  # It still runs in its thread, if it was cancelled twice.
            steps.close()  # Not left to the garbage collector: it counts as one that waits.


def early(timeout: float) -> float:
    """Return the seconds before its end in which a value with this timeout is built anew."""
    return 0 if timeout < 5 else min(10, timeout / 10)
