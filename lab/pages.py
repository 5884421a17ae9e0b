"""Pages of the lab that the blog's own levels cache. Each run has its id in their paths."""

import secrets

from django.core.cache import caches
from django.test import RequestFactory
from django_redis.exceptions import ConnectionInterrupted

from resilient_cache.groups import group_key
from resilient_cache.page_urls import page_key, page_url

RUN = "(?P<run>[0-9a-f]{12})"


def new_run():
    """Return an id for a run that begins when its page is loaded."""
    return secrets.token_hex(6)


def asked(request, url, method="GET"):
    """Return a request for `url`, at the host and port that `request` was sent to."""
    return RequestFactory().generic(
        method,
        url,
        secure=request.is_secure(),
        headers={"host": request.get_host()},
        SERVER_PORT=request.META["SERVER_PORT"],
    )


def key_of(request, url, prefix):
    """Return the cache key of the page at `url`. `prefix` is the key_prefix of its level."""
    page = asked(request, url)
    return page_key(page_url(page), prefix, page)


def delete(alias, *keys):
    """Delete these keys of one level. Raises ConnectionInterrupted if Redis is down."""
    if caches[alias].delete_many(keys) is None:
        raise ConnectionInterrupted(connection=None)


def delete_page(alias, request, url, prefix):
    """
    Delete a run's page from one level, and the version of its path.

    invalidate(url) would do, but the version would stay in Redis for two days, and no run asks
    for this page again.
    """
    delete(alias, key_of(request, url, prefix), group_key(url))
