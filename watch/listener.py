"""
Redis's own events as a part of the feed: which keys expired, were evicted, were deleted.

Redis tells each subscriber. If every process listened, the feed would have each event once per
process. So only one listens: the one that holds a lock in Redis, which it renews every second.
If it dies, the lock expires, and another process has it within LOCK_SECONDS + BEAT. What
it publishes passes the lock: a process that was stopped and wakes up late adds nothing.

It runs only while a wall is open: wake() is called by what serves the wall, in any process,
and WATCHED seconds after the last call in any process, the listener stops.

It needs `notify-keyspace-events Egxe`. Whether Redis really tells is found out by asking
(a key of its own that is deleted and one that expires), because CONFIG is often forbidden.
What happens while no process has the lock is lost: Redis does not store such events.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
import time
from collections import Counter
from typing import Any

from django.core.signals import setting_changed
from django.dispatch import receiver
from redis import Redis

from watch import keys
from watch.conf import config
from watch.event import worker
from watch.feed import connect

KINDS = {"expired": "expired", "evicted": "evicted", "del": "deleted"}  # Redis's name: ours
LOCK_SECONDS = 5
BEAT = 1  # seconds between two renewals, and between two tries to get the lock
WATCHED = 15  # seconds that one look at the wall counts
GATHER = 0.1  # seconds that an event waits for others
TOLD = 20  # events of a kind and level that are told one by one each time; the rest is counted
DRAIN = 2000  # messages taken at a time
PROBE_EVERY = 30  # seconds
PROBE_WAIT = 2  # seconds in which Redis must have told of the probe

# Renews the lock and adds to the stream, if the lock is still ours.
RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
for i = 5, #ARGV do redis.call('XADD', KEYS[2], '*', 'e', ARGV[i]) end
if #ARGV > 4 then redis.call('XTRIM', KEYS[2], 'MAXLEN', '~', ARGV[4]) end
return 1
"""
RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"

# (kind, level, key): how often.
Heard = Counter[tuple[str, str, str]]

_logger = logging.getLogger("watch")


def lock_key() -> str:
    """Return the key that says who listens."""
    return f"{config().stream}:listener"


def viewers_key() -> str:
    """Return the key that lives while a wall is open."""
    return f"{config().stream}:viewers"


class Listener:
    """A candidate while a wall is open. Safe to use from any thread."""

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """Forget the thread. A forked child inherits the object, and no thread."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._wanted_until = 0.0
        self._is_failing = False

    def wake(self) -> None:
        """Say that a wall is open. Costs a microsecond, and never waits for Redis."""
        self._wanted_until = time.monotonic() + WATCHED
        if self._thread is None:
            with self._lock:
                if self._thread is None and config().levels:
                    self._start()

    def _start(self) -> None:
        self._stop = threading.Event()
        args = (self._stop,)
        thread = threading.Thread(target=self._run, args=args, name="watch-listener", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return  # No more threads to be had. The next one tries.
        self._thread = thread

    def stop(self) -> None:
        """End the thread, and wait until it has given up the lock."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._wanted_until = 0
            self._stop.set()
        if thread and thread is not threading.current_thread():
            thread.join(2 * BEAT)

    def _run(self, stop: threading.Event) -> None:
        while True:
            try:
                client = connect()
                while not stop.is_set() and self._is_watched(client):
                    term = Term(client)
                    if term.begin():
                        try:
                            while not stop.is_set() and term.go_on(stop):
                                if term.is_time_to_look() and not self._is_watched(client):
                                    break
                        finally:
                            term.end()
                    stop.wait(BEAT)
                self._is_failing = False
            except Exception as error:
                if not self._is_failing:
                    self._is_failing = True
                    _logger.warning("No process listens to Redis for now: %s", error)
                stop.wait(BEAT)
            with self._lock:
                if stop.is_set() or time.monotonic() > self._wanted_until:
                    if self._stop is stop:
                        self._thread = None
                    return

    def _is_watched(self, client: Redis) -> bool:
        if time.monotonic() < self._wanted_until:
            client.set(viewers_key(), 1, ex=WATCHED)
            return True
        return bool(client.exists(viewers_key()))


class Term:
    """The time that one process holds the lock."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self.notes: dict[str, Any] = {
            "worker": worker(),
            "since": round(time.time()),
            "notifications": None,
        }
        self.notes["token"] = secrets.token_hex(8)
        self.value = json.dumps(self.notes)
        self.ears: list[Ear] = []
        self.beaten = self.looked = time.monotonic()

    def begin(self) -> bool:
        """Take the lock. Return False if another process has it."""
        if not self.client.set(lock_key(), self.value, nx=True, px=LOCK_SECONDS * 1000):
            return False
        servers: dict[str, list[keys.Level]] = {}
        for level in keys.levels():
            servers.setdefault(level.server, []).append(level)
        try:
            for levels in servers.values():
                self.ears.append(Ear(levels))
        except BaseException:
            self.end()
            raise
        return True

    def go_on(self, stop: threading.Event) -> bool:
        """Listen for a moment and publish. Return whether the lock is still ours."""
        heard: Heard = Counter()
        for ear in self.ears:
            ear.listen(heard, BEAT / 4 / len(self.ears))
        states = [ear.state() for ear in self.ears]
        state = next((state for state in ("off", None) if state in states), "on")
        is_news = heard or state != self.notes["notifications"]
        if not is_news and time.monotonic() - self.beaten < BEAT:
            return True
        self.notes["notifications"] = state
        before, self.value = self.value, json.dumps(self.notes)
        self.beaten = time.monotonic()
        arguments: list[str | int] = [
            before,
            self.value,
            LOCK_SECONDS * 1000,
            config().stream_length,
        ]
        names = lock_key(), config().stream
        is_ours = self.client.eval(RENEW, 2, *names, *arguments, *_lines(heard))
        if heard:
            stop.wait(GATHER)
        return bool(is_ours)

    def is_time_to_look(self) -> bool:
        """Return whether it is a beat since this was last true."""
        if time.monotonic() - self.looked < BEAT:
            return False
        self.looked = time.monotonic()
        return True

    def end(self) -> None:
        """Release the lock, so that the next process need not wait until it expires."""
        for ear in self.ears:
            ear.close()
        self.client.eval(RELEASE, 1, lock_key(), self.value)


class Ear:
    """The subscription to one Redis server, for the levels that live there."""

    def __init__(self, levels: list[keys.Level]) -> None:
        self.levels: dict[int, list[keys.Level]] = {}
        for level in levels:
            self.levels.setdefault(level.database, []).append(level)
        self.client = keys.connect(levels[0].alias)
        self.subscriber = keys.connect(levels[0].alias).pubsub(ignore_subscribe_messages=True)
        self.subscriber.subscribe(
            *(f"__keyevent@{database}__:{kind}" for database in self.levels for kind in KINDS)
        )
        self.probe_key = f"{config().stream}:probe:{secrets.token_hex(8)}".encode()
        self.probed = 0.0
        self.answers: set[str] = set()
        self.known: str | None = None

    def listen(self, heard: Heard, timeout: float) -> None:
        """Count into `heard` what Redis tells within `timeout`: (kind, level, key)."""
        if time.monotonic() - self.probed > PROBE_EVERY:
            self.probe()
        for _ in range(DRAIN):
            message = self.subscriber.get_message(timeout=timeout)
            if message is None:
                # Either nothing came or it was no message; the next call tells which.
                if not timeout:
                    return
            else:
                self.hear(message, heard)
            timeout = 0

    def hear(self, message: dict[str, Any], heard: Heard) -> None:
        """Count one message, unless it is of the probe, of a lock or of another project's key."""
        where, _, kind = message["channel"].decode().rpartition(":")
        key = message["data"]
        if key.startswith(self.probe_key):
            self.answers.add(kind)
            return
        key = key.decode(errors="backslashreplace")
        database = int(where.removeprefix("__keyevent@").removesuffix("__"))
        level = keys.owner(key, self.levels[database])
        if level and not config().name_of(key).startswith(config().locks):
            heard[KINDS[kind], level.name, key[:200]] += 1

    def probe(self) -> None:
        """Make two events, which must come back: one of `g` and one of `x`."""
        self.probed, self.answers = time.monotonic(), set()
        deleted, expired = self.probe_key + b":d", self.probe_key + b":x"
        self.client.set(deleted, 1, ex=10)
        self.client.delete(deleted)
        self.client.set(expired, 1, px=1)
        time.sleep(0.005)
        self.client.exists(expired)  # Redis looks at it, and so notices.

    def state(self) -> str | None:
        """Return "on", "off", or None while that is not known."""
        if self.answers >= {"del", "expired"}:
            self.known = "on"
        elif time.monotonic() - self.probed > PROBE_WAIT:
            self.known = "off"
        return self.known

    def close(self) -> None:
        self.subscriber.close()


def _lines(heard: Heard) -> list[str]:
    """Return the JSON of what was heard: the first of a kind one by one, the others as a number."""
    told: Counter[tuple[str, str]] = Counter()
    more: Counter[tuple[str, str]] = Counter()
    at = round(time.time(), 3)
    lines: list[dict[str, Any]] = []
    for (kind, level, key), times in heard.items():
        for _ in range(times):
            if told[kind, level] >= TOLD:
                more[kind, level] += 1
                continue
            told[kind, level] += 1
            lines.append({"kind": kind, "level": level, "key": key, "events": 1})
    for (kind, level), events in more.items():
        lines.append({"kind": kind, "level": level, "key": "", "events": events})
    return [json.dumps(line | {"at": at, "worker": worker()}) for line in lines]


listener = Listener()
os.register_at_fork(after_in_child=listener.start_anew)


@receiver(setting_changed)
def _settings_changed(setting: str, **kwargs: Any) -> None:
    if setting in ("CACHES", "WATCH"):
        listener.stop()
