"""
The middleware: watches one request, adds the two headers, and hands the event to the feed.

It stands first in MIDDLEWARE, outside UpdateCacheMiddleware, so nothing it adds is ever
cached: what Redis holds is the same with the watch on or off.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from time import perf_counter_ns
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from watch.commands import complain
from watch.conf import config
from watch.event import Event, current, new_id
from watch.feed import feed
from watch.headers import cache_status, server_timing


class WatchMiddleware:
    """First in MIDDLEWARE. For sync and async views, and for responses that stream."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if self.is_async:
            return self.__acall__(request)
        if request.path.startswith(config().skip_paths):
            return self.get_response(request)
        event = Event(new_id(), request=request)
        token = current.set(event)
        start = perf_counter_ns()
        try:
            response = self.get_response(request)
        finally:
            current.reset(token)
        return _report(event, request, response, perf_counter_ns() - start)

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path.startswith(config().skip_paths):
            passed: HttpResponseBase = await self.get_response(request)
            return passed
        event = Event(new_id(), asyncio.current_task(), request)
        token = current.set(event)
        start = perf_counter_ns()
        try:
            response: HttpResponseBase = await self.get_response(request)
        finally:
            current.reset(token)
        return _report(event, request, response, perf_counter_ns() - start)


def _report(
    event: Event, request: HttpRequest, response: HttpResponseBase, ns: int
) -> HttpResponseBase:
    """Put the headers on the response, and the event on its way."""
    begin = perf_counter_ns()
    try:
        settings = config()
        event.ns, event.at = ns, time.time()
        event.method, event.path = request.method, request.path
        event.status = response.status_code
        event.sum_up()
        event.cache_status = cache_status(event, settings, request, response)
        _append(response.headers, "Cache-Status", event.cache_status)
        event.own_ns += perf_counter_ns() - begin
        _append(response.headers, "Server-Timing", server_timing(event, settings))
        if response.streaming and not getattr(response, "file_to_stream", None):
            _watch_stream(event, response)
        else:
            _send(event)
    except Exception as error:
        # A page that works must not become an error because somebody watches it.
        complain("A request is not reported", repr(error))
    return response


def _send(event: Event) -> None:
    event.task = event.request = None  # What waits in the queue holds on to nothing.
    feed.put(event)


def _append(headers: Any, name: str, value: str) -> None:
    """Add to what the view, or a cache behind it, has said already."""
    if value:
        before = headers.get(name)
        headers[name] = f"{before}, {value}" if before else value


def _watch_stream(event: Event, response: Any) -> None:
    """Note what the body asks the caches for too, and send the event when it has ended."""
    body = _AsyncBody if response.is_async else _SyncBody
    response.streaming_content = body(event, response.streaming_content)


class _Body:
    """A body whose reading is a part of the request that is watched."""

    def __init__(self, event: Event, chunks: Any) -> None:
        self.event = event
        self.chunks = chunks

    def close(self) -> None:
        """Send the event. The response calls this when it is done, read to its end or not."""
        self.event.sum_up()
        _send(self.event)


class _SyncBody(_Body):
    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        token = current.set(self.event)
        try:
            chunk: bytes = next(self.chunks)
            return chunk
        finally:
            current.reset(token)


class _AsyncBody(_Body):
    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        token = current.set(self.event)
        try:
            chunk: bytes = await anext(self.chunks)
            return chunk
        finally:
            current.reset(token)
