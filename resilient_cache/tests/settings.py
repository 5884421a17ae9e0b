"""Settings for this package's own tests: `django test resilient_cache.tests`."""

BACKEND = "resilient_cache.backend.RedisCache"

SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["*"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "resilient_cache",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
]
MIDDLEWARE = []  # Tests of the page level set their own.
ROOT_URLCONF = "resilient_cache.tests.urls"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
USE_TZ = True

# The runner starts a Redis server for each process and moves the caches there.
TEST_RUNNER = "resilient_cache.tests.runner.Runner"
LOCATION = "redis://127.0.0.1:1"
CACHES = {
    "site": {
        "BACKEND": BACKEND,
        "LOCATION": LOCATION,
        "KEY_PREFIX": "site",
        "OPTIONS": {"db": 1},
    },
    "view": {
        "BACKEND": BACKEND,
        "LOCATION": LOCATION,
        "KEY_PREFIX": "view",
        "OPTIONS": {"db": 2},
    },
    "template_fragments": {
        "BACKEND": BACKEND,
        "LOCATION": LOCATION,
        "KEY_PREFIX": "fragment",
        "OPTIONS": {"db": 3},
    },
    "default": {"BACKEND": BACKEND, "LOCATION": LOCATION, "KEY_PREFIX": "low-level"},
}
