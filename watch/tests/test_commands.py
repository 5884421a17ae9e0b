"""What the instrument sees of each command, and how it counts."""

import threading
from contextlib import contextmanager

from django.conf import settings
from django.core.cache import cache, caches
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django_redis import get_redis_connection
from redis.exceptions import ResponseError

from watch.event import recording, unwatched
from watch.tests.case import WatchTestCase


class CommandTestCase(WatchTestCase):
    @contextmanager
    def watching(self):
        """Record the commands of the block."""
        with recording() as self.event:
            yield

    @property
    def answer(self):
        """What the low-level cache answered within the block."""
        return self.event.answers["low-level"]

    @property
    def ops(self):
        return [(op.verb, op.key, op.hit, op.note) for op in self.event.ops]


class LookupTests(CommandTestCase):
    """Hit or miss is what Redis said, and nothing else."""

    def test_a_key_that_is_not_there_is_a_miss(self):
        with self.watching():
            cache.get("nothing")

        self.assertEqual(self.ops, [("GET", self.key("nothing"), False, "")])
        self.assertEqual(self.answer.word, "miss")

    def test_a_key_that_is_there_is_a_hit(self):
        cache.set("something", "value")

        with self.watching():
            value = cache.get("something")

        self.assertEqual(value, "value")
        self.assertEqual(self.answer.word, "hit")

    def test_a_cached_none_is_a_hit(self):
        cache.set("nothing found", None)

        with self.watching():
            cache.get("nothing found")

        self.assertEqual(self.answer.word, "hit")

    def test_what_is_asked_unwatched_is_not_the_requests(self):
        with self.watching():
            with unwatched():
                cache.get("something")
            cache.get("another")

        self.assertEqual(self.ops, [("GET", self.key("another"), False, "")])

    def test_a_value_that_equals_the_default_is_a_hit(self):
        cache.set("zero", 0)

        with self.watching():
            cache.get("zero", 0)

        self.assertEqual(self.answer.word, "hit")

    def test_has_key_is_a_lookup(self):
        with self.watching():
            cache.has_key("nothing")

        self.assertEqual(self.answer.word, "miss")

    def test_get_many_is_a_lookup_a_key(self):
        cache.set("b", 1)

        with self.watching():
            cache.get_many(["a", "b", "c"])

        self.assertEqual((self.answer.hits, self.answer.misses), (1, 2))
        self.assertEqual(self.answer.word, "1/3")

    def test_a_cold_get_or_set_is_one_miss(self):
        with self.watching():
            cache.get_or_set("answer", 42)

        self.assertEqual([op.verb for op in self.event.ops], ["GET", "SET", "GET"])
        self.assertEqual((self.answer.hits, self.answer.misses), (0, 1))

    def test_a_warm_get_or_set_is_one_hit(self):
        cache.set("answer", 42)

        with self.watching():
            cache.get_or_set("answer", 43)

        self.assertEqual((self.answer.hits, self.answer.misses), (1, 0))

    def test_what_was_deleted_is_looked_up_again(self):
        with self.watching():
            cache.set("answer", 42)
            cache.delete("answer")
            cache.get("answer")

        self.assertEqual((self.answer.hits, self.answer.misses), (0, 1))

    def test_a_value_that_the_cache_client_refuses_is_a_miss(self):
        cache.set("outdated", 1)

        with self.watching():
            cache.get("outdated")
            get_redis_connection("default").cache_event("refused", self.key("outdated"))

        self.assertEqual((self.answer.hits, self.answer.misses), (0, 1))
        self.assertEqual(self.ops, [("GET", self.key("outdated"), False, "refused")])

    def test_outside_a_watched_request_nothing_is_noted(self):
        with self.watching():
            pass

        cache.get("nothing")

        self.assertEqual(self.event.ops, [])


class SizeAndTimeTests(CommandTestCase):
    """Bytes as Redis has them, the time left, and the microseconds."""

    def test_the_size_is_that_of_the_stored_bytes(self):
        cache.set("text", "x" * 1000)

        with self.watching():
            cache.get("text")

        stored = self.redis("low-level").strlen(self.key("text"))
        self.assertEqual(self.answer.size, stored)

    def test_the_size_of_a_stored_value_is_that_of_its_bytes(self):
        with self.watching():
            cache.set("text", "x" * 1000)

        stored = self.redis("low-level").strlen(self.key("text"))
        self.assertEqual(self.answer.size, stored)

    def test_a_hit_tells_the_time_left(self):
        cache.set("short", 1, timeout=60)
        self.redis("low-level").pexpire(self.key("short"), 41_500)

        with self.watching():
            cache.get("short")

        self.assertTrue(40_000 < self.answer.ttl <= 41_500, self.answer.ttl)

    def test_the_time_left_of_a_level_is_that_of_the_first_to_go(self):
        cache.set_many({"a": 1, "b": 2}, timeout=300)
        cache.set("c", 3, timeout=20)

        with self.watching():
            cache.get_many(["a", "b", "c"])

        self.assertTrue(18_000 < self.answer.ttl <= 20_000, self.answer.ttl)

    def test_what_has_no_timeout_has_no_time_left(self):
        cache.set("for ever", 1, timeout=None)

        with self.watching():
            cache.get("for ever")

        self.assertIsNone(self.answer.ttl)

    def test_a_cache_that_asks_for_the_time_left_itself_is_one_lookup(self):
        cache.set("short", 1, timeout=60)

        with self.watching():
            pipeline = get_redis_connection("default").pipeline(transaction=False)
            pipeline.get(self.key("short")).pttl(self.key("short")).execute()

        self.assertEqual([op.verb for op in self.event.ops], ["GET"])
        self.assertTrue(50_000 < self.answer.ttl <= 60_000, self.answer.ttl)

    def test_a_user_of_redis_who_may_not_ask_for_the_time_left_gets_the_value(self):
        redis = self.redis("low-level")
        self.addCleanup(redis.acl_setuser, "default", enabled=True, commands=["+@all"])
        cache.set("short", 1, timeout=60)
        redis.acl_setuser("default", enabled=True, commands=["-pttl"])

        with self.watching():
            value = cache.get("short")

        self.assertEqual((value, self.answer.word, self.answer.ttl), (1, "hit", None))

    def test_a_pipeline_shares_its_time_out(self):
        with self.watching():
            cache.set_many({"a": 1, "b": 2, "c": 3})

        each = {op.ns for op in self.event.ops}
        self.assertEqual(len(self.event.ops), 3)
        self.assertEqual(len(each), 1)
        self.assertEqual(self.answer.ns, 3 * each.pop())


class WriteTests(CommandTestCase):
    """Stored is what Redis said OK to."""

    def test_a_set_is_stored(self):
        with self.watching():
            cache.set("a", 1)

        self.assertEqual(self.ops, [("SET", self.key("a"), None, "stored")])
        self.assertEqual(self.answer.stored, 1)

    def test_an_add_to_a_key_that_exists_is_not_stored(self):
        cache.set("a", 1)

        with self.watching():
            cache.add("a", 2)

        self.assertEqual(self.ops[0], ("SET", self.key("a"), None, "not stored"))
        self.assertEqual(self.answer.stored, 0)

    def test_a_write_is_no_lookup(self):
        with self.watching():
            cache.set("a", 1)

        self.assertEqual((self.answer.lookups, self.answer.word), (0, ""))

    def test_a_pipeline_is_seen_key_by_key(self):
        with self.watching():
            cache.set_many({"a": 1, "b": 2})

        self.assertEqual(
            self.ops,
            [
                ("SET", self.key("a"), None, "stored"),
                ("SET", self.key("b"), None, "stored"),
            ],
        )

    def test_in_a_pipeline_only_what_redis_took_is_stored(self):
        with self.watching(), self.assertRaises(ResponseError):
            pipeline = get_redis_connection("default").pipeline(transaction=False)
            pipeline.set(self.key("good"), 1)
            pipeline.execute_command("SET", self.key("bad"), 1, "NONSENSE")
            pipeline.execute()

        self.assertEqual(
            self.ops,
            [
                ("SET", self.key("good"), None, "stored"),
                ("SET", self.key("bad"), None, "error"),
            ],
        )

    def test_a_script_is_seen_with_its_key(self):
        cache.set("count", 1)

        with self.watching():
            cache.incr("count")

        self.assertEqual(self.ops, [("EVAL", self.key("count"), None, "")])

    def test_a_scan_is_seen_with_its_pattern(self):
        with self.watching():
            cache.delete_pattern("post:*")

        self.assertEqual(self.ops[0][:2], ("SCAN", self.key("post:*")))

    def test_a_delete_is_seen(self):
        with self.watching():
            cache.delete_many(["a", "b"])

        self.assertEqual([op.kind for op in self.event.ops], ["delete", "delete"])

    def test_a_touch_is_seen_and_stores_nothing(self):
        cache.set("a", 1)

        with self.watching():
            cache.touch("a", 100)

        self.assertEqual([op.key for op in self.event.ops], [self.key("a")])
        self.assertEqual(self.answer.stored, 0)

    def test_a_command_without_a_key_belongs_to_the_level_of_its_database(self):
        with self.watching():
            get_redis_connection("view").dbsize()

        self.assertEqual([(op.level, op.key) for op in self.event.ops], [("view", "*")])

    def test_commands_between_watch_and_multi_are_seen(self):
        with self.watching(), get_redis_connection("default").pipeline() as pipeline:
            pipeline.watch(self.key("a"))
            pipeline.get(self.key("a"))
            pipeline.multi()
            pipeline.set(self.key("a"), 1)
            pipeline.execute()

        self.assertEqual([op.verb for op in self.event.ops], ["WATCH", "GET", "SET"])


class BookkeepingTests(CommandTestCase):
    """Keys that a CLIENT_CLASS keeps for itself count for nothing."""

    def test_a_key_aside_is_no_lookup(self):
        cache.set("value", 1)

        with self.watching():
            cache.get_many(["value", "group:value"])

        self.assertEqual((self.answer.hits, self.answer.misses), (1, 0))

    def test_a_key_aside_is_seen(self):
        with self.watching():
            cache.get_many(["value", "group:value"])

        self.assertEqual([op.kind for op in self.event.ops], ["lookup", "aside"])

    def test_a_key_aside_is_not_stored_for_the_reader(self):
        with self.watching():
            cache.set("group:value", 1)

        self.assertEqual(self.answer.stored, 0)


class ErrorTests(CommandTestCase):
    """The caches get the errors that redis-py raises, watched or not."""

    cache_options = {"IGNORE_EXCEPTIONS": False}

    def test_a_key_of_another_type_is_an_error_and_a_miss(self):
        self.redis("low-level").lpush(self.key("list"), 1)

        with self.watching(), self.assertRaisesMessage(ResponseError, "WRONGTYPE"):
            cache.get("list")

        self.assertEqual(self.ops, [("GET", self.key("list"), False, "error")])
        self.assertEqual(self.answer.word, "miss")

    def test_after_an_error_the_next_command_gets_its_own_reply(self):
        self.redis("low-level").lpush(self.key("list"), 1)
        cache.set("a", "the value of a")

        with self.watching():
            with self.assertRaises(ResponseError):
                cache.get("list")
            value = cache.get("a")

        self.assertEqual(value, "the value of a")


class DownTests(CommandTestCase):
    """Redis away is neither hit nor miss."""

    def setUp(self):
        super().setUp()
        self.take_redis_away()

    def test_a_lookup_says_down(self):
        with self.watching():
            value = cache.get("a", "default")

        self.assertEqual(value, "default")
        self.assertEqual(self.ops, [("GET", self.key("a"), None, "down")])
        self.assertEqual(self.answer.word, "down")

    def test_a_write_is_not_stored(self):
        with self.watching():
            cache.set("a", 1)

        self.assertEqual(self.answer.stored, 0)

    def test_a_pipeline_says_down(self):
        with self.watching():
            cache.set_many({"a": 1, "b": 2})

        self.assertEqual([op.note for op in self.event.ops], ["down", "down"])


class ThreadTests(CommandTestCase):
    """Each thread and each task has its own event."""

    def test_two_threads_at_once_don_t_see_each_other(self):
        both = threading.Barrier(2, timeout=10)
        events = {}

        def work(name):
            with recording() as events[name]:
                both.wait()
                for number in range(50):
                    cache.get(f"{name}:{number}")
                both.wait()

        threads = [threading.Thread(target=work, args=(name,)) for name in ("ada", "bob")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        for name in ("ada", "bob"):
            keys = [self.key(f"{name}:{number}") for number in range(50)]
            self.assertEqual([op.key for op in events[name].ops], keys)


class PageLookupTests(CommandTestCase):
    """A page is one lookup, however many keys are asked for it."""

    START = "views.decorators.cache."
    VARY = f"{START}cache_header..0123.en-us.UTC"
    PAGE = f"{START}cache_page..GET.0123.4567.en-us.UTC"

    @property
    def answer(self):
        return self.event.answers["site"]

    def ask(self, *keys):
        with self.watching():
            caches["site"].get_many(keys)

    def store(self, **timeouts):
        caches["site"].set_many(dict.fromkeys((self.VARY, self.PAGE), "x"), **timeouts)

    def test_all_keys_in_one_command_are_one_hit(self):
        self.store()

        self.ask(self.VARY, self.PAGE, "group:token")

        self.assertEqual((self.answer.hits, self.answer.misses), (1, 0))

    def test_what_is_asked_aside_takes_no_time_of_the_round_trip(self):
        for group in ("group:none", "group:one"):
            with self.subTest(group):
                self.store()
                caches["site"].set("group:one", "x")

                self.ask(self.VARY, self.PAGE, group)

                *asked, aside = self.event.ops
                self.assertEqual([op.ns > 0 for op in asked], [True, True])
                self.assertEqual(aside.ns, 0)

    def test_without_the_list_of_headers_the_page_is_not_used(self):
        caches["site"].set(self.PAGE, "x")

        self.ask(self.VARY, self.PAGE, "group:token")

        self.assertEqual((self.answer.hits, self.answer.misses), (0, 1))

    def test_a_wrong_guess_of_the_page_does_not_count(self):
        self.store()

        with self.watching():
            caches["site"].get_many([self.VARY, self.PAGE])
            caches["site"].get(f"{self.START}cache_page..GET.0123.the-right-one.en-us.UTC")

        self.assertEqual((self.answer.hits, self.answer.misses), (0, 1))

    def test_a_refused_page_is_a_miss(self):
        self.store()

        with self.watching():
            caches["site"].get_many([self.VARY, self.PAGE])
            get_redis_connection("site").cache_event("refused", self.key(self.PAGE, "site"))

        self.assertEqual((self.answer.hits, self.answer.misses), (0, 1))

    def test_time_left_and_size_are_those_of_the_page(self):
        caches["site"].set(self.VARY, "x", timeout=10)
        caches["site"].set(self.PAGE, "y" * 100, timeout=300)

        self.ask(self.VARY, self.PAGE, "group:token")

        stored = self.redis("site").strlen(self.key(self.PAGE, "site"))
        self.assertEqual(self.answer.size, stored)
        self.assertGreater(self.answer.ttl, 150_000)

    def test_other_beginnings_of_keys_can_be_named(self):
        self.change(WATCH=settings.WATCH | {"PAGES": ["whole:"], "ASIDE": ["by-the-way:"]})
        caches["site"].set_many({"whole:/": 1, "by-the-way:": 2, "page:/": 3})

        self.ask("whole:/", "by-the-way:", "page:/")

        kinds = [op.kind for op in self.event.ops]
        self.assertEqual(kinds, ["page", "aside", "lookup"])

    def test_what_is_stored_besides_is_not_the_page(self):
        with self.watching():
            caches["site"].get(self.VARY)
            caches["site"].set("token", 1, DEFAULT_TIMEOUT)

        self.assertIsNone(self.answer.page_stored)
