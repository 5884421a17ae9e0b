"""
The two headers: Cache-Status (RFC 9211) and Server-Timing (W3C).

    Cache-Status: "django-view"; hit; ttl=57, "django-site"; fwd=bypass; detail=cached-by-view
    Server-Timing: app;dur=4.1, req;desc="1f0c9a2b@1767225600",
        fragment;dur=0.25;desc="hit n=2 ttl=19 b=336",
        f;dur=0.12;desc="hit template.cache.months.d41d... blog/archive.html:4 ttl=19 b=202", ...

What comes from keys, paths and files is percent-encoded down to characters that mean
nothing in a header, so it can neither end a quoted string nor begin another header.
"""

import re
from functools import lru_cache
from urllib.parse import quote

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from watch.compat import has_reached_page_cache
from watch.conf import Config
from watch.event import COLLAPSED, DOWN, LOOKUP, PAGE, Answer, Event, Op

MAX_TIMING = 2048  # bytes of Server-Timing
DROPPED = len(', dropped;desc="00000"')  # bytes left free for saying how much was left out
MAX_KEY = 80  # characters of a key in it

# Neither `"`, `\`, `,` nor `;`: a consumer that splits at these before it looks for quotes
# reads the header right as well.
_SAFE = "!#$&'()*+-./:=?@[]^_`{|}~"

# The reason in a member of Cache-Status, where it has one: bypassed, or built by another.
_WHY = re.compile(
    r'"django-([^"]+)"; fwd=(?:bypass; detail=|(?:uri|vary)-miss; )?'
    r"(?!stored|uri-miss|vary-miss|bypass|redis-down)([\w.-]+)"
)


@lru_cache(maxsize=4096)
def clean(text: str) -> str:
    """Return `text` with everything percent-encoded that has a meaning in a header."""
    return quote(text, safe=_SAFE, errors="backslashreplace")


@lru_cache(maxsize=64)
def token(name: str) -> str:
    """Return `name` as a token, which both headers allow unquoted."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name) or "-"


def cache_status(
    event: Event, settings: Config, request: HttpRequest, response: HttpResponseBase
) -> str:
    """
    Return Cache-Status, the level closest to the view first.

    It has a member for each level that was asked for the page, and always one for the site
    level: every request passes it, so if it was not asked, that has a reason.
    """
    members: list[str] = []
    site = settings.site
    inner: str | None = None
    of_site: tuple[Answer, Op] | None = None
    for answer in reversed(event.answers_of(settings.levels)):
        if answer.page is None:
            continue
        if answer.level == site:
            of_site = answer, answer.page
        else:
            members.append(_member(answer, answer.page, response))
            inner = answer.level
    if site is not None:
        if request.method not in ("GET", "HEAD"):
            members.append(f'"django-{token(site)}"; fwd=method')
        elif of_site is not None:
            members.append(_member(*of_site, response))
        else:
            reason = f"cached-by-{token(inner)}" if inner else why_not(request, response)
            members.append(f'"django-{token(site)}"; fwd=bypass; detail={reason}')
    return ", ".join(members)


def _member(answer: Answer, page: Op, response: HttpResponseBase) -> str:
    """Return what a level that was asked for the page says about it."""
    name, stored = f'"django-{token(answer.level)}"', answer.page_stored
    if answer.down:
        return f"{name}; fwd=bypass; detail=redis-down"
    if answer.page_hit:
        return f"{name}; hit{_ttl(page)}"
    # Of a page that varies the list of headers was there, and this variant was not.
    name += "; fwd=vary-miss" if answer.varies and page.kind is PAGE else "; fwd=uri-miss"
    if stored is not None:
        return f"{name}; stored{_ttl(stored)}"
    if page.note is COLLAPSED:
        return f"{name}; collapsed"
    if reason := opted_out(response):
        return f"{name.partition(';')[0]}; fwd=bypass; detail={reason}"
    return name


def _ttl(op: Op) -> str:
    return "" if op.ttl is None else f"; ttl={op.ttl // 1000}"


def opted_out(response: HttpResponseBase) -> str:
    """Return why the page cache must not store this response, as far as it says so, or ""."""
    control = response.headers.get("Cache-Control", "").lower()
    if "no-store" in control:
        return "never-cache"
    if "private" in control:
        return "private"
    if response.cookies and response.status_code in (200, 304):
        return "cookie"
    return ""


def why_not(request: HttpRequest, response: HttpResponseBase) -> str:
    """Return why no page level was asked, as a token."""
    control = response.headers.get("Cache-Control", "").lower()
    if reason := opted_out(response):
        return reason
    if "no-cache" in control or re.search(r"max-age=0\b", control):
        return "never-cache"
    if response.streaming:
        return "streaming"
    if response.status_code != 404 and not has_reached_page_cache(request):
        # A middleware above FetchFromCacheMiddleware answered, e.g. with a redirect. (Where no
        # view was found, a page cache that looks once the view is known was not asked either.)
        return "not-reached"
    if response.status_code not in (200, 304):
        return f"status-{response.status_code}"
    return "opted-out"


def server_timing(event: Event, settings: Config) -> str:
    """Return Server-Timing: the request, each level that was asked, then key by key."""
    parts = [f"app;dur={event.ns / 1e6:.2f}", f'req;desc="{event.id}@{int(event.at)}"']
    for answer in event.answers_of(settings.levels):
        if word := answer.word:
            ttl = -1 if answer.ttl is None else answer.ttl // 1000
            at = f" at={clean(answer.source)}" if answer.page is not None else ""
            parts.append(
                f"{token(answer.level)};dur={answer.ns / 1e6:.2f};"
                f'desc="{word} n={answer.lookups} ttl={ttl} b={answer.size}{at}"'
            )
    # Cache-Status is not readable for scripts on the page, Server-Timing is.
    if "fwd=" in event.cache_status:
        parts += [f'why;desc="{level} {why}"' for level, why in _WHY.findall(event.cache_status)]
    parts.append(f"watch;dur={event.own_ns / 1e6:.2f}")
    lookups = [op for op in event.ops if op.kind is LOOKUP]
    if not lookups:
        return ", ".join(parts)
    room = MAX_TIMING - DROPPED - sum(len(part) + 2 for part in parts)
    for number, op in enumerate(lookups):
        part = _key_metric(op, settings.name_of(op.key))
        room -= len(part) + 2
        if room < 0:
            parts.append(f'dropped;desc="{len(lookups) - number}"')
            break
        parts.append(part)
    return ", ".join(parts)


# The levels that the keys of a metric are of, where the metric says nothing else.
USUAL = {"f": "fragment", "l": "low-level"}


def _key_metric(op: Op, key: str) -> str:
    """Return the metric of one key: f for a template fragment, l for any other."""
    name = "f" if key.startswith("template.cache.") else "l"
    word = "down" if op.note is DOWN else "hit" if op.hit else "miss"
    if len(key) > MAX_KEY:
        key = f"{key[: MAX_KEY - 21]}~{key[-20:]}"
    ttl = "" if op.ttl is None else f" ttl={op.ttl // 1000}"
    size = f" b={op.size}" if op.size else ""
    source = clean(op.source) or "-"
    more = " collapsed" if op.note is COLLAPSED else ""
    if op.level != USUAL[name]:
        more += f" in={token(op.level)}"
    return f'{name};dur={op.ns / 1e6:.2f};desc="{word} {clean(key)} {source}{more}{ttl}{size}"'
