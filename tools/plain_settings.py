"""
The blog on other caches, to compare with: see tools/faults.py.

CACHING=plain: django-redis as its documentation starts, with IGNORE_EXCEPTIONS.
CACHING=off: no cache at all.
"""

import os

from mysite.settings import *  # noqa: F403
from mysite.settings import CACHES, REDIS_URL
from resilient_cache.location import database_url

PLAIN = {"BACKEND": "django_redis.cache.RedisCache", "OPTIONS": {"IGNORE_EXCEPTIONS": True}}
OFF = {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}
DJANGO_REDIS_LOG_IGNORED_EXCEPTIONS = True

CACHES = {
    alias: {
        **(PLAIN if os.environ["CACHING"] == "plain" else OFF),
        "LOCATION": database_url(REDIS_URL, cache["OPTIONS"]["db"]),
        "KEY_PREFIX": cache["KEY_PREFIX"],
    }
    for alias, cache in CACHES.items()
}
