"""Predict: the views that the blog's own levels cache. The page shows this code."""

from django.http import HttpResponse
from django.views.decorators.http import require_safe

from lab.predict_run import edition
from resilient_cache.groups import invalidate
from resilient_cache.pages import cache_page


@require_safe
@cache_page(300, cache="view", query=("page",))
def list_of_prices(request):
    """The price list, which may have several pages."""
    return HttpResponse(f"Prices, edition {edition()}")


@require_safe
@cache_page(300, cache="view")
def page_of_prices(request):
    """The price list, with a decorator and below the site's middleware."""
    return HttpResponse(f"Prices, edition {edition()}")


@require_safe
def news(request):
    """A page without a decorator: the site's middleware caches it."""
    return HttpResponse(f"News, edition {edition()}")


def invalidate_path(request):
    """Invalidate what is cached of this path."""
    return invalidate(request.path)


VIEWS = (list_of_prices, page_of_prices, news)
