import copy
import os
import socket
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

from django.core.cache import caches
from django.test import SimpleTestCase, override_settings
from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, OutOfMemoryError, RedisError
from redis.retry import Retry

from mysite.caches import breaker as breaker_module
from mysite.caches import redis_caches, stampede
from mysite.caches.breaker import (
    PERIOD,
    WRITE_PAUSE,
    BreakerOpen,
    BreakerRetry,
    breaker_of,
)
from mysite.caches.pages import new_generations
from mysite.caches.stampede import NotKept, get_or_build
from mysite.checks import redis_answers
from mysite.testing import PATIENCE, TEST_TIMEOUT, timeouts
from mysite.tests import outages
from mysite.tests.faults import Proxy, RedisServer, answer_everything_with, free_port
from mysite.tests.processes import wait_until

ALIASES = ("site", "view", "template_fragments", "default")

# A page that waited for one timeout, and perhaps for the machine. With a breaker for each alias
# it would be four, and without one twenty.
FEW_TIMEOUTS = 3 * TEST_TIMEOUT


def quickest(do):
    """Return the seconds that `do` takes, at best of three: the machine may pause."""
    durations = []
    for _ in range(3):
        start = time.monotonic()
        do()
        durations.append(time.monotonic() - start)
    return min(durations)


def page():
    """Do what a page over all four levels does, 20 calls. Return how long it took."""
    start = time.monotonic()
    for number in range(5):
        for alias in ALIASES:
            caches[alias].get(f"key-{number}")
    return time.monotonic() - start


def pages_at_once(count=8):
    """Return how long each of `count` pages took, each in a thread with its own connections."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda number: page(), range(count)))


class BreakerTestCase(SimpleTestCase):
    """A Redis of the test's own, with a value in it, and the four aliases on it."""

    period = 0.05
    timeout = PATIENCE
    arguments = ()  # of redis-server

    def setUp(self):
        self.server = RedisServer(*self.arguments).start()
        self.addCleanup(self.server.close)
        self.use(self.url())

    def url(self):
        return self.server.url

    def use(self, url):
        """Point the caches at `url`."""
        options = timeouts(self.timeout) | {"CLIENT_CLASS": "mysite.caches.client.SafeClient"}
        self.enterContext(override_settings(CACHES=redis_caches(url, **options)))
        self.breaker = breaker_of("default")
        self.breaker.period = self.period
        self.addCleanup(self.breaker.forget_threads)
        self.warning = self.enterContext(mock.patch("mysite.caches.log.logger.warning"))

    def probers(self):
        """Return how many threads ask Redis whether it is back."""
        name = f"redis-probe-{self.breaker.address}"
        return sum(thread.name == name for thread in threading.enumerate())

    def lines(self):
        """Return what was logged."""
        return [call.args[0] % call.args[1:] for call in self.warning.call_args_list]

    def assert_closes(self):
        self.assertTrue(wait_until(lambda: not self.breaker.is_open), self.breaker.state())


class HungRedisTests(BreakerTestCase):
    """Redis accepts connections and answers nothing."""

    timeout = TEST_TIMEOUT

    def test_a_page_waits_for_one_timeout(self):
        page()
        self.server.hang()

        self.assertLess(page(), FEW_TIMEOUTS)
        self.assertIs(self.breaker.is_open, True)

    def test_a_page_waits_for_one_timeout_when_nothing_is_connected_yet(self):
        self.server.hang()

        self.assertLess(page(), FEW_TIMEOUTS)

    def test_eight_pages_at_once_wait_for_one_timeout_each(self):
        pages_at_once()
        self.server.hang()

        self.assertLess(max(pages_at_once()), FEW_TIMEOUTS)
        self.assertEqual(self.breaker.epoch, 1)

    def test_nobody_waits_while_it_is_open_and_probed(self):
        self.server.hang()
        page()

        with mock.patch.object(self.breaker, "_ping", wraps=self.breaker._ping) as ping:
            durations = []
            wait_until(lambda: durations.append(page()) or ping.call_count == 3)
        self.assertEqual(ping.call_count, 3)
        # Of hundreds; one may have met a pause of the machine.
        self.assertLess(sum(duration > TEST_TIMEOUT for duration in durations), 2)

    def test_a_pipeline_and_a_lock_do_not_wait_either(self):
        self.server.hang()
        page()

        def pipeline_and_lock():
            caches["default"].set_many({"a": 1, "b": 2})
            with self.assertRaises(ConnectionError):
                caches["default"].lock("lock", timeout=5).acquire(blocking=False)

        self.assertLess(quickest(pipeline_and_lock), TEST_TIMEOUT)

    def test_a_probe_that_gets_no_answer_makes_the_period_no_longer(self):
        self.breaker.period = TEST_TIMEOUT
        self.server.hang()
        page()
        begun = []
        real = self.breaker.probe

        with mock.patch.object(
            self.breaker, "probe", lambda: begun.append(time.monotonic()) or real()
        ):
            self.assertTrue(wait_until(lambda: len(begun) == 4, 30))

        # From the first to the last there are three periods. With the timeouts it would be six.
        self.assertLess(begun[-1] - begun[0], 5 * TEST_TIMEOUT)

    def test_hits_again_when_it_goes_on(self):
        caches["default"].set("key", "value")
        self.server.hang()
        page()
        self.assertIsNone(caches["default"].get("key"))

        self.server.wake()

        self.assert_closes()
        self.assertEqual(caches["default"].get("key"), "value")

    def test_its_thread_ends_when_the_breaker_closes(self):
        self.server.hang()
        page()
        self.assertEqual(self.probers(), 1)

        self.server.wake()
        self.assert_closes()

        self.assertTrue(wait_until(lambda: not self.probers()))


class HungOnASocketTests(HungRedisTests):
    """The same over a Unix socket."""

    def url(self):
        return self.server.unix_url


class RealPeriodTests(BreakerTestCase):
    """With the period that is set in production."""

    timeout = TEST_TIMEOUT
    period = PERIOD

    def test_hits_again_within_a_period_and_a_second(self):
        self.assertLess(min(self.recovery() for _ in range(3)), PERIOD + 1)

    def recovery(self):
        """Return the seconds from the end of an outage to the first hit."""
        self.server.hang()
        page()
        self.server.wake()
        start = time.monotonic()
        self.assert_closes()
        return time.monotonic() - start

    def test_one_line_when_it_opens_and_one_when_it_closes(self):
        self.server.hang()
        pages_at_once()
        page()
        self.server.wake()
        self.assert_closes()

        opened, closed = self.lines()
        self.assertRegex(opened, rf"127.0.0.1:{self.server.port} is down.*Timeout")
        self.assertRegex(closed, r"is back after \d\.\d s")


class StoppedRedisTests(BreakerTestCase):
    """Redis is killed, and perhaps started again."""

    def test_a_page_does_not_wait(self):
        page()
        self.server.kill()

        self.assertLess(page(), FEW_TIMEOUTS)
        self.assertIs(self.breaker.is_open, True)

    def test_hits_again_after_a_start(self):
        self.server.kill()
        page()

        self.server.start()

        self.assert_closes()
        caches["default"].set("key", "value")
        self.assertEqual(caches["default"].get("key"), "value")

    def test_a_restart_between_two_pages_is_no_outage(self):
        pages_at_once()
        self.server.kill()
        self.server.start()

        pages_at_once()

        self.assertEqual(self.breaker.epoch, 0)
        self.assertIs(caches["default"].set("key", 1), True)

    def test_a_connection_lost_during_a_command_is_tried_again_once(self):
        connection = caches["default"].client.get_client().connection_pool.get_connection()
        self.server.command("CLIENT", "KILL", "TYPE", "normal")
        answers = []

        def ask():
            connection.send_command("PING")
            answers.append(connection.read_response())

        connection.retry.call_with_retry(ask, lambda error: connection.disconnect())

        self.assertEqual(answers, [b"PONG"])
        self.assertIs(self.breaker.is_open, False)


class RestartOnASocketTests(StoppedRedisTests):
    """The same over a Unix socket."""

    def url(self):
        return self.server.unix_url


class UnsteadyRedisTests(BreakerTestCase):
    """Redis is restarted again and again, or holds what nobody here wrote."""

    timeout = TEST_TIMEOUT

    def setUp(self):
        super().setUp()
        self.within(60)

    def within(self, seconds, same=0):
        """Let two losses within so many seconds count, and those within `same` be one."""
        self.enterContext(mock.patch.object(breaker_module, "UNSTEADY", seconds))
        self.enterContext(mock.patch.object(breaker_module, "SAME_LOSS", same))
        self.breaker.forget_losses()

    def restart(self):
        self.server.kill()
        self.server.start()
        pages_at_once()

    def test_one_restart_is_none_though_every_connection_notices_it(self):
        pages_at_once()

        self.restart()
        page()

        self.assertIs(self.breaker.is_unsteady, False)

    def test_two_restarts_are(self):
        pages_at_once()

        self.restart()
        self.restart()

        self.assertIs(self.breaker.is_unsteady, True)

    def test_two_restarts_long_after_each_other_are_none(self):
        pages_at_once()
        self.within(0)

        self.restart()
        self.restart()

        self.assertIs(self.breaker.is_unsteady, False)

    def test_an_outage_is_none_though_connections_of_before_it_are_dropped(self):
        pages_at_once()
        self.server.hang()
        page()
        self.server.wake()
        self.assert_closes()

        pages_at_once()

        self.assertIs(self.breaker.is_unsteady, False)

    def test_a_connection_that_is_older_than_the_end_of_an_outage_tells_nothing_new(self):
        self.breaker.lose(time.monotonic())
        old = time.monotonic()
        self.breaker.fail(ConnectionError("made up"))
        self.breaker.probe()

        self.breaker.lose(old)

        self.assertIs(self.breaker.is_unsteady, False)

    def test_what_several_notice_at_the_same_time_is_one_loss(self):
        self.within(60, same=60)

        for _ in range(8):
            self.breaker.lose(time.monotonic())

        self.assertIs(self.breaker.is_unsteady, False)

    def test_a_connection_that_is_older_than_the_last_loss_tells_nothing_new(self):
        old = time.monotonic()
        self.breaker.lose(old)

        self.breaker.lose(old)

        self.assertIs(self.breaker.is_unsteady, False)

    def test_it_ends(self):
        self.breaker.distrust()

        self.assert_ends("is_unsteady")

    def test_a_loss_is_over_some_time(self):
        self.breaker.lose(time.monotonic())

        self.assert_ends("has_lost")

    def assert_ends(self, name):
        """Assert that this property of the breaker is true, and a minute later no more."""
        now = time.monotonic()
        began = getattr(self.breaker, name)

        with mock.patch("mysite.caches.breaker.time.monotonic", lambda: now + 61):
            ended = not getattr(self.breaker, name)

        self.assertEqual((began, ended), (True, True))

    def test_a_pool_without_a_breaker_may_have_connections_of_this_kind(self):
        pool = caches["default"].client.get_client().connection_pool
        kwargs = pool.connection_kwargs | {"retry": Retry(NoBackoff(), 0)}
        other = Redis(connection_pool=ConnectionPool(pool.connection_class, **kwargs))
        self.addCleanup(other.close)
        for _ in range(3):
            other.ping()
            other.connection_pool.disconnect()

        self.assertIs(other.ping(), True)


class UnsteadyOnASocketTests(UnsteadyRedisTests):
    """The same over a Unix socket."""

    def url(self):
        return self.server.unix_url


class RefusingRedisTests(BreakerTestCase):
    """Redis answers, but not with what was asked for."""

    def assert_still_reads(self):
        self.assertEqual(caches["default"].get("key"), "old", self.lines())
        self.assertIs(self.breaker.is_open, False)

    def test_a_rejected_password_opens_it(self):
        self.server.command("CONFIG", "SET", "requirepass", "secret")

        self.assertLess(page(), FEW_TIMEOUTS)
        self.assertIn("AuthenticationError", self.breaker.state()["error"])

        with Redis(port=self.server.port, password="secret") as client:
            client.config_set("requirepass", "")
        self.assert_closes()

    def test_loading_opens_it_until_all_is_loaded(self):
        self.seconds = 3
        outages.loading(self)

        self.assertLess(page(), FEW_TIMEOUTS)

        self.assertIn("BusyLoadingError", self.lines()[0])
        self.assert_closes()
        self.assertFalse(outages.is_loading(self.server))

    def test_a_full_redis_still_answers_reads(self):
        caches["default"].set("key", "old")
        self.server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        self.server.command("CONFIG", "SET", "maxmemory", "1")

        for number in range(20):
            self.assertFalse(caches["default"].set(f"new-{number}", 1))

        self.assert_still_reads()
        self.assertEqual(len(self.lines()), 1)
        self.assertIn("refuses to store anything", self.lines()[0])

    def test_the_value_that_was_refused_is_not_logged(self):
        self.server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        self.server.command("CONFIG", "SET", "maxmemory", "1")
        pipeline = caches["default"].client.get_client().pipeline(transaction=False)
        pipeline.set("key", "what the value says")

        with self.assertRaises(OutOfMemoryError):
            pipeline.execute()

        self.assertIn("maxmemory", self.lines()[0])
        self.assertNotIn("what the value says", self.lines()[0])

    def test_a_read_only_redis_still_answers_reads(self):
        caches["default"].set("key", "old")
        self.server.command("REPLICAOF", "127.0.0.1", str(free_port()))

        self.assertFalse(caches["default"].set("new", 1))

        self.assert_still_reads()

    def test_a_forbidden_command_concerns_that_command_only(self):
        caches["default"].set("key", "old")
        self.server.command("ACL", "SETUSER", "default", "-del", "-ping")

        self.assertFalse(caches["default"].delete("key"))

        self.assert_still_reads()

    def test_a_probe_that_is_not_allowed_to_ping_has_its_answer(self):
        self.server.command("ACL", "SETUSER", "default", "-ping")

        self.breaker.fail(ConnectionError("made up"))

        self.assert_closes()


class OneDatabaseTests(BreakerTestCase):
    """Redis has a database for one level alone, as some that are rented have."""

    arguments = ("--databases", "1")
    refusal = "DB index is out of range"

    def test_it_is_logged(self):
        self.assertIsNone(caches["site"].get("key"))

        (line,) = self.lines()
        self.assertIn(self.refusal, line)

    def test_it_is_a_warning_before_anybody_wonders(self):
        with (
            self.settings(REDIS_URL=self.server.url),
            mock.patch("mysite.checks.CHECK_TIMEOUT", PATIENCE),
        ):
            (warning,) = redis_answers(None)

        self.assertIn(f":{self.server.port} is of no use: {self.refusal}", warning.msg)
        self.assertIn("Each level needs a database of its own", warning.hint)


class ClusterTests(OneDatabaseTests):
    """The same of a Redis Cluster."""

    arguments = ("--cluster-enabled", "yes")
    refusal = "SELECT is not allowed in cluster mode"


class WritePauseTests(BreakerTestCase):
    """After Redis refused a write, nobody tries another one for a moment."""

    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch.object(breaker_module, "WRITE_PAUSE", 60))

    def fill(self):
        self.server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        self.server.command("CONFIG", "SET", "maxmemory", "1")

    def empty(self):
        self.server.command("CONFIG", "SET", "maxmemory", "0")

    def tried(self, *commands):
        """Return how many of these commands have reached Redis, refused ones too."""
        with Redis(port=self.server.port) as client:
            seen = client.info("commandstats")
        found = [seen.get(f"cmdstat_{command}", {}) for command in commands]
        return sum(each.get("calls", 0) + each.get("rejected_calls", 0) for each in found)

    def assert_pauses(self):
        self.assertFalse(caches["default"].set("key", 1))
        before = self.tried("set", "eval")

        for alias in ALIASES:
            self.assertFalse(caches[alias].set("key", 1))
            self.assertFalse(caches[alias].add("key", 1))
            caches[alias].set_many({"key": 1})
            self.assertIsNone(caches[alias].incr("key"))

        self.assertEqual(self.tried("set", "eval"), before)
        self.assertEqual(self.breaker.state()["writes"], "refused")
        self.assertIs(self.breaker.is_open, False)

    def test_when_redis_is_full(self):
        self.fill()

        self.assert_pauses()

    def test_when_redis_is_read_only(self):
        self.server.command("REPLICAOF", "127.0.0.1", str(free_port()))

        self.assert_pauses()

    def test_when_redis_cannot_save_to_its_disk(self):
        (self.server.directory / "taken.rdb").mkdir()
        self.server.command("CONFIG", "SET", "dbfilename", "taken.rdb")
        self.server.command("CONFIG", "SET", "save", "900 1")
        self.server.command("BGSAVE")
        failed = {"rdb_last_bgsave_status": "err"}.items()
        with Redis(port=self.server.port) as client:
            self.assertTrue(wait_until(lambda: failed <= client.info("persistence").items()))

        self.assert_pauses()
        self.assertIn("MISCONF", self.lines()[0])

    def test_when_redis_has_too_few_replicas(self):
        self.server.command("CONFIG", "SET", "min-replicas-to-write", "1")

        self.assert_pauses()

    def test_when_the_user_may_not_set(self):
        self.server.command("ACL", "SETUSER", "default", "-set")

        self.assert_pauses()

    def test_another_forbidden_command_pauses_nothing(self):
        self.server.command("ACL", "SETUSER", "default", "-del")

        self.assertFalse(caches["default"].delete("key"))

        self.assertIs(caches["default"].set("key", 1), True)

    def test_a_refusal_among_the_replies_of_a_pipeline_counts(self):
        self.fill()
        pipeline = caches["default"].client.get_client().pipeline(transaction=False)
        pipeline.set("key", 1)

        pipeline.execute(raise_on_error=False)

        self.assertIs(self.breaker.pauses_writes, True)
        self.assertEqual(len(self.lines()), 1)

    def test_reading_and_deleting_go_on(self):
        caches["default"].set("key", "value")
        self.fill()
        caches["default"].set("other", 1)

        self.assertEqual(caches["default"].get("key"), "value")
        self.assertEqual(caches["default"].get_many(["key"]), {"key": "value"})
        self.assertIs(caches["default"].touch("key", 60), True)
        self.assertEqual(caches["default"].delete("key"), 1)

    def test_an_invalidation_is_tried_all_the_same(self):
        self.fill()
        caches["default"].set("key", 1)
        self.empty()

        new_generations("site", ["g"])

        self.assertEqual(self.server.command("DBSIZE"), 0)
        with Redis(port=self.server.port, db=1) as client:
            self.assertEqual(client.keys(), [b"site:f1.1:generation:g"])

    def test_it_is_no_longer_than_the_breaker_is_open(self):
        self.assertLessEqual(WRITE_PAUSE, PERIOD)

    def test_after_it_writes_go_on_by_themselves(self):
        self.fill()
        with mock.patch.object(breaker_module, "WRITE_PAUSE", 0.05):
            caches["default"].set("key", 1)
        self.empty()

        self.assertTrue(wait_until(lambda: caches["default"].set("key", 1)))

        self.assertEqual(self.breaker.state()["writes"], "taken")

    def test_it_is_one_line(self):
        self.fill()

        for _ in range(20):
            caches["default"].set("key", 1)
            self.breaker.resume_writes()

        (line,) = self.lines()
        self.assertRegex(line, r"refuses to store.*maxmemory")

    def test_eight_threads_at_once_try_one_write_each_at_most(self):
        pages_at_once()
        self.fill()
        before = self.tried("set")
        start = threading.Barrier(8)

        def write(number):
            start.wait(10)
            for turn in range(20):
                caches["default"].set(f"{number}-{turn}", 1)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))

        self.assertLessEqual(self.tried("set") - before, 8)


class BrokenNetworkTests(BreakerTestCase):
    """Between the blog and Redis there is a network."""

    timeout = TEST_TIMEOUT

    def use_proxy(self):
        proxy = Proxy(self.server.port)
        self.addCleanup(proxy.close)
        self.use(proxy.url)
        return proxy

    def test_lost_packets_cost_one_timeout_in_all(self):
        proxy = self.use_proxy()
        pages_at_once()  # 32 connections, and none of them will be told.
        proxy.drop()

        self.assertLess(max(pages_at_once()), FEW_TIMEOUTS)
        self.assert_closes()

        # Another connection that leads nowhere would open it again.
        self.assertLess(max(pages_at_once()), FEW_TIMEOUTS)
        self.assertEqual(self.breaker.epoch, 1)

    def test_an_unknown_host_name(self):
        self.use("redis://redis.invalid")

        self.assertLess(page(), FEW_TIMEOUTS)
        self.assertIs(self.breaker.is_open, True)

    def test_a_host_name_that_is_looked_up_for_ever(self):
        # The one fault here that is not real: no test can break the machine's resolver.
        done = threading.Event()
        self.addCleanup(done.set)
        real = socket.getaddrinfo

        def slow(host, *args, **kwargs):
            done.wait(10)
            return real("127.0.0.1", *args, **kwargs)

        self.use(f"redis://redis.example:{self.server.port}")
        with mock.patch("socket.getaddrinfo", slow):
            self.assertLess(page(), FEW_TIMEOUTS)
            self.assertIn("Looking up redis.example", self.lines()[0])
            done.set()
            self.assert_closes()

    def test_a_lookup_that_is_stuck_does_not_hold_up_the_next_one(self):
        # As above. The first lookup waits until the test is over.
        done = threading.Event()
        self.addCleanup(done.set)
        real, lookups = socket.getaddrinfo, []

        def stuck_at_first(host, *args, **kwargs):
            lookups.append(host)
            if len(lookups) == 1:
                done.wait(30)
            return real("127.0.0.1", *args, **kwargs)

        self.enterContext(mock.patch.object(breaker_module, "SHARED_LOOKUP", 0.3))
        self.use(f"redis://redis.example:{self.server.port}")
        with mock.patch("socket.getaddrinfo", stuck_at_first):
            page()
            self.assertIn("Looking up redis.example", self.lines()[0])
            self.assert_closes()

        self.assertIs(done.is_set(), False)

    def test_something_that_is_not_redis(self):
        for answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\xff" * 10, b""):
            with self.subTest(answer=answer), answer_everything_with(answer) as listener:
                self.use(f"redis://127.0.0.1:{listener.getsockname()[1]}")

                self.assertLess(page(), FEW_TIMEOUTS)
                self.assertIs(self.breaker.is_open, True)


class UncoveredTests(BreakerTestCase):
    """What IGNORE_EXCEPTIONS covers with SafeClient, and what it does not."""

    def setUp(self):
        super().setUp()
        self.server.kill()
        self.cache = caches["default"]

    def test_these_answer_as_a_miss_does(self):
        for call in (
            *(lambda: self.cache.get("key"), lambda: self.cache.set("key", 1)),
            *(lambda: self.cache.add("key", 1), lambda: self.cache.set_many({"key": 1})),
            *(lambda: self.cache.delete("key"), lambda: self.cache.delete_many(["key"])),
            *(lambda: self.cache.has_key("key"), lambda: self.cache.incr("key")),
            *(lambda: self.cache.decr("key"), lambda: self.cache.touch("key", 1)),
            *(lambda: self.cache.ttl("key"), lambda: self.cache.pttl("key")),
            *(lambda: self.cache.persist("key"), lambda: self.cache.expire("key", 1)),
            *(lambda: self.cache.pexpire("key", 1), lambda: self.cache.keys("*")),
            *(lambda: self.cache.clear(), lambda: self.cache.delete_pattern("*")),
            lambda: self.cache.incr_version("key"),
        ):
            self.assertIsNone(call())
        self.assertEqual(self.cache.get_many(["key"]), {})
        self.assertEqual(self.cache.get_or_set("key", lambda: "built"), "built")

    def test_these_raise(self):
        for call in (
            lambda: self.cache.lock("key").acquire(blocking=False),
            lambda: list(self.cache.iter_keys("*")),
            lambda: list(self.cache.sscan_iter("key")),
            lambda: self.cache.expire_at("key", 1),
            lambda: self.cache.sadd("key", 1),
            lambda: self.cache.hset("key", "field", 1),
            lambda: self.cache.client.get_client().ping(),
        ):
            with self.assertRaises(RedisError):
                call()


class OnCloseTests(BreakerTestCase):
    """What could not reach Redis is done again before anybody reads from it."""

    timeout = TEST_TIMEOUT

    def setUp(self):
        super().setUp()
        self.callbacks = self.enterContext(mock.patch.object(breaker_module, "_callbacks", []))

    def test_a_callback_comes_before_any_read(self):
        read = []

        @breaker_module.on_close
        def redo(breaker):
            read.append(pages_at_once(1) and caches["default"].get("key"))
            with ThreadPoolExecutor(1) as others:
                read.append(others.submit(caches["default"].get, "key").result())

        caches["default"].set("key", "value")
        self.breaker.fail(ConnectionError("made up"))

        self.assert_closes()
        self.assertEqual(read, ["value", None])

    def test_it_stays_open_until_the_callback_works(self):
        errors = [ValueError("first"), ValueError("second")]

        @breaker_module.on_close
        def redo(breaker):
            if errors:
                raise errors.pop()

        self.breaker.fail(ConnectionError("made up"))

        self.assert_closes()
        self.assertEqual(errors, [])
        stays = [line for line in self.lines() if "stays unused until" in line]
        self.assertEqual(len(stays), 1)

    def test_it_stays_open_when_redis_fails_the_callback_unseen(self):
        @breaker_module.on_close
        def redo(breaker):
            self.server.hang()
            caches["default"].set("key", 1)

        self.breaker.fail(ConnectionError("made up"))

        self.assertIs(self.breaker.probe(), False)
        self.assertIn("TimeoutError", self.breaker.state()["error"])

    def test_it_stays_open_when_somebody_else_fails_after_the_callback(self):
        others = self.enterContext(ThreadPoolExecutor(1))
        late = [ConnectionError("an invalidation that no callback has seen")]

        @breaker_module.on_close
        def redo(breaker):
            while late:
                others.submit(breaker.fail, late.pop()).result()

        self.breaker.period = 60
        self.breaker.fail(ConnectionError("made up"))

        self.assertEqual([self.breaker.probe(), self.breaker.probe()], [False, True])

    def test_whoever_changes_something_may_probe_at_once(self):
        self.breaker.period = 60
        self.breaker.fail(ConnectionError("made up"))

        self.assertIs(self.breaker.probe(), True)

        self.assertIs(caches["default"].set("key", 1), True)

    def test_a_callback_may_probe(self):
        answers = []
        breaker_module.on_close(lambda breaker: answers.append(breaker.probe()))
        self.breaker.fail(ConnectionError("made up"))

        self.assertIs(self.breaker.probe(), True)

        self.assertEqual(answers, [True])


class LeftRightsTests(BreakerTestCase):
    """After an outage nobody waits for the right of somebody who could not give it up."""

    timeout = TEST_TIMEOUT

    def setUp(self):
        super().setUp()
        get_or_build(caches["default"], "other", lambda: "built", 60)  # Connected.

    def rights(self):
        return self.server.command("KEYS", "*building:*")

    def assert_gone_when_it_is_back(self):
        self.assertIs(self.breaker.is_open, True)
        self.breaker.period = 60
        self.server.wake()

        self.assertTrue(wait_until(self.breaker.probe))

        self.assertEqual(self.rights(), [])

    def test_of_one_who_was_building_when_redis_hung(self):
        def build():
            self.assertEqual(len(self.rights()), 1)
            self.server.hang()
            page()  # Others have noticed, so that nothing more is sent.
            return "built"

        self.assertEqual(get_or_build(caches["default"], "key", build, 60), "built")

        self.assert_gone_when_it_is_back()

    def test_of_one_whose_value_is_not_kept(self):
        def build():
            self.server.hang()
            page()
            raise NotKept("built")

        with self.assertRaises(NotKept):
            get_or_build(caches["default"], "key", build, 60)

        self.assert_gone_when_it_is_back()

    def test_of_one_who_never_heard_that_it_was_taken(self):
        real = stampede.take_turn

        def hang_first(*args, **kwargs):
            self.server.hang()
            return real(*args, **kwargs)

        with mock.patch.object(stampede, "take_turn", hang_first):
            self.assertEqual(get_or_build(caches["default"], "key", lambda: "built", 60), "built")

        self.assert_gone_when_it_is_back()

    def test_of_another_server_they_are_left_alone(self):
        right = stampede.Right(caches["default"].client.get_client(), "name")
        right.leave(ConnectionError("made up"))
        other = RedisServer().start()
        self.addCleanup(other.close)
        self.use(other.url)

        self.breaker.fail(ConnectionError("made up"))
        self.breaker.probe()

        self.assertIn(right, stampede._left)
        stampede._left.remove(right)

    def test_one_that_may_not_be_given_up_does_not_keep_redis_from_being_used(self):
        self.server.command("ACL", "SETUSER", "default", "-eval")
        right = stampede.Right(caches["default"].client.get_client(), "name")
        right.leave(ConnectionError("made up"))
        self.breaker.fail(ConnectionError("made up"))

        self.assertIs(self.breaker.probe(), True)


class BreakerStateTests(BreakerTestCase):
    """One breaker a server, whatever redis-py and the operating system copy."""

    period = 60

    def test_the_aliases_share_it(self):
        self.assertEqual({breaker_of(alias) for alias in ALIASES}, {self.breaker})

    def test_a_copied_retry_keeps_it(self):
        self.assertIs(copy.deepcopy(BreakerRetry(self.breaker)).breaker, self.breaker)

    def test_another_server_has_another_one(self):
        other = RedisServer().start()
        self.addCleanup(other.close)
        self.breaker.fail(ConnectionError("made up"))
        self.use(other.url)

        self.assertIs(self.breaker.is_open, False)

    def test_state(self):
        self.assertEqual(self.breaker.state()["redis"], "up")

        self.breaker.fail(ConnectionError("made up"))

        state = self.breaker.state()
        self.assertEqual((state["redis"], state["error"]), ("down", "ConnectionError: made up"))
        self.assertLess(time.time() - state["since"], 60)

    def test_an_error_of_an_earlier_epoch_does_not_open_it_again(self):
        epoch = self.breaker.epoch
        self.breaker.fail(ConnectionError("made up"), epoch)
        self.breaker.probe()

        self.breaker.fail(ConnectionError("late"), epoch)

        self.assertIs(self.breaker.is_open, False)

    def test_flapping_logs_one_line_a_second(self):
        start = time.monotonic()
        for _ in range(50):
            self.breaker.fail(ConnectionError("made up"))
            self.breaker.probe()

        self.assertLessEqual(len(self.lines()), 2 + 2 * (time.monotonic() - start))

    def test_an_opening_nobody_logged_is_logged_while_it_lasts(self):
        self.breaker.fail(ConnectionError("made up"))
        self.breaker.probe()
        self.server.kill()
        self.breaker.fail(ConnectionError("too soon for a line"))

        self.breaker.period = 0.05
        self.breaker.forget_threads()
        page()

        self.assertTrue(wait_until(lambda: len(self.lines()) == 3))
        self.assertIn("is down", self.lines()[-1])

    def test_a_forked_child_probes_for_itself(self):
        self.breaker.fail(ConnectionError("made up"))
        self.breaker.period = 0.05
        with warnings.catch_warnings():
            # Python warns of forking with threads, which is what gunicorn --preload does.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                page()
                closed = wait_until(lambda: not self.breaker.is_open)
                os._exit(0 if closed and caches["default"].set("child", 1) else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)

        self.assertEqual(os.waitstatus_to_exitcode(status), 0)
        self.assertIs(self.breaker.is_open, True)
        self.assertEqual(self.server.command("EXISTS", "low-level:f1.1:child"), 1)

    def test_a_refused_call_is_quick(self):
        self.breaker.fail(ConnectionError("made up"))

        def thousand():
            for _ in range(1000):
                caches["default"].get("key")

        self.assertLess(quickest(thousand), 1)

    def test_it_says_that_nobody_asked_redis(self):
        self.breaker.fail(ConnectionError("made up"))

        with self.assertRaisesRegex(BreakerOpen, "made up"):
            caches["default"].client.get_client().ping()
