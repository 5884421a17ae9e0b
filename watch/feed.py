"""
From every process into one Redis stream, off the path of the request.

put() appends to a queue and returns. A thread of the process sends what has gathered, ten
times a second at most, and one round trip for many events. The stream is bounded; so is
the queue: while Redis is down the oldest events are discarded and counted, and no request waits.

The stream holds entries of one field, `e`, with the JSON of one event: see README.md.
"""

import json
import logging
import os
import threading
import time
from collections import deque
from typing import Any

from django.core.signals import setting_changed
from django.dispatch import receiver
from redis import Connection, ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from watch.conf import Config, config
from watch.event import Event, worker

QUEUE_LENGTH = 1000  # events that wait to be sent
GATHER = 0.1  # seconds that an event waits for others
BATCH = 50  # events per round trip
PAUSE = 1  # seconds without a try after a batch was not taken
TIMEOUT = 1  # seconds that Redis may take

# One command for a batch: to redis-py, packing each XADD costs more than all the rest.
ADD = """
for i = 2, #ARGV do redis.call('XADD', KEYS[1], '*', 'e', ARGV[i]) end
return redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[1])
"""

_logger = logging.getLogger("watch")


def connect(timeout: float = TIMEOUT) -> Redis:
    """
    Return a plain client for the database of the stream, with connections of its own.

    It goes past the breaker and the pools of the caches, so that neither waits for the other.
    """
    return new_client(config().stream_connection, timeout)


def new_client(parameters: dict[str, Any], timeout: float) -> Redis:
    """Return a plain client that connects with these parameters, and tries once."""
    parameters = parameters | {
        "socket_timeout": timeout,
        "socket_connect_timeout": TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
    }
    connection_class = parameters.pop("connection_class", Connection)
    return Redis(connection_pool=ConnectionPool(connection_class, **parameters))


class Feed:
    """What this process has still to send. Safe to use from any thread."""

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """Forget queue, connection and thread. In a forked child they don't work."""
        self.dropped = 0  # events lost since the last that arrived
        self._queue: deque[Event] = deque(maxlen=QUEUE_LENGTH)
        self._has_work = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._client: Redis | None = None
        self._script: Script | None = None
        self._is_failing = False

    def put(self, event: Event) -> None:
        """Send the event soon. Costs the caller a microsecond, and never waits."""
        if len(self._queue) == QUEUE_LENGTH:
            self._lose(1)
        self._queue.append(event)
        if not self._has_work.is_set():
            self._has_work.set()
        if self._thread is None:
            self._start()

    def waiting(self) -> list[Event]:
        """Return the events that are not sent yet."""
        return list(self._queue)

    def settings_changed(self) -> None:
        """Send nothing that was meant for one Redis to another."""
        with self._lock:  # The thread reads the settings with this lock, and a batch with them.
            self._queue.clear()
            config.cache_clear()
            self._client = None

    def _lose(self, number: int) -> None:
        with self._lock:
            self.dropped += number

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name="watch-feed", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return  # No more threads to be had, or Python is ending. The next one tries.
            self._thread = thread

    def _run(self) -> None:
        while True:
            self._has_work.wait()
            time.sleep(GATHER)
            self._has_work.clear()
            if not self._send_queue():
                time.sleep(PAUSE)
                self._has_work.set()

    def _send_queue(self) -> bool:
        """Send what waits. Return whether Redis took it."""
        batch: list[Event] = []
        try:
            while True:
                client, settings, batch = self._next_batch()
                if not batch:
                    break
                self._send(client, settings, batch)
        except Exception as error:
            self._lose(len(batch))
            self._client = None
            if not self._is_failing:
                self._is_failing = True
                _logger.warning("Events are not published for now: %s", error)
            return False
        self._is_failing = False
        return True

    def _next_batch(self) -> tuple[Redis, Config, list[Event]]:
        """Return events, with the Redis and the settings that they are for."""
        with self._lock:
            client = self._client = self._client or connect()
            batch: list[Event] = []
            while self._queue and len(batch) < BATCH:
                batch.append(self._queue.popleft())
            return client, config(), batch

    def _send(self, client: Redis, settings: Config, batch: list[Event]) -> None:
        lines, dropped = [], self.dropped
        for number, event in enumerate(batch, 1):
            lines.append(event.as_json())
            if number % 10 == 0:
                time.sleep(0)  # Whoever answers a request has Python first.
        if dropped:
            lost = {"kind": "dropped", "at": round(time.time(), 3), "worker": worker()}
            lines.append(json.dumps(lost | {"events": dropped}))
        if self._script is None:
            self._script = client.register_script(ADD)
        self._script([settings.stream], [settings.stream_length, *lines], client)
        self._lose(-dropped)


feed = Feed()
os.register_at_fork(after_in_child=feed.start_anew)


@receiver(setting_changed)
def _settings_changed(setting: str, **kwargs: Any) -> None:
    if setting in ("CACHES", "WATCH", "MIDDLEWARE"):
        feed.settings_changed()
