"""Pages of the experiments: each run has pages of its own, because its id is in their paths."""

import secrets

from django.core.cache import cache, caches
from django_redis.exceptions import ConnectionInterrupted

from resilient_cache.groups import group_key, new_version

RUN = "(?P<run>[0-9a-f]{12})"
VERSION_TIMEOUT = 10 * 60  # Seconds. Longer than any page of a run is cached.


def new_run():
    """Return an id for a run that begins with the load of a page."""
    return secrets.token_hex(6)


def invalidate_page(alias, path):
    """
    Invalidate a page at one level alone. Raises ConnectionInterrupted when Redis is down.

    invalidate(path) would do it at all levels.
    """
    _check(caches[alias].set(group_key(path), new_version(), VERSION_TIMEOUT))


def delete_fragment(key):
    """Delete a run's fragment. Raises ConnectionInterrupted when Redis is down."""
    _check(caches["template_fragments"].delete(key) is not None)


def delete_value(key):
    """Delete a run's value. Raises ConnectionInterrupted when Redis is down."""
    _check(cache.delete(key) is not None)


def _check(is_done):
    if not is_done:
        raise ConnectionInterrupted(connection=None)
