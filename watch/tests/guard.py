"""What watch.tests.plumbing is made with. Code of a project calls it, too."""

from django.core.cache import cache


def ask(key):
    return cache.get(key)
