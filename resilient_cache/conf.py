"""The RESILIENT_CACHE setting: a dict in settings.py. Every entry is optional."""

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
    # How many threads of a process may wait for what another request builds. Half of the
    # threads of a worker: the other half goes on answering.
    "MAX_WAITING": 50,
}


@cache
def conf() -> dict[str, Any]:
    """Return RESILIENT_CACHE with its defaults. Raises ImproperlyConfigured for unknown names."""
    given = getattr(settings, "RESILIENT_CACHE", {})
    if unknown := set(given) - set(DEFAULTS):
        raise ImproperlyConfigured(
            f"RESILIENT_CACHE has no {', '.join(sorted(unknown))}. It takes {', '.join(DEFAULTS)}."
        )
    return DEFAULTS | given


@receiver(setting_changed)
def _forget(**kwargs: Any) -> None:
    conf.cache_clear()
