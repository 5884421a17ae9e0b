"""What do you expect? Asked before the button, told after the run, and never needed."""

from django.test import SimpleTestCase, tag

from blog.tests.test_browser import BrowserTestCase
from lab.experiment import Question
from lab.tests import LabPageTestCase, LabTestCase
from lab.urls import EXPERIMENTS

HIT_OR_MISS = Question("?", {"hit": "a hit", "miss": "a miss"}, lambda context: context["came"])


class QuestionTests(SimpleTestCase):
    """What is told, by what was chosen and what came."""

    def test_it_came_as_expected(self):
        self.assertEqual(
            HIT_OR_MISS.told("hit", {"came": "hit"}),
            "You expected: a hit. That is what happened.",
        )

    def test_it_came_otherwise(self):
        self.assertEqual(
            HIT_OR_MISS.told("hit", {"came": "miss"}),
            "You expected: a hit. What happened: a miss.",
        )

    def test_without_an_answer_nothing_is_told(self):
        for expected in (None, "", "nonsense", "hit\0", "<script>"):
            with self.subTest(expected):
                self.assertEqual(HIT_OR_MISS.told(expected, {"came": "hit"}), "")

    def test_a_run_without_a_result_tells_nothing(self):
        self.assertEqual(HIT_OR_MISS.told("hit", {"came": None}), "")


class ExpectTests(LabPageTestCase):
    """The pages that come with their result: no script is needed."""

    scratch = {"scratch": "0123456789ab"}

    def told(self, slug, **data):
        response = self.client.post(f"/lab/{slug}/", data)
        self.assertEqual(response.status_code, 200)
        before, _, after = response.text.partition('<p class="lab-told">')
        return after.partition("</p>")[0]

    def test_each_experiment_asks_before_its_button_and_nothing_is_chosen(self):
        for experiment in EXPERIMENTS:
            if experiment.slug == "predict":  # Which consists of such questions.
                continue
            page = self.client.get(f"/lab/{experiment.slug}/").text
            before_button, _, _ = page.partition("<button data-start>")

            with self.subTest(experiment.slug):
                self.assertIn("What do you expect?", before_button)
                self.assertGreaterEqual(page.count('<input type="radio" name="expect"'), 2)
                self.assertNotIn(" checked", page)

    def test_keys_compares_with_what_redis_has(self):
        url = "http://testserver/about/"

        self.assertIn("What happened: a miss.", self.told("keys", url=url, expect="hit"))
        self.client.get("/about/")
        self.assertIn("That is what happened.", self.told("keys", url=url, expect="hit"))
        archive = "http://testserver/archive/"
        self.assertIn("no page level caches.", self.told("keys", url=archive, expect="hit"))

    def test_wire_compares_with_the_answer_of_redis(self):
        for command, came in (
            ("SET a b", "a short text, such as OK"),
            ("GET a", "a value"),
            ("MGET a a", "several values"),
            ("TTL a", "a number"),
            ("GET missing", "nothing"),
            ("INCR a", "an error"),
        ):
            expected = "number" if came != "a number" else "value"
            with self.subTest(command):
                told = self.told("wire", command=command, expect=expected, **self.scratch)
                self.assertIn(f"What happened: {came}.", told)

    def test_leak_compares_with_what_bob_got(self):
        told = self.told("leak", page="greeting", expect="his own")

        self.assertEqual(told, "You expected: a page of his own. What happened: Alice’s page.")

    def test_an_open_question_is_no_error_and_nothing_is_told(self):
        for expect in ("", "nonsense", "x" * 10_000):
            with self.subTest(expect[:10]):
                self.assertEqual(
                    self.told("keys", url="http://testserver/about/", expect=expect), ""
                )

    def test_a_form_with_an_error_still_has_what_was_chosen(self):
        page = self.client.post("/lab/keys/", {"url": "nonsense", "expect": "miss"})

        self.assertContains(page, 'value="miss" checked', status_code=400)


@tag("browser")
class ExpectInTheBrowserTests(BrowserTestCase, LabTestCase):
    """The experiments whose result comes by script, and the buttons that try something."""

    def choose(self, words):
        self.page.locator(".lab-expect label", has_text=words).click()

    def told(self):
        return self.page.locator(".lab-told").inner_text()

    def run_that_says(self, value):
        """Start the stampede, whose run says that this came."""
        lines = f'{{"kind": "came", "value": "{value}"}}\n{{"kind": "end"}}\n'
        self.page.route("**/lab/stampede/", lambda route: route.fulfill(body=lines))
        self.page.locator("[data-start]").click()
        self.page.locator('.lab[data-state="done"]').wait_for()

    def test_a_run_tells_what_came(self):
        self.page.goto("/lab/stampede/")
        self.choose("half of them or more")

        self.run_that_says("one")

        self.assertEqual(self.told(), "You expected: half of them or more. What happened: one.")

    def test_the_next_run_is_compared_anew(self):
        self.test_a_run_tells_what_came()

        self.run_that_says("most")

        self.assertEqual(self.told(), "You expected: half of them or more. That is what happened.")

    def test_a_run_tells_nothing_where_nothing_was_chosen(self):
        self.page.goto("/lab/stampede/")

        self.run_that_says("one")

        self.assertEqual(self.told(), "")

    def test_race_compares_with_what_it_measured(self):
        def answer(route):
            ms = 30 if "/none/" in route.request.url else 2
            route.fulfill(body="", headers={"Server-Timing": f"app;dur={ms}"})

        self.page.route("**/lab/race/page/**", answer)
        self.page.goto("/lab/race/")
        self.choose("less than 2 times")
        self.page.locator('[name="rounds"]').fill("1")
        self.page.locator("[data-start]").click()
        self.page.locator('.lab[data-state="done"]').wait_for()

        self.assertEqual(
            self.told(), "You expected: less than 2 times. What happened: more than 10 times."
        )

    def test_peel_compares_with_what_the_per_view_level_left(self):
        self.page.goto("/lab/peel/")
        self.choose("yes")
        for button, says in (
            ("Ask Django", "The database answered"),
            ("Delete the outermost entry", "the whole-site level"),
            ("Ask Django", "The per-view level answered"),
        ):
            self.page.get_by_role("button", name=button, exact=True).click()
            self.page.locator(".lab-said", has_text=says).wait_for()

        self.assertEqual(self.told(), "You expected: yes. What happened: no.")

    def test_a_button_that_tries_something_takes_the_expectation_along(self):
        self.page.goto("/lab/keys/")
        self.choose("a hit")

        self.page.get_by_role("button", name="a page", exact=True).click()
        self.page.locator(".lab-told").wait_for()

        self.assertEqual(self.told(), "You expected: a hit. What happened: a miss.")

    def test_enter_sends_what_was_typed(self):
        self.page.goto("/lab/wire/")
        self.choose("a number")
        self.page.locator('input[name="command"]').fill("INCR visits")
        self.page.keyboard.press("Enter")
        self.page.locator("h2", has_text="INCR visits").wait_for()

        self.assertEqual(self.told(), "You expected: a number. That is what happened.")
