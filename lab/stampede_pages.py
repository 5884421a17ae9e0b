"""
The stampede on pages: through the whole of Django, and the levels of the blog itself.

The same expensive text as a page that Django's cache_page caches, and as pages at the blog's
levels, which have a guard: see resilient_cache/guard.py. Each run has pages of its own.
"""

from contextvars import copy_context

from django.conf import settings
from django.core.cache.utils import make_template_fragment_key
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.test import RequestFactory
from django.urls import re_path, reverse
from django.views.decorators.http import require_safe

from lab.caches import empty, lab_cache
from lab.leak import cache_page as plain_cache_page
from lab.leak import run_cache
from lab.pages import RUN, delete, delete_page
from lab.visitor import Visitor
from resilient_cache.pages import cache_page, never_cache

TIMEOUT = 60  # seconds
works = {}  # Of the runs that are going on, by their id.


def text_of(run):
    """Return the expensive text, built anew. Its first line is a number."""
    if run not in works:
        raise Http404("There is no such page outside of a run.")
    number, html = works[run].build()
    return f"{number}\n{html}"


@require_safe
@plain_cache_page(TIMEOUT)
def plain(request, run):
    """Django's own: a look, the view, and then the page is stored."""
    return HttpResponse(text_of(run))


@require_safe
@cache_page(TIMEOUT, cache="view")
def view(request, run):
    """The decorator of resilient_cache: one request builds, and the others wait."""
    return HttpResponse(text_of(run))


@require_safe
def site(request, run):
    """There is nothing to do here: the middleware has the same guard."""
    return HttpResponse(text_of(run))


@require_safe
@never_cache  # As a page.
def fragment(request, run):
    """{% cache %} of resilient_cache, with the same guard."""
    context = {"run": run, "text": lambda: text_of(run)}
    return render(request, "lab/stampede_fragment.html", context)


PAGES = {
    "Django’s cache_page": plain,
    "Per view": view,
    "Whole site": site,
    "Fragment": fragment,
}
urls = tuple(
    re_path(f"^page/{page.__name__}/{RUN}/$", page, name=f"stampede-{page.__name__}")
    for page in PAGES.values()
)


def own_request():
    """Return a request to this site, at a host that it answers to."""
    host = (settings.ALLOWED_HOSTS or ["localhost"])[0].replace("*", "localhost").lstrip(".")
    secure = settings.SECURE_SSL_REDIRECT
    return RequestFactory().get("/", secure=secure, headers={"host": host})


def visitors(request, number):
    """Return Visitors that share one loaded Django, so that a burst waits for pages only."""
    found = [Visitor(request) for _ in range(number)]
    handler = found[0].handler
    handler.load_middleware()
    for visitor in found:
        visitor.handler = handler
    return found


def page_bursts(run, number, burst, work):
    """Yield (name, Burst) of each page, cold. `burst` is the function of lab/stampede.py."""
    cache, request = lab_cache(run.id), own_request()
    works[run.id] = work
    current, found = run_cache.set(cache), visitors(request, number)
    try:
        for name, page in PAGES.items():
            url = reverse(f"lab:stampede-{page.__name__}", args=[run.id])
            # A thread begins without the context of this one, where the cache of the run is.
            waiting = [(visitor, copy_context()) for visitor in found]

            def ask(url=url, waiting=waiting):
                visitor, context = waiting.pop()
                return context.run(visitor.get, url).text.split("\n", 1)

            yield name, burst(run, number, lambda ask=ask: numbered(ask()), work)
    finally:
        run_cache.reset(current)
        del works[run.id]
        empty(cache)
        for level in ("site", "view"):
            url = reverse(f"lab:stampede-{level}", args=[run.id])
            delete_page(level, request, url, settings.CACHE_MIDDLEWARE_KEY_PREFIX)
        delete("template_fragments", make_template_fragment_key("lab_stampede", [run.id]))


def numbered(answer):
    number, html = answer
    return int(number), html
