"""manage.py invalidate."""

import io
import os
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr
from unittest import mock

from django.core.cache import cache
from django.core.management import CommandError, call_command, execute_from_command_line
from django.test import override_settings, tag

from resilient_cache.groups import version
from resilient_cache.tests.base import PATIENCE, CacheTestCase, silent
from resilient_cache.tests.server import RedisServer, caches_at, wait_until

# A script of a project's own, which invalidates and ends.
SCRIPT = """
import sys, django
django.setup()
from django.test import override_settings
from resilient_cache import groups
from resilient_cache.tests.server import caches_at
override_settings(CACHES=caches_at(sys.argv[1], 0.25)).enable()
groups.PATIENCE = float(sys.argv[2])
groups.invalidate("posts")
"""


class InvalidateCommandTests(CacheTestCase):
    """The command invalidates groups, and its exit status tells whether Redis took that."""

    def run_command(self, *arguments):
        """Return the exit status and what was written."""
        out, err = io.StringIO(), io.StringIO()
        with mock.patch.object(sys, "stdout", out), redirect_stderr(err):
            try:
                execute_from_command_line(["manage.py", "invalidate", *arguments])
            except SystemExit as end:
                return end.code, out.getvalue(), err.getvalue()
        return 0, out.getvalue(), err.getvalue()

    def test_each_group_is_invalidated_at_every_alias(self):
        aliases = ("site", "view", "template_fragments", "default")
        before = {version(group, alias) for alias in aliases for group in ("posts", "/about/")}

        status, out, err = self.run_command("posts", "/about/")

        after = {version(group, alias) for alias in aliases for group in ("posts", "/about/")}
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(out, "Invalidated posts, /about/.\n")
        self.assertTrue(before.isdisjoint(after))

    def test_it_may_say_nothing(self):
        self.assertEqual(self.run_command("posts", "--verbosity", "0"), (0, "", ""))

    def test_a_name_that_is_not_one_is_refused_in_one_line(self):
        status, out, err = self.run_command("")

        self.assertEqual((status, out), (1, ""))
        self.assertEqual(err.count("\n"), 1)
        self.assertIn("at least one character", err)

    def test_no_name_is_refused(self):
        status, _, err = self.run_command()

        self.assertEqual(status, 2)
        self.assertIn("GROUP", err)

    @tag("outage")
    def test_a_redis_that_is_down_is_said_in_one_line(self):
        with self.outage() as server:
            server.hang()
            with mock.patch("resilient_cache.groups.PATIENCE", 0.2):
                status, out, err = self.run_command("posts")
            self.recover(server)

        self.assertEqual((status, out), (1, ""))
        # Besides it, the log's own line.
        self.assertEqual(sum(not line.startswith("Redis at") for line in err.splitlines()), 1)
        for alias in ("site", "view", "template_fragments", "default"):
            self.assertIn(alias, err)

    @tag("outage")
    def test_a_redis_that_comes_back_in_time_is_waited_for(self):
        with self.outage() as server:
            before = version("posts")
            server.hang()
            with mock.patch("time.sleep", side_effect=lambda seconds: self.recover(server)):
                status, _, _ = self.run_command("posts")

            self.assertEqual(status, 0)
            self.assertNotEqual(version("posts"), before)

    @tag("outage")
    def test_a_script_that_ends_while_redis_hangs_says_what_may_stay_old(self):
        with self.outage() as server:
            server.hang()
            process = self.script(server.url, "0.2")
            _, err = process.communicate()
            server.wake()

        self.assertIn("may stay old until its timeout", err.splitlines()[-1])

    @tag("outage")
    def test_a_script_does_not_end_before_redis_has_taken_its_invalidation(self):
        with self.outage() as server:
            before = version("posts")
            server.hang()
            process = self.script(server.url, str(PATIENCE))
            self.assertIn("is down", process.stderr.readline())
            server.wake()
            _, err = process.communicate()

            self.assertNotIn("may stay old", err)
            self.assertTrue(wait_until(cache.breaker.probe))
            self.assertNotEqual(version("posts"), before)

    def script(self, *arguments):
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"DJANGO_SETTINGS_MODULE": "resilient_cache.tests.settings"},
        )

    @contextmanager
    def outage(self):
        """Move the caches to a server that may hang."""
        server = RedisServer().start()
        self.addCleanup(server.close)
        with override_settings(CACHES=caches_at(server.url, 0.25)), silent():
            yield server

    def recover(self, server):
        """Let the server answer. This process then invalidates what it has to."""
        server.wake()
        self.assertTrue(wait_until(cache.breaker.probe))

    def test_it_is_a_command_error_for_callers(self):
        with self.assertRaises(CommandError):
            call_command("invalidate", "")
