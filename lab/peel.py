"""
Peel: one page that all four levels and the browser keep. Take one away, and ask the next.

A page of the blog has one owner: kept twice, it has to be dropped twice. This one is kept
five times, so that each can be watched.
"""

import re
from copy import copy
from datetime import UTC, datetime
from functools import partial

from django.conf import settings
from django.core.cache import cache, caches
from django.core.cache.utils import make_template_fragment_key
from django.http import JsonResponse
from django.shortcuts import render
from django.urls import re_path, reverse
from django.views.decorators.cache import cache_page, never_cache
from django.views.decorators.http import require_POST, require_safe
from django_redis.exceptions import ConnectionInterrupted

from blog.models import Post
from lab.experiment import Experiment
from lab.keys import django_keys
from lab.pages import RUN, drop_fragment, drop_page, drop_value, new_run
from mysite.caches.breaker import breaker_of
from mysite.caches.pages import generation_key, valid

# Seconds. The inner ones live longer, or there would be nothing behind the outer ones.
PAGE_TIMEOUT = 2 * 60  # Twice what CACHE_MIDDLEWARE_SECONDS gives the site level.
VALUE_TIMEOUT = 10 * 60
LEVELS = ("site", "view", "fragment", "low-level")  # Outermost first.
MADE = re.compile(r'data-made="([\d:]+)"')


def count():
    """Return how long all posts take to read, and when that was counted. Reads them all."""
    minutes = sum(month["minutes"] for month in Post.objects.published().months())
    return {"minutes": minutes, "made": datetime.now(UTC).strftime("%H:%M:%S")}


@require_safe
@cache_page(PAGE_TIMEOUT, cache="view")  # The row in lab/pages.py lets the site level keep it too.
def page(request, run):
    """A page that the browser, the site, and the view level keep, with a fragment and a value."""
    context = {
        "run": run,
        # Functions: what no fragment asks for is never computed.
        "count": partial(cache.get_or_set, name_of(run), count, VALUE_TIMEOUT),
        "posts": Post.objects.published().for_cards,
    }
    return render(request, "lab/peel_page.html", context)


def name_of(run):
    """Return what this run's value and its pages' generation are called."""
    return f"lab-peel:{run}"


def fragment_key(run):
    return make_template_fragment_key("lab_peel", [run])


def made_at(html):
    """Return the time that a page or a fragment was made at, None if it does not say."""
    found = MADE.search(html)
    return found and found[1]


def holds(request, run):
    """Return {level: {"left": seconds, "made": time} or None}, without counting as a visit."""
    asked = copy(request)
    asked.method = "GET"
    asked.path = asked.path_info = reverse("lab:peel_page", args=[run])
    asked.META = request.META | {"QUERY_STRING": ""}
    _, key = django_keys(asked)
    rings = dict.fromkeys(LEVELS)
    for alias in ("site", "view"):
        token = generation_key(name_of(run))
        found = caches[alias].get_many([key, token])
        response, _ = valid(found.get(key), found.get(token))
        if hasattr(response, "content"):
            made = made_at(response.content.decode(errors="replace"))
            rings[alias] = {"left": caches[alias].ttl(key), "made": made}
    fragments = caches["template_fragments"]
    html = fragments.get_many([fragment_key(run)]).get(fragment_key(run))
    if html is not None:
        rings["fragment"] = {"left": fragments.ttl(fragment_key(run)), "made": made_at(html)}
    value = cache.get(name_of(run))
    if isinstance(value, dict) and isinstance(value.get("made"), str):
        rings["low-level"] = {"left": cache.ttl(name_of(run)), "made": value["made"]}
    return rings


def drop_level(level, run):
    """Drop this run's entry from one level. A page is dropped by a new generation."""
    if level in ("site", "view"):
        drop_page(level, name_of(run))
    elif level == "fragment":
        drop_fragment(fragment_key(run))
    else:
        drop_value(name_of(run))


@require_POST
def drop(request, run):
    """Drop the outermost entry of this run, or with `all` every one."""
    try:
        held = [level for level, entry in holds(request, run).items() if entry]
        if not held and breaker_of().is_open:
            raise ConnectionInterrupted(connection=None)  # Each level looks empty then.
        dropped = held if "all" in request.POST else held[:1]
        for level in dropped:
            drop_level(level, run)
    except ConnectionInterrupted:
        return JsonResponse({"error": "Redis does not answer. Try again."}, status=503)
    return JsonResponse({"dropped": dropped, "rings": holds(request, run)})


@never_cache
@require_safe
def rings(request, run):
    """Tell what each level holds."""
    return JsonResponse({"rings": holds(request, run)})


experiment = Experiment(
    slug="peel",
    title="Peel",
    idea=(
        "One page that your browser and all four levels keep, one within the other. "
        "Drop the outermost entry, ask again, and watch the next ring answer, down to the "
        "database and back up."
    ),
    lesson=(
        "The outermost copy answers and hides all within: whoever drops an inner entry alone "
        "changes nothing that anybody sees.",
        "No server can drop your browser’s copy. Until its `max-age` is over, only a reload goes "
        "past it.",
        "The site level is not filled again by a view hit: Django stores what a view has built, "
        "and not what another cache had.",
        "`max-age` of the inner decides the timeout of the outer. `cache_page` sets two minutes "
        "here, so the site entry lives for two as well, and not for the one that "
        "`CACHE_MIDDLEWARE_SECONDS` says.",
    ),
    code=(page, count, drop_level),
    answer=lambda request: {},
    context=lambda request: {
        "run": new_run(),
        "watched": settings.CACHE_WATCH,
        "site_seconds": settings.CACHE_MIDDLEWARE_SECONDS,
    },
    pages=(
        re_path(f"^page/{RUN}/$", page, name="peel_page"),
        re_path(f"^drop/{RUN}/$", drop, name="peel_drop"),
        re_path(f"^rings/{RUN}/$", rings, name="peel_rings"),
    ),
)
