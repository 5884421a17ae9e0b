"""
Settings of this package's own tests, and of the small site that they watch.

    python -m django test watch.tests --settings watch.tests.settings
"""

from pathlib import Path

LEVELS = {"site": 1, "view": 2, "template_fragments": 3, "default": 0}
NAMES = {"template_fragments": "fragment", "default": "low-level"}


def caches_at(url, prefix="test", **options):
    """Return CACHES: four watched levels in the Redis at `url`, with these OPTIONS."""
    return {
        alias: {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": f"{url}/{database}",
            "KEY_PREFIX": f"{prefix}-{NAMES.get(alias, alias)}",
            "TIMEOUT": 60,
            "OPTIONS": {
                "REDIS_CLIENT_CLASS": "watch.client.WatchedRedis",
                "IGNORE_EXCEPTIONS": True,
                **options,
            },
        }
        for alias, database in LEVELS.items()
    }


SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["watch", "django.contrib.staticfiles"]
MIDDLEWARE = [
    "watch.middleware.WatchMiddleware",
    "django.middleware.cache.UpdateCacheMiddleware",
    "django.middleware.cache.FetchFromCacheMiddleware",
]
ROOT_URLCONF = "watch.tests.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [str(Path(__file__).parent / "templates")],
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["watch.context_processors.xray"]},
    }
]
STATIC_URL = "/static/"
USE_TZ = True

# The runner starts a Redis server, and moves the caches there.
TEST_RUNNER = "watch.tests.runner.Runner"
CACHES = caches_at("redis://127.0.0.1:1")
CACHE_MIDDLEWARE_ALIAS = "site"
CACHE_MIDDLEWARE_SECONDS = 60

WATCH = {
    "LEVELS": {alias: NAMES.get(alias, alias) for alias in LEVELS},
    "ROOT": str(Path(__file__).parent),
    "KEY_ACTIONS": True,
}
