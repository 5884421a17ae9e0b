"""
The tests are the specification: `manage.py test blog -v 2` reads as one.

Tests with the tag "behaviour" say what any cache has to do: hit, miss, invalidate, and never
show a page to the wrong visitor. They pass on other backends too: see backends.py.
"""

import math
import time
from collections import Counter
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from unittest import mock

from django.conf import settings
from django.core.cache import caches
from django.db import connection
from django.test import TestCase, override_settings
from django.test.utils import CaptureQueriesContext
from redis import Redis

from blog.models import Comment, Post, Tag

DATABASES = {"site": 1, "view": 2, "fragment": 3, "low-level": 0}
# What a new connection costs, and the counting itself, and what an instrument may ask besides.
NO_COMMANDS = {"auth", "client", "echo", "hello", "info", "ping", "select", "pttl"}

# The blog alone. The watch costs a sixth of the time, and it has tests of its own.
UNWATCHED = [name for name in settings.MIDDLEWARE if not name.startswith("watch.")]


@override_settings(MIDDLEWARE=UNWATCHED)
class CacheTestCase(TestCase):
    """
    Tests against the real Redis that the test runner owns, emptied before each.

    Invalidation waits for COMMIT, which a TestCase never reaches: wrap a change in
    `with self.commit():` to see what it does once committed.
    """

    def setUp(self):
        super().setUp()
        self.empty_caches()

    def empty_caches(self):
        """Empty each level."""
        for alias in caches:
            caches[alias].clear()

    def commit(self):
        """Run the callbacks that wait for COMMIT when the block ends."""
        return self.captureOnCommitCallbacks(execute=True)

    def redis(self, level):
        """Return a plain client for the Redis database of `level` (its key prefix)."""
        client = Redis.from_url(settings.REDIS_URL, db=DATABASES[level])
        return self.enterContext(closing(client))

    def keys(self, level, pattern="*"):
        """Return the keys that Redis holds for `level`."""
        return sorted(key.decode() for key in self.redis(level).scan_iter(pattern))

    def pages(self, level):
        """Return the keys of the whole pages that `level` holds."""
        return self.keys(level, f"{level}:1:page:*")

    def ttl(self, level, key):
        """Return the seconds that `key` has left in Redis: -1 without an end, -2 if missing."""
        return self.redis(level).ttl(key)

    def stored(self):
        """Return {key: bytes} of everything that Redis holds, of all levels."""
        clients = [self.redis(level) for level in DATABASES]
        return {key.decode(): client.get(key) for client in clients for key in client.scan_iter()}

    filled = (-math.inf, None, {})  # When, what read() returned, what Redis held then.

    def fill_once(self, read):
        """
        Fill the caches by read(), and return what it returned.

        To save time, the next tests of the class restore what Redis held after that. Only for
        20 seconds, because pages expire.
        """
        cls = type(self)
        began, returned, stored = vars(cls).get("filled", CacheTestCase.filled)
        if stored and time.monotonic() < began + 20:
            self.restore(stored)
        else:
            began, returned = time.monotonic(), read()
            cls.filled = began, returned, self.stored()
        return returned

    def restore(self, stored):
        """Let Redis hold what stored() returned, for another ten minutes."""
        for level in DATABASES:
            with self.redis(level).pipeline(transaction=False) as pipeline:
                for key, value in stored.items():
                    if key.startswith(f"{level}:"):
                        pipeline.set(key, value, ex=600)
                pipeline.execute()

    def stop_the_clock(self):
        """Let {% now %} say the same until the test ends, so that pages can be compared."""
        clock = self.enterContext(mock.patch("django.template.defaulttags.datetime"))
        clock.now.return_value = datetime(2026, 4, 1, 12, tzinfo=UTC)

    @contextmanager
    def commands(self):
        """Yield a Counter that has, after the block, the commands that Redis was sent in it."""
        client, counted = self.redis("site"), Counter()
        with client.monitor() as monitor:
            yield counted
            client.echo("the end")
            while (seen := monitor.next_command())["command"] != "ECHO the end":
                # The other databases are in use by other code, the wall for one.
                if int(seen["db"]) in DATABASES.values():
                    counted[seen["command"].split()[0].lower()] += 1
        for name in NO_COMMANDS:
            del counted[name]

    @contextmanager
    def assertNoQueries(self):
        """Assert that the block runs no SQL query. A cache in the database may run its own."""
        with CaptureQueriesContext(connection) as captured:
            yield
        queries = [query["sql"] for query in captured if "SAVEPOINT" not in query["sql"]]
        self.assertEqual([query for query in queries if '"cache_' not in query], [])

    @contextmanager
    def assertNumQueriesOn(self, table, number):
        """Assert that the block runs so many queries on this table."""
        with CaptureQueriesContext(connection) as captured:
            yield
        queries = [query["sql"] for query in captured if f'"{table}"' in query["sql"]]
        self.assertEqual(len(queries), number, queries)

    def assertHit(self, url, **headers):
        """Assert that a page level has the page, so that no SQL query runs. Return the response."""
        with self.assertNoQueries():
            response = self.client.get(url, headers=headers)
        self.assertIn("Age", response.headers, f"{url} is a miss")
        return response

    def assertMiss(self, url, **headers):
        """Assert that the page is built. Return the response."""
        response = self.client.get(url, headers=headers)
        self.assertNotIn("Age", response.headers, f"{url} is a hit")
        return response

    @classmethod
    def make_post(cls, slug="keys", tags=("redis",), **fields):
        """Create a published post, and commit."""
        values = {
            "title": f"About {slug}",
            "summary": f"What {slug} are for.",
            "body": f"All about {slug}.\n\n## Why\n\n```python\nprint({slug!r})\n```\n",
            "published_at": datetime(2026, 3, 1, tzinfo=UTC),
        }
        with cls.captureOnCommitCallbacks(execute=True):
            post = Post.objects.create(slug=slug, **values | fields)
            post.tags.set([Tag.objects.get_or_create(slug=tag, name=tag)[0] for tag in tags])
        return post

    @classmethod
    def make_comment(cls, post, author="Ada", body="I see."):
        """Create a comment, and commit."""
        with cls.captureOnCommitCallbacks(execute=True):
            return Comment.objects.create(post=post, author=author, body=body)
