"""The methods of django-redis, none of which raises an error of Redis."""

import contextlib
import functools
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import django_redis.cache
from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import RedisError

# The types whose empty value the methods of django-redis answer when Redis is down. The others
# answer None.
QUIET_ANSWERS: dict[str, type] = {
    "delete": bool,
    "delete_pattern": int,
    "expire": bool,
    "expire_at": bool,
    "has_key": bool,
    "iter_keys": list,
    "keys": list,
    "persist": bool,
    "pexpire": bool,
    "pexpire_at": bool,
    "sscan_iter": list,
    "touch": bool,
}


class QuietCache(django_redis.cache.RedisCache):
    """
    django_redis.cache.RedisCache, which hides an error of Redis in all of its methods.

    With IGNORE_EXCEPTIONS, django-redis itself hides the errors of some methods, and of others
    only a part. The breaker logs what is hidden here.
    """

    def get_many(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return a dict of the keys that have a value: an own one, to change as one likes."""
        try:
            return self.client.get_many(*args, **kwargs)
        except ConnectionInterrupted:
            return {}  # django-redis gives the same dict to all callers.


def _quiet(method: Callable[..., Any], answer: type | None) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: QuietCache, *args: Any, **kwargs: Any) -> Any:
        try:
            result = method(self, *args, **kwargs)
        except (RedisError, ConnectionInterrupted):
            result = None
        if isinstance(result, Generator):
            return _quiet_items(result)
        # None is also what django-redis answers where it hides an error.
        return answer() if answer and result is None else result

    return call


def _quiet_items(items: Iterable[Any]) -> Iterator[Any]:
    with contextlib.suppress(RedisError, ConnectionInterrupted):
        yield from items


for _name, _method in vars(django_redis.cache.RedisCache).items():
    if callable(_method) and not _name.startswith("_") and _name not in ("get", "get_many"):
        setattr(QuietCache, _name, _quiet(_method, QUIET_ANSWERS.get(_name)))
