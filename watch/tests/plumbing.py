"""A CLIENT_CLASS of a project's own, which stands between the cache and redis-py."""

from django_redis.client import DefaultClient


class PlumbingClient(DefaultClient):
    def get(self, *args, **kwargs):
        return super().get(*args, **kwargs)
