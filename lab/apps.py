from django.apps import AppConfig


class LabConfig(AppConfig):
    name = "lab"

    def ready(self):
        from blog import caching
        from lab import pages

        caching.PAGES += pages.PAGES
