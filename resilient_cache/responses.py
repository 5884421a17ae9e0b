"""
An HttpResponse as plain parts for the serializer, and back.

A response from Redis is checked: a server must be able to send it. Django itself refuses
only line breaks in headers. gunicorn refuses every control character and answers 500.
"""

import codecs
import re
from http.client import responses as default_reasons
from http.cookies import Morsel
from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase

_HEADER_NAMES = re.compile(r"[\w!#$%&'*+.^`|~-]*", re.ASCII)
_HEADER_TEXT = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class UnsendableResponse(ValueError):
    """These are not the parts of a response that a server can send."""


def response_parts(response: HttpResponseBase) -> tuple[Any, ...]:
    """
    Return status, reason, charset, headers, cookies (Morsel objects) and body.

    Reason and charset are None where Django's defaults give the same. Raises TypeError for a
    streaming response, and Django's ContentNotRenderedError for an unrendered template.
    """
    if response.streaming:
        raise TypeError(
            f"{type(response).__name__} can't be cached: its content streams and can be read "
            "only once. Return an HttpResponse, or don't cache the view."
        )
    status, reason = response.status_code, response.reason_phrase
    headers = dict(response.headers.items())
    # response.charset parses the Content-Type, which takes as long as packing the response.
    charset = None
    if not headers.get("Content-Type", "").endswith("charset=utf-8"):
        charset = response.charset
    if reason == default_reasons.get(status):
        reason = None
    return status, reason, charset, headers, list(response.cookies.values()), response.content


def build_response(parts: list[Any]) -> HttpResponse:
    """
    Return an HttpResponse made of the parts that response_parts() returned.

    Raises UnsendableResponse, or any error of Python or Django for parts of wrong types.
    """
    status, reason, charset, headers, cookies, body = parts
    if type(body) is not bytes or type(headers) is not dict or type(status) is not int:
        raise UnsendableResponse("not the parts of a response")
    if "" in headers or not _HEADER_NAMES.fullmatch("".join(headers)):
        raise UnsendableResponse("a header name that can't be sent")
    if not _HEADER_TEXT.fullmatch("".join(headers.values()) + (reason or "")):
        raise UnsendableResponse("a header or reason that can't be sent")
    if charset is not None:
        try:
            codecs.lookup(charset)
        except (LookupError, ValueError):
            raise UnsendableResponse("a charset that Python does not know") from None
    response = HttpResponse(body, status=status, reason=reason, charset=charset, headers=headers)
    if len(response.headers) != len(headers):
        # HttpResponse adds a Content-Type to a response that had none, such as a 304.
        del response.headers["Content-Type"]
    length = headers.get("Content-Length")
    if length is not None and body and length != str(len(body)):
        raise UnsendableResponse("Content-Length is not the length of the body")
    for morsel in cookies:
        if type(morsel) is not Morsel:
            raise UnsendableResponse("not a cookie")
        response.cookies[morsel.key] = morsel
    return response


def cookie_parts(morsel: "Morsel[str]") -> tuple[Any, ...]:
    """Return name, value, encoded value and the attributes that are set."""
    attributes = {name: value for name, value in morsel.items() if value}
    return morsel.key, morsel.value, morsel.coded_value, attributes


def build_cookie(parts: list[Any]) -> "Morsel[str]":
    """Return the cookie made of what cookie_parts() returned. Raises like build_response()."""
    key, value, coded_value, attributes = parts
    morsel: Morsel[str] = Morsel()
    morsel.set(key, value, coded_value)
    morsel.update(attributes)
    if not _HEADER_TEXT.fullmatch(morsel.OutputString()):
        raise UnsendableResponse("a cookie that can't be sent")
    return morsel
