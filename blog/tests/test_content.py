"""
The posts of blog/content/ are the tutorial, so what they print has to happen.

Each post's ```pycon fences run as one doctest, each excerpt is compared with the file it
quotes, and each link and each test that a post names has to exist.
"""

import doctest
import re
import unittest
from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import redis
from django.conf import settings
from django.test import SimpleTestCase, override_settings

from blog.tests import CacheTestCase
from resilient_cache.tests.server import caches_at

CONTENT = settings.BASE_DIR / "blog" / "content"
FRONT_MATTER = re.compile(
    r"---\n"
    r"title: (?P<title>[^\n]+)\n"
    r"date: (?P<date>2026-[0-9]{2}-[0-9]{2})\n"
    r"tags: (?P<tags>[^\n]+)\n"
    r"summary: (?P<summary>[^\n]+)\n"
    r"---\n+"
    r"(?P<body>.+)",
    re.DOTALL,
)
TAGS = {
    *("redis", "redis-py", "django", "django-redis", "whole-site", "per-view", "fragments"),
    *("low-level", "keys", "invalidation", "stampede", "browser", "privacy", "outage", "scaling"),
}
# A fence, and in the first line of an excerpt the file it is from: `# blog/views.py`,
# or `{# templates/base.html #}`. A fence without such a line quotes nothing.
FENCE = re.compile(r"^```(?P<language>\S*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
QUOTED_FILE = re.compile(r"(?:# |\{# )(?P<path>[\w./-]+\.\w+)(?: #\})?")
LEFT_OUT = re.compile(r"^\s*(?:# ?)?\.\.\.\s*$", re.MULTILINE)
# `manage.py test blog.tests.test_pages -k pattern`, or a test's dotted name alone.
NAMED_TEST = re.compile(
    r"\b((?:blog|lab|mysite|resilient_cache|watch)\.tests(?:\.\w+)+)(?:\s+-k\s+(\w+))?"
)


@dataclass
class ContentFile:
    """A post as its author wrote it."""

    path: Path

    @property
    def slug(self):
        return re.sub(r"^[0-9]+-", "", self.path.stem)

    @property
    def text(self):
        return self.path.read_text()

    @property
    def parts(self):
        return FRONT_MATTER.fullmatch(self.text)

    @property
    def body(self):
        return self.parts["body"]

    @property
    def prose(self):
        return FENCE.sub("", self.body)

    def fences(self, *languages):
        """Return the code of the fences in one of these languages."""
        return [
            fence["code"]
            for fence in FENCE.finditer(self.body)
            if not languages or fence["language"] in languages
        ]

    def session(self):
        """Return all pycon fences as one session, each line where it stands in the file."""
        lines, inside = [], False
        for line in self.text.split("\n"):
            if line.startswith("```"):
                inside = line == "```pycon"
                line = ""
            lines.append(line if inside else "")
        return "\n".join(lines)


POSTS = [ContentFile(path) for path in sorted(CONTENT.glob("*.md"))]


def squeezed(text):
    """Return `text` with each run of white space as one space."""
    return " ".join(text.split())


class FrontMatterTests(SimpleTestCase):
    """What `manage.py seed` reads of a content file, and what a reader sees in lists."""

    def test_there_are_at_least_fourteen_posts(self):
        self.assertGreaterEqual(len(POSTS), 14)

    def test_a_file_is_called_by_its_number_and_slug(self):
        for post in POSTS:
            with self.subTest(post.path.name):
                self.assertRegex(post.path.name, r"\A[0-9]{2}-[a-z0-9]+(-[a-z0-9]+)*\.md\Z")

    def test_each_post_has_title_date_tags_and_summary(self):
        for post in POSTS:
            with self.subTest(post.path.name):
                self.assertIsNotNone(post.parts)

    def test_no_two_posts_share_a_slug_or_a_title(self):
        for name in ("slugs", "titles"):
            found = Counter(post.slug if name == "slugs" else post.parts["title"] for post in POSTS)

            with self.subTest(name):
                self.assertEqual([value for value, count in found.items() if count > 1], [])

    def test_dates_are_real_and_in_the_order_of_the_files(self):
        dates = [date.fromisoformat(post.parts["date"]) for post in POSTS]

        self.assertEqual(dates, sorted(set(dates)))

    def test_each_post_has_two_to_four_of_the_known_tags(self):
        for post in POSTS:
            tags = post.parts["tags"].split(", ")

            with self.subTest(post.path.name):
                self.assertLessEqual(set(tags), TAGS)
                self.assertEqual(len(tags), len(set(tags)))
                self.assertIn(len(tags), (2, 3, 4))

    def test_a_summary_is_one_sentence_of_at_most_160_characters(self):
        for post in POSTS:
            summary = post.parts["summary"]

            with self.subTest(post.path.name):
                self.assertLessEqual(len(summary), 160)
                self.assertRegex(summary, r"\A[^\s].*[.?]\Z")


class BodyTests(SimpleTestCase):
    """What stands below the front matter."""

    def test_a_post_has_300_to_900_words(self):
        for post in POSTS:
            with self.subTest(post.path.name):
                self.assertGreaterEqual(len(post.prose.split()), 300)
                self.assertLessEqual(len(post.body.split()), 900)

    def test_headings_begin_at_the_second_level(self):
        for post in POSTS:
            with self.subTest(post.path.name):
                self.assertNotRegex(post.prose, r"(?m)^# ")
                self.assertRegex(post.prose, r"(?m)^## ")

    def test_each_post_ends_with_something_to_try(self):
        for post in POSTS:
            with self.subTest(post.path.name):
                self.assertRegex(re.findall(r"(?m)^## (.+)$", post.prose)[-1], "^Try it")

    def test_every_fence_is_closed_and_says_its_language(self):
        for post in POSTS:
            with self.subTest(post.path.name):
                self.assertNotIn("```", post.prose)
                self.assertNotIn("", [fence["language"] for fence in FENCE.finditer(post.body)])

    def test_links_to_posts_lead_to_posts(self):
        slugs = {post.slug for post in POSTS}

        for post in POSTS:
            with self.subTest(post.path.name):
                linked = set(re.findall(r"\]\(/posts/([^/)]+)/", post.prose))
                self.assertEqual(linked - slugs, set())

    def test_excerpts_stand_in_the_files_they_name(self):
        for post in POSTS:
            for code in post.fences("python", "django", "yaml", "css", "javascript"):
                first, _, rest = code.partition("\n")
                if quoted := QUOTED_FILE.fullmatch(first):
                    with self.subTest(post.path.name, file=quoted["path"]):
                        self.assert_in_this_order(rest, settings.BASE_DIR / quoted["path"])

    def test_the_tests_that_posts_name_exist(self):
        for post in POSTS:
            for label, pattern in NAMED_TEST.findall(post.body):
                with self.subTest(post.path.name, test=label, pattern=pattern):
                    loader = unittest.TestLoader()
                    loader.testNamePatterns = [f"*{pattern}*"] if pattern else None
                    found = loader.loadTestsFromName(label)
                    self.assertEqual(loader.errors, [])
                    self.assertGreater(found.countTestCases(), 0)

    def assert_in_this_order(self, excerpt, path):
        """Assert that the parts of `excerpt`, between lines of dots, follow each other there."""
        rest = squeezed(path.read_text())
        for part in filter(None, map(squeezed, LEFT_OUT.split(excerpt))):
            self.assertIn(part, rest)
            rest = rest.partition(part)[2]


class SessionTests(CacheTestCase):
    """What the posts show at the Python prompt. The methods are made below, one a post."""

    def setUp(self):
        super().setUp()
        # One post lets a Redis hang, and waits until the timeout is over.
        caches = caches_at(settings.REDIS_URL, timeout=2)
        self.enterContext(override_settings(CACHES=caches))
        # The posts play in database 9. FLUSHALL, because this Redis is the test run's own.
        redis.Redis.from_url(settings.REDIS_URL).flushall()

    def run_session(self, post):
        """Run the post's session, and fail with what doctest has to say."""
        test = doctest.DocTestParser().get_doctest(
            post.session(),
            {"__name__": "__main__"},  # As at the prompt.
            post.slug,
            str(post.path.relative_to(settings.BASE_DIR)),
            0,
        )
        # FAIL_FAST: what follows the first surprise is mostly its consequence.
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.FAIL_FAST
        runner = doctest.DocTestRunner(optionflags=flags, verbose=False)
        report = []

        # What a session overrides is put back even when it stops half-way.
        with self.settings(CACHES=settings.CACHES, ROOT_URLCONF=settings.ROOT_URLCONF):
            results = runner.run(test, out=report.append)

        self.assertEqual(results.failed, 0, "".join(report))


def session_test(post):
    """Return a test method that runs the session of `post`."""

    def test(self):
        self.run_session(post)

    test.__name__ = f"test_the_session_in_{post.slug.replace('-', '_')}_runs_as_printed"
    test.__qualname__ = f"{SessionTests.__qualname__}.{test.__name__}"
    return test


for method in (session_test(post) for post in POSTS if post.session().strip()):
    setattr(SessionTests, method.__name__, method)
