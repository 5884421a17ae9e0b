from django.apps import AppConfig
from django.core.cache import close_caches
from django.core.signals import request_finished


class MysiteConfig(AppConfig):
    """Registers the system checks, and keeps Redis connected between requests."""

    name = "mysite"

    def ready(self):
        from mysite import checks  # noqa: F401 - importing it registers them.

        # close() of django-redis does nothing unless DJANGO_REDIS_CLOSE_CONNECTION says so,
        # and that for each alias after each request takes as long as asking Redis.
        request_finished.disconnect(close_caches)
