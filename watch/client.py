"""
The client that sees every command: OPTIONS = {"REDIS_CLIENT_CLASS": "watch.client.WatchedRedis"}.

Outside a watched request (a management command, a thread of its own) it does what
redis.Redis does. Within one, each command is noted in the current Event.

The time left comes with the value, in one round trip: GET and PTTL leave as a pipeline.
With that, redis-py's own client-side cache (cache_config) and its OpenTelemetry metrics
don't see the reads that are watched.
"""

import logging
from time import perf_counter_ns

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ConnectionError, ResponseError, TimeoutError

from watch.conf import address, config
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
    STALE,
    STORED,
    VARY,
    WRITE,
    Op,
    current,
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
SCRIPTS = {"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO"}

_logger = logging.getLogger("watch")


class WatchedRedis(Redis):
    """A redis.Redis that notes its commands in the current Event."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._address = address(self.connection_pool.connection_kwargs)

    def execute_command(self, *args, **options):
        """Send one command, as redis.Redis does."""
        event = current.get()
        if event is None:
            return super().execute_command(*args, **options)
        ttls, keys = {}, _keys_with_ttl(event, args)
        start = perf_counter_ns()
        try:
            if keys:
                reply, ttls = self._with_ttls(args, options, keys)
            else:
                reply = super().execute_command(*args, **options)
        except Exception as error:
            _note(event, self._address, [args], [error], perf_counter_ns() - start)
            raise
        _note(event, self._address, [args], [reply], perf_counter_ns() - start, ttls)
        return reply

    def _with_ttls(self, args, options, keys):
        """
        Return the reply, and {key: milliseconds left} as Redis has it (-1: no timeout).

        What a pipeline of redis-py does, at a third of its cost.
        """
        connection = self.connection_pool.get_connection()
        commands = [args, *(("PTTL", key) for key in keys)]

        def exchange():
            connection.send_packed_command(connection.pack_commands(commands))
            replies = [self._read(connection, args[0], options)]
            replies += [self._read(connection, "PTTL", {}) for key in keys]
            if isinstance(replies[0], Exception):
                raise replies[0]
            return replies

        try:
            reply, *ttls = connection.retry.call_with_retry(
                exchange, lambda error: connection.disconnect()
            )
        except ResponseError:
            raise
        except BaseException:
            # A reply that was not read would be taken for that of the next command.
            connection.disconnect()
            raise
        finally:
            self.connection_pool.release(connection)
        return reply, dict(zip(keys, ttls, strict=True))

    def _read(self, connection, verb, options):
        try:
            return self.parse_response(connection, verb, **options)
        except ResponseError as error:
            return error

    def pipeline(self, transaction=True, shard_hint=None):
        """Return a pipeline that notes its commands when they are sent."""
        return WatchedPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )

    # What a cache client above this one knows better than Redis. `key` is as Redis has it.

    def refused(self, key):
        """Take note that the value found at `key` was not accepted, e.g. as outdated: a miss."""
        self._amend(key, REFUSED, hit=False)

    def collapsed(self, key):
        """Take note that another request is building what is missing at `key`."""
        self._amend(key, COLLAPSED)

    def stale(self, key, ttl):
        """Take note that the value at `key` is served though it was due `-ttl` seconds ago."""
        self._amend(key, STALE, ttl=int(ttl * 1000))

    def _amend(self, key, note, **values):
        event = current.get()
        op = event and event.last_read(key)
        if op:
            op.note = note
            for name, value in values.items():
                setattr(op, name, value)


class WatchedPipeline(Pipeline):
    """A pipeline that notes its commands. The time of the round trip is shared out."""

    def execute(self, raise_on_error=True):
        """Send what is queued, as redis.client.Pipeline does."""
        event = current.get()
        queued = list(self.command_stack)
        if event is None or not queued:
            return super().execute(raise_on_error)
        server = address(self.connection_pool.connection_kwargs)
        commands = [args for args, _ in queued]
        start = perf_counter_ns()
        try:
            replies = super().execute(raise_on_error=False)
        except Exception as error:
            _note(event, server, commands, [error] * len(queued), perf_counter_ns() - start)
            raise
        _note(event, server, commands, replies, perf_counter_ns() - start)
        if raise_on_error:
            self.raise_first_error(queued, replies)
        return replies

    def immediate_execute_command(self, *args, **options):
        """Send a command between WATCH and MULTI, as redis.client.Pipeline does."""
        event = current.get()
        if event is None:
            return super().immediate_execute_command(*args, **options)
        server = address(self.connection_pool.connection_kwargs)
        start = perf_counter_ns()
        try:
            reply = super().immediate_execute_command(*args, **options)
        except Exception as error:
            _note(event, server, [args], [error], perf_counter_ns() - start)
            raise
        _note(event, server, [args], [reply], perf_counter_ns() - start)
        return reply


def _keys_with_ttl(event, args):
    """Return the keys of a read whose time left is worth asking for."""
    verb = args[0]
    if verb == "GET":
        keys = args[1:2]
    elif verb == "MGET":
        keys = args[1:]
    else:
        return ()
    for key in keys:
        if type(key) is bytes:
            return ()
        if DJANGOS_PAGES in key:
            # Of a page's keys only the page's own time counts.
            return [key for key in keys if PAGE_KEY in key]
    return [key for key in keys[:MAX_TTLS] if key not in event.written]


def _note(event, server, commands, replies, ns, ttls=None):
    """Add to the event what these commands, sent in one round trip, did and took."""
    if len(event.ops) > MAX_NOTED:
        event.left_out += len(commands)
        return
    begin = perf_counter_ns()
    try:
        settings, source = config(), line_that_asked(event)
        fallback = settings.servers.get(server) or "other"
        share = ns // len(commands)
        for args, reply in zip(commands, replies, strict=True):
            keys = _keys(args)
            level, each = settings.level_of(keys[0], fallback), share // len(keys)
            for key, kind, hit, size, ttl, note in _rows(event, args, keys, reply, ttls):
                event.ops.append(Op(args[0], level, key, kind, hit, size, each, ttl, source, note))
    except Exception:
        # A cache that works must not seem broken because somebody watches it.
        _logger.exception("Can't note %.200r", commands)
    event.own_ns += perf_counter_ns() - begin


def _keys(args):
    """Return the keys of a command as text, or ["*"] when it has none."""
    verb = args[0]
    if verb in ("GET", "SET"):
        keys = args[1:2]
    elif verb in ("MGET", "DEL", "UNLINK", "EXISTS", "WATCH"):
        keys = args[1:]
    elif verb in SCRIPTS:
        keys = args[3 : 3 + int(args[2])]
    elif verb == "SCAN":
        keys = args[args.index(b"MATCH") + 1 :][:1] if b"MATCH" in args else ()
    else:
        keys = args[1:2]
    return [_text(key) for key in keys] or ["*"]


def _text(key):
    return bytes(key).decode(errors="backslashreplace") if not isinstance(key, str) else key


def _rows(event, args, keys, reply, ttls):
    """Return (key, kind, hit, size, ttl, note) of each key of a command."""
    verb = args[0]
    error = None
    if isinstance(reply, Exception):
        error = DOWN if isinstance(reply, (ConnectionError, TimeoutError, OSError)) else ERROR
    if verb in ("GET", "MGET"):
        values = (reply,) if verb == "GET" else reply
        if error:
            values = (None,) * len(keys)
        return _reads(event, keys, values, ttls or {}, error)
    if verb in STORES:
        return [_store(event, args, keys[0], reply, error)]
    if verb == "EXISTS" and len(keys) == 1:
        hit = None if error is DOWN else bool(reply) and not error
        kind = READBACK if keys[0] in event.written else LOOKUP
        return [(keys[0], kind, hit, 0, None, error or "")]
    if verb in DELETES:
        event.written.difference_update(keys)
        return [(key, DELETE, None, 0, None, error or "") for key in keys]
    kind = WRITE if verb in CHANGES or verb in SCRIPTS else OTHER
    if kind is WRITE:
        event.written.update(keys)
    return [(key, kind, None, 0, None, error or "") for key in keys]


def _reads(event, keys, values, ttls, error):
    rows = []
    with_page = any(DJANGOS_PAGES in key for key in keys)
    for key, value in zip(keys, values, strict=True):
        if key in event.written:
            kind = READBACK
        elif not with_page:
            kind = LOOKUP
        elif PAGE_KEY in key:
            kind = PAGE
        else:
            kind = VARY if VARY_KEY in key else ASIDE
        ttl = ttls.get(key)
        if type(ttl) is not int or ttl == -1:
            ttl = None  # Has no timeout. Or Redis doesn't let this user ask.
        elif ttl < 0:
            ttl = 0  # It was there, and went before the second question.
        hit = None if error is DOWN else value is not None
        rows.append((key, kind, hit, len(value) if value else 0, ttl if hit else None, error or ""))
    return rows


def _store(event, args, key, reply, error):
    event.written.add(key)
    verb, value, options, ttl = args[0], args[2], args[3:], None
    if verb in ("SETEX", "PSETEX"):
        value, options = args[3], ("EX" if verb == "SETEX" else "PX", args[2])
    size = len(value) if isinstance(value, (bytes, str)) else len(str(value))
    for name, milliseconds in (("PX", 1), ("EX", 1000)):
        if name in options:
            ttl = int(options[options.index(name) + 1]) * milliseconds
    kind = WRITE
    if DJANGOS_PAGES in key:
        kind = PAGE if PAGE_KEY in key else VARY
    return key, kind, None, size, ttl, error or (STORED if reply else NOT_STORED)
