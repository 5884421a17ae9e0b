"""
The blog without what mysite/caches adds, to compare with: see tools/faults.py.

CACHING=plain: django-redis as its documentation starts, with IGNORE_EXCEPTIONS, which
pickles, waits 5 s an operation and knows no generations: a change empties every cache.
CACHING=off: no cache at all.
"""

import os

from mysite.caches import LEVELS, database_url, invalidation, stampede
from mysite.settings import *  # noqa: F403
from mysite.settings import MIDDLEWARE, REDIS_URL

PLAIN = os.environ["CACHING"] == "plain"
if PLAIN:
    CACHES = {
        alias: {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": database_url(REDIS_URL, number),
            "KEY_PREFIX": prefix,
            "OPTIONS": {"IGNORE_EXCEPTIONS": True},
        }
        for alias, prefix, number, _ in LEVELS
    }
    DJANGO_REDIS_LOG_IGNORED_EXCEPTIONS = True
else:
    CACHES = {
        alias: {"BACKEND": "django.core.cache.backends.dummy.DummyCache"} for alias, *_ in LEVELS
    }
MIDDLEWARE.remove("mysite.caches.invalidation.JournalMiddleware")


def empty_all(generations, keys):
    """Stand in for mysite.caches.invalidation.invalidate()."""
    from django.core.cache import caches

    for alias in caches:
        caches[alias].clear()


def get_or_set(cache, key, build, timeout, version=None, shape=None):
    """Stand in for mysite.caches.stampede.get_or_build(): Django's own, which guards nothing."""
    return cache.get_or_set(key, build, timeout, version)


invalidation.invalidate = empty_all
stampede.get_or_build = get_or_set
