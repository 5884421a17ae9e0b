"""Async views: one builds, and nothing of the cache blocks the event loop."""

import asyncio
import threading
from unittest import mock

from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.core.cache import cache, caches
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.test import AsyncClient, override_settings
from django.views.decorators.cache import never_cache as django_never_cache

from resilient_cache import guard
from resilient_cache.groups import invalidate
from resilient_cache.pages import cache_page, never_cache
from resilient_cache.tests.base import FETCH, PATIENCE, UPDATE, RecordingRedis
from resilient_cache.tests.test_guard import GuardTestCase, forever

CROWD = 50


class SyncOnly:
    """A middleware that knows nothing of async."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)


async def until(condition):
    """Wait until condition() is true, without blocking the event loop."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


class AsyncTestCase(GuardTestCase):
    """Serves async views."""

    def counting(self, **headers):
        self.builds = 0
        headers = {name.replace("_", "-"): value for name, value in headers.items()}

        async def view(request, **kwargs):
            self.builds += 1
            return HttpResponse(f"build {self.builds}", headers=headers)

        return view

    async def aget(self, at=None, **extra):
        return await AsyncClient(raise_request_exception=False).get(at or self.path, **extra)

    async def abody(self, at=None, **extra):
        return (await self.aget(at, **extra)).text


class AsyncPageTests(AsyncTestCase):
    """The page cache works for async views as for others."""

    async def test_the_second_request_for_a_page_of_the_site_is_a_hit(self):
        self.route(self.counting())

        bodies = [await self.abody(), await self.abody()]

        self.assertEqual(bodies, ["build 1", "build 1"])

    async def test_the_second_request_for_a_decorated_view_is_a_hit(self):
        self.route(cache_page(300, cache="view", group="mine")(self.counting()))

        bodies = [await self.abody(), await self.abody()]

        self.assertEqual(bodies, ["build 1", "build 1"])

    async def test_an_invalidated_page_is_built_again(self):
        self.route(cache_page(300, cache="view", group="mine")(self.counting()))
        await self.abody()

        await asyncio.to_thread(invalidate, "mine")

        self.assertEqual(await self.abody(), "build 2")

    async def test_a_decorated_async_view_is_a_coroutine_function(self):
        self.assertTrue(asyncio.iscoroutinefunction(cache_page(300)(self.counting())))
        self.assertTrue(asyncio.iscoroutinefunction(never_cache(self.counting())))

    async def test_a_sync_view_below_async_middleware_is_cached(self):
        calls = []
        self.route(lambda request: HttpResponse(f"build {calls.append(1) or len(calls)}"))

        self.assertEqual([await self.abody(), await self.abody()], ["build 1", "build 1"])

    async def test_a_middleware_that_is_sync_only_may_stand_in_between(self):
        self.route(self.counting())
        middleware = [UPDATE, f"{__name__}.SyncOnly", FETCH]
        with override_settings(MIDDLEWARE=middleware):
            self.assertEqual([await self.abody(), await self.abody()], ["build 1", "build 1"])

    async def test_a_post_is_answered_by_the_view(self):
        self.route(cache_page(300)(self.counting()))

        for _ in range(2):
            await AsyncClient().post(self.path)

        self.assertEqual(self.builds, 2)

    async def test_what_is_not_stored_stays_as_the_view_said(self):
        self.route(cache_page(300)(self.counting(Cache_Control="private")))

        self.assertEqual([await self.abody(), await self.abody()], ["build 1", "build 2"])

    async def test_a_template_response_is_stored_when_it_is_rendered(self):
        template = engines["django"].from_string("build {{ n }}")
        calls = []

        async def view(request):
            calls.append(1)
            return TemplateResponse(request, template, {"n": len(calls)})

        self.route(cache_page(300)(view))

        self.assertEqual([await self.abody(), await self.abody()], ["build 1", "build 1"])

    async def test_never_cache_leaves_an_async_view_alone(self):
        self.route(never_cache(self.counting()))

        response = await self.aget()

        self.assertIn("no-store", response["Cache-Control"])
        self.assertEqual(self.keys("site"), [])

    async def test_the_never_cache_of_django_stores_nothing(self):
        self.route(django_never_cache(self.counting()))

        self.assertEqual([await self.abody(), await self.abody()], ["build 1", "build 2"])


class AsyncGuardTests(AsyncTestCase):
    """50 at once: one build, and the event loop goes on."""

    def crowd_view(self):
        """Return a view that builds until all of the crowd has asked for the lock."""
        self.builds = 0

        async def view(request):
            self.builds += 1
            await until(lambda: self.attempts() >= CROWD)
            return HttpResponse(f"build {self.builds}")

        return view

    async def crowd(self, read):
        """Return what 50 read at once, and how often the event loop went round meanwhile."""
        beats = 0

        async def beat():
            nonlocal beats
            while True:
                await asyncio.sleep(0)
                beats += 1

        heart = asyncio.create_task(beat())
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.gather(*(read() for _ in range(CROWD))), beats
        finally:
            heart.cancel()

    def setUp(self):
        super().setUp()
        for name in ("FIRST_WAIT", "EXTRA_WAIT"):
            self.enterContext(mock.patch(f"resilient_cache.guard.{name}", PATIENCE))

    async def test_of_50_who_miss_a_page_of_the_site_one_builds(self):
        self.route(self.crowd_view())

        bodies, _ = await self.crowd(self.abody)

        self.assertEqual((set(bodies), self.builds), ({"build 1"}, 1))

    async def test_of_50_who_miss_a_decorated_view_one_builds(self):
        self.route(cache_page(300, cache="view")(self.crowd_view()))

        bodies, _ = await self.crowd(self.abody)

        self.assertEqual((set(bodies), self.builds), ({"build 1"}, 1))

    async def test_of_50_who_miss_a_low_level_value_one_builds(self):
        view = self.crowd_view()

        async def build():
            return (await view(None)).text

        values, _ = await self.crowd(lambda: cache.aget_or_set("x", build, 60))

        self.assertEqual((set(values), self.builds), ({"build 1"}, 1))

    async def test_the_event_loop_goes_on_while_a_request_waits(self):
        self.route(cache_page(300, cache="view")(self.counting()))
        await asyncio.to_thread(self.lock_of_another, self.key, "view")
        waiting = asyncio.create_task(self.abody())
        # The loop runs this while the request waits. A blocked loop would run it once.
        await until(self.waits)
        for _ in range(50):
            await asyncio.sleep(0.001)
        self.assertFalse(waiting.done())

        await caches["view"].adelete(f"lock:{self.key}")

        async with asyncio.timeout(PATIENCE):
            self.assertEqual(await waiting, "build 1")


class AsyncLockEndTests(AsyncTestCase):
    """A lock ends with its request under ASGI, too."""

    async def asgi(self):
        """Return the status of a request that a real ASGI handler serves, in tasks of its own."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "path": self.path,
            "query_string": b"",
            "headers": [(b"host", b"testserver")],
        }
        application = ApplicationCommunicator(ASGIHandler(), scope)
        await application.send_input({"type": "http.request"})
        status = (await application.receive_output(PATIENCE))["status"]
        await application.receive_output(PATIENCE)
        await application.wait(PATIENCE)
        return status

    async def assert_free(self):
        for alias in ("site", "view"):
            self.assertIn(await caches[alias].aget(f"lock:{self.key}"), (None, "abandoned"))
        with forever():
            async with asyncio.timeout(PATIENCE):
                return await self.asgi()

    async def test_a_page_is_cached(self):
        self.route(cache_page(300)(self.counting()))

        self.assertEqual([await self.asgi(), await self.asgi()], [200, 200])
        self.assertEqual(self.builds, 1)

    async def test_a_view_that_fails(self):
        async def view(request):
            raise RuntimeError("a view that fails")

        for served in (view, cache_page(300, cache="view")(view)):
            self.urls.urlpatterns, self.path = [], f"{self.path}x/"
            self.route(served)
            with self.assertLogs("django.request", "ERROR"):
                self.assertEqual(await self.asgi(), 500)
                self.assertEqual(await self.assert_free(), 500)

    async def test_a_template_that_fails(self):
        async def view(request):
            return TemplateResponse(request, "missing.html")

        for served in (view, cache_page(300, cache="view")(view)):
            self.urls.urlpatterns, self.path = [], f"{self.path}x/"
            self.route(served)
            with self.assertLogs("django.request", "ERROR"):
                self.assertEqual(await self.asgi(), 500)
                self.assertEqual(await self.assert_free(), 500)

    async def test_a_client_that_goes_away_ends_the_lock(self):
        building = asyncio.Event()

        async def view(request):
            building.set()
            await asyncio.sleep(PATIENCE)

        self.route(cache_page(300, cache="view")(view))
        request = asyncio.create_task(self.abody())
        await building.wait()

        request.cancel()
        await asyncio.wait([request])

        self.assertIn(await caches["view"].aget(f"lock:{self.key}"), (None, "abandoned"))


class AgetOrSetTests(AsyncTestCase):
    """aget_or_set() takes a value, a function or an async function."""

    async def test_an_async_function_is_awaited_on_a_miss_alone(self):
        calls = []

        async def build():
            calls.append(1)
            return len(calls)

        values = [await cache.aget_or_set("k", build, 60) for _ in "12"]

        self.assertEqual(values, [1, 1])
        self.assertEqual(await cache.aget("k"), 1)

    async def test_a_task_that_is_cancelled_leaves_no_lock(self):
        acquire, asked, go_on = guard.Lock.acquire, threading.Event(), threading.Event()

        def slow(lock):
            asked.set()
            go_on.wait(PATIENCE)
            return acquire(lock)

        with mock.patch("resilient_cache.guard.Lock.acquire", slow):
            task = asyncio.ensure_future(cache.aget_or_set("cancelled", "v", 60))
            await until(asked.is_set)
            task.cancel()
            go_on.set()
            with self.assertRaises(asyncio.CancelledError):
                await task

        self.assertIsNone(await cache.aget("lock:cancelled"))

    async def test_after_a_cancelled_build_one_request_builds(self):
        started, builds = asyncio.Event(), []

        async def build():
            builds.append("build")
            started.set()
            await asyncio.sleep(0.1 if len(builds) > 1 else PATIENCE)

        task = asyncio.ensure_future(cache.aget_or_set("cancelled", build, 60))
        await started.wait()
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
        await asyncio.gather(*(cache.aget_or_set("cancelled", build, 60) for _ in range(8)))

        self.assertEqual(len(builds), 2)

    async def test_a_task_that_is_cancelled_while_it_waits_gives_its_place_back(self):
        lock = guard.Lock(cache, "waits")
        await sync_to_async(lock.acquire)()
        task = asyncio.ensure_future(cache.aget_or_set("waits", "v", 60))
        await until(lambda: guard._waiting._count == 1)
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task

        self.assertEqual(guard._waiting._count, 0)

    async def test_a_function_and_a_value_are_taken(self):
        self.assertEqual(await cache.aget_or_set("one", lambda: "called"), "called")
        self.assertEqual(await cache.aget_or_set("two", "value"), "value")

    async def test_the_timeout_is_the_ttl(self):
        await cache.aget_or_set("k", "v", 77)

        self.assertIn(cache.ttl("k"), range(70, 78))

    async def test_an_error_ends_the_lock(self):
        async def fail():
            raise RuntimeError("a function that fails")

        with self.assertRaises(RuntimeError):
            await cache.aget_or_set("failing", fail)

        with forever():
            async with asyncio.timeout(PATIENCE):
                self.assertEqual(await cache.aget_or_set("failing", "value"), "value")

    async def test_a_value_near_its_end_is_refreshed_by_one(self):
        await cache.aget_or_set("k", "old", 300)
        self.redis("default").pexpire("low-level:1:k", 5_000)
        RecordingRedis.commands.clear()

        self.assertEqual(await cache.aget_or_set("k", "new", 300), "new")
        self.assertEqual(await cache.aget_or_set("k", "newer", 300), "new")
