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
from django.utils.safestring import SafeString
from django_redis.serializers.base import BaseSerializer

from resilient_cache.packing import (
    COOKIE,
    DATE,
    DATETIME,
    DECIMAL,
    FROZENSET,
    INTEGER,
    RESPONSE,
    SAFE_STRING,
    SET,
    TIME,
    TIMEDELTA,
    TUPLE,
    UUID_,
    simplify,
)
from resilient_cache.responses import UnsendableResponse, build_cookie, build_response

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
                default=simplify,
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
