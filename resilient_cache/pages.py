"""
Django's page cache: the same names, the same arguments, the same rules, with these differences.

- A hit is one round trip: one get_many() reads the page and the versions of its groups.
- Keys are the URLs that they stand for: `page:http://127.0.0.1:8000/about/`.
- invalidate() outdates a page by its path, or all pages of a group, in one write.
- Of all requests that miss a page, one builds it (see guard.py).
- A response that sets a cookie, changes the session or shows a CSRF token is never stored.
- A cached page tells browsers `no-cache`: they ask before they show their own copy, so an
  invalidated page is never shown. `browser` (per view) and RESILIENT_CACHE["BROWSER"] change it.
- HEAD reads the entry of GET and stores nothing.
- A view that caches its own page is left alone by the site level.

Django decides what may be stored and for how long: its own process_response() runs unchanged.
Only where a page is looked for and stored is replaced. Works on any of Django's backends.
"""

import string
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import django.views.decorators.cache
from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.core.cache import DEFAULT_CACHE_ALIAS
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware import cache as django_cache

from resilient_cache.compat import may_update_cache, plain_request
from resilient_cache.conf import conf
from resilient_cache.groups import group_key
from resilient_cache.page_store import Level, Page

SITE_GROUP = "site"


class UpdateCacheMiddleware(django_cache.UpdateCacheMiddleware):
    """Stores the page. Takes the place of Django's, above FetchFromCacheMiddleware."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        page = request.__dict__.pop("resilient_cache_site_page", None)
        return page.store(response) if page else response


class FetchFromCacheMiddleware(django_cache.FetchFromCacheMiddleware):
    """
    Looks for the page. Takes the place of Django's, last in MIDDLEWARE.

    It looks once the view is known: a view that caches its own page is left alone.
    """

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        self.level = Level(self.cache_alias, self.key_prefix)
        conf()  # Wrong settings end the process now, and not each request.
        if iscoroutinefunction(get_response):
            self.process_view = self.aprocess_view  # type: ignore[method-assign]

    def process_request(self, request: HttpRequest) -> None:
        """Do nothing yet: see process_view()."""

    def process_view(
        self, request: HttpRequest, view: Any, args: Any, kwargs: Any
    ) -> HttpResponse | None:
        page = self._open(request, view)
        return self._answer(page, page.find()) if page else None

    async def aprocess_view(
        self, request: HttpRequest, view: Any, args: Any, kwargs: Any
    ) -> HttpResponse | None:
        page = self._open(request, view)
        return self._answer(page, await page.afind()) if page else None

    def _open(self, request: HttpRequest, view: Any) -> Page | None:
        may_update_cache(request, False)  # Django's own UpdateCacheMiddleware has nothing to do.
        if getattr(view, "caches_its_page", False):
            return None
        if request.path_info.startswith(tuple(conf()["SKIP_PATHS"])):
            return None
        return self.level.open(request, SITE_GROUP, conf()["QUERY"], conf()["BROWSER"])

    def _answer(self, page: Page, response: HttpResponse | None) -> HttpResponse | None:
        if response is None:
            page.request.__dict__["resilient_cache_site_page"] = page
        return response


def cache_page(
    timeout: float,
    *,
    cache: str | None = None,
    key_prefix: str | None = None,
    group: str | None = None,
    query: Sequence[str] | None = None,
    browser: int | None = 0,
) -> Callable[[Any], Any]:
    """
    Django's cache_page(): cache what a view returns for `timeout` seconds.

    `key_prefix` is CACHE_MIDDLEWARE_KEY_PREFIX unless it is given.
    `group` names what the page shows, as a format of the URL's arguments: "post:{slug}". Raises
    ValueError where it is written if it is anything else.
    `query` names the parameters that the page depends on, in a list; the others reach neither
    the key nor the view. None: the whole query counts. Raises ValueError for a text.
    `browser`: seconds for which a browser may show its own copy without asking. 0: it asks each
    time. None: `timeout`, as in Django.
    """
    fields = _fields(group)
    if isinstance(query, str):
        raise ValueError(f"query takes a list of names, such as [{query!r}], not a text.")

    def decorate(view: Any) -> Any:
        prefix = settings.CACHE_MIDDLEWARE_KEY_PREFIX if key_prefix is None else key_prefix
        level = Level(cache or DEFAULT_CACHE_ALIAS, prefix, timeout)

        def open_page(request: HttpRequest, kwargs: dict[str, Any]) -> Page | None:
            request = plain_request(request)
            if not hasattr(request, "META"):
                raise TypeError(
                    "cache_page didn't receive an HttpRequest. If you are decorating a "
                    "classmethod, be sure to use @method_decorator."
                )
            if missing := fields - set(kwargs):
                raise ValueError(f"{group!r} needs the URL's argument {missing.pop()!r}.")
            named = group.format(**kwargs) if group else None
            return level.open(request, named, query, browser)

        if iscoroutinefunction(view):

            async def awrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                page = open_page(request, kwargs)
                if page is None:
                    return await view(request, *args, **kwargs)
                response = await page.afind()
                if response is not None:
                    return _hit(request, response)
                close = sync_to_async(page.close, thread_sensitive=False)
                try:
                    response = await view(request, *args, **kwargs)
                except BaseException as error:
                    await close(isinstance(error, CancelledError))
                    raise
                if _is_unrendered(response):
                    return _store_when_rendered(page, response)
                return await sync_to_async(page.store, thread_sensitive=False)(response)

            wrapper: Any = markcoroutinefunction(wraps(view)(awrapper))
        else:

            @wraps(view)
            def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                page = open_page(request, kwargs)
                if page is None:
                    return view(request, *args, **kwargs)
                response = page.find()
                if response is not None:
                    return _hit(request, response)
                try:
                    response = view(request, *args, **kwargs)
                except BaseException:
                    page.close()
                    raise
                if _is_unrendered(response):
                    return _store_when_rendered(page, response)
                return page.store(response)

        wrapper.caches_its_page = True
        return wrapper

    return decorate


def never_cache(view: Any) -> Any:
    """Django's never_cache(). The site level also leaves the view and its query alone."""
    wrapper = django.views.decorators.cache.never_cache(view)
    wrapper.caches_its_page = True
    return wrapper


def _is_unrendered(response: HttpResponseBase) -> bool:
    return callable(getattr(response, "render", None)) and not response.is_rendered


def _store_when_rendered(page: Page, response: Any) -> Any:
    # If it is never rendered, guard.release_locks() ends the lock with the request.
    response.add_post_render_callback(page.store)
    return response


def _hit(request: HttpRequest, response: Any) -> Any:
    """Let an outer level store nothing, as Django does."""
    request = plain_request(request)
    may_update_cache(request, False)
    request.__dict__["resilient_cache_hits"] = request.__dict__.get("resilient_cache_hits", 0) + 1
    return response


def _fields(group: str | None) -> set[str]:
    """Return the names in a group's format. Raises ValueError for anything but plain names."""
    if group is None:
        return set()
    group_key(group)
    fields = [
        (name, spec, how)
        for _, name, spec, how in string.Formatter().parse(group)
        if name is not None
    ]
    for name, spec, how in fields:
        if not name.isidentifier() or spec or how:
            raise ValueError(
                f"{group!r} is not a format of plain URL arguments, like 'post:{{slug}}'."
            )
    return {name for name, _, _ in fields}
