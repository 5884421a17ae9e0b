"""What a command of redis-py and its reply say: which keys, hit or miss, bytes, time left."""

import logging
from functools import lru_cache
from time import perf_counter_ns

from django.core.signals import setting_changed
from django.dispatch import receiver
from redis.exceptions import ConnectionError, TimeoutError

from watch.conf import config
from watch.event import (
    ASIDE,
    DELETE,
    DOWN,
    ERROR,
    LOOKUP,
    MAX_NOTED,
    NOT_STORED,
    OTHER,
    PAGE,
    READBACK,
    STORED,
    VARY,
    WRITE,
    Op,
)
from watch.source import line_that_asked

# Asking more keys than these for their time left costs more than it tells.
MAX_TTLS = 20

# How Django's page cache names its keys, behind any prefix.
DJANGOS_PAGES = "views.decorators.cache.cache_"
PAGE_KEY = DJANGOS_PAGES + "page."
VARY_KEY = DJANGOS_PAGES + "header."

STORES = {"SET", "SETEX", "PSETEX", "SETNX"}
CHANGES = {"INCR", "INCRBY", "INCRBYFLOAT", "DECR", "DECRBY", "APPEND"}
DELETES = {"DEL", "UNLINK", "FLUSHDB", "FLUSHALL"}
OF_MANY_KEYS = {"MGET", "DEL", "UNLINK", "EXISTS", "TOUCH", "WATCH"}
SCRIPTS = {"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO"}

_logger = logging.getLogger("watch")


@lru_cache(maxsize=50)  # Once, and not for each of a thousand commands a second.
def complain(what, error):
    """Log, within an `except`, what the instrument could not do."""
    _logger.exception("%s: %s", what, error)


@lru_cache(maxsize=1000)
def place_of(key):
    """
    Return (level or None, kind) of a key, as its text alone tells.

    The kind is PAGE, VARY or ASIDE, or LOOKUP for any other. What a site is asked for most it
    is asked for again and again, so these are kept.
    """
    settings = config()
    kind = LOOKUP
    if settings.is_aside(key):
        kind = ASIDE
    elif DJANGOS_PAGES in key:
        kind = PAGE if PAGE_KEY in key else VARY if VARY_KEY in key else LOOKUP
    return settings.level_of(key, None), kind


@receiver(setting_changed)
def _forget(**kwargs):
    place_of.cache_clear()


def keys_with_ttl(event, args):
    """Return the keys of a read whose time left is worth asking for."""
    verb = args[0]
    if verb == "GET":
        keys = args[1:2]
    elif verb == "MGET":
        keys = args[1:]
    else:
        return ()
    wanted = []
    for key in keys[:MAX_TTLS]:
        if not isinstance(key, str):
            return ()
        kind = place_of(key)[1]
        if kind is PAGE or kind is VARY:
            # Of a page's keys only the page's own time counts.
            return [key for key in keys if place_of(key)[1] is PAGE]
        if kind is LOOKUP and key not in event.written:
            wanted.append(key)
    return wanted


def note(event, server, commands, replies, ns, ttls=None):
    """
    Add to the event what these commands did, which left in one round trip that took `ns`.

    `replies` may be exceptions. `ttls` are the milliseconds left of some keys.
    """
    if len(event.ops) > MAX_NOTED:
        event.left_out += len(commands)
        return
    begin = perf_counter_ns()
    try:
        source, ttls = line_that_asked(event), ttls or {}
        fallback = config().servers.get(server) or "other"
        part = ns // len(commands)
        for args, reply in zip(commands, replies, strict=True):
            keys = _keys(args)
            level = place_of(keys[0])[0] or fallback
            ops, timed = [], []
            for key, kind, hit, size, ttl, what in _rows(event, args, keys, reply, ttls):
                if place_of(key)[1] is ASIDE:
                    kind = ASIDE
                op = Op(args[0], level, key, kind, hit, size, 0, ttl, source, what)
                ops.append(op)
                if kind is not ASIDE:
                    timed.append(op)
            # What is asked aside takes no time of its own: the trip was for the others.
            share_out(part, timed or ops)
            event.ops += ops
    except Exception as error:
        # A cache that works must not seem broken because somebody watches it.
        complain("A command is not noted", repr(error))
    event.own_ns += perf_counter_ns() - begin


def share_out(ns, ops):
    """Give each operation its part of the time of their round trip."""
    part = ns // len(ops)
    for op in ops:
        op.ns = part


def _keys(args):
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


def _text(key):
    return bytes(key).decode(errors="backslashreplace") if not isinstance(key, int) else str(key)


def _rows(event, args, keys, reply, ttls):
    """Return (key, kind, hit, size, ttl, note) of each key of a command."""
    verb, error = args[0], ""
    if isinstance(reply, Exception):
        is_away = isinstance(reply, (ConnectionError, TimeoutError, OSError))
        error = DOWN if is_away else ERROR
    if verb == "GET":
        return _reads(event, keys, [None if error else reply], ttls, error)
    if verb == "MGET" and len(args) > 1:
        return _reads(event, keys, [None] * len(keys) if error else reply, ttls, error)
    if verb in STORES:
        return [_store(event, args, keys[0], reply, error)]
    if verb == "EXISTS" and len(keys) == 1:
        kind = READBACK if keys[0] in event.written else LOOKUP
        hit = None if error is DOWN else not error and bool(reply)
        return [(keys[0], kind, hit, 0, None, error)]
    if verb in DELETES:
        event.written.difference_update(keys)
        return [(key, DELETE, None, 0, None, error) for key in keys]
    kind = OTHER
    if verb in CHANGES or verb in SCRIPTS:
        kind = WRITE
        event.written.update(keys)
    return [(key, kind, None, 0, None, error) for key in keys]


def _reads(event, keys, values, ttls, error):
    rows = []
    kinds = [place_of(key)[1] for key in keys]
    is_page = PAGE in kinds or VARY in kinds
    for key, kind, value in zip(keys, kinds, values, strict=True):
        if key in event.written:
            kind = READBACK
        elif is_page and kind is LOOKUP:
            kind = ASIDE
        if value is None:
            rows.append((key, kind, None if error is DOWN else False, 0, None, error))
        else:
            rows.append((key, kind, True, len(value), _time_left(ttls.get(key)), error))
    return rows


def _time_left(reply):
    """Return what PTTL answered as milliseconds, or None."""
    if type(reply) is not int or reply == -1:
        return None  # Not asked, not allowed to ask, or no timeout.
    return max(reply, 0)  # -2: it was still there, and gone at the second question.


def _store(event, args, key, reply, error):
    event.written.add(key)
    verb, value, options, ttl = args[0], args[2], args[3:], None
    if verb in ("SETEX", "PSETEX"):
        value, options = args[3], ("EX" if verb == "SETEX" else "PX", args[2])
    for name, milliseconds in (("PX", 1), ("EX", 1000)):
        if name in options:
            ttl = int(options[options.index(name) + 1]) * milliseconds
    size = len(value) if isinstance(value, (bytes, str)) else len(str(value))
    kind = WRITE
    if DJANGOS_PAGES in key:
        kind = PAGE if PAGE_KEY in key else VARY
    return key, kind, None, size, ttl, error or (STORED if reply else NOT_STORED)
