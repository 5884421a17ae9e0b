from django.contrib.sitemaps.views import sitemap
from django.urls import path, re_path

from blog import feeds, views

YEAR_MONTH = r"^archive/(?P<year>[12][0-9]{3})/(?P<month>0[1-9]|1[0-2])/$"

urlpatterns = [
    # Whole site
    path("", views.home, name="home"),
    path("start/", views.start, name="start"),
    path("posts/", views.posts, name="posts"),
    path("cheatsheet/", views.cheatsheet, name="cheatsheet"),
    path("tags/<slug:slug>/", views.tag, name="tag"),
    path("about/", views.about, name="about"),
    path("feed/", views.single_page(feeds.LatestPosts()), name="feed"),
    path("sitemap.xml", views.single_page(sitemap), {"sitemaps": feeds.SITEMAPS}, name="sitemap"),
    # Per view
    path("posts/<slug:slug>/", views.post, name="post"),
    # Fragment
    path("archive/", views.archive, name="archive"),
    re_path(YEAR_MONTH, views.archive, name="archive_month"),
    # Low-level
    path("search/", views.search, name="search"),
    # Never cached
    path("posts/<slug:slug>/comment/", views.comment, name="comment"),
    path("posts/<slug:slug>/next/", views.neighbour, {"step": 1}, name="next"),
    path("posts/<slug:slug>/previous/", views.neighbour, {"step": -1}, name="previous"),
]
