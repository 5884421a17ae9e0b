"""
Which line asked the cache: of a template, a view, the settings, or any of your code.

For a whole page it follows from the request: the line of `@cache_page` above its view, or for
the site level the line of MIDDLEWARE. For anything else the stack is walked upwards from the
command. It leads through redis-py and django-redis to the method of the cache backend that was
called. The first line of the project above that is the answer, or the {% cache %} tag.
"""

import inspect
import os
import re
import sys
from functools import cache, lru_cache, partial
from pathlib import Path
from types import FrameType
from typing import Any

import asgiref.sync
import django.core.cache.backends.base
from django.conf import ENVIRONMENT_VARIABLE, settings
from django.core.cache import caches
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.middleware.cache import FetchFromCacheMiddleware
from django.utils.module_loading import import_string

from watch.compat import template_line
from watch.conf import config
from watch.event import PAGE, VARY, Event

# What the frames of a file are. A file of the project has its short name instead.
LIBRARY, BACKEND, ASYNC, END = (object() for _ in range(4))

OWN_FOLDER = Path(__file__).parent

# A call, such as @cache_page(60), and not a comment or a text that names it.
CACHE_PAGE = re.compile(r"""[^#"']*cache_page\s*\(""")
DEFINITION = re.compile(r"\s*(async def|def|class)\b")

# Path of a file, as code objects have it: one of the above. By path, because Python hashes
# the whole content of a code object each time it is looked up.
_files: dict[str, Any] = {}


def line_of_page(event: Event, level: str) -> str:
    """Return the line because of which this level is asked for the page, or "" if unknown."""
    if event.request is None:
        return ""
    match = event.request.resolver_match
    if level != config().site:
        return line_of_view(match.func) if match else ""
    for op in event.ops:
        if op.level == level and op.kind in (PAGE, VARY):
            return op.source
    # One alias may serve both, the middleware and the decorator.
    return (match and cache_page_line(match.func)) or site_line()


def line_that_asked(event: Event, depth: int = 2) -> str:
    """
    Return the line behind the command that is being sent, e.g. `blog/archive.html:12`.

    The `depth` frames above this one are the instrument's.
    """
    frame: FrameType | None = sys._getframe(depth)
    own: str | None = None
    library: FrameType | None = None
    is_below_backend = True
    while frame is not None:
        filename = frame.f_code.co_filename
        file = _files.get(filename) or _classify(filename)
        if file is BACKEND:
            own = library = None
            is_below_backend = False
        elif file is END or (file is ASYNC and event.task is not None):
            break
        elif file is LIBRARY or file is ASYNC:
            if own is None and (line := template_line(frame)):
                return line
            if library is None and not is_below_backend:
                library = frame
        elif own is None:
            own = f"{file}:{frame.f_lineno}"
            if not is_below_backend:
                return own
        frame = frame.f_back
    if own is None and event.task is not None:
        own = _line_that_awaits(event.task)
    if own is None and library is not None:
        own = f"{_short_name(library.f_code.co_filename)}:{library.f_lineno}"
    return own or ""


def _classify(filename: str) -> Any:
    file = _special_files().get(filename)
    if file is None:
        file = str(Path(filename).relative_to(config().root)) if _is_own(filename) else LIBRARY
    _files[filename] = file
    return file


def _is_own(filename: str) -> bool:
    """Return whether a file is the project's, and not of a package that lies in its folder."""
    path, root = Path(filename), Path(config().root)
    if not path.is_relative_to(root) or {"site-packages", "dist-packages"} & set(path.parts):
        return False
    folders = path.relative_to(root).parents[:-1]
    return not any((root / folder / "pyproject.toml").exists() for folder in folders)


@cache
def _special_files() -> dict[str | None, Any]:
    """Return the files whose frames say who asked."""
    found = [caches[alias] for alias in settings.CACHES]
    found += [cache.client for cache in found if hasattr(cache, "client")]
    classes = {base for each in found for base in type(each).__mro__ if base is not object}
    files = {getattr(sys.modules[each.__module__], "__file__", None) for each in classes}
    return dict.fromkeys(files, BACKEND) | {
        django.core.cache.backends.base.__file__: BACKEND,
        # Where a thread begins that works for a task, or the stack of another one goes on.
        asgiref.sync.__file__: ASYNC,
        str(OWN_FOLDER / "middleware.py"): END,
    }


def settings_file() -> Path | None:
    """Return the file of the settings, or None if they are not in one."""
    module = sys.modules.get(os.environ.get(ENVIRONMENT_VARIABLE, ""))
    return Path(module.__file__) if module and module.__file__ else None


@cache
def site_line() -> str:
    """Return the line of the settings that names FetchFromCacheMiddleware, or a subclass."""
    file = settings_file()
    names = [name for name in settings.MIDDLEWARE if _is_page_cache(name)]
    if file is None or not names:
        return "settings"
    lines = file.read_text().splitlines()
    number = next((number for number, line in enumerate(lines, 1) if names[0] in line), None)
    name = _short_name(str(file))
    return f"{name}:{number}" if number else name


def _is_page_cache(name: str) -> bool:
    found = import_string(name)
    return isinstance(found, type) and issubclass(found, FetchFromCacheMiddleware)


@lru_cache(maxsize=1000)
def line_of_view(view: Any) -> str:
    """Return the line of a view that has `cache_page`, or of its `def`: `blog/views.py:88`."""
    return _line_in(view, CACHE_PAGE) or _line_in(view, DEFINITION)


@lru_cache(maxsize=1000)
def cache_page_line(view: Any) -> str:
    """Return the line of a view that has `cache_page`, or ""."""
    return _line_in(view, CACHE_PAGE)


def _line_in(view: Any, pattern: re.Pattern[str]) -> str:
    """Return the first line of a view's code that `pattern` matches the beginning of, or ""."""
    view = inspect.unwrap(view)
    while isinstance(view, partial):
        view = inspect.unwrap(view.func)
    view = getattr(view, "view_class", view)
    if not hasattr(view, "__code__") and not isinstance(view, type):
        view = type(view)
    try:
        file = inspect.getfile(view)
        lines, start = inspect.getsourcelines(view)
    except (OSError, TypeError):
        return ""
    for number, line in enumerate(lines, start):
        if pattern.match(line):
            return f"{_short_name(file)}:{number}"
    return ""


def _line_that_awaits(task: Any) -> str | None:
    """
    Return the innermost line of the project that the task waits at.

    aget() and its like run in a thread, where the stack doesn't lead back to the view.
    """
    own = None
    awaited = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None)
        if frame is not None:
            filename = frame.f_code.co_filename
            file = _files.get(filename) or _classify(filename)
            if isinstance(file, str):
                own = f"{file}:{frame.f_lineno}"
        awaited = getattr(awaited, "cr_await", None)
    return own


def _short_name(filename: str) -> str:
    """Return the path below the project's folder, or below site-packages."""
    path = Path(filename)
    if path.is_relative_to(config().root) and "site-packages" not in path.parts:
        return str(path.relative_to(config().root))
    parts = path.parts
    for folder in ("site-packages", "dist-packages"):
        if folder in parts:
            return "/".join(parts[parts.index(folder) + 1 :])
    return "/".join(parts[-2:])


@receiver(setting_changed)
def _forget(**kwargs: Any) -> None:
    _files.clear()
    for remembered in (_special_files, site_line, line_of_view, cache_page_line):
        remembered.cache_clear()
