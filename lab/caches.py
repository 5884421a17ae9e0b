"""Caches of the lab's own: a Redis database that the blog doesn't use, and any options."""

from django.conf import settings
from django.core.cache import CacheHandler
from django_redis.client.herd import Marker

from resilient_cache.location import database_url
from resilient_cache.serializer import SafeSerializer
from watch.conf import DEFAULTS

RESILIENT = "resilient_cache.backend.RedisCache"
PLAIN = "django_redis.cache.RedisCache"
DATABASE = 5  # The first one behind the four levels and the stream of watch.
LEVELS = DEFAULTS["TITLES"]  # Name of a level: what people read. Outermost first.
PREFIX = "lab"  # Redis allows the blog's user keys with it: see docker/make_secrets.py.
TIMEOUTS = {"socket_timeout": 1, "socket_connect_timeout": 1}  # Seconds.


def lab_cache(run_id, database=DATABASE, backend=PLAIN, **options):
    """
    Return a cache whose keys begin with `lab:` and the run's id.

    `options` are the OPTIONS of an alias. By default it is django-redis as it comes, except for
    short timeouts and a serializer that runs no code.
    """
    options = {
        "CONNECTION_POOL_KWARGS": TIMEOUTS,
        "SERIALIZER": "resilient_cache.serializer.SafeSerializer",
    } | options
    alias = {
        "BACKEND": backend,
        "LOCATION": redis_url(database),
        "KEY_PREFIX": f"{PREFIX}:{run_id}",
        "OPTIONS": options,
    }
    return CacheHandler({"lab": alias})["lab"]


def keys_of(cache):
    """Return the keys that Redis has of a run's cache, of every version, by SCAN."""
    found = cache.client.get_client().scan_iter(f"{cache.key_prefix}:*", count=1000)
    return sorted(key.decode() for key in found)


def empty(cache):
    """Delete every key of a run's cache. delete_pattern() would leave other versions."""
    if keys := keys_of(cache):
        cache.client.get_client().delete(*keys)


def redis_url(database=DATABASE):
    """Return the URL of a database of the blog's Redis."""
    return database_url(settings.CACHES["default"]["LOCATION"], database)


class HerdSerializer(SafeSerializer):
    """For HerdClient, which stores an object of its own beside a value. That needs a pickle."""

    def dumps(self, value):
        match value:
            case (Marker(), stored, until):
                value = "herd", stored, until
        return super().dumps(value)

    def loads(self, value):
        match super().loads(value):
            case ("herd", stored, until):
                return Marker(), stored, until
            case other:
                return other
