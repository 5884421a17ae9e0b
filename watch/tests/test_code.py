"""/watch/code: a page's own view and template, and nothing else."""

import re
import tempfile
from pathlib import Path

from django.conf import settings
from django.test import Client, override_settings
from django.urls import reverse
from django.utils.html import strip_tags

from watch.code import own_file
from watch.tests.case import WatchTestCase

FOLDER = Path(__file__).parent


class CodeTestCase(WatchTestCase):
    url = "/watch/code"
    watch = {"SHOW_CODE": True}

    def code(self, path, **query):
        response = self.client.get(self.url, {"path": path, **query})
        self.assertEqual(response.status_code, 200, path)
        return response

    def names(self, response):
        return re.findall(r"<h2[^>]*>(\w[\w ]*) <code>([^<]*)</code>", response.content.decode())

    def text_of(self, response):
        """Return what is between the tags."""
        return re.sub(r"&#x27;", "'", strip_tags(response.content.decode()))

    def asked(self, response):
        """Return the marked lines: (number, code with what it got)."""
        lines = re.findall(
            r'watch-asked" data-line="(\d+)">(.*?)\n</span>', response.content.decode(), re.DOTALL
        )
        return [(int(number), " ".join(strip_tags(line).split())) for number, line in lines]

    def line_with(self, file, text):
        """Return the number of the first line of a file that has `text`."""
        lines = (FOLDER / file).read_text().splitlines()
        return next(number for number, line in enumerate(lines, 1) if text in line)


class ShownTests(CodeTestCase):
    """The code behind a page of the site, as it is on disk."""

    def test_the_address(self):
        self.assertEqual(reverse("watch:code"), self.url)

    def test_a_page_shows_its_view_and_its_template(self):
        response = self.code("/fragments/")

        self.assertEqual(
            self.names(response),
            [("View", "views.py"), ("Template", "templates/fragments.html")],
        )
        self.assertIn("def fragments(request):", self.text_of(response))

    def test_it_shows_no_other_view_of_the_module(self):
        self.assertNotIn("def low_level(", self.text_of(self.code("/fragments/")))

    def test_a_view_that_is_a_class(self):
        self.assertEqual(self.names(self.code("/class/")), [("View", "views.py")])

    def test_lines_have_their_numbers(self):
        number = self.line_with("views.py", "def about(request):")

        self.assertContains(self.code("/about/"), f'data-line="{number}"')

    def test_markup_in_a_template_is_shown_as_text(self):
        response = self.code("/form/")

        self.assertNotContains(response, "<form method")
        self.assertContains(response, "&lt;")

    def test_no_two_landmarks_have_the_same_name(self):
        lines = [self.line_with("prices.py", text) for text in ("def several", "def unrelated")]

        response = self.code("/prices/", hit=[f"prices.py:{line}" for line in lines])

        self.assertEqual(self.names(response).count(("Asks the cache", "prices.py")), 2)
        self.assertNotRegex(response.text, r'role="region"|<section[^>]* aria-label')

    def test_it_is_not_cached(self):
        self.assertIn("no-store", self.code("/about/").headers["Cache-Control"])

    def test_it_can_only_be_read(self):
        self.assertEqual(self.client.post(self.url).status_code, 405)


class MarkTests(CodeTestCase):
    """Lines that asked the cache are marked with what they got."""

    def test_a_fragment(self):
        number = self.line_with("templates/fragments.html", "cache 60 months")

        response = self.code("/fragments/", hit=f"fragments.html:{number}")

        self.assertEqual(self.asked(response), [(number, "{% cache 60 months %} hit")])

    def test_a_line_that_asked_often(self):
        line = f"fragments.html:{self.line_with('templates/fragments.html', 'cache 60 months')}"

        [(_, text)] = self.asked(self.code("/fragments/", hit=[line, line], miss=line))

        self.assertTrue(text.endswith("hit ×2 miss"), text)

    def test_the_line_that_the_header_names_for_a_view_is_the_one_with_cache_page(self):
        at = self.metric(self.client.get("/view/"), "view").rpartition("at=")[2]

        response = self.code("/view/", miss=at)

        [(_, text)] = self.asked(response)
        self.assertRegex(text, r"^@cache_page\(.* miss$")

    def test_a_function_of_a_module_that_the_view_uses(self):
        number = self.line_with("prices.py", "cache.get_many")

        response = self.code("/prices/", miss=f"prices.py:{number}")

        self.assertIn(("Asks the cache", "prices.py"), self.names(response))
        self.assertNotIn("def unrelated(", self.text_of(response))
        self.assertEqual([at for at, _ in self.asked(response)], [number])

    def test_of_the_settings_the_line_of_the_page_cache_is_shown(self):
        at = self.metric(self.client.get("/"), "site").rpartition("at=")[2]

        response = self.code("/", hit=at, answered="site")

        self.assertContains(response, at)
        self.assertContains(response, "FetchFromCacheMiddleware")
        self.assertContains(response, "The level “Whole site” answered")

    def test_no_other_line_of_the_settings_is_shown(self):
        number = self.line_with("settings.py", "SECRET_KEY =")

        response = self.code("/", hit=f"settings.py:{number}")

        self.assertContains(response, f"settings.py:{number}")
        self.assertNotContains(response, "only for tests")

    def test_what_is_not_a_line_of_this_page_marks_nothing(self):
        lines = [
            *("prices.py:1", "manage.py:3", ".env:1", "../../etc/passwd:1", "/etc/passwd:1"),
            *("fragments.html:0", "fragments.html:99999", "fragments.html", ":", "é\0:1"),
            "<script>alert(1)</script>:1",
        ]

        response = self.code("/fragments/", hit=lines, answered="<script>")

        self.assertEqual(self.asked(response), [])
        self.assertEqual(len(self.names(response)), 2)
        self.assertNotContains(response, "answered with its copy")
        self.assertNotContains(response, "alert(1)")
        self.assertNotContains(response, "passwd")


class RefusedTests(CodeTestCase):
    """No file can be asked for, and what is not the project's own is 404."""

    def assertRefused(self, **query):
        with self.subTest(query):
            self.assertEqual(self.client.get(self.url, query).status_code, 404)

    def test_what_is_not_a_page(self):
        self.assertRefused()
        for path in (
            *("", "fragments", "/nowhere/", "//example.com/", "/\\example.com/", "\\", "/\0"),
            *("javascript:alert(1)", "http://testserver/about/", "/about/?page=2", "/é\n"),
            *("/" * 5000, "/about/" * 1000),
        ):
            self.assertRefused(path=path)

    def test_files(self):
        for path in (
            *("/settings.py", "settings.py", "/manage.py", "/.env", "/db.sqlite3", "/etc/passwd"),
            *("/../settings.py", "/about/../settings.py", "/static/../settings.py"),
            *("/%2e%2e/settings.py", "file:///etc/passwd"),
        ):
            self.assertRefused(path=path)

    def test_pages_of_other_packages(self):
        self.assertRefused(path="/watch/")

    def test_everything_where_it_is_switched_off(self):
        for off in (False, None):  # By default as DEBUG says, which tests have off.
            with override_settings(WATCH=settings.WATCH | {"SHOW_CODE": off}):
                self.assertRefused(path="/about/")
                self.assertContains(self.client.get("/form/"), 'data-code=""')

    def test_private_files_below_the_projects_folder(self):
        with tempfile.TemporaryDirectory() as outside, tempfile.TemporaryDirectory() as folder:
            Path(outside, "module.py").write_text("")
            root = Path(folder).resolve()
            names = ["settings.py", "local_settings.py", "settings/base.py", ".hidden.py"]
            names += [".git/hook.py", "secrets.py", "db.sqlite3", "key.pem", ".env", "notes.txt"]
            names += ["venv/lib/site-packages/module.py", "big.py", "views.py", "page.html"]
            for name in names:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text("x" * 300_000 if name == "big.py" else "")
            (root / "link.py").symlink_to(Path(outside, "module.py"))
            (root / "innocent.py").symlink_to(root / "settings.py")
            names += ["link.py", "innocent.py", "missing.py", "../views.py", "."]

            with override_settings(WATCH=settings.WATCH | {"ROOT": folder}):
                shown = [name for name in names if own_file(root / name)]

        self.assertEqual(shown, ["views.py", "page.html"])


class TagsTests(CodeTestCase):
    """{{ xray }} in the base template."""

    def test_a_page_has_the_script(self):
        self.assertContains(self.client.get("/"), "watch/xray.js")

    def test_cached_pages_are_the_same_with_the_watch_on_or_off(self):
        on = self.client.get("/about/").content
        self.forget()
        plain = {
            alias: cache | {"OPTIONS": {"IGNORE_EXCEPTIONS": True}}
            for alias, cache in settings.CACHES.items()
        }

        with override_settings(CACHES=plain, MIDDLEWARE=settings.MIDDLEWARE[1:]):
            response = Client().get("/about/")

        self.assertNotIn("Server-Timing", response.headers)
        self.assertEqual(on, response.content)
