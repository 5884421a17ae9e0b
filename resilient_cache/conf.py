"""The RESILIENT_CACHE setting: a dict in settings.py. Every entry is optional."""

from collections.abc import Callable
from functools import cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver

DEFAULTS: dict[str, Any] = {
    # Whole site: the query parameters that a page depends on. The others reach neither the
    # key nor the view. None: the whole query counts, as in Django.
    "QUERY": None,
    # Whole site: seconds for which a browser may show its own copy without asking. 0: it
    # asks each time (`no-cache`). None: as long as the page is cached, as in Django.
    "BROWSER": 0,
    # Whole site: pages below these paths are left alone.
    "SKIP_PATHS": [],
    # The ports that visitors type. A page asked for by another one is not cached. The port
    # that the server listens on is always one of them. None: any port counts.
    "PORTS": None,
    # How many threads of a process may wait for what another request builds. With half of a
    # worker's threads, the other half goes on answering. 50 suits 100 threads: this package
    # can't see how many there are. 0: no request waits.
    "MAX_WAITING": 50,
}


def _is_list(value: Any, is_item: Callable[[Any], bool]) -> bool:
    return isinstance(value, (list, tuple)) and all(map(is_item, value))


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


# Entry: what it takes, in words, and whether a value is that.
TAKES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "QUERY": (
        "a list of names of parameters, or None",
        lambda value: value is None or _is_list(value, lambda item: isinstance(item, str)),
    ),
    "BROWSER": (
        "a number of seconds, or None",
        lambda value: value is None or _is_count(value),
    ),
    "SKIP_PATHS": (
        "a list of paths that start with /",
        lambda value: _is_list(value, lambda item: isinstance(item, str) and item.startswith("/")),
    ),
    "PORTS": (
        "a list of numbers, or None",
        lambda value: value is None or _is_list(value, lambda item: str(item).isdecimal()),
    ),
    "MAX_WAITING": ("a number of threads", _is_count),
}


@cache
def conf() -> dict[str, Any]:
    """
    Return RESILIENT_CACHE with its defaults.

    Raises ImproperlyConfigured, which names the entry and what it takes, for anything else.
    """
    given = getattr(settings, "RESILIENT_CACHE", {})
    if not isinstance(given, dict):
        raise ImproperlyConfigured(
            f"RESILIENT_CACHE is {given!r}. It takes a dict of {', '.join(DEFAULTS)}."
        )
    if unknown := set(given) - set(DEFAULTS):
        raise ImproperlyConfigured(
            f"RESILIENT_CACHE has no {', '.join(sorted(map(str, unknown)))}. "
            f"It takes {', '.join(DEFAULTS)}."
        )
    for name, value in given.items():
        words, is_valid = TAKES[name]
        if not is_valid(value):
            raise ImproperlyConfigured(f'RESILIENT_CACHE["{name}"] is {value!r}. It takes {words}.')
    return DEFAULTS | given


@receiver(setting_changed)
def _forget(**kwargs: Any) -> None:
    conf.cache_clear()
