"""The Atom feed and the sitemap. The whole-site level caches both."""

import re

from django.contrib.sitemaps import GenericSitemap, Sitemap
from django.contrib.syndication.views import Feed
from django.urls import reverse
from django.utils.feedgenerator import Atom1Feed

from blog.models import Post, Tag

# XML has no way to write these: https://www.w3.org/TR/xml/#charsets
NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def xml_text(text):
    """Return `text` without the characters that XML can't express."""
    return NOT_IN_XML.sub("", text)


class LatestPosts(Feed):
    """The 10 latest posts, whole."""

    feed_type = Atom1Feed
    title = "Cached four times"
    subtitle = "Django's cache on Redis, level by level."
    link = "/"
    author_name = "The authors of Cached four times"  # Atom requires an author: RFC 4287, 4.1.1.

    def __call__(self, request, *args, **kwargs):
        response = super().__call__(request, *args, **kwargs)
        # The date of the newest post. With it, a feed reader that sends If-Modified-Since would
        # not learn that this post was deleted. The ETag covers all of the feed.
        del response["Last-Modified"]
        return response

    def items(self):
        return Post.objects.published().prefetch_related("tags")[:10]

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
        return ["home", "start", "posts", "cheatsheet", "archive", "about"]

    def location(self, item):
        return reverse(item)


SITEMAPS = {
    "posts": GenericSitemap({"queryset": Post.objects.published(), "date_field": "updated_at"}),
    "tags": GenericSitemap({"queryset": Tag.objects.in_use()}),
    "pages": PageSitemap,
}
