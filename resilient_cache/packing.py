"""Writing of the serializer: the msgpack form of what msgpack itself doesn't know."""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
from django.db.models import Model, QuerySet
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils.functional import Promise
from django.utils.safestring import SafeString

from resilient_cache.responses import cookie_parts, response_parts

# The codes of msgpack's ext types: marks, and scalars.
TUPLE, SET, FROZENSET, DATETIME, TIME, TIMEDELTA, RESPONSE, COOKIE = range(8)
INTEGER, SAFE_STRING, DATE, DECIMAL, UUID_ = range(16, 21)


def simplify(value: Any) -> Any:
    """Return the msgpack form of one value. msgpack then packs the parts of that form."""
    try:
        known = _SIMPLIFY[type(value)]
    except KeyError:
        if isinstance(value, HttpResponseBase):
            return _simplify_response(value)
        raise TypeError(_refusal(value)) from None
    return known(value)


def _simplify_time(value: datetime | time) -> list[Any]:
    mark = _MARKS[DATETIME if type(value) is datetime else TIME]
    text = value.replace(tzinfo=None, fold=0).isoformat()
    return [mark, text, value.fold, _simplify_timezone(value.tzinfo)]


def _simplify_timezone(zone: tzinfo | None) -> Any:
    """Return None, the name of a zone, or the offset and the name of a fixed zone."""
    if zone is None:
        return None
    if type(zone) is ZoneInfo and zone.key:
        return zone.key
    if type(zone) is timezone:
        return [zone.utcoffset(None), zone.tzname(None)]
    raise TypeError(
        f"A time in {zone!r} can't be cached: convert it to UTC or to a zoneinfo.ZoneInfo."
    )


def _simplify_response(response: HttpResponseBase) -> list[Any]:
    *parts, cookies, body = response_parts(response)
    cookies = [[_MARKS[COOKIE], *cookie_parts(morsel)] for morsel in cookies]
    return [_MARKS[RESPONSE], *parts, cookies, body]


def _refusal(value: Any) -> str:
    """Return a message: which type can't be cached, and what to cache instead."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, Model):
        hint = "cache its primary key, or a dict of the fields that are needed."
    elif isinstance(value, QuerySet):
        hint = "it is a query, not its result: cache list(queryset.values())."
    elif isinstance(value, Promise):
        hint = "it is lazy: cache str(value)."
    elif isinstance(value, (str, bytes, int, float, tuple, list, dict, set, frozenset)):
        plain = next(kind for kind in type(value).__mro__ if kind in _PLAIN)
        hint = f"cache {plain.__name__}(value), because subclasses don't come back."
    else:
        hint = "cache plain data (dict, list, str, int, date, Decimal...) and rebuild it from that."
    return f"{kind} can't be cached: {hint}"


_PLAIN = {bool, str, bytes, int, float, tuple, list, dict, set, frozenset}
_MARKS = [msgpack.ExtType(code, b"") for code in range(8)]


def _ext(code: int, encode: Callable[[Any], bytes]) -> Callable[[Any], msgpack.ExtType]:
    return lambda value: msgpack.ExtType(code, encode(value))


_SIMPLIFY: dict[type, Callable[[Any], Any]] = {
    tuple: lambda value: [_MARKS[TUPLE], *value],
    set: lambda value: [_MARKS[SET], *value],
    frozenset: lambda value: [_MARKS[FROZENSET], *value],
    datetime: _simplify_time,
    time: _simplify_time,
    timedelta: lambda value: [_MARKS[TIMEDELTA], value.days, value.seconds, value.microseconds],
    HttpResponse: _simplify_response,
    # msgpack packs integers of up to 64 bits by itself.
    int: _ext(INTEGER, lambda value: value.to_bytes(value.bit_length() // 8 + 1, signed=True)),
    SafeString: _ext(SAFE_STRING, lambda value: value.encode("utf-8", "surrogatepass")),
    date: _ext(DATE, lambda value: value.isoformat().encode()),
    Decimal: _ext(DECIMAL, lambda value: str(value).encode()),
    UUID: _ext(UUID_, lambda value: value.bytes),
}
