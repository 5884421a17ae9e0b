"""`/healthz` and `/readyz`: two questions that a load balancer or an orchestrator asks."""

import contextlib

from django.core.cache import cache
from django.db import DatabaseError, connection
from django.http import JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django_redis import get_redis_connection
from redis.exceptions import RedisError


def health_middleware(get_response):
    """
    Answer /healthz and /readyz for any Host.

    A load balancer asks by address (`Host: 10.1.2.3:8000`), which is not in ALLOWED_HOSTS.
    Put this above CommonMiddleware, which refuses such a host.
    """
    views = {"/healthz": healthz, "/readyz": readyz}

    def middleware(request):
        if view := views.get(request.path_info):
            response = view(request)
            response["Content-Length"] = len(response.content)  # CommonMiddleware would add it.
            return response
        return get_response(request)

    return middleware


@require_safe
@never_cache
def healthz(request):
    """
    Liveness: answer 200 as long as this process can answer. Restart it when it does not.

    `redis` is "up" or "down", `since` is a Unix time. A blog without its cache is slow, not
    broken. If this failed with Redis, it would take out every replica at once.
    """
    state = redis_state()
    return JsonResponse(
        {"status": "ok", "redis": state["redis"], "since": int(state["since"])},
    )


@require_safe
@never_cache
def readyz(request):
    """
    Readiness: answer 503 when the database does not answer. Send no visitors here then.

    Redis is reported, and does not decide.
    """
    is_ready = database_answers()
    return JsonResponse(
        {
            "status": "ok" if is_ready else "unavailable",
            "database": "up" if is_ready else "down",
            "redis": redis_state()["redis"],
        },
        status=200 if is_ready else 503,
    )


def redis_state():
    """
    Return the circuit breaker's state, after asking Redis.

    Takes one timeout at most, and no time while the breaker is open. Without visitors, the
    breaker would not notice an outage. Its reason stays in the log, because it names addresses.
    """
    with contextlib.suppress(RedisError):  # The breaker takes note of it.
        get_redis_connection("default").ping()
    return cache.breaker.state()


def database_answers():
    """Return whether a new connection finds a migrated database."""
    try:
        # An old connection to SQLite answers although its file is gone.
        connection.close()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM django_migrations")
            cursor.fetchone()
    except DatabaseError:
        return False
    return True
