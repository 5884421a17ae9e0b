"""Caches of the lab's own: a Redis database that the blog doesn't use, and any options."""

from django.conf import settings
from django_redis.cache import RedisCache
from django_redis.client.herd import Marker

from mysite.caches import database_url
from mysite.caches.serializer import SafeSerializer

DATABASE = 5  # The first one behind the four levels and the stream of watch.
PREFIX = "lab"  # What the blog's Redis user may touch, see docker/make_secrets.py.


def lab_cache(run_id, database=DATABASE, **options):
    """
    Return a django-redis cache whose keys begin with `lab:` and the run's id.

    `options` are the OPTIONS of an alias. django-redis keeps its connection pools by URL:
    caches with other pool options need another `database`.
    """
    # A Redis that hangs must not hold a thread of the server for long.
    timeouts = {"socket_timeout": 1, "socket_connect_timeout": 1}
    # What comes out of Redis is no more trusted here than at the four levels.
    safe = {"SERIALIZER": "mysite.caches.serializer.SafeSerializer"}
    options = safe | {"CONNECTION_POOL_KWARGS": timeouts} | options
    params = {"KEY_PREFIX": f"{PREFIX}:{run_id}", "OPTIONS": options}
    return RedisCache(database_url(settings.REDIS_URL, database), params)


class HerdSerializer(SafeSerializer):
    """For HerdClient, which puts an object of its own beside a value. That would take a pickle."""

    def dumps(self, value):
        match value:
            case (Marker(), kept, until):
                value = "herd", kept, until
        return super().dumps(value)

    def loads(self, value):
        match super().loads(value):
            case ("herd", kept, until):
                return Marker(), kept, until
            case other:
                return other
