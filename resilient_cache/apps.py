from django.apps import AppConfig


class ResilientCacheConfig(AppConfig):
    """Registers the system checks. The template tag and the command need the app, too."""

    name = "resilient_cache"

    def ready(self) -> None:
        from resilient_cache import checks  # noqa: F401 - importing it registers them.
