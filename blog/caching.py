"""
The one place for each cached value's key, timeout and invalidation.

Nothing here deletes pages one by one: `drop()` gives them a new generation (see
mysite/caches/pages.py), so its cost does not grow with the number of entries.
"""

import re
import time
from functools import partial

from django.core.cache import cache
from django.core.cache.utils import make_template_fragment_key
from django.db import transaction
from django.db.models.signals import post_save, pre_delete, pre_save

from mysite.caches.invalidation import invalidate

# Whole site: CACHE_MIDDLEWARE_SECONDS in mysite/settings.py.

# Per view
POST_TIMEOUT = 5 * 60  # What nobody invalidates, such as a new template, is seen in 5 minutes.

# Fragments. Their timeouts stand in templates/blog/archive.html, as {% cache %} wants it.
# Those named here are dropped by their key; the other ones have a key that changes.
ARCHIVE_FRAGMENT_KEYS = [
    make_template_fragment_key("archive_months"),
    make_template_fragment_key("archive_discussed", [False]),
    make_template_fragment_key("archive_discussed", [True]),
]

# Low-level
SEARCH_GENERATION_KEY = "search:generation"
SEARCH_GENERATION_TIMEOUT = 24 * 60 * 60  # Expired, it is new: all of search is a miss, once.
SEARCH_INDEX_KEY = "search:index"
SEARCH_INDEX_TIMEOUT = 60 * 60  # Costly to build, and a new generation makes it unreachable.
SEARCH_RESULTS_TIMEOUT = 10 * 60
SEARCH_COUNT_TIMEOUT = 60 * 60
COMMENTS_TIMEOUT = 60 * 60
# Queries are endless and Redis is not: this many are stored in SEARCH_RESULTS_TIMEOUT
# seconds, and the ones beyond are answered without being stored.
SEARCH_STORED_KEY = "search:stored"
SEARCH_RESULTS_LIMIT = 500
COMMENT_LIMIT = 5  # Comments that one address may write in COMMENT_LIMIT_TIMEOUT seconds.
COMMENT_LIMIT_TIMEOUT = 60


def search_generation():
    """Return the version under which everything about search is cached."""
    return cache.get_or_set(SEARCH_GENERATION_KEY, time.time_ns, SEARCH_GENERATION_TIMEOUT)


# Which level keeps which page, and the generation it belongs to. Any other page is kept
# by no page level.
PAGES = [
    (re.compile(r"/posts/(?P<slug>[-\w]+)/"), "view", "post:{slug}"),
    (re.compile(r"/tags/(?P<slug>[-\w]+)/"), "site", "tag:{slug}"),
    (re.compile(r"/|/about/|/feed/|/sitemap\.xml"), "site", "posts"),
]


def page_of(path):
    """Return (alias, generation) of the page at `path`, or None when no level keeps it."""
    for pattern, alias, generation in PAGES:
        if match := pattern.fullmatch(path):
            return alias, generation.format(**match.groupdict())
    return None


def shown_on(posts):
    """Return the (alias, generation) pairs of the pages that show these posts (pks), now."""
    from blog.models import Post

    pages = {("site", "posts")}
    for slug, tag in Post.objects.filter(pk__in=posts).values_list("slug", "tags__slug"):
        pages |= {("view", f"post:{slug}"), ("site", f"tag:{tag}")}
    return pages - {("site", "tag:None")}  # What the join gives for a post without tags.


def drop_after_commit(pages):
    """
    Drop these (alias, generation) pairs and every value that shows posts.

    After COMMIT: any earlier, a concurrent reader fills the cache from the old row. A
    change that is rolled back drops nothing.
    """
    transaction.on_commit(partial(drop, pages))


def drop(pages):
    """Drop them now. What it costs grows with `pages`, not with what Redis holds."""
    keys = {"template_fragments": ARCHIVE_FRAGMENT_KEYS, "default": [SEARCH_GENERATION_KEY]}
    # Also when Redis is away: then it is done before anybody reads from Redis again.
    invalidate(pages, keys)


def before_save(sender, instance, **kwargs):
    """Note where the old row is shown: a new slug or another tag loses these pages."""
    instance.shown_before = shown_on(sender.objects.filter(pk=instance.pk).post_pks())


def after_save(sender, instance, **kwargs):
    shown = shown_on(sender.objects.filter(pk=instance.pk).post_pks())
    drop_after_commit(instance.shown_before | shown)


def before_delete(sender, instance, **kwargs):
    drop_after_commit(shown_on(sender.objects.filter(pk=instance.pk).post_pks()))


def tags_changed(instance, reverse, pk_set, **kwargs):
    """A post was given a tag or lost one, seen from the post or from the tag (reverse)."""
    posts = [instance.pk]
    if reverse:
        posts = pk_set or instance.posts.values("pk")
    drop_after_commit(shown_on(posts))


def connect(*models):
    """Listen to the signals of these models. update() and bulk_*() send none: see models.py."""
    for model in models:
        pre_save.connect(before_save, sender=model)
        post_save.connect(after_save, sender=model)
        pre_delete.connect(before_delete, sender=model)
