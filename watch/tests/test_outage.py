"""The wall of this project while its Redis is away, and when it is back."""

import unittest

from django.conf import settings
from django.core.cache import cache
from django.test import override_settings

from blog.tests import CacheTestCase
from blog.tests.test_browser import BrowserTestCase
from watch.event import worker


def away():
    """Return CACHES that look for Redis where none is."""
    return {
        alias: options | {"LOCATION": f"unix:///nowhere/wall-{alias}.sock"}
        for alias, options in settings.CACHES.items()
    }


@unittest.skipUnless(settings.CACHE_WATCH, "CACHE_WATCH=0: there is nothing on the wall.")
class BreakerTests(CacheTestCase):
    """/watch/state tells what the circuit breakers of the process that answers say."""

    def breakers(self):
        answer = self.client.get("/watch/state").json()
        self.assertEqual(answer["worker"], worker())
        return {name: breaker for breaker in answer["breakers"] for name in breaker["levels"]}

    def test_a_redis_that_answers(self):
        self.assertEqual(self.breakers()["low-level"]["redis"], "up")

    def test_a_redis_that_is_away(self):
        with override_settings(CACHES=away()):
            cache.get("answer")

            told = self.breakers()["low-level"]

        self.assertEqual(told["redis"], "down")
        # Not the reason, which has addresses in it.
        self.assertEqual(set(told), {"levels", "redis", "since"})


@unittest.skipUnless(settings.CACHE_WATCH, "CACHE_WATCH=0: there is nothing on the wall.")
class WallTests(BrowserTestCase):
    def test_it_says_that_the_breaker_is_open(self):
        with override_settings(CACHES=away()):
            self.page.goto("/")
            self.page.goto("/watch/")

            self.page.locator("#notice", has_text="Redis does not answer").wait_for()
            says = self.page.locator("#facts", has_text="Circuit breaker open in").inner_text()

        self.assertRegex(says, r"open in \S+:\d+ since \d\d:\d\d:\d\d")

    def test_it_says_that_the_breaker_is_closed(self):
        self.page.goto("/watch/")

        self.page.locator("#facts", has_text="Circuit breaker closed in 1 process").wait_for()
