"""
The blog in other settings, to compare with. The variable BENCH says which.

uncached: the blog as it is, over Django's dummy backend, which stores nothing.
plain: what `django-admin startproject` writes, django-redis with a LOCATION and nothing else
(pickles, timeouts of 5 s), and Django's cache_page on the pages that are cached as a whole.
"""

import os

from mysite.settings import *  # noqa: F403
from mysite.settings import CACHES as BLOG
from mysite.settings import DATABASE_PATH, REDIS_URL
from resilient_cache.location import database_url

if os.environ["BENCH"] == "uncached":
    CACHES = {alias: {"BACKEND": "django.core.cache.backends.dummy.DummyCache"} for alias in BLOG}
else:
    CACHES = {
        alias: {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": database_url(REDIS_URL, options["OPTIONS"]["db"]),
        }
        for alias, options in BLOG.items()
    }
    ROOT_URLCONF = "lab.bench.plain_urls"
    MIDDLEWARE = [
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ]
    MESSAGE_STORAGE = "django.contrib.messages.storage.fallback.FallbackStorage"
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE_PATH}}
    USE_I18N = True
