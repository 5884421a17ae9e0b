"""Views for urls.py: a page for each thing that a level can do."""

from django.core.cache import cache
from django.http import Http404, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers
from django.views import View
from django.views.decorators.cache import cache_control, cache_page, never_cache

EXPIRES = "Wed, 21 Oct 2037 07:28:00 GMT"


def home(request):
    return HttpResponse("home", headers={"Expires": EXPIRES})


@cache_page(300, cache="view")
def kept_by_view(request):
    return HttpResponse("view")


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


def says_it_itself(request):
    return HttpResponse("timed", headers={"Server-Timing": "db;dur=1.5"})


@never_cache
def hostile(request, name):
    cache.get(name)
    return HttpResponse("hostile")


class ClassBased(View):
    def get(self, request):
        return HttpResponse("class")
