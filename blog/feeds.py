"""The Atom feed and the sitemap. The whole-site level keeps both."""

import re

from django.contrib.sitemaps import GenericSitemap, Sitemap
from django.contrib.syndication.views import Feed
from django.urls import reverse
from django.utils.feedgenerator import Atom1Feed

from blog.models import Post, Tag


def xml_text(text):
    """Return `text` without the control characters that XML can't express."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "", text)


class LatestPosts(Feed):
    """The 20 latest posts, whole."""

    feed_type = Atom1Feed
    title = "Cached four times"
    subtitle = "Django's cache on Redis, level by level."
    link = "/"

    def items(self):
        return Post.objects.published().prefetch_related("tags")[:20]

    def item_title(self, item):
        return xml_text(item.title)

    def item_description(self, item):
        return xml_text(item.body_html())

    def item_pubdate(self, item):
        return item.published_at

    def item_updateddate(self, item):
        return item.updated_at

    def item_categories(self, item):
        return [xml_text(tag.name) for tag in item.tags.all()]


class PageSitemap(Sitemap):
    def items(self):
        return ["home", "archive", "about"]

    def location(self, item):
        return reverse(item)


SITEMAPS = {
    "posts": GenericSitemap({"queryset": Post.objects.published(), "date_field": "updated_at"}),
    "tags": GenericSitemap({"queryset": Tag.objects.in_use()}),
    "pages": PageSitemap,
}
