from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured

MIDDLEWARE = "watch.middleware.WatchMiddleware"


class WatchConfig(AppConfig):
    """Checks that the two other settings are there as well."""

    name = "watch"

    def ready(self) -> None:
        register(watch_is_complete, Tags.caches)


def watch_is_complete(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Warn when the instrument would see nothing, or be cached itself."""
    from watch.conf import config, unknown_settings

    problems: list[CheckMessage] = []
    try:
        levels = config().levels
    except ImproperlyConfigured:
        return []  # An alias in CACHES can't work. Its backend says so.
    if not levels:
        problems.append(
            Warning(
                "No cache is watched.",
                hint='Set OPTIONS["REDIS_CLIENT_CLASS"] to "watch.client.WatchedRedis" in CACHES.',
                id="watch.W001",
            )
        )
    if MIDDLEWARE not in settings.MIDDLEWARE[:1]:
        problems.append(
            Warning(
                f"{MIDDLEWARE} is not the first in MIDDLEWARE.",
                hint="Behind UpdateCacheMiddleware its headers would be stored with the pages.",
                id="watch.W002",
            )
        )
    problems += [
        Warning(
            f"WATCH[{name!r}] is not a setting of watch, and does nothing.",
            hint="watch/conf.py lists the settings.",
            id="watch.W003",
        )
        for name in unknown_settings()
    ]
    return problems
