"""The same page at each level, asked for by the browser that measures."""

import re
from collections import Counter

from django.conf import settings
from django.core.cache import caches
from django.test import Client, tag

from blog.tests.test_browser import BrowserTestCase
from lab.race import LEVELS
from lab.tests import LabPageTestCase, LabTestCase
from mysite.private_redis import use_redis
from mysite.tests.processes import wait_until

RUN, OTHER = "0123456789ab", "ba9876543210"


class RaceTests(LabPageTestCase):
    @classmethod
    def setUpTestData(cls):
        cls.make_post("keys")
        cls.make_post("hashes", body="All about hashes and keys.")

    def ask(self, level, run=RUN):
        response = self.client.get(f"/lab/race/page/{level}/{run}/")
        self.assertEqual(response.status_code, 200)
        return response

    def make_cold(self, run=RUN, rounds=20):
        return self.client.post("/lab/race/delete/", {"run": run, "rounds": rounds})

    def answered(self, level, run=RUN):
        """Return the levels that had what they were asked for."""
        return re.findall(r'([\w-]+);dur=[\d.]+;desc="hit', self.ask(level, run)["Server-Timing"])

    def test_all_but_the_title_is_the_same_at_each_level(self):
        pages = {
            re.sub("<title>[^<]*</title>", "", self.ask(level).content.decode(), count=1)
            for level in LEVELS
            for _ in ("cold", "warm")
        }

        self.assertEqual(len(pages), 1)
        self.assertIn("Related posts", pages.pop())

    def test_the_level_that_gives_its_name_answers_and_no_other(self):
        for level in LEVELS:
            with self.subTest(level):
                self.assertEqual(self.answered(level), [])
                warm = self.answered(level)
                self.assertEqual(set(warm) - {"f", "l"}, {level} - {"none"})

    def test_what_caches_the_whole_expensive_part_asks_no_database(self):
        for level in ("low-level", "fragment", "view", "site"):
            self.ask(level)
            with self.subTest(level), self.assertNumQueries(0):
                self.ask(level)

    def test_after_a_deletion_each_level_is_cold(self):
        for level in LEVELS:
            self.ask(level)

        self.assertEqual(self.make_cold().status_code, 204)

        for level in LEVELS:
            with self.subTest(level):
                self.assertEqual(self.answered(level), [])

    def test_a_deletion_leaves_other_runs_and_the_blog_alone(self):
        for level in LEVELS:
            self.ask(level, OTHER)
        self.client.get("/about/")

        self.make_cold(RUN)

        for level in set(LEVELS) - {"none"}:
            with self.subTest(level):
                self.assertIn(level, self.answered(level, OTHER))
        self.assertIn("Age", self.client.get("/about/").headers)

    def test_what_a_run_leaves_in_redis_expires_in_ten_minutes(self):
        for level in LEVELS:
            self.ask(level)

        self.make_cold()

        for alias in caches:
            cache = caches[alias]
            for key in cache.keys(f"*{RUN}*") + cache.keys("*lab_race*"):
                with self.subTest(key):
                    self.assertLessEqual(cache.ttl(key), 600)

    def test_rounds_out_of_range_are_400_and_name_the_range(self):
        for rounds, limit in ((0, "greater than or equal to 1"), (51, "less than or equal to 50")):
            with self.subTest(rounds):
                response = self.make_cold(rounds=rounds)
                self.assertEqual(response.status_code, 400)
                self.assertIn(limit, response.json()["errors"]["rounds"][0])
                page = self.client.post("/lab/race/", {"run": RUN, "rounds": rounds})
                self.assertContains(page, limit, status_code=400)

    def test_an_invalid_run_id_is_400(self):
        for run in ("", "x", "../about/"):
            with self.subTest(run):
                self.assertEqual(self.make_cold(run=run).status_code, 400)

    def test_a_page_with_an_invalid_run_id_is_404(self):
        self.assertEqual(self.client.get("/lab/race/page/site/all/").status_code, 404)

    def test_a_deletion_needs_a_csrf_token_and_a_post(self):
        client = Client(enforce_csrf_checks=True)

        self.assertEqual(client.post("/lab/race/delete/").status_code, 403)
        self.assertEqual(client.get("/lab/race/delete/").status_code, 405)

    def test_each_load_has_a_run_of_its_own(self):
        runs = {
            re.search('name="run" value="([0-9a-f]{12})"', page.content.decode())[1]
            for page in (self.client.get("/lab/race/"), self.client.get("/lab/race/"))
        }

        self.assertEqual(len(runs), 2)

    def test_without_redis_it_says_so(self):
        with (
            use_redis("unix:///nowhere/race.sock"),
            self.assertLogs("resilient_cache", "WARNING"),
            self.assertLogs("django.request", "ERROR"),
        ):
            response = self.make_cold()

        self.assertEqual(response.status_code, 503)
        self.assertIn("Redis does not answer", response.json()["errors"][""][0])


class WithoutWatchTests(LabPageTestCase):
    TIMING = "lab.timing.TimingMiddleware"

    def setUp(self):
        super().setUp()
        others = [
            name
            for name in settings.MIDDLEWARE
            if name not in (self.TIMING, "watch.middleware.WatchMiddleware")
        ]
        self.enterContext(self.settings(MIDDLEWARE=[self.TIMING, *others]))

    def test_the_server_tells_its_time_and_keeps_none_of_it(self):
        cold, warm = (self.client.get(f"/lab/race/page/site/{RUN}/") for _ in range(2))

        self.assertIn("Age", warm.headers)
        for response in (cold, warm):
            self.assertRegex(response["Server-Timing"], r"^app;dur=\d+\.\d+$")
        self.assertNotEqual(cold["Server-Timing"], warm["Server-Timing"])

    def test_other_pages_stay_as_they_are(self):
        self.assertNotIn("Server-Timing", self.client.get("/about/").headers)


@tag("browser")
class RaceInTheBrowserTests(BrowserTestCase, LabTestCase):
    def start(self, rounds):
        self.page.goto("/lab/race/")
        self.page.locator('[name="rounds"]').fill(str(rounds))
        self.page.locator("[data-start]").click()

    def number(self, side, level, column):
        row = self.page.locator(f'[data-side="{side}"] [data-level="{level}"] td').nth(column)
        return float(row.inner_text().rstrip("×"))

    def test_both_ends_are_measured_and_plotted(self):
        self.start(2)
        self.page.locator('.lab[data-state="done"]').wait_for()

        self.assertIn("Done: 2 rounds", self.page.locator(".lab-said").inner_text())
        for side in ("server", "browser"):
            with self.subTest(side):
                self.assertGreater(self.number(side, "site", 4), 0)
                # Two a round and level, and none is never warm.
                marks = self.page.locator(f'[data-side="{side}"] circle')
                self.assertEqual(marks.count(), 2 * 9)
        self.assertFalse(self.page.locator("[data-stop]").is_visible())

    def test_the_table_has_median_95_percent_and_speed_up(self):
        asked = Counter()

        def answer(route):
            level = route.request.url.split("/")[-3]
            asked[level] += 1
            # None: 10, 20, 30, 40 ms. The others: 50 cold and 2 warm, in turns.
            ms = 10 * asked[level] if level == "none" else (2, 50)[asked[level] % 2]
            route.fulfill(body="", headers={"Server-Timing": f"app;dur={ms}"})

        self.page.route("**/lab/race/page/**", answer)
        self.start(4)
        self.page.locator('.lab[data-state="done"]').wait_for()

        self.assertEqual([self.number("server", "none", at) for at in (0, 1)], [20, 40])
        self.assertEqual([self.number("server", "site", at) for at in range(5)], [50, 50, 2, 2, 10])
        self.assertIn("10.0 times as fast", self.page.locator(".lab-said").inner_text())

    def test_stop_ends_it_and_still_shows_what_was_measured(self):
        self.start(50)
        progress = self.page.locator("[data-progress]")
        self.assertTrue(wait_until(lambda: "of 50" in progress.inner_text()))

        self.page.locator("[data-stop]").click()
        self.page.locator('.lab[data-state="done"]').wait_for()

        self.assertEqual(self.page.locator(".lab-said").inner_text(), "Stopped.")
        self.assertGreater(self.number("server", "none", 0), 0)

    def test_rounds_out_of_range_are_said(self):
        self.page.goto("/lab/race/")
        self.page.locator(".lab-form").evaluate("(form) => { form.noValidate = true; }")
        self.page.locator('[name="rounds"]').fill("51")
        self.page.locator("[data-start]").click()
        self.page.locator('.lab[data-state="done"]').wait_for()

        self.assertIn("less than or equal to 50", self.page.locator(".lab-said").inner_text())

    def test_a_phone_shows_all_of_it(self):
        page = self.visitor(viewport={"width": 360, "height": 640})
        page.goto("/lab/race/")

        self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), 360)
