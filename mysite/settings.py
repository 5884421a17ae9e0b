"""
Settings, in the order of https://docs.djangoproject.com/en/5.2/ref/settings/.

Whatever differs between a laptop and a server comes from the environment, with the
laptop's value as the default. See README.md for the list.
"""

import os
from hashlib import sha256
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.utils.log import CallbackFilter

from mysite.running import running_url
from resilient_cache.location import database_url

BASE_DIR = Path(__file__).resolve().parent.parent


def env(name, default=""):
    """Return the variable `name`, or the content of the file that `<name>_FILE` names."""
    if path := os.environ.get(f"{name}_FILE"):
        try:
            return Path(path).read_text().strip()
        except OSError as error:
            raise ImproperlyConfigured(f"{name}_FILE can't be read: {error}") from None
    return os.environ.get(name, default)


def flag(name, default):
    """Return whether the variable `name` says yes. What says neither yes nor no is an error."""
    value = env(name, default).lower()
    if value not in ("1", "true", "yes", "on", "0", "false", "no", "off", ""):
        raise ImproperlyConfigured(f"{name} is {value!r}. Set it to 1 or to 0.")
    return value in ("1", "true", "yes", "on")


def whole(name, default):
    """Return the variable `name` as a whole number."""
    value = env(name, default)
    if not (value.isascii() and value.isdigit()):
        raise ImproperlyConfigured(f"{name} is {value!r}. Set it to a whole number.")
    return int(value)


def without_traceback(record):
    """Let a record of the log be one line."""
    record.exc_info = None
    return True


def words(name, default=""):
    """Return the comma-separated values of the variable `name`."""
    return [word.strip() for word in env(name, default).split(",") if word.strip()]


# Core
# https://docs.djangoproject.com/en/5.2/howto/deployment/checklist/
DEBUG = flag("DEBUG", "1")
LOOPBACK = ["localhost", "127.0.0.1", "[::1]"]
ALLOWED_HOSTS = words("ALLOWED_HOSTS", ",".join(LOOPBACK))
# A key that everybody knows is good for a blog that nobody else can reach, and no other.
on_laptop = DEBUG and set(ALLOWED_HOSTS) <= set(LOOPBACK)
SECRET_KEY = env("SECRET_KEY", "for-your-laptop-only" if on_laptop else "")
if not SECRET_KEY:
    raise ImproperlyConfigured(
        "SECRET_KEY is missing. Set it to 50 random characters. Only with DEBUG=1 and the "
        "default ALLOWED_HOSTS is there one to start with."
    )
CSRF_TRUSTED_ORIGINS = words("CSRF_TRUSTED_ORIGINS")
# The ports that visitors type, where they differ from the server's own: see resilient_cache.
PUBLIC_PORTS = words("PUBLIC_PORTS")

INSTALLED_APPS = [
    "blog",
    "mysite",
    "resilient_cache",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.sitemaps",
    "django.contrib.staticfiles",
]

# Outermost first. What stands above UpdateCacheMiddleware changes a page after it was stored,
# for each request anew.
# https://docs.djangoproject.com/en/5.2/topics/cache/#order-of-middleware
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "mysite.http.ContentSecurityPolicyMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    # Above the cache, so that a 304 is made from the cached page and never cached itself.
    "mysite.http.ConditionalGetMiddleware",
    "mysite.health.health_middleware",  # /healthz and /readyz, for any Host.
    "resilient_cache.pages.UpdateCacheMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "resilient_cache.pages.FetchFromCacheMiddleware",
]
ROOT_URLCONF = "mysite.urls"
WSGI_APPLICATION = "mysite.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            # `user` and `messages` are lazy: a page whose template uses neither has no query and
            # no `Vary: Cookie`, and can be cached for all visitors.
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# Cache
# https://docs.djangoproject.com/en/5.2/topics/cache/ and resilient_cache/README.md
# To copy it, also take "resilient_cache" in INSTALLED_APPS and its two middleware classes above.
# Without REDIS_URL it is the Redis of a running `manage.py up`, so that a command in another
# terminal invalidates the right cache.
DATABASE_PATH = Path(env("DATABASE_PATH", str(BASE_DIR / "db.sqlite3")))
REDIS_URL = env("REDIS_URL") or running_url(DATABASE_PATH) or "redis://127.0.0.1:6379"
database_url(REDIS_URL)  # Raises ImproperlyConfigured for a URL that can't work.
# Begins every key, such as "blog-". Two sites on one Redis each need one of their own, and
# other databases too, because clear() empties a database.
CACHE_PREFIX = env("CACHE_PREFIX")
CACHE_WATCH = flag("CACHE_WATCH", "1")
SHARED = {
    # django-redis with a circuit breaker, short timeouts and a serializer that runs no code.
    "BACKEND": "resilient_cache.backend.RedisCache",
    "LOCATION": REDIS_URL,
}
# The instrument looks on from here. Without it: the client of redis-py.
WATCHED = {"REDIS_CLIENT_CLASS": "watch.client.WatchedRedis"} if CACHE_WATCH else {}
# One alias, key prefix and database for each level.
CACHES = {
    "site": {
        **SHARED,
        "KEY_PREFIX": f"{CACHE_PREFIX}site",
        "OPTIONS": {**WATCHED, "db": 1},
    },
    "view": {
        **SHARED,
        "KEY_PREFIX": f"{CACHE_PREFIX}view",
        "OPTIONS": {**WATCHED, "db": 2},
    },
    "template_fragments": {  # {% cache %} takes the alias of this name.
        **SHARED,
        "KEY_PREFIX": f"{CACHE_PREFIX}fragment",
        "OPTIONS": {**WATCHED, "db": 3},
    },
    "default": {  # What `from django.core.cache import cache` is: the low-level API.
        **SHARED,
        "KEY_PREFIX": f"{CACHE_PREFIX}low-level",
        "OPTIONS": {**WATCHED, "db": 0},
    },
}
# The whole site: UpdateCacheMiddleware and FetchFromCacheMiddleware.
CACHE_MIDDLEWARE_ALIAS = "site"
CACHE_MIDDLEWARE_SECONDS = 60  # A change that invalidates nothing shows after this time.
RESILIENT_CACHE = {
    "QUERY": ["page"],  # Other parameters, such as utm_source, make no further entries.
    "SKIP_PATHS": ["/admin/", "/healthz", "/readyz", "/watch/"],
    "PORTS": PUBLIC_PORTS or None,  # Pages asked for by other ports are not cached. None: any.
    "MAX_WAITING": 50,  # Requests that may wait while another builds: half of the threads.
}

# Database
# https://docs.djangoproject.com/en/5.2/ref/databases/#sqlite-notes
# SQLite makes files beside the database, so the folder has to be writable too.
if (
    DATABASE_PATH.is_dir()
    or not (DATABASE_PATH.parent.is_dir() and os.access(DATABASE_PATH.parent, os.W_OK))
    or (DATABASE_PATH.exists() and not os.access(DATABASE_PATH, os.W_OK))
):
    raise ImproperlyConfigured(f"DATABASE_PATH can't be written: {DATABASE_PATH}")
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATABASE_PATH,
        "CONN_MAX_AGE": 60,
        "OPTIONS": {
            # Readers don't wait for the writer, and a writer waits for its turn. NORMAL
            # may lose the last commits when the power goes, and never breaks the file.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            "transaction_mode": "IMMEDIATE",
            "timeout": 10,
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Errors and warnings to stderr, where a container's log is; by default they would be mailed.
# https://docs.djangoproject.com/en/5.2/topics/logging/
# Whoever looks for holes asks for hosts of all kinds, and sends too much: a line each.
REFUSED = ("DisallowedHost", "RequestDataTooBig", "TooManyFieldsSent", "TooManyFilesSent")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "filters": {"brief": {"()": CallbackFilter, "callback": without_traceback}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "django": {"handlers": [], "level": "INFO"},
        "django.request": {"level": "ERROR"},  # A 404 is an answer, not a fault.
        **{f"django.security.{name}": {"filters": ["brief"]} for name in REFUSED},
    },
}

# Sessions live in the database: in the cache, clear() would log everybody out, and a
# Redis that is away would be an error page.
# https://docs.djangoproject.com/en/5.2/topics/http/sessions/
SESSION_ENGINE = "django.contrib.sessions.backends.db"
# Messages go with the session. By default a cookie is tried first, and preparing that is a
# twentieth of what a cached page costs, with a message or without.
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("MinimumLengthValidator", "CommonPasswordValidator", "NumericPasswordValidator")
]

# One language and one time zone, so that a page is one entry.
# https://docs.djangoproject.com/en/5.2/topics/i18n/
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"

# Static files
# https://docs.djangoproject.com/en/5.2/howto/static-files/
if not DEBUG:  # runserver serves them itself.
    MIDDLEWARE.insert(1, "whitenoise.middleware.WhiteNoiseMiddleware")
STATIC_URL = "static/"
STATIC_ROOT = Path(env("STATIC_ROOT", str(BASE_DIR / "staticfiles")))
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        # A hash in each file's name: a browser may keep it for ever.
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}

# A page names its stylesheet by the hash in its name. This prefix changes with the static files,
# so after a release no page is served that was cached before it.
manifest = STATIC_ROOT / "staticfiles.json"
if not DEBUG and manifest.exists():
    CACHE_MIDDLEWARE_KEY_PREFIX = sha256(manifest.read_bytes()).hexdigest()[:8]

# Security
# https://docs.djangoproject.com/en/5.2/topics/security/
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'"
)
# Behind a proxy that sets X-Forwarded-Proto and -For, and only there: anybody can send them.
TRUST_PROXY = flag("TRUST_PROXY", "0")
if TRUST_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# Off by default because http://127.0.0.1:8000/ has no certificate.
if flag("HTTPS", "0"):
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz)$"]
    # For how long browsers remember the rest, for every subdomain, and nobody can take it back.
    # So it is an hour at first, and a year, 31536000, when all of the domain speaks HTTPS.
    SECURE_HSTS_SECONDS = whole("HSTS_SECONDS", "3600")
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True

# /lab/, expiring keys by hand on /watch/, code in the x-ray: for a laptop.
LAB = flag("LAB", "0")
INSTALLED_APPS.append("lab")  # With LAB=0 too: `manage.py bench` is in it.
# The instrument: see watch/README.md. Without these lines the blog runs just the same.
INSTALLED_APPS.append("watch")
TEMPLATES[0]["OPTIONS"]["context_processors"].append("watch.context_processors.xray")
WATCH = {
    # Alias: the name of its level.
    "LEVELS": {
        "site": "site",
        "view": "view",
        "template_fragments": "fragment",
        "default": "low-level",
    },
    "SHOW_CODE": DEBUG or LAB,
    "KEY_ACTIONS": LAB,  # On /watch/: show a key's value, and expire it.
    "STREAM": f"{CACHE_PREFIX}watch:events",
}
if CACHE_WATCH:
    MIDDLEWARE.insert(0, "watch.middleware.WatchMiddleware")  # First: nothing of it is cached.
else:
    SILENCED_SYSTEM_CHECKS = ["watch.W001", "watch.W002"]  # It sees nothing, as was asked for.
    if LAB:
        MIDDLEWARE.insert(0, "lab.timing.TimingMiddleware")

TEST_RUNNER = "mysite.testing.PrivateRedisRunner"
