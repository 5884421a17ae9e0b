"""The site as it is with LAB=1, whatever the tests were started with."""

from django.urls import include, path

from mysite.urls import urlpatterns as site

urlpatterns = [path("lab/", include("lab.urls")), *site]
