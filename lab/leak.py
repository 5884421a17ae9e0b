"""
Leak: a page that was made for Alice, cached, and given to Bob. Each wrong view, and its fixes.

The views below use Django's own cache_page. Their entries are in a cache of the run's own, which
is emptied at the end. Alice and Bob are sessions with a name in them. There are no accounts, and
both sessions are deleted after the run.
"""

import inspect
import re
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib import import_module

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpResponse
from django.middleware.cache import CacheMiddleware
from django.middleware.csrf import get_token
from django.urls import path, reverse
from django.utils.decorators import decorator_from_middleware_with_args
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST
from django.views.decorators.vary import vary_on_cookie
from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import RedisError

from blog.models import Post
from lab.caches import empty, keys_of, lab_cache
from lab.experiment import Experiment, Question, listing_of
from lab.pages import new_run
from lab.visitor import Visitor
from resilient_cache.pages import never_cache

NAMES = ("Alice", "Bob", "anonymous")
SECONDS = 60
TOKEN = re.compile(r"[A-Za-z0-9]{64}")
# prefix, page or header, method (of pages alone), MD5 of the URL, MD5 of the headers that Vary
# names, time zone
KEY = re.compile(
    r"(.*\.cache_)(page|header)(\.\.(?:GET\.|HEAD\.)?)([0-9a-f]{32})\.([0-9a-f]{32})?(.*)"
)
run_cache = ContextVar("run_cache")


class LabCacheMiddleware(CacheMiddleware):
    """Django's own, with the cache of the run instead of an alias of the settings."""

    @property
    def cache(self):
        try:
            return run_cache.get()
        except LookupError:
            raise Http404("There is no such page outside of a run.") from None


def cache_page(timeout):
    """Django's cache_page, with the middleware above, and no prefix from the settings."""
    decorate_with = decorator_from_middleware_with_args(LabCacheMiddleware)
    decorator = decorate_with(page_timeout=timeout, key_prefix="")

    def decorate(view):
        cached = decorator(view)
        cached.caches_its_page = True  # The blog's whole-site level leaves it alone.
        return cached

    return decorate


def name_of(request):
    """Return the visitor's name. Reading the session is what makes a page personal."""
    return request.session.get("lab_name", "anonymous")


# A page that greets -----------------------------------------------------------------


@cache_page(SECONDS)
def greeting(request):
    """Wrong: made for the first visitor, and cached for everybody."""
    return HttpResponse(f"Hello, {name_of(request)}.")


@cache_page(SECONDS)
@vary_on_cookie  # Below cache_page: the header has to be there when that one stores the page.
def greeting_varied(request):
    """Right, and seldom useful: an entry for each cookie."""
    return HttpResponse(f"Hello, {name_of(request)}.")


@never_cache
def greeting_never(request):
    """Right: a page that is personal as a whole is not cached."""
    return HttpResponse(f"Hello, {name_of(request)}.")


@never_cache
def greeting_apart(request):
    """Right: the expensive part is the same for all and cached. The name is of this request."""
    posts = run_cache.get().get_or_set("posts", Post.objects.published().count, SECONDS)
    return HttpResponse(f"Hello, {name_of(request)}. There are {posts} posts.")


# A page with a form -----------------------------------------------------------------


def show_form(request):
    """Answer with a form and the token that {% csrf_token %} writes into it."""
    if request.method == "POST":
        return HttpResponse("Thank you.")
    return HttpResponse(f"A form with the token {get_token(request)}")


@cache_page(SECONDS)
def form(request):
    """Wrong: the token is one visitor's."""
    return show_form(request)


@cache_page(SECONDS)
@csrf_protect  # Below cache_page: so the cookie and `Vary: Cookie` are there in time.
def form_protected(request):
    """Right, and not cached: Django stores no response that sets a cookie and varies on it."""
    return show_form(request)


@cache_page(SECONDS)
def form_linked(request):
    """Right: the cached page has a link to the form, and no form."""
    return HttpResponse("All comments. To write one, follow the link.")


@never_cache
def form_alone(request):
    """The form's own page."""
    return show_form(request)


# A page with a message --------------------------------------------------------------


@require_POST
def save(request):
    """Leave a message for the next page that this visitor sees."""
    messages.success(request, f"Your note is saved, {name_of(request)}.")
    return HttpResponse(status=204)


@cache_page(SECONDS)
def notes(request):
    """Wrong: a message is for one visitor, and this page is for all."""
    told = " ".join(map(str, messages.get_messages(request)))
    return HttpResponse(f"{told} All notes of today.".strip())


@cache_page(SECONDS)
def notes_without(request):
    """Right: the page for all has no place for messages."""
    return HttpResponse("All notes of today.")


@never_cache
def notes_saved(request):
    """A page of the visitor's own shows the message, which waits in the session."""
    told = " ".join(map(str, messages.get_messages(request)))
    return HttpResponse(told or "No messages.")


# What is asked ----------------------------------------------------------------------


def ask_greeting(stage, view):
    for who in (*NAMES, "Bob"):
        stage.get(who, view)


def ask_form(stage, view, form_view=None):
    for who in NAMES:
        stage.get(who, view)
        if form_view:
            stage.get(who, form_view)
    for who in NAMES:
        stage.post(who, form_view or view)


def ask_form_alone(stage, view):
    ask_form(stage, view, form_alone)


def ask_notes(stage, view):
    stage.post("Alice", save)
    for who in (*NAMES, "Alice"):
        stage.get(who, view)


def ask_notes_apart(stage, view):
    stage.post("Alice", save)
    for asked in (view, notes_saved):
        for who in NAMES:
            stage.get(who, asked)


@dataclass
class Variant:
    """A view, wrong or a fix, and what Alice, Bob and an anonymous visitor ask of it."""

    title: str
    view: Callable
    ask: Callable
    is_right: bool = True


PAGES = {
    "greeting": (
        Variant("cache_page on a personal page", greeting, ask_greeting, False),
        Variant("Fix: vary on the cookie", greeting_varied, ask_greeting),
        Variant("Fix: never cache", greeting_never, ask_greeting),
        Variant("Fix: cache the part that is the same for all", greeting_apart, ask_greeting),
    ),
    "form": (
        Variant("cache_page on a page with a form", form, ask_form, False),
        Variant("Fix: protect below cache_page", form_protected, ask_form),
        Variant("Fix: a page of its own for the form", form_linked, ask_form_alone),
    ),
    "message": (
        Variant("cache_page on a page with messages", notes, ask_notes, False),
        Variant("Fix: messages on pages that are not cached", notes_without, ask_notes_apart),
    ),
}


@dataclass
class Asked:
    """One request and its answer."""

    who: str
    request: str
    status: int
    text: str
    cached: str  # what the cache did
    vary: str
    leaked: str  # the name of the visitor that it was made for, if another one


@dataclass
class Stage:
    """Alice, Bob and an anonymous visitor ask one view. The cache is empty at first."""

    variant: Variant
    cache: object
    visitors: dict
    asked: list = field(default_factory=list)
    keys: dict = field(default_factory=dict)  # who was answered when it was stored, in order
    owners: dict = field(default_factory=dict)  # of each token
    shown: dict = field(default_factory=dict)  # the token on the page that each saw last

    def get(self, who, view):
        response = self.visitors[who].get(url_of(view))
        text = response.text
        if token := TOKEN.search(text):
            owner = self.owners.setdefault(token[0], who)
            self.shown[who] = token[0]
            text = text.replace(token[0], f"{token[0][:6]}..., {owner}’s")
        self.note(who, "GET", view, response, text)

    def post(self, who, view):
        data = {"csrfmiddlewaretoken": self.shown.get(who, "")}
        response = self.visitors[who].post(url_of(view), data)
        text = response.text if response.status_code == 200 else ""
        if response.status_code == 403:
            text = f"Refused: {owner_of(self, who)} token, {who}’s cookie."
        self.note(who, "POST", view, response, text)

    def note(self, who, method, view, response, text):
        """Write down what was answered, and which keys are new in Redis since."""
        new = [key for key in keys_of(self.cache) if key not in self.keys]
        self.keys |= dict.fromkeys(new, who)
        if method == "POST":
            cached = "POST is never cached"
        elif response.has_header("Age"):
            cached = "hit"
        elif self.variant.view is greeting_apart:
            cached = "page built, part " + ("stored" if new else "hit")
        else:
            cached = "miss, stored" if new else "miss, not stored"
        others = [name for name in ("Alice", "Bob") if name != who]
        leaked = next((name for name in others if name in text), "") if method == "GET" else ""
        vary, request = response.get("Vary", "none"), f"{method} {view.__name__}"
        self.asked.append(Asked(who, request, response.status_code, text, cached, vary, leaked))

    @property
    def leaks(self):
        return sum(bool(asked.leaked) for asked in self.asked)

    @property
    def refused(self):
        return sum(asked.status == 403 for asked in self.asked)

    @property
    def listing(self):
        return listing_of(inspect.unwrap(self.variant.view))

    @property
    def stored(self):
        """Return the keys in parts: those that differ between two pages are marked."""
        rows = [(key, who, KEY.fullmatch(key)) for key, who in self.keys.items()]
        pages = [match for _, _, match in rows if match and match[2] == "page"]
        differ = [len({match[part] for match in pages}) > 1 for part in range(1, 7)]
        return [
            {
                "who": who,
                "what": {"page": "a page", "header": "what it varies on"}.get(
                    match and match[2], "a value"
                ),
                "parts": [
                    {"text": text, "differs": differs and match[2] == "page"}
                    for text, differs in zip(dotted(match), differ, strict=True)
                ]
                if match
                else [{"text": key, "differs": False}],
            }
            for key, who, match in rows
        ]


def owner_of(stage, who):
    """Return whose token `who` sent, in the genitive."""
    owner = stage.owners.get(stage.shown.get(who))
    return f"{owner}’s" if owner else "no"


def dotted(match):
    """Return the parts of a key, which together are the key."""
    start, what, method, url, vary, end = match.groups(default="")
    return [start, what, method, f"{url}.", vary, end]


def url_of(view):
    return reverse(f"lab:leak-{view.__name__}")


def play(request, variant):
    """Let Alice, Bob and an anonymous visitor ask for one view, and return the Stage."""
    cache = lab_cache(new_run())
    cache.get("")  # If Redis is down the run ends here, and Django logs no error of a view.
    sessions = {name: session_of(name) for name in ("Alice", "Bob")}
    # By default a test client is excused from CSRF checks.
    checked = variant in PAGES["form"]
    visitors = {name: Visitor(request, enforce_csrf_checks=checked) for name in NAMES}
    for name, session in sessions.items():
        visitors[name].cookies[settings.SESSION_COOKIE_NAME] = session.session_key
    stage = Stage(variant, cache, visitors)
    current = run_cache.set(cache)
    try:
        variant.ask(stage, variant.view)
    finally:
        run_cache.reset(current)
        for session in sessions.values():
            session.delete()
        empty(cache)
    return stage


def session_of(name):
    """Return a session that knows a name. It expires by itself if this process dies."""
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session["lab_name"] = name
    session.set_expiry(SECONDS)
    session.save()
    return session


def answer(request, page):
    try:
        return {"stages": [play(request, variant) for variant in PAGES[page]]}
    except (ConnectionInterrupted, RedisError):
        return {"problem": "Redis does not answer, so no page can be cached."}


def came(context):
    """Return what Bob got from the wrong view, as a key of the question's choices."""
    for stage in context.get("stages", ())[:1]:
        for asked in stage.asked:
            if asked.who == "Bob" and asked.request.startswith("GET"):
                return asked.leaked.lower() or ("his own" if asked.status == 200 else "refused")
    return None


class LeakForm(forms.Form):
    page = forms.ChoiceField(
        label="What is personal in it",
        choices=[
            ("greeting", "a greeting: “Hello, Alice”"),
            ("form", "a form: its CSRF token"),
            ("message", "a message: “Your note is saved”"),
        ],
    )


VIEWS = (
    *(greeting, greeting_varied, greeting_never, greeting_apart),
    *(form, form_protected, form_linked, form_alone),
    *(save, notes, notes_without, notes_saved),
)
experiment = Experiment(
    slug="leak",
    title="Leak",
    post="personal-pages-and-leaks",
    idea="A page is made for Alice, and `cache_page` stores it. Then Bob asks for the same URL, "
    "and so does a visitor who is not logged in.",
    lesson=(
        "A key that leaves out what the page depends on gives one visitor’s page to another.",
        "`cache_page` stores the page before `SessionMiddleware` adds `Vary: Cookie`. A decorator "
        "that adds it goes below cache_page. Even so, each cookie has an entry of its own.",
        "A CSRF token and a flash message are personal, too.",
        "Cache what is the same for everybody, as a page or a part. Build the rest each time.",
    ),
    code=(
        *(*map(inspect.unwrap, VIEWS[:4]), name_of),
        *(show_form, *map(inspect.unwrap, VIEWS[4:])),
        *(cache_page, LabCacheMiddleware, Stage, play),
    ),
    question=Question(
        "Alice asks first, then Bob. With cache_page and no fix, what does Bob get?",
        {"his own": "a page of his own", "alice": "Alice’s page", "refused": "no page"},
        came,
    ),
    form=LeakForm,
    answer=answer,
    pages=tuple(
        path(f"pages/{view.__name__}/", view, name=f"leak-{view.__name__}") for view in VIEWS
    ),
)
