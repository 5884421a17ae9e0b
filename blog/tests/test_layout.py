"""The shape of the project: small, one way, and nothing made up."""

import ast
import re

from django.conf import settings
from django.test import SimpleTestCase

BASE = settings.BASE_DIR
BLOG = BASE / "blog"


def source_files(folder, *without):
    """Return the Python files below `folder` that are in none of the folders `without`."""
    return [
        path
        for path in sorted(folder.rglob("*.py"))
        if not {*without, "__pycache__"} & set(path.relative_to(folder).parts)
    ]


def lines_of(path):
    return len(path.read_text().splitlines())


def imports_of(path):
    """Return the modules that the file imports, at any depth of it."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


class DirectionTests(SimpleTestCase):
    """Arrows run one way: lab to watch, lab to blog."""

    def importers(self, folder, *forbidden, without=()):
        return {
            path.relative_to(BASE).as_posix(): module
            for path in source_files(BASE / folder, *without)
            for module in imports_of(path)
            if module.partition(".")[0] in forbidden
        }

    def test_blog_imports_neither_watch_nor_lab(self):
        self.assertEqual(self.importers("blog", "watch", "lab"), {})

    def test_watch_imports_neither_blog_nor_lab(self):
        # Its tests need something to watch.
        self.assertEqual(self.importers("watch", "blog", "lab", without=["tests"]), {})

    def test_the_caches_import_none_of_the_apps(self):
        self.assertEqual(self.importers("mysite/caches", "blog", "watch", "lab"), {})

    def test_blog_templates_use_neither_watch_nor_lab(self):
        for path in sorted((BASE / "templates" / "blog").rglob("*.html")):
            with self.subTest(path.name):
                self.assertNotRegex(path.read_text(), r"\{%\s*(load|include).*\b(watch|lab)\b")

    def test_there_are_no_utils(self):
        for name in ("utils", "helpers", "misc", "common"):
            with self.subTest(name):
                self.assertEqual(list(BASE.glob(f"[bmwl]*/**/{name}.py")), [])


class SizeTests(SimpleTestCase):
    """Small stays small: who reads it top to bottom has had the tutorial."""

    def test_the_views_fit_on_160_lines(self):
        self.assertLessEqual(lines_of(BLOG / "views.py"), 160)

    def test_the_blog_without_tests_content_and_migrations_is_under_900_lines(self):
        files = source_files(BLOG, "tests", "content", "migrations")

        self.assertIn(BLOG / "views.py", files)
        self.assertLess(sum(map(lines_of, files)), 900)

    def test_the_views_stand_in_the_order_of_the_levels(self):
        tree = ast.parse((BLOG / "views.py").read_text())
        views = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]

        levels = ["home", "tag", "about", "post", "archive", "search"]
        self.assertEqual([name for name in views if name in levels], levels)

    def test_every_view_explains_itself_and_links_the_documentation(self):
        tree = ast.parse((BLOG / "views.py").read_text())
        docstrings = {
            node.name: ast.get_docstring(node) or ""
            for node in tree.body
            if isinstance(node, ast.FunctionDef)
        }

        for name in ("home", "post", "archive", "search"):
            with self.subTest(name):
                self.assertIn("https://docs.djangoproject.com/en/5.2/", docstrings[name])
                self.assertIn("Try it:", docstrings[name])


class HonestyTests(SimpleTestCase):
    """What is cached is really costly."""

    def test_nothing_sleeps_to_look_slow(self):
        # mysite and watch have threads that wait for something; no page does.
        for folder in ("blog", "lab"):
            for path in source_files(BASE / folder, "content"):
                tree = ast.parse(path.read_text())
                names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
                names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
                names |= {name.rpartition(".")[2] for name in imports_of(path) if name}
                with self.subTest(path.relative_to(BASE).as_posix()):
                    self.assertNotIn("sleep", names)

    def test_templates_have_no_inline_script_or_style(self):
        templates = sorted((BASE / "templates").rglob("*.html"))
        self.assertGreater(len(templates), 5)

        for path in templates:
            with self.subTest(path.relative_to(BASE).as_posix()):
                text = path.read_text()
                self.assertNotRegex(text, r"(?i)<style|\sstyle=|\son[a-z]+=|javascript:")
                self.assertNotRegex(text, r"(?i)<script(?![^>]*\ssrc=)")

    def test_nothing_is_loaded_from_elsewhere(self):
        pattern = re.compile(r"""(?i)(?:src=["']?|@import\s+|url\(["']?)(?:https?:)?//""")
        for folder in ("templates", "static"):
            for path in sorted((BASE / folder).rglob("*")):
                if path.suffix in (".html", ".css", ".js"):
                    with self.subTest(path.relative_to(BASE).as_posix()):
                        self.assertNotRegex(path.read_text(), pattern)

    def test_fragment_names_stand_without_quotes(self):
        # {% cache 60 "name" %} has the quotes in its key, and deleting `name` does nothing.
        for path in sorted((BASE / "templates").rglob("*.html")):
            with self.subTest(path.relative_to(BASE).as_posix()):
                self.assertNotRegex(path.read_text(), r"\{%\s*cache\s+\S+\s+[\"']")
