"""The guard: of many requests that miss, one builds, and no request waits in vain."""

import threading
from unittest import mock

from django.core.cache import cache, caches
from django.http import HttpResponse
from django.template import Context, Template, engines
from django.template.response import TemplateResponse
from django.test import Client, override_settings
from django.views.decorators.cache import never_cache as django_never_cache
from django.views.decorators.vary import vary_on_cookie

from resilient_cache import guard
from resilient_cache.groups import invalidate
from resilient_cache.pages import cache_page
from resilient_cache.tests.base import (
    FETCH,
    PATIENCE,
    UPDATE,
    CacheTestCase,
    CountingView,
    RecordingRedis,
    seconds_later,
    together,
)
from resilient_cache.tests.server import wait_until

CROWD = 50


def forever():
    """Let a request wait so long for a lock that is held that the test would fail."""
    return mock.patch("resilient_cache.guard.FIRST_WAIT", 1000)


class FailsInResponse:
    """A middleware that raises after the view."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        self.get_response(request)
        raise RuntimeError("a middleware that fails")


class FailsInRequest(FailsInResponse):
    """A middleware that raises before the view."""

    def __call__(self, request):
        raise RuntimeError("a middleware that fails")


class GuardTestCase(CacheTestCase):
    """Sees the commands that reach Redis, and therefore who waits."""

    cache_options = {"REDIS_CLIENT_CLASS": "resilient_cache.tests.base.RecordingRedis"}

    def setUp(self):
        super().setUp()
        RecordingRedis.commands.clear()
        RecordingRedis.events.clear()

    def attempts(self):
        """Return how often a lock was asked for."""
        return sum(
            command[0] == "SET" and ":lock:" in str(command[1])
            for command in RecordingRedis.commands.copy()
        )

    def waits(self):
        """Return whether a request waits: it looks at a lock that it did not get again."""
        looks = [
            command
            for command in RecordingRedis.commands.copy()
            if command[0] == "GET" and ":lock:" in str(command[1])
        ]
        return len(looks) >= 2

    def lock_commands(self):
        """Return the commands on locks so far."""
        return [each for each in RecordingRedis.commands.copy() if ":lock:" in str(each[1:2])]

    def lock_of_another(self, key, alias="site"):
        """Take the lock for `key` as another process does that is then killed."""
        caches[alias].set(f"lock:{key}", "another", 60)

    @property
    def key(self):
        """The key of the page at this test's path."""
        return f"page:http://testserver{self.path}|en-us"

    def started(self, call):
        """Start call() in a thread. Return a function that waits for its result."""
        results = []
        thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
        thread.start()

        def result():
            thread.join(PATIENCE)
            self.assertTrue(results, "The request hangs or failed")
            return results[0]

        return result


class StampedeTests(GuardTestCase):
    """50 at once on a cold key: one computation."""

    def setUp(self):
        super().setUp()
        # On a busy machine the crowd gathers for longer than a request waits.
        for name in ("FIRST_WAIT", "EXTRA_WAIT"):
            self.enterContext(mock.patch(f"resilient_cache.guard.{name}", PATIENCE))

    def crowd_view(self):
        """Return a view that builds until all of the crowd has asked for the lock."""

        def view(request):
            self.builds += 1
            wait_until(lambda: self.attempts() >= CROWD, PATIENCE)
            return HttpResponse(f"build {self.builds}")

        self.builds = 0
        return view

    def test_of_50_who_miss_a_page_of_the_site_one_builds(self):
        self.route(self.crowd_view())

        bodies = together(CROWD, self.body)

        self.assertEqual((set(bodies), self.builds), ({"build 1"}, 1))

    def test_of_50_who_miss_a_decorated_view_one_builds(self):
        self.route(cache_page(300, cache="view", group="mine")(self.crowd_view()))

        bodies = together(CROWD, self.body)

        self.assertEqual((set(bodies), self.builds), ({"build 1"}, 1))

    def test_of_50_who_miss_a_fragment_one_builds(self):
        view = self.crowd_view()
        template = Template("{% load resilient_cache %}{% cache 60 box %}{{ build }}{% endcache %}")

        texts = together(
            CROWD, lambda: template.render(Context({"build": lambda: view(None).text}))
        )

        self.assertEqual((set(texts), self.builds), ({"build 1"}, 1))

    def test_of_50_who_miss_a_low_level_value_one_builds(self):
        view = self.crowd_view()

        values = together(CROWD, lambda: cache.get_or_set("x", lambda: view(None).text, 60))

        self.assertEqual((set(values), self.builds), ({"build 1"}, 1))

    def test_a_request_that_finds_the_value_with_its_lock_in_hand_does_not_shorten_the_wait(self):
        acquire, view = guard.Lock.acquire, self.crowd_view()

        def late(lock):
            cache.set("straggler", "stored meanwhile")
            return acquire(lock)

        with mock.patch("resilient_cache.guard.Lock.acquire", late):
            self.assertEqual(cache.get_or_set("straggler", "built", 60), "stored meanwhile")
        cache.delete("straggler")
        RecordingRedis.commands.clear()
        with mock.patch("resilient_cache.guard.EXTRA_WAIT", 0):
            values = together(
                CROWD, lambda: cache.get_or_set("straggler", lambda: view(None).text, 60)
            )

        self.assertEqual((set(values), self.builds), ({"build 1"}, 1))

    def test_of_50_who_miss_an_invalidated_page_one_builds(self):
        self.route(self.crowd_view())
        RecordingRedis.commands.extend([("SET", ":lock:")] * CROWD)
        self.body()
        RecordingRedis.commands.clear()
        invalidate(self.path)

        bodies = together(CROWD, self.body)

        self.assertEqual((set(bodies), self.builds), ({"build 2"}, 2))

    def test_those_who_waited_are_told_to_the_instrument_as_collapsed(self):
        self.route(self.crowd_view())

        together(CROWD, self.body)

        collapsed = [key for what, key in RecordingRedis.events if what == "collapsed"]
        self.assertEqual(collapsed, [f"site:1:{self.key}"] * (CROWD - 1))

    def test_50_visitors_of_a_page_that_varies_do_not_wait_for_one_another(self):
        others = threading.Barrier(CROWD - 1)
        mutex, builds = threading.Lock(), []

        @vary_on_cookie
        def view(request):
            with mutex:
                builds.append(request.COOKIES["id"])
                is_first = len(builds) == 1
            if is_first:
                wait_until(lambda: self.attempts() >= CROWD, PATIENCE)
            else:
                others.wait(PATIENCE)  # Broken unless all the others build at the same time.
            return HttpResponse(request.COOKIES["id"])

        self.route(view)

        def visit(number):
            client = Client(raise_request_exception=False)
            client.cookies["id"] = str(number)
            return client.get(self.path).text

        bodies = together(CROWD, visit, numbered=True)

        self.assertEqual(bodies, [str(number) for number in range(CROWD)])
        self.assertEqual(len(builds), CROWD)

    def test_of_50_requests_of_one_visitor_to_a_page_that_varies_one_builds(self):
        self.route(vary_on_cookie(self.crowd_view()))

        def visit():
            client = Client()
            client.cookies["id"] = "ann"
            return client.get(self.path).text

        self.assertEqual(set(together(CROWD, visit)), {"build 1"})
        self.assertEqual(self.builds, 1)


class EarlyRefreshTests(GuardTestCase):
    """Near the end of its timeout, one request builds the next value and no request waits."""

    def refresh(self, read, soon):
        """Return what one request built near the end, and what ten others got meanwhile."""
        self.assertEqual(read(), "build 1")
        RecordingRedis.commands.clear()
        with soon():
            self.go_on.clear()
            refreshed = self.started(read)
            self.assertTrue(self.building.wait(PATIENCE))
            others = together(10, read)
            self.go_on.set()
            return refreshed(), others

    def setUp(self):
        super().setUp()
        self.go_on, self.building = threading.Event(), threading.Event()
        self.go_on.set()
        self.builds = 0

    def view(self, request=None):
        self.builds += 1
        text = f"build {self.builds}"
        if self.builds > 1:
            self.building.set()
            self.go_on.wait(PATIENCE)
        return HttpResponse(text)

    @override_settings(CACHE_MIDDLEWARE_SECONDS=60)
    def test_a_page_of_the_site_is_refreshed_by_one_request(self):
        self.route(self.view)

        refreshed, others = self.refresh(self.body, lambda: seconds_later(55))

        self.assertEqual((refreshed, set(others), self.builds), ("build 2", {"build 1"}, 2))
        self.assertEqual(self.body(), "build 2")

    def test_a_decorated_view_is_refreshed_by_one_request(self):
        self.route(cache_page(300, cache="view")(self.view))

        refreshed, others = self.refresh(self.body, lambda: seconds_later(291))

        self.assertEqual((refreshed, set(others), self.builds), ("build 2", {"build 1"}, 2))

    def test_a_low_level_value_is_refreshed_by_one_request(self):
        def soon():
            self.redis("default").pexpire("low-level:1:x", 9_000)
            return mock.patch("os.name", "posix")

        refreshed, others = self.refresh(
            lambda: cache.get_or_set("x", lambda: self.view().text, 300), soon
        )

        self.assertEqual((refreshed, set(others), self.builds), ("build 2", {"build 1"}, 2))
        self.assertEqual(cache.get("x"), "build 2")
        self.assertGreater(self.redis("default").ttl("low-level:1:x"), 200)

    def test_a_newer_value_that_was_set_meanwhile_stays(self):
        cache.get_or_set("x", "old", 300)
        self.redis("default").pexpire("low-level:1:x", 9_000)

        cache.get_or_set("x", lambda: cache.set("x", "newer", 300) and "built", 300)

        self.assertEqual(cache.get("x"), "newer")

    def test_a_page_is_not_refreshed_before_the_end_is_near(self):
        self.route(cache_page(300, cache="view")(self.view))
        self.body()

        with seconds_later(280):
            self.assertEqual(self.body(), "build 1")

    def test_a_value_of_a_few_seconds_is_not_refreshed_early(self):
        cache.get_or_set("x", "old", 4)

        self.assertEqual(cache.get_or_set("x", "new", 4), "old")

    def test_touch_puts_the_end_off(self):
        cache.get_or_set("x", "old", 60)
        self.redis("default").pexpire("low-level:1:x", 3_000)
        cache.touch("x", 60)

        self.assertEqual(cache.get_or_set("x", "new", 60), "old")

    def test_a_value_without_a_timeout_is_never_refreshed(self):
        cache.get_or_set("x", "old", None)

        self.assertEqual(cache.get_or_set("x", "new", None), "old")
        self.assertEqual(self.redis("default").ttl("low-level:1:x"), -1)

    def test_head_does_not_refresh(self):
        self.route(cache_page(300, cache="view")(self.view))
        self.body()

        with seconds_later(295):
            Client().head(self.path)

        self.assertEqual(self.builds, 1)

    def test_a_refresh_that_fails_leaves_the_valid_page(self):
        def view(request):
            if self.builds:
                raise RuntimeError("a view that fails")
            return self.view()

        self.route(cache_page(300, cache="view")(view))
        self.body()

        with seconds_later(295), self.assertLogs("django.request"):
            self.assertEqual(self.get().status_code, 500)

        self.assertEqual(self.body(), "build 1")

    @override_settings(CACHE_MIDDLEWARE_SECONDS=60)
    def test_an_invalidated_page_is_not_shown_while_it_is_refreshed(self):
        self.route(self.view)
        self.body()
        with seconds_later(55):
            self.go_on.clear()
            refreshed = self.started(self.body)
            self.building.wait(PATIENCE)
            invalidate("site")
            other = self.started(self.body)
            wait_until(self.waits, PATIENCE)
            self.go_on.set()

            self.assertEqual({refreshed(), other()}, {"build 2", "build 3"})
        self.assertEqual(self.body(), "build 3")


class LockEndTests(GuardTestCase):
    """A lock ends with its request, whatever happens."""

    def assert_free(self):
        """Assert that a request that comes now waits for nothing."""
        for alias in ("site", "view"):
            holder = caches[alias].get(f"lock:{self.key}")
            self.assertIn(holder, (None, "abandoned"))
        with forever():
            return together(1, self.get)[0]

    def at_both_levels(self, view):
        """Serve `view` at the site level, then decorated, each at this test's path."""
        for served in (view, cache_page(300, cache="view")(view)):
            self.empty()
            self.urls.urlpatterns = []
            self.path = f"{self.path}x/"
            self.route(served)
            RecordingRedis.commands.clear()
            yield

    def failing(self):
        return self.assertLogs("django.request", "ERROR")

    def test_a_view_that_fails(self):
        def view(request):
            raise RuntimeError("a view that fails")

        for _ in self.at_both_levels(view):
            with self.failing():
                self.get()

                self.assertEqual(self.assert_free().status_code, 500)

    def test_a_template_that_fails(self):
        for _ in self.at_both_levels(lambda request: TemplateResponse(request, "missing.html")):
            with self.failing():
                self.get()

                self.assertEqual(self.assert_free().status_code, 500)

    def test_a_template_that_is_rendered_is_stored(self):
        template = engines["django"].from_string("build {{ n }}")
        builds = []

        def view(request):
            builds.append(1)
            return TemplateResponse(request, template, {"n": len(builds)})

        for _ in self.at_both_levels(view):
            builds.clear()
            self.assertEqual([self.body(), self.body()], ["build 1", "build 1"])
            self.assertEqual(self.keys("site", "*lock*") + self.keys("view", "*lock*"), [])

    def test_a_template_that_is_never_cached_as_the_admin_s(self):
        template = engines["django"].from_string("page")
        view = django_never_cache(lambda request: TemplateResponse(request, template))
        for _ in self.at_both_levels(view):
            self.get()

            self.assertEqual(self.assert_free().text, "page")

    def test_a_middleware_inside_that_fails(self):
        for name in ("FailsInResponse", "FailsInRequest"):
            inside = [UPDATE, f"resilient_cache.tests.test_guard.{name}", FETCH]
            with override_settings(MIDDLEWARE=inside), self.failing():
                for _ in self.at_both_levels(CountingView()):
                    self.get()

                    self.assertEqual(self.assert_free().status_code, 500)

    def test_a_middleware_outside_that_fails(self):
        for name in ("FailsInResponse", "FailsInRequest"):
            outside = [f"resilient_cache.tests.test_guard.{name}", UPDATE, FETCH]
            with override_settings(MIDDLEWARE=outside), self.failing():
                for _ in self.at_both_levels(CountingView()):
                    self.get()

                    self.assertEqual(self.assert_free().status_code, 500)

    def test_a_malformed_max_age(self):
        for _ in self.at_both_levels(CountingView(Cache_Control="max-age=abc")):
            self.get()

            self.assertEqual(self.assert_free().status_code, 200)

    def test_a_head_first(self):
        for _ in self.at_both_levels(CountingView()):
            Client().head(self.path)

            self.assertEqual(self.assert_free().status_code, 200)

    def test_a_view_within_a_view(self):
        inner = cache_page(300, cache="view")(CountingView(Cache_Control="private"))
        for _ in self.at_both_levels(lambda request: inner(request)):
            self.get()

            self.assertEqual(self.assert_free().status_code, 200)

    def test_a_low_level_value_that_asks_for_itself_does_not_wait_for_itself(self):
        for name in ("FIRST_WAIT", "EXTRA_WAIT"):
            self.enterContext(mock.patch(f"resilient_cache.guard.{name}", 10 * PATIENCE))

        (value,) = together(
            1, lambda: cache.get_or_set("x", lambda: cache.get_or_set("x", "inner", 60) + "!", 60)
        )

        self.assertEqual(value, "inner")

    def test_a_low_level_value_whose_function_fails(self):
        def fail():
            raise RuntimeError("a function that fails")

        with self.assertRaises(RuntimeError):
            cache.get_or_set("failing", fail)

        with forever():
            self.assertEqual(together(1, lambda: cache.get_or_set("failing", "x")), ["x"])

    def test_a_low_level_value_that_cannot_be_stored(self):
        with self.assertRaises(TypeError):
            cache.get_or_set("unstorable", object)

        with forever():
            self.assertEqual(together(1, lambda: cache.get_or_set("unstorable", "x")), ["x"])

    def test_a_page_that_cannot_be_stored_takes_no_lock_for_a_minute(self):
        for _ in self.at_both_levels(CountingView(Cache_Control="private")):
            self.get()
            self.assertGreaterEqual(self.attempts(), 1)
            RecordingRedis.commands.clear()

            self.get()

            self.assertEqual(self.lock_commands(), [])

    def test_a_page_that_cannot_be_stored_takes_a_lock_after_a_minute(self):
        with mock.patch("resilient_cache.guard.UNSTORABLE_TIMEOUT", 0):
            for _ in self.at_both_levels(CountingView(Cache_Control="private")):
                self.get()
                RecordingRedis.commands.clear()

                self.get()

                self.assertGreaterEqual(self.attempts(), 1)

    def test_another_alias_with_the_same_key_takes_its_lock(self):
        with self.assertRaises(TypeError):
            caches["view"].get_or_set("same", object)
        RecordingRedis.commands.clear()

        caches["default"].get_or_set("same", "value")

        self.assertEqual(self.attempts(), 1)

    def test_those_who_wait_for_a_page_that_is_not_stored_build_at_once(self):
        def view(request):
            wait_until(lambda: self.attempts() >= 10, PATIENCE)
            response = HttpResponse("mine")
            response.set_cookie("id", "1")
            return response

        self.route(view)

        self.assertEqual(together(10, self.body), ["mine"] * 10)

    def test_those_who_wait_for_a_function_that_fails_build_for_themselves(self):
        mutex, calls = threading.Lock(), []

        def build():
            with mutex:
                calls.append(1)
                is_first = len(calls) == 1
            if is_first:
                wait_until(lambda: self.attempts() >= 3, PATIENCE)
                raise RuntimeError("a function that fails")
            return "value"

        def read():
            try:
                return cache.get_or_set(self.path, build)
            except RuntimeError:
                return "failed"

        self.assertEqual(sorted(together(3, read)), ["failed", "value", "value"])


class KilledHolderTests(GuardTestCase):
    """A lock that its holder left behind delays a request for a bounded time."""

    def test_a_request_that_has_waited_long_enough_builds(self):
        self.route(CountingView())
        self.lock_of_another(self.key)

        with mock.patch("resilient_cache.guard.FIRST_WAIT", 0.05):
            self.assertEqual(self.body(), "build 1")

        self.assertEqual(self.body(), "build 1")

    def test_the_wait_is_as_long_as_the_last_build_took_where_that_is_known(self):
        self.route(CountingView())
        self.body()
        self.redis("site").delete(self.page_key())
        self.lock_of_another(self.key)

        # The test would hang if it waited as for an unknown page.
        with forever():
            self.assertEqual(together(1, self.body), ["build 2"])

    def test_the_wait_for_an_invalidated_page_is_as_long_as_its_build_took_elsewhere(self):
        # Another process has built it: this one knows how long that took from the entry.
        self.route(CountingView())
        self.body()
        invalidate(self.path)
        self.lock_of_another(self.key)

        with forever():
            self.assertEqual(together(1, self.body), ["build 2"])

    def test_the_lock_of_another_is_not_deleted(self):
        self.route(CountingView())
        self.lock_of_another(self.key)

        with mock.patch("resilient_cache.guard.FIRST_WAIT", 0.05):
            self.body()

        self.assertEqual(caches["site"].get(f"lock:{self.key}"), "another")

    def test_a_lock_that_another_has_taken_meanwhile_is_not_deleted(self):
        def view(request):
            self.lock_of_another(self.key)
            return HttpResponse("slow")

        self.route(view)

        self.body()

        self.assertEqual(caches["site"].get(f"lock:{self.key}"), "another")

    def test_a_lock_ends_by_itself(self):
        def view(request):
            ttl = self.redis("site").pttl(f"site:1:lock:{self.key}")
            return HttpResponse(f"{0 < ttl <= 10_000}")

        self.route(view)

        self.assertEqual(self.body(), "True")

    def test_a_request_that_waits_takes_the_lock_when_it_ends(self):
        self.route(CountingView())
        self.lock_of_another(self.key)
        waiting = self.started(self.body)
        self.assertTrue(wait_until(self.waits, PATIENCE))

        caches["site"].delete(f"lock:{self.key}")

        self.assertEqual(waiting(), "build 1")

    def test_a_due_page_is_shown_while_the_lock_of_another_is_held(self):
        self.route(cache_page(300, cache="view")(CountingView()))
        self.body()
        self.lock_of_another(self.key, "view")

        with seconds_later(295):
            self.assertEqual(self.body(), "build 1")


class MaxWaitingTests(GuardTestCase):
    """A part of the threads of a process goes on answering."""

    @override_settings(RESILIENT_CACHE={"MAX_WAITING": 1})
    def test_one_request_more_than_may_wait_builds_at_once(self):
        self.route(CountingView())
        self.lock_of_another(self.key)

        with forever():
            waiting = self.started(self.body)
            self.assertTrue(wait_until(self.waits, PATIENCE))
            second = together(1, self.body)
            caches["site"].delete(f"lock:{self.key}")

            self.assertEqual((second, waiting()), (["build 1"], "build 1"))

    @override_settings(RESILIENT_CACHE={"MAX_WAITING": 1})
    def test_a_request_that_has_waited_lets_the_next_one_wait(self):
        self.route(CountingView())
        for _ in range(3):
            self.empty()
            RecordingRedis.commands.clear()
            self.lock_of_another(self.key)
            with forever():
                waiting = self.started(self.body)
                self.assertTrue(wait_until(self.waits, PATIENCE))
                caches["site"].delete(f"lock:{self.key}")
                waiting()

    @override_settings(RESILIENT_CACHE={"MAX_WAITING": 0})
    def test_with_none_allowed_to_wait_every_request_builds(self):
        self.route(CountingView())
        self.lock_of_another(self.key)

        with forever():
            self.assertEqual(together(1, self.body), ["build 1"])
