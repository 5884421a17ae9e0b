"""The line that asked: of a template, a view, the settings, or any other code."""

import inspect

from django.conf import settings
from django.core.cache import cache
from django.test import AsyncClient

from watch.event import recording
from watch.source import line_of_view
from watch.tests import WatchTestCase, guard, views


def line_of(function, text):
    """Return file:line of the line of `function` that has `text`."""
    function = inspect.unwrap(function)
    lines, start = inspect.getsourcelines(function)
    number = next(number for number, line in enumerate(lines, start) if text in line)
    return f"watch/tests/{inspect.getfile(function).rpartition('/')[2]}:{number}"


class SourceTests(WatchTestCase):
    """Frames of libraries and of the cache itself are passed over."""

    cache_options = {"CLIENT_CLASS": "watch.tests.plumbing.PlumbingClient"}

    def sources(self, response, level):
        return {op["source"] for op in self.ops_of(response) if op["level"] == level}

    def test_a_line_of_code(self):
        with recording() as event:
            cache.get("a")  # here

        here = line_of(SourceTests.test_a_line_of_code, "# here")
        self.assertEqual([op.source for op in event.ops], [here])

    def test_what_a_client_of_the_project_is_made_with_asks_nothing_itself(self):
        with recording() as event:
            guard.ask("a")  # here

        asked = SourceTests.test_what_a_client_of_the_project_is_made_with_asks_nothing_itself
        self.assertEqual([op.source for op in event.ops], [line_of(asked, "# here")])

    def test_a_view(self):
        response = self.client.get("/low-level/")

        self.assertEqual(
            self.sources(response, "low-level"), {line_of(views.low_level, "get_or_set")}
        )

    def test_a_template_fragment(self):
        response = self.client.get("/fragments/")

        self.assertEqual(self.sources(response, "fragment"), {"fragments.html:2"})

    def test_cache_page_is_asked_by_the_view_that_it_decorates(self):
        response = self.client.get("/view/")

        here = line_of(views.kept_by_view, "@cache_page")
        self.assertEqual(self.sources(response, "view"), {here})

    def test_the_site_level_is_asked_by_the_line_of_the_settings(self):
        for source in self.sources(self.client.get("/"), "site"):
            file, _, number = source.partition(":")
            if not number:
                self.skipTest("This project's settings don't have Django's cache middleware.")
            line = (settings.BASE_DIR / file).read_text().splitlines()[int(number) - 1]
            self.assertRegex(line, "django.middleware.cache.(Update|FetchFrom)CacheMiddleware")

    def test_levels_that_are_asked_in_the_same_way_are_told_apart_each_time(self):
        here = line_of(views.kept_by_view, "@cache_page")
        for number in range(3):
            with self.subTest(number):
                response = self.client.get(f"/view/?{number}")

                self.assertEqual(self.sources(response, "view"), {here})
                self.assertNotIn(here, self.sources(response, "site"))

    def test_who_asks_for_a_page_without_the_middleware_is_told_by_its_line(self):
        for _ in range(2):
            self.client.get("/view/")

        with recording() as event:
            cache.get("views.decorators.cache.cache_page.key")  # here

        asked = SourceTests.test_who_asks_for_a_page_without_the_middleware_is_told_by_its_line
        self.assertEqual([op.source for op in event.ops], [line_of(asked, "# here")])

    def test_a_pipeline(self):
        with recording() as event:
            cache.set_many({"a": 1, "b": 2})  # here

        here = line_of(SourceTests.test_a_pipeline, "# here")
        self.assertEqual({op.source for op in event.ops}, {here})

    def test_a_streaming_body(self):
        response = self.client.get("/stream/")
        response.getvalue()
        response.close()

        self.assertEqual(self.sources(response, "low-level"), {line_of(views.stream, "get_or_set")})

    async def test_an_async_view(self):
        response = await AsyncClient().get("/async/")

        self.assertIn(line_of(views.asynchronous, "aget"), response.headers["Server-Timing"])


class LineOfViewTests(WatchTestCase):
    """Where a view begins, for showing its code."""

    def test_a_function_begins_with_its_decorators(self):
        self.assertEqual(line_of_view(views.never), line_of(views.never, "@never_cache"))

    def test_a_class_based_view(self):
        self.assertRegex(line_of_view(views.ClassBased.as_view()), r"^watch/tests/views\.py:\d+$")

    def test_something_without_source(self):
        self.assertEqual(line_of_view(len), "")
