"""
System check: is Redis there?

Docs: https://docs.djangoproject.com/en/5.2/topics/checks/
"""

import re
from contextlib import closing
from threading import Thread

from django.conf import settings
from django.core.checks import Tags, Warning, register
from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import RedisError
from redis.retry import Retry

from mysite.caches import LEVELS, database_url

CHECK_TIMEOUT = 0.25  # Seconds. Every manage.py command waits for its checks.


def redis_problem(url):
    """
    Return why the Redis at `url` is of no use, or None when it answers for each level.

    Takes CHECK_TIMEOUT at most. A thread asks, because a socket timeout counts for
    each address of a host, and not at all for looking up its name.
    """
    problem = f"no answer within {CHECK_TIMEOUT} s"

    def ping():
        nonlocal problem
        limits = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), CHECK_TIMEOUT)
        try:
            once = {"retry": Retry(NoBackoff(), 0), "single_connection_client": True}
            with closing(Redis.from_url(url, **limits, **once)) as client:
                client.ping()
                for _, _, number, _ in LEVELS:
                    database = parse_url(database_url(url, number)).get("db", 0)
                    client.execute_command("SELECT", database)
            problem = None
        except (RedisError, OSError, UnicodeError) as error:
            problem = str(error).strip(".")

    thread = Thread(target=ping, daemon=True)
    thread.start()
    thread.join(CHECK_TIMEOUT)
    return problem


def without_password(url):
    """Return `url` as it may be printed."""
    return re.sub(r"//.*@", "//", url.partition("?")[0])


@register(Tags.caches)
def redis_answers(app_configs, **kwargs):
    """
    Warn when REDIS_URL leads nowhere, or to a Redis that has no database for a level.

    No error: pages answer without Redis, slowly.
    """
    problem = redis_problem(settings.REDIS_URL)
    if problem is None:
        return []
    return [
        Warning(
            f"Redis at {without_password(settings.REDIS_URL)} is of no use: {problem}.",
            hint="Pages are built anew each time. Start redis-server, set REDIS_URL, or let "
            "`python manage.py up` bring its own Redis. Each level needs a database of its own.",
            id="mysite.W001",
        )
    ]
