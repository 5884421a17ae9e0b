"""Leak: Bob reads what was made for Alice, and with each fix he doesn't."""

from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import RequestFactory
from redis import Redis

from blog.tests.test_browser import BrowserTestCase
from lab import leak
from lab.caches import DATABASE
from lab.leak import PAGES
from lab.tests import LabTestCase
from mysite.private_redis import use_redis


class LeakTests(LabTestCase):
    request = RequestFactory().post("/lab/leak/")

    def play(self, view):
        """Return what was asked of the view, as {"Bob": [Asked, ...]}, and the Stage."""
        variants = [each for each in sum(PAGES.values(), ()) if each.view is view]
        stage = leak.play(self.request, variants[0])
        by_name = {name: [each for each in stage.asked if each.who == name] for name in leak.NAMES}
        return by_name, stage

    def pages(self, stage):
        return [key for key in stage.keys if ".cache_page." in key]

    def test_bob_reads_alices_name(self):
        asked, stage = self.play(leak.greeting)

        self.assertEqual(asked["Alice"][0].text, "Hello, Alice.")
        self.assertEqual(asked["Alice"][0].kept, "miss, stored")
        self.assertEqual(asked["Bob"][0].text, "Hello, Alice.")
        self.assertEqual(asked["Bob"][0].kept, "hit")
        self.assertEqual(asked["Bob"][0].leaked, "Alice")
        self.assertEqual(asked["nobody"][0].leaked, "Alice")
        self.assertEqual(len(self.pages(stage)), 1)

    def test_vary_comes_too_late_for_the_key(self):
        asked, stage = self.play(leak.greeting)

        self.assertEqual(asked["Alice"][0].vary, "Cookie")
        self.assertEqual(asked["Bob"][0].vary, "none")
        self.assertIn(".d41d8cd98f00b204e9800998ecf8427e", self.pages(stage)[0])

    def test_varied_on_the_cookie_each_has_an_entry(self):
        asked, stage = self.play(leak.greeting_varied)

        self.assertEqual(stage.leaks, 0)
        self.assertEqual(asked["Bob"][0].text, "Hello, Bob.")
        self.assertEqual([each.kept for each in asked["Bob"]], ["miss, stored", "hit"])
        self.assertEqual(len(self.pages(stage)), 3)

    def test_the_part_of_the_key_that_differs_is_marked(self):
        _, stage = self.play(leak.greeting_varied)

        pages = [key["parts"] for key in stage.stored if key["what"] == "a page"]
        marked = [[part["text"] for part in parts if part["differs"]] for parts in pages]
        self.assertEqual([len(each) for each in marked], [1, 1, 1])
        self.assertEqual(len({each[0] for each in marked}), 3)
        self.assertIn("".join(part["text"] for part in pages[0]), stage.keys)

    def test_never_cached_it_is_in_no_entry(self):
        asked, stage = self.play(leak.greeting_never)

        self.assertEqual(stage.leaks, 0)
        self.assertEqual(stage.keys, {})
        self.assertEqual(asked["nobody"][0].text, "Hello, nobody.")

    def test_what_is_the_same_for_all_is_kept_and_the_name_is_not(self):
        asked, stage = self.play(leak.greeting_apart)

        self.assertEqual(stage.leaks, 0)
        self.assertEqual(asked["Alice"][0].kept, "page built, part stored")
        self.assertEqual(asked["Bob"][0].kept, "page built, part hit")
        self.assertIn("Hello, Bob.", asked["Bob"][0].text)
        self.assertEqual(len(stage.keys), 1)

    def test_bob_gets_alices_token_and_his_form_is_refused(self):
        with self.assertLogs("django.security.csrf"):
            asked, _ = self.play(leak.form)

        self.assertEqual(asked["Bob"][0].leaked, "Alice")
        self.assertEqual([each.status for each in asked["Alice"]], [200, 200])
        self.assertEqual([each.status for each in asked["Bob"]], [200, 403])
        self.assertEqual([each.status for each in asked["nobody"]], [200, 403])

    def test_protected_below_cache_page_the_form_works_and_is_not_kept(self):
        asked, stage = self.play(leak.form_protected)

        self.assertEqual((stage.leaks, stage.refused), (0, 0))
        self.assertEqual(asked["Bob"][0].kept, "miss, not stored")
        self.assertEqual(asked["Bob"][0].vary, "Cookie")
        self.assertEqual(self.pages(stage), [])

    def test_a_form_on_a_page_of_its_own_works_beside_a_page_that_is_kept(self):
        asked, stage = self.play(leak.form_linked)

        self.assertEqual((stage.leaks, stage.refused), (0, 0))
        self.assertEqual(asked["Bob"][0].kept, "hit")
        self.assertEqual(asked["Bob"][-1].text, "Thank you.")

    def test_bob_reads_that_alices_note_is_saved(self):
        asked, _ = self.play(leak.notes)

        self.assertIn("Your note is saved, Alice.", asked["Bob"][0].text)
        self.assertEqual(asked["Bob"][0].leaked, "Alice")
        # She herself is told each time.
        self.assertIn("saved", asked["Alice"][-1].text)

    def test_on_a_page_that_nobody_keeps_a_message_is_told_once_to_whom_it_is_for(self):
        asked, stage = self.play(leak.notes_without)

        self.assertEqual(stage.leaks, 0)
        self.assertEqual(asked["Bob"][0].kept, "hit")
        self.assertEqual(asked["Alice"][-1].text, "Your note is saved, Alice.")
        self.assertEqual(asked["Bob"][-1].text, "There is nothing to tell you.")

    def test_each_wrong_view_leaks_and_no_other_does(self):
        for variant in PAGES["greeting"] + PAGES["message"]:
            with self.subTest(variant.view.__name__):
                self.assertEqual(leak.play(self.request, variant).leaks == 0, variant.is_right)

    def test_a_run_leaves_nothing_behind(self):
        self.client.post("/lab/leak/", {"page": "greeting"})

        self.assertEqual(Redis.from_url(settings.REDIS_URL, db=DATABASE).dbsize(), 0)
        self.assertEqual(Session.objects.count(), 0)
        self.assertEqual(User.objects.count(), 0)

    def test_its_pages_are_not_there_outside_of_a_run(self):
        self.assertEqual(self.client.get("/lab/leak/pages/greeting/").status_code, 404)

    def test_the_page_marks_the_leak_in_words(self):
        response = self.client.post("/lab/leak/", {"page": "greeting"})

        self.assertContains(response, "Leak: this is Alice’s")
        self.assertContains(response, "✓ No leak.", 3)

    def test_without_redis_it_says_so_and_leaves_no_session(self):
        with use_redis("redis://127.0.0.1:1"), self.assertNoLogs("django.request"):
            response = self.client.post("/lab/leak/", {"page": "greeting"})

        self.assertContains(response, "Redis doesn’t answer")
        self.assertEqual(Session.objects.count(), 0)

    def test_a_page_that_is_none_is_400(self):
        response = self.client.post("/lab/leak/", {"page": "wallet"})

        self.assertContains(response, "Select a valid choice", status_code=400)


class LeakInTheBrowserTests(BrowserTestCase, LabTestCase):
    def test_on_a_phone_the_leak_is_read_in_words_and_nothing_hangs_over(self):
        page = self.visitor(viewport={"width": 360, "height": 700})
        page.goto("/lab/leak/")
        page.locator('[name="page"]').select_option("message")
        page.locator("[data-start]").click()

        page.locator(".leak-mark", has_text="Leak: this is Alice’s").first.wait_for()
        self.assertEqual(page.evaluate("document.documentElement.scrollWidth"), 360)
        self.assertEqual(page.locator("section.leak").count(), 2)
