"""The test runner: tests have a Redis of their own and can't touch another."""

import re
import warnings
from contextlib import closing
from pathlib import Path

from django.conf import settings
from django.core.cache import caches
from django.test import SimpleTestCase, tag
from redis import Redis

from mysite.private_redis import PrivateRedis
from mysite.tests.processes import run, wait_until

SAMPLE = "mysite.tests.parallel_sample"
FAILURES = "mysite.tests.parallel_failures"

# As manage.py, but with worker processes that start from nothing, as on macOS.
SPAWN = """
import multiprocessing, sys
import manage
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    manage.main()
"""


class RunnerTests(SimpleTestCase):
    """How these tests themselves are run."""

    def test_every_cache_is_on_the_private_redis(self):
        self.assertRegex(settings.REDIS_URL, r"^unix://.*/redis-[0-9a-f]+/redis\.sock$")
        for alias, options in settings.CACHES.items():
            with self.subTest(alias):
                self.assertEqual(options["LOCATION"], settings.REDIS_URL)
                self.assertIs(caches[alias].set("key", "value"), True)

    def test_a_warning_in_this_project_is_an_error(self):
        def warn(module, kind=DeprecationWarning):
            warnings.warn_explicit("old", kind, "file.py", 1, module=module)

        for module in ("mysite.checks", "blog.views", "blog"):
            for kind in (DeprecationWarning, RuntimeWarning):
                with self.subTest(module, kind=kind), self.assertRaises(kind):
                    warn(module, kind)
        with warnings.catch_warnings(record=True):
            warn("blogging.elsewhere")


# As manage.py, where tblib is not installed.
WITHOUT_TBLIB = """
import sys
import manage
sys.modules["tblib"] = None
manage.main()
"""


@tag("slow")
class FailureTests(SimpleTestCase):
    """Tests that fail in a worker, with exceptions and subtests that can't be pickled."""

    def test_each_is_reported_by_name_and_message_and_the_run_goes_on(self):
        for arguments in (["manage.py"], ["-c", WITHOUT_TBLIB]):
            with self.subTest(arguments):
                done = run(*arguments, "test", "--parallel", "2", FAILURES)

                self.assertEqual(done.returncode, 1)
                for line in (
                    rf"^ERROR: test_an_error_that_holds_a_lock \({FAILURES}.ErrorTests",
                    r"^RuntimeError: This error holds a lock\.$",
                    r"^FAIL: test_a_subtest_of_a_function .*\(number=2, function=<function ",
                    r"^AssertionError: 2 != 1 : This subtest has a function\.$",
                    rf"^ERROR: setUpClass \({FAILURES}.BrokenClassTests\)$",
                    r"^ValueError: <function ",
                    r"^Ran 3 tests in ",
                    r"^FAILED \(failures=1, errors=2\)$",
                ):
                    self.assertRegex(done.stderr, f"(?m){line}")


@tag("slow")
class RunTests(SimpleTestCase):
    """A whole run, beside another Redis, at REDIS_URL."""

    def setUp(self):
        self.other = self.enterContext(PrivateRedis())
        self.client = self.enterContext(closing(Redis.from_url(self.other.url)))
        self.connections = self.client.info("stats")["total_connections_received"]

    def run_tests(self, *arguments):
        """Run the sample tests; return the processes and the URLs they had."""
        elsewhere = {"SECRET_KEY": "x", "DEBUG": "0", "HTTPS": "1"}  # As a server is set up.
        done = run(*arguments, REDIS_URL=self.other.url, **elsewhere)
        self.assertEqual(done.returncode, 0, done.stderr)
        reports = re.findall(r"^(\d+) of \d+: unix://(\S+)$", done.stdout, re.MULTILINE)
        self.assertEqual(len(reports), 2, done.stdout)
        return {pid for pid, _ in reports}, {Path(path) for _, path in reports}

    def assertLeftNothingAndTouchedNothing(self, sockets):
        self.assertNotIn(self.other.socket, sockets)
        for socket in sockets:
            self.assertTrue(wait_until(lambda path=socket: not path.parent.exists()))
        self.assertEqual(self.client.info("stats")["total_connections_received"], self.connections)

    def test_a_run_in_one_process(self):
        processes, sockets = self.run_tests("manage.py", "test", SAMPLE)

        self.assertEqual((len(processes), len(sockets)), (1, 1))
        self.assertLeftNothingAndTouchedNothing(sockets)

    def test_each_parallel_process_has_its_own_redis(self):
        processes, sockets = self.run_tests("manage.py", "test", "--parallel", "2", SAMPLE)

        self.assertEqual(len(processes), len(sockets))
        self.assertLeftNothingAndTouchedNothing(sockets)

    def test_each_spawned_process_has_its_own_redis(self):
        processes, sockets = self.run_tests("-c", SPAWN, "test", "--parallel", "2", SAMPLE)

        self.assertEqual(len(processes), len(sockets))
        self.assertLeftNothingAndTouchedNothing(sockets)
