"""The blog's URLs for plain.py. The post is the blog's own view: it stands under cache_page."""

from django.urls import path
from django.views.decorators.cache import cache_page

from blog.views import home
from mysite import urls

urlpatterns = [path("", cache_page(60)(home)), *urls.urlpatterns]
