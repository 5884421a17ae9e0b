"""The small project with the wall, as another project would add it."""

from django.urls import include, path

from watch.tests.urls import urlpatterns as pages

urlpatterns = [path("watch/", include("watch.urls")), *pages]
