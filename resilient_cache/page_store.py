"""One request's page at one level: where it is looked for, and where it is stored."""

import hashlib
import math
import time
from collections.abc import Sequence
from typing import Any

from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.http import HttpRequest, HttpResponse
from django.middleware import cache as django_cache
from django.utils.cache import patch_cache_control, patch_vary_headers, set_response_etag

from resilient_cache import guard
from resilient_cache.compat import has_read_session, may_update_cache, will_set_cookie
from resilient_cache.groups import VERSION_TIMEOUT, pending, versions
from resilient_cache.guard import MISSING, cache_event
from resilient_cache.names import group_key, path_key
from resilient_cache.page_urls import page_key, page_url


class Page:
    """
    One request's page at one level: where it is looked for and stored.

    Stands in for `cache` where Django's process_response() stores something.
    """

    def __init__(
        self,
        level: "Level",
        request: HttpRequest,
        key: str,
        group: str | None,
        browser: int | None,
    ) -> None:
        self.level, self.request, self.browser = level, request, browser
        self.cache: BaseCache = caches[level.alias]
        self.base_key = self.key = key
        self.place = level.alias, key
        self.groups = [path_key(request.path)]
        if group:
            self.groups.append(group_key(group))
        # HEAD has no body. What the view shows for an Authorization header is for its sender.
        self.may_store = request.method == "GET" and "HTTP_AUTHORIZATION" not in request.META
        self.versions: tuple[int, ...] | None = None
        self.vary: list[str] = []
        self.lock: guard.Lock | None = None
        self.is_stored = False
        self.hits_before = request.__dict__.get("resilient_cache_hits", 0)
        self._entry: tuple[Any, ...] = ()
        self._looks = 0

    # Looking for the page

    def find(self) -> HttpResponse | None:
        """Return the page, or None: this request is to build it."""
        first = self.look()
        if first[0] is not MISSING and not first[1]:
            return self._take((first[0], None))
        return self._take(guard.run(self._steps(first)))

    async def afind(self) -> HttpResponse | None:
        """find(), beside the event loop."""
        first = await sync_to_async(self.look, thread_sensitive=False)()
        return self._take(await guard.arun(self._steps(first)))

    def _steps(self, first: guard.Look) -> guard.Turn:
        if not self.may_store:  # No request can wait for what this one builds.
            return first[0], None
        if self.versions is None:
            first = self.look()  # The versions have been made since.
            if self.versions is None:
                return MISSING, None  # The cache is down.
        return (yield from guard.turn(self.cache, lambda: self.key, self.look, first))

    def _take(self, found: tuple[Any, guard.Lock | None]) -> HttpResponse | None:
        page, self.lock = found
        if page is MISSING:
            return None
        self.request.__dict__["resilient_cache_open_keys"].discard(self.place)
        if not self.browser:  # Beside a max-age of its own, a browser would count it twice.
            page["Age"] = max(0, int(time.time() - self._entry[1]))
        return page

    def look(self) -> guard.Look:
        """Return (page or MISSING, whether to build the next one, how long the last one took)."""
        found = self.cache.get_many([self.base_key, *self.groups])
        self._looks += 1
        if self._looks > 1:
            cache_event(self.cache, "again", self.base_key)
        self.versions = versions(self.cache, self.groups, found)
        self.key, self.vary = self.base_key, []
        value, is_due, seconds = self._read(found.get(self.base_key))
        if isinstance(value, list):  # It varies: each variant has an entry of its own.
            cache_event(self.cache, "varies", self.base_key)
            self._vary_on(value)
            entry = self.cache.get(self.key)
            if self._looks > 1:
                cache_event(self.cache, "again", self.key)
            value, is_due, seconds = self._read(entry)
        return value, is_due, seconds

    def _read(self, entry: Any) -> guard.Look:
        match entry:
            case (
                tuple(stored),
                float(at),
                float(due),
                float(seconds),
                HttpResponse(status_code=200) | list() as value,
            ) if math.isfinite(at + seconds) and (
                isinstance(value, HttpResponse) or _are_names(value)
            ):
                if stored == self.versions:
                    self._entry = entry
                    return value, time.time() >= due, seconds
                cache_event(self.cache, "refused", self.key)
                return MISSING, False, seconds
        return MISSING, False, None

    def _vary_on(self, headers: list[str]) -> None:
        self.vary = headers
        values = [(name, self.request.META.get(name)) for name in headers]
        digest = hashlib.sha256(repr(values).encode("utf-8", "surrogatepass")).hexdigest()
        self.key = f"{self.base_key}|{digest[:16]}"

    # Storing it: what Django's process_response() calls, first with the headers in Vary, then
    # with the response. The keys that it made are its own.

    def set(self, key: str, value: Any, timeout: float) -> None:
        if isinstance(value, list):
            # Without a Vary header, a page that varied so far stays what this variant has: the
            # view may name a header only where it has looked at it.
            if value:
                self._vary_on(value)
            return
        self._tell_browser(value)
        if self.versions is None or not self.may_store:
            return
        if not pending().isdisjoint(self.groups):
            return  # The view changed what the page shows, and COMMIT is still to come.
        if not value.has_header("ETag"):
            # ConditionalGetMiddleware would compute it again for each hit.
            set_response_etag(value)
        now = time.time()
        due = now + timeout - guard.early(timeout) if guard.early(timeout) else float("inf")
        seconds = time.monotonic() - self.lock.began if self.lock else 0.0
        entry = self.versions, now, due, seconds
        stored = self.cache.set(self.key, (*entry, value), timeout)
        if self.vary and stored is not False:
            stored = self.cache.set(self.base_key, (*entry, self.vary), timeout)
        self.is_stored = stored is not False
        for group in self.groups:
            self.cache.touch(group, max(VERSION_TIMEOUT, timeout))

    def _tell_browser(self, response: HttpResponse) -> None:
        if self.browser is None:
            return
        del response["Expires"]
        if self.browser:
            response["Cache-Control"] = ""
            patch_cache_control(response, max_age=self.browser)
        else:
            response["Cache-Control"] = "no-cache"

    def store(self, response: HttpResponse) -> HttpResponse:
        """Store the response, if Django's rules allow it. Return the response to send."""
        had_expires = response.has_header("Expires")
        rules = StoringRules(self, self.level.page_timeout, self.level.key_prefix)
        try:
            if (
                response.cookies
                or response.has_header("Set-Cookie")
                or will_set_cookie(self.request)
            ):
                return response  # A cookie is for one visitor.
            if has_read_session(self.request):
                patch_vary_headers(response, ["Cookie"])  # As SessionMiddleware will, too late.
            if self.request.__dict__.get("resilient_cache_hits", 0) > self.hits_before:
                return response  # From an inner level: stored again, it would live too long.
            may_update_cache(self.request, True)
            response = rules.process_response(self.request, response)
            if response.status_code == 304 and response.has_header("Expires"):
                self._tell_browser(response)  # It is not stored, and has a max-age all the same.
            return response
        except (ValueError, OverflowError, OSError):
            # The view's max-age is not a number, or ends beyond all calendars. Django raises.
            if not had_expires:
                del response["Expires"]
            return response
        finally:
            may_update_cache(self.request, False)
            self.close()

    def close(self, cancelled: bool = False) -> None:
        """End the lock: the response is stored, or never will be, or the request was cancelled."""
        self.request.__dict__["resilient_cache_open_keys"].discard(self.place)
        if self.lock:
            self.lock.release(None if cancelled else self.is_stored)


def _are_names(value: list[Any]) -> bool:
    return all(isinstance(name, str) for name in value)


class StoringRules(django_cache.UpdateCacheMiddleware):
    """Django's rules of what may be stored and for how long, for one Page."""

    def __init__(self, page: Page, page_timeout: float | None, key_prefix: str) -> None:
        super().__init__(lambda request: None)
        self.page, self.page_timeout, self.key_prefix = page, page_timeout, key_prefix

    @property
    def cache(self) -> Page:
        return self.page


class Level:
    """A level that caches pages: what the per-site and the per-view cache have in common."""

    def __init__(self, alias: str, key_prefix: str, page_timeout: float | None = None) -> None:
        self.alias, self.key_prefix, self.page_timeout = alias, key_prefix, page_timeout

    def open(
        self,
        request: HttpRequest,
        group: str | None,
        query: Sequence[str] | None,
        browser: int | None,
    ) -> Page | None:
        """Return the Page to look for, or None: this level has nothing to do with the request."""
        if request.method not in ("GET", "HEAD"):
            return None
        url = page_url(request, query)
        if url is None:
            return None
        page = Page(self, request, page_key(url, self.key_prefix, request), group, browser)
        # With a view called by another view there are two pages for one URL: the outer one counts.
        open_keys = request.__dict__.setdefault("resilient_cache_open_keys", set())
        if page.place in open_keys or not pending().isdisjoint(page.groups):
            return None
        open_keys.add(page.place)
        return page
