"""Leak: which of the views give one visitor's page to another, and what Redis has then."""

from contextlib import nullcontext

from django.contrib.sessions.models import Session
from django.test import override_settings

from blog.tests import CacheTestCase
from lab.caches import DATABASE, lab_cache
from mysite.private_redis import use_redis


@override_settings(ROOT_URLCONF="lab.tests.urls")
class LeakTests(CacheTestCase):
    def stages(self, page):
        """Let them ask. Return {title: Stage}."""
        logs = self.assertLogs("django.security.csrf") if page == "form" else nullcontext()
        with logs:  # A form with the token of another visitor is refused.
            response = self.client.post("/lab/leak/", {"page": page})
        self.assertEqual(response.status_code, 200)
        return {stage.variant.title: stage for stage in response.context["stages"]}

    def read(self, stage, method="GET"):
        """Return what each visitor read, in order."""
        return [asked.text for asked in stage.asked if asked.request.startswith(method)]

    def test_each_wrong_view_leaks_and_each_fix_does_not(self):
        for page, leaks in (("greeting", 3), ("form", 2), ("message", 2)):
            with self.subTest(page):
                wrong, *fixes = self.stages(page).values()

                self.assertEqual(wrong.leaks, leaks)
                self.assertEqual([fix.leaks for fix in fixes], [0] * len(fixes))

    def test_bob_is_greeted_as_alice(self):
        stage = self.stages("greeting")["cache_page on a personal page"]

        self.assertEqual(self.read(stage), ["Hello, Alice."] * 4)
        self.assertEqual([asked.cached for asked in stage.asked], ["miss, stored"] + ["hit"] * 3)

    def test_with_vary_each_cookie_has_an_entry(self):
        stage = self.stages("greeting")["Fix: vary on the cookie"]

        names = ["Alice", "Bob", "anonymous", "Bob"]
        self.assertEqual(self.read(stage), [f"Hello, {name}." for name in names])
        self.assertEqual([asked.cached for asked in stage.asked], ["miss, stored"] * 3 + ["hit"])

    def test_the_keys_are_explained_and_what_differs_is_marked(self):
        stored = self.stages("greeting")["Fix: vary on the cookie"].stored

        pages = [key for key in stored if key["what"] == "a page"]
        others = [key["what"] for key in stored if key not in pages]
        marked = [[part["text"] for part in key["parts"] if part["differs"]] for key in pages]
        self.assertEqual(others, ["what it varies on"])
        self.assertEqual([key["who"] for key in pages], ["Alice", "Bob", "anonymous"])
        self.assertEqual([len(parts) for parts in marked], [1, 1, 1])
        self.assertEqual(len({parts[0] for parts in marked}), 3)

    def test_a_form_with_the_token_of_another_visitor_is_refused(self):
        stages = self.stages("form")

        wrong = stages["cache_page on a page with a form"]
        self.assertIn("Refused: Alice’s token, Bob’s cookie.", self.read(wrong, "POST"))
        for title in ("Fix: protect below cache_page", "Fix: a page of its own for the form"):
            with self.subTest(title):
                self.assertEqual(self.read(stages[title], "POST"), ["Thank you."] * 3)

    def test_a_message_waits_for_its_own_visitor(self):
        stages = self.stages("message")

        wrong = stages["cache_page on a page with messages"]
        self.assertEqual(len(set(self.read(wrong))), 1)
        fixed = self.read(stages["Fix: messages on pages that are not cached"])
        self.assertEqual(fixed[:3], ["All notes of today."] * 3)
        self.assertEqual(fixed[3:], ["Your note is saved, Alice.", "No messages.", "No messages."])

    def test_the_page_says_it_in_words(self):
        page = self.client.post("/lab/leak/", {"page": "greeting"})

        self.assertContains(page, "Leak: this is Alice’s")
        self.assertContains(page, "<td>miss, stored</td>")
        self.assertContains(page, "✓ No leak.", 3)

    def test_neither_keys_nor_sessions_are_left(self):
        self.stages("message")

        self.assertEqual(lab_cache("").keys("*"), [])
        self.assertEqual(lab_cache("", DATABASE).client.get_client().dbsize(), 0)
        self.assertFalse(Session.objects.exists())

    def test_the_views_are_404_outside_of_a_run(self):
        self.assertEqual(self.client.get("/lab/leak/pages/greeting/").status_code, 404)

    def test_without_redis_it_says_so(self):
        with use_redis("redis://127.0.0.1:1"):
            response = self.client.post("/lab/leak/", {"page": "greeting"})

        self.assertContains(response, "Redis does not answer")
