"""An invalidation that could not reach Redis is not forgotten, by any process."""

import json
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from unittest import mock

from django.core.cache import caches
from django.http import HttpResponse
from django.test import RequestFactory, SimpleTestCase, override_settings
from redis import Redis

from mysite.caches import invalidation
from mysite.caches.breaker import breaker_of
from mysite.caches.invalidation import JournalMiddleware, deliver, invalidate
from mysite.caches.pages import generation_key
from mysite.testing import TEST_TIMEOUT, use_redis_within
from mysite.tests.faults import RedisServer, free_port
from mysite.tests.processes import wait_until
from mysite.tests.served import Gunicorn, Home

POST = "keys-prefixes-and-versions"
PAGES = ("/", f"/posts/{POST}/", "/archive/", "/feed/")

EDIT = """
import sys
import django
django.setup()
from blog.models import Post
Post.objects.filter(slug=sys.argv[1]).update(title=sys.argv[2])
"""


class JournalTestCase(SimpleTestCase):
    """A Redis of the test's own, and a journal of its own."""

    def setUp(self):
        self.server = RedisServer().start()
        self.addCleanup(self.server.close)
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.journal = folder / "journal"
        self.enterContext(use_redis_within(TEST_TIMEOUT, self.server.url))
        self.enterContext(override_settings(INVALIDATION_JOURNAL=self.journal))
        self.breaker = breaker_of()
        self.breaker.period = 60  # A test says itself when Redis is asked.
        self.addCleanup(self.breaker.forget_threads)
        self.warning = self.enterContext(mock.patch("mysite.caches.log.logger.warning"))
        self.enterContext(mock.patch.object(invalidation, "_unwritten", {}))
        self.enterContext(mock.patch.object(invalidation._log, "_next", 0))
        self.redis = Redis.from_url(self.server.url)
        self.addCleanup(self.redis.close)

    def drop(self, *slugs):
        """Drop what a comment on these posts would."""
        pages = {("view", f"post:{slug}") for slug in slugs} | {("site", "posts")}
        invalidate(pages, {"default": ["search:generation"], "template_fragments": ["months"]})

    def token(self, alias, name):
        return caches[alias].get(generation_key(name))

    def orders(self):
        return sorted(self.journal.glob("*"))

    def request(self):
        """Send a request through the middleware, and return it once it came out."""
        request = RequestFactory().get("/")
        JournalMiddleware(lambda request: HttpResponse())(request)
        return request

    def lines(self):
        return [call.args[0] % call.args[1:] for call in self.warning.call_args_list]


class WrittenTests(JournalTestCase):
    """What reaches the journal, and what doesn't."""

    def test_what_reaches_redis_is_not_written(self):
        self.drop("keys")

        self.assertEqual(self.orders(), [])
        self.assertIs(self.breaker.is_open, False)

    def test_what_does_not_is_written_and_nothing_is_read_any_more(self):
        self.server.hang()

        self.drop("keys")

        (order,) = [json.loads(path.read_text()) for path in self.orders()]
        self.assertEqual(order["generations"], {"site": ["posts"], "view": ["post:keys"]})
        self.assertEqual(list(order["keys"]), ["default", "template_fragments"])
        self.assertIs(self.breaker.is_open, True)

    def test_a_probe_delivers_before_it_closes(self):
        caches["default"].set("search:generation", 1)
        self.drop("other")
        before = self.token("view", "post:other")
        self.server.hang()
        self.drop("keys", "other")
        self.server.wake()

        self.assertIs(self.breaker.probe(), True)

        self.assertIsNotNone(self.token("view", "post:keys"))
        self.assertNotEqual(self.token("view", "post:other"), before)
        self.assertIsNone(caches["default"].get("search:generation"))
        self.assertIs(self.journal.exists(), False)

    def test_while_redis_hangs_it_stays_written(self):
        self.server.hang()
        self.drop("keys")

        self.assertIs(self.breaker.probe(), False)

        self.assertEqual(len(self.orders()), 1)

    def test_a_full_redis_loses_the_token_instead(self):
        self.drop("keys")
        self.server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        self.server.command("CONFIG", "SET", "maxmemory", "1")

        self.drop("keys")

        self.assertIsNone(self.token("view", "post:keys"))
        self.assertEqual(self.orders(), [])
        self.assertIs(self.breaker.is_open, False)

    def test_a_read_only_redis_stays_unused_until_it_takes_it(self):
        self.drop("keys")
        before = self.token("view", "post:keys")
        self.server.command("REPLICAOF", "127.0.0.1", str(free_port()))
        self.drop("keys")

        self.assertIs(self.breaker.probe(), False)
        self.server.command("REPLICAOF", "NO", "ONE")
        self.assertIs(self.breaker.probe(), True)

        self.assertNotEqual(self.token("view", "post:keys"), before)

    def test_an_outage_of_hours_is_delivered_as_one(self):
        self.server.kill()
        for number in range(200):
            self.drop(f"post-{number % 20}")
        self.assertEqual(len(self.orders()), 200)
        self.server.start()

        self.assertIs(self.breaker.probe(), True)

        commands = self.redis.info("commandstats")
        self.assertLess(sum(each["calls"] for each in commands.values()), 60)
        self.assertIsNotNone(self.token("view", "post:post-19"))


class UnwritableTests(JournalTestCase):
    """The journal can't be written: the disk is full, or somebody broke it."""

    def setUp(self):
        super().setUp()
        self.journal.write_text("not a folder")

    def test_it_waits_in_this_process(self):
        self.drop("keys")
        before = self.token("view", "post:keys")
        self.server.hang()
        self.drop("keys")
        self.assertIs(self.breaker.is_open, True)
        self.server.wake()

        self.assertIs(self.breaker.probe(), True)

        self.assertNotEqual(self.token("view", "post:keys"), before)
        self.assertEqual(invalidation._unwritten, {})

    def test_a_request_delivers_it_too(self):
        self.drop("keys")
        before = self.token("view", "post:keys")
        self.server.hang()
        self.drop("keys")
        self.server.wake()
        # As if the probe had looked at the very moment before it was noted down.
        self.breaker.is_open = False

        self.request()

        self.assertNotEqual(self.token("view", "post:keys"), before)
        self.assertEqual(invalidation._unwritten, {})

    def test_it_is_said_once(self):
        self.server.hang()
        for _ in range(20):
            self.drop("keys")

        (line,) = [line for line in self.lines() if "can't be written" in line]
        self.assertIn(str(self.journal), line)

    def test_it_leaves_no_file_behind(self):
        self.server.hang()
        self.drop("keys")

        self.assertEqual(list(self.journal.parent.iterdir()), [self.journal])


class UnreadableTests(JournalTestCase):
    """What is in the journal is no order: nobody knows what it dropped, so all goes."""

    contents = (
        *("", "{", "[]", "null", '"keys"', "\x00", '{"keys": {}}'),
        '{"keys": [], "generations": 1}',
        '{"keys": {"no such alias": ["key"]}, "generations": {}}',
        '{"keys": {}, "generations": {"no such alias": ["posts"]}}',
    )

    def test_a_request_empties_the_caches(self):
        for content in self.contents:
            with self.subTest(content):
                caches["view"].set("key", "old")
                self.journal.mkdir()
                (self.journal / "broken.json").write_text(content)

                self.request()

                self.assertIsNone(caches["view"].get("key"))
                self.assertIs(self.journal.exists(), False)
                self.assertIs(self.breaker.is_open, False)

    def test_the_other_orders_are_carried_out(self):
        self.server.hang()
        self.drop("keys")
        (self.journal / "broken.json").write_text("{")
        self.server.wake()

        self.assertIs(self.breaker.probe(), True)

        self.assertIsNotNone(self.token("view", "post:keys"))
        self.assertIs(self.journal.exists(), False)

    def test_an_order_that_cannot_be_opened_keeps_redis_unused(self):
        self.journal.mkdir()
        (self.journal / "folder.json").mkdir()

        self.request()

        self.assertIs(self.breaker.is_open, True)
        self.assertIn("Undelivered", self.breaker.state()["error"])


class MiddlewareTests(JournalTestCase):
    """A process whose own breaker never opened finds what another one has written."""

    def write(self):
        """Write what another process could not tell Redis."""
        self.server.hang()
        self.drop("keys")
        self.breaker.is_open = False

    def test_the_next_request_delivers(self):
        self.write()
        self.server.wake()

        self.request()

        self.assertIsNotNone(self.token("view", "post:keys"))
        self.assertIs(self.journal.exists(), False)

    def test_while_redis_hangs_nothing_is_read(self):
        self.write()

        self.request()

        self.assertIs(self.breaker.is_open, True)
        self.assertEqual(len(self.orders()), 1)

    def test_without_a_journal_redis_is_not_asked(self):
        with mock.patch.object(invalidation, "breaker_of") as asked:
            self.request()

        asked.assert_not_called()

    def test_all_at_once_deliver_without_an_error(self):
        for _ in range(3):
            self.write()
            for number in range(20):
                invalidation._write({"keys": {}, "generations": {"site": [f"page-{number}"]}})
            self.server.wake()
            barrier = threading.Barrier(8)

            def together(number, barrier=barrier):
                barrier.wait()
                deliver(self.breaker)

            with ThreadPoolExecutor(8) as threads:
                list(threads.map(together, range(8)))

            self.assertIs(self.journal.exists(), False)
            self.assertIsNotNone(self.token("site", "page-19"))

    def test_what_is_written_during_a_delivery_is_not_lost(self):
        for number in range(50):
            invalidation._write({"keys": {}, "generations": {"site": [f"page-{number}"]}})
        with ThreadPoolExecutor(2) as threads:
            stop = threading.Event()

            def keep_delivering():
                while not stop.is_set():
                    deliver(self.breaker)

            delivering = threads.submit(keep_delivering)
            for number in range(50, 300):
                invalidation._write({"keys": {}, "generations": {"site": [f"page-{number}"]}})
            stop.set()
            delivering.result()
        deliver(self.breaker)

        tokens = caches["site"].get_many(generation_key(f"page-{n}") for n in range(300))
        self.assertEqual(len(tokens), 300)
        self.assertIs(self.journal.exists(), False)
        self.assertEqual(invalidation._unwritten, {})


class TwoProcessesTests(SimpleTestCase):
    """Two gunicorns with a worker each, as two containers have them: one database, one Redis."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = RedisServer().start()
        cls.addClassCleanup(cls.server.close)
        cls.home = cls.enterClassContext(Home())
        cls.here = cls.enterClassContext(Gunicorn(cls.home, cls.server.url))
        cls.there = cls.enterClassContext(Gunicorn(cls.home, cls.server.url))

    def setUp(self):
        self.number = 0
        self.mine, self.other = self.here.browser(), self.there.browser()
        self.addCleanup(self.mine.close)
        self.addCleanup(self.other.close)
        self.heal()
        self.server.command("FLUSHALL")
        for browser in (self.mine, self.other):
            for page in PAGES:
                browser.get(page)
        self.assertTrue(self.mine.get(PAGES[1]).is_hit)
        self.assertTrue(self.other.get(PAGES[1]).is_hit)

    def heal(self):
        for browser in (self.mine, self.other):
            self.assertTrue(wait_until(lambda b=browser: b.get("/healthz").text.find('"up"') > 0))

    def comment(self):
        """Comment through one of the two, and return what the pages must show from now on."""
        author = f"{self.id().rpartition('.')[2]} {self.number}"[-50:]
        self.number += 1
        self.assertEqual(self.mine.comment(POST, author, "In the meantime.").status, 302)
        return author

    def assertNew(self, browser, author):
        """Assert that the next answers of this process are the new ones."""
        for page in (PAGES[1], "/archive/"):
            answer = browser.get(page)
            self.assertEqual(answer.status, 200)
            self.assertIn(author, answer.text, page)

    def assertHitsAgain(self, author):
        for browser in (self.mine, self.other):
            self.assertTrue(wait_until(lambda b=browser: b.get(PAGES[1]).is_hit))
            self.assertNew(browser, author)
        self.assertFalse(self.home.journal.exists())

    def test_a_comment_while_redis_hangs(self):
        self.server.hang()
        author = self.comment()
        self.assertNew(self.mine, author)
        self.server.wake()

        self.assertNew(self.other, author)
        self.assertNew(self.mine, author)
        self.assertHitsAgain(author)

    def test_the_process_that_wrote_it_reads_first(self):
        self.server.hang()
        author = self.comment()
        self.server.wake()

        self.assertNew(self.mine, author)
        self.assertNew(self.other, author)
        self.assertHitsAgain(author)

    def test_the_other_process_while_redis_still_hangs(self):
        self.server.hang()
        author = self.comment()

        self.assertNew(self.other, author)
        self.server.wake()

        self.assertNew(self.other, author)
        self.assertHitsAgain(author)

    def test_a_redis_that_was_stopped_and_still_has_all_of_it(self):
        self.server.command("SAVE")
        self.server.kill()
        author = self.comment()
        self.server.start()
        self.assertIn("db2", self.server.command("INFO", "keyspace"))

        self.assertNew(self.other, author)
        self.assertNew(self.mine, author)
        self.assertHitsAgain(author)

    def test_a_full_redis(self):
        self.addCleanup(self.server.command, "CONFIG", "SET", "maxmemory", "0")
        self.server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        self.server.command("CONFIG", "SET", "maxmemory", "1")
        author = self.comment()

        self.assertNew(self.other, author)
        self.assertNew(self.mine, author)

        self.server.command("CONFIG", "SET", "maxmemory", "0")
        self.assertHitsAgain(author)

    def test_a_read_only_redis_stays_unused_until_it_can_be_written(self):
        self.server.command("REPLICAOF", "127.0.0.1", str(free_port()))
        self.addCleanup(self.server.command, "REPLICAOF", "NO", "ONE")
        self.assertTrue(self.other.get(PAGES[1]).is_hit)
        author = self.comment()

        for browser in (self.other, self.mine):
            self.assertNew(browser, author)
            self.assertFalse(browser.get(PAGES[1]).is_hit)
            self.assertIn('"down"', browser.get("/healthz").text)

        self.server.command("REPLICAOF", "NO", "ONE")
        self.assertNew(self.other, author)
        self.assertHitsAgain(author)

    def test_a_process_that_is_gone_when_redis_comes_back(self):
        self.server.hang()
        self.home.run("-c", EDIT, POST, "Keys, revised", REDIS_URL=self.server.url)
        self.server.wake()

        for browser in (self.other, self.mine):
            self.assertIn("Keys, revised", browser.get(PAGES[1]).text)

    def test_all_threads_of_both_at_once(self):
        self.server.hang()
        author = self.comment()
        self.server.wake()

        def read(gunicorn):
            with closing(gunicorn.browser()) as browser:
                answer = browser.get(PAGES[1])
            return answer.status, author in answer.text

        with ThreadPoolExecutor(8) as threads:
            seen = set(threads.map(read, [self.here, self.there] * 8))
        self.assertEqual(seen, {(200, True)})
        self.assertHitsAgain(author)
