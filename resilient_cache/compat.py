"""Every undocumented name of another library that this package needs, with its reason."""

import inspect
from collections.abc import Iterator
from typing import Any

from asgiref.sync import SyncToAsync
from django.db import connections
from django.http import HttpRequest
from redis.connection import AbstractConnection

try:
    from redis.maint_notifications import MaintNotificationsConfig
except ImportError:
    MaintNotificationsConfig = None  # type: ignore[assignment, misc]


def may_update_cache(request: HttpRequest, answer: bool) -> None:
    """
    Tell Django's own cache middleware whether it may store the response to this request.

    `_cache_update_cache` is how Django's FetchFromCacheMiddleware tells UpdateCacheMiddleware,
    whose process_response() this package runs. If Django renames it, no page is stored: each
    request is a miss, and the tests of hits fail.
    """
    request._cache_update_cache = answer


def asgi_request() -> Any:
    """
    Return an object that all tasks and threads of one ASGI request share, or None outside of one.

    A handler sends request_finished from another task than the one that ran the view, so what
    the view has set in its context is not there. `thread_sensitive_context` is undocumented:
    asgiref finds a request's own thread by it. If it is gone, a lock whose page is never
    rendered ends by its timeout and not with its request.
    """
    context = getattr(SyncToAsync, "thread_sensitive_context", None)
    return context.get(None) if context else None


def will_set_cookie(request: HttpRequest) -> bool:
    """
    Return whether middleware will add a Set-Cookie header to the response to this request.

    SessionMiddleware and CsrfViewMiddleware do so after cache_page() has stored the page.
    `CSRF_COOKIE_NEEDS_UPDATE` in META is undocumented. If it is gone, a page that shows a CSRF
    token is stored, as Django's cache_page() does: the test of that fails.
    """
    session = getattr(request, "session", None)
    return bool(request.META.get("CSRF_COOKIE_NEEDS_UPDATE") or getattr(session, "modified", False))


def has_read_session(request: HttpRequest) -> bool:
    """
    Return whether SessionMiddleware will add `Vary: Cookie`, because the session was read.

    `accessed` of a session is undocumented. If it is gone, one visitor's page can be shown to
    others, as with Django's cache_page(): the test of that fails.
    """
    return bool(getattr(getattr(request, "session", None), "accessed", False))


def plain_request(request: Any) -> Any:
    """
    Return the HttpRequest inside of the one that Django REST framework gives to its methods.

    What is set on the outer one does not reach `query_params`. `_request` is undocumented. If
    it is gone, `query` of cache_page() leaves such a view the other parameters.
    """
    return getattr(request, "_request", request)


def waiting_callbacks() -> Iterator[Any]:
    """
    Yield the functions that wait for COMMIT in this thread, of all databases.

    `run_on_commit` is an undocumented list of (savepoints, function, robust). Django empties
    it at COMMIT and at ROLLBACK, which no signal tells. If it is gone, nothing waits as far as
    this package knows: a transaction then reads and stores what it has not committed.
    """
    for alias in connections:
        for entry in getattr(connections[alias], "run_on_commit", ()):
            yield entry[1]


def connection_options() -> dict[str, Any]:
    """
    Return the options that make redis-py connect in two round trips (HELLO, SELECT).

    By default redis-py 8 also tells Redis the client's name, in two commands, and asks Redis
    Enterprise to announce its maintenance, for which it looks up the host name. Without
    `driver_info` and `redis.maint_notifications` (redis-py 7 and earlier) it does what it does
    by default, and each new connection takes more round trips.
    """
    options: dict[str, Any] = {}
    if "driver_info" in inspect.signature(AbstractConnection.__init__).parameters:
        options["driver_info"] = None
    if MaintNotificationsConfig is not None:
        options["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    return options


def server_message(error: BaseException) -> str:
    """
    Return what Redis answered, error code first: "OOM command not allowed ...".

    redis-py takes the code off the text if it has a class for it, and leaves it in
    `status_code` (redis-py 8). In a pipeline it writes the command, with its value, before
    the text. Redis itself quotes arguments of commands that it doesn't know. Values must not
    be logged, so both are taken off. If the form of these texts changes, such errors share
    one kind in the log, and MISCONF, NOREPLICAS and BUSY don't open the breaker.
    """
    text = str(error).rpartition(" of pipeline caused error: ")[2]
    text = text.partition(", with args beginning with: ")[0]
    code = getattr(error, "status_code", None)
    return f"{code} {text}" if code else text
