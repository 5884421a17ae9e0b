"""
The client that sees every command: OPTIONS = {"REDIS_CLIENT_CLASS": "watch.client.WatchedRedis"}.

Outside a watched request (a management command, a thread of its own) it does what redis.Redis
does. Within one, each command is noted in the current Event.

The time left comes with the value, in one round trip: GET and PTTL leave as a pipeline of
redis-py. Its client-side cache (cache_config) does not see the reads that are watched.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

from redis import Redis
from redis.client import Pipeline

from watch import compat
from watch.commands import amend, keys_with_ttl, note, note_read, read_of
from watch.conf import address
from watch.event import Event, current


class WatchedRedis(Redis):
    """A redis.Redis that notes its commands in the current Event."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._watched_at = address(self.connection_pool.connection_kwargs)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command, as redis.Redis does. Raises what that raises."""
        event = current.get()
        if event is None:
            return super().execute_command(*args, **options)
        if read := read_of(args):
            return self._read(event, read, args, options)
        start = perf_counter_ns()
        try:
            reply = super().execute_command(*args, **options)
        except Exception as error:
            note(event, self._watched_at, [args], [error], perf_counter_ns() - start)
            raise
        note(event, self._watched_at, [args], [reply], perf_counter_ns() - start)
        return reply

    def _read(self, event: Event, read: Any, args: tuple[Any, ...], options: Any) -> Any:
        """Send a GET or MGET, and with it PTTL for the keys whose time left is worth knowing."""
        ttls: dict[str, Any] = {}
        keys = keys_with_ttl(event, read)
        start = perf_counter_ns()
        try:
            if keys:
                pipeline = super().pipeline(transaction=False)
                pipeline.execute_command(*args, **options)
                for key in keys:
                    pipeline.pttl(key)
                # A refused PTTL must not fail the read.
                reply, *left = pipeline.execute(raise_on_error=False)
                if isinstance(reply, Exception):
                    raise reply
                ttls = dict(zip(keys, left, strict=True))
            else:
                reply = super().execute_command(*args, **options)
        except Exception as error:
            note_read(event, self._watched_at, read, args[0], error, perf_counter_ns() - start, {})
            raise
        ns = perf_counter_ns() - start
        note_read(event, self._watched_at, read, args[0], reply, ns, ttls)
        return reply

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """Return a pipeline that notes its commands when they are sent."""
        watched = compat.new_pipeline(self, WatchedPipeline, transaction, shard_hint)
        return super().pipeline(transaction, shard_hint) if watched is None else watched

    def cache_event(self, what: str, key: str) -> None:
        """
        Take note of what the cache above this client knows, and Redis doesn't.

        `key` is the key as Redis has it. `what` is one of "refused", "again", "collapsed" and
        "varies": README.md describes them. Other words, and keys that this request has not
        read, do nothing. Outside a watched request it costs less than a microsecond.
        """
        event = current.get()
        if event is not None:
            amend(event, what, key)


class WatchedPipeline(Pipeline):
    """A pipeline that notes its commands. The time of the round trip is shared out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._watched_at = address(self.connection_pool.connection_kwargs)
        self._watched: list[tuple[Any, ...]] = []

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Queue a command, or send it at once between WATCH and MULTI, as Pipeline does."""
        start = perf_counter_ns()
        try:
            reply = super().execute_command(*args, **options)
        except Exception as error:
            self._note([args], [error], perf_counter_ns() - start)
            raise
        if reply is self:
            self._watched.append(args)
        else:
            self._note([args], [reply], perf_counter_ns() - start)
        return reply

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send what is queued, as Pipeline does. Raises what that raises."""
        commands, self._watched = self._watched, []
        if current.get() is None or not commands:
            return super().execute(raise_on_error)
        start = perf_counter_ns()
        try:
            # Each reply by itself says what became of its command.
            replies = super().execute(raise_on_error=False)
        except Exception as error:
            self._note(commands, [error] * len(commands), perf_counter_ns() - start)
            raise
        self._note(commands, replies, perf_counter_ns() - start)
        if raise_on_error:
            compat.raise_first_error(self, commands, replies)
        return replies

    def reset(self) -> None:  # type: ignore[override]
        """Forget what is queued, as Pipeline does."""
        super().reset()
        self._watched = []

    def _note(self, commands: list[tuple[Any, ...]], replies: list[Any], ns: int) -> None:
        event = current.get()
        if event is not None and len(commands) == len(replies):
            note(event, self._watched_at, commands, replies, ns)
