"""The small site that the tests watch, with the wall."""

from django.urls import include, path

from watch.tests import views

urlpatterns = [
    path("", views.home),
    path("about/", views.about),
    path("asks/", views.asks_first),
    path("view/", views.cached_by_view),
    path("varies/", views.varies),
    path("class/", views.ClassBased.as_view()),
    path("never/", views.never),
    path("private/", views.private),
    path("cookie/", views.cookie),
    path("fragments/", views.fragments),
    path("low-level/", views.low_level),
    path("prices/", views.price_list),
    path("many/<int:number>/", views.many),
    path("error/", views.error),
    path("missing/", views.missing),
    path("stream/", views.stream),
    path("async/", views.asynchronous),
    path("async-stream/", views.asynchronous_stream),
    path("redirect/", views.redirected),
    path("form/", views.form),
    path("static/file", views.home),
    path("says-it-itself/", views.says_it_itself),
    path("hostile/<path:name>", views.hostile),
    path("watch/", include("watch.urls")),
]
