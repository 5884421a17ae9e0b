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
# These are dropped by their key; archive_month has one that changes.
MONTHS_KEY = make_template_fragment_key("archive_months")
DISCUSSED_KEYS = [
    make_template_fragment_key("archive_discussed", [staff]) for staff in (False, True)
]

# Low-level
SEARCH_GENERATION_KEY = "search:generation"
COMMENTS_GENERATION_KEY = "comments:generation"
GENERATION_TIMEOUT = 60 * 60  # What nobody invalidates is an hour old at most.
SEARCH_INDEX_KEY = "search:index"
SEARCH_INDEX_TIMEOUT = 10 * 60  # Since it was last used: see touch() in search.py.
SEARCH_RESULTS_TIMEOUT = 10 * 60
SEARCH_COUNT_TIMEOUT = 60 * 60
COMMENTS_TIMEOUT = 60 * 60
# Queries are endless and Redis is not: this many are stored in SEARCH_RESULTS_TIMEOUT
# seconds, and the ones beyond are answered without being stored.
SEARCH_STORED_KEY = "search:stored"
SEARCH_RESULTS_LIMIT = 500
COMMENT_LIMIT = 5  # Comments that one address may write in COMMENT_LIMIT_TIMEOUT seconds.
COMMENT_LIMIT_TIMEOUT = 60


# What a changed post, and what a new comment drops besides pages.
COMMENT_KEYS = {"template_fragments": DISCUSSED_KEYS, "default": [COMMENTS_GENERATION_KEY]}
POST_KEYS = {
    "template_fragments": [MONTHS_KEY, *DISCUSSED_KEYS],
    "default": [SEARCH_GENERATION_KEY, COMMENTS_GENERATION_KEY],
}


def version(generation_key):
    """Return the version under which a group of values is cached. Deleted, it is a new one."""
    return cache.get_or_set(generation_key, time.time_ns, GENERATION_TIMEOUT)


# Which levels keep which page, the generation it belongs to, and whether the browser may keep
# it for its max-age. Any other page is kept by no page level.
PAGES = [
    (re.compile(r"/posts/(?P<slug>[-\w]{1,80})/"), ("view",), "post:{slug}", False),
    (re.compile(r"/tags/(?P<slug>[-\w]{1,80})/"), ("site",), "tag:{slug}", False),
    (re.compile(r"/|/feed/"), ("site",), "posts", False),
    (re.compile(r"/about/|/sitemap\.xml"), ("site",), "posts", True),
]


def page_of(path):
    """Return (aliases, generation, browser may keep) of the page, or None: no level keeps it."""
    for pattern, aliases, generation, browser_may_keep in PAGES:
        if match := pattern.fullmatch(path):
            return aliases, generation.format(**match.groupdict()), browser_may_keep
    return None


def shown_on(posts):
    """Return the (alias, generation) pairs of the pages that show these posts (pks), now."""
    from blog.models import Post

    pages = {("site", "posts")}
    for slug, tag in Post.objects.filter(pk__in=posts).values_list("slug", "tags__slug"):
        pages |= {("view", f"post:{slug}"), ("site", f"tag:{tag}")}
    return pages - {("site", "tag:None")}  # What the join gives for a post without tags.


def drop_after_commit(pages, keys=POST_KEYS):
    """
    Drop these (alias, generation) pairs and `keys`, a list for each alias.

    After COMMIT: any earlier, a concurrent reader fills the cache from the old row. A
    change that is rolled back drops nothing. What it costs grows with `pages`, not with
    what Redis holds. When Redis is away, it is done before anybody reads from it again.
    """
    transaction.on_commit(partial(invalidate, pages, keys))


def before_save(sender, instance, **kwargs):
    """Note where the old row is shown: a new slug or another tag loses these pages."""
    instance.shown_before = shown_on(sender.objects.filter(pk=instance.pk).post_pks())


def after_save(sender, instance, **kwargs):
    rows = sender.objects.filter(pk=instance.pk)
    drop_after_commit(instance.shown_before | shown_on(rows.post_pks()), rows.cached_keys)


def before_delete(sender, instance, origin, **kwargs):
    if getattr(origin, "model", type(origin)) is sender:  # Not a comment that goes with its post.
        rows = sender.objects.filter(pk=instance.pk)
        drop_after_commit(shown_on(rows.post_pks()), rows.cached_keys)


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
