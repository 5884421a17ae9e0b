"""The BACKEND: Django's cache API on Redis, whose errors never escape."""

import asyncio
import inspect
import pickle

from django.conf import settings
from django.core.cache import cache, caches
from django.core.cache.backends.base import BaseCache
from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase, override_settings, tag

from resilient_cache.backend import RedisCache
from resilient_cache.location import database_url
from resilient_cache.tests import runner
from resilient_cache.tests.base import (
    CacheTestCase,
    CountingView,
    RecordingRedis,
    caches_with,
    in_thread,
    silent,
)
from resilient_cache.tests.server import RedisServer, caches_at


class GetOrSetTests(CacheTestCase):
    """get_or_set() stores plain values, by Django's rules."""

    def test_a_miss_stores_the_value_and_a_hit_reads_it(self):
        self.assertEqual(cache.get_or_set("k", "old"), "old")
        self.assertEqual(cache.get_or_set("k", "new"), "old")

    def test_a_function_is_called_on_a_miss_alone(self):
        calls = []

        for _ in range(2):
            self.assertEqual(cache.get_or_set("k", lambda: calls.append(1) or "value"), "value")

        self.assertEqual(len(calls), 1)

    def test_what_it_stored_is_what_get_reads(self):
        cache.get_or_set("k", {"a": (1, 2)})

        self.assertEqual(cache.get("k"), {"a": (1, 2)})

    def test_what_set_stored_is_what_it_reads(self):
        cache.set("k", [1])

        self.assertEqual(cache.get_or_set("k", "other"), [1])

    def test_a_cached_none_is_a_hit(self):
        cache.set("k", None)

        self.assertIsNone(cache.get_or_set("k", "other"))

    def test_none_is_stored(self):
        self.assertIsNone(cache.get_or_set("k", lambda: None))
        self.assertEqual(cache.get("k", "missing"), None)

    def test_the_timeout_is_the_ttl(self):
        cache.get_or_set("k", "v", 77)

        self.assertIn(cache.ttl("k"), range(70, 78))

    def test_a_timeout_of_zero_stores_nothing_on_every_alias(self):
        for alias in ("default", "template_fragments", "site"):
            with self.subTest(alias):
                self.assertEqual(caches[alias].get_or_set("k", "v", 0), "v")
                self.assertEqual(caches[alias].get_or_set("k", "w", timeout=0), "w")
                self.assertEqual(self.keys(alias, "*:1:k"), [])

    def test_a_timeout_below_zero_stores_nothing(self):
        self.assertEqual(cache.get_or_set("k", "v", -1), "v")
        self.assertIsNone(cache.get("k"))

    def test_each_version_has_a_value(self):
        cache.get_or_set("k", "one", version=1)
        cache.get_or_set("k", "two", version=2)

        self.assertEqual([cache.get("k", version=n) for n in (1, 2)], ["one", "two"])

    def test_a_value_that_another_client_stored_since_the_miss_stays(self):
        def build():
            in_thread(lambda: cache.set("k", "newer"))
            return "older"

        self.assertEqual(cache.get_or_set("k", build), "newer")
        self.assertEqual(cache.get("k"), "newer")

    def test_a_value_that_cannot_be_cached_is_a_type_error_with_a_hint(self):
        with self.assertRaisesMessage(TypeError, "cache plain data"):
            cache.get_or_set("k", object)

    def test_a_value_that_is_too_large_is_returned_and_not_stored(self):
        with silent():
            self.assertEqual(len(cache.get_or_set("k", lambda: "x" * 3_000_000)), 3_000_000)

        self.assertIsNone(cache.get("k"))

    def test_a_lock_is_left_behind_by_none(self):
        cache.get_or_set("k", "v")

        self.assertEqual(self.keys("default"), ["low-level:1:k"])

    def test_a_key_may_have_spaces(self):
        self.assertEqual(cache.get_or_set("a key \n", "v"), "v")
        self.assertEqual(cache.get("a key \n"), "v")

    def test_a_key_may_be_a_number(self):
        self.assertEqual(cache.get_or_set(5, "v"), "v")
        self.assertEqual(cache.get(5), "v")


class DjangoApiTests(CacheTestCase):
    """What Django documents of a cache."""

    def test_add_stores_where_nothing_is(self):
        self.assertIs(cache.add("k", "old"), True)
        self.assertIs(cache.add("k", "new"), False)
        self.assertEqual(cache.get("k"), "old")

    def test_add_with_a_timeout_of_zero_stores_nothing_on_every_alias(self):
        for alias in ("default", "template_fragments", "site"):
            with self.subTest(alias):
                caches[alias].add("k", "v", 0)
                self.assertEqual(self.keys(alias), [])

    def test_add_leaves_a_cached_none_alone(self):
        cache.set("k", None)

        self.assertIs(cache.add("k", "new"), False)

    def test_incr_and_decr_count(self):
        cache.set("n", 10)

        self.assertEqual([cache.incr("n"), cache.incr("n", 5), cache.decr("n", 3)], [11, 16, 13])
        self.assertEqual(cache.get("n"), 13)

    def test_incr_keeps_the_timeout(self):
        cache.set("n", 1, 77)

        cache.incr("n")

        self.assertIn(cache.ttl("n"), range(70, 78))

    def test_incr_of_a_missing_key_is_a_value_error(self):
        for count in (cache.incr, cache.decr):
            with self.assertRaises(ValueError):
                count("missing")
        self.assertEqual(self.keys("default"), [])

    def test_incr_of_something_else_than_a_whole_number_is_a_value_error(self):
        for value in ("text", 1.5, None, True, [1]):
            cache.set("n", value)
            with self.subTest(value), self.assertRaises(ValueError):
                cache.incr("n")
            self.assertEqual(cache.get("n"), value)

    def test_incr_counts_beyond_64_bits(self):
        cache.set("n", 2**63 - 1, 77)

        self.assertEqual([cache.incr("n"), cache.incr("n")], [2**63, 2**63 + 1])
        self.assertEqual(cache.get("n"), 2**63 + 1)
        self.assertIn(cache.ttl("n"), range(70, 78))

    def test_incr_runs_no_script(self):
        cache.set("n", 1)
        runner.server.command("CONFIG", "RESETSTAT")

        cache.incr("n")

        stats = runner.server.info("commandstats")
        self.assertNotIn("cmdstat_eval", stats)
        self.assertNotIn("cmdstat_evalsha", stats)

    def test_incr_version_moves_a_value_on_every_alias(self):
        for alias in ("default", "template_fragments", "site"):
            with self.subTest(alias):
                caches[alias].set("k", "v", 77)
                self.assertEqual(caches[alias].incr_version("k"), 2)
                self.assertIsNone(caches[alias].get("k"))
                self.assertEqual(caches[alias].get("k", version=2), "v")
                self.assertEqual(caches[alias].decr_version("k", version=2), 1)

    def test_incr_version_moves_a_cached_none_and_keeps_the_timeout(self):
        cache.set("none", None, 77)
        cache.set("for ever", 1, None)

        self.assertEqual(cache.incr_version("none"), 2)
        self.assertEqual(cache.incr_version("for ever", 3), 4)

        self.assertIsNone(cache.get("none", "missing", version=2))
        self.assertEqual(cache.get("none", "missing"), "missing")
        self.assertIn(cache.ttl("none", version=2), range(70, 78))
        self.assertIsNone(cache.ttl("for ever", version=4))

    def test_incr_version_of_a_missing_key_is_a_value_error(self):
        with self.assertRaises(ValueError):
            cache.incr_version("missing")

    def test_set_many_returns_the_keys_that_failed(self):
        self.assertEqual(cache.set_many({"a": 1, "b": "two"}, 77), [])
        self.assertEqual(cache.get_many(["a", "b", "c"]), {"a": 1, "b": "two"})
        self.assertIn(cache.ttl("b"), range(70, 78))

    def test_set_many_takes_no_values(self):
        self.assertEqual(cache.set_many({}), [])

    def test_set_many_stores_the_others_where_one_is_too_large(self):
        with silent():
            failed = cache.set_many({"small": 1, "large": "x" * 3_000_000})

        self.assertEqual(failed, ["large"])
        self.assertEqual(cache.get_many(["small", "large"]), {"small": 1})

    def test_get_many_takes_no_keys_and_a_generator(self):
        cache.set("a", 1)

        self.assertEqual(cache.get_many([]), {})
        self.assertEqual(cache.get_many(key for key in "ab"), {"a": 1})

    def test_delete_many_takes_no_keys(self):
        cache.set("a", 1)
        cache.delete_many([])
        cache.delete_many(["a", "b"])

        self.assertIsNone(cache.get("a"))

    def test_delete_tells_whether_there_was_a_value(self):
        cache.set("a", 1)

        self.assertEqual([cache.delete("a"), cache.delete("a")], [True, False])

    def test_has_key_and_in_find_a_cached_none(self):
        cache.set("k", None)

        self.assertIs(cache.has_key("k"), True)
        self.assertIn("k", cache)
        self.assertNotIn("missing", cache)

    def test_touch_gives_a_new_timeout(self):
        cache.set("k", "v", 10)

        self.assertIs(cache.touch("k", 77), True)
        self.assertIn(cache.ttl("k"), range(70, 78))
        self.assertIs(cache.touch("missing"), False)

    def test_clear_empties_its_own_database_alone(self):
        for alias in ("default", "site", "view", "template_fragments"):
            caches[alias].set("k", "v")

        caches["site"].clear()

        self.assertIsNone(caches["site"].get("k"))
        for alias in ("default", "view", "template_fragments"):
            self.assertEqual(caches[alias].get("k"), "v")

    def test_a_value_that_is_too_large_replaces_the_old_one_by_a_miss(self):
        cache.set("k", "old")

        with silent():
            self.assertIs(cache.set("k", "x" * 3_000_000), False)

        self.assertIsNone(cache.get("k"))

    def test_the_async_methods_do_the_same(self):
        async def steps():
            await cache.aset("k", 1)
            return [
                await cache.aget("k"),
                await cache.aincr("k"),
                await cache.aget_many(["k"]),
                await cache.adelete("k"),
                await cache.aget("k"),
            ]

        self.assertEqual(asyncio.run(steps()), [1, 2, {"k": 2}, True, None])

    def test_an_async_count_keeps_the_time_that_the_key_has_left(self):
        cache.set("k", 1, timeout=None)

        self.assertEqual(asyncio.run(cache.aincr("k", 4)), 5)
        self.assertEqual(asyncio.run(cache.adecr("k", 2)), 3)
        self.assertIsNone(cache.ttl("k"))

    def test_async_counts_at_once_are_all_counted(self):
        cache.set("k", 0)

        async def steps():
            await asyncio.gather(*(cache.aincr("k") for _ in range(20)))

        asyncio.run(steps())

        self.assertEqual(cache.get("k"), 20)

    def test_async_methods_of_many_keys_take_one_round_trip_each(self):
        values = {f"k{number}": number for number in range(50)}

        async def steps():
            return [
                await cache.aset_many(values),
                await cache.aget_many(values),
                await cache.adelete_many(values),
            ]

        runner.server.command("CONFIG", "RESETSTAT")
        answers = asyncio.run(steps())
        stats = runner.server.info("commandstats")

        self.assertEqual(answers[:2], [[], values])
        self.assertEqual(cache.get_many(values), {})
        for name in ("get", "mget", "del", "unlink"):
            self.assertLessEqual(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"], 1, name)

    def test_a_lock_of_django_redis_is_not_broken_by_a_look(self):
        with cache.lock("job", timeout=60) as lock:
            self.assertIsNone(cache.get("job"))
            self.assertEqual(cache.get_many(["job"]), {})
            self.assertNotIn("job", cache)
            self.assertTrue(lock.owned())

    def test_threads_share_a_pool_and_aliases_do_not(self):
        def pool(alias="default"):
            return caches[alias].client.get_client().connection_pool

        self.assertIs(in_thread(pool), pool())
        self.assertIsNot(pool("site"), pool("default"))

    def test_aliases_with_one_url_and_other_options_have_pools_of_their_own(self):
        options = {"one": 0.5, "two": 0.6}
        settings = {
            alias: {
                "BACKEND": "resilient_cache.backend.RedisCache",
                "LOCATION": runner.server.url,
                "OPTIONS": {"CONNECTION_POOL_KWARGS": {"socket_timeout": seconds}},
            }
            for alias, seconds in options.items()
        }
        with override_settings(CACHES={**settings, "default": settings["one"]}):
            for alias, seconds in options.items():
                pool = caches[alias].client.get_client().connection_pool
                self.assertEqual(pool.connection_kwargs["socket_timeout"], seconds)

    def test_the_timeouts_are_a_quarter_of_a_second_by_default(self):
        plain = {
            "default": {
                "BACKEND": "resilient_cache.backend.RedisCache",
                "LOCATION": runner.server.url,
            }
        }
        with override_settings(CACHES=plain):
            kwargs = cache.client.get_client().connection_pool.connection_kwargs
            cache.set("k", "v")

            self.assertEqual(kwargs["socket_timeout"], 0.25)
            self.assertEqual(kwargs["socket_connect_timeout"], 0.25)
            self.assertEqual(cache.get("k"), "v")

    def test_another_serializer_can_be_named(self):
        name = "django_redis.serializers.json.JSONSerializer"
        with override_settings(CACHES=caches_with(SERIALIZER=name)):
            cache.set("k", {"a": [1]})

            self.assertEqual(cache.get("k"), {"a": [1]})
        self.assertEqual(self.redis("default").get("low-level:1:k"), b'{"a": [1]}')

    def test_a_client_without_a_hook_for_instruments_works(self):
        cache.set("k", "v")
        self.redis("default").set("low-level:1:k", b"foreign")

        with silent():
            self.assertIsNone(cache.get("k"))


class ConnectionsTests(CacheTestCase):
    """Which server is asked, and what closing a connection means."""

    def test_of_several_servers_the_first_is_read_and_written(self):
        locations = [runner.server.url, "redis://127.0.0.1:1"]
        servers = {"default": settings.CACHES["default"] | {"LOCATION": locations}}

        with override_settings(CACHES=servers):
            cache.set("k", "v")

            self.assertEqual([cache.get("k") for _ in range(20)], 20 * ["v"])

    def test_a_number_of_any_length_is_stored(self):
        for number in (2**63, -(2**63) - 1, 10**5000):
            with self.subTest(len(f"{number:x}")):
                cache.set("k", number)

                self.assertEqual(cache.get("k"), number)

    def test_closing_the_connections_leaves_those_in_use_to_their_threads(self):
        self.enterContext(override_settings(CACHES=caches_with(CLOSE_CONNECTION=True)))
        pool = cache.client.get_client().connection_pool
        connection = pool.get_connection()
        self.addCleanup(pool.release, connection)

        cache.close()
        connection.send_command("PING")

        self.assertEqual(connection.read_response(), b"PONG")


class UnreadableTests(CacheTestCase):
    """What somebody else has written into Redis is a miss and no error."""

    cache_options = {"REDIS_CLIENT_CLASS": "resilient_cache.tests.base.RecordingRedis"}

    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('a pickle was read')",))

    foreign = (
        pickle.dumps("text"),
        pickle.dumps(Bomb()),
        b"",
        b"text",
        b"\xc1\x01",
        b"\xc1\x01\xdd\xff\xff\xff\xff",
        b"\xc1\x02\xa1x",
        b"1.5",
        b"\x00" * 100,
    )

    def put(self, value):
        self.redis("default").set("low-level:1:k", value)

    def test_unreadable_bytes_are_a_miss(self):
        for value in self.foreign:
            with self.subTest(value):
                self.put(value)
                self.assertEqual(cache.get("k", "missing"), "missing")
                self.assertEqual(cache.get_many(["k"]), {})
                self.assertIs(cache.has_key("k"), False)
                self.assertNotIn("k", cache)

    def test_get_or_set_replaces_unreadable_bytes(self):
        for value in self.foreign:
            with self.subTest(value):
                self.put(value)
                self.assertEqual(cache.get_or_set("k", "new", 60), "new")
                self.assertEqual(cache.get("k"), "new")

    def test_add_replaces_unreadable_bytes(self):
        for value in self.foreign:
            with self.subTest(value):
                self.put(value)
                self.assertIs(cache.add("k", "new"), True)
                self.assertEqual(cache.get("k"), "new")

    def test_incr_of_unreadable_bytes_is_a_value_error(self):
        for value in self.foreign:
            self.put(value)
            with self.subTest(value), self.assertRaises(ValueError):
                cache.incr("k")

    def test_the_instrument_is_told_that_a_value_was_refused(self):
        RecordingRedis.events.clear()
        self.put(b"foreign")

        cache.get("k")

        self.assertIn(("refused", "low-level:1:k"), RecordingRedis.events)

    def put_list(self):
        self.redis("default").delete("low-level:1:k")
        self.redis("default").rpush("low-level:1:k", "a")

    def test_a_value_of_another_type_is_a_miss(self):
        self.put_list()

        self.assertEqual(cache.get("k", "missing"), "missing")
        self.assertEqual(cache.get_many(["k"]), {})
        self.assertFalse(cache.has_key("k"))

    def test_a_value_of_another_type_is_replaced(self):
        for store in (
            lambda: cache.set("k", "new"),
            lambda: cache.add("k", "new"),
            lambda: cache.get_or_set("k", "new"),
            lambda: cache.set_many({"k": "new"}),
        ):
            self.put_list()
            store()

            self.assertEqual(cache.get("k"), "new")

    def test_a_value_of_another_type_cannot_be_counted(self):
        self.put_list()

        self.assertIsNone(cache.incr("k"))

    def test_a_page_that_cannot_be_read_is_built_again(self):
        self.route(CountingView())
        self.body()
        for value in self.foreign:
            self.redis("site").set(self.page_key(), value)
            with self.subTest(value):
                before = self.body()
                self.assertEqual(self.body(), before)

    def test_a_page_of_another_form_is_built_again(self):
        self.route(CountingView())
        self.body()
        key = self.page_key().removeprefix("site:1:")
        versions, began, due, seconds, page = caches["site"].get(key)
        for value in (
            page,
            "text",
            5,
            (),
            [],
            (versions, began, due, seconds),
            (versions, began, due, seconds, "text"),
            (versions, began, due, seconds, 7),
            (versions, began, due, seconds, None),
            (versions, began, due, seconds, [7]),
            (versions, began, due, seconds, [[]]),
            (versions, began, due, seconds, [b"HTTP_ACCEPT", {}]),
            (versions, began, due, "seconds", page),
            (versions, began, float("nan"), float("inf"), page),
            (versions, float("nan"), due, seconds, page),
            (versions, float("inf"), due, seconds, page),
            (versions, float("-inf"), due, seconds, page),
            (list(versions), began, due, seconds, page),
            (None, began, due, seconds, page),
        ):
            caches["site"].set(key, value)
            with self.subTest(value):
                response = self.get()
                self.assertEqual(response.status_code, 200)
                self.assertTrue(response.text.startswith("build "))

    def test_the_value_of_a_lock_may_be_anything(self):
        self.route(CountingView())
        for value in self.foreign:
            self.empty()
            self.redis("site").set(f"site:1:lock:page:http://testserver{self.path}|en-us", value)
            with self.subTest(value):
                self.assertEqual(self.get().status_code, 200)


class FullTests(CacheTestCase):
    """A Redis that is full refuses to store. Pages are built without it."""

    def setUp(self):
        super().setUp()
        server = RedisServer("--maxmemory-policy", "noeviction").start()
        self.addCleanup(server.close)
        self.enterContext(override_settings(CACHES=caches_at(server.url)))
        cache.set("old", "value")
        server.command("CONFIG", "SET", "maxmemory", "1")
        self.enterContext(silent())

    def test_storing_says_that_it_failed(self):
        self.assertIs(cache.set("k", "v"), False)
        self.assertIsNone(cache.add("k", "v"))
        self.assertEqual(cache.set_many({"a": 1, "b": 2}), ["a", "b"])

    def test_the_old_value_is_not_read_after_a_new_one_was_refused(self):
        self.assertIs(cache.set("old", "new"), False)
        self.assertIsNone(cache.get("old"))

    def test_the_old_value_is_not_read_after_a_new_one_was_not_even_sent(self):
        cache.set("other", "value")  # Refused. After that, no write is sent for half a second.

        self.assertIs(cache.set("old", "new", 60, None, None), False)
        self.assertIsNone(cache.get("old"))

    def test_set_many_leaves_no_old_value_either(self):
        self.assertEqual(cache.set_many({"old": "new"}), ["old"])
        self.assertIsNone(cache.get("old"))

    def test_reading_goes_on(self):
        cache.set("k", "v")

        self.assertEqual(cache.get("old"), "value")
        self.assertFalse(cache.breaker.is_open)

    def test_get_or_set_returns_what_it_built(self):
        self.assertEqual([cache.get_or_set("k", each) for each in "ab"], ["a", "b"])

    def test_counting_says_that_it_failed(self):
        cache.delete("old")

        self.assertIsNone(cache.incr("old", ignore_key_check=True))

    def test_a_page_is_built_each_time(self):
        self.route(CountingView())

        self.assertEqual([self.body(), self.body()], ["build 1", "build 2"])

    def test_deleting_goes_on(self):
        self.assertIs(cache.delete("old"), True)


# The arguments of each public method. Every other one takes a key.
ARGUMENTS = {
    "add": ("k", 1),
    "clear": (),
    "close": (),
    "delete_many": (["k"],),
    "delete_pattern": ("*",),
    "expire": ("k", 5),
    "expire_at": ("k", 5),
    "get_backend_timeout": (),
    "get_many": (["k"],),
    "get_or_set": ("k", 1),
    "hdel": ("k", "f"),
    "hexists": ("k", "f"),
    "hset": ("k", "f", 1),
    "iter_keys": ("*",),
    "keys": ("*",),
    "pexpire": ("k", 5),
    "pexpire_at": ("k", 5),
    "sadd": ("k", 1),
    "sdiff": ("k", "l"),
    "sdiffstore": ("k", "l", "m"),
    "set": ("k", 1),
    "set_many": ({"k": 1},),
    "sinter": ("k", "l"),
    "sinterstore": ("k", "l", "m"),
    "sismember": ("k", 1),
    "smismember": ("k", 1),
    "smove": ("k", "l", 1),
    "srem": ("k", 1),
    "sunion": ("k", "l"),
    "sunionstore": ("k", "l"),
    "zadd": ("k", {"m": 1.0}),
    "zcount": ("k", 0, 1),
    "zincrby": ("k", 1.0, "m"),
    "zrange": ("k", 0, 1),
    "zrangebyscore": ("k", 0, 1),
    "zrank": ("k", "m"),
    "zrem": ("k", "m"),
    "zremrangebyscore": ("k", 0, 1),
    "zrevrange": ("k", 0, 1),
    "zrevrangebyscore": ("k", 1, 0),
    "zscore": ("k", "m"),
    "cache_event": ("refused", "k"),
}
# Plain attributes and what has nothing to do with Redis.
NOT_CALLED = {"breaker", "client", "default_timeout", "key_prefix", "version", "key_func"}


def public_methods():
    """Yield the name and the arguments of each public method."""
    for name, _ in inspect.getmembers(RedisCache, callable):
        if name.startswith("_") or name in NOT_CALLED:
            continue
        sync = name[1:] if name.startswith("a") and hasattr(BaseCache, name[1:]) else name
        yield name, ARGUMENTS.get(sync, ARGUMENTS.get(name, ("k",)))


def call(name, arguments):
    """Call a method of the cache and read all of what it returns."""
    result = getattr(cache, name)(*arguments)
    if inspect.iscoroutine(result):
        return asyncio.run(wait_for(result))
    return list(result) if inspect.isgenerator(result) else result


async def wait_for(coroutine):
    return await coroutine


class EveryMethodTests(CacheTestCase):
    """No method of Django's BaseCache or of django-redis raises an error of Redis."""

    def assert_quiet(self):
        names = set()
        for name, arguments in public_methods():
            with self.subTest(name):
                try:
                    call(name, arguments)
                except ValueError as error:
                    # Django's answer where a key is missing.
                    self.assertRegex(name, "incr|decr", error)
            names.add(name)
        self.assertLessEqual({"get", "aget", "iter_keys", "hset", "zadd", "ttl"}, names)

    def test_while_redis_is_up(self):
        self.assert_quiet()

    @tag("outage")
    def test_while_redis_is_stopped(self):
        server = RedisServer().start()
        self.addCleanup(server.close)
        with (
            override_settings(CACHES=caches_at(server.url, 0.25)),
            silent(),
        ):
            server.kill()
            self.assert_quiet()

    @tag("outage")
    def test_while_redis_hangs_and_is_asked_each_time(self):
        server = RedisServer().start()
        self.addCleanup(server.close)
        with (
            override_settings(CACHES=caches_at(server.url, 0.02)),
            silent(),
        ):
            server.hang()
            self.assert_quiet()

    @tag("outage")
    def test_what_redis_does_not_allow_is_no_error(self):
        server = RedisServer().start()
        self.addCleanup(server.close)
        server.command("ACL", "SETUSER", "nobody", "on", "nopass", "~*", "+select", "+hello")
        url = server.url.replace("redis://", "redis://nobody:x@")
        with override_settings(CACHES=caches_at(url)), silent():
            self.assert_quiet()

    def test_where_every_key_holds_a_value_of_another_type(self):
        for key in "klm":
            self.redis("default").rpush(f"low-level:1:{key}", "a")
        for name, arguments in public_methods():
            if name in ("clear", "aclear"):
                continue
            with self.subTest(name):
                try:
                    call(name, arguments)
                except ValueError as error:
                    self.assertRegex(name, "incr|decr", error)
            for key in "klm":
                self.redis("default").delete(f"low-level:1:{key}")
                self.redis("default").rpush(f"low-level:1:{key}", "a")

    @tag("outage")
    def test_the_answers_while_redis_is_stopped(self):
        server = RedisServer().start()
        self.addCleanup(server.close)
        with (
            override_settings(CACHES=caches_at(server.url, 0.25)),
            silent(),
        ):
            server.kill()
            answers = {
                "get": cache.get("k", "default"),
                "get_many": cache.get_many(["k"]),
                "set": cache.set("k", 1),
                "add": cache.add("k", 1),
                "set_many": cache.set_many({"a": 1, "b": 2}),
                "delete": cache.delete("k"),
                "delete_many": cache.delete_many(["k"]),
                "has_key": cache.has_key("k"),
                "in": "k" in cache,
                "touch": cache.touch("k"),
                "incr": cache.incr("k"),
                "incr_version": cache.incr_version("k"),
                "get_or_set": cache.get_or_set("k", lambda: "built"),
                "clear": cache.clear(),
                "ttl": cache.ttl("k"),
                "keys": cache.keys("*"),
                "iter_keys": list(cache.iter_keys("*")),
            }

        self.assertEqual(
            answers,
            {
                "get": "default",
                "get_many": {},
                "set": False,
                "add": None,
                "set_many": ["a", "b"],
                "delete": False,
                "delete_many": None,
                "has_key": False,
                "in": False,
                "touch": False,
                "incr": None,
                "incr_version": None,
                "get_or_set": "built",
                "clear": None,
                "ttl": None,
                "keys": [],
                "iter_keys": [],
            },
        )

    @tag("outage")
    def test_what_a_caller_adds_to_an_answer_is_not_the_answer_to_the_next(self):
        server = RedisServer().start()
        self.addCleanup(server.close)
        with override_settings(CACHES=caches_at(server.url, 0.25)), silent():
            server.kill()
            cache.get_many(["k"])["k"] = "mine"
            cache.keys("*").append("mine")

            self.assertEqual(cache.get_many(["k"]), {})
            self.assertEqual(cache.keys("*"), [])


class DatabaseUrlTests(SimpleTestCase):
    """LOCATION and OPTIONS["db"] name a database."""

    def test_the_number_is_added_to_the_database_of_the_url(self):
        for url, number, expected in (
            ("redis://host", 0, "redis://host/0"),
            ("redis://host:6380", 2, "redis://host:6380/2"),
            ("redis://host/3", 2, "redis://host/5"),
            ("redis://host?db=3", 2, "redis://host/5"),
            ("REDIS://host", 1, "redis://host/1"),
            ("rediss://user:pass@host/1", 1, "rediss://user:pass@host/2"),
            ("redis://:p%2Cw@host", 0, "redis://:p%2Cw@host/0"),
            ("redis://:p,w@host", 0, "redis://:p,w@host/0"),
            ("redis://host?socket_timeout=1", 1, "redis://host/1?socket_timeout=1"),
            ("redis://host?protocol=2", 0, "redis://host/0?protocol=2"),
            ("redis://host?max_connections=5", 0, "redis://host/0?max_connections=5"),
            ("redis://[::1]:6379", 1, "redis://[::1]:6379/1"),
            ("unix:///run/redis.sock", 2, "unix:///run/redis.sock?db=2"),
            ("unix:///run/redis.sock?db=1", 2, "unix:///run/redis.sock?db=3"),
        ):
            with self.subTest(url):
                self.assertEqual(database_url(url, number), expected)

    def test_a_url_that_cannot_work_is_refused_without_its_password(self):
        for url in (
            "",
            "host",
            "http://host",
            "redis://",
            "redis://host:port",
            "redis://host:0",
            "redis://host:99999",
            "redis://host/database",
            "redis://host?typo=1",
            "redis://host?ssl_cert_reqs=none",
            "redis://host?decode_responses=true",
            "redis://host?protocol=9",
            "redis://host?encoding_errors=x",
            "redis://host?maint_notifications_config=x",
            "redis://:p@host?credential_provider=x",
            "rediss://host?ssl_cert_reqs=typo",
            "redis://a..b",
            "redis://:secret@host?typo=1",
            "redis://:secret@host:port",
            "redis://:sec ret@[host",
            "unix://",
            "unix:///",
        ):
            with self.subTest(url):
                with self.assertRaises(ImproperlyConfigured) as caught:
                    database_url(url)
                self.assertNotIn("secret", str(caught.exception))
                self.assertIn("redis://", str(caught.exception))

    @override_settings(
        CACHES={
            "default": {
                "BACKEND": "resilient_cache.backend.RedisCache",
                "LOCATION": "redis://host?typo=1",
            }
        }
    )
    def test_a_cache_with_such_a_url_is_refused(self):
        with self.assertRaises(ImproperlyConfigured):
            cache.get("k")

    def test_a_list_of_locations_is_taken(self):
        location = [f"{runner.server.url}/0"]
        one = {"BACKEND": "resilient_cache.backend.RedisCache", "LOCATION": location}
        with override_settings(CACHES={"default": one}):
            self.assertTrue(cache.set("k", "v", 5))
            self.assertEqual(cache.get("k"), "v")
