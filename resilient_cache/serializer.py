"""
A serializer that runs no code: msgpack of plain types and HttpResponse.

django-redis pickles by default. Reading a pickle runs the code that the pickle names, so
everyone who can write to Redis can run code in the web process. With this serializer a
value can only become one of the types in this file. dumps() refuses other types, with a
hint what to cache instead. loads() raises UnreadableValue, which the cache treats as a miss.

A stored value is FORMAT, then one msgpack object. Two forms extend msgpack:

- an ext type holds a scalar as text or bytes: Decimal, UUID, SafeString, date, large int;
- a list that starts with a mark holds everything with parts: tuple, set, datetime,
  HttpResponse. A mark is an ext type without a body. msgpack builds lists from the inside
  out, so no function here recurses, and deep nesting can't exhaust the stack.

Values are not signed: who can write to Redis can still replace one page by another. Redis
needs a password all the same.
"""

from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model, QuerySet
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils.functional import Promise
from django.utils.safestring import SafeString
from django_redis.serializers.base import BaseSerializer

from resilient_cache.responses import (
    UnsendableResponse,
    build_cookie,
    build_response,
    cookie_parts,
    response_parts,
)

# msgpack never uses the byte 0xC1, and no pickle, JSON, integer or compressed stream starts
# with it. The second byte is the version of this format.
FORMAT = b"\xc1\x01"

# Bytes that a value may have. The limits protect the web process. The worst value that they
# allow takes up to a second per MB, and sixty times its size in memory.
MAX_BYTES = 2 * 1024 * 1024

# msgpack reserves the memory for a list before it reads the list. Without this limit a few
# bytes could reserve gigabytes.
MAX_ITEMS = 1 << 16

# Members of a set, and keys of a dict, whose hash can be chosen: all types but those below. The
# time that they take can grow with the square of their number.
MAX_MEMBERS = 1000
# How many of them may have a hash that another one has. These are compared with each other.
MAX_COLLISIONS = 100
# Python mixes a random number into the hashes of these.
RANDOM_HASHES = {str, bytes, SafeString, date}

# Responses and cookies in a value: Django needs up to 30 microseconds for each.
MAX_RESPONSES = 1000

TUPLE, SET, FROZENSET, DATETIME, TIME, TIMEDELTA, RESPONSE, COOKIE = range(8)
INTEGER, SAFE_STRING, DATE, DECIMAL, UUID_ = range(16, 21)


class UnreadableValue(ValueError):
    """Redis returned bytes that this serializer did not write. The cache treats it as a miss."""


class ValueTooLarge(ValueError):
    """The value is more than loads() accepts, so it must not be stored."""


class SafeSerializer(BaseSerializer):
    """
    The SERIALIZER of this package's backend.

    Every value comes back with its type, with two exceptions. bytearray and memoryview come
    back as bytes. Every subclass of HttpResponse (a rendered TemplateResponse, JsonResponse,
    redirects) comes back as a plain HttpResponse with the same status, headers, cookies and
    body.

    OPTIONS["MAX_VALUE_BYTES"] changes the size limit. Raises ImproperlyConfigured if it is not
    a positive int.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.max_bytes: int = options.get("MAX_VALUE_BYTES", MAX_BYTES)
        if type(self.max_bytes) is not int or self.max_bytes < 1:
            raise ImproperlyConfigured(
                f"MAX_VALUE_BYTES is {self.max_bytes!r}. It takes a positive int."
            )

    def dumps(self, value: Any) -> bytes:
        """
        Return `value` as bytes that loads() can read.

        Raises TypeError with a hint for a type that can't be cached, ValueTooLarge, and
        UnsendableResponse for a response that loads() would refuse.
        """
        try:
            body = msgpack.packb(
                value,
                default=_simplify,
                # Exact types only. Otherwise a tuple would come back as a list, a SafeString
                # as a str that templates escape, and a TextChoices member as a plain str.
                strict_types=True,
                # A lone surrogate in a str is rare, but must not make a page fail.
                unicode_errors="surrogatepass",
            )
        except ValueError as error:
            # A list inside itself, or nested hundreds of levels deep.
            raise TypeError(f"{type(value).__name__} can't be cached: {error}") from error
        packed: bytes = FORMAT + body
        if len(packed) > self.max_bytes:
            raise ValueTooLarge(f"{len(packed)} bytes, and the limit is {self.max_bytes}")
        # Stored all the same, what loads() refuses would be built and stored on each request.
        try:
            self.loads(packed)
        except UnreadableValue as error:
            if isinstance(error.__cause__, UnsendableResponse):
                raise error.__cause__ from None
            raise ValueTooLarge(str(error)) from error
        return packed

    def loads(self, value: bytes) -> Any:
        """Return the value that dumps() made these bytes of. Raises only UnreadableValue."""
        if not value.startswith(FORMAT):
            raise UnreadableValue("not in this format")
        size = len(value)
        if size > self.max_bytes:
            raise UnreadableValue(f"{size} bytes, and the limit is {self.max_bytes}")
        reader = _Reader()
        # A list has at least one byte per item, so a short value can't reserve much.
        max_items = size if size < MAX_ITEMS else MAX_ITEMS
        # A map of more than 15 keys starts with one of these bytes. Smaller ones need no check,
        # and without it msgpack builds the dicts itself, in half of the time.
        build_dict = _build_dict if 0xDE in value or 0xDF in value else None
        try:
            result = msgpack.unpackb(
                memoryview(value)[len(FORMAT) :],
                ext_hook=reader.read_ext,
                list_hook=reader.read_list,
                object_pairs_hook=build_dict,
                strict_map_key=False,
                timestamp=3,  # msgpack's own type for times becomes a datetime.
                unicode_errors="surrogatepass",
                max_array_len=max_items,
                max_map_len=max_items,
            )
        except UnreadableValue:
            raise
        except UnsendableResponse as error:
            raise UnreadableValue(str(error)) from error
        except Exception as error:
            # Broken bytes can fail anywhere: in msgpack, Decimal, ZoneInfo, a cookie. Only
            # the type of the error may be logged, because its message may quote the value.
            raise UnreadableValue(type(error).__name__) from error
        if reader.open_marks:
            raise UnreadableValue("a mark that does not start a list")
        return result


# Writing. msgpack calls _simplify() for each value that it doesn't know.


def _simplify(value: Any) -> Any:
    """Return the msgpack form of one value. msgpack then packs the parts of that form."""
    try:
        simplify = _SIMPLIFY[type(value)]
    except KeyError:
        if isinstance(value, HttpResponseBase):
            return _simplify_response(value)
        raise TypeError(_refusal(value)) from None
    return simplify(value)


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


# Reading. msgpack calls read_ext() for an ext type, and read_list() for a complete list.


class _Mark:
    """The start of a list: it holds the function that builds the value of the other items."""

    __slots__ = ("build",)

    def __init__(self, build: Callable[[list[Any]], Any]) -> None:
        self.build = build


class _Reader:
    """The hooks of one loads(). They count responses, and marks that don't start a list yet."""

    __slots__ = ("open_marks", "responses")

    def __init__(self) -> None:
        self.open_marks = self.responses = 0

    def read_ext(self, code: int, data: bytes) -> Any:
        if code in _SCALARS:
            return _SCALARS[code](data)
        if data:
            raise UnreadableValue("a mark with a body")
        self.open_marks += 1
        if code >= RESPONSE:  # Or COOKIE.
            self.responses += 1
            if self.responses > MAX_RESPONSES:
                raise UnreadableValue(f"more than {MAX_RESPONSES} responses and cookies")
        return _BUILDERS[code]

    def read_list(self, items: list[Any]) -> Any:
        if items and type(items[0]) is _Mark:
            self.open_marks -= 1
            return items[0].build(items[1:])
        return items


def _build_dict(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    if len(pairs) > MAX_COLLISIONS:
        _check_hashes([key for key, _ in pairs])
    return dict(pairs)


def _build_set(items: list[Any]) -> set[Any]:
    _check_hashes(items)
    return set(items)


def _build_frozenset(items: list[Any]) -> frozenset[Any]:
    _check_hashes(items)
    return frozenset(items)


def _check_hashes(members: Collection[Any]) -> None:
    """Raise UnreadableValue for members that a set or a dict would need too long for."""
    if len(members) <= MAX_COLLISIONS:
        return
    chosen = [member for member in members if type(member) not in RANDOM_HASHES]
    if len(chosen) > MAX_MEMBERS:
        raise UnreadableValue(
            f"{len(chosen)} keys of a dict or members of a set are neither str nor bytes, and "
            f"the limit is {MAX_MEMBERS}: use str(key), or a list"
        )
    if len(chosen) - len(set(map(hash, chosen))) > MAX_COLLISIONS:
        raise UnreadableValue(
            f"more than {MAX_COLLISIONS} keys of a dict or members of a set share a hash"
        )


# Each zone is a file. ZoneInfo itself forgets those that no value uses at the moment.
_zone = lru_cache(2000)(ZoneInfo)


def _build_time(kind: type[Any]) -> Callable[[list[Any]], Any]:
    """Return the function that builds a datetime or a time."""

    def build(items: list[Any]) -> Any:
        text, fold, zone = items
        value = kind.fromisoformat(text)
        if fold or zone is not None:
            value = value.replace(tzinfo=_build_timezone(zone), fold=fold)
        return value

    return build


def _build_timezone(zone: Any) -> tzinfo | None:
    if zone is None:
        return None
    if isinstance(zone, str):
        return _zone(zone)
    offset, name = zone
    fixed = timezone(offset)
    return fixed if fixed.tzname(None) == name else timezone(offset, name)


_BUILDERS = {
    TUPLE: _Mark(tuple),
    SET: _Mark(_build_set),
    FROZENSET: _Mark(_build_frozenset),
    DATETIME: _Mark(_build_time(datetime)),
    TIME: _Mark(_build_time(time)),
    TIMEDELTA: _Mark(lambda items: timedelta(*items)),
    RESPONSE: _Mark(build_response),
    COOKIE: _Mark(build_cookie),
}
_SCALARS: dict[int, Callable[[bytes], Any]] = {
    INTEGER: lambda data: int.from_bytes(data, signed=True),
    SAFE_STRING: lambda data: SafeString(data.decode("utf-8", "surrogatepass")),
    DATE: lambda data: date.fromisoformat(data.decode()),
    DECIMAL: lambda data: Decimal(data.decode()),
    UUID_: lambda data: UUID(bytes=data),
}
