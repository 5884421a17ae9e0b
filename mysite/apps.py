from django.apps import AppConfig
from django.conf import settings
from django.core.cache import close_caches
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, reset_queries


class MysiteConfig(AppConfig):
    """Registers the system checks, and stays connected between requests."""

    name = "mysite"

    def ready(self):
        from mysite import checks  # noqa: F401 - importing it registers them.

        # close() of django-redis does nothing unless DJANGO_REDIS_CLOSE_CONNECTION says so,
        # and that for each alias after each request takes as long as asking Redis.
        request_finished.disconnect(close_caches)
        # Django looks for connections to close after each request and before the next. No
        # server hangs up on SQLite in between. With one that does, take the next line out.
        request_started.disconnect(close_old_connections)
        if not settings.DEBUG:  # Queries are counted in DEBUG alone.
            request_started.disconnect(reset_queries)
