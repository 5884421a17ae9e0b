"""The blog's URLs for plain.py: its home page and its posts under Django's own cache_page."""

from inspect import unwrap

from django.urls import path
from django.views.decorators.cache import cache_page

from blog import views
from mysite import urls

urlpatterns = [
    path("", cache_page(60)(unwrap(views.home))),
    path("posts/<slug:slug>/", cache_page(300)(unwrap(views.post))),
    *urls.urlpatterns,
]
