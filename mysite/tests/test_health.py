"""/healthz and /readyz: what they say about Redis and the database, and to whom."""

import time
from pathlib import Path

from django.conf import settings
from django.core.cache import cache
from django.test import SimpleTestCase, TestCase, tag
from redis import Redis

from mysite.testing import TEST_TIMEOUT, use_redis_within
from mysite.tests.faults import RedisServer
from mysite.tests.processes import wait_until
from mysite.tests.served import Gunicorn, Home

QUESTIONS = ("/healthz", "/readyz")


@tag("outage")
class RedisTests(TestCase):
    """A process without visitors knows of Redis, too, because each check asks."""

    def setUp(self):
        self.server = RedisServer().start()
        self.addCleanup(self.server.close)
        self.enterContext(use_redis_within(TEST_TIMEOUT, self.server.url))
        self.addCleanup(cache.breaker.forget_threads)

    def redis(self, path="/healthz"):
        response = self.client.get(path)
        self.assertEqual(response.status_code, 200)
        return response.json()["redis"]

    def test_a_redis_that_stops_is_down_and_both_still_answer_200(self):
        self.assertEqual([self.redis(path) for path in QUESTIONS], ["up", "up"])
        self.server.kill()

        self.assertEqual([self.redis(path) for path in QUESTIONS], ["down", "down"])

    def test_a_redis_that_hangs_is_down_and_up_again_without_any_visitor(self):
        self.server.hang()
        self.assertEqual(self.redis(), "down")

        self.server.wake()

        self.assertTrue(wait_until(lambda: self.redis() == "up"))

    def test_a_redis_that_only_refuses_pings_is_up(self):
        self.server.command("ACL", "SETUSER", "default", "-ping")

        self.assertEqual(self.redis(), "up")

    def test_a_redis_that_wants_a_password_is_down(self):
        self.server.command("CONFIG", "SET", "requirepass", "secret")
        with Redis(port=self.server.port, password="secret") as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        self.assertEqual(self.redis(), "down")

    def test_the_answers_name_no_address(self):
        self.server.kill()

        for path in QUESTIONS:
            text = self.client.get(path).text

            self.assertNotIn("127.0.0.1", text)
            self.assertNotIn(str(self.server.port), text)


class AnswerTests(TestCase):
    def test_healthz_says_since_when_redis_is_up(self):
        health = self.client.get("/healthz").json()

        self.assertEqual(health, {"status": "ok", "redis": "up", "since": health["since"]})
        self.assertLessEqual(health["since"], time.time())

    def test_any_host_may_ask_as_load_balancers_do(self):
        for path in QUESTIONS:
            for host in ("10.1.2.3:8000", "[fd00::1]:8000", "evil.example", "not a host"):
                with self.subTest(path, host=host), self.assertNoLogs("django"):
                    response = self.client.get(path, headers={"host": host})

                    self.assertEqual(response.status_code, 200)

    def test_no_cache_stores_the_answers(self):
        for path in QUESTIONS:
            self.assertIn("no-store", self.client.get(path)["Cache-Control"])

    def test_only_get_and_head_are_allowed(self):
        for path in QUESTIONS:
            self.assertEqual(self.client.post(path).status_code, 405)
            self.assertEqual(self.client.head(path).content, b"")

    def test_readyz_reports_the_database_and_redis(self):
        ready = self.client.get("/readyz").json()

        self.assertEqual(ready, {"status": "ok", "database": "up", "redis": "up"})


@tag("slow")
class DatabaseTests(SimpleTestCase):
    """A blog whose database is gone is alive and not ready."""

    def test_a_deleted_database_is_503_for_readyz_alone(self):
        with Home() as home, Gunicorn(home, settings.REDIS_URL) as gunicorn:
            browser = gunicorn.browser()
            self.addCleanup(browser.close)
            before = [browser.get(path).status for path in QUESTIONS]
            for path in Path(home.path).glob("blog.sqlite3*"):
                path.unlink()

            answers = [browser.get(path) for path in QUESTIONS]

        self.assertEqual(before, [200, 200])
        self.assertEqual([answer.status for answer in answers], [200, 503])
        self.assertIn('"database": "down"', answers[1].text)
