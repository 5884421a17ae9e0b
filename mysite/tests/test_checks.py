"""The system check that looks for Redis."""

import socket
from contextlib import closing
from unittest import mock

from django.conf import settings
from django.core import checks
from django.test import SimpleTestCase, override_settings, tag
from redis import Redis

from mysite.checks import redis_answers, redis_problem
from mysite.private_redis import PrivateRedis
from mysite.testing import PATIENCE
from mysite.tests.processes import run

NOBODY = "redis://127.0.0.1:1"  # Port 1 is tcpmux: no machine has run it for decades.


class RedisCheckTests(SimpleTestCase):
    """A missing Redis is a warning, because pages are slow without it."""

    def setUp(self):
        # A busy machine is not a missing Redis.
        self.enterContext(mock.patch("mysite.checks.CHECK_TIMEOUT", PATIENCE))

    def test_a_redis_that_answers_is_no_warning(self):
        self.assertEqual(redis_answers(None), [])

    def test_the_check_is_registered(self):
        self.assertEqual(checks.run_checks(tags=[checks.Tags.caches]), [])
        self.assertIn(redis_answers, checks.registry.registry.get_checks())

    @override_settings(REDIS_URL=NOBODY)
    def test_a_missing_redis_is_a_warning_that_says_what_to_start(self):
        (warning,) = redis_answers(None)

        self.assertEqual((warning.id, warning.level), ("mysite.W001", checks.WARNING))
        self.assertIn(NOBODY, warning.msg)
        self.assertIn("redis-server", warning.hint)
        self.assertIn("manage.py up", warning.hint)

    @override_settings(REDIS_URL="redis://user:a%40secret@127.0.0.1:1/0?password=secret")
    def test_the_warning_shows_no_password(self):
        (warning,) = redis_answers(None)

        self.assertIn("redis://127.0.0.1:1/0", warning.msg)
        self.assertNotIn("secret", str(warning))

    def test_a_wrong_password_is_named_as_the_reason(self):
        with PrivateRedis() as redis, closing(Redis.from_url(redis.url)) as client:
            client.config_set("requirepass", "right")

            problems = [
                redis_problem(f"unix://{credentials}{redis.socket}")
                for credentials in (":right@", ":wrong@", "")
            ]

        self.assertIsNone(problems[0])
        self.assertRegex(problems[1], "(?i)password")
        self.assertRegex(problems[2], "(?i)authenticat")

    def test_a_hung_redis_is_a_problem_after_the_timeout(self):
        hung = self.enterContext(socket.create_server(("127.0.0.1", 0)))
        url = f"redis://127.0.0.1:{hung.getsockname()[1]}"

        with mock.patch("mysite.checks.CHECK_TIMEOUT", 0.1):
            problem = redis_problem(url)

        self.assertRegex(problem, "(?i)no answer|timeout")

    @tag("slow")
    def test_manage_py_warns_and_goes_on(self):
        done = run("manage.py", "check", REDIS_URL=NOBODY)

        self.assertEqual(done.returncode, 0)
        self.assertIn("mysite.W001", done.stderr)


@tag("slow")
class SwitchTests(SimpleTestCase):
    """Variables that are 1 or 0."""

    def test_without_the_watch_nothing_is_wrong(self):
        done = run("manage.py", "check", CACHE_WATCH="0", REDIS_URL=settings.REDIS_URL)

        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_a_misspelt_switch_is_one_line(self):
        for name in ("CACHE_WATCH", "DEBUG", "LAB", "HSTS_SECONDS"):
            with self.subTest(name):
                done = run("manage.py", "check", **{"HTTPS": "1", name: "onn"})

                self.assertEqual(done.returncode, 1)
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
                self.assertIn(f"{name} is 'onn'", done.stderr)

    def test_browsers_are_told_to_insist_on_https_for_an_hour_or_for_as_long_as_is_set(self):
        ask = "from mysite.settings import *; print(SECURE_HSTS_SECONDS)"
        told = [
            run("-c", ask, HTTPS="1", **variables).stdout
            for variables in ({}, {"HSTS_SECONDS": "31536000"})
        ]

        self.assertEqual(told, ["3600\n", "31536000\n"])
