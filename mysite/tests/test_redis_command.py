"""`manage.py redis`: redis-cli for this blog, with values decoded."""

import subprocess
import sys
from contextlib import closing
from io import StringIO
from unittest import mock

from django.conf import settings
from django.core.cache import caches
from django.core.management import CommandError, call_command
from django.test import SimpleTestCase, tag
from django.utils.safestring import mark_safe
from redis import Redis

from blog.tests import CacheTestCase
from mysite.tests.processes import environment, run, wait_until

NOBODY = "redis://127.0.0.1:1"


def ask(*words):
    """Return what `manage.py redis` prints for these words."""
    printed = StringIO()
    call_command("redis", *map(str, words), stdout=printed)
    return printed.getvalue()


class CommandTests(CacheTestCase):
    @classmethod
    def setUpTestData(cls):
        cls.post = cls.make_post("keys")

    def test_scan_lists_the_keys_of_one_database(self):
        self.client.get("/about/")

        listed = ask("-n", "1", "--scan")

        self.assertEqual(sorted(listed.split()), self.keys("site"))
        self.assertTrue(all(key.startswith("site:") for key in listed.split()))

    def test_scan_with_a_pattern_lists_what_matches(self):
        self.client.get("/about/")

        (key,) = ask("-n", "1", "--scan", "--pattern", "*:page:*").split()

        self.assertEqual([key], self.pages("site"))

    def test_a_page_is_shown_with_status_headers_and_body(self):
        page = self.client.get("/posts/keys/")

        shown = ask("-n", "2", "GET", self.pages("view")[0])

        self.assertIn("HTTP 200\nContent-Type: text/html; charset=utf-8\n", shown)
        self.assertIn(page.text.strip(), shown)

    def test_values_are_shown_as_python_has_them(self):
        for value, shown in (
            ({"pk": 1}, "{'pk': 1}\n"),
            ([1, None], "[1, None]\n"),
            (mark_safe("<b>"), "'<b>'\n"),
            ("café", "'café'\n"),
            (7, "7\n"),  # As a plain number, so that INCR works.
        ):
            with self.subTest(value):
                caches["default"].set("key", value)

                self.assertEqual(ask("GET", "low-level:1:key"), shown)

    def test_answers_look_as_in_redis_cli(self):
        for words, answer in (
            (("SET", "low-level:a", "1", "EX", "10"), "OK\n"),
            (("GET", "low-level:a"), "1\n"),
            (("EXISTS", "low-level:a"), "(integer) 1\n"),
            (("GET", "low-level:b"), "(nil)\n"),
            (("MGET", "low-level:a", "low-level:b"), "1) 1\n2) (nil)\n"),
            (("RPUSH", "low-level:l", "x", "y"), "(integer) 2\n"),
            (("LRANGE", "low-level:l", "0", "-1"), "1) x\n2) y\n"),
            (("LRANGE", "low-level:none", "0", "-1"), "(empty)\n"),
        ):
            with self.subTest(words):
                self.assertEqual(ask(*words), answer)

    def test_the_seconds_that_a_key_has_left(self):
        caches["default"].set("key", 1, 100)

        self.assertRegex(ask("TTL", "low-level:1:key"), r"^\(integer\) (99|100)\n$")

    def test_a_value_can_do_nothing_to_the_terminal(self):
        with closing(Redis.from_url(settings.REDIS_URL)) as client:
            client.set("low-level:evil", b"\x1b[2Jline\n\xff")

        self.assertEqual(ask("GET", "low-level:evil"), "\\x1b[2Jline\n\\xff\n")

    def test_errors_are_one_line(self):
        for words in (("FOO",), ("GET",), ("-n", "x", "PING"), ("-n", "99", "PING"), ("--foo",)):
            with self.subTest(words), self.assertRaises(CommandError) as caught:
                ask(*words)
            self.assertNotIn("\n", str(caught.exception))


class PromptTests(CacheTestCase):
    def type(self, *lines):
        """Return what is printed when these lines come through a pipe."""
        with mock.patch("sys.stdin", StringIO("\n".join(lines))):
            return ask()

    def test_it_runs_one_command_per_line_on_one_connection(self):
        printed = self.type("SET low-level:a 'x y'", "SELECT 1", "GET low-level:a", "SELECT 0")
        printed += self.type("GET low-level:a", "exit", "GET low-level:a")

        self.assertEqual(printed, "OK\nOK\n(nil)\nOK\nx y\n")

    def test_an_error_does_not_end_it(self):
        printed = self.type("FOO", "GET 'x", "SELECT x", "", "ECHO on")

        self.assertEqual(len(printed.splitlines()), 4)
        self.assertTrue(all(line.startswith("(error) ") for line in printed.splitlines()[:3]))
        self.assertTrue(printed.endswith("\non\n"))


@tag("slow")
class ProcessTests(SimpleTestCase):
    """As it is typed."""

    def test_without_a_redis_it_is_one_line(self):
        for words in (("PING",), ("--scan",), ()):
            done = run("manage.py", "redis", *words, REDIS_URL=NOBODY)

            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertRegex(done.stderr, r"^.*127\.0\.0\.1:1.*manage.py up.*\n$")

    def test_a_wrong_option_is_one_line(self):
        done = run("manage.py", "redis", "--foo", REDIS_URL=settings.REDIS_URL)

        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stderr.splitlines()), 1)

    def test_monitor_shows_commands_as_they_come(self):
        with subprocess.Popen(
            [sys.executable, "manage.py", "redis", "MONITOR"],
            cwd=settings.BASE_DIR,
            env=environment(REDIS_URL=settings.REDIS_URL),
            stdout=subprocess.PIPE,
            text=True,
        ) as monitor:
            self.addCleanup(monitor.kill)
            self.assertEqual(monitor.stdout.readline(), "OK\n")

            with closing(Redis.from_url(settings.REDIS_URL)) as client:
                client.echo("hello")

            self.assertTrue(
                wait_until(lambda: '"ECHO" "hello"' in monitor.stdout.readline(), seconds=60)
            )
            monitor.kill()
