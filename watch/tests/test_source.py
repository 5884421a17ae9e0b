"""The line that asked: of a template, a view, the settings, or any other code."""

import inspect
import runpy
import tempfile
from pathlib import Path
from types import SimpleNamespace

from django.conf import settings
from django.core.cache import cache
from django.test import AsyncClient
from django.views.decorators.http import require_safe

from watch.event import recording
from watch.source import line_of_view
from watch.tests import prices, views
from watch.tests import settings as settings_module
from watch.tests.case import WatchTestCase


def line_of(function, text):
    """Return file:line of the line of `function` that has `text`."""
    function = inspect.unwrap(function)
    lines, start = inspect.getsourcelines(function)
    number = next(number for number, line in enumerate(lines, start) if text in line)
    return f"{inspect.getfile(function).rpartition('/')[2]}:{number}"


# Not cached: cache_page(60) stands in urls.py.
@require_safe
# cache_page(60) stands in urls.py.
def talks_of_it(request):
    """'cache_page(60)' stands in urls.py."""


class SourceTests(WatchTestCase):
    """Frames of libraries and of the cache itself are passed over."""

    def sources(self, response, level):
        return {op["source"] for op in self.ops_of(response) if op["level"] == level}

    def test_a_line_of_code(self):
        with recording() as event:
            cache.get("a")  # here

        here = line_of(SourceTests.test_a_line_of_code, "# here")
        self.assertEqual([op.source for op in event.ops], [here])

    def test_a_view(self):
        response = self.client.get("/low-level/")

        self.assertEqual(
            self.sources(response, "low-level"), {line_of(views.low_level, "get_or_set")}
        )

    def test_a_template_fragment(self):
        response = self.client.get("/fragments/")

        self.assertEqual(
            self.sources(response, "fragment"), {"fragments.html:6", "fragments.html:12"}
        )
        self.assertEqual(self.sources(response, "low-level"), {"fragments.html:9"})

    def test_a_module_that_a_view_uses(self):
        response = self.client.get("/prices/")

        lines = {line_of(prices.several, "get_many"), line_of(prices.several, "set_many")}
        self.assertEqual(self.sources(response, "low-level"), lines)

    def test_a_page_of_a_view_is_asked_for_by_the_line_of_cache_page(self):
        for number in range(2):
            with self.subTest(number):
                response = self.client.get("/view/")

                here = line_of(views.cached_by_view, "@cache_page")
                self.assertIn(f"at={here}", self.metric(response, "view") or f"at={here}")
                self.assertLessEqual(self.sources(response, "view"), {here})

    def test_a_page_of_the_site_level_is_asked_for_by_the_line_of_the_settings(self):
        for path in ("/", "/view/", "/view/?again"):
            [source] = self.sources(self.client.get(path), "site")
            file, _, number = source.partition(":")
            line = Path(settings_module.__file__).read_text().splitlines()[int(number) - 1]
            self.assertEqual(file, "settings.py")
            self.assertIn("FetchFromCacheMiddleware", line)

    def test_where_one_alias_serves_both_the_decorator_is_told(self):
        self.change(CACHE_MIDDLEWARE_ALIAS="view", MIDDLEWARE=settings_module.MIDDLEWARE[:1])

        response = self.client.get("/view/")

        self.assertEqual(
            self.sources(response, "view"), {line_of(views.cached_by_view, "@cache_page")}
        )

    def test_a_page_that_other_code_looks_for_is_told_by_its_line(self):
        with recording() as event:
            cache.get("page:key")  # here

        asked = SourceTests.test_a_page_that_other_code_looks_for_is_told_by_its_line
        self.assertEqual([op.source for op in event.ops], [line_of(asked, "# here")])

    def test_a_package_in_the_projects_folder_is_not_the_projects_code(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        package = Path(folder.name, "package")
        package.mkdir()
        (package / "pyproject.toml").touch()
        (package / "module.py").write_text("def ask(cache):\n    cache.get('a')\n")
        Path(folder.name, "own.py").write_text("def ask(cache, module):\n    module.ask(cache)\n")
        self.change(WATCH=settings.WATCH | {"ROOT": folder.name})

        with recording() as event:
            own = runpy.run_path(f"{folder.name}/own.py")
            module = SimpleNamespace(**runpy.run_path(f"{package}/module.py"))
            own["ask"](cache, module)

        self.assertEqual([op.source for op in event.ops], ["own.py:2"])

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
    """The line that the headers name for a whole page."""

    def test_a_view_is_named_by_its_cache_page(self):
        self.assertEqual(
            line_of_view(views.cached_by_view), line_of(views.cached_by_view, "@cache_page")
        )

    def test_a_view_without_cache_page_is_named_by_its_def_and_not_by_another_decorator(self):
        self.assertEqual(line_of_view(views.never), line_of(views.never, "def never("))

    def test_a_comment_and_a_docstring_that_name_cache_page_are_passed_over(self):
        self.assertEqual(line_of_view(talks_of_it), line_of(talks_of_it, "def talks_of_it("))

    def test_a_class_based_view(self):
        self.assertRegex(line_of_view(views.ClassBased.as_view()), r"^views\.py:\d+$")

    def test_something_without_source(self):
        self.assertEqual(line_of_view(len), "")
