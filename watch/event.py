"""
What one request asked of the caches, and what each level answered.

An Event is made by `recording()`, filled by WatchedRedis, summed up by `sum_up()`, and
sent to the stream as `as_json()`. Its JSON form is described in README.md.

How the sums are made, so that they are true:

- A lookup is one key that was asked for. It is a hit when Redis has a value, whatever it
  is: a cached None, or what equals the default, is a hit.
- A page is one lookup, though a cache may ask for two keys (which headers does it vary on, and
  the page). It is a hit when both came back, the cache accepted the page, and this request did
  not build the next one.
- A key that this request wrote and then reads is not a lookup: a cold get_or_set() is GET,
  SET NX, GET, and one miss.
- A command that failed because Redis is down is neither: the level is down.
- `stored` is what Redis said OK to.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.http import HttpRequest

# What a command is to a key.
LOOKUP = "lookup"
PAGE = "page"  # A whole page, read or written: its key begins as WATCH["PAGES"] says.
VARY = "vary"  # The list of headers that a page varies on: WATCH["VARY"], or as the cache said.
ASIDE = "aside"  # Bookkeeping: WATCH["ASIDE"].
READBACK = "readback"  # Written by this very request, or looked up a second time.
WRITE = "write"
DELETE = "delete"
OTHER = "other"

# What became of it, where hit or miss doesn't say everything.
STORED = "stored"
NOT_STORED = "not stored"
REFUSED = "refused"  # Redis has a value, but the cache client doesn't accept it: a miss.
COLLAPSED = "collapsed"  # A miss that another request is building already.
DOWN = "down"  # Redis did not answer.
ERROR = "error"  # Redis answered with an error.

# Most texts of an event were in many others before. The rest is numbers, and putting the JSON
# together from both takes a quarter of the time that an encoder takes for the whole.
_text = lru_cache(maxsize=1000)(json.JSONEncoder().encode)
_WORDS = {None: "null", True: "true", False: "false"}

# Operations that an event in the stream tells one by one. The sums have all of them.
MAX_OPS = 50
# Operations that are noted at all: a stream without end must not fill the memory.
MAX_NOTED = 5000


@dataclass(slots=True)
class Op:
    """One key of one command."""

    verb: str
    level: str
    key: str
    kind: str
    hit: bool | None  # None if it is not a read
    size: int  # bytes of the value as Redis has it
    ns: int  # its share of the round trip's time
    ttl: int | None  # milliseconds left, None when unknown or without a timeout
    source: str  # the line that asked, e.g. blog/views.py:88
    note: str

    @property
    def is_read(self) -> bool:
        """Whether it read the key, and not again or after this request had written it."""
        return self.hit is not None and self.kind != READBACK

    def is_like(self, other: Op) -> bool:
        """Return whether `other` asked the same and was told the same, as a poll does."""
        return (
            self.key == other.key
            and self.verb == other.verb
            and self.hit is other.hit
            and self.note == other.note
            and self.kind is other.kind
            and self.source == other.source
        )

    def as_json(self, times: int, ns: int) -> str:
        """Return a list of the values in the order of OP_FIELDS, of `times` like this one."""
        return (
            f"[{_text(self.verb)},{_text(self.level)},{_text(self.key[:200])},{_text(self.kind)},"
            f"{_WORDS[self.hit]},{self.size},{ns // 1000},{_number(self.ttl)},"
            f"{_text(self.source[:120])},{_text(self.note)},{times}]"
        )


OP_FIELDS = ("verb", "level", "key", "kind", "hit", "bytes", "us", "ttl", "source", "note", "times")


def in_rows(ops: Iterable[Op]) -> list[list[Any]]:
    """
    Return a list of [op, times, ns], in which equal ones in a row are one.

    A request that waits for another one asks for the same key again and again.
    """
    rows: list[list[Any]] = []
    for op in ops:
        if rows and op.is_like(rows[-1][0]):
            rows[-1][1] += 1
            rows[-1][2] += op.ns
        else:
            rows.append([op, 1, op.ns])
    return rows


class Answer:
    """What one level answered to one request."""

    # What most answers have, at no cost for each of them.
    hits = misses = stored = 0
    collapsed = 0  # misses that another request was building already
    failed = 0  # lookups that Redis did not answer
    ns = 0
    size = 0  # bytes of what was found or stored
    ttl: int | None = None  # milliseconds, of the entry among them that expires first
    down = False
    page: Op | None = None  # The Op that says what became of the lookup of a whole page.
    page_stored: Op | None = None  # ... and the one that says that it was stored.
    varies = False  # The list of headers was found: the page has a key for each variant.
    source = ""

    def __init__(self, level: str) -> None:
        self.level = level

    @property
    def lookups(self) -> int:
        """How many lookups this level was asked for."""
        return self.hits + self.misses + self.failed

    @property
    def page_hit(self) -> bool:
        """Whether the level answered with a whole page."""
        page = self.page
        return page is not None and page.kind is PAGE and bool(page.hit) and not self.page_stored

    @property
    def word(self) -> str:
        """hit, miss, H/N when mixed, down, or "" when nothing was looked up."""
        if self.down:
            return "down"
        if self.misses:
            return f"{self.hits}/{self.hits + self.misses}" if self.hits else "miss"
        return "hit" if self.hits else ""

    def as_json(self) -> str:
        """Return what the stream tells of this level."""
        return (
            f'{{"level":{_text(self.level)},"word":"{self.word}","hits":{self.hits},'
            f'"misses":{self.misses},"collapsed":{self.collapsed},"failed":{self.failed},'
            f'"us":{self.ns // 1000},"bytes":{self.size},"ttl":{_number(self.ttl)},'
            f'"stored":{self.stored}}}'
        )

    def count(self, op: Op) -> None:
        """Add `op` to the sums."""
        self.ns += op.ns
        kind = op.kind
        if op.note is DOWN:
            if kind is ASIDE and (self.hits or self.page_hit):
                return  # The answer did not depend on it.
            self.down = True
            if kind is PAGE or kind is VARY:
                self.page = op
            elif kind is LOOKUP:
                self.failed += 1
        elif kind is ASIDE:
            return
        elif kind is VARY:
            if op.hit is not None:
                self.page = op
                self.varies = self.varies or op.hit
        elif kind is PAGE:
            if op.hit is None:
                # Of a page and the list of headers that it varies on, the larger is the page.
                before = self.page_stored
                if op.note is STORED and (before is None or op.size > before.size):
                    self.page_stored = op
            elif self.page is None or self.page.hit or self.page.kind is PAGE:
                # Django does not use a page whose list of headers is missing.
                self.page = op
        elif kind is LOOKUP:
            if op.hit:
                self.hits += 1
                self.add_entry(op)
            else:
                self.count_miss(op)
            self.source = self.source or op.source
        elif op.note is STORED and kind is WRITE:
            self.stored += 1
            if self.page is None:
                self.add_entry(op)

    def count_page(self, page: Op) -> None:
        """Add `page`, which is one lookup, after all its ops have been seen."""
        self.source = page.source
        if page.note is DOWN:
            self.failed += 1
        elif self.page_hit:
            self.hits += 1
            self.add_entry(page)
        else:
            self.count_miss(page)
        if self.page_stored:
            self.stored += 1
            self.add_entry(self.page_stored)

    def count_miss(self, op: Op) -> None:
        """Add a lookup that found nothing."""
        self.misses += 1
        self.collapsed += op.note is COLLAPSED

    def add_entry(self, op: Op) -> None:
        """Add the size of an entry, and its TTL if it is the lowest so far."""
        self.size += op.size
        if op.ttl is not None and (self.ttl is None or op.ttl < self.ttl):
            self.ttl = op.ttl


class Event:
    """One request."""

    left_out = 0  # operations beyond MAX_NOTED
    own_ns = 0  # what watching cost, as far as it can see that itself
    at: float = 0  # Unix time
    method = ""
    path = ""  # without the query string, which may be private
    status = ns = 0
    cache_status = ""

    def __init__(
        self, id: str, task: asyncio.Task[Any] | None = None, request: HttpRequest | None = None
    ) -> None:
        self.id = id
        self.task = task  # of an async request
        self.request = request  # until the event is sent
        self.ops: list[Op] = []
        self.written: set[str] = set()  # keys, for READBACK
        self.answers: dict[str, Answer] = {}  # by level

    def last_read(self, key: str) -> Op | None:
        """Return the latest op that looked up `key`, or None."""
        return next((op for op in reversed(self.ops) if op.key == key and op.is_read), None)

    def sum_up(self) -> None:
        """Set `answers` from `ops`."""
        answers: dict[str, Answer] = {}
        answer: Answer | None = None
        for op in self.ops:
            if answer is None or op.level != answer.level:
                answer = answers.get(op.level)
                if answer is None:
                    answer = answers[op.level] = Answer(op.level)
            answer.count(op)
        for answer in answers.values():
            if answer.page is not None:
                answer.count_page(answer.page)
        self.answers = answers

    def answers_of(self, levels: Iterable[str]) -> list[Answer]:
        """Return the answers of those of these levels that were asked, in their order."""
        answers = self.answers
        if len(answers) == 1:  # The outermost level alone: most requests end there.
            (answer,) = answers.values()
            return [answer] if answer.level in levels else []
        return [answers[level] for level in levels if level in answers]

    def as_json(self) -> str:
        """Return the event as one line of JSON. Only the publishing thread spends time on it."""
        levels = ",".join([answer.as_json() for answer in self.answers.values()])
        rows = in_rows(self.ops)
        ops = ",".join([op.as_json(times, ns) for op, times, ns in rows[:MAX_OPS]])
        left_out = self.left_out + sum(times for _, times, _ in rows[MAX_OPS:])
        return (
            f'{{"kind":"request","id":"{self.id}","at":{self.at:.3f},"worker":{_text(worker())},'
            f'"method":{_text(self.method[:20])},"path":{_text(self.path[:300])},'
            f'"status":{self.status},"us":{self.ns // 1000},"watch_us":{self.own_ns // 1000},'
            f'"cache_status":{_text(self.cache_status)},"levels":[{levels}],"ops":[{ops}],'
            f'"left_out":{left_out}}}'
        )


def _number(value: int | None) -> int | str:
    return "null" if value is None else value


# The Event that commands are noted in.
current: ContextVar[Event | None] = ContextVar("watch_event", default=None)


@contextmanager
def recording() -> Iterator[Event]:
    """Note every command of this thread or task in an Event until the block ends."""
    event = Event(new_id())
    token = current.set(event)
    try:
        yield event
    finally:
        current.reset(token)
        event.at = time.time()
        event.sum_up()


@contextmanager
def unwatched() -> Iterator[None]:
    """Note no command of this thread or task until the block ends: it is not the request's."""
    token = current.set(None)
    try:
        yield
    finally:
        current.reset(token)


# One id per request: random for the process, then counted. uuid4() costs ten times as much.
_process: dict[str, Any] = {}


def _name_process() -> None:
    _process["prefix"] = secrets.token_hex(3)
    _process["numbers"] = itertools.count(1)
    _process["worker"] = f"{socket.gethostname()[:40]}:{os.getpid()}"


_name_process()
os.register_at_fork(after_in_child=_name_process)


def new_id() -> str:
    """Return an id that no other request of any process has."""
    return f"{_process['prefix']}{next(_process['numbers']):x}"


def worker() -> str:
    """Return which process this is: host (or container) and process id."""
    return _process["worker"]
