"""What every cache alias shares: from one REDIS_URL to Django's CACHES setting."""

from urllib.parse import parse_qsl, urlencode, urlsplit

from django.core.exceptions import ImproperlyConfigured

# The version of the stored values. A release that stores something else under the same
# key raises it, and never reads what an older release left behind.
FORMAT = 1

# Seconds that connecting or waiting for an answer may take. A cache that needs longer
# than the page it saves is no help. redis-py's own default is 5.
REDIS_TIMEOUT = 0.25

# The four levels, outermost first: alias, key prefix, Redis database, CLIENT_CLASS.
LEVELS = (
    ("site", "site", 1, "mysite.caches.pages.PageClient"),
    ("view", "view", 2, "mysite.caches.pages.PageClient"),
    # {% cache %} prefers an alias of this name.
    ("template_fragments", "fragment", 3, "mysite.caches.pages.FragmentClient"),
    ("default", "low-level", 0, "mysite.caches.client.SafeClient"),
)


def make_key(key, key_prefix, version):
    """
    Return the key as Redis holds it, e.g. `site:f1.1:views.decorators.cache...`.

    KEY_FUNCTION of every alias: prefix (the level), FORMAT, version, key.
    """
    return f"{key_prefix}:f{FORMAT}.{version}:{key}"


def database_url(url, number):
    """
    Return `url` with its database number, 0 if it names none, raised by `number`.

    Raises ImproperlyConfigured when `url` is no redis://, rediss:// or unix:// URL.
    """
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        if parts.scheme == "unix" and parts.path.strip("/"):
            query["db"] = raised(query.get("db"), number)
            # urlunsplit() would write unix:/path.
            return f"unix://{parts.netloc}{parts.path}?{urlencode(query)}"
        # Reading the port raises ValueError for one that is none.
        if parts.scheme in ("redis", "rediss") and parts.hostname and parts.port != 0:
            database = raised(query.pop("db", None) or parts.path.strip("/"), number)
            return parts._replace(path=f"/{database}", query=urlencode(query)).geturl()
    except ValueError:
        pass
    raise ImproperlyConfigured(
        "REDIS_URL is not usable. It takes redis://[:password@]host[:port][/database], "
        "rediss:// with the same, or unix:///path/to/redis.sock."
    )


def raised(database, number):
    """Return `number` databases after `database`, which may be empty. Raises ValueError."""
    if database and not (database.isascii() and database.isdigit()):
        raise ValueError(database)
    return int(database or 0) + number


def redis_caches(url, **options):
    """
    Return Django's CACHES for the Redis at `url`: one alias, prefix and database a level.

    A database each, because clear() is FLUSHDB: in a shared one it would empty the
    neighbours too. `options` go into the OPTIONS of every alias.
    """
    return {
        alias: {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": database_url(url, number),
            "KEY_PREFIX": prefix,
            "KEY_FUNCTION": "mysite.caches.make_key",
            "OPTIONS": {
                "ALIAS": alias,
                # A Redis that is away makes a slow page, not an error page ...
                "IGNORE_EXCEPTIONS": True,
                # ... and costs one timeout for the whole process, not one a call.
                "CONNECTION_POOL_CLASS": "mysite.caches.breaker.BreakerPool",
                "CONNECTION_POOL_KWARGS": {
                    "socket_timeout": REDIS_TIMEOUT,
                    "socket_connect_timeout": REDIS_TIMEOUT,
                },
                # Values of plain types and responses. A pickle would run code when read.
                "SERIALIZER": "mysite.caches.serializer.SafeSerializer",
                # What can't be read is a miss, and what was dropped can't be put back.
                "CLIENT_CLASS": client_class,
                # PARSER_CLASS is not given: redis-py takes hiredis's where it is installed.
                **options,
            },
        }
        for alias, prefix, number, client_class in LEVELS
    }
