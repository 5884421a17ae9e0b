"""Predict: each situation is run, and the explanation on its page has to agree with the run."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html import unescape
from unittest import mock

from django.core.cache import cache
from django.db import connections
from django.test import Client, tag

from blog.content import FOLDER
from blog.tests import CacheTestCase
from blog.tests.test_browser import BrowserTestCase
from lab import predict, predict_views
from lab.caches import DATABASE, LEVELS, lab_cache
from lab.predict_situations import BY_SLUG, SITUATIONS
from lab.tests import LabPageTestCase, LabTestCase, doubles, entries
from mysite.private_redis import use_redis
from mysite.processes import wait_until

# What Django and this blog do: {situation: (outcome, level, number of the true reason)}. The page
# itself has no such table. It shows what a run shows.
EXPECTED = {
    "twice": ("hit", "site", 2),
    "newsletter": ("miss", "view", 1),
    "newsletter-in-this-blog": ("hit", "view", 3),
    "two-hosts": ("miss", "view", 2),
    "spellings": ("miss", "site", 3),
    "head": ("miss", "view", 3),
    "post": ("hit", "view", 1),
    "max-age-per-view": ("hit", "view", 2),
    "max-age-whole-site": ("miss", "site", 1),
    "private": ("miss", "view", 3),
    "not-found": ("miss", "view", 2),
    "stream": ("miss", "view", 1),
    "set-cookie": ("hit", "view", 3),
    "set-cookie-and-vary": ("miss", "view", 1),
    "session-per-view": ("hit", "view", 2),
    "session-whole-site": ("miss", "site", 3),
    "authorization": ("miss", "view", 1),
    "fragment-with-a-name": ("miss", "fragment", 2),
    "fragment-in-two-languages": ("hit", "fragment", 3),
    "two-owners": ("hit", "site", 3),
    "one-owner-in-this-blog": ("hit", "view", 1),
    "delete-by-path": ("hit", "view", 1),
    "delete-by-key": ("miss", "view", 3),
    "invalidate-by-path": ("miss", "site", 3),
    "before-commit": ("hit", "low-level", 2),
    "rollback": ("hit", "low-level", 3),
    "version": ("miss", "low-level", 1),
    "none": ("hit", "low-level", 2),
    "timeout-0": ("miss", "low-level", 3),
    "touch": ("miss", "low-level", 2),
}
URL = "/lab/predict/"
WRONG = {"situation": "twice", "outcome": "miss", "level": "view", "reason": "1"}


def right_answer(slug):
    outcome, level, reason = EXPECTED[slug]
    return {"situation": slug, "outcome": outcome, "level": level, "reason": str(reason)}


def text_of(html):
    """Return what a reader sees of a piece of HTML."""
    return " ".join(unescape(re.sub("<[^>]*>", " ", html)).split())


class SituationTests(LabPageTestCase):
    """Every situation, played for real."""

    def test_each_situation_ends_as_expected(self):
        self.assertEqual([situation.slug for situation in SITUATIONS], list(EXPECTED))
        for slug in EXPECTED:
            with self.subTest(slug):
                response = self.client.post(URL, right_answer(slug))

                self.assertContains(response, "All three are right")
                self.assertEqual(doubles(response.text), [])

    def test_a_run_shows_one_reason_and_not_the_other_two(self):
        for situation in SITUATIONS:
            with self.subTest(situation.slug):
                response = self.client.post(URL, right_answer(situation.slug))

                evidence = situation.evidence(response.context["played"])
                self.assertEqual(len(list(filter(None, evidence))), 1, evidence)

    def test_each_page_shows_code_requests_and_three_reasons(self):
        for situation in SITUATIONS:
            with self.subTest(situation.slug):
                page = self.client.get(URL, {"situation": situation.slug})

                self.assertContains(page, situation.view.__name__)
                self.assertContains(page, 'name="reason"', 3)
                self.assertContains(page, situation.steps[-1].label)

    def test_each_situation_names_a_post_that_there_is(self):
        slugs = {path.stem.partition("-")[2] for path in FOLDER.glob("*.md")}

        self.assertLessEqual({situation.post for situation in SITUATIONS}, slugs)

    def test_all_four_levels_and_both_outcomes_occur(self):
        self.assertEqual({level for _, level, _ in EXPECTED.values()}, set(LEVELS))
        outcomes = [outcome for outcome, _, _ in EXPECTED.values()]
        # Whoever always says the same is wrong at least ten times.
        self.assertGreaterEqual(min(map(outcomes.count, predict.OUTCOMES)), 10)


class AnswerTests(LabPageTestCase):
    """What the page says of an answer."""

    def test_a_wrong_answer_gets_the_line_that_decides(self):
        page = self.client.post(URL, WRONG)

        self.assertContains(page, "0 of 3 are right")
        verdict = text_of(page.text.partition('id="verdict"')[2].partition("<h2>")[0])
        self.assertIn("The last request is a hit . Level: Whole site .", verdict)
        self.assertRegex(verdict, r"What decides: GET site:1:\S+cache_page\S+ → found")

    def test_each_answer_is_marked_by_itself(self):
        page = self.client.post(URL, WRONG | {"outcome": "hit"})

        self.assertContains(page, "1 of 3 is right")
        self.assertContains(page, "✓ Right. Hit or miss: you said “a hit”")
        self.assertContains(page, "✗ Wrong. Level: you said “Per view”")
        self.assertContains(page, "✗ Wrong. Why: you said “The view asks for no caching")

    def test_each_request_is_shown_with_what_redis_was_asked(self):
        page = self.client.post(URL, right_answer("twice"))

        first, second = page.context["played"].steps
        self.assertEqual((first.outcome, second.outcome), ("miss, stored", "hit"))
        self.assertEqual([command.name for command in second.commands], ["GET", "GET"])
        self.assertEqual((first.text, second.text), ("Prices, edition 1",) * 2)
        self.assertIn("Age", second.headers)
        self.assertContains(page, "Age: 0")

    def test_a_request_that_asks_no_cache_is_neither_hit_nor_miss(self):
        for slug in ("post", "rollback"):
            with self.subTest(slug):
                page = self.client.post(URL, right_answer(slug))

                self.assertEqual(page.context["played"].steps[1].outcome, "no level was asked")

    def test_of_two_variants_the_pages_are_compared(self):
        page = self.client.post(URL, right_answer("spellings"))

        _, stored, asked = page.context["evidence"]
        kinds = [line.partition(".GET.")[0] for line in (stored, asked)]
        page_of_site = "site:1:views.decorators.cache.cache_page."
        self.assertEqual(kinds, [f"Stored: {page_of_site}", f"Asked for: {page_of_site}"])

    def test_a_leak_is_seen_in_the_text(self):
        page = self.client.post(URL, right_answer("session-per-view"))

        self.assertContains(page, "“Ada has 0 items, edition 1”", 2)

    def test_what_is_right_is_what_the_run_shows(self):
        """With a view that forbids to store its page, the same questions have other answers."""
        changed = replace(BY_SLUG["twice"], view=predict_views.live_prices)
        with mock.patch.dict(BY_SLUG, twice=changed):
            page = self.client.post(URL, WRONG | {"level": "site"})

        self.assertContains(page, "All three are right")
        self.assertContains(page, "Before the last request no SET was sent")

    def test_the_post_that_explains_it_is_linked(self):
        page = self.client.post(URL, right_answer("none"))

        self.assertContains(page, 'href="/posts/the-low-level-api/"')

    def test_the_page_leads_on_to_the_next_and_the_last_leads_back(self):
        page = self.client.post(URL, right_answer("twice"))
        self.assertContains(page, 'href="?situation=newsletter"')

        last = self.client.get(URL, {"situation": SITUATIONS[-1].slug})
        self.assertNotContains(last, "Next situation")

    def test_the_list_leads_to_each(self):
        page = self.client.get(URL)

        for slug in EXPECTED:
            self.assertContains(page, f'href="?situation={slug}"')


class BadInputTests(LabPageTestCase):
    """An answer in words with status 400, and nothing is run."""

    def test_a_situation_that_there_is_not(self):
        for slug in ("nonsense", "\0", "x" * 5000, "<b>", "../../settings"):
            with self.subTest(slug[:20]):
                for response in (
                    self.client.get(URL, {"situation": slug}),
                    self.client.post(URL, WRONG | {"situation": slug}),
                ):
                    self.assertContains(response, "There is no such situation", status_code=400)

    def test_no_situation(self):
        response = self.client.post(URL, {"outcome": "hit"})

        self.assertContains(response, "There is no such situation", status_code=400)

    def test_an_answer_that_is_none_of_those_offered(self):
        for field, value, says in (
            ("outcome", "perhaps", "neither a hit nor a miss"),
            ("level", "browser", "There is no such level"),
            ("reason", "4", "not one of the reasons"),
            ("reason", "0", "not one of the reasons"),
            ("reason", "-1", "not one of the reasons"),
            ("outcome", "", "Choose a hit or a miss"),
            ("level", "", "Choose a level"),
            ("reason", "", "Choose a reason"),
        ):
            with self.subTest(f"{field}={value}"):
                response = self.client.post(URL, WRONG | {field: value})

                self.assertContains(response, says, status_code=400)
                self.assertContains(response, "Nothing was run", status_code=400)
                self.assertNotIn("played", response.context)

    def test_what_was_chosen_stays_chosen(self):
        response = self.client.post(URL, WRONG | {"reason": "4"})

        self.assertRegex(response.text, r'<input[^>]* value="miss"[^>]* checked')

    def test_without_redis_it_says_so(self):
        for slug in ("twice", "one-owner-in-this-blog"):
            with self.subTest(slug), use_redis("redis://127.0.0.1:1"):
                response = self.client.post(URL, right_answer(slug))

                self.assertContains(response, "Redis does not answer")
                self.assertNotContains(response, "are right")

    def test_the_views_are_404_outside_of_a_run(self):
        for name in ("list_of_prices", "page_of_prices", "news"):
            with self.subTest(name):
                self.assertEqual(self.client.get(f"{URL}pages/{name}/").status_code, 404)


class TracesTests(LabTestCase):
    """What a run leaves behind: nothing."""

    make_post = CacheTestCase.make_post

    def test_the_entries_of_the_blog_stay_as_they_were(self):
        self.make_post("keys", tags=["redis"])
        for path in ("/", "/about/", "/posts/keys/", "/archive/", "/search/?q=keys"):
            self.client.get(path)
        for key in ("price", "report", "discount"):
            cache.set(key, "of the blog", 300)
        before = entries()

        for slug in EXPECTED:
            self.client.post(URL, right_answer(slug))

        after = entries()
        self.assertEqual(after.keys(), before.keys())
        self.assertEqual(after, before)

    def test_the_entries_of_the_run_are_deleted(self):
        for slug in EXPECTED:
            with self.subTest(slug):
                self.client.post(URL, right_answer(slug))

                self.assertEqual(lab_cache("", DATABASE).client.get_client().keys("*"), [])

    def test_after_a_run_the_aliases_lead_to_the_blog_again(self):
        cache.set("mine", 1, 300)

        self.client.post(URL, right_answer("none"))

        self.assertEqual(cache.get("mine"), 1)

    def test_readers_who_run_at_the_same_time_do_not_disturb_each_other(self):
        slugs = ["twice", "two-owners", "one-owner-in-this-blog", "none", "version"] * 3

        def run(slug):
            try:
                return Client().post(URL, right_answer(slug)).context["right"]
            finally:
                connections.close_all()

        with ThreadPoolExecutor(5) as pool:
            right = list(pool.map(run, slugs))

        self.assertEqual(right, [3] * len(slugs))

    def test_a_commit_deletes_after_the_answer_was_made(self):
        page = self.client.post(URL, right_answer("before-commit"))

        names = [command.name for command in page.context["played"].last.commands]
        self.assertEqual(names, ["GET", "DEL"])


@tag("browser")
class PredictInTheBrowserTests(BrowserTestCase, LabTestCase):
    """The page as a reader uses it."""

    def choose(self, page, slug):
        """Open a situation and choose the first answer of each question, by keyboard."""
        page.goto(f"{URL}?situation={slug}")
        for name in ("outcome", "level", "reason"):
            page.locator(f'[name="{name}"]').first.press("Space")
        page.locator("[data-start]").press("Enter")
        page.locator("[data-answered]").wait_for()

    def is_in_sight(self, page):
        """Return whether the verdict begins within the window. The page scrolls there smoothly."""
        return 0 <= page.locator("#verdict").bounding_box()["y"] < 640

    def test_the_focus_goes_to_the_result_and_it_is_in_sight(self):
        for width, script in ((1280, True), (360, True), (360, False)):
            with self.subTest(f"{width} px, script: {script}"):
                page = self.visitor(
                    viewport={"width": width, "height": 640}, java_script_enabled=script
                )
                self.choose(page, "twice")

                self.assertEqual(page.locator("#verdict:focus").count(), 1)
                self.assertTrue(wait_until(lambda page=page: self.is_in_sight(page)))

    def test_no_result_is_wider_than_a_phone(self):
        page = self.visitor(viewport={"width": 360, "height": 640})
        # Settings and headers, long paths, long keys, Python between the requests.
        for slug in ("session-whole-site", "invalidate-by-path", "delete-by-key", "touch"):
            with self.subTest(slug):
                self.choose(page, slug)

                self.assertEqual(page.evaluate("document.documentElement.scrollWidth"), 360)

    def test_progress_stays_in_this_browser(self):
        self.choose(self.page, "twice")
        self.choose(self.page, "post")

        self.page.goto(URL)
        self.assertShows("You answered 2 of")
        self.page.get_by_role("button", name="Go on").click()
        self.page.wait_for_url("**/?situation=newsletter")

        other = self.visitor()
        other.goto(URL)
        self.assertHides("You answered", other)

    def test_forgotten_answers_are_gone(self):
        self.choose(self.page, "twice")
        self.page.goto(URL)

        self.page.get_by_role("button", name="Forget my answers").press("Enter")

        self.assertShows("Your answers are forgotten")
        self.page.goto(URL)
        self.assertHides("You answered")

    def test_what_else_is_in_the_storage_breaks_nothing(self):
        self.page.goto(URL)
        for stored in ("nonsense", "null", "[1]", '"text"', '{"twice": "yes"}'):
            with self.subTest(stored):
                self.page.evaluate("text => localStorage.setItem('lab-predict', text)", stored)
                self.page.goto(URL)

                self.assertShows("The same page twice")

    def test_an_error_is_in_sight_and_has_the_focus(self):
        page = self.visitor(viewport={"width": 360, "height": 640})
        page.goto(f"{URL}?situation=twice")
        page.locator("[data-start]").evaluate("button => { button.form.noValidate = true; }")
        page.locator("[data-start]").press("Enter")

        page.locator(".predict-errors").wait_for()
        self.assertEqual(page.locator("#verdict:focus").count(), 1)
        self.assertTrue(wait_until(lambda: self.is_in_sight(page)))
