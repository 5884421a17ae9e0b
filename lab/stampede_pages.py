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

from lab.caches import lab_cache
from lab.leak import cache_page as plain_cache_page
from lab.leak import run_cache
from lab.pages import RUN, delete_fragment, invalidate_page
from lab.visitor import Visitor
from resilient_cache.pages import cache_page

TIMEOUT = 60  # seconds
works = {}  # of the runs that are going on, by their id


def text_of(run):
    """Return the costly text, built anew. Its first line is a number."""
    if run not in works:
        raise Http404("There is no such page outside of a run.")
    number, html = works[run].build()
    return f"{number}\n{html}"


@require_safe
@plain_cache_page(TIMEOUT)
def plain(request, run):
    """As Django has it: a look, the view, and then the page is stored."""
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
def fragment(request, run):
    """{% cache %} of resilient_cache, with the same guard."""
    context = {"run": run, "text": lambda: text_of(run)}
    return render(request, "lab/stampede_fragment.html", context)


PAGES = {
    "cache_page": plain,
    "per view": view,
    "whole site": site,
    "fragment": fragment,
}
urls = tuple(
    re_path(f"^page/{page.__name__}/{RUN}/$", page, name=f"stampede-{page.__name__}")
    for page in PAGES.values()
)


def visitors(number):
    """Return Visitors who share one loaded Django, so that a burst has only pages to wait for."""
    host = (settings.ALLOWED_HOSTS or ["localhost"])[0].replace("*", "localhost").lstrip(".")
    secure = settings.SECURE_SSL_REDIRECT
    request = RequestFactory().get("/", secure=secure, headers={"host": host})
    found = [Visitor(request) for _ in range(number)]
    handler = found[0].handler
    handler.load_middleware()
    for visitor in found:
        visitor.handler = handler
    return found


def page_bursts(run, number, burst, work):
    """Yield (name, Burst) of each page, cold. `burst` is the function of lab/stampede.py."""
    cache = lab_cache(run.id)
    works[run.id] = work
    current, found = run_cache.set(cache), visitors(number)
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
        cache.delete_pattern("*")
        for level in ("site", "view"):
            invalidate_page(level, reverse(f"lab:stampede-{level}", args=[run.id]))
        delete_fragment(make_template_fragment_key("lab_stampede", [run.id]))


def numbered(answer):
    number, html = answer
    return int(number), html
