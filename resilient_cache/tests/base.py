"""What the tests of this package share: a site of a few views, requests, and threads."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

import redis
from django.conf import settings
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse
from django.test import Client, SimpleTestCase, override_settings
from django.urls import clear_url_caches, path

from resilient_cache.log import logger
from resilient_cache.tests import runner

UPDATE = "resilient_cache.pages.UpdateCacheMiddleware"
FETCH = "resilient_cache.pages.FetchFromCacheMiddleware"
# Seconds until a test gives up waiting. It passes as soon as what it waits for is there.
PATIENCE = 20


class RecordingRedis(redis.Redis):
    """OPTIONS["REDIS_CLIENT_CLASS"]: notes each command, and what the cache tells of a key."""

    commands: list[tuple[Any, ...]] = []
    events: list[tuple[str, str]] = []

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.commands.append(args)
        return super().execute_command(*args, **options)

    def cache_event(self, what: str, key: str) -> None:
        self.events.append((what, key))


def caches_with(**options: Any) -> dict[str, dict[str, Any]]:
    """Return settings.CACHES with these OPTIONS, besides their own, for each alias."""
    return {
        alias: cache | {"OPTIONS": cache.get("OPTIONS", {}) | options}
        for alias, cache in settings.CACHES.items()
    }


class CountingView:
    """A view whose body is the number of its call. Headers and status are given."""

    def __init__(self, status: int = 200, **headers: str) -> None:
        self.status, self.calls = status, 0
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.__name__ = "counting_view"

    def __call__(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        self.calls += 1
        return HttpResponse(f"build {self.calls}", status=self.status, headers=self.headers)


def in_thread(call: Callable[[], Any]) -> Any:
    """Return call(), run by another thread."""
    return together(1, call)[0]


def together(number: int, call: Callable[..., Any], *, numbered: bool = False) -> list[Any]:
    """Run `call` in `number` threads at once and return what each returned, or raise its error."""
    results: list[Any] = [None] * number
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            results[index] = call(index) if numbered else call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        if thread.is_alive():
            raise AssertionError("A thread hangs")
    if errors:
        raise errors[0]
    return results


@contextmanager
def seconds_later(seconds: float) -> Iterator[None]:
    """Move the clock of this process ahead. The TTLs of Redis stay as they are."""
    import time

    real = time.time
    with mock.patch("time.time", lambda: real() + seconds):
        yield


@contextmanager
def silent() -> Iterator[None]:
    """Let the package log nothing. It writes a line only now and then, so tests ask for none."""
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


class CacheTestCase(SimpleTestCase):
    """Empties the caches and the URLs before each test, and gives each test a path of its own."""

    # Database for DatabaseCache and transactions is asked for by the tests that need one.
    cache_options: dict[str, Any] = {}
    middleware: list[str] = [UPDATE, FETCH]

    def setUp(self) -> None:
        super().setUp()
        self.clients: dict[int, redis.Redis] = {}
        self.urls = ModuleType("urls")
        self.urls.urlpatterns = []
        overridden: dict[str, Any] = {"ROOT_URLCONF": self.urls, "MIDDLEWARE": self.middleware}
        overridden["CACHE_MIDDLEWARE_ALIAS"] = "site"
        if self.cache_options:
            overridden["CACHES"] = caches_with(**self.cache_options)
        self.enterContext(override_settings(**overridden))
        self.empty()
        # What a process remembers of a page is remembered by its URL.
        self.path = f"/{self.id().rpartition('.')[2][5:]}/"

    def empty(self) -> None:
        """Empty every cache."""
        self.redis("default").flushall()

    def route(self, view: Callable[..., Any], route: str | None = None, **kwargs: Any) -> str:
        """Serve `view` at `route`, by default at this test's own path. Return the path."""
        route = self.path if route is None else route
        self.urls.urlpatterns = [*self.urls.urlpatterns, path(route[1:], view, **kwargs)]
        clear_url_caches()
        return route

    def get(self, at: str | None = None, **extra: Any) -> HttpResponse:
        """Return the response to a GET by a client without cookies."""
        return Client(raise_request_exception=False).get(at or self.path, **extra)

    def body(self, at: str | None = None, **extra: Any) -> str:
        """Return the text of the response to a GET."""
        return self.get(at, **extra).text

    def keys(self, alias: str, pattern: str = "*") -> list[str]:
        """Return the keys of an alias as Redis has them, in order."""
        found = self.redis(alias).keys(pattern)
        return sorted(key.decode() for key in found)

    def redis(self, alias: str) -> redis.Redis:
        """Return a plain client of redis-py for the database of an alias."""
        number = settings.CACHES[alias].get("OPTIONS", {}).get("db", 0)
        if number not in self.clients:
            self.clients[number] = redis.Redis.from_url(f"{runner.server.url}/{number}")
            self.addCleanup(self.clients[number].close)
        return self.clients[number]

    def page_key(self, alias: str = "site") -> str:
        """Return the one key of a page that the alias has."""
        (key,) = self.keys(alias, f"{alias}:?:page:*")
        return key


def clear_caches() -> None:
    """Empty the caches through Django's API, whatever their backend."""
    for alias in settings.CACHES:
        caches[alias].clear()
