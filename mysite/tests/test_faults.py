"""
The fault table as tests: gunicorn with 2 x 4 threads, 8 clients, and a Redis that fails for real.

tools/faults.py measures the same for longer and prints the figures.
"""

import itertools
import re
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from unittest import skipUnless

from django.test import SimpleTestCase, tag

from mysite.tests import outages
from mysite.tests.faults import RedisServer
from mysite.tests.processes import wait_until
from mysite.tests.served import Gunicorn, Home
from resilient_cache.circuit import PERIOD

COMMENTED = "/posts/the-whole-site/"
KEPT = ("/", "/about/", COMMENTED)
PAGES = (*KEPT, "/archive/", "/search/?q=redis", f"{COMMENTED}comment/", "/posts/no-such-post/")
WORKERS, THREADS = 2, 4


@tag("outage")
class FaultTests(SimpleTestCase):
    """Pages answer 200, and afterwards all is as it was."""

    seconds = 3  # That a fault lasts where it ends by itself.
    numbers = itertools.count()

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = RedisServer().start()
        cls.addClassCleanup(cls.server.close)
        cls.home = cls.enterClassContext(Home())
        # Many pages are built here, so they are short.
        cls.home.query("UPDATE blog_post SET body = 'Short, about Redis.'")
        cls.shared = cls.enterClassContext(Gunicorn(cls.home, cls.server.url, workers=WORKERS))

    def setUp(self):
        self.stack = self.enterContext(ExitStack())
        self.gunicorn = self.shared

    def use(self, name):
        """Start a gunicorn of the test's own, whose way to Redis can fail."""
        url, command = outages.way_to_redis(self.stack, self, name)
        self.gunicorn = self.enterContext(Gunicorn(self.home, url, WORKERS, command))

    def read_all(self):
        """Let eight clients read every page. Return {path: {status}}."""
        with ThreadPoolExecutor(len(self.browsers)) as threads:
            answers = list(threads.map(self.read, self.browsers, range(len(self.browsers))))
        seen = defaultdict(set)
        for path, status in itertools.chain(*answers):
            seen[path].add(status)
        return seen

    def read(self, browser, offset):
        first = offset % len(PAGES)
        return [(path, browser.get(path).status) for path in PAGES[first:] + PAGES[:first]]

    def comment(self):
        """Comment, see it at once, and return what every answer must show from now on."""
        author = f"Ada {next(self.numbers)} during {self.fault}"
        visitor = self.gunicorn.browser(**{"X-Forwarded-For": "10.0.0.1"})
        self.addCleanup(visitor.close)
        self.assertEqual(visitor.comment("the-whole-site", author, "x").status, 302)
        self.assertIn(author, visitor.get(COMMENTED).text)
        return author

    def all_hits(self):
        return all(b.get(path).is_hit for b in self.browsers for path in KEPT)

    def connections(self):
        """Return how many connections Redis has taken since it started."""
        return self.server.command("INFO", "stats")["total_connections_received"]

    def bites(self):
        """Return whether the blog has noticed the fault."""
        browser = self.browsers[0]
        if self.fault in ("full", "restarted", "wrong type", "garbage"):
            return not browser.get("/").is_hit
        if self.fault == "read-only":
            browser.get("/search/?q=redis")  # It counts searches: only a write is refused.
        return '"down"' in browser.get("/healthz").text

    def go_through(self, fault):
        """Check all of the table's limits for one fault."""
        self.fault = fault
        self.browsers = [self.gunicorn.browser() for _ in range(8)]
        for browser in self.browsers:
            self.addCleanup(browser.close)
        self.assertTrue(wait_until(lambda: '"up"' in self.browsers[0].get("/healthz").text))
        self.server.command("FLUSHALL")
        self.read_all()
        self.assertTrue(wait_until(self.all_hits))

        connections = self.connections()
        log, began = len(self.gunicorn.lines()), time.monotonic()
        end = outages.FAULTS[fault](self)
        if fault != "half-open":  # Is noticed once, by whoever is first.
            self.assertTrue(wait_until(self.bites), "the blog does not notice it")
        author = self.comment()
        seen = self.read_all()
        again = self.comment()
        seconds = time.monotonic() - began
        end()

        for path, statuses in seen.items():
            with self.subTest(path):
                self.assertEqual(statuses, {404 if "no-such" in path else 200})
        if fault == "hung":
            # A call that times out closes its connection, and opens a new one. Without the
            # breaker each call of each page does. With it, each thread does so once at most,
            # and the probes once per period.
            allowed = WORKERS * (2 * THREADS + seconds / PERIOD)
            self.assertLessEqual(self.connections() - connections, allowed)
        self.assertTrue(wait_until(self.all_hits), "no hits after it")
        for browser in self.browsers:
            text = browser.get(COMMENTED).text
            self.assertIn(author, text)
            self.assertIn(again, text)
        kept = {name for (name,) in self.home.query("SELECT author FROM blog_comment")}
        self.assertLessEqual({author, again}, kept)
        said = self.gunicorn.lines()[log:]
        if fault == "half-open":
            self.assertIn("is down", said)
        lines = re.findall(r"WARNING|ERROR|Traceback", said)
        # Each process says when it begins and when it ends; more than that once a second.
        self.assertLess(len(lines), 4 * WORKERS + time.monotonic() - began)
        self.assertNotIn("Traceback", lines)

    def test_pages_answer_while_redis_is_stopped_and_comes_back_with_its_old_data(self):
        self.go_through("stopped")

    def test_pages_answer_while_redis_is_restarted_each_second(self):
        self.go_through("restarted")

    def test_pages_answer_while_redis_hangs_and_each_thread_waits_once(self):
        self.go_through("hung")

    def test_pages_answer_while_redis_wants_a_password(self):
        self.go_through("auth")

    def test_pages_answer_while_redis_is_full(self):
        self.go_through("full")

    def test_pages_answer_while_redis_is_read_only(self):
        self.go_through("read-only")

    def test_pages_answer_while_redis_loads_its_data(self):
        self.go_through("loading")

    def test_pages_answer_while_the_packets_of_open_connections_are_lost(self):
        self.use("half-open")
        self.go_through("half-open")

    @skipUnless(outages.has_namespaces(), "needs a /etc/hosts of its own")
    def test_pages_answer_while_the_host_name_of_redis_is_not_found(self):
        self.use("dns")
        self.go_through("dns")

    def test_pages_answer_while_every_key_has_the_wrong_type(self):
        self.go_through("wrong type")

    def test_pages_answer_while_every_key_holds_garbage(self):
        self.go_through("garbage")
