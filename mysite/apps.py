from django.apps import AppConfig
from django.conf import settings
from django.core.cache import caches


class MysiteConfig(AppConfig):
    """Registers the system checks, and brings `manage.py up` and `manage.py redis`."""

    name = "mysite"

    def ready(self):
        """Raise ImproperlyConfigured if REDIS_URL can't be used: at the start, not in a request."""
        from mysite import checks  # noqa: F401 - importing it registers them.

        for alias in settings.CACHES:
            caches[alias]  # Reads its settings, and connects to nothing.
