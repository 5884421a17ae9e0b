"""
Predict: the views in plain Django. The page shows this code, and the run runs it.

Each view says which edition it shows. edition() counts how often something was built, so the same
number twice is a hit.
"""

from django.core.cache import cache, caches
from django.db import transaction
from django.http import HttpResponse, HttpResponseNotFound, StreamingHttpResponse
from django.template import engines
from django.utils.cache import get_cache_key
from django.views.decorators.cache import cache_control, cache_page
from django.views.decorators.vary import vary_on_cookie, vary_on_headers

from lab.models import Price
from lab.predict_run import edition

TEA = 0  # No row has this number, so the database stays as it is.


# What is in the key -----------------------------------------------------------------


def prices(request):
    """The price list."""
    return HttpResponse(f"Prices, edition {edition()}")


@cache_page(300, cache="view")
def cached_prices(request):
    """The price list, cached by Django's decorator."""
    return HttpResponse(f"Prices, edition {edition()}")


@vary_on_headers("Accept-Encoding")
def prices_by_encoding(request):
    """The price list, for browsers that take different encodings."""
    return HttpResponse(f"Prices, edition {edition()}")


# What is stored ---------------------------------------------------------------------


def live_prices(request):
    """The price list, with a max-age of its own."""
    response = HttpResponse(f"Prices, edition {edition()}")
    response["Cache-Control"] = "max-age=0"
    return response


@cache_page(300, cache="view")
def cached_live_prices(request):
    """The price list, with a max-age of its own and a decorator."""
    response = HttpResponse(f"Prices, edition {edition()}")
    response["Cache-Control"] = "max-age=0"
    return response


@cache_page(300, cache="view")
@cache_control(private=True)
def private_prices(request):
    """The price list, for one customer."""
    return HttpResponse(f"Prices, edition {edition()}")


@cache_page(300, cache="view")
def missing_prices(request):
    """A price list that isn't there."""
    return HttpResponseNotFound(f"No prices, edition {edition()}")


@cache_page(300, cache="view")
def streamed_prices(request):
    """The price list, sent part by part."""
    parts = ["Prices, ", f"edition {edition()}"]
    return StreamingHttpResponse(parts)


# Who asks ---------------------------------------------------------------------------


@cache_page(300, cache="view")
def welcome(request):
    """Give a visitor a number."""
    number = edition()
    response = HttpResponse(f"Welcome, edition {number}")
    response.set_cookie("number", number)
    return response


@cache_page(300, cache="view")
@vary_on_cookie
def welcome_by_cookie(request):
    """Give a visitor a number, and vary on it."""
    number = edition()
    response = HttpResponse(f"Welcome, edition {number}")
    response.set_cookie("number", number)
    return response


def basket(request):
    """What this visitor has in the basket."""
    items = len(request.session.get("basket", []))
    name = request.COOKIES["visitor"]
    text = f"{name} has {items} items, edition {edition()}"
    return HttpResponse(text)


@cache_page(300, cache="view")
def cached_basket(request):
    """What this visitor has in the basket, cached by Django's decorator."""
    items = len(request.session.get("basket", []))
    name = request.COOKIES["visitor"]
    text = f"{name} has {items} items, edition {edition()}"
    return HttpResponse(text)


@cache_page(300, cache="view")
def account(request):
    """What belongs to the sender of this header."""
    sender = request.headers["Authorization"]
    return HttpResponse(f"{sender}, edition {edition()}")


def greeting(request):
    """A page with a fragment that names a value."""
    template = engines["django"].from_string(
        "{% load cache %}"
        "{% cache 300 greeting name %}"
        "Hello {{ name }}, edition {{ edition }}"
        "{% endcache %}"
    )
    name = request.GET["name"]
    text = template.render({"name": name, "edition": edition})
    return HttpResponse(text)


def greeting_in_two_languages(request):
    """A page with a fragment that names no value."""
    word = {"/en/": "Hello", "/pt-br/": "Olá"}[request.path]
    template = engines["django"].from_string(
        "{% load cache %}{% cache 300 greeting %}{{ word }}, edition {{ edition }}{% endcache %}"
    )
    text = template.render({"word": word, "edition": edition})
    return HttpResponse(text)


# Invalidation -----------------------------------------------------------------------


def delete_at_view(request):
    """Delete the page of this request from the alias `view`."""
    view = caches["view"]
    key = get_cache_key(request, key_prefix="", cache=view)
    return view.delete(key)


def delete_path(request):
    """Delete what the alias `view` has at this path."""
    return caches["view"].delete("/prices/")


def show_price():
    """The price, from the cache if it is there."""
    value = cache.get_or_set("price", edition, 300)
    return HttpResponse(f"Price, edition {value}")


def price(request):
    """Show a price, or change it."""
    if request.method == "POST":
        with transaction.atomic():
            Price.objects.filter(pk=TEA).update(amount=120)
            transaction.on_commit(lambda: cache.delete("price"))
            return show_price()
    return show_price()


def price_with_rollback(request):
    """Show a price, or fail to change it."""
    if request.method == "POST":
        try:
            with transaction.atomic():
                Price.objects.filter(pk=TEA).update(amount=120)
                transaction.on_commit(lambda: cache.delete("price"))
                raise ValueError("Too expensive")
        except ValueError:
            return HttpResponse("Not changed")
    return show_price()


def report(request):
    """A report of the current version."""
    now = cache.get("posts:version", 1)
    value = cache.get_or_set("report", edition, 300, now)
    return HttpResponse(f"Report, edition {value}")


def change_version(request):
    """Begin the next version."""
    return cache.set("posts:version", 2, 300)


# Values -----------------------------------------------------------------------------


def find_discount():
    """Look for a discount, and find none."""
    edition()


def discount(request):
    """Show the discount."""
    value = cache.get_or_set("discount", find_discount, 300)
    return HttpResponse(f"Discount: {value}")


def unlasting_report(request):
    """A report whose timeout is 0."""
    value = cache.get("report")
    if value is None:
        value = edition()
        cache.set("report", value, timeout=0)
    return HttpResponse(f"Report, edition {value}")


def minute_report(request):
    """A report that is cached for a minute."""
    value = cache.get_or_set("report", edition, 60)
    return HttpResponse(f"Report, edition {value}")


def wait_a_minute(request):
    """Let the entry expire now, as it would after 60 seconds."""
    return cache.expire("report", 0)


def touch(request):
    """Give the entry 300 more seconds."""
    return cache.touch("report", 300)
