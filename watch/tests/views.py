"""Views for urls.py: a page for each thing that a level can do."""

from django.core.cache import cache
from django.http import Http404, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers
from django.views import View
from django.views.decorators.cache import cache_control, cache_page, never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from watch.tests import prices

EXPIRES = "Wed, 21 Oct 2037 07:28:00 GMT"


def home(request):
    response = render(request, "page.html")
    response.headers["Expires"] = EXPIRES
    return response


def about(request):
    return render(request, "page.html")


@cache_control(no_cache=True)
def asks_first(request):
    return render(request, "page.html")


@require_safe
@cache_page(300, cache="view")
def cached_by_view(request):
    return render(request, "page.html")


@cache_page(300, cache="view")
@vary_on_headers("X-Edition")
def varies(request):
    return HttpResponse(request.headers.get("X-Edition", "no edition"))


@never_cache
def never(request):
    return HttpResponse("never")


@cache_control(private=True)
def private(request):
    return HttpResponse("private")


def cookie(request):
    response = HttpResponse("cookie")
    response.set_cookie("name", "Ada")
    patch_vary_headers(response, ["Cookie"])
    return response


@never_cache
def fragments(request):
    return render(request, "fragments.html")


@never_cache
def low_level(request):
    cache.get_or_set("answer", 42, 60)
    return HttpResponse("low-level")


@never_cache
def price_list(request):
    found = prices.several(["tea", "coffee", "milk"])
    return render(request, "page.html", {"prices": found})


@never_cache
def many(request, number):
    for index in range(number):
        cache.get(f"key-{index}")
    return HttpResponse("many")


def error(request):
    cache.get("before the error")
    raise ValueError("This view never works.")


def missing(request):
    raise Http404


def stream(request):
    def body():
        yield cache.get_or_set("streamed", "chunk", 60)

    return StreamingHttpResponse(body())


async def asynchronous(request):
    await cache.aget("asked by an async view")
    return HttpResponse("async")


async def asynchronous_stream(request):
    async def body():
        yield "chunk"
        await cache.aget("asked by an async body")

    return StreamingHttpResponse(body())


def redirected(request):
    return HttpResponseRedirect("/")


@csrf_exempt
def form(request):
    return render(request, "form.html", {"error": request.method == "POST"})


def says_it_itself(request):
    return HttpResponse("timed", headers={"Server-Timing": "db;dur=1.5"})


@never_cache
def hostile(request, name):
    cache.get(name)
    return HttpResponse("hostile")


class ClassBased(View):
    def get(self, request):
        return HttpResponse("class")
