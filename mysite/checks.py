"""
System check: does Redis answer?

Docs: https://docs.djangoproject.com/en/5.2/topics/checks/
"""

import re
from contextlib import closing
from threading import Thread

from django.conf import settings
from django.core.checks import Tags, Warning, register
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from resilient_cache.location import database_url

CHECK_TIMEOUT = 0.25  # Seconds. Every manage.py command waits for its checks.


def redis_problem(url):
    """
    Return why the Redis at `url` can't be used, or None if it answers for every alias.

    Takes CHECK_TIMEOUT at most. It asks in a thread, because a socket timeout counts for each
    address of a host, and not at all for looking up its name.
    """
    problem = f"no answer within {CHECK_TIMEOUT} s"
    numbers = {cache.get("OPTIONS", {}).get("db", 0) for cache in settings.CACHES.values()}

    def ask():
        nonlocal problem
        limits = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), CHECK_TIMEOUT)
        try:
            for number in sorted(numbers):
                once = {"retry": Retry(NoBackoff(), 0), "single_connection_client": True}
                with closing(Redis.from_url(database_url(url, number), **limits, **once)) as client:
                    client.ping()
            problem = None
        except (RedisError, OSError, UnicodeError) as error:
            problem = str(error).strip(".")

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CHECK_TIMEOUT)
    return problem


def without_password(url):
    """Return `url` as it may be printed."""
    return re.sub(r"//.*@", "//", url.partition("?")[0])


@register(Tags.caches)
def redis_answers(app_configs, **kwargs):
    """
    Warn if REDIS_URL leads to no Redis, or to one without a database for each alias.

    It is no error: without Redis, pages are slow.
    """
    problem = redis_problem(settings.REDIS_URL)
    if problem is None:
        return []
    return [
        Warning(
            f"Redis at {without_password(settings.REDIS_URL)} can't be used: {problem}.",
            hint="Nothing is cached. Start redis-server, set REDIS_URL, or start "
            "`python manage.py up`, which brings its own Redis.",
            id="mysite.W001",
        )
    ]
