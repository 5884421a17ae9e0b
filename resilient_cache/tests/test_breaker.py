import contextlib
import copy
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis
from django.core.cache import caches
from django.test import SimpleTestCase, override_settings, tag
from redis.exceptions import ConnectionError, RedisError, ResponseError, TimeoutError

from resilient_cache import circuit
from resilient_cache.breaker import BreakerOpen, BreakerPool, BreakerRetry, on_close
from resilient_cache.tests.server import (
    PATIENCE,
    Proxy,
    RedisServer,
    answering,
    caches_at,
    free_port,
    wait_until,
)

ALIASES = ("site", "view", "template_fragments", "default")

# Seconds that a hung Redis may take. Tests wait for it, and a busy machine must not need it.
TIMEOUT = 1.0


class Lines(logging.Handler):
    """Collects what was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class BreakerTestCase(SimpleTestCase):
    """A Redis server of the test's own, and clients that go through its breaker."""

    timeout = PATIENCE
    arguments: tuple[str, ...] = ()  # Of the server.

    def setUp(self) -> None:
        handler, logger = Lines(), logging.getLogger("resilient_cache")
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)
        self.addCleanup(setattr, logger, "propagate", logger.propagate)
        logger.propagate = False
        self.lines = handler.lines
        self.server = RedisServer(*self.arguments).start()
        self.addCleanup(self.server.close)
        self.redis = self.connect(self.url())
        self.breaker = self.redis.connection_pool.breaker
        self.breaker.period = 0.05

    def url(self) -> str:
        return self.server.url

    def connect(self, url: str, **options: Any) -> redis.Redis:
        """Return a client with a pool of its own. The retry object is the pool's."""
        timeouts = {"socket_timeout": self.timeout, "socket_connect_timeout": self.timeout}
        pool = BreakerPool.from_url(url, **timeouts | options)
        self.addCleanup(pool.disconnect)
        return redis.Redis(connection_pool=pool)

    def at_once(self, call: Callable[[], object], count: int = 8) -> list[str]:
        """Run `call` in `count` threads. Return the names of the errors they raise."""
        barrier = threading.Barrier(count)

        def run(number: int) -> str:
            barrier.wait(10)
            try:
                call()
            except RedisError as error:
                return type(error).__name__
            return ""

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(run, range(count)))

    def assert_opens(self, error: str = "", call: Callable[[], object] | None = None) -> None:
        """Assert that a call raises an error, and the next one BreakerOpen."""
        with self.assertRaises(RedisError):
            (call or (lambda: self.redis.get("key")))()
        with self.assertRaisesRegex(BreakerOpen, error):
            self.redis.get("key")
        self.assertIn(error, self.breaker.state()["error"])

    def assert_closes(self) -> None:
        self.assertTrue(wait_until(lambda: not self.breaker.is_open), self.breaker.state())


@tag("outage")
class HungTests(BreakerTestCase):
    """Redis accepts connections and answers nothing."""

    timeout = TIMEOUT

    def test_the_first_call_waits_for_a_timeout_and_the_next_one_fails_at_once(self):
        self.redis.set("key", "value")
        self.server.hang()

        with self.assertRaises(TimeoutError):
            self.redis.get("key")
        with self.assertRaises(BreakerOpen):
            self.redis.get("key")

    def test_it_opens_when_nothing_is_connected_yet(self):
        self.server.hang()

        self.assert_opens("Timeout")

    def test_calls_at_once_in_eight_threads_are_one_outage(self):
        self.at_once(lambda: self.redis.get("key"))
        self.server.hang()

        errors = self.at_once(lambda: self.redis.get("key"))

        self.assertLessEqual(set(errors), {"TimeoutError", "BreakerOpen"})
        self.assertEqual(self.breaker.epoch, 1)
        self.assertEqual(sum("is down" in line for line in self.lines), 1)

    def test_pipelines_and_locks_fail_at_once_too(self):
        self.server.hang()
        with self.assertRaises(TimeoutError):
            self.redis.get("key")

        with self.assertRaises(BreakerOpen):
            self.redis.pipeline().get("key").execute()
        with self.assertRaises(BreakerOpen):
            self.redis.lock("lock", timeout=5).acquire(blocking=False)

    def test_a_value_from_before_is_readable_when_redis_goes_on(self):
        self.redis.set("key", "value")
        self.server.hang()
        self.assert_opens()

        self.server.wake()

        self.assert_closes()
        self.assertEqual(self.redis.get("key"), b"value")

    def test_one_thread_probes_and_it_ends_when_the_breaker_closes(self):
        def probers() -> int:
            names = [thread.name for thread in threading.enumerate()]
            return names.count(f"redis-probe-{self.breaker.address}")

        self.server.hang()
        self.at_once(lambda: self.redis.get("key"))
        self.assertEqual(probers(), 1)

        self.server.wake()
        self.assert_closes()

        self.assertTrue(wait_until(lambda: probers() == 0))

    def test_one_line_when_it_opens_and_one_when_it_closes(self):
        self.server.hang()
        self.at_once(lambda: self.redis.get("key"))
        self.server.wake()
        self.assert_closes()

        self.assertTrue(wait_until(lambda: len(self.lines) == 2))
        opened, closed = self.lines
        self.assertRegex(opened, r"^Redis at \S+ is down.*Timeout")
        self.assertRegex(closed, r"^Redis at \S+ is back after \d+\.\d s$")


class HungOnASocketTests(HungTests):
    """The same over a Unix socket."""

    def url(self) -> str:
        return self.server.unix_url


@tag("outage")
class StoppedTests(BreakerTestCase):
    """Redis stops, and perhaps starts again."""

    def test_a_stopped_redis_opens_it_until_redis_starts(self):
        self.redis.get("key")
        self.server.kill()
        self.assert_opens()

        self.server.start()

        self.assert_closes()
        self.assertTrue(self.redis.set("key", "value"))

    def test_a_restart_between_two_calls_is_not_an_outage(self):
        self.at_once(lambda: self.redis.get("key"))  # Connections that will be dead.
        self.server.kill()
        self.server.start()

        with self.assertNoLogs("resilient_cache", "WARNING"):
            self.assertEqual(self.at_once(lambda: self.redis.get("key")), [""] * 8)

    def test_a_connection_lost_during_a_command_is_retried_once_at_once(self):
        pool = self.redis.connection_pool
        connection = pool.get_connection()
        self.server.command("CLIENT", "KILL", "TYPE", "normal")

        def ping() -> Any:
            connection.send_command("PING")
            return connection.read_response()

        answer = connection.retry.call_with_retry(ping, lambda error: connection.disconnect())

        self.assertEqual(answer, b"PONG")
        self.assertIs(self.breaker.is_open, False)


class StoppedOnASocketTests(StoppedTests):
    """The same over a Unix socket."""

    def url(self) -> str:
        return self.server.unix_url


@tag("outage")
class NotThisServerTests(BreakerTestCase):
    """Redis answers, and the answer means that this server can't be used now."""

    arguments = ("--replica-serve-stale-data", "no", "--dbfilename", "taken.rdb")

    def test_a_rejected_password(self):
        self.server.command("CONFIG", "SET", "requirepass", "secret")
        self.assert_opens("AuthenticationError")

        with self.server.client(password="secret") as client:
            client.config_set("requirepass", "")

        self.assert_closes()

    def test_too_many_clients(self):
        with self.server.client() as admin:
            admin.config_set("maxclients", 1)
            self.assert_opens("max number of clients")

            admin.config_set("maxclients", 100)

        self.assert_closes()

    def test_a_replica_without_its_primary(self):
        self.server.command("REPLICAOF", "127.0.0.1", str(free_port()))
        self.assert_opens("MASTERDOWN")

        self.server.command("REPLICAOF", "NO", "ONE")

        self.assert_closes()

    def test_too_few_replicas(self):
        self.server.command("CONFIG", "SET", "min-replicas-to-write", "1")
        self.assert_opens("NOREPLICAS", lambda: self.redis.set("key", 1))

        self.server.command("CONFIG", "SET", "min-replicas-to-write", "0")

        self.assert_closes()

    def test_a_disk_that_redis_cannot_write_to(self):
        (self.server.directory / "taken.rdb").mkdir()
        self.server.command("CONFIG", "SET", "save", "900 1")
        self.server.command("BGSAVE")
        failed = {"rdb_last_bgsave_status": "err"}.items()
        self.assertTrue(wait_until(lambda: failed <= self.server.info("persistence").items()))
        pipeline = self.redis.pipeline(transaction=False).set("key", "what the value says")
        self.assert_opens("MISCONF", pipeline.execute)
        self.assertNotIn("what the value says", str(self.lines))

        self.server.command("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")

        self.assert_closes()

    def test_a_script_that_does_not_end(self):
        self.server.command("CONFIG", "SET", "lua-time-limit", "50")

        def loop() -> None:
            with contextlib.suppress(RedisError):
                self.server.command("EVAL", "while true do end", 0)

        thread = threading.Thread(target=loop)
        thread.start()
        self.addCleanup(thread.join)

        def busy() -> bool:
            try:
                return not self.server.command("PING")
            except ResponseError:
                return True

        self.assertTrue(wait_until(busy))
        self.assert_opens("BUSY")

        self.server.command("SCRIPT", "KILL")

        self.assert_closes()

    def test_an_answer_in_a_pipeline_that_raises_nothing_counts_too(self):
        self.server.command("CONFIG", "SET", "min-replicas-to-write", "1")

        self.redis.pipeline(transaction=False).set("key", 1).execute(raise_on_error=False)

        self.assertIs(self.breaker.is_open, True)


@tag("outage")
class LoadingTests(BreakerTestCase):
    """Redis starts, and loads its data for some seconds."""

    def test_it_is_down_until_everything_is_loaded(self):
        for number in range(24):
            # Redis answers clients once per 2 MB that it loads.
            self.redis.set(f"key-{number}", os.urandom(1 << 20))
        with contextlib.suppress(ConnectionError):
            self.server.command("SHUTDOWN", "SAVE")
        self.server.kill()
        self.server.start("--key-load-delay", "150000", wait=False)  # Microseconds.

        def loads() -> bool:
            try:
                return not self.server.command("PING")
            except redis.BusyLoadingError:
                return True
            except RedisError:
                return False

        self.assertTrue(wait_until(loads))
        self.assert_opens("BusyLoadingError")

        self.assert_closes()
        self.assertEqual(len(self.redis.get("key-23")), 1 << 20)


@tag("outage")
class ClusterTests(BreakerTestCase):
    """Redis is a node of a cluster."""

    arguments = ("--cluster-enabled", "yes")

    def test_a_cluster_without_slots_is_down_until_it_has_them(self):
        self.assert_opens("CLUSTERDOWN")

        self.server.command("CLUSTER", "ADDSLOTS", *range(16384))

        self.assert_closes()

    def test_a_database_that_can_not_be_selected_is_a_refused_handshake(self):
        client = self.connect(f"{self.server.url}/1")

        self.assert_opens("HandshakeRefused", lambda: client.get("key"))


@tag("outage")
class HandshakeTests(BreakerTestCase):
    """Redis accepts connections and refuses what redis-py begins with."""

    arguments = ("--rename-command", "HELLO", "", "--databases", "1")

    def test_a_server_without_hello_is_used_in_resp2(self):
        self.assertTrue(self.redis.set("key", "value", ex=60))

        self.assertEqual(self.redis.get("key"), b"value")
        self.assertIs(self.breaker.is_open, False)

    def test_one_line_says_what_to_do(self):
        self.at_once(lambda: self.redis.get("key"))

        (line,) = self.lines
        self.assertRegex(line, r"refuses HELLO .*\?protocol=2$")

    def test_no_line_if_the_url_says_so_already(self):
        self.connect(f"{self.server.url}?protocol=2").get("key")

        self.assertEqual(self.lines, [])

    def test_without_hello_a_password_is_sent_in_resp2(self):
        self.server.command("CONFIG", "SET", "requirepass", "secret")

        client = self.connect(self.server.url, password="secret")

        self.assertTrue(client.set("key", "value"))

    def test_it_comes_back_after_an_outage(self):
        self.redis.get("key")
        self.server.kill()
        self.assert_opens()

        self.server.start()

        self.assert_closes()
        self.assertTrue(self.redis.set("key", "value"))

    def test_a_database_that_does_not_exist_opens_it_and_it_stays_open(self):
        client = self.connect(f"{self.server.url}/3")

        self.assert_opens("DB index is out of range", lambda: client.get("key"))
        self.assertIs(self.breaker.probe(), False)


@tag("outage")
class ReadOnlyTests(BreakerTestCase):
    """A primary has become a replica, and the name of the server leads to another one."""

    def test_after_a_failover_the_new_primary_is_used(self):
        proxy = Proxy(self.server.port)  # Its address stays, as a host name does.
        self.addCleanup(proxy.close)
        other = RedisServer().start()
        self.addCleanup(other.close)
        client = self.connect(proxy.url)
        self.breaker = client.connection_pool.breaker
        self.breaker.period = 0.05
        self.at_once(lambda: client.get("key"))  # Connections to the old primary.
        self.server.command("REPLICAOF", "127.0.0.1", str(other.port))
        proxy.target = other.port

        with self.assertRaises(redis.ReadOnlyError):
            client.set("key", "value")

        self.assert_closes()
        self.at_once(lambda: client.set("key", "value"))
        self.assertEqual(other.command("GET", "key"), b"value")
        self.assertEqual(self.breaker.epoch, 1)

    def test_a_server_that_stays_read_only_stays_unused(self):
        self.server.command("REPLICAOF", "127.0.0.1", str(free_port()))
        with self.assertRaises(redis.ReadOnlyError):
            self.redis.set("key", "value")

        self.assertIs(self.breaker.probe(), False)
        self.server.command("REPLICAOF", "NO", "ONE")

        self.assert_closes()
        self.assertTrue(self.redis.set("key", "value"))

    def test_reading_from_a_replica_does_not_need_a_server_that_takes_writes(self):
        self.server.command("REPLICAOF", "127.0.0.1", str(free_port()))
        self.server.hang()
        self.breaker.fail(ConnectionError("an outage of the replica"))

        self.server.wake()

        self.assert_closes()
        self.assertIsNone(self.redis.get("key"))


@tag("outage")
class RefusedCommandTests(BreakerTestCase):
    """Redis refuses one command. Everything else works, so the breaker stays closed."""

    arguments = ("--rename-command", "MGET", "", "--maxmemory-policy", "noeviction")

    def assert_refused_quietly(self, call: Callable[[], object], error: str) -> None:
        """Assert that each call raises the error, and that one line is logged."""
        for _ in range(5):
            with self.assertRaises(ResponseError):
                call()

        (line,) = self.lines
        self.assertRegex(line, rf"^Redis at \S+ refuses a command .*{error}")
        self.assertIs(self.breaker.is_open, False)

    def test_a_full_redis_still_answers_reads(self):
        self.redis.set("key", "value")
        self.server.command("CONFIG", "SET", "maxmemory", "1")

        self.assert_refused_quietly(lambda: self.redis.set("new", 1), "OOM command not allowed")

        self.assertEqual(self.redis.get("key"), b"value")
        self.assertIs(self.breaker.refuses_writes, True)

    def test_a_full_redis_is_found_to_take_writes_again(self):
        self.server.command("CONFIG", "SET", "maxmemory", "1")
        with self.assertRaises(redis.OutOfMemoryError):
            self.redis.set("new", 1)

        self.server.command("CONFIG", "SET", "maxmemory", "0")

        self.assertTrue(wait_until(lambda: not self.breaker.refuses_writes))
        self.assertTrue(self.redis.set("new", 1))

    def test_a_value_that_is_refused_is_not_logged(self):
        self.server.command("CONFIG", "SET", "maxmemory", "1")

        def store() -> None:
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.set("key", "what the value says").set("a", 1).execute()

        self.assert_refused_quietly(store, "OOM")
        with self.assertRaises(ResponseError):
            self.redis.execute_command("UNHEARD", "what the value says")

        self.assertNotIn("what the value says", str(self.lines))

    def test_an_error_among_the_answers_of_a_pipeline_is_logged(self):
        self.server.command("CONFIG", "SET", "maxmemory", "1")

        self.redis.pipeline(transaction=False).set("key", 1).execute(raise_on_error=False)

        self.assertIn("OOM", self.lines[0])
        self.assertIs(self.breaker.refuses_writes, True)

    def test_an_unknown_command(self):
        self.assert_refused_quietly(lambda: self.redis.mget("a", "b"), "unknown command .MGET")

    def test_a_forbidden_command(self):
        self.server.command("ACL", "SETUSER", "default", "-del")

        self.assert_refused_quietly(lambda: self.redis.delete("key"), "NOPERM")

    def test_a_script_that_redis_does_not_know_yet_is_not_an_error(self):
        self.assertEqual(self.redis.register_script("return 1")(), 1)
        self.assertEqual(self.lines, [])

    def test_a_user_who_may_not_ping_gets_the_cache_back_all_the_same(self):
        self.server.command("ACL", "SETUSER", "default", "-ping")

        self.breaker.fail(ConnectionError("an outage"))

        self.assert_closes()

    def test_a_pool_without_a_free_connection_is_logged_and_not_an_outage(self):
        client = self.connect(self.server.url, max_connections=1)
        connection = client.connection_pool.get_connection()

        with self.assertRaises(ConnectionError):
            client.get("key")

        self.assertEqual(len(self.lines), 1)
        self.assertIs(self.breaker.is_open, False)
        client.connection_pool.release(connection)


@tag("outage")
class NetworkTests(BreakerTestCase):
    """There is a network between the application and Redis."""

    timeout = TIMEOUT

    def test_after_lost_packets_no_connection_from_before_is_used(self):
        proxy = Proxy(self.server.port)
        self.addCleanup(proxy.close)
        client = self.connect(proxy.url)
        self.breaker = client.connection_pool.breaker
        self.breaker.period = 0.05
        self.at_once(lambda: client.get("key"))
        proxy.drop()

        self.at_once(lambda: client.get("key"))
        self.assertEqual(self.breaker.epoch, 1)
        self.assert_closes()

        # Another connection that leads nowhere would open it again.
        self.assertEqual(self.at_once(lambda: client.get("key")), [""] * 8)
        self.assertEqual(self.breaker.epoch, 1)

    def test_an_unknown_host_name(self):
        self.redis = self.connect("redis://redis.invalid")
        self.breaker = self.redis.connection_pool.breaker

        self.assert_opens("redis.invalid")

    def test_a_server_that_is_not_redis(self):
        for answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\xff" * 10, b""):
            with self.subTest(answer=answer), answering(answer) as url:
                self.redis = self.connect(url)
                self.breaker = self.redis.connection_pool.breaker

                with self.assertRaises(ConnectionError):
                    self.redis.get("key")

                self.assertIs(self.breaker.is_open, True)

    def test_tls_to_a_server_without_tls(self):
        client = self.connect(f"rediss://127.0.0.1:{self.server.port}")

        self.assert_opens(call=lambda: client.get("key"))

    def test_a_socket_takes_the_options_of_tcp(self):
        client = self.connect(self.server.unix_url, socket_keepalive=True)

        self.assertTrue(client.ping())


@tag("outage")
class OnCloseTests(BreakerTestCase):
    """What could not reach Redis is done before anything is read from it."""

    timeout = TIMEOUT

    def setUp(self) -> None:
        super().setUp()
        self.breaker.period = 0.05

    @contextlib.contextmanager
    def callback(self, function: Callable[[Any], object]) -> Iterator[None]:
        on_close(function)
        try:
            yield
        finally:
            circuit._callbacks.remove(function)

    def test_a_callback_may_use_redis_and_no_other_thread_may_until_it_has_ended(self):
        read: list[Any] = []

        def redo(breaker: circuit.Breaker) -> None:
            read.append(self.redis.get("key"))
            with ThreadPoolExecutor(1) as other:
                read.append(type(other.submit(self.redis.get, "key").exception()))

        self.redis.set("key", "value")
        with self.callback(redo):
            self.breaker.fail(ConnectionError("an outage"))

            self.assert_closes()

        self.assertEqual(read, [b"value", BreakerOpen])

    def test_it_stays_open_until_the_callback_succeeds(self):
        errors = [ValueError("first"), ValueError("second")]

        def redo(breaker: circuit.Breaker) -> None:
            if errors:
                raise errors.pop()

        with self.callback(redo):
            self.breaker.fail(ConnectionError("an outage"))

            self.assert_closes()

        self.assertEqual(errors, [])
        self.assertEqual(sum("is not used until" in line for line in self.lines), 1)

    def test_it_stays_open_if_the_callback_hides_that_redis_failed(self):
        def redo(breaker: circuit.Breaker) -> None:
            self.server.hang()
            with contextlib.suppress(RedisError):
                self.redis.get("key")

        self.breaker.period = 60
        with self.callback(redo):
            self.breaker.fail(ConnectionError("an outage"))

            self.assertIs(self.breaker.probe(), False)

        self.assertIn("TimeoutError", self.breaker.state()["error"])

    def test_it_stays_open_if_another_thread_fails_after_the_callback_began(self):
        late = [ConnectionError("an invalidation that no callback knows yet")]

        def redo(breaker: circuit.Breaker) -> None:
            with ThreadPoolExecutor(1) as other:
                while late:
                    other.submit(breaker.fail, late.pop()).result()

        self.breaker.period = 60
        with self.callback(redo):
            self.breaker.fail(ConnectionError("an outage"))

            self.assertEqual([self.breaker.probe(), self.breaker.probe()], [False, True])

    def test_a_callback_may_probe(self):
        answers: list[bool] = []
        self.breaker.period = 60
        with self.callback(lambda breaker: answers.append(breaker.probe())):
            self.breaker.fail(ConnectionError("an outage"))

            self.assertIs(self.breaker.probe(), True)

        self.assertEqual(answers, [True])

    def test_probes_of_two_threads_are_one(self):
        self.breaker.period = 60
        self.breaker.fail(ConnectionError("an outage"))
        before = self.server.info("stats")["total_connections_received"]

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda number: self.breaker.probe(), range(4)))

        self.assertEqual(answers, [True] * 4)
        # The other one is that of INFO.
        after = self.server.info("stats")["total_connections_received"]
        self.assertEqual(after - before, 2)


class StateTests(BreakerTestCase):
    """One breaker per server, whatever redis-py and the operating system copy."""

    def setUp(self) -> None:
        super().setUp()
        self.breaker.period = 60

    def test_two_pools_of_one_server_share_it(self):
        other = self.connect(f"{self.server.url}/5")

        self.assertIs(other.connection_pool.breaker, self.breaker)

    def test_another_server_has_another_one(self):
        self.breaker.fail(ConnectionError("an outage"))

        self.assertIs(self.connect(self.server.unix_url).ping(), True)

    def test_a_copied_retry_object_keeps_it(self):
        retry = BreakerRetry(self.redis.connection_pool)

        self.assertIs(copy.deepcopy(retry).pool, self.redis.connection_pool)

    def test_a_parameter_of_a_future_redis_py_is_accepted(self):
        retry = BreakerRetry(self.redis.connection_pool)

        self.assertEqual(retry.call_with_retry(lambda: 5, lambda error: None, future=True), 5)

    def test_state_says_since_when_and_why(self):
        self.assertEqual(self.breaker.state()["redis"], "up")
        before = time.time()

        self.breaker.fail(ConnectionError("an outage"))

        state = self.breaker.state()
        self.assertEqual((state["redis"], state["error"]), ("down", "ConnectionError: an outage"))
        self.assertGreaterEqual(state["since"], before)

    def test_an_error_of_a_call_that_began_before_the_outage_does_not_open_it_again(self):
        epoch = self.breaker.epoch
        self.breaker.fail(ConnectionError("an outage"), epoch)
        self.breaker.probe()

        self.breaker.fail(ConnectionError("late"), epoch)

        self.assertIs(self.breaker.is_open, False)

    def test_flapping_does_not_write_a_line_each_time(self):
        for _ in range(50):
            self.breaker.fail(ConnectionError("an outage"))
            self.breaker.probe()

        self.assertLess(len(self.lines), 50)

    def test_an_outage_whose_first_line_was_left_out_is_logged_while_it_lasts(self):
        self.breaker.fail(ConnectionError("the first"))
        self.breaker.probe()
        self.server.kill()
        self.breaker.fail(ConnectionError("too soon for another line"))

        self.assertTrue(wait_until(lambda: self.breaker.probe() or len(self.lines) == 3))

        self.assertIn("is down", self.lines[-1])

    def test_a_forked_process_probes_for_itself(self):
        self.breaker.fail(ConnectionError("an outage"))
        self.breaker.period = 0.05
        self.redis.connection_pool.disconnect()
        with warnings.catch_warnings():
            # Python warns of a fork while threads run. `gunicorn --preload` does the same.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                with contextlib.suppress(BreakerOpen):
                    self.redis.get("key")
                closed = wait_until(lambda: not self.breaker.is_open)
                os._exit(0 if closed and self.redis.set("child", 1) else 1)
            os._exit(2)
        _, status = os.waitpid(child, 0)

        self.assertEqual(os.waitstatus_to_exitcode(status), 0)
        self.assertEqual(self.server.command("EXISTS", "child"), 1)


@tag("outage")
class CachesTests(BreakerTestCase):
    """What an application sees of an outage: misses, no errors."""

    timeout = TIMEOUT

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(override_settings(CACHES=caches_at(self.server.url, self.timeout)))
        self.cache = caches["default"]

    def test_the_aliases_share_a_breaker(self):
        self.assertEqual({caches[alias].breaker for alias in ALIASES}, {self.breaker})

    def test_a_page_over_all_levels_waits_for_one_timeout(self):
        for alias in ALIASES:
            caches[alias].get("key")
        self.server.hang()

        for alias in ALIASES * 5:
            self.assertIsNone(caches[alias].get("key"))

        self.assertEqual(self.breaker.epoch, 1)
        self.assertIs(self.breaker.is_open, True)

    def test_a_hit_again_when_redis_goes_on(self):
        self.cache.set("key", "value")
        self.server.hang()
        self.assertIsNone(self.cache.get("key"))

        self.server.wake()

        self.assert_closes()
        self.assertEqual(self.cache.get("key"), "value")

    def test_every_call_answers_as_if_nothing_were_cached(self):
        self.server.kill()

        self.assertEqual(self.cache.get("key", "default"), "default")
        self.assertEqual(self.cache.get_many(["key"]), {})
        self.assertEqual(self.cache.get_or_set("key", lambda: "built"), "built")
        self.assertEqual(self.cache.set_many({"key": 1}), ["key"])
        for call in (
            lambda: self.cache.set("key", 1),
            lambda: self.cache.add("key", 1),
            lambda: self.cache.delete("key"),
            lambda: self.cache.delete_many(["key"]),
            lambda: self.cache.has_key("key"),
            lambda: self.cache.touch("key", 1),
            lambda: self.cache.incr("key"),
            lambda: self.cache.clear(),
        ):
            self.assertFalse(call())

    def test_a_full_redis_answers_reads_and_takes_nothing(self):
        self.cache.set("key", "value")
        self.server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        self.server.command("CONFIG", "SET", "maxmemory", "1")

        self.assertFalse(self.cache.set("new", 1))

        self.assertEqual(self.cache.get("key"), "value")
