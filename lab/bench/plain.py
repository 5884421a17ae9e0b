"""
The blog as others would serve it, to compare with: settings by the variable BENCH.

none: as it is, over Django's dummy backend, which keeps nothing.
cache_page: the settings of `django-admin startproject`, django-redis with a LOCATION and nothing
else (pickles, timeouts of 5 s), and cache_page on each page that is kept as a whole.
"""

import os

from mysite.caches import LEVELS, database_url, stampede
from mysite.settings import *  # noqa: F403
from mysite.settings import DATABASE_PATH, INSTALLED_APPS, REDIS_URL

if os.environ["BENCH"] == "none":
    CACHES = {
        alias: {"BACKEND": "django.core.cache.backends.dummy.DummyCache"} for alias, *_ in LEVELS
    }
else:
    CACHES = {
        alias: {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": database_url(REDIS_URL, number),
        }
        for alias, _, number, *_ in LEVELS
    }
    ROOT_URLCONF = "lab.bench.plain_urls"
    # Without `mysite`, which takes receivers off Django's signals. The page stays the same.
    INSTALLED_APPS = [name for name in INSTALLED_APPS if name not in ("mysite", "csp", "lab")]
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

# The guard against stampedes asks more of a cache than Django's interface has.
stampede.get_or_build = lambda cache, *arguments: cache.get_or_set(*arguments[:4])


def django():
    """Return the application as Django makes it. A function: this module is the settings too."""
    from django.core.wsgi import get_wsgi_application

    return get_wsgi_application()
