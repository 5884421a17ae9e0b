"""
The posts of blog/content/ are the tutorial, so what they print has to happen.

The ```pycon fences of a post run as one doctest. Each excerpt is compared with the file that it
quotes. Each link, file, command and test that a post names has to exist.
"""

import doctest
import logging
import re
import unittest
from unittest import mock

import redis
from django.conf import settings
from django.core.management import get_commands
from django.test import SimpleTestCase
from django.urls import resolve

from blog.content import FOLDER, read_post
from blog.models import Post
from blog.tests import CacheTestCase

FENCE = re.compile(r"^```(?P<language>\S*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
# The first line of an excerpt names the file that it quotes: `# blog/views.py`, or
# `{# templates/base.html #}`. A line of dots stands for what is left out.
QUOTED_FILE = re.compile(r"(?:# |\{# )(?P<path>[\w./-]+\.\w+)(?: #\})?")
LEFT_OUT = re.compile(r"^\s*(?:# ?)?\.\.\.\s*$", re.MULTILINE)
LINK = re.compile(r"\]\((/[^)\s#]*)")
NAMED_FILE = re.compile(r"`((?:blog|lab|mysite|resilient_cache|templates|tools|watch)/[\w./-]*)`")
COMMAND = re.compile(r"manage\.py\s+(\w+)")
# `manage.py test blog.tests.test_pages -k pattern`, or a test's dotted name alone.
NAMED_TEST = re.compile(
    r"\b((?:blog|lab|mysite|resilient_cache|watch)\.tests(?:\.\w+)+)(?:\s+-k\s+(\w+))?"
)

PARTS = ["redis", "django", "levels", "right", "load", "figures"]


class Lesson:
    """A post as its author wrote it: its `fields` in the database, `body` and `prose`."""

    def __init__(self, path):
        self.path, self.fields = path, read_post(path)
        self.slug, self.body = self.fields["slug"], self.fields["body"]
        self.prose = FENCE.sub("", self.body)  # The body without its code.

    def session(self):
        """Return all pycon fences as one session, each line where it stands in the file."""
        lines, inside = [], False
        for line in self.path.read_text().split("\n"):
            if line.startswith("```"):
                inside = line == "```pycon"
                line = ""
            lines.append(line if inside else "")
        return "\n".join(lines)


LESSONS = [Lesson(path) for path in sorted(FOLDER.glob("*.md"))]


def squeezed(text):
    """Return `text` with each run of white space as one space."""
    return " ".join(text.split())


class LessonTests(SimpleTestCase):
    """What the posts name is there, and is as they say."""

    def test_the_fields_of_each_post_fit_into_the_database(self):
        for lesson in LESSONS:
            with self.subTest(lesson.path.name):
                fields = {name: value for name, value in lesson.fields.items() if name != "tags"}
                Post(**fields).clean_fields()
                self.assertTrue(lesson.fields["tags"])

    def test_each_post_stands_in_one_of_the_six_parts_which_follow_each_other(self):
        parts = [lesson.fields["part"] for lesson in LESSONS]

        self.assertLessEqual(set(parts), set(PARTS))
        self.assertEqual(parts, sorted(parts, key=PARTS.index))

    def test_each_post_says_whether_it_is_about_django_or_about_this_blog(self):
        for lesson in LESSONS:
            with self.subTest(lesson.path.name):
                self.assertIn(lesson.fields["scope"], ("django", "blog"))

    def test_each_post_has_a_slug_and_a_title_of_its_own(self):
        for name in ("slug", "title"):
            values = [lesson.fields[name] for lesson in LESSONS]
            self.assertCountEqual(values, set(values))

    def test_the_dates_are_in_reading_order(self):
        dates = [lesson.fields["published_at"] for lesson in LESSONS]

        self.assertEqual(dates, sorted(set(dates)))

    def test_every_fence_is_closed_and_says_its_language(self):
        for lesson in LESSONS:
            with self.subTest(lesson.path.name):
                self.assertNotIn("```", lesson.prose)
                self.assertNotIn("", [fence["language"] for fence in FENCE.finditer(lesson.body)])

    def test_links_lead_to_pages(self):
        slugs = {lesson.slug for lesson in LESSONS}

        for lesson in LESSONS:
            with self.subTest(lesson.path.name):
                for link in LINK.findall(lesson.prose):
                    found = resolve(link.partition("?")[0])  # Raises Resolver404.
                    if found.url_name == "post":
                        self.assertIn(found.kwargs["slug"], slugs)

    def test_excerpts_stand_in_the_files_they_name(self):
        for lesson in LESSONS:
            with self.subTest(lesson.path.name):
                for fence in FENCE.finditer(lesson.body):
                    first, _, rest = fence["code"].partition("\n")
                    if fence["language"] != "console" and (quoted := QUOTED_FILE.fullmatch(first)):
                        self.assert_in_this_order(rest, settings.BASE_DIR / quoted["path"])

    def test_the_files_that_posts_name_exist(self):
        for lesson in LESSONS:
            with self.subTest(lesson.path.name):
                for path in NAMED_FILE.findall(lesson.prose):
                    self.assertTrue((settings.BASE_DIR / path).exists(), path)

    def test_the_commands_that_posts_name_exist(self):
        for lesson in LESSONS:
            with self.subTest(lesson.path.name):
                self.assertLessEqual(set(COMMAND.findall(lesson.body)), set(get_commands()))

    def test_the_tests_that_posts_name_exist(self):
        for lesson in LESSONS:
            with self.subTest(lesson.path.name):
                for label, pattern in NAMED_TEST.findall(lesson.body):
                    loader = unittest.TestLoader()
                    loader.testNamePatterns = [f"*{pattern}*"] if pattern else None
                    found = loader.loadTestsFromName(label)
                    self.assertEqual(loader.errors, [])
                    self.assertGreater(found.countTestCases(), 0, f"{label} -k {pattern}")

    def assert_in_this_order(self, excerpt, path):
        """Assert that the parts of `excerpt`, between lines of dots, follow each other there."""
        rest = squeezed(path.read_text())
        for part in filter(None, map(squeezed, LEFT_OUT.split(excerpt))):
            self.assertIn(part, rest)
            rest = rest.partition(part)[2]


class SessionTests(CacheTestCase):
    """What the posts show at the Python prompt. The methods are made below, one per post."""

    def setUp(self):
        super().setUp()
        # A form that is refused, as one post shows, would be a line in the output.
        self.enterContext(
            mock.patch.object(logging.getLogger("django.security.csrf"), "disabled", True)
        )
        # The posts use database 9, too. FLUSHALL, because this Redis is the test run's own.
        redis.Redis.from_url(settings.REDIS_URL).flushall()

    def run_session(self, lesson):
        """Run the post's session, and fail with what doctest has to say."""
        test = doctest.DocTestParser().get_doctest(
            lesson.session(),
            {"__name__": "__main__"},  # As at the prompt.
            lesson.slug,
            str(lesson.path.relative_to(settings.BASE_DIR)),
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


def session_test(lesson):
    """Return a test method that runs the session of `lesson`."""

    def test(self):
        self.run_session(lesson)

    test.__name__ = f"test_the_session_in_{lesson.slug.replace('-', '_')}_runs_as_printed"
    test.__qualname__ = f"{SessionTests.__qualname__}.{test.__name__}"
    return test


for method in (session_test(lesson) for lesson in LESSONS if lesson.session().strip()):
    setattr(SessionTests, method.__name__, method)
