"""Of all who miss the same key at once, one builds: mysite/caches/stampede.py."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from unittest import mock, skipUnless

from django.conf import settings
from django.core.cache import cache, caches
from django.http import Http404, HttpResponse
from django.template import Context, Template
from django.test import RequestFactory
from django.views.decorators.cache import cache_page, never_cache
from redis.client import Pipeline

from mysite.caches import REDIS_TIMEOUT, stampede
from mysite.caches.breaker import breaker_of
from mysite.caches.pages import new_generations, page
from mysite.caches.serializer import SafeSerializer
from mysite.caches.stampede import (
    BUILD_TIMEOUT,
    LONGEST_PAUSE,
    NEVER,
    NOTHING_TIMEOUT,
    TOKEN,
    WAIT,
    NotKept,
    get_or_build,
    renewal,
    window,
)
from mysite.private_redis import PrivateRedis
from mysite.tests.processes import wait_until
from mysite.tests.served import PATIENT, Gunicorn, Home
from mysite.tests.test_pages import PagesTestCase

CROWD = 50
serializer = SafeSerializer({})


def looks_so_far(redis):
    return redis.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"]


class Clock:
    """Stands in for the module `time`: whoever sleeps moves it on, and nobody waits."""

    time = time.time

    def __init__(self):
        self.now = self.looks = 0

    def monotonic(self):
        self.looks += 1
        if self.looks > 10_000:
            raise AssertionError("Asked for the time without end")
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        if self.now > 10 * WAIT:
            raise AssertionError("Waited without end")


class Crowd(PagesTestCase):
    """Many who ask for the same at once. `ask()` and what is behind it differ by level."""

    level, pattern = "site", "*[0-9]:views*.cache_page.*"
    looks = 2  # MGET commands of a miss

    def setUp(self):
        super().setUp()
        # Who waits does so for a shorter time after a connection that another test has closed.
        breaker_of().forget_losses()
        # Whoever has not looked before it is over would have the right to build.
        self.enterContext(mock.patch.object(stampede, "NOTHING_TIMEOUT", 60))
        self.lock = threading.Lock()
        self.answers = []
        self.while_building = lambda number: None

    def build(self):
        """Return what one computation gives."""
        with self.lock:
            self.built += 1
            number = self.built
        self.while_building(number)
        return f"built {number}"

    def view(self, request):
        return HttpResponse(self.build())

    def ask(self):
        """Return what a visitor gets."""
        return self.get()

    def invalidate(self):
        new_generations("site", ["g"])

    def invalidate_now(self, key):
        """Drop the entry at `key` (as Redis has it), while nobody builds it."""
        self.invalidate()

    @contextmanager
    def writes_paused(self):
        """Let the caches not try to write, as after a refusal a moment ago."""
        breaker = breaker_of()
        with mock.patch.object(breaker, "_pause_ends", float("inf")):
            yield

    def together(self, number=CROWD):
        """Let so many ask at once. Return their answers, None for an exception."""
        start = threading.Barrier(number)
        self.answers = []

        def visitor(_):
            start.wait(30)
            answer = None
            with suppress(ZeroDivisionError):
                answer = self.ask()
            self.answers.append(answer)

        with ThreadPoolExecutor(number) as pool:
            list(pool.map(visitor, range(number)))
        return self.answers

    def everybody_looked(self, number=CROWD):
        """Return a condition: so many have missed the value since now, and looked again."""
        redis = self.redis("site")
        wanted = looks_so_far(redis) + number * self.looks
        return lambda: looks_so_far(redis) >= wanted

    def entry(self):
        """Return the key of the one entry, and what it holds."""
        (key,) = self.keys(self.level, self.pattern)
        return key, serializer.loads(self.redis(self.level).get(key))

    def make_due(self):
        """Let the entry be in the last part of its time."""
        key, entry = self.entry()
        due = tuple(0.0 if isinstance(part, float) else part for part in entry)
        self.redis(self.level).set(key, serializer.dumps(due), keepttl=True)

    def rights(self):
        return self.keys(self.level, "*building:*")

    def right_of_somebody_else(self):
        """Let somebody who is no more have the right to build. Return its key."""
        names = []
        self.while_building = lambda number: names.extend(self.rights())
        self.ask()
        self.while_building = lambda number: None
        self.empty_caches()
        self.built = 0
        (name,) = names
        self.redis(self.level).set(name, TOKEN + b"somebody", px=BUILD_TIMEOUT * 1000)
        return name

    def unsteady(self):
        """Let Redis be taken for unsteady until the end of the test."""
        self.addCleanup(breaker_of().forget_losses)
        breaker_of()._unsteady_ends = float("inf")

    def lost(self):
        """Let Redis be taken for one that has lost a connection, just now."""
        self.addCleanup(breaker_of().forget_losses)
        breaker_of().lose(time.monotonic())

    @contextmanager
    def nobody_waits(self):
        """Fail if somebody waited for a right in this block."""
        # Not time.sleep() itself: probes of other tests may still use it.
        with mock.patch("mysite.caches.stampede.time", Clock()) as clock:
            yield
        self.assertEqual(clock.now, 0)

    def clock(self):
        """Let the guard take its time from a Clock, and return that."""
        return self.enterContext(mock.patch("mysite.caches.stampede.time", Clock()))


class PageTests(Crowd):
    """A page of the whole site."""

    def test_of_many_who_miss_one_builds(self):
        looked = self.everybody_looked()
        self.while_building = lambda number: wait_until(looked)

        answers = self.together()

        self.assertEqual(self.built, 1)
        self.assertEqual(answers, ["built 1"] * CROWD)

    def test_near_its_end_one_builds_and_nobody_waits(self):
        self.ask()
        self.make_due()
        # Everybody else has an answer before the new value is there.
        self.while_building = lambda number: self.assertTrue(
            wait_until(lambda: len(self.answers) == CROWD - 1)
        )

        answers = self.together()

        self.assertEqual(sorted(answers), ["built 1"] * (CROWD - 1) + ["built 2"])
        self.assertEqual(self.ask(), "built 2")
        self.assertEqual(self.built, 2)

    def test_a_renewed_entry_has_its_whole_time(self):
        self.ask()
        self.make_due()
        key, _ = self.entry()
        self.redis(self.level).expire(key, 3)

        self.ask()

        self.assertGreater(self.ttl(self.level, key), 50)

    def test_when_the_one_who_builds_dies_exactly_one_of_the_others_builds(self):
        name = self.right_of_somebody_else()
        looked = self.everybody_looked(20)
        end = threading.Thread(
            target=lambda: wait_until(looked) and self.redis(self.level).pexpire(name, 1)
        )
        end.start()

        answers = self.together(20)

        end.join()
        self.assertEqual(answers, ["built 1"] * 20)

    def test_garbage_in_place_of_a_right_makes_nobody_wait(self):
        name = self.right_of_somebody_else()
        for value in (b"garbage", b"nothing at all", b""):
            with self.subTest(value), self.nobody_waits():
                self.empty_caches()
                self.redis(self.level).set(name, value)
                self.ask()

                self.assertEqual(self.rights(), [])

    def test_a_list_in_place_of_a_right_ends(self):
        name = self.right_of_somebody_else()
        self.put_list(name)

        self.assertEqual(self.ask(), "built 1")
        self.assertEqual(self.rights(), [])

    def test_after_every_key_was_a_list_there_are_hits_again(self):
        self.ask()
        redis = self.redis(self.level)
        for key in self.keys(self.level):
            redis.delete(key)
            redis.lpush(key, "wrong")

        self.ask()
        self.ask()

        built = self.built
        self.ask()
        self.assertEqual(self.built, built)

    def test_after_garbage_in_place_of_a_right_nobody_waits_for_other_rights(self):
        self.addCleanup(breaker_of().forget_losses)
        self.enterContext(mock.patch("mysite.caches.breaker.UNSTEADY", 60))
        for put in (self.put_bytes, self.put_list):
            with self.subTest(put.__name__):
                breaker_of().forget_losses()
                self.empty_caches()
                name = self.right_of_somebody_else()
                put(name)
                self.ask()
                self.empty_caches()
                self.built = 0
                self.redis(self.level).set(name, TOKEN + b"somebody", px=BUILD_TIMEOUT * 1000)

                with self.nobody_waits():
                    self.assertEqual(self.ask(), "built 1")

    def put_bytes(self, name):
        self.redis(self.level).set(name, b"garbage")

    def put_list(self, name):
        self.redis(self.level).delete(name)
        self.redis(self.level).lpush(name, "wrong")

    def test_of_a_redis_that_is_restarted_again_and_again_nobody_waits_for_anybody(self):
        self.right_of_somebody_else()
        self.unsteady()

        with self.nobody_waits():
            self.assertEqual(self.ask(), "built 1")

    def test_after_one_restart_nobody_waits_longer_than_a_timeout(self):
        self.right_of_somebody_else()
        self.lost()
        clock = self.clock()

        self.assertEqual(self.ask(), "built 1")

        self.assertAlmostEqual(clock.now, REDIS_TIMEOUT)

    def test_who_waits_goes_on_when_redis_is_restarted(self):
        self.assert_going_on_when(self.lost)

    def test_who_waits_goes_on_when_redis_is_restarted_again(self):
        self.assert_going_on_when(self.unsteady)

    def assert_going_on_when(self, restarted):
        self.right_of_somebody_else()
        looked = self.everybody_looked(20)
        restart = threading.Thread(target=lambda: wait_until(looked) and restarted())
        start = time.monotonic()
        restart.start()

        answers = self.together(20)

        restart.join()
        self.assertNotIn(None, answers)
        self.assertLess(time.monotonic() - start, BUILD_TIMEOUT - 1)  # When the right ends.

    def test_nobody_waits_for_a_right_that_ended_meanwhile(self):
        self.right_of_somebody_else()
        real, clock = Pipeline.execute, self.clock()

        def too_late(pipeline, *args, **kwargs):
            """Let the right end between SET NX and MGET."""
            answers = real(pipeline, *args, **kwargs)
            if self.rights() and self.redis(self.level).delete(*self.rights()):
                answers[-1][-1] = None
            return answers

        with mock.patch.object(Pipeline, "execute", too_late):
            self.assertEqual(self.ask(), "built 1")

        self.assertLess(clock.now, LONGEST_PAUSE)

    def test_a_right_ends_by_itself(self):
        ttls = []
        self.while_building = lambda number: ttls.extend(
            self.redis(self.level).pttl(name) for name in self.rights()
        )

        self.ask()

        self.assertEqual(len(ttls), 1)
        self.assertLessEqual(0, ttls[0])
        self.assertLessEqual(ttls[0], BUILD_TIMEOUT * 1000)

    def test_who_took_too_long_leaves_the_right_of_the_next_one_alone(self):
        def too_long(number):
            (name,) = self.rights()
            self.redis(self.level).set(name, "the next one", px=5000)

        self.while_building = too_long

        self.ask()

        (name,) = self.rights()
        self.assertEqual(self.redis(self.level).get(name), b"the next one")

    def test_after_an_error_the_others_go_on_all_at_once(self):
        looked = self.everybody_looked(10)
        others = threading.Barrier(9)

        def fail_first(number):
            if number == 1:
                wait_until(looked)
                raise ZeroDivisionError
            others.wait(10)

        self.while_building = fail_first

        answers = self.together(10)

        self.assertEqual(answers.count(None), 1)
        self.assertEqual(self.built, 10)

    def test_nobody_gets_what_was_invalidated_while_it_was_built(self):
        looked = self.everybody_looked(20)

        def invalidate_first(number):
            if number == 1:
                wait_until(looked)
                self.invalidate()

        self.while_building = invalidate_first

        answers = self.together(20)

        # The one who began before the invalidation has its own answer.
        self.assertEqual(sorted(answers), ["built 1"] + ["built 2"] * 19)

    def test_nobody_waits_longer_than_the_bound_for_a_right_that_never_ends(self):
        name = self.right_of_somebody_else()
        self.redis(self.level).persist(name)
        clock = self.clock()

        self.assertEqual(self.ask(), "built 1")
        self.assertLess(WAIT, clock.now + LONGEST_PAUSE)
        self.assertLess(clock.now, WAIT + 2 * LONGEST_PAUSE)

    def test_a_right_taken_when_the_value_was_just_stored_is_given_up(self):
        real, others = stampede.take_turn, []

        def too_late(*args, **kwargs):
            if not others:  # Between the first look and the second.
                others.append(threading.Thread(target=self.ask))
                others[0].start()
                others[0].join()
            return real(*args, **kwargs)

        for module in ("pages", "stampede"):
            self.enterContext(mock.patch(f"mysite.caches.{module}.take_turn", too_late))

        self.assertEqual(self.ask(), "built 1")
        self.assertEqual(self.built, 1)
        self.assertEqual(self.rights(), [])

    def test_what_is_stored_gives_up_the_right(self):
        self.ask()

        self.assertEqual(self.rights(), [])

    def test_a_redis_that_takes_no_right_makes_nobody_wait(self):
        everybody = threading.Barrier(10)
        self.while_building = lambda number: everybody.wait(10)

        with self.refusing("set"):
            self.together(10)

        self.assertEqual(self.built, 10)

    def test_a_redis_that_takes_no_right_serves_what_is_valid(self):
        self.ask()
        self.make_due()

        with self.refusing("set"):
            self.assertEqual(self.ask(), "built 1")

    def test_after_a_refusal_a_miss_tries_to_write_nothing(self):
        with self.refusing("set"):
            self.ask()
            with self.writes_paused(), self.commands() as commands:
                self.ask()

        self.assertEqual(sum(commands.values()), 1, commands)
        self.assertEqual(self.built, 2)

    def test_what_was_built_without_a_right_is_not_packed_when_the_pause_is_over(self):
        self.while_building = lambda number: breaker_of().resume_writes()

        with self.refusing("set"), mock.patch.object(SafeSerializer, "dumps") as dumps:
            self.ask()

        dumps.assert_not_called()

    def test_after_the_pause_it_is_kept_again(self):
        with self.refusing("set"):
            self.ask()
        breaker_of().resume_writes()

        self.ask()

        self.assertEqual(self.ask(), "built 2")

    def test_in_the_pause_hits_go_on(self):
        self.ask()

        with self.writes_paused():
            self.assertEqual(self.ask(), "built 1")

    def test_in_the_pause_what_is_due_is_served_as_it_is(self):
        self.ask()
        self.make_due()

        with self.writes_paused():
            self.assertEqual(self.ask(), "built 1")

    def test_in_the_pause_no_value_is_packed(self):
        with self.writes_paused(), mock.patch.object(SafeSerializer, "dumps") as dumps:
            self.ask()

        dumps.assert_not_called()

    def test_an_invalidation_in_the_pause_is_carried_out(self):
        self.ask()
        (key,) = self.keys(self.level, self.pattern)

        with self.writes_paused():
            self.invalidate_now(key)

            self.assertEqual(self.ask(), "built 2")

    def test_what_is_too_large_to_be_stored_makes_nobody_wait(self):
        looked, others = self.everybody_looked(10), threading.Barrier(9)
        self.while_building = lambda number: wait_until(looked) if number == 1 else others.wait(10)

        with (
            mock.patch("mysite.caches.serializer.MAX_BYTES", 10),
            mock.patch("mysite.caches.log.logger.warning"),
        ):
            self.together(10)

        self.assertEqual(self.built, 10)

    def test_a_hit_asks_for_no_right(self):
        self.ask()

        with self.commands() as commands:
            self.ask()

        self.assertEqual((commands["set"], commands["eval"]), (0, 0))


class HeadTests(Crowd):
    """HEAD looks for the page of GET first, and then for its own."""

    def test_it_does_not_wait_for_the_right_it_has(self):
        self.get(method="head")
        self.redis("site").delete(*self.pages("site"))

        with self.nobody_waits():
            self.get(method="head")

        self.assertEqual(self.built, 2)
        self.assertEqual(self.rights(), [])


class FragmentTests(PageTests):
    """A fragment of a page."""

    level, pattern = "fragment", "*[0-9]:template.cache.*"
    template = Template("{% load cache %}{% cache 60 name %}{{ build }}{% endcache %}")

    def ask(self):
        with page():
            return self.template.render(Context({"build": self.build}))

    def invalidate(self):
        (name,) = self.rights()
        with page():
            caches["template_fragments"].delete(name.partition("building:")[2])

    def invalidate_now(self, key):
        caches["template_fragments"].delete(key.partition("1:")[2])

    def test_a_fragment_within_itself_does_not_wait_for_its_own_right(self):
        self.template = Template(
            "{% load cache %}{% cache 60 name %}{% cache 60 name %}{{ build }}{% endcache %}"
            "{% endcache %}"
        )

        with self.nobody_waits():
            self.assertEqual(self.ask(), "built 1")

        self.assertEqual(self.rights(), [])

    def test_outside_of_any_request_nobody_would_give_up_a_right_so_there_is_none(self):
        self.while_building = lambda number: self.assertEqual(self.rights(), [])

        self.template.render(Context({"build": self.build}))


class LowLevelTests(PageTests):
    """A value, by get_or_build()."""

    level, pattern = "low-level", "*[0-9]:key"
    looks = 1  # The first one is a GET.

    def setUp(self):
        super().setUp()
        self.version = 1

    def ask(self):
        return get_or_build(cache, "key", self.build, 60, self.version)

    def invalidate(self):
        self.version = 2

    def invalidate_now(self, key):
        cache.delete("key")

    def test_nobody_gets_what_was_invalidated_while_it_was_built(self):
        # A new version is another key: nothing to wait for.
        self.while_building = lambda number: None
        self.ask()
        self.invalidate()

        self.assertEqual(self.ask(), "built 2")

    def test_what_is_not_to_be_kept_leaves_nothing(self):
        def build():
            raise NotKept("too much")

        with self.assertRaises(NotKept) as caught:
            get_or_build(cache, "key", build, 60)

        self.assertEqual(caught.exception.value, "too much")
        self.assertEqual(self.keys("low-level"), [])

    def test_none_is_a_value(self):
        get_or_build(cache, "key", lambda: None, 60)

        self.assertIsNone(get_or_build(cache, "key", self.build, 60))
        self.assertEqual(self.built, 0)

    def test_what_touch_gave_more_time_is_not_renewed(self):
        self.ask()
        self.make_due()

        cache.touch("key", 60)

        self.assertEqual(self.ask(), "built 1")

    def make_due(self):
        super().make_due()
        self.redis(self.level).expire(self.entry()[0], 3)

    def test_what_somebody_else_stored_is_a_miss(self):
        for forged in ("plain", 7, (1, "int"), None):
            cache.set("key", forged, 60)
            with self.subTest(forged):
                self.assertIn("built", self.ask())


class UnkeptPageTests(Crowd):
    """Pages that nobody may keep make nobody wait."""

    def test_all_at_once(self):
        def with_cookie(request):
            response = HttpResponse(self.build())
            response.set_cookie("whose", "mine")
            return response

        def missing(request):
            self.build()
            raise Http404

        private = never_cache(lambda request: HttpResponse(self.build()))
        for view in (with_cookie, private, missing):
            self.empty_caches()
            self.built = 0
            looked, others = self.everybody_looked(10), threading.Barrier(9)
            self.while_building = lambda number, looked=looked, others=others: (
                wait_until(looked) if number == 1 else others.wait(10)
            )
            self.site.get_response.get_response = view
            with self.subTest(view):
                with suppress(Http404):
                    self.together(10)
                self.assertEqual(self.built, 10)

    def ask(self):
        with suppress(Http404):
            return self.get()

    def test_the_mark_of_one_that_nobody_keeps_is_gone_in_a_second(self):
        self.site.get_response.get_response = never_cache(lambda request: HttpResponse(""))

        self.ask()

        (name,) = self.rights()
        left = self.redis("site").pttl(name)
        # No right, which would be shorter here.
        self.assertTrue(BUILD_TIMEOUT * 1000 < left <= stampede.NOTHING_TIMEOUT * 1000, left)
        self.assertLessEqual(NOTHING_TIMEOUT, 1)

    def test_a_page_that_another_level_answers_leaves_a_mark_and_no_right(self):
        inner = cache_page(300, cache="view")(self.view)
        self.site.get_response.get_response = inner
        self.get(levels=["site", "view"])
        self.redis("site").delete(*self.pages("site"))

        self.get(levels=["site", "view"])

        (name,) = self.rights()
        self.assertEqual(self.redis("site").get(name), b"nothing")
        self.assertEqual(self.built, 1)


class RenewalTests(Crowd):
    """When an entry is renewed."""

    def test_in_the_last_tenth_of_its_time(self):
        self.assertEqual(window(60), 6)

    def test_at_most_ten_seconds_and_at_least_one_before_its_end(self):
        self.assertEqual((window(86400), window(5)), (10, 1))

    def test_a_short_lived_one_never(self):
        self.assertEqual(renewal(4), NEVER)

    def test_one_that_never_expires_never(self):
        self.assertEqual(renewal(None), NEVER)

    def test_redis_keeps_it_for_its_whole_timeout(self):
        self.ask()

        key, _ = self.entry()
        self.assertGreater(self.ttl("site", key), 55)


@skipUnless(settings.CACHE_WATCH, "Without the instrument there is no Cache-Status.")
class CacheStatusTests(Crowd):
    """What Cache-Status says of a request that waited, and of the one that built."""

    level = "view"

    def setUp(self):
        super().setUp()
        from watch.middleware import WatchMiddleware

        inner = cache_page(300, cache="view")(self.view)

        def handle(request):
            with page(["view"], "g"):
                return self.site(request)

        self.site.get_response.get_response = inner
        self.watched = WatchMiddleware(handle)

    def ask(self):
        return self.watched(RequestFactory().get("/a/"))["Cache-Status"].rpartition(', "')[0]

    def statuses(self, answers):
        return sorted({status.partition("; ttl=")[0] for status in answers})

    def test_one_stored_and_the_others_collapsed(self):
        looked = self.everybody_looked(10)
        self.while_building = lambda number: wait_until(looked)

        answers = self.together(10)

        self.assertEqual(
            self.statuses(answers),
            ['"django-view"; fwd=uri-miss; collapsed', '"django-view"; fwd=uri-miss; stored'],
        )

    def test_a_long_wait_is_a_short_event(self):
        self.ask()
        (key,) = self.pages("view")
        self.redis("view").delete(key)
        name = key.replace("views.decorators.cache.cache_page.", "building:")
        self.redis("view").set(name, TOKEN + b"somebody")
        clock = self.clock()

        with mock.patch("watch.middleware.feed.put") as put:
            self.ask()

        self.assertGreater(clock.now, WAIT - 1)
        (event,), _ = put.call_args
        self.assertLess(len(json.loads(event.as_json())["ops"]), 25)

    def test_garbage_in_place_of_a_page_is_a_miss(self):
        self.ask()
        (key,) = self.pages("view")
        self.redis("view").set(key, b"\xc1\x01garbage")

        with mock.patch("mysite.caches.log.logger.warning"):
            status = self.ask()

        self.assertEqual(self.statuses([status]), ['"django-view"; fwd=uri-miss; stored'])

    def test_a_refused_second_look_is_no_second_lookup(self):
        from watch.event import recording

        with self.refusing("set"), recording() as event:
            get_or_build(caches["default"], "key", lambda: 1, 60)

        answer = event.answers["low-level"]
        self.assertEqual((answer.hits, answer.misses), (0, 1))

    def test_near_its_end_one_stored_and_the_others_hit(self):
        self.ask()
        self.make_due()

        self.while_building = lambda number: wait_until(lambda: len(self.answers) == 9)

        answers = self.together(10)

        self.assertEqual(
            self.statuses(answers),
            ['"django-view"; fwd=uri-miss; stored', '"django-view"; hit'],
        )


class GunicornTests(PagesTestCase):
    """Two processes that share nothing but Redis."""

    def test_of_fifty_visitors_of_a_cold_post_one_has_it_built(self):
        with (
            Home() as home,
            PrivateRedis() as redis,
            Gunicorn(home, redis.url, workers=2, **PATIENT) as server,
            ThreadPoolExecutor(CROWD) as pool,
        ):
            server.browser().get("/archive/")  # Templates are loaded, in one of them.
            answers = list(
                pool.map(lambda _: server.browser().get("/posts/stampede/"), range(CROWD))
            )

        self.assertEqual({answer.status for answer in answers}, {200})
        # Django adds Age to what comes out of a cache.
        self.assertEqual(sum(answer.is_hit for answer in answers), CROWD - 1)
