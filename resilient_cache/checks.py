"""System checks for what can be set up wrongly. Each says what to do."""

from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.cache import caches
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.middleware import cache as django_cache
from django.middleware.csrf import CsrfViewMiddleware
from django.middleware.locale import LocaleMiddleware
from django.urls import get_script_prefix, reverse
from django.utils.module_loading import import_string

from resilient_cache.backend import RedisCache
from resilient_cache.conf import conf

BACKEND = "resilient_cache.backend.RedisCache"
UPDATE = "resilient_cache.pages.UpdateCacheMiddleware"
FETCH = "resilient_cache.pages.FetchFromCacheMiddleware"
# What they add to a response, a `Vary` header or a cookie, says that it is for one visitor.
PERSONAL = (SessionMiddleware, LocaleMiddleware, CsrfViewMiddleware, MessageMiddleware)


@register(Tags.caches)
def check_caches(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check CACHES and RESILIENT_CACHE."""
    problems: list[CheckMessage] = []
    try:
        conf()
    except ImproperlyConfigured as error:
        problems.append(
            Error(str(error), hint="Correct it in the settings.", id="resilient_cache.E001")
        )
    places: dict[Any, list[str]] = {}
    for alias in settings.CACHES:
        try:
            cache = caches[alias]
            if not isinstance(cache, RedisCache):
                continue
            pool = cache.client.get_client(write=True).connection_pool
            kwargs_ = pool.connection_kwargs
            # This connects to nothing, and complains about unknown options.
            pool.connection_class(**kwargs_)
        except (ImproperlyConfigured, ImportError, TypeError, ValueError) as error:
            problems.append(
                Error(
                    f"CACHES[{alias!r}] can't be used: {error}",
                    hint="Correct its LOCATION and OPTIONS.",
                    id="resilient_cache.E002",
                )
            )
            continue
        server = kwargs_.get("path") or (kwargs_.get("host"), kwargs_.get("port"))
        places.setdefault((server, kwargs_.get("db")), []).append(alias)
    for (_, database), aliases in places.items():
        if len(aliases) > 1:
            problems.append(
                Warning(
                    f"The aliases {', '.join(map(repr, aliases))} share database {database}: "
                    "clear() of one empties them all.",
                    hint='Give each its own OPTIONS["db"], a number that is added to the '
                    "database of LOCATION.",
                    id="resilient_cache.W001",
                )
            )
    return problems


@register(Tags.caches)
def check_django(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check settings of Django and django-redis that an outage turns into a fault."""
    problems: list[CheckMessage] = []
    alias = settings.SESSION_CACHE_ALIAS
    if (
        settings.SESSION_ENGINE == "django.contrib.sessions.backends.cache"
        and apps.is_installed("django.contrib.sessions")
        and _is_protected(alias)
    ):
        problems.append(
            Warning(
                f"The sessions are in the cache {alias!r} alone. While Redis is down, a page that "
                "changes a session is an error page, and visitors are logged out.",
                hint='Use SESSION_ENGINE = "django.contrib.sessions.backends.cached_db".',
                id="resilient_cache.W005",
            )
        )
    closes = getattr(settings, "DJANGO_REDIS_CLOSE_CONNECTION", False)
    if any(
        settings.CACHES[alias].get("OPTIONS", {}).get("CLOSE_CONNECTION", closes)
        for alias in filter(_is_protected, settings.CACHES)
    ):
        problems.append(
            Warning(
                "With DJANGO_REDIS_CLOSE_CONNECTION or CLOSE_CONNECTION each request closes the "
                "connections to Redis. A lost connection can't be told from a closed one, so a "
                "Redis that restarts with an older copy of its data is not noticed, and "
                "invalidated pages come back.",
                hint="Remove them from the settings and from OPTIONS.",
                id="resilient_cache.W006",
            )
        )
    return problems


@register(Tags.caches)
def check_admin(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check that the whole-site level leaves the admin its query parameters."""
    try:
        entries = conf()
    except ImproperlyConfigured:  # E001.
        return []
    if (
        entries["QUERY"] is None
        or FETCH not in settings.MIDDLEWARE
        or not apps.is_installed("django.contrib.admin")
    ):
        return []
    try:
        path = reverse("admin:index")
    except Exception:  # The project gives it no URL. Of an error in its URLs Django speaks itself.
        return []
    path = f"/{path.removeprefix(get_script_prefix())}"
    if path.startswith(tuple(entries["SKIP_PATHS"])):
        return []
    return [
        Warning(
            f'RESILIENT_CACHE["QUERY"] takes all other parameters from the admin at {path}, too: '
            "its search, filters and pages don't work.",
            hint=f'Add {path!r} to RESILIENT_CACHE["SKIP_PATHS"].',
            id="resilient_cache.W004",
        )
    ]


@register(Tags.caches)
def check_middleware(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check the whole-site level: both classes, in their order, on an alias with the BACKEND."""
    problems: list[CheckMessage] = []
    classes = {}
    for place, path in enumerate(settings.MIDDLEWARE):
        try:
            classes[place] = import_string(path)
        except ImportError:  # Django says so itself.
            continue
    of = {
        path: [place for place, kind in classes.items() if kind is import_string(path)]
        for path in (UPDATE, FETCH)
    }
    updates, fetches = of[UPDATE], of[FETCH]
    if bool(updates) != bool(fetches):
        there, missing = (UPDATE, FETCH) if updates else (FETCH, UPDATE)
        problems.append(
            Error(
                f"MIDDLEWARE has {there} without {missing}, so no page is cached.",
                hint=f"Add {UPDATE} near the top and {FETCH} at the end.",
                id="resilient_cache.E003",
            )
        )
    elif updates and updates[0] > fetches[0]:
        problems.append(
            Error(
                f"{FETCH} stands above {UPDATE} in MIDDLEWARE, so no page is cached.",
                hint=f"Move {UPDATE} up: responses pass MIDDLEWARE from the bottom to the top.",
                id="resilient_cache.E004",
            )
        )
    elif updates:
        late = [
            path
            for place, path in enumerate(settings.MIDDLEWARE[: updates[0]])
            if isinstance(kind := classes.get(place), type) and issubclass(kind, PERSONAL)
        ]
        if late:
            problems.append(
                Warning(
                    f"{', '.join(late)} stands above {UPDATE}: its `Vary` header or cookie comes "
                    "too late, and one visitor's page can be shown to another.",
                    hint=f"Move {UPDATE} above it.",
                    id="resilient_cache.W002",
                )
            )
    mixed = [
        path
        for place, path in enumerate(settings.MIDDLEWARE)
        if (kind := classes.get(place)) is not None
        and kind in (django_cache.UpdateCacheMiddleware, django_cache.FetchFromCacheMiddleware)
    ]
    if mixed and (updates or fetches):
        problems.append(
            Error(
                f"MIDDLEWARE mixes {', '.join(mixed)} with the classes of resilient_cache.",
                hint="Use both classes of resilient_cache.pages.",
                id="resilient_cache.E005",
            )
        )
    alias = settings.CACHE_MIDDLEWARE_ALIAS
    if updates and not _is_protected(alias):
        backend = settings.CACHES.get(alias, {}).get("BACKEND")
        problems.append(
            Warning(
                f"The whole-site level uses the alias {alias!r}, whose BACKEND is {backend}.",
                hint=f"With BACKEND = {BACKEND!r} a Redis that is down is no error page, and of "
                "many requests that miss, one builds.",
                id="resilient_cache.W003",
            )
        )
    return problems


def _is_protected(alias: str) -> bool:
    """Return whether the BACKEND of an alias is this package's, or a subclass."""
    try:
        return issubclass(import_string(settings.CACHES[alias]["BACKEND"]), RedisCache)
    except (KeyError, ImportError):
        return False
