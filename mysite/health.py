"""`/healthz`: whether this process serves, and what it knows of Redis."""

from django.http import JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from django_redis import get_redis_connection
from redis.exceptions import RedisError


@csrf_exempt  # So that a wrong method is 405 and not 403.
@require_safe
@never_cache
def healthz(request):
    """
    Answer 200 as long as this process can, with Redis up or down.

    A blog without its cache is slow, not broken: a check that failed with Redis would take
    every replica out at once.
    """
    try:
        get_redis_connection("default").ping()
        redis = "up"
    except RedisError:
        redis = "down"
    return JsonResponse({"status": "ok", "redis": redis})
