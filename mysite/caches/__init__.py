"""What every cache alias shares: from one REDIS_URL to Django's CACHES setting."""

from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

from django.core.exceptions import ImproperlyConfigured

# The version of the stored values. A release that stores something else under the same
# key raises it, and never reads what an older release left behind.
FORMAT = 1

# Seconds that connecting or waiting for an answer may take. A cache that needs longer
# than the page it saves is no help. redis-py's own default is 5.
REDIS_TIMEOUT = 0.25

# The four levels, outermost first: alias, key prefix, Redis database.
LEVELS = (
    ("site", "site", 1),
    ("view", "view", 2),
    ("template_fragments", "fragment", 3),  # {% cache %} prefers an alias of this name.
    ("default", "low-level", 0),
)


def make_key(key, key_prefix, version):
    """
    Return the key as Redis holds it, e.g. `site:f1.1:views.decorators.cache...`.

    KEY_FUNCTION of every alias: prefix (the level), FORMAT, version, key.
    """
    return f"{key_prefix}:f{FORMAT}.{version}:{key}"


def database_url(url, number):
    """
    Return `url` with its database number raised by `number`.

    Raises ImproperlyConfigured when `url` is no redis://, rediss:// or unix:// URL.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it raises for a port that is no number.
        query = parse_qs(parts.query, strict_parsing=bool(parts.query))
        if parts.scheme == "unix":
            base = int(query.pop("db", ["0"])[0])
            query["db"] = [str(base + number)]
            path = parts.path
        else:
            base = int(parts.path.strip("/") or 0)
            path = f"/{base + number}"
        if parts.scheme not in ("redis", "rediss", "unix") or not (parts.netloc or parts.path):
            raise ValueError(f"the scheme is {parts.scheme!r}")
        if parts.scheme == "unix" and len(parts.path) < 2:
            raise ValueError("no socket path")
        if parts.scheme != "unix" and not parts.hostname:
            raise ValueError("no host")
    except ValueError as error:
        raise ImproperlyConfigured(
            f"REDIS_URL is not usable ({error}). Give redis://[:password@]host[:port], "
            "rediss://... or unix:///path/to/redis.sock."
        ) from None
    return urlunsplit(parts._replace(path=path, query=urlencode(query, doseq=True)))


def page_options(alias):
    """Return the OPTIONS that only the two levels of whole pages have."""
    return {"CLIENT_CLASS": "mysite.caches.pages.PageClient", "ALIAS": alias}


def redis_caches(url, **options):
    """
    Return Django's CACHES for the Redis at `url`: one alias, prefix and database a level.

    A database each, because clear() is FLUSHDB: in a shared one it would empty the
    neighbours too. `options` go into every alias's OPTIONS.
    """
    from redis.retry import Retry
    from redis.backoff import NoBackoff

    options = {
        # A Redis that is away makes a slow page, not an error page.
        "IGNORE_EXCEPTIONS": True,
        "CONNECTION_POOL_KWARGS": {
            "socket_timeout": REDIS_TIMEOUT,
            "socket_connect_timeout": REDIS_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),
        },
        **options,
    }
    return {
        alias: {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": database_url(url, number),
            "KEY_PREFIX": prefix,
            "KEY_FUNCTION": "mysite.caches.make_key",
            "OPTIONS": options | (page_options(alias) if alias in ("site", "view") else {}),
        }
        for alias, prefix, number in LEVELS
    }
