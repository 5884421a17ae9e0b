"""
Race: one page, built by the same code, kept at each of the four levels and at none.

The browser asks for the pages, one after another, and measures (static/lab/race.js). So a
race ends with its tab, and nothing here has to be stopped.
"""

from django import forms
from django.core.cache import cache
from django.core.cache.utils import make_template_fragment_key
from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import path, re_path
from django.views.decorators.cache import cache_page
from django.views.decorators.http import require_POST, require_safe
from django_redis.exceptions import ConnectionInterrupted

from blog import search
from blog.models import Post
from lab.experiment import Experiment
from lab.pages import RUN, drop_fragment, drop_page, drop_value, new_run

TIMEOUT = 60  # Seconds, at each level. The cache middleware has its own, of the same length.
PAGE = "lab/race_page.html"


def build():
    """Return what the page shows, as plain values. Costly: it reads and renders it all."""
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
        "related": search.cards([pair for pair in similar if pair[0] != newest.pk]),
    }


@require_safe
def none(request, run):
    """Nobody keeps anything. The template gets the function and calls it."""
    return render(request, PAGE, {"level": "none", "parts": build})


@require_safe
def low_level(request, run):
    """The values are kept. The template is rendered for each request."""
    parts = cache.get_or_set(f"lab-race:{run}", build, TIMEOUT)
    return render(request, PAGE, {"level": "low-level", "parts": parts})


@require_safe
def fragment(request, run):
    """
    The costly HTML is kept. The frame around it is rendered for each request.

    The template is the same one with {% cache 60 lab_race run %} around the block.
    """
    context = {"level": "fragment", "run": run, "parts": build}
    return render(request, "lab/race_fragment.html", context)


@require_safe
@cache_page(TIMEOUT, cache="view")
def view(request, run):
    """The page is kept. This function runs on a miss only, the middleware above it always."""
    return render(request, PAGE, {"level": "view", "parts": build})


@require_safe
def site(request, run):
    """The page is kept, and FetchFromCacheMiddleware answers: there is nothing to do here."""
    return render(request, PAGE, {"level": "site", "parts": build})


LEVELS = {"none": none, "low-level": low_level, "fragment": fragment, "view": view, "site": site}


class RaceForm(forms.Form):
    rounds = forms.IntegerField(
        min_value=1, max_value=50, initial=20, help_text="1 to 50, each level cold and warm."
    )
    run = forms.RegexField(rf"^{RUN}\Z", initial=new_run, widget=forms.HiddenInput)


@require_POST
def drop(request):
    """Drop what this run has kept, at each level: its next pages are cold."""
    form = RaceForm(request.POST)
    if not form.is_valid():
        return JsonResponse({"errors": form.errors}, status=400)
    name = f"lab-race:{form.cleaned_data['run']}"
    try:
        drop_page("site", name)
        drop_page("view", name)
        drop_fragment(make_template_fragment_key("lab_race", [form.cleaned_data["run"]]))
        drop_value(name)
    except ConnectionInterrupted:
        errors = {"": ["Redis does not answer, so there is nothing to race."]}
        return JsonResponse({"errors": errors}, status=503)
    return HttpResponse(status=204)


experiment = Experiment(
    slug="race",
    title="Race",
    idea=(
        "One costly page, built by the same code, kept at each level and at none. "
        "Your browser asks for it again and again, cold and warm, and measures both ends."
    ),
    lesson=(
        "The further out a level stands, the less is left to do. At the site level neither the "
        "view nor a template runs, only the middleware.",
        "Cold, all levels cost what no cache costs. What is asked for only once gains nothing "
        "from being kept.",
        "A fragment or a value still pays for the rest of its page. In return, that rest may "
        "be personal.",
        "Your browser adds the way there and back to each. Once a page takes a millisecond, "
        "the way is what is left, and only the browser’s own copy saves that.",
    ),
    code=(build, *LEVELS.values()),
    form=RaceForm,
    answer=lambda request, **options: {},  # Without JavaScript there is no race.
    context=lambda request: {"levels": LEVELS},
    pages=(
        path("drop/", drop, name="race_drop"),
        *(re_path(f"^page/{level}/{RUN}/$", page) for level, page in LEVELS.items()),
    ),
)
