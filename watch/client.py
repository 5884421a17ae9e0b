"""
The client that sees every command: OPTIONS = {"REDIS_CLIENT_CLASS": "watch.client.WatchedRedis"}.

Outside a watched request (a management command, a thread of its own) it does what
redis.Redis does. Within one, each command is noted in the current Event.

The time left comes with the value, in one round trip: GET and PTTL leave as a pipeline.
With that, redis-py's own client-side cache (cache_config) and its OpenTelemetry metrics
don't see the reads that are watched.
"""

import os
from collections import deque
from time import perf_counter_ns
from weakref import WeakKeyDictionary

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ConnectionError, ResponseError

from watch.commands import keys_with_ttl, note, note_read, read_of
from watch.conf import address
from watch.event import COLLAPSED, READBACK, REFUSED, STALE, current

# Connections for reads, beside each pool. Those of the pool are checked each time they are
# taken, which costs as much as the read; here a lost one is replaced when it is noticed.
_idle = WeakKeyDictionary()  # pool: deque of connections


class WatchedRedis(Redis):
    """A redis.Redis that notes its commands in the current Event."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._address = address(self.connection_pool.connection_kwargs)
        self._idle = _idle.setdefault(self.connection_pool, deque())

    def execute_command(self, *args, **options):
        """Send one command, as redis.Redis does."""
        event = current.get()
        if event is None:
            return super().execute_command(*args, **options)
        if read := read_of(args):
            # `keys` are for redis-py's own cache, which has no part in this.
            options.pop("keys", None)
            return self._watch_read(event, read, args[0], self._ask, args, options)
        start = perf_counter_ns()
        try:
            reply = super().execute_command(*args, **options)
        except Exception as error:
            note(event, self._address, [args], [error], perf_counter_ns() - start)
            raise
        note(event, self._address, [args], [reply], perf_counter_ns() - start)
        return reply

    def watch_mget(self, names, ask):
        """
        Return ask(names, keys)[0], and note what it did.

        For a cache client that has a way of its own to send an MGET: `ask` returns the values of
        `names`, and with them what PTTL says of each of `keys`, or an exception in its place.
        """
        event = current.get()
        read = event and read_of(("MGET", *names))
        if not read:
            return ask(names, ())[0]
        return self._watch_read(event, read, "MGET", ask, names)

    def _watch_read(self, event, read, verb, ask, *arguments):
        keys = keys_with_ttl(event, read)
        start = perf_counter_ns()
        try:
            reply, ttls = ask(*arguments, keys)
        except Exception as error:
            note_read(event, self._address, read, verb, error, perf_counter_ns() - start, {})
            raise
        ns = perf_counter_ns() - start
        ttls = dict(zip(keys, ttls, strict=True)) if keys else {}
        note_read(event, self._address, read, verb, reply, ns, ttls)
        return reply

    def _ask(self, args, options, keys):
        if keys:
            return self._with_ttls(args, options, keys)
        return super().execute_command(*args, **options), ()

    def _with_ttls(self, args, options, keys):
        """
        Return the reply, and the milliseconds that each key has left as Redis says it.

        What a pipeline of redis-py does, at a third of its cost.
        """
        pool, idle = self.connection_pool, self._idle
        try:
            connection = idle.pop()
        except IndexError:
            connection = None
        if connection is not None and connection.pid == os.getpid():
            try:
                return self._exchange(idle, connection, args, options, keys)
            except ConnectionError:
                pass  # It idled through a restart of Redis, and a new one may do.
        connection = pool.connection_class(**pool.connection_kwargs)
        return self._exchange(idle, connection, args, options, keys)

    def _exchange(self, idle, connection, args, options, keys):
        commands = [args, *(("PTTL", key) for key in keys)]

        def exchange():
            connection.send_packed_command(connection.pack_commands(commands), False)
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
            idle.append(connection)
            raise
        except BaseException:
            # A reply that was not read would be taken for that of the next command.
            connection.disconnect()
            raise
        idle.append(connection)
        return reply, ttls

    def _read(self, connection, verb, options):
        try:
            if options or verb in self.response_callbacks:
                return self.parse_response(connection, verb, **options)
            return connection.read_response()
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

    def again(self, key):
        """Take note that the latest read of `key` was a second look: no lookup of its own."""
        event = current.get()
        op = event and event.last_read(key)
        if op:
            op.kind = READBACK

    def collapsed(self, key):
        """Take note that another request is building what is missing at `key`."""
        self._amend(key, COLLAPSED)

    def stale(self, key, ttl):
        """Take note that the value at `key` is served though it was due `-ttl` seconds ago."""
        self._amend(key, STALE, ttl=int(ttl * 1000))

    def _amend(self, key, what, **values):
        event = current.get()
        op = event and event.last_read(key)
        if op:
            op.note = what
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
            note(event, server, commands, [error] * len(queued), perf_counter_ns() - start)
            raise
        note(event, server, commands, replies, perf_counter_ns() - start)
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
            note(event, server, [args], [error], perf_counter_ns() - start)
            raise
        note(event, server, [args], [reply], perf_counter_ns() - start)
        return reply
