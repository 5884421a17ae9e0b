"""
Race: one page, built by the same code, cached at each of the four levels and at none.

The browser asks for the pages, one after another, and measures (static/lab/race.js). If
its tab is closed, the race ends.
"""

from django import forms
from django.conf import settings
from django.core.cache import cache
from django.core.cache.utils import make_template_fragment_key
from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import path, re_path, reverse
from django.views.decorators.http import require_POST, require_safe
from django_redis.exceptions import ConnectionInterrupted

from blog import search
from blog.models import Post
from lab.caches import LEVELS as TITLES
from lab.experiment import Experiment, Question
from lab.pages import RUN, delete, delete_page, new_run
from resilient_cache.pages import cache_page, never_cache

TIMEOUT = 60  # Seconds, at each level. The cache middleware has its own, of the same length.
PAGE = "lab/race_page.html"


def build():
    """Return what the page shows, as plain values. Expensive: it reads and renders it all."""
    posts = Post.objects.published()
    newest = posts.first()
    if newest is None:
        return {}
    index = search.build_index()
    similar = search.best(index, search.terms_of(index, newest.pk), 1 + search.MAX_RELATED)
    return {
        "title": newest.title,
        "body": newest.body_html(),  # Markdown with highlighted code.
        "months": posts.months(),
        "discussed": list(posts.most_discussed().values("slug", "title", "comment_count")),
        "related": search.cards([pk for pk in similar if pk != newest.pk]),
    }


@require_safe
@never_cache
def none(request, run):
    """No level caches it. The template gets the function and calls it."""
    return render(request, PAGE, {"level": "none", "parts": build})


@require_safe
@never_cache  # As a page.
def low_level(request, run):
    """The values are cached. The template is rendered for each request."""
    parts = cache.get_or_set(f"lab-race:{run}", build, TIMEOUT)
    return render(request, PAGE, {"level": "low-level", "parts": parts})


@require_safe
@never_cache  # As a page.
def fragment(request, run):
    """
    The expensive HTML is cached. The frame around it is rendered for each request.

    The template is the same one with {% cache 60 lab_race run %} around the block.
    """
    context = {"level": "fragment", "run": run, "parts": build}
    return render(request, "lab/race_fragment.html", context)


@require_safe
@cache_page(TIMEOUT, cache="view")
def view(request, run):
    """The page is cached. This function runs on a miss only, the middleware above it always."""
    return render(request, PAGE, {"level": "view", "parts": build})


@require_safe
def site(request, run):
    """The page is cached by the middleware: there is nothing to do here."""
    return render(request, PAGE, {"level": "site", "parts": build})


LEVELS = {"none": none, "low-level": low_level, "fragment": fragment, "view": view, "site": site}


class RaceForm(forms.Form):
    rounds = forms.IntegerField(
        min_value=1, max_value=50, initial=20, help_text="1 to 50, each level cold and warm"
    )
    run = forms.RegexField(rf"^{RUN}\Z", initial=new_run, widget=forms.HiddenInput)


@require_POST
def make_cold(request):
    """Delete what this run has stored at each level: its next pages are cold."""
    form = RaceForm(request.POST)
    if not form.is_valid():
        return JsonResponse({"errors": form.errors}, status=400)
    run = form.cleaned_data["run"]
    try:
        for level in ("site", "view"):
            url = reverse(f"lab:race-{level}", args=[run])
            delete_page(level, request, url, settings.CACHE_MIDDLEWARE_KEY_PREFIX)
        delete("template_fragments", make_template_fragment_key("lab_race", [run]))
        delete("default", f"lab-race:{run}")
    except ConnectionInterrupted:
        errors = {"": ["Redis does not answer, so no level can cache the page."]}
        return JsonResponse({"errors": errors}, status=503)
    return HttpResponse(status=204)


experiment = Experiment(
    slug="race",
    title="Race",
    post="choosing-a-level",
    idea=(
        "One expensive page, built by the same code, cached at each level and at none. "
        "Your browser asks for it again and again, cold and warm, and measures both ends."
    ),
    lesson=(
        "The further out a level is, the less is left to do. At the whole-site level neither the "
        "view nor a template runs, only the middleware.",
        "Cold, every level costs what no cache costs. A cache does not help a page that is asked "
        "for only once.",
        "With a fragment or a value, the rest of the page is still built each time. In return, "
        "the rest may be personal.",
        "Your browser adds the network to each. When a page takes a millisecond, the network takes "
        "most of the time. Only the browser’s own copy saves that.",
    ),
    code=(build, *LEVELS.values()),
    question=Question(
        "In the server, how many times as fast is a warm page of the whole-site level as the same "
        "page without a cache?",
        {"few": "less than 2 times", "some": "2 to 10 times", "many": "more than 10 times"},
    ),
    form=RaceForm,
    answer=lambda request, **options: {},  # Without JavaScript there is no race.
    context=lambda request: {"levels": [(name, TITLES.get(name, "No cache")) for name in LEVELS]},
    pages=(
        path("delete/", make_cold, name="race_delete"),
        *(
            re_path(f"^page/{level}/{RUN}/$", page, name=f"race-{level}")
            for level, page in LEVELS.items()
        ),
    ),
)
