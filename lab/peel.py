"""
Peel: one page that all four levels and the browser cache. Delete one entry, and ask the next.

A page of the blog has one owner: cached twice, it has to be invalidated twice. This one is
cached five times, so that you can watch each of them.
"""

import re
from datetime import UTC, datetime
from functools import partial

from django.conf import settings
from django.core.cache import cache, caches
from django.core.cache.utils import make_template_fragment_key
from django.http import JsonResponse
from django.shortcuts import render
from django.urls import re_path, reverse
from django.views.decorators.http import require_POST, require_safe
from django_redis.exceptions import ConnectionInterrupted

from blog.models import Post
from lab.caches import LEVELS
from lab.experiment import Experiment, Question
from lab.pages import RUN, asked, delete, delete_page, key_of, new_run
from resilient_cache.pages import cache_page, never_cache
from watch.event import unwatched

# Seconds. The inner ones live longer, so that they are there when the outer ones have expired.
BROWSER_TIMEOUT = 30
SITE_TIMEOUT = 60
VIEW_TIMEOUT = 2 * 60
VALUE_TIMEOUT = 10 * 60
ALIASES = {"fragment": "template_fragments", "low-level": "default"}
PREFIX = ""  # The key_prefix of both page levels.
MADE = re.compile(r'data-made="([\d:]+)"')


def count():
    """Return how long all posts take to read, and when that was counted. Reads them all."""
    minutes = sum(month["minutes"] for month in Post.objects.published().months())
    return {"minutes": minutes, "made": datetime.now(UTC).strftime("%H:%M:%S")}


@require_safe
@cache_page(SITE_TIMEOUT, cache="site", key_prefix=PREFIX, browser=BROWSER_TIMEOUT)
@cache_page(VIEW_TIMEOUT, cache="view", key_prefix=PREFIX, browser=BROWSER_TIMEOUT)
def page(request, run):
    """
    A page that the browser and both page levels cache, with a fragment and a value in it.

    The upper decorator stands in for the middleware, which leaves a decorated view alone.
    """
    context = {
        "run": run,
        # Functions: what is in a cached fragment is not computed.
        "count": partial(cache.get_or_set, f"lab-peel:{run}", count, VALUE_TIMEOUT),
        "posts": Post.objects.published().for_cards,
    }
    return render(request, "lab/peel_page.html", context)


def delete_level(level, request, run):
    """Delete this run's entry from one level."""
    if level in ("site", "view"):
        delete_page(level, request, reverse("lab:peel_page", args=[run]), PREFIX)
    else:
        delete(ALIASES[level], inner_keys(run)[level])


def inner_keys(run):
    """Return {level: key} of the fragment and the value."""
    return {
        "fragment": make_template_fragment_key("lab_peel", [run]),
        "low-level": f"lab-peel:{run}",
    }


class NotCached(Exception):
    """The page is not there."""


def build_nothing(request, run):
    raise NotCached


# The same decorators above a view that builds nothing: whatever it returns was in the cache.
LOOKS = {
    alias: cache_page(1, cache=alias, key_prefix=PREFIX)(build_nothing)
    for alias in ("site", "view")
}


@unwatched()  # Or the answer would say that a level had it.
def holds(request, run):
    """Return {level: {"left": seconds, "made": time} or None}. Looking stores nothing."""
    url = reverse("lab:peel_page", args=[run])
    rings = dict.fromkeys(LEVELS)
    for alias, look in LOOKS.items():
        try:
            # HEAD reads the entry of GET, and does not fill it.
            html = look(asked(request, url, "HEAD"), run=run).content.decode(errors="replace")
        except NotCached:
            continue
        left = caches[alias].ttl(key_of(request, url, PREFIX))
        rings[alias] = {"left": left, "made": made_at(html)}
    for level, key in inner_keys(run).items():
        stored = caches[ALIASES[level]]
        value = stored.get(key)
        made = made_at(value) if isinstance(value, str) else value and value["made"]
        rings[level] = made and {"left": stored.ttl(key), "made": made}
    return rings


def made_at(html):
    """Return the time that a page or a fragment was made at, None if it does not say."""
    found = MADE.search(html)
    return found and found[1]


@require_POST
def delete_outermost(request, run):
    """Delete the outermost entry of this run, or with `all` every one."""
    rings = holds(request, run)
    held = [level for level, entry in rings.items() if entry]
    # Also without an entry: a deletion tells whether Redis answers.
    deleted = held if "all" in request.POST else held[:1]
    try:
        for level in deleted or ["site"]:
            delete_level(level, request, run)
    except ConnectionInterrupted:
        return JsonResponse({"error": "Redis does not answer. Try again."}, status=503)
    return JsonResponse({"deleted": deleted, "rings": rings | dict.fromkeys(deleted)})


@never_cache
@require_safe
def rings(request, run):
    """Tell what each level holds."""
    return JsonResponse({"rings": holds(request, run)})


experiment = Experiment(
    slug="peel",
    title="Peel",
    post="choosing-a-level",
    idea=(
        "One page that your browser and all four levels cache, one within the other. "
        "Delete the outermost entry, ask again, and watch the next ring answer, down to the "
        "database and back up."
    ),
    lesson=(
        "The outermost copy answers and hides all within. Deleting an inner entry alone does "
        "not change what a reader sees.",
        "No server can delete your browser’s copy. Until its `max-age` is over, only a reload "
        "goes past it. That is why the blog’s own pages say `no-cache`.",
        "A hit at the per-view level does not fill the whole-site level again. If it did, the "
        "timeouts of both levels would add up.",
        "This page is cached five times to show it. In the blog each page has one owner: the "
        "middleware leaves a view with `cache_page` alone.",
    ),
    code=(page, count, delete_level),
    question=Question(
        "The whole-site entry is deleted, so the per-view level answers. Does its hit fill the "
        "whole-site level again?",
        {"filled": "yes", "empty": "no"},
    ),
    answer=lambda request: {},
    context=lambda request: {
        "run": new_run(),
        "watched": settings.CACHE_WATCH,
        "levels": LEVELS,
    },
    pages=(
        re_path(f"^page/{RUN}/$", page, name="peel_page"),
        re_path(f"^delete/{RUN}/$", delete_outermost, name="peel_delete"),
        re_path(f"^rings/{RUN}/$", rings, name="peel_rings"),
    ),
)
