"""A CLIENT_CLASS of a project's own, which stands between the cache and redis-py."""

from django_redis.client import DefaultClient

from watch.tests import guard


class PlumbingClient(DefaultClient):
    ask = staticmethod(guard.ask)

    def get(self, *args, **kwargs):
        return super().get(*args, **kwargs)
