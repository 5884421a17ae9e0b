"""
Show the code: a page's own view and template, with the lines that asked the cache marked.

    /watch/code?path=/archive/&hit=blog/archive.html:25&miss=blog/archive.html:54

What can be seen follows from `path` alone, through the project's URLs. No file can be asked
for: lines in the query string only mark what is shown anyway, or choose which function of
a module that the view's module imports. Nothing but .py and .html files below
WATCH["ROOT"] is ever read, and no settings. Off unless WATCH["SHOW_CODE"] (or DEBUG) says so.
"""

import ast
import inspect
import re
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.template import TemplateDoesNotExist, TemplateSyntaxError
from django.template.loader import get_template
from django.urls import Resolver404, resolve
from django.utils import translation
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from watch.compat import templates_named_in
from watch.conf import config
from watch.source import settings_file, site_line

try:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name
except ImportError:  # Then the code is shown in one colour.
    highlight = None

WORDS = ("hit", "miss", "down")
MAX_ASKED = 60  # lines in a query string
MAX_PATH = 2000
MAX_FILE = 200_000  # bytes

LANGUAGES = {".py": "python", ".html": "html+django"}
# {"blog/archive.html:25": Counter({"hit": 1})}
Asked = dict[str, Counter[str]]

# What a file or a folder may have in its name when visitors must not read it.
PRIVATE = re.compile(r"^\.|setting|secret|credential|password|site-packages|dist-packages", re.I)


@dataclass
class Line:
    """One line of a Listing."""

    number: int
    html: str
    words: list[tuple[str, int]] = field(default_factory=list)  # (what it got, how often)


@dataclass
class Listing:
    """A part of a file."""

    kind: str
    name: str
    lines: list[Line]

    @property
    def marked(self) -> list[Line]:
        """Return the lines that asked the cache."""
        return [line for line in self.lines if line.words]


@require_safe
@never_cache
def code(request: HttpRequest) -> HttpResponse:
    """Show the view and the template of the page at ?path=."""
    path = request.GET.get("path", "")
    view = view_of(path) if config().show_code else None
    listings = listings_of(view, asked_lines(request.GET)) if view else []
    if not listings:
        raise Http404("There is no code to show.")
    answered = request.GET.get("answered")
    context = {
        "path": path,
        "listings": listings,
        "marked": any(listing.marked for listing in listings),
        "answered": answered if answered in ("browser", *config().levels) else "",
        "level": config().title_of(answered or ""),
        "middleware": middleware_line(request.GET),
    }
    return render(request, "watch/code.html", context)


def view_of(path: str) -> Any:
    """Return the function or class behind `path`, without decorators, or None."""
    # Two slashes would make a link to another site of it.
    if len(path) > MAX_PATH or not re.match(r"/(?![/\\])", path):
        return None
    try:
        language = translation.get_language_from_path(path) or translation.get_language()
        with translation.override(language):  # i18n_patterns() knows the active language alone.
            view = inspect.unwrap(resolve(path).func)
    except Resolver404:
        return None
    while isinstance(view, partial):
        view = view.func
    view = getattr(view, "view_class", view)
    return view if hasattr(view, "__code__") or isinstance(view, type) else type(view)


def asked_lines(query: QueryDict) -> Asked:
    """Return {"blog/archive.html:25": Counter({"hit": 1})} of a query string."""
    asked: Asked = defaultdict(Counter)
    for word in WORDS:
        for line in query.getlist(word)[:MAX_ASKED]:
            asked[line][word] += 1
    return asked


def middleware_line(query: QueryDict) -> tuple[str, str, str] | None:
    """
    Return (line, word, code) when a line of the settings asked, or None.

    Of the settings only the line of the page cache's middleware is shown: `code`, or "".
    """
    file, root = settings_file(), config().root
    if file is None or not file.is_relative_to(root):
        return None
    name = re.escape(str(file.relative_to(root)))
    for line, words in asked_lines(query).items():
        if re.fullmatch(rf"{name}(:[0-9]{{1,5}})?", line):
            code = ""
            if line == site_line() and ":" in line:
                lines = file.read_text().splitlines()
                code = lines[int(line.rpartition(":")[2]) - 1].strip()
            return line, next(iter(words)), code
    return None


def own_file(path: str | None) -> Path | None:
    """Return `path` if it is a file of the project that may be shown, or None."""
    if not path:
        return None
    root, file = Path(config().root), Path(path).resolve()  # Where links lead to.
    if not file.is_relative_to(root) or file.suffix not in LANGUAGES or not file.is_file():
        return None
    settings = settings_file()
    if settings is not None and file == settings.resolve():
        return None
    if any(map(PRIVATE.search, file.relative_to(root).parts)) or file.stat().st_size > MAX_FILE:
        return None
    return file


def listings_of(view: Any, asked: Asked) -> list[Listing]:
    """Return the Listings to show, or [] if the view is not code of the project."""
    try:
        file = own_file(inspect.getsourcefile(view))
        lines, start = inspect.getsourcelines(view)
    except (OSError, TypeError):
        return []
    if file is None:
        return []
    listings = [listing("View", file, asked, start, start + len(lines) - 1)]
    listings += templates_of(view, "".join(lines), asked)
    shown = {(entry.name, entry.lines[0].number) for entry in listings}
    for module in imported_files(view, file):
        name = short_name(module)
        for first, last in functions_of(module):
            has_asked = any(f"{name}:{number}" in asked for number in range(first, last + 1))
            if has_asked and (name, first) not in shown:
                listings.append(listing("Asks the cache", module, asked, first, last))
    return listings


def templates_of(view: Any, source: str, asked: Asked) -> list[Listing]:
    """Return the Listings of the templates that the view's source names."""
    own = re.findall(r"""["']([\w./-]+\.html)["']""", source)
    own += filter(None, [getattr(view, "template_name", None)])
    found: dict[str, Path] = {}
    names = list(dict.fromkeys(own))
    for name in names:
        try:
            template = get_template(name)
        except (TemplateDoesNotExist, TemplateSyntaxError):
            continue
        if file := own_file(getattr(template.origin, "name", None)):
            found[name] = file
        # Appended to, while the loop runs: what a template names is looked at too.
        names += [other for other in templates_named_in(template) if other not in names]
    listings = {name: listing("Template", file, asked, name=name) for name, file in found.items()}
    return [entry for name, entry in listings.items() if name in own or entry.marked]


def imported_files(view: Any, file: Path) -> list[Path]:
    """Return the view's file and those of the project's modules that its module imports."""
    module = sys.modules.get(view.__module__)
    files = {file: None}
    for value in list(vars(module).values()) if module else ():
        name = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
        imported = sys.modules.get(name) if isinstance(name, str) else None
        if found := own_file(getattr(imported, "__file__", None)):
            files[found] = None
    return list(files)


def functions_of(file: Path) -> list[tuple[int, int]]:
    """Return (first, last) line of each function or class of a module, decorators included."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [node for node in ast.parse(file.read_bytes()).body if isinstance(node, kinds)]
    return [
        (min(part.lineno for part in [node, *node.decorator_list]), node.end_lineno or node.lineno)
        for node in nodes
    ]


def listing(
    kind: str,
    file: Path,
    asked: Asked,
    first: int = 1,
    last: int | None = None,
    name: str | None = None,
) -> Listing:
    """Return lines `first` to `last` of a file, those in `asked` marked."""
    lines = highlighted(file)[first - 1 : last]
    entry = Listing(
        kind, short_name(file), [Line(first + at, text) for at, text in enumerate(lines)]
    )
    for line in entry.lines:
        words: Counter[str] = Counter()
        # A template's lines are told by its name, not by its path.
        for known_as in {entry.name, name} - {None}:
            words += asked.get(f"{known_as}:{line.number}", Counter())
        if words:
            line.words = list(words.items())
    return entry


def highlighted(file: Path) -> list[SafeString]:
    """Return the lines of a file as HTML."""
    return _highlighted(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=32)  # Some 50 ms per file, and a page may show twenty parts of it.
def _highlighted(file: Path, changed: int) -> list[SafeString]:
    source = file.read_text(encoding="utf-8", errors="replace")
    if highlight is None:
        return [mark_safe(escape(line)) for line in source.splitlines()]  # noqa: S308
    lexer = get_lexer_by_name(LANGUAGES[file.suffix], stripnl=False)
    # Escaped by Pygments, which closes and opens its spans at the end of each line.
    html = highlight(source, lexer, HtmlFormatter(nowrap=True))
    return [mark_safe(line) for line in html.splitlines()]  # noqa: S308


def short_name(file: Path) -> str:
    """Return the path of a file below the project's folder."""
    return file.relative_to(config().root).as_posix()
