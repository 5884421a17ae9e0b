"""The URL and the cache key of a page: bounded, however many ways there are to ask for it."""

import string
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote, urlencode

from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, QueryDict
from django.utils import timezone
from django.utils.translation import get_language

from resilient_cache.conf import conf
from resilient_cache.names import bounded

DEFAULT_PORTS = {"http": "80", "https": "443"}


def page_url(request: HttpRequest, query: Sequence[str] | None = None) -> str | None:
    """
    Return the URL that a page is cached under, or None: pages of this port are not cached.

    The host gets one spelling, and with `query` the other parameters are left out, for the view
    as well: what a page can't show can't get into the cache.
    """
    if request.encoding is not None:
        # A Content-Type on a GET can claim another charset, in which the query reads otherwise.
        request.encoding = None
    host, scheme = request.get_host(), request.scheme
    spelling, port = _spelling(host, scheme)
    ports = conf()["PORTS"]
    if port and ports is not None and port not in (*map(str, ports), request.get_port()):
        return None
    if spelling != host:
        for header in ("HTTP_X_FORWARDED_HOST", "HTTP_HOST"):
            if request.META.get(header) == host:
                request.META[header] = spelling
    given = request.META.get("QUERY_STRING", "")
    if not given.isascii() and isinstance(request, WSGIRequest):
        # Bytes as they came. As text they would have the key of another URL.
        given = request.META["QUERY_STRING"] = quote(given.encode("latin-1"), safe=string.printable)
    if query is not None and given:
        parameters = request.GET
        # The value that request.GET[name] gives: the last one.
        wanted = urlencode([(n, parameters[n]) for n in query if n in parameters])
        if wanted != given:
            request.META["QUERY_STRING"] = wanted
            request.GET = QueryDict(wanted)
    return f"{scheme}://{spelling}{request.get_full_path()}"


@lru_cache(maxsize=1000)  # It takes 2 us, and each hit asks.
def _spelling(host: str, scheme: str) -> tuple[str, str]:
    """Return (one spelling of `host`, the port in it or "")."""
    name, separator, port = host.rpartition(":")
    if separator and port.isdigit():
        port = port.lstrip("0") or "0"
    else:  # A name, or an IPv6 address in brackets.
        name, port = host, ""
    name = name.lower().rstrip(".")
    return name if port in ("", DEFAULT_PORTS.get(scheme)) else f"{name}:{port}", port


def page_key(url: str, prefix: str, request: HttpRequest) -> str:
    """Return the cache key of the page at `url`, as this request would see it."""
    key = f"{prefix}:{url}" if prefix else url
    if settings.USE_I18N:
        key += f"|{getattr(request, 'LANGUAGE_CODE', None) or get_language()}"
    if settings.USE_TZ and timezone.get_current_timezone() is not timezone.get_default_timezone():
        key += f"|{timezone.get_current_timezone_name()}"
    return f"page:{bounded(key)}"
