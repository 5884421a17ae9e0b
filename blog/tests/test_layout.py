"""The layout of the project: imports run one way, and pages bring nothing from elsewhere."""

import ast
import re

from django.conf import settings
from django.test import SimpleTestCase

BASE = settings.BASE_DIR


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
    "mysite": {"blog", "lab", "resilient_cache", "watch"},
}


class DirectionTests(SimpleTestCase):
    """Arrows run one way: lab to watch, resilient_cache and blog; blog to resilient_cache."""

    def test_each_package_imports_only_what_it_may(self):
        for folder, allowed in MAY_IMPORT.items():
            for path in source_files(BASE / folder, "tests"):
                packages = {module.partition(".")[0] for module in imports_of(path)}
                with self.subTest(path.relative_to(BASE).as_posix()):
                    self.assertLessEqual(packages & set(PACKAGES), {folder, *allowed})

    def test_blog_templates_use_neither_watch_nor_lab(self):
        for path in sorted((BASE / "templates" / "blog").rglob("*.html")):
            with self.subTest(path.name):
                self.assertNotRegex(path.read_text(), r"\{%\s*(load|include).*\b(watch|lab)\b")


class TemplateTests(SimpleTestCase):
    """A strict Content-Security-Policy holds on every page."""

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


class KeyboardTests(SimpleTestCase):
    """A reader without a mouse can scroll what is wider than the screen."""

    def test_every_box_that_may_scroll_can_be_reached_with_the_tab_key(self):
        for path in sorted((BASE / "templates").rglob("*.html")):
            with self.subTest(path.relative_to(BASE).as_posix()):
                text = re.sub(r"\{#.*?#\}", "", path.read_text())
                self.assertNotRegex(text, r"<pre(?![^>]*\stabindex=)")
                self.assertNotRegex(text, r'class="scroll\b[^"]*"(?![^>]*\stabindex=)')
