"""`/healthz`: whether this process serves, and what it knows of Redis."""

import contextlib

from django.http import JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from mysite.caches.breaker import breaker_of


@csrf_exempt  # So that a wrong method is 405 and not 403.
@require_safe
@never_cache
def healthz(request):
    """
    Answer 200 as long as this process can, with Redis up or down.

    A blog without its cache is slow, not broken: a check that failed with Redis would take
    every replica out at once.

    The answer is the circuit breaker's: `redis` is up or down, `since` a Unix time. A
    process without visitors knows nothing new, so this asks Redis too. It waits for one
    timeout at most, and not at all while the breaker is open. `writes` are "refused" for
    half a second after Redis refused this process one, as a full Redis does; for that
    nobody is asked. The reason stays in the log: it names addresses.
    """
    with contextlib.suppress(RedisError):  # The breaker has heard of it.
        get_redis_connection("default").ping()
    state = breaker_of().state()
    answer = {"status": "ok", "redis": state["redis"], "since": int(state["since"])}
    if state["writes"] == "refused":
        answer["writes"] = "refused"
    return JsonResponse(answer)
