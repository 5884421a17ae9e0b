"""
Settings for the blog's tests on another cache backend, where Django's cache API has to be enough:

    BACKEND=locmem python manage.py test blog --tag behaviour --settings mysite.settings_backends

BACKEND is resilient_cache (the default), django-redis, django, locmem or database. Pages are
cached by resilient_cache.pages with all of them.
"""

import os

from mysite.settings import *  # noqa: F403
from mysite.settings import CACHES as RESILIENT
from mysite.settings import REDIS_URL
from resilient_cache.location import database_url


def on_backend(name, alias):
    """Return the entry of CACHES for `alias` on the backend called `name`."""
    if name == "resilient_cache":
        return RESILIENT[alias]
    entry = {"KEY_PREFIX": RESILIENT[alias]["KEY_PREFIX"]}
    number = RESILIENT[alias]["OPTIONS"]["db"]
    if name == "django":
        entry |= {"BACKEND": "django.core.cache.backends.redis.RedisCache"}
        return entry | {"LOCATION": REDIS_URL, "OPTIONS": {"db": number}}
    if name == "django-redis":
        # The database stands in the URL too: django-redis has one connection pool for each URL.
        entry |= {"BACKEND": "django_redis.cache.RedisCache", "OPTIONS": {"db": number}}
        return entry | {"LOCATION": database_url(REDIS_URL, number)}
    local = {
        "locmem": "django.core.cache.backends.locmem.LocMemCache",
        "database": "django.core.cache.backends.db.DatabaseCache",
    }
    # By default they have room for 300 values.
    entry |= {"LOCATION": f"cache_{alias}", "OPTIONS": {"MAX_ENTRIES": 10_000}}
    return entry | {"BACKEND": local[name]}


NAME = os.environ.get("BACKEND", "resilient_cache")
CACHES = {alias: on_backend(NAME, alias) for alias in RESILIENT}
SILENCED_SYSTEM_CHECKS = [*globals().get("SILENCED_SYSTEM_CHECKS", []), "resilient_cache.W003"]
