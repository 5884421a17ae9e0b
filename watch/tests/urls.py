"""The pages of the small project that the tests watch."""

from django.urls import path

from watch.tests import views

urlpatterns = [
    path("", views.home),
    path("view/", views.kept_by_view),
    path("never/", views.never),
    path("private/", views.private),
    path("cookie/", views.cookie),
    path("fragments/", views.fragments),
    path("low-level/", views.low_level),
    path("many/<int:number>/", views.many),
    path("error/", views.error),
    path("missing/", views.missing),
    path("stream/", views.stream),
    path("async/", views.asynchronous),
    path("async-stream/", views.asynchronous_stream),
    path("redirect/", views.redirected),
    path("static/file", views.home),
    path("watch/", views.home),
    path("says-it-itself/", views.says_it_itself),
    path("hostile/<path:name>", views.hostile),
]
