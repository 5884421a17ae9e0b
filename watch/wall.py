"""
The live wall: one page, the feed it reads, and what it may do with a key.

The feed comes in two ways. /watch/stream is pushed (server-sent events) and holds a thread
of the server for as long as it is open, so a process has few places for it, and ends each
stream after LIFETIME seconds. A wall that gets no place is answered 204, and asks /watch/events
every two seconds instead. Both begin behind the ID that they are given. Without a valid ID they
begin with the next event.

Nothing here changes on GET. Showing and expiring a key is POST, has a CSRF token, and is
there only with WATCH["KEY_ACTIONS"]. WATCH["WALL"] says who may see the wall at all.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import wraps
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import get_script_prefix, reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_GET, require_POST, require_safe
from redis.exceptions import RedisError, ResponseError

from watch.conf import config
from watch.event import OP_FIELDS, worker
from watch.feed import connect
from watch.keys import ForeignKey, UnknownKey, breakers, keys
from watch.listener import listener, lock_key

# Seconds. So a worker that is to end need not wait for long, and each wall gets a place at times.
LIFETIME = 25
# Seconds. A tab that was closed is noticed at the second write after that, so its place is
# free after two of these at most.
BLOCK = 1
BATCH = 200  # events per answer, and what a wall begins with: COUNTED in wall.js
TIMEOUT = 0.5  # seconds that Redis may take for anything else than a stream
PAUSE = 2  # seconds in which a Redis that failed is not asked again

STATE_AGE = 1  # seconds that INFO and the list of keys are told from memory

ID = re.compile(r"(\d{1,20})(?:-(\d{1,20}))?", re.ASCII)
Position = tuple[int, int]  # A stream ID.
Entry = tuple[str, str]  # Its ID and its JSON.
View = Callable[[HttpRequest], HttpResponseBase]

START = (0, 0)
COMPACT = {"separators": (",", ":")}


def position(text: str | None) -> Position | None:
    """Return a stream ID as two numbers, or None if it is not one."""
    match = ID.fullmatch(text or "")
    if match is None:
        return None
    numbers = int(match[1]), int(match[2] or 0)
    # Redis takes more, but nothing is behind the very last.
    return numbers if max(numbers) < 2**63 else None


def written(numbers: Position) -> str:
    """Return two numbers as a stream ID."""
    return "{}-{}".format(*numbers)


class Reader:
    """Reads the feed for one process. Safe to use from any thread."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Connect anew the next time."""
        # Their replies may be of several types, by the protocol that was agreed on.
        self._short: Any = None
        self._long: Any = None
        self._down_until = 0.0

    def is_down(self) -> bool:
        """Return whether Redis failed a moment ago."""
        return time.monotonic() < self._down_until

    def failed(self) -> None:
        """Leave Redis alone for a moment: one thread at a time may wait in vain."""
        self._down_until = time.monotonic() + PAUSE

    def after(self, start: Position | None, count: int = BATCH) -> tuple[list[Entry], Position]:
        """
        Return ([(ID, JSON)...], the last ID that the caller knows then).

        `start` is None for from now on. One that lies in the future is from another stream,
        before Redis lost it, and means the same.
        """
        client = self._short = self._short or connect(TIMEOUT)
        pipeline = client.pipeline(transaction=False)
        pipeline.xrevrange(config().stream, count=1)
        if start is not None:
            pipeline.xrange(config().stream, f"({written(start)}", count=count)
        newest, *rows = pipeline.execute()
        end = (newest and position(newest[0][0].decode())) or START
        if start is None or start > end:
            return [], end
        entries = _decoded(rows[0])
        return entries, (entries and position(entries[-1][0])) or start

    def wait(self, start: Position) -> list[Entry]:
        """Return [(ID, JSON)...] behind `start`, after BLOCK seconds at most."""
        client = self._long = self._long or connect(BLOCK + 2 * TIMEOUT)
        streams = client.xread({config().stream: written(start)}, BATCH, int(BLOCK * 1000))
        # A list of pairs or a dict, by the protocol that was agreed on.
        found = streams.values() if isinstance(streams, dict) else (rows for _, rows in streams)
        return _decoded(next(iter(found), []))

    def who_listens(self) -> dict[str, Any] | None:
        """Return what the process that listens to Redis says of itself, or None."""
        client = self._short = self._short or connect(TIMEOUT)
        try:
            notes = dict(json.loads(client.get(lock_key()) or "{}"))
        except (ValueError, TypeError, RecursionError):
            return None  # Not written by this app.
        notes.pop("token", None)
        return notes or None

    def some_back(self, count: int = BATCH) -> Position:
        """Return the ID from which on there are `count` events, or fewer."""
        client = self._short = self._short or connect(TIMEOUT)
        rows: Any = client.xrevrange(config().stream, count=count + 1)
        if not rows:
            return START
        return (position(rows[-1][0].decode()) or START) if len(rows) > count else START


def _decoded(rows: Any) -> list[Entry]:
    """Return the entries that hold an event. Others are not ours."""
    return [
        (number.decode(), fields[b"e"].decode(errors="replace"))
        for number, fields in rows
        if fields and b"e" in fields and position(number.decode())
    ]


reader = Reader()


class Places:
    """How many streams this process may hold open."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # close() may be called by the collector, at any moment.
        self._taken: set[int] = set()

    def take(self, who: object) -> bool:
        """Return whether there was a place."""
        with self._lock:
            if len(self._taken) >= config().streams:
                return False
            self._taken.add(id(who))
            return True

    def leave(self, who: object) -> None:
        """Free the place, if `who` has one."""
        with self._lock:
            self._taken.discard(id(who))


places = Places()


class Stream:
    """
    The body of one stream: what came, or a comment every BLOCK seconds.

    An object and no generator: the close() of a generator that never began runs nothing.
    """

    def __init__(self, start: Position) -> None:
        self.position = start
        self.has_begun = self.has_ended = False
        self.until = time.monotonic() + LIFETIME

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> str:
        if self.has_ended or time.monotonic() > self.until:
            raise StopIteration
        if not self.has_begun:
            self.has_begun = True
            # An ID without data is not an event, but the browser resumes with it.
            return f"retry: 1000\nid: {written(self.position)}\n\n"
        listener.wake()
        try:
            rows = reader.wait(self.position)
        except RedisError:
            reader.failed()
            self.has_ended = True
            return "event: down\ndata: {}\n\n"
        if not rows:
            return ": nothing new\n\n"
        self.position = position(rows[-1][0]) or self.position
        return "".join(f"id: {number}\ndata: {_one_line(text)}\n\n" for number, text in rows)

    def close(self) -> None:
        """Free the place. Called by the response, however it ends."""
        self.has_ended = True
        places.leave(self)

    __del__ = close


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


async def _in_threads(body: Stream) -> AsyncIterator[str]:
    """Yield what `body` does, each time from a thread of its own: it waits for Redis."""
    try:
        while (chunk := await asyncio.to_thread(next, body, None)) is not None:
            yield chunk
    finally:
        body.close()


def for_viewers(view: View) -> View:
    """Answer 404 to requests that may not see the wall: WATCH["WALL"]."""

    @wraps(view)
    def wrapper(request: HttpRequest) -> HttpResponseBase:
        if not config().has_wall(request):
            raise Http404
        return view(request)

    return wrapper


@for_viewers
@never_cache
@csrf_protect
@require_safe
def wall(request: HttpRequest) -> HttpResponse:
    """The page. What it shows comes by script."""
    listener.wake()
    start = None
    if config().levels and not reader.is_down():
        try:
            start = reader.some_back()
        except RedisError:
            reader.failed()
    settings_of_script: dict[str, Any] = {
        "after": written(start) if start else "",
        "levels": config().levels,
        "titles": config().titles,
        "prefixes": config().prefixes,
        "op": OP_FIELDS,
        "urls": {name: reverse(f"watch:{name}") for name in ("stream", "events", "state")},
    }
    if config().key_actions:
        names = ("show", "expire")
        settings_of_script["urls"] |= {name: reverse(f"watch:{name}") for name in names}
    context = {
        "config": json.dumps(settings_of_script),
        "titles": [config().title_of(level) for level in config().levels],
        "may_touch": config().key_actions,
        "home": get_script_prefix(),
        "origin": request.build_absolute_uri("/").rstrip("/"),
    }
    return render(request, "watch/wall.html", context)


@for_viewers
@never_cache
@require_GET
def stream(request: HttpRequest) -> HttpResponseBase:
    """Server-sent events, behind Last-Event-ID or ?after=. 204 when the places are taken."""
    listener.wake()
    given = request.headers.get("Last-Event-ID") or request.GET.get("after")
    if reader.is_down() or not config().levels:
        return HttpResponse(status=204)
    body = Stream(START)
    if not places.take(body):
        return HttpResponse(status=204)
    try:
        start = position(given)
        rows, last = reader.after(start, 1)
        body.position = start if start and rows else last
    except RedisError:
        reader.failed()
        body.close()
        return HttpResponse(status=204)
    is_async = isinstance(request, ASGIRequest)
    response = StreamingHttpResponse(
        _in_threads(body) if is_async else body, content_type="text/event-stream"
    )
    # nginx would wait until it has a bufferful.
    response.headers["X-Accel-Buffering"] = "no"
    return response


@for_viewers
@never_cache
@require_safe
def events(request: HttpRequest) -> HttpResponse:
    """The same events as JSON: {"events": [{"id", "event"}...], "last", "redis"}."""
    listener.wake()
    rows: list[Entry] = []
    last: Position | None = None
    redis = "down"
    if not config().levels:
        redis = "off"
    elif not reader.is_down():
        try:
            rows, last = reader.after(position(request.GET.get("after")))
            redis = "up"
        except RedisError:
            reader.failed()
    answer = {
        "events": [{"id": number, "event": event} for number, event in _parsed(rows)],
        "last": written(last) if last else None,
        "redis": redis,
    }
    try:
        return JsonResponse(answer, json_dumps_params=COMPACT)
    except RecursionError:  # Nested so deeply that it can be read, but not written.
        return JsonResponse(answer | {"events": []}, json_dumps_params=COMPACT)


def _parsed(rows: list[Entry]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, text in rows:
        try:
            event = json.loads(text)
        except (ValueError, RecursionError):
            continue  # Not written by this app.
        if isinstance(event, dict):
            yield number, event


class Kept:
    """An answer that is made once for all who ask within STATE_AGE."""

    def __init__(self, make: Callable[[], dict[str, Any]]) -> None:
        self.make = make
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Make it anew the next time."""
        self._made = float(-STATE_AGE)
        self._answer: dict[str, Any] = {}

    def get(self) -> dict[str, Any]:
        """Return the answer. While one thread makes it, the others get the one before."""
        if time.monotonic() - self._made < STATE_AGE:
            return self._answer
        if self._lock.acquire(blocking=not self._answer):
            try:
                if time.monotonic() - self._made >= STATE_AGE:
                    self._answer = self.make()
                    self._made = time.monotonic()
            finally:
                self._lock.release()
        return self._answer


def _state() -> dict[str, Any]:
    if not config().levels:
        return {"redis": "off"}
    known: dict[str, Any] = {"worker": worker(), "breakers": breakers()}
    if reader.is_down():
        return known | {"redis": "down"}
    answer = known | {"redis": "up", "at": time.time()}
    parts: dict[str, Callable[[], Any]] = {
        "listener": reader.who_listens,
        "servers": keys.servers,
        "levels": keys.listed,
    }
    try:
        for name, ask in parts.items():
            try:
                answer[name] = ask()
            except ResponseError:
                answer[name] = None  # This user of Redis may not ask that.
    except (RedisError, OSError):
        reader.failed()
        return known | {"redis": "down"}
    return answer


kept_state = Kept(_state)


@for_viewers
@never_cache
@require_safe
def state(request: HttpRequest) -> HttpResponse:
    """
    What Redis holds: memory, keys with their time left at `at`, and who listens.

    And what the circuit breakers of this process say, which each process has for itself.
    """
    listener.wake()
    answer = kept_state.get()
    return JsonResponse(answer | {"now": time.time()}, json_dumps_params=COMPACT)


def touches_a_key(view: Callable[[str, str | None], dict[str, Any]]) -> View:
    """Answer 404 unless keys may be touched, 403 for a foreign one, and 404 for an unknown one."""

    @csrf_protect
    @require_POST
    def touch(request: HttpRequest) -> HttpResponse:
        try:
            answer = view(request.POST.get("key", ""), request.POST.get("level"))
        except ForeignKey:
            return JsonResponse({"error": "This key belongs to no level."}, status=403)
        except UnknownKey:
            return JsonResponse({"error": "Redis has no such key, or no more."}, status=404)
        except RedisError:
            return JsonResponse({"error": "Redis does not answer."}, status=503)
        return JsonResponse(answer)

    @csrf_exempt  # So that what is off looks like what does not exist. touch() asks for the token.
    @never_cache
    @wraps(view)
    def wrapper(request: HttpRequest) -> HttpResponse:
        if not (config().has_wall(request) and config().key_actions):
            raise Http404
        response: HttpResponse = touch(request)
        return response

    return wrapper


@touches_a_key
def show(key: str, level: str | None) -> dict[str, Any]:
    """What Redis holds at a key."""
    return keys.show(key, level)


@touches_a_key
def expire(key: str, level: str | None) -> dict[str, Any]:
    """Let a key expire now."""
    keys.expire(key, level)
    kept_state.forget()
    return {"key": key, "expires": "now"}


@receiver(setting_changed)
def _settings_changed(setting: str, **kwargs: Any) -> None:
    if setting in ("CACHES", "WATCH"):
        reader.forget()
        kept_state.forget()
