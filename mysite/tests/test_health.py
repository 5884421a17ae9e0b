"""`/healthz` is right about Redis, also in a process that nobody visits."""

import time
from unittest import mock

from django.core.cache import caches
from django.test import SimpleTestCase
from redis import Redis

from mysite.caches.breaker import PERIOD, breaker_of
from mysite.testing import TEST_TIMEOUT, use_redis_within
from mysite.tests.faults import Proxy, RedisServer
from mysite.tests.processes import wait_until


class HealthTests(SimpleTestCase):
    def setUp(self):
        self.server = RedisServer().start()
        self.addCleanup(self.server.close)
        self.enterContext(mock.patch("mysite.caches.log.logger.warning"))
        self.use(self.server.url)

    def use(self, url):
        self.enterContext(use_redis_within(TEST_TIMEOUT, url))
        self.addCleanup(breaker_of().forget_threads)

    def health(self):
        """Return what /healthz says, and how long that took."""
        start = time.monotonic()
        response = self.client.get("/healthz")
        took = time.monotonic() - start
        self.assertEqual(response.status_code, 200)
        return response.json(), took

    def redis(self):
        return self.health()[0]["redis"]

    def test_it_says_since_when_redis_is_up(self):
        before = int(time.time())

        health, _ = self.health()

        self.assertEqual(health, {"status": "ok", "redis": "up", "since": health["since"]})
        self.assertLess(abs(health["since"] - before), 5)

    def test_nobody_keeps_the_answer(self):
        self.assertIn("no-store", self.client.get("/healthz")["Cache-Control"])

    def test_a_redis_that_stopped_is_down_though_nobody_asked_it(self):
        self.assertEqual(self.redis(), "up")
        self.server.kill()

        self.assertEqual(self.redis(), "down")

    def test_a_redis_that_hangs_costs_the_first_check_one_timeout_and_the_next_nothing(self):
        self.server.hang()

        health, took = self.health()
        again = [self.health()[1] for _ in range(3)]

        self.assertEqual(health["redis"], "down")
        self.assertLess(took, 3 * TEST_TIMEOUT)
        self.assertLess(min(again), TEST_TIMEOUT)

    def test_it_is_up_again_within_a_period_without_any_visitor(self):
        self.assertLess(min(self.recovery() for _ in range(3)), PERIOD + 0.5)

    def recovery(self):
        """Return the seconds from the end of an outage until /healthz knows of it."""
        self.server.hang()
        self.assertEqual(self.redis(), "down")
        self.server.wake()
        start = time.monotonic()
        self.assertTrue(wait_until(lambda: self.redis() == "up"))
        return time.monotonic() - start

    def test_checks_are_no_storm_of_probes(self):
        proxy = Proxy(self.server.port)
        self.addCleanup(proxy.close)
        self.use(proxy.url)
        self.server.hang()
        self.redis()
        connections, start = len(proxy._sockets), time.monotonic()

        for _ in range(50):
            self.redis()

        due = 1 + (time.monotonic() - start) / PERIOD
        self.assertLessEqual(len(proxy._sockets) - connections, 2 * due)  # Two sockets each.

    def test_a_redis_that_only_refuses_pings_is_up(self):
        self.server.command("ACL", "SETUSER", "default", "-ping")

        self.assertEqual(self.redis(), "up")

    def test_a_redis_that_wants_a_password_is_down(self):
        self.server.command("CONFIG", "SET", "requirepass", "secret")
        with Redis(port=self.server.port, password="secret") as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        self.assertEqual(self.redis(), "down")

    def test_a_redis_that_is_full_is_up_and_refuses_writes(self):
        self.server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        self.server.command("CONFIG", "SET", "maxmemory", "1")

        with mock.patch("mysite.caches.breaker.WRITE_PAUSE", 60):
            caches["default"].set("key", 1)

        health, _ = self.health()
        self.assertEqual((health["redis"], health["writes"]), ("up", "refused"))

    def test_it_names_no_address(self):
        self.server.kill()

        text = self.client.get("/healthz").text

        self.assertNotIn("127.0.0.1", text)
        self.assertNotIn(str(self.server.port), text)
