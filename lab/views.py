"""The list of experiments."""

from django.shortcuts import render
from django.views.decorators.http import require_safe

from lab import urls
from resilient_cache.pages import never_cache


@require_safe
@never_cache
def index(request):
    """Show what there is to try."""
    return render(request, "lab/index.html", {"experiments": urls.EXPERIMENTS})
