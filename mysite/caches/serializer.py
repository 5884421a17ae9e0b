"""
A serializer that executes nothing: msgpack of plain types and HttpResponse.

django-redis pickles by default, and unpickling runs whatever the pickle says: whoever
can write to Redis then runs code in the web process. Here a value can only become one of
the types in this file. Anything else is refused twice: in dumps(), where the traceback
names the caller, and in loads(), where SafeClient makes a miss of it.

A value is FORMAT, then one msgpack object. Two shapes extend msgpack:

- an ext type holds a scalar, as text or bytes (Decimal, UUID, SafeString, date, big int);
- a list whose first item is a mark (an ext type without a body) holds everything that has
  parts (tuple, set, datetime, HttpResponse). msgpack builds it from the inside out, so
  nothing here calls itself and a deeply nested value can't exhaust the stack.

What it does not do: values are not signed. Whoever writes to Redis can still replace a page
by another page, so Redis needs its password all the same.
"""

import codecs
import re
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from http.client import responses as default_reasons
from http.cookies import Morsel
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
from django.db.models import Model, QuerySet
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils.functional import Promise
from django.utils.safestring import SafeString
from django_redis.serializers.base import BaseSerializer

# 0xC1 is the one byte that msgpack never uses, and no pickle, JSON, integer or compressed
# stream starts with it. The second byte counts up when the meaning of a value changes.
FORMAT = b"\xc1\x01"

# Ten times what the blog needs. The limit protects the web process: a value made of nothing
# but empty lists takes sixty times its size in memory, and half a second for each MB.
MAX_BYTES = 2 * 1024 * 1024

# msgpack reserves the memory for a list before it reads it, so a few bytes could ask for a lot.
MAX_ITEMS = 1 << 16

TUPLE, SET, FROZENSET, DATETIME, TIME, TIMEDELTA, RESPONSE, COOKIE = range(8)
INTEGER, SAFE_STRING, DATE, DECIMAL, UUID_ = range(16, 21)


class UnreadableValue(ValueError):
    """What Redis returned is not a value of this serializer: a miss, never an error page."""


class ValueTooLarge(ValueError):
    """The value is larger than what loads() accepts, so it is not worth storing."""


class SafeSerializer(BaseSerializer):
    """
    msgpack for django-redis: `OPTIONS = {"SERIALIZER": "mysite.caches.serializer.SafeSerializer"}`.

    Everything comes back as the type it was, with two exceptions: bytearray and memoryview
    come back as bytes, and every subclass of HttpResponse (rendered TemplateResponse,
    JsonResponse, redirects) comes back as a plain HttpResponse with the same status,
    headers, cookies and body.

    OPTIONS["MAX_VALUE_BYTES"] changes the size limit.
    """

    def __init__(self, options):
        super().__init__(options)
        self.max_bytes = options.get("MAX_VALUE_BYTES", MAX_BYTES)

    def dumps(self, value):
        try:
            body = msgpack.packb(
                value,
                default=_simplify,
                # Exact types only. Without it a tuple comes back as a list, SafeString as a
                # str that templates escape, and a TextChoices member as a bare str.
                strict_types=True,
                # A lone surrogate in a str is rare, but it must not make a page fail.
                unicode_errors="surrogatepass",
            )
        except ValueError as error:
            # A list inside itself, or nested hundreds of levels deep.
            raise TypeError(f"{type(value).__name__} can't be cached: {error}") from error
        packed = FORMAT + body
        if len(packed) > self.max_bytes:
            raise ValueTooLarge(f"{len(packed)} bytes, and the limit is {self.max_bytes}")
        if len(packed) > MAX_ITEMS:
            # Only a value this long can hold a list that is longer than loads() accepts.
            try:
                self.loads(packed)
            except UnreadableValue as error:
                raise ValueTooLarge(str(error)) from error
        return packed

    def loads(self, value):
        if not value.startswith(FORMAT):
            raise UnreadableValue("not in this format")
        if len(value) > self.max_bytes:
            raise UnreadableValue(f"{len(value)} bytes, and the limit is {self.max_bytes}")
        reader = _Reader()
        try:
            result = msgpack.unpackb(
                memoryview(value)[len(FORMAT) :],
                ext_hook=reader.read_ext,
                list_hook=reader.read_list,
                strict_map_key=False,
                timestamp=3,  # msgpack's own type for times, as datetime.
                unicode_errors="surrogatepass",
                max_array_len=MAX_ITEMS,
                max_map_len=MAX_ITEMS,
            )
        except UnreadableValue:
            raise
        except Exception as error:
            # Broken bytes can fail anywhere in here: msgpack, Decimal, ZoneInfo, a cookie.
            # Only the name goes on to the log: the message may quote the value.
            raise UnreadableValue(type(error).__name__) from error
        if reader.open_marks:
            raise UnreadableValue("a mark that does not start a list")
        return result


# Writing: msgpack calls _simplify for whatever it does not know.


def _simplify(value):
    """Return the msgpack form of one value; msgpack goes on with its parts by itself."""
    try:
        simplify = _SIMPLIFY[type(value)]
    except KeyError:
        if isinstance(value, HttpResponseBase):
            return _simplify_response(value)
        raise TypeError(_refusal(value)) from None
    return simplify(value)


def _simplify_datetime(value):
    return [
        _MARKS[DATETIME],
        value.replace(tzinfo=None, fold=0).isoformat(),
        value.fold,
        _simplify_timezone(value),
    ]


def _simplify_time(value):
    return [
        _MARKS[TIME],
        value.replace(tzinfo=None, fold=0).isoformat(),
        value.fold,
        _simplify_timezone(value),
    ]


def _simplify_timezone(value):
    """Return None, the name of a zone, or the offset and name of a fixed one."""
    zone = value.tzinfo
    if zone is None:
        return None
    if type(zone) is ZoneInfo and zone.key:
        return zone.key
    if type(zone) is timezone:
        return [zone.utcoffset(None), zone.tzname(None)]
    raise TypeError(
        f"A time in {zone!r} can't be cached: convert it to UTC or to a zoneinfo.ZoneInfo."
    )


def _simplify_response(response):
    if response.streaming:
        raise TypeError(
            f"{type(response).__name__} can't be cached: it streams its content, which can be "
            "read only once. Return an HttpResponse, or keep the view out of the cache."
        )
    status, reason = response.status_code, response.reason_phrase
    headers = dict(response.headers.items())
    # Asking a response for its charset costs as much as packing it.
    charset = None
    if not headers.get("Content-Type", "").endswith("charset=utf-8"):
        charset = response.charset
    return [
        _MARKS[RESPONSE],
        status,
        None if reason == default_reasons.get(status) else reason,
        charset,
        headers,
        [_simplify_cookie(morsel) for morsel in response.cookies.values()],
        response.content,
    ]


def _simplify_cookie(morsel):
    attributes = {name: value for name, value in morsel.items() if value}
    return [_MARKS[COOKIE], morsel.key, morsel.value, morsel.coded_value, attributes]


def _refusal(value):
    """Say what can't be cached and what to cache instead."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, Model):
        hint = "cache its primary key, or a dict of the fields that are needed."
    elif isinstance(value, QuerySet):
        hint = "it is a query, not its result: cache list(queryset.values())."
    elif isinstance(value, Promise):
        hint = "it is lazy: cache str(value)."
    elif isinstance(value, (str, bytes, int, float, tuple, list, dict, set, frozenset)):
        plain = next(kind for kind in type(value).__mro__ if kind in _PLAIN)
        hint = f"cache {plain.__name__}(value), because subclasses do not survive."
    else:
        hint = "cache plain data (dict, list, str, int, date, Decimal...) and rebuild it from that."
    return f"{kind} can't be cached: {hint}"


_PLAIN = {bool, str, bytes, int, float, tuple, list, dict, set, frozenset}
_MARKS = [msgpack.ExtType(code, b"") for code in range(8)]


def _ext(code, encode):
    return lambda value: msgpack.ExtType(code, encode(value))


_SIMPLIFY = {
    tuple: lambda value: [_MARKS[TUPLE], *value],
    set: lambda value: [_MARKS[SET], *value],
    frozenset: lambda value: [_MARKS[FROZENSET], *value],
    datetime: _simplify_datetime,
    time: _simplify_time,
    timedelta: lambda value: [_MARKS[TIMEDELTA], value.days, value.seconds, value.microseconds],
    HttpResponse: _simplify_response,
    # Only integers beyond 64 bits get here.
    int: _ext(INTEGER, lambda value: value.to_bytes(value.bit_length() // 8 + 1, signed=True)),
    SafeString: _ext(SAFE_STRING, lambda value: value.encode("utf-8", "surrogatepass")),
    date: _ext(DATE, lambda value: value.isoformat().encode()),
    Decimal: _ext(DECIMAL, lambda value: str(value).encode()),
    UUID: _ext(UUID_, lambda value: value.bytes),
}


# Reading: msgpack calls read_ext for an ext type and read_list for a list it has finished.


class _Mark:
    """Stands for one code at the start of a list."""

    __slots__ = ("build",)

    def __init__(self, build):
        self.build = build


class _Reader:
    """The hooks of one loads(), which count the marks that no list has used yet."""

    __slots__ = ("open_marks",)

    def __init__(self):
        self.open_marks = 0

    def read_ext(self, code, data):
        if code in _SCALARS:
            return _SCALARS[code](data)
        if data:
            raise UnreadableValue("a mark with a body")
        self.open_marks += 1
        return _BUILDERS[code]

    def read_list(self, items):
        if items and type(items[0]) is _Mark:
            self.open_marks -= 1
            return items[0].build(items[1:])
        return items


def _build_datetime(items):
    text, fold, zone = items
    value = datetime.fromisoformat(text)
    if fold or zone is not None:
        value = value.replace(tzinfo=_build_timezone(zone), fold=fold)
    return value


def _build_time(items):
    text, fold, zone = items
    value = time.fromisoformat(text)
    if fold or zone is not None:
        value = value.replace(tzinfo=_build_timezone(zone), fold=fold)
    return value


def _build_timezone(zone):
    if zone is None:
        return None
    if isinstance(zone, str):
        return ZoneInfo(zone)
    offset, name = zone
    fixed = timezone(offset)
    return fixed if fixed.tzname(None) == name else timezone(offset, name)


# What a server accepts in a header. Django refuses line breaks only, gunicorn refuses every
# control character, and answers 500 for it.
_HEADER_NAMES = re.compile(r"[\w!#$%&'*+.^`|~-]+(?:\n[\w!#$%&'*+.^`|~-]+)*", re.ASCII)
_HEADER_TEXT = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def _build_response(items):
    status, reason, charset, headers, cookies, body = items
    if type(body) is not bytes or type(headers) is not dict or type(status) is not int:
        raise UnreadableValue("not the parts of a response")
    if headers and not _HEADER_NAMES.fullmatch("\n".join(headers)):
        raise UnreadableValue("a header name that can't be sent")
    if not _HEADER_TEXT.fullmatch("".join(headers.values()) + (reason or "")):
        raise UnreadableValue("a header or reason that can't be sent")
    if charset is not None:
        codecs.lookup(charset)
    response = HttpResponse(body, status=status, reason=reason, charset=charset, headers=headers)
    if len(response.headers) != len(headers):
        # HttpResponse adds a Content-Type to a response that had none, such as a 304.
        del response.headers["Content-Type"]
    length = headers.get("Content-Length")
    if length is not None and body and length != str(len(body)):
        raise UnreadableValue("Content-Length is not the length of the body")
    for morsel in cookies:
        if type(morsel) is not Morsel:
            raise UnreadableValue("not a cookie")
        response.cookies[morsel.key] = morsel
    return response


def _build_cookie(items):
    key, value, coded_value, attributes = items
    morsel = Morsel()
    morsel.set(key, value, coded_value)
    morsel.update(attributes)
    if not _HEADER_TEXT.fullmatch(morsel.OutputString()):
        raise UnreadableValue("a cookie that can't be sent")
    return morsel


_BUILDERS = {
    TUPLE: _Mark(tuple),
    SET: _Mark(set),
    FROZENSET: _Mark(frozenset),
    DATETIME: _Mark(_build_datetime),
    TIME: _Mark(_build_time),
    TIMEDELTA: _Mark(lambda items: timedelta(*items)),
    RESPONSE: _Mark(_build_response),
    COOKIE: _Mark(_build_cookie),
}
_SCALARS = {
    INTEGER: lambda data: int.from_bytes(data, signed=True),
    SAFE_STRING: lambda data: SafeString(data.decode("utf-8", "surrogatepass")),
    DATE: lambda data: date.fromisoformat(data.decode()),
    DECIMAL: lambda data: Decimal(data.decode()),
    UUID_: lambda data: UUID(bytes=data),
}
