"""Backends that a project may have: what the instrument must get along with."""

from django_redis.cache import RedisCache
from redis import ConnectionPool


class AddsDatabase(RedisCache):
    """One that adds OPTIONS["db"] to the address, and brings a serializer of its own."""

    DEFAULT_SERIALIZER = "django_redis.serializers.json.JSONSerializer"

    def __init__(self, server, params):
        number = params["OPTIONS"].get("db", 0)
        options = {"SERIALIZER": self.DEFAULT_SERIALIZER} | params["OPTIONS"]
        super().__init__(f"{server.rstrip('/')}/{number}", params | {"OPTIONS": options})


class Breaker:
    """A circuit breaker that is always open."""

    def state(self):
        return {"redis": "down", "since": 1767225600, "error": "at an address"}


class BrokenPool(ConnectionPool):
    """A connection pool behind that breaker."""

    breaker = Breaker()
