"""What every experiment is: a page, its code, a form with a button, and a run or an answer."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from django.forms import Form
from django.http import JsonResponse
from django.shortcuts import render
from django.urls import include, path
from django.utils.html import format_html, format_html_join
from django.views.decorators.http import require_http_methods

from lab.run import Busy, Run
from resilient_cache.pages import never_cache
from watch.code import listing, own_file


@dataclass(frozen=True)
class Question:
    """
    "What do you expect?", asked before the button. The reader may leave it open.

    What came is a key of `choices`. An `answer` has it in what it returns: see `came`. A `run`
    tells it: run.tell("came", value=...). Where the page itself measures, its script tells it.
    """

    text: str
    choices: dict[str, str]  # key: words
    came: Callable = lambda context: None  # came(what the answer returned) -> key or None

    def told(self, expected, context):
        """Return whether it came as expected, as a sentence. "" without an expectation."""
        came = self.choices.get(self.came(context))
        expected = self.choices.get(expected)
        if not (expected and came):
            return ""
        happened = "That is what happened." if came == expected else f"What happened: {came}."
        return f"You expected: {expected}. {happened}"


@dataclass(frozen=True)
class Experiment:
    """
    One experiment. Its template is templates/lab/<slug>.html.

    It has either `run`, which works in a thread of its own and tells what happens while it
    does (see lab/run.py), or `answer`, which gets the request and returns what the page shows at
    once. Both get the cleaned data of `form` as keyword arguments.
    """

    slug: str
    title: str
    idea: str  # two sentences, `code` in backticks
    lesson: tuple  # what to take home, a few sentences each
    code: tuple  # functions and classes to show: what the experiment really runs
    question: Question | None = None
    post: str = ""  # the slug of the post that explains it
    form: type[Form] = Form
    run: Callable | None = None  # run(run, **options)
    answer: Callable | None = None  # answer(request, **options) -> context
    initial: Callable = lambda request: {}  # what the form holds at first
    context: Callable = lambda request: {}
    pages: tuple = ()  # URL patterns below /lab/<slug>/

    @cached_property
    def listings(self):
        """Return the code as Listings, highlighted, from the files themselves."""
        return [listing_of(code) for code in self.code]

    @property
    def idea_html(self):
        return with_code(self.idea)

    @property
    def lesson_html(self):
        return [with_code(text) for text in self.lesson]

    @property
    def streams(self):
        """Return whether it has a run. For templates, which would call `run` itself."""
        return self.run is not None

    @property
    def view_name(self):
        return f"lab:{self.slug}"

    @property
    def urls(self):
        return [
            path(f"{self.slug}/", self.page, name=self.slug),
            path(f"{self.slug}/", include(list(self.pages))),
        ]

    @property
    def page(self):
        """Return the view: GET shows the page, POST runs the experiment."""

        @never_cache  # It has a CSRF token.
        @require_http_methods(["GET", "HEAD", "POST"])
        def page(request):
            if request.method != "POST":
                return self.render(request, self.form(initial=self.initial(request)))
            form, expected = self.form(request.POST), request.POST.get("expect")
            if not form.is_valid():
                if self.run:
                    return JsonResponse({"errors": form.errors}, status=400)
                return self.render(request, form, status=400, expected=expected)
            if self.answer:
                context = self.answer(request, **form.cleaned_data)
                told = self.question.told(expected, context) if self.question else ""
                return self.render(request, form, told=told, **context)
            try:
                return Run(self.run, form.cleaned_data).response()
            except Busy as busy:
                return JsonResponse({"errors": {"": [str(busy)]}}, status=503)

        return page

    def render(self, request, form, status=200, **context):
        context = {"experiment": self, "form": form, **self.context(request), **context}
        return render(request, f"lab/{self.slug}.html", context, status=status)


def with_code(text):
    """Return text as HTML, in which what stood between backticks is code."""
    parts = [
        format_html("<code>{}</code>", part) if number % 2 else part
        for number, part in enumerate(text.split("`"))
    ]
    return format_html_join("", "{}", ((part,) for part in parts))


def listing_of(code):
    """Return the Listing of a function or class, its decorators included."""
    code = inspect.unwrap(code)
    lines, start = inspect.getsourcelines(code)
    file = own_file(inspect.getsourcefile(code))
    return listing(code.__name__, file, {}, start, start + len(lines) - 1)
