"""/watch/code: a page's own view and template, and nothing else."""

import os
import re
import tempfile
from pathlib import Path
from unittest import mock

from django.conf import settings
from django.test import Client, override_settings
from django.urls import resolve, reverse
from django.utils.html import strip_tags

from blog.tests import CacheTestCase
from watch.code import _highlighted, own_file
from watch.conf import config

SHOWN = settings.WATCH | {"SHOW_CODE": True}


def text_of(response):
    """Return what is between the tags."""
    return re.sub(r"&#x27;", "'", strip_tags(response.content.decode()))


@override_settings(WATCH=SHOWN)
class CodeTestCase(CacheTestCase):
    url = "/watch/code"

    def code(self, path, **query):
        response = self.client.get(self.url, {"path": path, **query})
        self.assertEqual(response.status_code, 200, path)
        return response

    def names(self, response):
        return re.findall(r"<h2[^>]*>(\w[\w ]*) <code>([^<]*)</code>", response.content.decode())

    def asked(self, response):
        """Return the marked lines: (number, code with what it got)."""
        lines = re.findall(
            r'watch-asked" data-line="(\d+)">(.*?)\n</span>', response.content.decode(), re.DOTALL
        )
        return [(int(number), " ".join(strip_tags(line).split())) for number, line in lines]

    def line_with(self, file, text):
        """Return the number of the first line of a file that has `text`."""
        lines = Path(settings.BASE_DIR, file).read_text().splitlines()
        return next(number for number, line in enumerate(lines, 1) if text in line)


class ShownTests(CodeTestCase):
    """The code behind a page of this site, as it is on disk."""

    def test_the_address(self):
        self.assertEqual(reverse("watch:code"), self.url)

    def test_a_page_shows_its_view_and_its_template(self):
        response = self.code("/archive/")

        self.assertEqual(
            self.names(response),
            [("View", "blog/views.py"), ("Template", "templates/blog/archive.html")],
        )
        self.assertIn("def archive(request, year=None, month=None):", text_of(response))

    def test_of_the_module_only_that_view(self):
        self.assertNotIn("def search(", text_of(self.code("/archive/")))

    def test_a_view_that_is_a_class(self):
        self.assertEqual(self.names(self.code("/feed/")), [("View", "blog/feeds.py")])

    def test_the_code_is_highlighted(self):
        self.assertContains(self.code("/about/"), '<span class="k">def</span>')

    def test_lines_have_their_numbers(self):
        number = self.line_with("blog/views.py", "def about(request):")

        self.assertContains(self.code("/about/"), f'data-line="{number}"')

    def test_markup_in_a_template_is_shown_as_text(self):
        response = self.code("/search/")

        self.assertNotContains(response, '<form class="search-form')
        self.assertContains(response, "&lt;")

    def test_so_it_is_where_pygments_is_not_installed(self):
        _highlighted.cache_clear()
        self.addCleanup(_highlighted.cache_clear)

        with mock.patch("watch.code.highlight", None):
            response = self.code("/search/")

        self.assertNotContains(response, '<span class="k">def</span>')
        self.assertNotContains(response, '<form class="search-form')
        self.assertContains(response, "&lt;form class=")

    def test_nobody_keeps_it(self):
        self.assertIn("no-store", self.code("/about/").headers["Cache-Control"])

    def test_it_can_only_be_read(self):
        self.assertEqual(self.client.post(self.url).status_code, 405)


class MarkTests(CodeTestCase):
    """Lines that asked the cache are marked with what they got."""

    def test_a_fragment(self):
        number = self.line_with("templates/blog/archive.html", "archive_months %}")

        response = self.code("/archive/", hit=f"blog/archive.html:{number}")

        self.assertEqual(self.asked(response), [(number, "{% cache 3600 archive_months %} hit")])

    def test_a_line_that_asked_often(self):
        number = self.line_with("templates/blog/archive.html", "archive_months %}")
        line = f"blog/archive.html:{number}"

        [(_, text)] = self.asked(self.code("/archive/", hit=[line, line], miss=line))

        self.assertTrue(text.endswith("hit ×2 miss"), text)

    def test_of_the_decorators_of_a_view_the_one_that_caches(self):
        number = self.line_with("blog/views.py", "@cache_page") - 3

        response = self.code("/posts/keys/", hit=f"blog/views.py:{number}")

        [(_, text)] = self.asked(response)
        self.assertRegex(text, r"^@cache_page\(.* hit$")

    def test_a_function_of_a_module_that_the_view_uses(self):
        number = self.line_with("blog/search.py", "= caching.version(caching.SEARCH_GENERATION")

        response = self.code("/search/", miss=f"blog/search.py:{number}")

        self.assertIn(("Asks the cache", "blog/search.py"), self.names(response))
        self.assertIn("def find(", text_of(response))
        self.assertNotIn("def count_up(", text_of(response))
        self.assertEqual([at for at, _ in self.asked(response)], [number])

    def test_a_line_of_the_settings_is_named_and_not_shown(self):
        number = self.line_with("mysite/settings.py", "SECRET_KEY =")

        response = self.code("/about/", hit=f"mysite/settings.py:{number}", answered="site")

        self.assertContains(response, f"mysite/settings.py:{number}")
        self.assertNotContains(response, "for-your-laptop-only")
        self.assertNotContains(response, "SECRET_KEY")
        self.assertContains(response, "The site level answered")

    def test_what_is_no_line_of_this_page_marks_nothing(self):
        lines = [
            *("blog/admin.py:1", "manage.py:3", ".env:1", "../../etc/passwd:1", "/etc/passwd:1"),
            *("blog/archive.html:0", "blog/archive.html:99999", "blog/archive.html", ":", "é\0:1"),
            "<script>alert(1)</script>:1",
        ]

        response = self.code("/archive/", hit=lines, answered="<script>")

        self.assertEqual(self.asked(response), [])
        self.assertEqual(len(self.names(response)), 2)
        self.assertNotContains(response, "level answered")
        self.assertNotContains(response, "alert(1)")
        self.assertNotContains(response, "passwd")


class RefusedTests(CodeTestCase):
    """No file can be asked for, and what is not the project's own is 404."""

    def assertRefused(self, **query):
        with self.subTest(query):
            self.assertEqual(self.client.get(self.url, query).status_code, 404)

    def test_what_is_no_page(self):
        self.assertRefused()
        for path in (
            *("", "archive", "/nowhere/", "//example.com/", "/\\example.com/", "\\", "/\0"),
            *("javascript:alert(1)", "http://testserver/archive/", "/archive/?page=2", "/é\n"),
            *("/" * 5000, "/archive/" * 1000, "/posts/" + "a" * 5000 + "/"),
        ):
            self.assertRefused(path=path)

    def test_files(self):
        for path in (
            *("/mysite/settings.py", "mysite/settings.py", "/manage.py", "/.env", "/db.sqlite3"),
            *("/../mysite/settings.py", "/archive/../../mysite/settings.py", "/etc/passwd"),
            *("/static/../mysite/settings.py", "/%2e%2e/mysite/settings.py", "file:///etc/passwd"),
        ):
            self.assertRefused(path=path)

    def test_pages_of_somebody_elses_code(self):
        for path in ("/admin/", "/admin/login/", "/sitemap.xml"):
            self.assertRefused(path=path)

    def test_everything_where_it_is_switched_off(self):
        for off in (False, None):  # By default as DEBUG says, which tests have off.
            with override_settings(WATCH=SHOWN | {"SHOW_CODE": off}):
                self.assertRefused(path="/archive/")
                self.assertContains(self.client.get("/archive/"), 'data-code=""')

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

            with override_settings(WATCH=SHOWN | {"ROOT": folder}):
                shown = [name for name in names if own_file(root / name)]

        self.assertEqual(shown, ["views.py", "page.html"])

    def test_the_settings_module_whatever_its_name(self):
        file = Path(config().root, "blog/views.py")
        self.assertEqual(own_file(file), file)

        with mock.patch.dict(os.environ, {"DJANGO_SETTINGS_MODULE": "blog.views"}):
            self.assertIsNone(own_file(file))

    def test_what_a_browser_takes_for_another_site_even_if_a_view_takes_any_path(self):
        match = resolve("/about/")
        with mock.patch("watch.code.resolve", return_value=match):
            self.assertEqual(self.code("/anything").status_code, 200)
            for path in ("//example.com/", "/\\example.com/", "example.com"):
                self.assertRefused(path=path)


class TagsTests(CodeTestCase):
    """{{ xray }} in the base template."""

    def test_every_page_has_the_script(self):
        self.make_post("keys")
        for path in ("/", "/posts/keys/", "/archive/", "/search/", "/about/"):
            self.assertContains(self.client.get(path), "watch/xray")

    def test_cached_pages_are_the_same_with_the_watch_on_or_off(self):
        plain = {
            alias: cache | {"OPTIONS": cache["OPTIONS"] | {"REDIS_CLIENT_CLASS": "redis.Redis"}}
            for alias, cache in settings.CACHES.items()
        }
        without = [item for item in settings.MIDDLEWARE if not item.startswith("watch.")]
        visitor = Client(headers={"host": "testserver"})
        on = visitor.get("/about/").content
        self.empty_caches()

        with override_settings(CACHES=plain, MIDDLEWARE=without):
            off = Client(headers={"host": "testserver"}).get("/about/").content

        self.assertEqual(on, off)
