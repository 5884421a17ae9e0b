"""Stampede: how many of those who come at once compute, with each guard."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from unittest import mock

from django.conf import settings
from redis import Redis

from blog.tests.test_browser import BrowserTestCase
from lab import stampede
from lab.caches import lab_cache
from lab.run import Run
from lab.stampede import Work, burst, holder_dies
from lab.tests import LabTestCase
from mysite.caches import stampede as blogs
from mysite.caches.serializer import FORMAT
from mysite.processes import wait_until

REQUESTS = 12


class StampedeTestCase(LabTestCase):
    @contextmanager
    def cache_of(self, guard):
        """Yield a Run, and the cache that it gives to a guard."""
        run = Run(None, {})
        cache = lab_cache(run.id, stampede.DATABASE, **guard.options)
        try:
            yield run, cache
        finally:
            cache.delete_pattern("*")
            run.close()

    def guard(self, ask):
        return next(guard for guard in stampede.GUARDS if guard.ask is ask)

    def burst(self, ask, entry=None, timeout=30, begins=0):
        """Return the Burst that `ask` got, on a cold key or on one that holds `entry`."""
        with self.cache_of(self.guard(ask)) as (run, cache):
            work = Work(run)
            work.done = 1  # What `entry` was.
            if entry:
                cache.set("value", entry, timeout)
                wait_until(lambda: time.time() > begins)
            return burst(run, REQUESTS, lambda: ask(cache, "value", work.build), work)

    def assertOneRenews(self, result):
        """Assert that one of a burst computed, and that the others took the old value meanwhile."""
        self.assertEqual(result.computed, 1)
        # All of the others, unless the machine pauses until the one is ready.
        self.assertGreater(result.old, REQUESTS / 2)


class UntrustedTests(StampedeTestCase):
    """What a guard keeps in Redis runs no code when it comes back."""

    def test_no_guard_keeps_a_pickle(self):
        for guard in stampede.GUARDS:
            with self.subTest(guard.name), self.cache_of(guard) as (_, cache):
                guard.ask(cache, "value", lambda: (1, "built"))

                redis = cache.client.get_client()
                held = [redis.get(key) for key in redis.scan_iter(f"{cache.key_prefix}:*")]

                self.assertGreater(len(held), 0)
                for value in held:
                    self.assertTrue(value.startswith(FORMAT) or value.isdigit(), value[:20])

    def test_a_value_that_herd_client_kept_comes_back(self):
        with self.cache_of(self.guard(stampede.herd)) as (_, cache):
            cache.set("value", (1, "built"), 30)

            self.assertEqual(cache.get("value"), (1, "built"))


class ColdTests(StampedeTestCase):
    """Many requests at once on a key that is not there."""

    def test_without_a_guard_more_than_one_computes(self):
        result = self.burst(stampede.unguarded)

        self.assertGreater(result.computed, 1)
        self.assertEqual(len(result.waits), REQUESTS)

    def test_with_a_lock_and_a_second_look_one_computes(self):
        self.assertEqual(self.burst(stampede.locked).computed, 1)

    def test_a_lock_whose_time_is_over_while_somebody_computes_is_no_error(self):
        with self.cache_of(self.guard(stampede.locked)) as (_, cache):

            def build():
                cache.delete("lock:value")  # As Redis does when its time is over.
                return "built"

            self.assertEqual(stampede.locked(cache, "value", build), "built")
            self.assertEqual(cache.get("value"), "built")

    def test_as_the_blog_does_it_one_computes(self):
        result = self.burst(stampede.as_the_blog_does)

        self.assertEqual((result.computed, result.old), (1, 0))

    def test_herd_client_a_stale_value_and_xfetch_are_no_guard(self):
        for ask in (stampede.herd, stampede.stale_while_renewed, stampede.early):
            with self.subTest(ask.__name__):
                self.assertGreater(self.burst(ask).computed, 1)

    def test_two_runs_at_once_count_their_own(self):
        with ThreadPoolExecutor(2) as pool:
            results = pool.map(self.burst, [stampede.locked, stampede.locked])

            self.assertEqual([result.computed for result in results], [1, 1])


class ExpiryTests(StampedeTestCase):
    """Many requests at once for a value whose time is over, or nearly so."""

    def test_of_a_stale_value_one_renews_and_the_others_take_it(self):
        stale = {"value": [1, ""], "fresh_until": time.time() - 1}

        result = self.burst(stampede.stale_while_renewed, stale)

        self.assertOneRenews(result)

    def test_herd_client_gives_the_old_value_to_all_but_a_few(self):
        result = self.burst(stampede.herd, [1, ""], timeout=1, begins=time.time() + 2)

        self.assertGreater(result.old, 0)
        self.assertEqual(result.old, REQUESTS - result.computed)

    def test_xfetch_leaves_a_value_alone_that_is_good_for_long(self):
        entry = {"value": [1, ""], "cost": 0.05, "ends": time.time() + 20}

        self.assertEqual(self.burst(stampede.early, entry).computed, 0)

    def test_xfetch_renews_near_the_end(self):
        entry = {"value": [1, ""], "cost": 0.05, "ends": time.time()}

        self.assertGreater(self.burst(stampede.early, entry).computed, 0)

    def test_as_the_blog_does_it_one_renews_before_the_end_and_nobody_waits(self):
        due = (time.time() - 1, [1, ""])

        result = self.burst(stampede.as_the_blog_does, due, 0.9)

        self.assertOneRenews(result)


class DeathTests(StampedeTestCase):
    """One has the right to compute, and never comes back."""

    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch.object(stampede, "LOCK", 0.6))
        self.enterContext(mock.patch.object(stampede, "FRESH", 0.1))
        self.enterContext(mock.patch.object(blogs, "BUILD_TIMEOUT", 1))

    def deaths(self, ask):
        guard = self.guard(ask)
        with self.cache_of(guard) as (run, cache):
            return holder_dies(run, guard, cache, 4)

    def test_a_lock_lets_the_next_one_in_when_its_time_is_over(self):
        result, seconds = self.deaths(stampede.locked)

        self.assertEqual(result.computed, 1)
        self.assertGreater(min(result.waits), 300)
        self.assertGreaterEqual(seconds, 0.5)

    def test_with_a_stale_value_nobody_waits_for_the_dead(self):
        result, seconds = self.deaths(stampede.stale_while_renewed)

        self.assertEqual((result.computed, result.old), (1, 4))
        self.assertLess(max(result.waits), 500)
        self.assertGreaterEqual(seconds, 0.5)

    def test_the_blogs_guard_lets_the_next_one_in(self):
        result, seconds = self.deaths(stampede.as_the_blog_does)

        self.assertEqual(result.computed, 1)
        self.assertGreaterEqual(seconds, 0.9)


class WholePageTests(StampedeTestCase):
    """Visitors who ask for one page at once, through all of Django."""

    def test_plain_cache_page_builds_it_many_times_and_the_blogs_levels_once(self):
        lines = self.run_experiment("stampede", requests=8, part="pages")

        said = [line["text"] for line in lines if line["kind"] == "say"]
        self.assertIn("per view 1, whole site 1, fragment 1.", said[-1])
        computed = {name: cells[2] for name, cells in self.rows(lines, "pages").items()}
        self.assertGreater(computed.pop("cache_page"), 1)
        self.assertEqual(computed, {"per view": 1, "whole site": 1, "fragment": 1})

    def test_the_pages_are_not_there_outside_of_a_run(self):
        for name in ("plain", "view", "site", "fragment"):
            with self.subTest(name):
                response = self.client.get(f"/lab/stampede/page/{name}/{'0' * 12}/")
                self.assertEqual(response.status_code, 404)


class PageTests(StampedeTestCase):
    def test_too_many_requests_are_400_and_the_answer_names_the_range(self):
        for number, word in ((1, "greater than or equal to 2"), (101, "less than or equal to 100")):
            with self.subTest(number):
                answer = self.client.post("/lab/stampede/", {"requests": number, "part": "bursts"})

                self.assertEqual(answer.status_code, 400)
                self.assertIn(word, answer.json()["errors"]["requests"][0])

    def test_a_run_tells_of_two_bursts_for_each_guard_and_leaves_no_key(self):
        guards = [self.guard(ask) for ask in (stampede.unguarded, stampede.as_the_blog_does)]
        self.enterContext(mock.patch.object(stampede, "GUARDS", guards))
        self.enterContext(mock.patch.object(stampede, "FRESH", 1))

        lines = self.run_experiment("stampede", requests=6, part="bursts")

        rows = self.rows(lines, "bursts")
        self.assertEqual(
            list(rows),
            [
                *("get_or_set cold", "get_or_set just after expiry"),
                *("the blog’s cold", "the blog’s in the last second"),
            ],
        )
        computed = {key: cells[2] for key, cells in rows.items()}
        self.assertGreater(computed["get_or_set cold"], 1)
        self.assertGreater(computed["get_or_set just after expiry"], 1)
        self.assertEqual(computed["the blog’s cold"], 1)
        self.assertEqual(computed["the blog’s in the last second"], 1)
        self.assertGreater(rows["the blog’s in the last second"][-1], 3)  # old answers
        said = [line["text"] for line in lines if line["kind"] == "say"]
        self.assertIn("Of 6 requests for a cold key, so many computed: get_or_set ", said[-1])
        self.assertIn("the blog’s 1.", said[-1])
        self.assertEqual(Redis.from_url(settings.REDIS_URL, db=stampede.DATABASE).dbsize(), 0)

    def test_the_95_percent_of_twenty_is_the_last_but_one(self):
        self.assertEqual(stampede.p95(list(range(20, 0, -1))), 19)

    def test_a_run_tells_of_each_guard_that_can_die_and_leaves_no_key(self):
        for module, name in ((stampede, "LOCK"), (stampede, "FRESH"), (blogs, "BUILD_TIMEOUT")):
            self.enterContext(mock.patch.object(module, name, 1))

        lines = self.run_experiment("stampede", requests=2, part="dead")

        rows = self.rows(lines, "dead")
        self.assertEqual(list(rows), ["lock", "stale + add", "the blog’s"])
        self.assertEqual([cells[1] for cells in rows.values()], [1, 1, 1])
        said = [line["text"] for line in lines if line["kind"] == "say"]
        self.assertRegex(
            said[-1], r"the next one computed: lock after \d\.\d s, stale \+ add after"
        )
        self.assertEqual(lines[-1], {"kind": "end"})
        self.assertEqual(Redis.from_url(settings.REDIS_URL, db=stampede.DATABASE).dbsize(), 0)

    def test_a_closed_tab_ends_its_threads(self):
        response = self.client.post("/lab/stampede/", {"requests": 50, "part": "bursts"})
        lines = iter(response)
        next(lines)
        self.assertTrue(wait_until(lambda: self.threads() > 40))

        response.close()

        self.assertTrue(wait_until(lambda: self.threads() == 0, 5))

    def threads(self):
        return sum(thread.name.startswith("stampede-") for thread in threading.enumerate())


class StampedeInTheBrowserTests(BrowserTestCase, LabTestCase):
    def start(self, requests, part):
        self.page.goto("/lab/stampede/")
        self.page.locator('[name="requests"]').fill(requests)
        self.page.locator('[name="part"]').select_option(part)
        self.page.locator("[data-start]").click()

    def test_a_burst_is_a_row_and_a_row_of_marks_and_stop_ends_it(self):
        self.start("5", "bursts")
        row = self.page.locator('[data-table="bursts"] tbody tr').first
        row.wait_for()

        self.assertEqual(row.locator("th").inner_text(), "get_or_set")
        self.assertEqual(self.page.locator("[data-plot] .plot-dot").count(), 5)
        self.assertFalse(self.page.locator('[data-table="dead"]').is_visible())

        self.page.locator("[data-stop]").click()
        self.page.locator(".lab-said", has_text="Stopped.").wait_for()

    def test_whole_pages_have_a_table_of_their_own(self):
        self.start("2", "pages")
        self.page.locator('.lab[data-state="done"]').wait_for()

        rows = self.page.locator('[data-table="pages"] tbody th').all_inner_texts()
        self.assertEqual(rows, ["cache_page", "per view", "whole site", "fragment"])
        bars = self.page.locator('[data-table="pages"] meter')
        self.assertEqual([bar.evaluate("bar => bar.value") for bar in bars.all()][1:], [1, 1, 1])

    def test_too_many_are_refused_where_they_were_typed(self):
        self.page.goto("/lab/stampede/")
        self.page.locator("form.lab-form").evaluate("form => { form.noValidate = true; }")
        self.page.locator('[name="requests"]').fill("400")
        self.page.locator("[data-start]").click()

        self.page.locator(".lab-field .errorlist", has_text="less than or equal to 100").wait_for()
