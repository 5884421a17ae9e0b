"""
Which line asked the cache: of a template, a view, the settings, or any of your code.

The stack is walked upwards from the command. It leads through redis-py and django-redis to
the method of the cache backend that was called; the first line of the project above that
is the answer. A CLIENT_CLASS of the project's own, and the modules that it is made with,
are part of the cache and asked nothing.
"""

import inspect
import os
import sys
from functools import cache, lru_cache, partial
from pathlib import Path

import asgiref.sync
import django.core.cache.backends.base
import django.middleware.cache
import django.templatetags.cache
from django.conf import ENVIRONMENT_VARIABLE, settings
from django.core.cache import caches
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.module_loading import import_string

from watch.conf import config

# What the frames of a file are. A file of the project has its short name instead.
LIBRARY, BACKEND, PAGES, FRAGMENTS, ASYNC, END = (object() for _ in range(6))

OWN_FOLDER = Path(__file__).parent

# Path of a file, as code objects have it: one of the above. By path, because Python hashes
# the whole content of a code object each time it is looked up.
_files = {}


# How many frames above the reader of a page Django's middleware stood the last time, for each
# command that reads. There is one way from the one to the other, and hardly anybody else asks.
_distances = {}


def line_of_page(event, verb):
    """line_that_asked(), for a key of Django's page cache. It knows the way from the last time."""
    distance = _distances.get(verb)
    if distance is not None and event.task is None:
        try:
            frame = sys._getframe(distance)
        except ValueError:
            pass  # The stack has fewer.
        else:
            if _files.get(frame.f_code.co_filename) is PAGES:
                return _line_of_middleware(frame.f_locals.get("self"))
    line = line_that_asked(event, 3)
    distance, frame = 0, sys._getframe()
    while frame is not None:
        if _files.get(frame.f_code.co_filename) is PAGES:
            if line == _line_of_middleware(frame.f_locals.get("self")):
                _distances[verb] = distance
            break
        distance, frame = distance + 1, frame.f_back
    return line


def line_that_asked(event, depth=2):
    """
    Return the line behind the command that is being sent, e.g. `blog/archive.html:12`.

    The `depth` frames above this one are the instrument's.
    """
    frame = sys._getframe(depth)
    own = library = None
    is_below_backend = True
    while frame is not None:
        filename = frame.f_code.co_filename
        file = _files.get(filename) or _classify(filename)
        if file is LIBRARY or (file is ASYNC and event.task is None):
            if library is None and not is_below_backend:
                library = frame
        elif file is BACKEND:
            own = library = None
            is_below_backend = False
        elif file is PAGES:
            return _line_of_middleware(frame.f_locals.get("self"))
        elif file is FRAGMENTS:
            node = frame.f_locals["self"]
            return f"{node.origin.template_name}:{node.token.lineno}"
        elif file is END or file is ASYNC:
            break
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


def _classify(filename):
    file = _special_files().get(filename)
    if file is None:
        root = config().root
        file = str(Path(filename).relative_to(root)) if _is_own(filename) else LIBRARY
    _files[filename] = file
    return file


def _is_own(filename):
    """Return whether a file is the project's, and none of this app."""
    path = Path(filename)
    return (
        path.is_relative_to(config().root)
        and path.parent != OWN_FOLDER
        # A virtual environment often lives inside the project's folder.
        and not {"site-packages", "dist-packages"} & set(path.parts)
    )


@cache
def _special_files():
    """Return the files whose frames say who asked."""
    classes = {type(caches[alias]) for alias in settings.CACHES}
    classes |= {
        import_string(cache["OPTIONS"]["CLIENT_CLASS"])
        for cache in settings.CACHES.values()
        if "CLIENT_CLASS" in cache.get("OPTIONS", {})
    }
    bases = {base for found in classes for base in found.__mro__[:-1]}
    files = {inspect.getfile(base) for base in bases}
    files |= {file for base in bases for file in _made_with(sys.modules[base.__module__])}
    return dict.fromkeys(files, BACKEND) | {
        django.core.cache.backends.base.__file__: BACKEND,
        django.middleware.cache.__file__: PAGES,
        django.templatetags.cache.__file__: FRAGMENTS,
        # Where a thread begins that works for a task, or the stack of another one goes on.
        asgiref.sync.__file__: ASYNC,
        str(OWN_FOLDER / "middleware.py"): END,
    }


def _made_with(module):
    """Return the files of the project that one of its modules imports from."""
    if not _is_own(module.__file__):
        return set()
    values = list(vars(module).values())
    names = {value.__name__ for value in values if inspect.ismodule(value)}
    names |= {getattr(value, "__module__", None) for value in values}
    modules = [sys.modules.get(name) for name in names if isinstance(name, str)]
    files = {getattr(module, "__file__", None) for module in modules}
    return {file for file in files if file and _is_own(file)}


@lru_cache(maxsize=1000)
def _line_of_middleware(middleware):
    """Return the view that cache_page decorates, or the line of MIDDLEWARE in the settings."""
    name = f"{type(middleware).__module__}.{type(middleware).__qualname__}"
    if name not in settings.MIDDLEWARE and hasattr(middleware, "page_timeout"):
        return line_of_view(middleware.get_response)
    module = sys.modules.get(os.environ.get(ENVIRONMENT_VARIABLE))
    if module is None:
        return "settings"
    file = inspect.getfile(module)
    lines = Path(file).read_text().splitlines()
    number = next((number for number, line in enumerate(lines, 1) if name in line), None)
    return f"{_short_name(file)}:{number}" if number else _short_name(file)


def line_of_view(view):
    """Return where a view begins, decorators included, e.g. `blog/views.py:88`."""
    view = inspect.unwrap(view)
    while isinstance(view, partial):
        view = view.func
    view = getattr(view, "view_class", view)
    if not hasattr(view, "__code__") and not isinstance(view, type):
        view = type(view)
    try:
        if isinstance(view, type):
            file, line = inspect.getfile(view), inspect.getsourcelines(view)[1]
        else:
            file, line = view.__code__.co_filename, view.__code__.co_firstlineno
    except (OSError, TypeError):
        return ""
    return f"{_short_name(file)}:{line}"


def _line_that_awaits(task):
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


def _short_name(filename):
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
def _forget(**kwargs):
    _files.clear()
    _distances.clear()
    _special_files.cache_clear()
    _line_of_middleware.cache_clear()
