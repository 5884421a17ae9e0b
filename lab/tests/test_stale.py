"""Stale: when a value is dropped, which copies of it, and what one save of a post drops."""

import re
from html import unescape
from unittest import mock

from django.test import RequestFactory, SimpleTestCase
from redis import Redis

from blog.models import Comment, Post
from blog.tests import CacheTestCase
from blog.tests.test_browser import BrowserTestCase
from lab import stale
from lab.caches import lab_cache
from lab.models import Price
from lab.tests import LabTestCase
from lab.visitor import Visitor
from mysite.private_redis import PrivateRedis, use_redis
from mysite.tests.served import Gunicorn, Home


class StoryTests(SimpleTestCase):
    """
    A writer and a reader at the same time, in the page as gunicorn serves it.

    Only a database in a file lets one connection read what another has not committed yet as it
    was before: the one in memory, which tests have, locks the table.
    """

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.home = cls.enterClassContext(Home())
        cls.redis = cls.enterClassContext(PrivateRedis())
        server = cls.enterClassContext(Gunicorn(cls.home, cls.redis.url, LAB="1"))
        cls.browser = server.browser()
        cls.answer = cls.browser.submit("/lab/stale/", post="stampede")
        cls.sections = dict(
            re.findall(r'<h3 id="story-\d">(.*?)</h3>(.*?)</section>', cls.answer.text, re.DOTALL)
        )

    def story(self, title):
        """Return (verdict, [(what happened, row, Redis, reader), ...])."""
        rows = re.findall(r"<tr>(.*?)</tr>", self.sections[title], re.DOTALL)[1:]
        cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
        plain = [[unescape(re.sub("<.*?>", "", cell)).strip() for cell in row] for row in cells]
        return "✗ Stale." in self.sections[title], plain

    def test_dropped_before_commit_the_old_value_comes_back(self):
        is_stale, moments = self.story("Drop before COMMIT")

        self.assertTrue(is_stale)
        self.assertEqual(moments[1], ["A reader comes before COMMIT", "100", "100", "100"])
        self.assertEqual(moments[-1], ["The next reader comes", "120", "100", "100 stale"])

    def test_it_says_how_long_the_old_value_would_live(self):
        seconds = re.search(r"for (\d+) more seconds", self.sections["Drop before COMMIT"])

        self.assertIn(int(seconds[1]), range(stale.TIMEOUT - 60, stale.TIMEOUT + 1))

    def test_dropped_after_commit_the_next_reader_gets_the_new_value(self):
        is_stale, moments = self.story("Drop after COMMIT")

        self.assertFalse(is_stale)
        self.assertEqual(moments[1][1:], ["100", "100", "100"])
        self.assertEqual(moments[2][1:], ["120", "nothing", "–"])
        self.assertEqual(moments[-1][1:], ["120", "120", "120"])

    def test_a_slow_reader_brings_the_old_value_back_after_the_drop(self):
        is_stale, moments = self.story("After COMMIT, with a slow reader")

        self.assertTrue(is_stale)
        self.assertEqual(moments[-1][1:], ["120", "100", "100 stale"])

    def test_with_a_token_what_a_slow_reader_stores_counts_for_nothing(self):
        is_stale, moments = self.story("A slow reader and a token")

        self.assertFalse(is_stale)
        self.assertEqual(moments[-2][1:], ["120", "100", "100"])
        self.assertEqual(moments[-1][1:], ["120", "120", "120"])

    def test_it_leaves_no_row_and_no_key(self):
        self.assertEqual(self.home.query("SELECT count(*) FROM lab_price"), [(0,)])
        self.assertEqual(Redis.from_url(self.redis.url, db=5).dbsize(), 0)

    def test_what_is_no_post_is_400(self):
        answer = self.browser.submit("/lab/stale/", post="no-such-post")

        self.assertEqual(answer.status, 400)
        self.assertIn("Select a valid choice", answer.text)


class StackTests(LabTestCase):
    """A fragment and a page that has it, each with a copy of the price."""

    def rows(self):
        return {row["dropped"]: row for row in stale.stack()}

    def test_the_outer_level_stays_stale_when_the_inner_one_is_dropped(self):
        row = self.rows()["fragment"]

        self.assertEqual((row["fragment"], row["page"]), (120, "It costs 100."))

    def test_the_outer_level_is_built_from_the_stale_inner_one(self):
        self.assertEqual(self.rows()["page"]["page"], "It costs 100.")
        self.assertFalse(self.rows()["page, then fragment"]["is_right"])

    def test_from_the_inside_outwards_it_is_right(self):
        row = self.rows()["fragment, then page"]

        self.assertEqual((row["page"], row["is_right"]), ("It costs 120.", True))


class SaveTests(LabTestCase):
    """What saving a post drops, of what the blog really keeps."""

    make_post = CacheTestCase.make_post

    def setUp(self):
        super().setUp()
        self.make_post("hashes", tags=["hashing"])
        self.post = self.make_post("keys", tags=["redis"])

    def fates(self):
        request = RequestFactory().get("/lab/stale/")
        entries = stale.dropped_by(self.post, Visitor(request))
        return {name: fate for _, name, fate in entries}

    def test_every_page_that_shows_the_post_is_dropped(self):
        fates = self.fates()

        for url in ("/", "/feed/", "/tags/redis/", "/posts/keys/"):
            with self.subTest(url):
                self.assertEqual(fates[url], "dropped")

    def test_pages_that_do_not_show_it_are_kept(self):
        fates = self.fates()

        self.assertEqual(fates["/tags/hashing/"], "kept")
        self.assertEqual(fates["/posts/hashes/"], "kept")

    def test_fragments_and_values_are_dropped_by_name(self):
        fates = self.fates()

        self.assertEqual(fates["archive_months"], "dropped")
        self.assertEqual(fates["archive_discussed"], "dropped")
        self.assertEqual(fates["search: index and results"], "dropped")
        self.assertEqual(fates["archive_month (keyed by updated_at)"], "kept")

    def test_it_is_what_a_save_really_drops(self):
        promised = {name for name, fate in self.fates().items() if fate == "dropped"}
        stale.drop_as_a_save_does, drop = Post.save, stale.drop_as_a_save_does
        self.addCleanup(setattr, stale, "drop_as_a_save_does", drop)

        really = {name for name, fate in self.fates().items() if fate == "dropped"}

        self.assertEqual(really - {"archive_month (keyed by updated_at)"}, promised)

    def test_the_post_is_not_changed(self):
        before = Post.objects.values().get(pk=self.post.pk)

        self.fates()

        self.assertEqual(Post.objects.values().get(pk=self.post.pk), before)
        self.assertEqual((Comment.objects.count(), Price.objects.count()), (0, 0))

    def test_two_runs_drop_one_after_the_other(self):
        turn, taken = lab_cache("stale").lock("turn"), []
        self.enterContext(mock.patch.object(stale, "stories", list))
        self.enterContext(
            mock.patch.object(stale, "drop_as_a_save_does", lambda _: taken.append(turn.locked()))
        )

        self.client.post("/lab/stale/", {"post": "keys"})

        self.assertEqual((taken, turn.locked()), ([True], False))

    def test_without_redis_it_says_so_and_leaves_no_row(self):
        with use_redis("redis://127.0.0.1:1"):
            response = self.client.post("/lab/stale/", {"post": "keys"})

        self.assertContains(response, "Redis doesn’t answer")
        self.assertEqual(Price.objects.count(), 0)


class StaleInTheBrowserTests(BrowserTestCase, LabTestCase):
    """The database in memory locks the table, so here the parts without threads are looked at."""

    def test_on_a_phone_the_picture_says_what_the_table_says(self):
        self.enterContext(mock.patch.object(stale, "stories", list))
        self.make_post("long", title="A title that is longer than a phone is wide, and by far")
        page = self.visitor(viewport={"width": 360, "height": 700})
        page.goto("/lab/stale/")
        page.locator("[data-start]").click()

        page.locator(".stale-picture").wait_for()
        rows = page.locator(".stale-picture tbody tr")
        named = [row.split("\t")[1:] for row in rows.all_inner_texts()]
        dropped = [name for name, fate in named if fate == "✗ dropped"]
        kept = [name for name, fate in named if fate == "● kept"]
        tree = page.locator(".stale-tree")
        self.assertEqual(tree.locator(".stale-dropped").all_inner_texts(), dropped)
        self.assertEqual(tree.locator(".stale-kept").all_inner_texts(), kept)
        self.assertIn("/posts/long/", dropped)
        self.assertEqual(page.evaluate("document.documentElement.scrollWidth"), 360)
