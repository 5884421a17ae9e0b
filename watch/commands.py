"""What a command of redis-py and its reply say: which keys, hit or miss, bytes, time left."""

import logging
from collections.abc import Sequence
from functools import lru_cache
from time import perf_counter_ns
from typing import Any, NamedTuple

from django.core.signals import setting_changed
from django.dispatch import receiver
from redis.exceptions import ConnectionError, TimeoutError

from watch.conf import Address, config
from watch.event import (
    ASIDE,
    COLLAPSED,
    DELETE,
    DOWN,
    ERROR,
    LOOKUP,
    MAX_NOTED,
    NOT_STORED,
    OTHER,
    PAGE,
    READBACK,
    REFUSED,
    STORED,
    VARY,
    WRITE,
    Event,
    Op,
)
from watch.source import line_of_page, line_that_asked

# Asking more keys than these for their time left costs more than it tells.
MAX_TTLS = 20

STORES = {"SET", "SETEX", "PSETEX", "SETNX"}
CHANGES = {"INCR", "INCRBY", "INCRBYFLOAT", "DECR", "DECRBY", "APPEND"}
DELETES = {"DEL", "UNLINK", "FLUSHDB", "FLUSHALL"}
OF_MANY_KEYS = {"MGET", "DEL", "UNLINK", "EXISTS", "TOUCH", "WATCH"}
SCRIPTS = {"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO"}

# A command, as redis-py is given it.
Args = tuple[Any, ...]
# Key, kind, hit, size, milliseconds left, note: one key of a command.
Row = tuple[str, str, bool | None, int, int | None, str]

_logger = logging.getLogger("watch")


@lru_cache(maxsize=50)  # Once, and not for each of a thousand commands a second.
def complain(what: str, error: str) -> None:
    """Log, within an `except`, what the instrument could not do."""
    _logger.exception("%s: %s", what, error)


@lru_cache(maxsize=1000)
def place_of(key: str) -> tuple[str | None, str]:
    """
    Return (level or None, kind) of a key, as WATCH tells them by the beginnings of keys.

    The kind is PAGE, VARY or ASIDE, or LOOKUP for any other.
    """
    settings = config()
    name, kind = settings.name_of(key), LOOKUP
    if name.startswith(settings.aside):
        kind = ASIDE
    elif name.startswith(settings.pages):
        kind = PAGE
    elif name.startswith(settings.vary):
        kind = VARY
    return settings.level_of(key, None), kind


@receiver(setting_changed)
def _forget(**kwargs: Any) -> None:
    place_of.cache_clear()
    _read_of.cache_clear()


class Read(NamedTuple):
    """What the text of a GET or MGET says."""

    keys: tuple[str, ...]
    level: str | None
    kinds: tuple[str, ...]  # of each key
    wanted: tuple[str, ...]  # the keys whose time left is worth asking for
    is_of_page: bool
    shares: tuple[int, ...]  # 1 for each key that has a share in the time of the round trip, else 0


@lru_cache(maxsize=1000)
def _read_of(args: Args) -> Read | None:
    keys = args[1:]
    if not keys or not all(isinstance(key, str) for key in keys):
        return None
    kinds = [place_of(key)[1] for key in keys]
    wanted = [key for key, kind in zip(keys, kinds, strict=True) if kind in (PAGE, LOOKUP)]
    return Read(
        keys=keys,
        level=place_of(keys[0])[0],
        kinds=tuple(kinds),
        wanted=tuple(wanted[:MAX_TTLS]),
        is_of_page=PAGE in kinds or VARY in kinds,
        shares=shares(kinds),
    )


def read_of(args: Args) -> Read | None:
    """Return the Read that this command is, or None for any other command."""
    if args[0] != "MGET" and (args[0] != "GET" or len(args) != 2):
        return None
    try:
        return _read_of(args)
    except TypeError:  # A key that can be changed, such as a bytearray.
        return None


def keys_with_ttl(event: Event, read: Read) -> Sequence[str]:
    """Return the keys of a Read whose time left is to be asked for, too."""
    if event.written:
        return [key for key in read.wanted if key not in event.written]
    return read.wanted


def note_read(
    event: Event, server: Address, read: Read, verb: str, reply: Any, ns: int, ttls: dict[str, Any]
) -> None:
    """note(), for one Read: hits are made of these. `ttls` are the milliseconds keys have left."""
    if len(event.ops) > MAX_NOTED:
        event.left_out += 1
        return
    begin = perf_counter_ns()
    try:
        level = read.level or config().servers.get(server) or "other"
        source = (read.is_of_page and line_of_page(event, level)) or line_that_asked(event)
        event.ops += _reads(event, read, verb, level, source, reply, ns, ttls)
    except Exception as error:
        # A cache that works must not seem broken because somebody watches it.
        complain("A command is not noted", repr(error))
    event.own_ns += perf_counter_ns() - begin


def note(
    event: Event, server: Address, commands: Sequence[Args], replies: Sequence[Any], ns: int
) -> None:
    """
    Add to the event what these commands did, which left in one round trip that took `ns`.

    `replies` may be exceptions.
    """
    if len(event.ops) > MAX_NOTED:
        event.left_out += len(commands)
        return
    begin = perf_counter_ns()
    try:
        # A cache may ask for the time left by itself: then it belongs to the read beside it.
        ttls: dict[str, Any] = {}
        if len(commands) > 1:
            read_keys = {key for args in commands if args[0] in ("GET", "MGET") for key in args[1:]}
            ttls = {
                args[1]: reply
                for args, reply in zip(commands, replies, strict=True)
                if args[0] == "PTTL" and args[1] in read_keys
            }
        source = line_that_asked(event)
        fallback = config().servers.get(server) or "other"
        part = ns // (len(commands) - len(ttls))
        for args, reply in zip(commands, replies, strict=True):
            if args[0] == "PTTL" and args[1] in ttls:
                continue
            keys = _keys(args)
            level = place_of(keys[0])[0] or fallback
            is_read = args[0] in ("GET", "MGET") and len(args) > 1
            if is_read and (read := _read_of((args[0], *keys))):
                event.ops += _reads(event, read, args[0], level, source, reply, part, ttls)
                continue
            rows = _rows(event, args, keys, reply)
            timed = shares([row[1] for row in rows])
            for (key, kind, hit, size, ttl, what), share in zip(rows, timed, strict=True):
                of_page = kind in (PAGE, VARY) and line_of_page(event, level)
                time = part * share // sum(timed)
                line = of_page or source
                event.ops.append(Op(args[0], level, key, kind, hit, size, time, ttl, line, what))
    except Exception as error:
        complain("A command is not noted", repr(error))
    event.own_ns += perf_counter_ns() - begin


def amend(event: Event, what: str, key: str) -> None:
    """Note what the cache above redis-py says of its latest read of `key`: cache_event()."""
    # Of one that failed there is nothing to say.
    op = next((op for op in reversed(event.ops) if op.key == key and op.hit is not None), None)
    if op is None:
        return
    if what == "refused":
        op.note, op.hit = REFUSED, False
    elif what == "again":
        op.kind = READBACK
    elif what == "varies" and op.is_read:
        op.kind = VARY
    elif what == "collapsed" and (first := event.last_read(key)):
        first.note = COLLAPSED


def shares(kinds: Sequence[str]) -> tuple[int, ...]:
    """
    Return 1 for each key that has a share in the time of its round trip, else 0.

    Bookkeeping has no share: the round trip was for the others.
    """
    return (
        tuple(int(kind is not ASIDE) for kind in kinds)
        if set(kinds) - {ASIDE}
        else (1,) * len(kinds)
    )


def _keys(args: Args) -> list[str]:
    """Return the keys of a command as text, or ["*"] when it has none."""
    verb = args[0]
    if verb in OF_MANY_KEYS:
        keys = args[1:]
    elif verb in SCRIPTS:
        keys = args[3 : 3 + int(args[2])]
    elif verb == "SCAN":
        keys = args[args.index(b"MATCH") + 1 :][:1] if b"MATCH" in args else ()
    else:
        keys = args[1:2]
    return [key if isinstance(key, str) else _text(key) for key in keys] or ["*"]


def _text(key: Any) -> str:
    return bytes(key).decode(errors="backslashreplace") if not isinstance(key, int) else str(key)


def _rows(event: Event, args: Args, keys: list[str], reply: Any) -> list[Row]:
    """Return (key, kind, hit, size, ttl, note) of each key of a command that is not a Read."""
    verb, error = args[0], ""
    if isinstance(reply, Exception):
        error = _what(reply)
    hit, kind = None, OTHER
    if verb in STORES:
        rows = [_store(event, args, keys[0], reply, error)]
    else:
        if verb == "EXISTS" and len(keys) == 1:
            kind = READBACK if keys[0] in event.written else LOOKUP
            hit = None if error is DOWN else not error and bool(reply)
        elif verb in DELETES:
            event.written.difference_update(keys)
            kind = DELETE
        elif verb in CHANGES or verb in SCRIPTS:
            kind = WRITE
            event.written.update(keys)
        rows = [(key, kind, hit, 0, None, error) for key in keys]
    return [(row[0], ASIDE, *row[2:]) if place_of(row[0])[1] is ASIDE else row for row in rows]


def _what(error: Exception) -> str:
    """Return the note of a command that failed."""
    return DOWN if isinstance(error, (ConnectionError, TimeoutError, OSError)) else ERROR


def _reads(
    event: Event,
    read: Read,
    verb: str,
    level: str,
    source: str,
    reply: Any,
    ns: int,
    ttls: dict[str, Any],
) -> list[Op]:
    """Return an Op for each key of a Read. `reply` is what Redis said, or an exception."""
    error, ops, written, part = "", [], event.written, ns // sum(read.shares)
    if isinstance(reply, Exception):
        error, values = _what(reply), (None,) * len(read.keys)
    else:
        values = reply if verb == "MGET" else (reply,)
    for key, kind, share, value in zip(read.keys, read.kinds, read.shares, values, strict=True):
        if written and key in written and kind is not ASIDE:
            kind = READBACK
        if value is None:
            hit = None if error is DOWN else False
            if error is DOWN and event.last_read(key):
                kind = ASIDE  # The answer is there already. What failed is its renewal.
            ops.append(Op(verb, level, key, kind, hit, 0, part * share, None, source, error))
        else:
            size, left = len(value), _time_left(ttls[key]) if key in ttls else None
            ops.append(Op(verb, level, key, kind, True, size, part * share, left, source, error))
    return ops


def _time_left(reply: Any) -> int | None:
    """Return what PTTL answered as milliseconds, or None."""
    if type(reply) is not int or reply == -1:
        return None  # Not asked, not allowed to ask, or no timeout.
    return max(reply, 0)  # -2: it expired between GET and PTTL.


def _store(event: Event, args: Args, key: str, reply: Any, error: str) -> Row:
    event.written.add(key)
    verb, value, options, ttl = args[0], args[2], args[3:], None
    if verb in ("SETEX", "PSETEX"):
        value, options = args[3], ("EX" if verb == "SETEX" else "PX", args[2])
    for name, milliseconds in (("PX", 1), ("EX", 1000)):
        if name in options:
            ttl = int(options[options.index(name) + 1]) * milliseconds
    size = len(value) if isinstance(value, (bytes, str)) else len(str(value))
    kind = place_of(key)[1]
    if kind is LOOKUP:
        kind = WRITE
    return key, kind, None, size, ttl, error or (STORED if reply else NOT_STORED)
