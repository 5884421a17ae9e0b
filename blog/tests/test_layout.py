"""The layout of the project: imports run one way, and the lesson explains itself."""

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


def imports_of(path):
    """Return the modules that the file imports, at any depth of it."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


# What each package may import of this project, its tests aside.
PACKAGES = ("blog", "lab", "mysite", "resilient_cache", "tools", "watch")
MAY_IMPORT = {
    "blog": {"resilient_cache"},
    "resilient_cache": set(),
    "watch": set(),
    "lab": {"blog", "mysite", "resilient_cache", "watch"},
}


class DirectionTests(SimpleTestCase):
    """Arrows run one way: lab to watch, resilient_cache and blog; blog to resilient_cache."""

    def imports(self, folder):
        """Return {file: the module of this project that it imports} of a folder, tests aside."""
        return {
            (path.relative_to(BASE).as_posix(), module)
            for path in source_files(BASE / folder, "tests")
            for module in imports_of(path)
            if module.partition(".")[0] in PACKAGES
        }

    def test_each_package_imports_only_what_it_may(self):
        for folder, allowed in MAY_IMPORT.items():
            for path, module in self.imports(folder):
                with self.subTest(path, imports=module):
                    self.assertIn(module.partition(".")[0], {folder, *allowed})

    def test_the_blog_uses_four_names_of_resilient_cache_in_python(self):
        used = {
            module for _, module in self.imports("blog") if module.startswith("resilient_cache")
        }

        self.assertLessEqual(
            used - {"resilient_cache.groups", "resilient_cache.pages"},
            {
                "resilient_cache.groups.invalidate_on_commit",
                "resilient_cache.groups.version",
                "resilient_cache.pages.cache_page",
                "resilient_cache.pages.never_cache",
            },
        )

    def test_nothing_imports_tools(self):
        for folder in PACKAGES:
            if folder != "tools":
                names = {module for _, module in self.imports(folder)}
                with self.subTest(folder):
                    self.assertEqual({name for name in names if name.startswith("tools")}, set())

    def test_blog_templates_use_neither_watch_nor_lab(self):
        for path in sorted((BASE / "templates" / "blog").rglob("*.html")):
            with self.subTest(path.name):
                self.assertNotRegex(path.read_text(), r"\{%\s*(load|include).*\b(watch|lab)\b")

    def test_there_are_no_utils(self):
        for name in ("utils", "helpers", "misc", "common"):
            for folder in PACKAGES:
                with self.subTest(name, folder=folder):
                    self.assertEqual(list((BASE / folder).glob(f"**/{name}.py")), [])


class LessonTests(SimpleTestCase):
    """The views are read from top to bottom as a tutorial."""

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
    """What is cached is really expensive."""

    def test_nothing_sleeps_to_look_slow(self):
        # mysite and watch have threads that wait for something. No page waits.
        for folder in ("blog", "lab"):
            for path in source_files(BASE / folder, "bench"):  # It waits for servers.
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
        # {% cache 60 "name" %} has the quotes in its key.
        for path in sorted((BASE / "templates").rglob("*.html")):
            with self.subTest(path.relative_to(BASE).as_posix()):
                self.assertNotRegex(path.read_text(), r"\{%\s*cache\s+\S+\s+[\"']")
