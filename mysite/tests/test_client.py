"""How a hit asks Redis: SafeClient.look() in mysite/caches/client.py."""

import os
from unittest import mock

from django.conf import settings
from django_redis.cache import RedisCache
from django_redis.exceptions import ConnectionInterrupted

from mysite.caches import redis_caches
from mysite.caches.client import breaker_behind
from mysite.caches.serializer import SafeSerializer
from mysite.testing import PATIENCE, timeouts
from mysite.tests.test_pages import PagesTestCase


class LookTests(PagesTestCase):
    """One MGET over a connection of its own, without an instrument."""

    def setUp(self):
        super().setUp()
        self.cache = self.plain_cache(settings.REDIS_URL)
        self.cache.set("a", [1, "one"], 60)
        self.cache.set("n", 7, 60)
        self.look()

    def plain_cache(self, url):
        options = redis_caches(url, **timeouts(PATIENCE))["site"]
        return RedisCache(options.pop("LOCATION"), options)

    def look(self, *keys):
        return self.cache.client.look(keys or ["a", "missing", "n"])

    def test_it_returns_what_is_there_and_none_for_what_is_not(self):
        self.assertEqual(self.look(), [[1, "one"], None, 7])

    def test_it_is_one_command(self):
        with self.commands() as commands:
            self.look()

        self.assertEqual(commands, {"mget": 1})

    def test_values_and_times_leave_in_one_piece(self):
        names = [self.cache.make_key("a"), self.cache.make_key("n")]
        (connection,) = self.cache.client._idle

        with mock.patch.object(
            connection, "send_packed_command", wraps=connection.send_packed_command
        ) as send:
            _, times = self.cache.client._mget(names, names)

        self.assertEqual(len(send.call_args.args[0]), 1)
        self.assertEqual(len([left for left in times if 50_000 < left <= 60_000]), 2)

    def test_what_is_asked_again_in_another_way_is_another_question(self):
        name = self.cache.make_key("a")
        for left in ((), (name,), (), (name, name)):
            with self.subTest(left):
                (value,), times = self.cache.client._mget((name,), left)

                self.assertEqual(self.cache.client.decode(value), [1, "one"])
                self.assertEqual(len(times), len(left))

    def test_it_keeps_a_bounded_number_of_questions(self):
        with mock.patch("mysite.caches.client.MOST_PACKED", 10):
            for number in range(35):
                self.look(str(number))

        self.assertLessEqual(len(self.cache.client._packed), 10)
        self.assertEqual(self.look(), [[1, "one"], None, 7])

    def test_a_value_that_nobody_wrote_makes_redis_unsteady(self):
        breaker = breaker_behind(self.cache.client.get_client())
        self.addCleanup(breaker.forget_losses)
        self.enterContext(mock.patch("mysite.caches.breaker.UNSTEADY", 60))
        self.look()
        before = breaker.is_unsteady
        self.redis("site").set(self.cache.make_key("a"), b"garbage")

        self.look()

        self.assertEqual((before, breaker.is_unsteady), (False, True))

    def test_text_where_a_number_should_be_is_no_sign_of_a_stranger(self):
        breaker = breaker_behind(self.cache.client.get_client())
        self.cache.set("a", "text")

        with self.assertRaises(ValueError):
            self.cache.incr("a")

        self.assertIs(breaker.is_unsteady, False)

    def test_it_keeps_its_connection(self):
        redis = self.redis("site")
        before = redis.info("stats")["total_connections_received"]

        for _ in range(10):
            self.look()

        self.assertEqual(redis.info("stats")["total_connections_received"], before)

    def test_a_connection_that_was_lost_meanwhile_is_opened_again(self):
        self.redis("site").client_kill_filter(_type="normal", skipme=True)

        self.assertEqual(self.look(), [[1, "one"], None, 7])

    def test_an_error_leaves_no_answer_for_the_next_one(self):
        with self.refusing("mget"), self.assertRaises(ConnectionInterrupted):
            self.look()

        self.assertEqual(self.look("n"), [7])

    def test_what_is_interrupted_leaves_no_answer_for_the_next_one(self):
        with (
            mock.patch(
                "redis.connection.AbstractConnection.read_response", side_effect=KeyboardInterrupt
            ),
            self.assertRaises(KeyboardInterrupt),
        ):
            self.look()

        self.assertEqual(self.look("n"), [7])

    def test_a_child_process_does_not_use_its_parents_connection(self):
        with mock.patch("os.getpid", return_value=os.getpid() + 1):
            before = self.cache.client._idle[0]
            self.look()

        self.assertIsNot(self.cache.client._idle[0], before)

    def test_what_cannot_be_read_is_none_and_deleted(self):
        (key,) = self.keys("site", "*:a")
        self.redis("site").set(key, b"\x80\x04garbage")

        with mock.patch("mysite.caches.log.logger.warning"):
            self.assertEqual(self.look(), [None, None, 7])

        self.assertEqual(self.keys("site", "*:a"), [])

    def test_a_redis_that_is_away_is_an_interruption(self):
        cache = self.plain_cache("unix:///nowhere/at/all.sock")

        with (
            mock.patch("mysite.caches.log.logger.warning"),
            self.assertRaises(ConnectionInterrupted),
        ):
            cache.client.look(["a"])


class EtagTests(PagesTestCase):
    """The hash of a page is computed when it is stored, and not for each hit."""

    def test_an_entry_has_its_etag(self):
        self.get()

        (key,) = self.pages("site")
        _, _, response = SafeSerializer({}).loads(self.redis("site").get(key))
        self.assertRegex(response["ETag"], r'^"[0-9a-f]{32}"$')
