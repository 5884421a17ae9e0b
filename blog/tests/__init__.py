"""The tests are the specification: `manage.py test -v 2` reads as one."""

from datetime import UTC, datetime

from django.conf import settings
from django.core.cache import caches
from django.test import TestCase
from redis import Redis

from blog.models import Comment, Post, Tag
from mysite.caches import LEVELS

DATABASES = {prefix: number for _, prefix, number in LEVELS}


class CacheTestCase(TestCase):
    """
    Tests against the real Redis that the test runner owns, emptied before each.

    Page levels run callbacks on commit, which a TestCase never reaches: wrap a change in
    `with self.commit():` to see what it does once committed.
    """

    def setUp(self):
        super().setUp()
        for alias in caches:
            caches[alias].clear()

    def commit(self):
        """Run what waits for the commit when the block ends."""
        return self.captureOnCommitCallbacks(execute=True)

    def redis(self, level):
        """Return a plain client for the Redis database of `level` (its key prefix)."""
        return Redis.from_url(settings.REDIS_URL, db=DATABASES[level])

    def keys(self, level, pattern="*"):
        """Return the keys that Redis holds for `level`."""
        return sorted(key.decode() for key in self.redis(level).scan_iter(pattern))

    def pages(self, level):
        """Return the keys of the whole pages that `level` holds."""
        return self.keys(level, "*.cache_page.*")

    def make_post(self, slug="keys", tags=("redis",), **fields):
        """Create a published post."""
        values = {
            "title": f"About {slug}",
            "summary": f"What {slug} are for.",
            "body": f"All about {slug}.\n\n## Why\n\n```python\nprint({slug!r})\n```\n",
            "published_at": datetime(2026, 3, 1, tzinfo=UTC),
        }
        post = Post.objects.create(slug=slug, **values | fields)
        post.tags.set([Tag.objects.get_or_create(slug=tag, name=tag)[0] for tag in tags])
        return post

    def make_comment(self, post, author="Ada", body="I see."):
        """Create a comment."""
        return Comment.objects.create(post=post, author=author, body=body)
