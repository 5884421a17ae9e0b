from django.apps import AppConfig


class MysiteConfig(AppConfig):
    """Registers the system checks, and brings `manage.py up` and `manage.py redis`."""

    name = "mysite"

    def ready(self):
        from mysite import checks  # noqa: F401 - importing it registers them.
