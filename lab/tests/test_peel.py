"""One page under all four levels and the browser, peeled."""

import re
from unittest import skipUnless

from django.conf import settings
from django.core.cache import caches
from django.test import Client, override_settings

from blog.tests import CacheTestCase
from blog.tests.test_browser import BrowserTestCase
from lab.peel import fragment_key
from lab.tests import LabTestCase
from mysite.private_redis import use_redis

RUN, OTHER = "0123456789ab", "ba9876543210"
needs_headers = skipUnless(settings.CACHE_WATCH, "CACHE_WATCH=0: no page has the headers.")


@needs_headers
class PeelTests(LabTestCase):
    make_post = CacheTestCase.make_post

    def setUp(self):
        super().setUp()
        self.make_post("keys")

    def ask(self, run=RUN):
        """Return the level that answered, or "database"."""
        timing = self.client.get(f"/lab/peel/page/{run}/")["Server-Timing"]
        hits = re.findall(r'(site|view|fragment|low-level);dur=[\d.]+;desc="hit', timing)
        return hits[0] if hits else "database"

    def drop(self, run=RUN, **data):
        """Return the levels that were dropped."""
        response = self.client.post(f"/lab/peel/drop/{run}/", data)
        self.assertEqual(response.status_code, 200)
        return response.json()["dropped"]

    def rings(self, run=RUN):
        return self.client.get(f"/lab/peel/rings/{run}/").json()["rings"]

    def held(self, run=RUN):
        """Return the levels that hold something."""
        return [level for level, entry in self.rings(run).items() if entry]

    def test_the_first_answer_comes_from_the_database_and_fills_every_ring(self):
        self.assertEqual(self.held(), [])

        self.assertEqual(self.ask(), "database")

        self.assertEqual(self.held(), ["site", "view", "fragment", "low-level"])
        self.assertEqual(self.ask(), "site")

    def test_a_fragment_that_somebody_spoiled_is_no_error(self):
        self.ask()
        fragments = caches["template_fragments"]
        for value in ("no page of ours", 5):
            with self.subTest(value):
                fragments.set(fragment_key(RUN), value, 60)
                self.rings()

    def test_each_ring_answers_when_all_outside_of_it_are_dropped(self):
        levels = ["site", "view", "fragment", "low-level", "database"]
        for number, level in enumerate(levels):
            self.drop(all="1")
            self.ask()
            dropped = [self.drop() for _ in range(number)]

            with self.subTest(level):
                self.assertEqual(dropped, [[name] for name in levels[:number]])
                self.assertEqual(self.ask(), level)

    def test_a_view_hit_does_not_fill_the_site_level(self):
        self.ask()
        self.drop()

        self.assertEqual([self.ask(), self.ask()], ["view", "view"])
        self.assertEqual(self.held(), ["view", "fragment", "low-level"])

    def test_what_a_fragment_answers_fills_what_is_outside_of_it(self):
        self.ask()
        self.drop()
        self.drop()

        self.assertEqual(self.ask(), "fragment")
        self.assertEqual(self.ask(), "site")

    def test_max_age_of_the_view_decides_the_timeout_of_the_site_entry(self):
        self.ask()

        self.assertGreater(self.rings()["site"]["left"], settings.CACHE_MIDDLEWARE_SECONDS + 30)

    def test_the_browser_may_keep_it_for_its_max_age(self):
        response = self.client.get(f"/lab/peel/page/{RUN}/")

        self.assertEqual(response["Cache-Control"], "max-age=120")

    def test_the_rings_say_when_theirs_was_made(self):
        self.ask()

        page = self.client.get(f"/lab/peel/page/{RUN}/").content.decode()
        for level, entry in self.rings().items():
            with self.subTest(level):
                self.assertIn(entry["made"], page)

    def test_looking_is_no_visit(self):
        self.rings()

        self.assertEqual(self.ask(), "database")

    def test_all_drops_every_ring(self):
        self.ask()

        self.assertEqual(self.drop(all="1"), ["site", "view", "fragment", "low-level"])
        self.assertEqual(self.held(), [])

    def test_nothing_is_dropped_where_nothing_is(self):
        self.assertEqual(self.drop(), [])

    def test_a_drop_leaves_other_runs_and_the_blog_alone(self):
        self.ask(OTHER)
        self.client.get("/about/")
        self.ask()

        self.drop(all="1")

        self.assertEqual(len(self.held(OTHER)), 4)
        self.assertIn("Age", self.client.get("/about/").headers)

    def test_what_a_run_leaves_in_redis_is_gone_in_ten_minutes(self):
        self.ask()

        self.drop(all="1")

        for alias in caches:
            cache = caches[alias]
            for key in cache.keys(f"*{RUN}*") + cache.keys("*lab_peel*"):
                with self.subTest(key):
                    self.assertLessEqual(cache.ttl(key), 600)

    def test_what_is_no_run_is_404(self):
        for page in ("page", "rings", "drop"):
            with self.subTest(page):
                self.assertEqual(self.client.get(f"/lab/peel/{page}/x/").status_code, 404)

    def test_a_drop_wants_a_csrf_token_and_a_post(self):
        client = Client(enforce_csrf_checks=True)

        self.assertEqual(client.post(f"/lab/peel/drop/{RUN}/").status_code, 403)
        self.assertEqual(client.get(f"/lab/peel/drop/{RUN}/").status_code, 405)

    def test_without_redis_a_drop_says_so(self):
        with (
            use_redis("unix:///nowhere/peel.sock"),
            self.assertLogs("mysite.caches", "WARNING"),
        ):
            response = self.client.post(f"/lab/peel/drop/{RUN}/")

        self.assertEqual(response.status_code, 503)
        self.assertEqual(response.json(), {"error": "Redis does not answer. Try again."})


class WithoutWatchTests(LabTestCase):
    @override_settings(CACHE_WATCH=False)
    def test_it_says_what_is_missing(self):
        response = self.client.get("/lab/peel/")

        self.assertContains(response, "CACHE_WATCH=1")
        self.assertNotContains(response, "data-tour")


@needs_headers
class PeelInTheBrowserTests(BrowserTestCase, LabTestCase):
    def setUp(self):
        super().setUp()
        self.page.goto("/lab/peel/")

    def press(self, selector, page=None):
        """Press a button and return what is said when its step is over."""
        page = page or self.page
        steps = page.locator(".peel-log tbody tr")
        before = steps.count()
        page.locator(selector).click()
        steps.nth(before).wait_for()
        page.locator('.lab[data-state="done"]').wait_for()
        return page.locator(".lab-said").inner_text()

    def ask(self):
        return self.press('[data-ask="default"]')

    def ask_django(self):
        return self.press('[data-ask="no-cache"]')

    def drop(self):
        return self.press("button[data-drop]")

    def test_down_to_the_database_ring_by_ring(self):
        self.assertIn("The database answered", self.ask())
        self.assertIn("Your browser answered", self.ask())
        self.assertIn("The whole site answered", self.ask_django())
        self.assertIn("of the whole site", self.drop())
        self.assertIn("a view hit does not fill it", self.ask_django())
        self.assertIn("of the view level", self.drop())
        self.assertIn("The fragment answered", self.ask_django())
        for _ in range(3):
            self.drop()
        self.assertIn("The low-level cache answered", self.ask_django())
        for _ in range(4):
            self.drop()
        self.assertIn("There is nothing to drop", self.drop())
        self.assertIn("The database answered", self.ask_django())

    def test_without_redis_a_drop_says_so(self):
        self.expected_complaints = ("status of 503",)
        self.ask()
        with (
            use_redis("unix:///nowhere/peel-page.sock"),
            self.assertLogs("mysite.caches", "WARNING"),
        ):
            self.page.locator("button[data-drop]").click()
            said = self.page.locator(".lab-said", has_text="Redis does not answer. Try again.")
            said.wait_for()

    def test_the_browser_hears_of_no_drop(self):
        self.ask()
        self.drop()

        self.assertIn("It hears of no drop", self.ask())

    def test_the_drawing_says_what_the_table_says(self):
        self.ask()
        self.ask_django()
        self.drop()
        self.ask_django()

        for ring, holds in (("browser", True), ("site", False), ("view", True)):
            with self.subTest(ring):
                drawn = self.page.locator(f'[data-ring="{ring}"]').get_attribute("class")
                told = self.page.locator(f'[data-row="{ring}"] td').first.inner_text()
                self.assertEqual("holds" in drawn, holds)
                self.assertEqual(told != "nothing", holds)
        self.assertIn("answered", self.page.locator('[data-ring="view"]').get_attribute("class"))
        self.assertIn("answered", self.page.locator('[data-row="view"]').inner_text())

    def test_start_again_is_another_run_and_leaves_nothing_of_this_one(self):
        self.ask()
        address = self.page.locator(".lab-form").get_attribute("data-rings")

        self.page.locator("[data-again]").click()
        self.page.wait_for_function(
            'old => document.querySelector(".lab-form").dataset.rings !== old', arg=address
        )

        rings = self.client.get(address).json()["rings"]
        self.assertEqual(set(rings.values()), {None})
        self.assertIn("The database answered", self.ask())

    def test_it_peels_by_itself_and_can_be_stopped(self):
        self.page.locator("[data-tour]").click()
        self.page.locator(".peel-log tbody tr").nth(2).wait_for()
        self.page.locator("[data-stop]").click()
        self.page.locator('.lab[data-state="done"]').wait_for()

        said = self.page.locator(".peel-log").inner_text()
        self.assertRegex(said, r"(?s)The database.*Your browser")
        self.assertTrue(self.page.locator("[data-tour]").is_enabled())

    def test_what_a_step_showed_stays_below_it(self):
        self.ask()
        self.drop()
        self.ask_django()

        remarks = self.page.locator(".peel-remark").all_inner_texts()
        seconds = settings.CACHE_MIDDLEWARE_SECONDS
        self.assertIn(f"lives 120\xa0s, the view’s max-age, not its own {seconds}\xa0s", remarks[0])
        self.assertIn("a view hit does not fill it", remarks[1])

    def test_hit_and_miss_are_words_and_signs(self):
        self.ask()
        self.drop()
        self.ask_django()

        step = self.page.locator(".peel-log tr:has(td)").nth(2).locator("td").all_inner_texts()
        self.assertEqual(step[1:5], ["✗ miss", "✓ hit", "not asked", "not asked"])

    def test_a_phone_shows_all_of_it(self):
        page = self.visitor(viewport={"width": 360, "height": 640})
        page.goto("/lab/peel/")
        self.press('[data-ask="default"]', page)

        self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), 360)
