"""
Groups: invalidation of any number of entries by one write.

A group has a version, an int in the cache at `group:<name>`. What belongs to the group is
stored with the version that was current before it was built, and counts only while that
version is current. invalidate() deletes the version, and the next request makes another one:
one round trip for each alias, whether ten or a hundred thousand entries carry the old one.
They are never served again and expire by themselves.

- A slow reader can't put an old value back: its value carries the old version.
- Versions are random, so a version that was evicted never comes back.
- A path is the group of all pages at this path: invalidate("/about/").
"""

import atexit
import logging
import secrets
import threading
import time
from collections.abc import Iterable

from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.db import transaction

from resilient_cache.breaker import Breaker, on_close
from resilient_cache.compat import waiting_callbacks
from resilient_cache.names import group_key, keys_to_invalidate

__all__ = ["group_key", "invalidate", "invalidate_on_commit", "version"]

logger = logging.getLogger("resilient_cache")

# Seconds that a version lives after a page was last stored under it. If it expires, the values
# under it are misses.
VERSION_TIMEOUT = 48 * 60 * 60
# Seconds that a version lives while nothing is stored under it. A client can ask for any path,
# and each has a version.
UNUSED_VERSION_TIMEOUT = 60
# Seconds after which a failover can't have lost an invalidation any more.
RECENT = 60
# Seconds that a process goes on trying before it ends.
PATIENCE = 5
# How many of its latest groups a process remembers for that.
MOST_RECENT = 10_000
# How many groups a process remembers that Redis did not take. With more, it empties the cache.
MOST_OWED = 1000
# How many groups one round trip invalidates. With more, Redis could take longer than its timeout.
MOST_AT_ONCE = 500


class NotInvalidated(Exception):
    """Redis did not take an invalidation, so it is not read until it has taken it."""


def new_version() -> int:
    """Return a version that no entry has."""
    return secrets.randbits(62)


def version(group: str, cache: str = "default") -> int:
    """
    Return the group's version, for `cache.get_or_set(..., version=version("posts"))`.

    Within a transaction that will invalidate the group, and where the cache is down, it is a
    fresh version each time: the value is then built, and not found by anybody else.
    """
    key = group_key(group)
    if key in pending():
        return new_version()
    backend = caches[cache]
    current = backend.get(key)
    if type(current) is not int:
        backend.add(key, new_version(), VERSION_TIMEOUT)
        current = backend.get(key)
    return current if type(current) is int else new_version()


def versions(
    cache: BaseCache, keys: Iterable[str], found: dict[str, object]
) -> tuple[int, ...] | None:
    """
    Return the versions at `keys` from what get_many() `found`, or None if one is missing.

    A missing one is made; the caller looks again before it builds.
    """
    current = tuple(found.get(key) for key in keys)
    for key, value in zip(keys, current, strict=True):
        if type(value) is not int:
            cache.add(key, new_version(), UNUSED_VERSION_TIMEOUT)
    return current if all(type(value) is int for value in current) else None  # type: ignore[return-value]


def invalidate(*groups: str) -> None:
    """
    Invalidate everything in these groups, at every alias in CACHES, now.

    Raises ValueError for a name that is not one, and nothing when Redis is down: then this
    process does it before it reads from Redis again. Raises the error of another backend, once
    it is done at the other aliases.
    """
    keys = keys_to_invalidate(groups)
    _remember(keys)
    errors = []
    for alias in settings.CACHES:
        try:
            _invalidate_at(alias, keys)
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]


class Invalidation:
    """An invalidation that waits for COMMIT."""

    def __init__(self, groups: Iterable[str]) -> None:
        self.groups = tuple(groups)
        self.keys = frozenset(keys_to_invalidate(self.groups))
        self.is_done = False

    def __call__(self) -> None:
        self.is_done = True
        invalidate(*self.groups)


def invalidate_on_commit(*groups: str, using: str | None = None) -> None:
    """
    Invalidate these groups after COMMIT, or at once where no transaction is open.

    Any earlier, another request could store the old row again. Until COMMIT or ROLLBACK this
    thread neither reads nor stores anything of these groups: it would see its own change, or
    show it to others. Raises ValueError for a name that is not one.
    """
    transaction.on_commit(Invalidation(groups), using=using)


def pending() -> frozenset[str]:
    """Return the keys of the groups that this thread will invalidate at COMMIT."""
    waiting = [
        callback.keys
        for callback in waiting_callbacks()
        if isinstance(callback, Invalidation) and not callback.is_done
    ]
    return frozenset().union(*waiting) if waiting else frozenset()


# Groups that Redis did not take, for each alias.
_owed: dict[str, set[str]] = {}
# The groups of the last minute, oldest first: {key: time.monotonic()}.
_recent: dict[str, float] = {}
_recent_lock = threading.Lock()


def _remember(keys: Iterable[str]) -> None:
    now = time.monotonic()
    with _recent_lock:
        for key in keys:
            _recent.pop(key, None)  # To the end of the dict.
            _recent[key] = now
        while _recent and (
            len(_recent) > MOST_RECENT or _recent[next(iter(_recent))] < now - RECENT
        ):
            del _recent[next(iter(_recent))]


def _of_the_last_minute() -> set[str]:
    since = time.monotonic() - RECENT
    with _recent_lock:
        return {key for key, at in _recent.items() if at >= since}


def owed() -> dict[str, set[str]]:
    """Return for each alias the keys of the groups that this process has yet to invalidate."""
    return {alias: set(keys) for alias, keys in _owed.items() if keys}


def forget() -> None:
    """Forget what Redis did not take. What belongs to these groups stays until its timeout."""
    _owed.clear()


def _invalidate_at(alias: str, keys: Iterable[str]) -> None:
    cache, keys = caches[alias], set(keys)
    if _delete_versions(cache, keys):
        return
    owed = _owed.setdefault(alias, set())
    if len(owed) <= MOST_OWED:  # One more is enough to know that the cache is to be emptied.
        owed |= keys
    # Nothing is read until it is done.
    cache.breaker.fail(NotInvalidated(f"{len(keys)} groups of {alias!r} are not invalidated"))


def _delete_versions(cache: BaseCache, keys: set[str]) -> bool:
    """
    Delete the versions of these groups. Return whether the cache has taken that.

    The next request makes a new version, which no entry has. A full Redis takes a DEL, and
    refuses a SET.
    """
    if len(keys) > MOST_AT_ONCE:
        names = sorted(keys)
        parts = [names[i : i + MOST_AT_ONCE] for i in range(0, len(names), MOST_AT_ONCE)]
        return all(_delete_versions(cache, set(part)) for part in parts)
    deleted = cache.delete_many(keys)
    # Other backends raise their errors, and may answer None where they did it.
    return deleted is not None or not hasattr(cache, "breaker")


def settle() -> list[str]:
    """
    Wait until Redis has taken what this process still has to invalidate, PATIENCE seconds at most.

    Return the aliases at which it has not.
    """
    ends = time.monotonic() + PATIENCE
    while (open_at := _aliases_to_settle()) and time.monotonic() < ends:
        caches[open_at[0]].breaker.probe()
        time.sleep(0.1)
    return open_at


def _aliases_to_settle() -> list[str]:
    known = set(owed()).intersection(settings.CACHES)
    return sorted(alias for alias in known if caches[alias].breaker.is_open)


@atexit.register
def settle_before_exit() -> None:
    """settle(), and log what may stay old: once this process has ended, no other one knows it."""
    if _owed and (aliases := settle()):
        logger.warning(
            "Redis did not take all invalidations before this process ended. What is cached at %s "
            "may stay old until its timeout: see `manage.py invalidate`.",
            ", ".join(aliases),
        )


@on_close
def invalidate_again(breaker: Breaker) -> None:
    """
    Invalidate what Redis did not take, and the groups of the last minute again.

    A failover loses the latest writes, and invalidations can be among them.
    """
    for alias in settings.CACHES:
        cache = caches[alias]
        if getattr(cache, "breaker", None) is not breaker:
            continue
        owed = _owed.get(alias, set()).copy()
        if len(owed) > MOST_OWED:
            done = cache.clear() is not None
        else:
            keys = owed | _of_the_last_minute()
            done = not keys or _delete_versions(cache, keys)
        if not done:
            raise NotInvalidated(f"groups of {alias!r} are not invalidated")
        if owed:
            _owed[alias] -= owed
