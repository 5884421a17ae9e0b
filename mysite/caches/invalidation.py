"""
Invalidations that reach Redis, or wait for it where every process can see them.

An invalidation that fails leaves entries that are wrong, and a Redis that only hung still
has them when it comes back. So a failed one is written to a journal, a folder beside the
database, and the breaker opens: this process reads nothing from Redis until the journal is
empty. A process whose own breaker never opened finds the folder with the next request:
`JournalMiddleware` looks for it, which is one stat() a request.

The journal joins the processes that share the folder of the database. With a database
server and several machines it belongs into a table.
"""

import contextlib
import json
import secrets
from pathlib import Path

from django.conf import settings
from django.core.cache import InvalidCacheBackendError, caches
from django_redis.exceptions import ConnectionInterrupted

from mysite.caches.breaker import breaker_of, on_close
from mysite.caches.pages import new_generations


class Undelivered(Exception):
    """An invalidation waits for Redis, so nothing in Redis may be read."""


def invalidate(generations, keys):
    """
    Make the pages of `generations` unreachable and delete `keys`, now or before the next read.

    `generations` are (alias, name) pairs, `keys` maps an alias to a list. Never raises for
    Redis: what can't be done now is written to the journal.
    """
    order = {"keys": keys, "generations": {}}
    for alias, name in sorted(generations):
        order["generations"].setdefault(alias, []).append(name)
    try:
        _carry_out(order)
    except ConnectionInterrupted as error:
        _write(order)
        breaker_of().fail(Undelivered(error))


def _carry_out(order):
    """Raise ConnectionInterrupted unless Redis has done all of it."""
    for alias, names in order["generations"].items():
        new_generations(alias, names)
    for alias, keys in order["keys"].items():
        # The client, not the cache in front of it, which would ignore the exception.
        caches[alias].client.delete_many(keys)


def _journal():
    return Path(settings.INVALIDATION_JOURNAL)


def _write(order):
    folder = _journal()
    name = f"{secrets.token_hex(8)}.json"
    for _ in range(3):  # Somebody may remove the empty folder at this very moment.
        folder.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            # Under another name first: nobody finds half a file.
            part = folder / f"{name}.part"
            part.write_text(json.dumps(order))
            part.rename(folder / name)
            return


@on_close
def deliver(breaker):
    """Carry out what is in the journal. The breaker stays open when this raises."""
    folder = _journal()
    for path in folder.glob("*.json"):
        try:
            _carry_out(json.loads(path.read_text()))
        except FileNotFoundError:
            continue  # Another process was first.
        except (ValueError, LookupError, TypeError, InvalidCacheBackendError):
            # Not what this release writes. Whatever it was about is gone with all the rest.
            for alias in caches:
                caches[alias].client.clear()
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


class JournalMiddleware:
    """Carries out what waits in the journal, or keeps this request from reading Redis."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        if _journal().exists() and not (breaker := breaker_of()).is_open:
            try:
                deliver(breaker)
            except ConnectionInterrupted as error:
                breaker.fail(Undelivered(error))
        return self.get_response(request)
