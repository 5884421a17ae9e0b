"""
Invalidations that reach Redis, or wait for it where every process can see them.

An invalidation that fails leaves entries that are wrong, and a Redis that only hung still
has them when it comes back. So a failed one is written to a journal, a folder beside the
database, and the breaker opens: this process reads nothing from Redis until the journal is
empty. A process whose own breaker never opened finds the folder with the next request:
`JournalMiddleware` looks for it, which is one access() a request.

What can't even be written (the disk is full) waits in the memory of its process. The other
processes don't hear of that one, and may show an old page until its timeout. The same goes
for a process that is killed in the moment between COMMIT and its invalidation.

What Redis was told, it may forget: one that saves to disk, or a replica that takes over, comes
back with what it held some time ago, the old name of a generation and its pages. So a Redis for
caches saves nothing.

The journal joins the processes that share the folder of the database. With a database
server and several machines it belongs in a table.
"""

import contextlib
import json
import os
import secrets
from pathlib import Path

from django.conf import settings
from django.core.cache import caches
from django_redis.exceptions import ConnectionInterrupted

from mysite.caches.breaker import breaker_of, on_close
from mysite.caches.log import Quiet
from mysite.caches.pages import new_generations

_unwritten = {}  # What the journal did not take, by the name it would have had.
_log = Quiet()


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
    folder, name = _journal(), f"{secrets.token_hex(8)}.json"
    # Beside the folder first: nobody finds half a file in it.
    part = folder.with_name(f"{folder.name}-{name}")
    try:
        part.write_text(json.dumps(order))
        _move(part, folder, name)
    except OSError as error:
        _unwritten[name] = order
        _log.warning("%s can't be written, other processes may show old pages: %s", folder, error)
        with contextlib.suppress(OSError):
            part.unlink()


def _move(part, folder, name):
    for _ in range(10):  # Somebody may remove the empty folder at this very moment.
        folder.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            part.rename(folder / name)
            return
    raise FileNotFoundError(folder)


@on_close
def deliver(breaker):
    """Carry out all that waits, as one. The breaker stays open when this raises."""
    folder, unwritten = _journal(), _unwritten.copy()
    orders = {path: _read(path) for path in folder.glob("*.json")}
    if None in orders.values():
        # What it dropped, nobody knows any more.
        for alias in caches:
            caches[alias].client.clear()
    _carry_out(_merged([*filter(None, orders.values()), *unwritten.values()]))
    for path in orders:
        path.unlink(missing_ok=True)
    for name in unwritten:
        _unwritten.pop(name, None)
    with contextlib.suppress(OSError):  # It is not there, or somebody wrote to it meanwhile.
        folder.rmdir()


def _read(path):
    """Return the order at `path`, an empty one if it is done, or None for what is none."""
    try:
        order = json.loads(path.read_text())
        if not set(_merged([order])["keys"]) | set(order["generations"]) <= set(caches):
            raise ValueError("unknown alias")
    except FileNotFoundError:
        return {"keys": {}, "generations": {}}  # Another process was first.
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        _log.warning("%s can't be read, emptying the caches: %s", path, error)
        return None
    return order


def _merged(orders):
    """Return one order for all of them: an outage of hours is one round trip an alias too."""
    merged = {"keys": {}, "generations": {}}
    for order in orders:
        for kind, by_alias in merged.items():
            for alias, names in order[kind].items():
                by_alias[alias] = list(dict.fromkeys([*by_alias.get(alias, []), *names]))
    return merged


class JournalMiddleware:
    """Carries out what waits in the journal, or keeps this request from reading Redis."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        # Not _journal().exists(), which takes six times as long when there is none.
        waits = _unwritten or os.access(settings.INVALIDATION_JOURNAL, os.F_OK)
        if waits and not (breaker := breaker_of()).is_open:
            try:
                deliver(breaker)
            except (ConnectionInterrupted, OSError) as error:
                breaker.fail(Undelivered(error))
        return self.get_response(request)
