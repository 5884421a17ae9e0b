from django.apps import AppConfig


class MysiteConfig(AppConfig):
    """Registers the system checks."""

    name = "mysite"

    def ready(self):
        from mysite import checks  # noqa: F401 - importing it registers them.
