"""Each experiment as somebody uses it: its page, and its button."""

import json

from django.test import override_settings

from blog.tests import CacheTestCase
from lab.urls import EXPERIMENTS


@override_settings(ROOT_URLCONF="lab.tests.urls")
class ExperimentTests(CacheTestCase):
    def setUp(self):
        super().setUp()
        self.make_post("keys")

    def test_each_page_has_a_form_and_the_code_that_runs(self):
        for experiment in EXPERIMENTS:
            with self.subTest(experiment.slug):
                response = self.client.get(f"/lab/{experiment.slug}/")

                self.assertContains(response, "<form")
                self.assertContains(response, "To take home")

    def test_each_page_links_to_its_post(self):
        for experiment in EXPERIMENTS:
            with self.subTest(experiment.slug):
                response = self.client.get(f"/lab/{experiment.slug}/")

                self.assertContains(response, f'href="/posts/{experiment.post}/"')

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
        response = self.client.post("/lab/keys/", {"url": "http://testserver/archive/"})

        self.assertContains(response, "The view says that its page is not cached")

    def test_a_level_of_the_peel_page_answers_and_is_dropped(self):
        url = "/lab/peel/page/0123456789ab/"
        self.client.get(url)
        self.assertIn('"django-site"; hit', self.client.get(url).headers["Cache-Status"])

        dropped = self.client.post("/lab/peel/drop/0123456789ab/")

        self.assertEqual(dropped.json()["dropped"], ["site"])

    def test_race_pages_answer_at_each_level(self):
        for level in ("none", "low-level", "fragment", "view", "site"):
            with self.subTest(level):
                url = f"/lab/race/page/{level}/0123456789ab/"
                self.client.get(url)

                response = self.client.get(url)

                self.assertEqual(response.has_header("Age"), level in ("view", "site"))

    def test_stampede_ends_without_an_error(self):
        lines = self.client.post("/lab/stampede/", {"requests": 3, "part": "bursts"})

        kinds = [json.loads(line)["kind"] for line in lines.streaming_content if line.strip()]

        self.assertEqual(kinds[-1], "end")
        self.assertIn("row", kinds)
