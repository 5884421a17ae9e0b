"""Stale: when a value is invalidated, which copies of it, and what one save invalidates."""

import re
from contextlib import closing
from html import unescape

from django.test import SimpleTestCase, tag
from redis import Redis

from lab.caches import DATABASE
from lab.tests import doubles
from mysite.private_redis import PrivateRedis
from mysite.tests.served import Gunicorn, Home


@tag("slow")
class StaleTests(SimpleTestCase):
    """
    The page as gunicorn serves it.

    Only a database in a file lets one connection read what another has not committed yet as it
    was before. The one in memory, which tests have, locks the table.
    """

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.home = cls.enterClassContext(Home())
        cls.redis = cls.enterClassContext(PrivateRedis())
        server = cls.enterClassContext(Gunicorn(cls.home, cls.redis.url, LAB="1"))
        cls.view = cls.enterClassContext(closing(Redis.from_url(cls.redis.url, db=2)))
        with closing(server.browser()) as browser:
            browser.submit("/lab/stale/", post="stampede")  # Fills what it asks for.
            cls.before = cls.pages()
            cls.answer = browser.submit("/lab/stale/", post="stampede", expect="new").text

    @classmethod
    def pages(cls):
        """Return {key: value} of the per-view level's pages in Redis."""
        return {key: cls.view.get(key) for key in cls.view.scan_iter("view:1:page:*")}

    def rows(self, html):
        """Return the cells of each row in a piece of HTML, as text."""
        rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)[1:]
        cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
        return [[unescape(re.sub("<.*?>", "", cell)).strip() for cell in row] for row in cells]

    def story(self, title):
        """Return (is stale, [[what happened, row, Redis, reader], ...])."""
        sections = dict(
            re.findall(r'<h3 id="story-\d">(.*?)</h3>(.*?)</section>', self.answer, re.DOTALL)
        )
        return "✗ Stale." in sections[title], self.rows(sections[title])

    def test_deleted_before_commit_the_old_value_comes_back(self):
        is_stale, moments = self.story("Delete before COMMIT")

        self.assertTrue(is_stale)
        self.assertEqual(moments[1], ["A reader comes before COMMIT", "100", "100", "100"])
        self.assertEqual(moments[-1], ["The next reader comes", "120", "100", "100 stale"])

    def test_deleted_after_commit_the_next_reader_gets_the_new_value(self):
        is_stale, moments = self.story("Delete after COMMIT")

        self.assertFalse(is_stale)
        self.assertEqual(moments[2][1:], ["120", "nothing", "–"])
        self.assertEqual(moments[-1][1:], ["120", "120", "120"])

    def test_a_slow_reader_brings_the_old_value_back(self):
        is_stale, moments = self.story("After COMMIT, with a slow reader")

        self.assertTrue(is_stale)
        self.assertEqual(moments[-1][1:], ["120", "100", "100 stale"])

    def test_what_was_expected_is_compared_with_it(self):
        told = "You expected: the new price. What happened: the old price."
        self.assertIn(f'<p class="lab-told">{told}</p>', self.answer)

    def test_with_a_version_the_value_of_a_slow_reader_is_not_served(self):
        is_stale, moments = self.story("A slow reader and a version")

        self.assertFalse(is_stale)
        self.assertEqual(moments[-1][1:], ["120", "120", "120"])

    def test_of_two_levels_only_inner_before_outer_is_right(self):
        table = self.answer.partition("Two levels, one on the other")[2].partition("</table>")[0]

        self.assertEqual(
            {deleted: verdict for deleted, *_, verdict in self.rows(table)},
            {
                "fragment": "✗ stale",
                "page": "✗ stale",
                "page, then fragment": "✗ stale",
                "fragment, then page": "✓ right",
            },
        )

    def test_a_save_invalidates_what_shows_the_post_and_not_another_post(self):
        table = self.answer.partition("What one save invalidates")[2]
        fates = {(level, name): fate for level, name, fate in self.rows(table)}

        for entry in (
            *(("Whole site", "/"), ("Whole site", "/about/"), ("Per view", "/posts/stampede/")),
            *(("Fragment", "archive_months"), ("Fragment", "archive_discussed")),
            ("Low-level", "search:index"),
        ):
            with self.subTest(entry):
                self.assertEqual(fates[entry], "✗ invalidated")
        others = {name for (level, name), fate in fates.items() if fate == "● still cached"}
        self.assertTrue(any(name.startswith("/posts/") for name in others), fates)
        self.assertIn("archive_month", others)

    def test_the_page_of_another_post_stays_as_it_was(self):
        others = {key for key in self.before if b"/posts/stampede/" not in key}

        self.assertEqual(len(others), 1)
        after = self.pages()
        self.assertEqual({key: after[key] for key in others}, {k: self.before[k] for k in others})

    def test_no_id_and_no_name_of_a_landmark_is_there_twice(self):
        self.assertEqual(doubles(self.answer), [])

    def test_its_own_keys_are_deleted(self):
        with closing(Redis.from_url(self.redis.url, db=DATABASE)) as client:
            self.assertEqual(client.keys("*"), [])

    def test_its_row_is_deleted(self):
        self.assertEqual(self.home.query("SELECT count(*) FROM lab_price"), [(0,)])
