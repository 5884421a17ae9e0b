"""Each experiment as a visitor uses it: its page, and its button."""

import re

from django.test import tag

from blog.tests import CacheTestCase
from blog.tests.test_browser import BrowserTestCase
from lab import stampede
from lab.tests import LabPageTestCase, LabTestCase
from resilient_cache.groups import invalidate


class ExperimentTests(LabPageTestCase):
    @classmethod
    def setUpTestData(cls):
        cls.make_post("keys")

    def test_keys_names_a_miss_and_then_a_hit(self):
        options = {"url": "http://testserver/about/"}
        self.assertContains(self.client.post("/lab/keys/", options), "A miss")

        self.client.get("/about/")

        self.assertContains(self.client.post("/lab/keys/", options), "A hit")

    def test_keys_names_the_part_that_differs(self):
        self.client.get("/about/")

        response = self.client.post("/lab/keys/", {"url": "https://testserver/about/"})

        self.assertContains(response, "differs in: Scheme.")

    def test_keys_says_why_a_page_is_not_cached(self):
        for path, why in (
            ("/archive/", "The view says that its page is not cached"),
            ("/admin/", "SKIP_PATHS"),
            ("/nonsense/", "a 404 is not cached"),
        ):
            with self.subTest(path):
                response = self.client.post("/lab/keys/", {"url": f"http://testserver{path}"})

                self.assertContains(response, why)

    def test_keys_says_that_a_group_was_invalidated(self):
        self.client.get("/about/")
        invalidate("site")

        response = self.client.post("/lab/keys/", {"url": "http://testserver/about/"})

        self.assertContains(response, "one of its groups has been invalidated")

    def test_no_level_is_told_of_what_the_experiment_itself_looks_at(self):
        peel = "/lab/peel/{}/0123456789ab/"
        self.client.get("/about/")
        self.client.get(peel.format("page"))

        for path, data in (
            ("/lab/keys/", {"url": "http://testserver/about/"}),
            ("/lab/wire/", {"command": "GET a", "scratch": "0123456789ab"}),
            ("/lab/leak/", {"page": "greeting"}),
            (peel.format("rings"), None),
            (peel.format("delete"), {}),
        ):
            ask = self.client.get if data is None else self.client.post
            response = ask(path, data)

            with self.subTest(path):
                self.assertEqual(response.status_code, 200)
                told = r"(site|view|fragment|low-level);dur"
                self.assertNotRegex(response["Server-Timing"], told)
                self.assertNotIn("; hit", response["Cache-Status"])

    def test_a_level_of_the_peel_page_answers_and_is_deleted(self):
        url = "/lab/peel/page/0123456789ab/"
        self.client.get(url)
        self.assertIn('"django-site"; hit', self.client.get(url).headers["Cache-Status"])

        deleted = self.client.post("/lab/peel/delete/0123456789ab/")

        self.assertEqual(deleted.json()["deleted"], ["site"])

    def test_race_pages_answer_at_each_level(self):
        for level in ("none", "low-level", "fragment", "view", "site"):
            with self.subTest(level):
                url = f"/lab/race/page/{level}/0123456789ab/"
                self.client.get(url)

                response = self.client.get(url)

                self.assertEqual(response.has_header("Age"), level in ("view", "site"))


class StampedeTests(LabTestCase):
    """How many of those who come at once compute."""

    make_post = CacheTestCase.make_post

    def computed(self, part, column, requests=10):
        """Run a part. Return {key of a row: the number in this column of the page's table}."""
        lines = self.run_experiment("stampede", requests=requests, part=part)
        self.assertEqual(lines[-1]["kind"], "end", lines[-1])
        heads = self.heads(part)
        [came] = [line["value"] for line in lines if line["kind"] == "came"]
        self.assertIn(came, stampede.experiment.question.choices)
        found = self.rows(lines, part)
        first = next(iter(found.values()))[heads.index("Computed")]
        self.assertEqual(came == "one", first == 1)
        for cells in found.values():
            self.assertEqual(len(cells), len(heads), "a cell for each head of the table")
        return {key: cells[heads.index(column)] for key, cells in found.items()}

    def heads(self, part):
        page = self.client.get("/lab/stampede/").text
        table = page.partition(f'<table data-table="{part}"')[2].partition("</thead>")[0]
        return re.findall(r'<th scope="col"[^>]*>([^<]+)</th>', table)

    @tag("slow")
    def test_with_a_lock_one_request_computes_and_without_one_several_do(self):
        computed = self.computed("bursts", "Computed")

        self.assertGreater(computed["get_or_set cold"], 1)
        self.assertGreater(computed["HerdClient cold"], 1)
        self.assertEqual(computed["a lock cold"], 1)
        self.assertEqual(computed["resilient_cache cold"], 1)
        self.assertEqual(computed["resilient_cache in the last second"], 1)

    @tag("slow")
    def test_all_have_an_answer_when_the_holder_of_the_lock_dies(self):
        computed = self.computed("dead", "Computed")

        self.assertEqual(list(computed), ["a lock", "resilient_cache"])
        self.assertGreaterEqual(min(computed.values()), 1)

    @tag("slow")
    def test_one_request_builds_a_page_of_each_level(self):
        computed = self.computed("pages", "Computed")

        self.assertGreater(computed.pop("Django’s cache_page"), 1)
        self.assertEqual(computed, {"Per view": 1, "Whole site": 1, "Fragment": 1})


@tag("browser")
class PeelInTheBrowserTests(BrowserTestCase, LabTestCase):
    """The buttons of Peel."""

    def press(self, name, says):
        self.page.get_by_role("button", name=name, exact=True).click()
        self.page.locator(".lab-said", has_text=says).wait_for()

    def test_each_ring_answers_when_the_outer_ones_are_deleted(self):
        self.page.goto("/lab/peel/")

        self.press("Ask Django", "The database answered")
        self.press("Ask", "Your browser answered")
        self.press("Ask Django", "The whole-site level answered")
        self.press("Delete the outermost entry", "the whole-site level")
        self.press("Ask Django", "The per-view level answered")
        self.press("Delete the outermost entry", "the per-view level")
        self.press("Ask Django", "The fragment level answered")

    def test_the_pressed_button_has_the_focus_afterwards(self):
        self.page.goto("/lab/peel/")

        button = self.page.get_by_role("button", name="Ask Django", exact=True)
        button.press("Enter")
        self.page.locator(".lab-said", has_text="answered").wait_for()

        self.assertTrue(button.evaluate("(button) => button === document.activeElement"))
