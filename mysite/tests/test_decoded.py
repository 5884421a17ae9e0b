"""What is decoded once: mysite/caches/decoded.py."""

from unittest import mock

from django.core.cache import caches
from django.http import HttpResponse
from django.test import SimpleTestCase

from mysite.caches.decoded import LARGEST, PLACES, Decoded
from mysite.caches.pages import new_generations
from mysite.caches.serializer import SafeSerializer
from mysite.tests.test_pages import PagesTestCase


class DecodedPagesTests(PagesTestCase):
    """Pages that come from the cache again and again."""

    def decoding(self):
        """Count what is decoded."""
        return mock.patch.object(
            SafeSerializer, "loads", autospec=True, side_effect=SafeSerializer.loads
        )

    def test_the_same_bytes_are_decoded_once(self):
        self.get()
        self.get()

        with self.decoding() as loads:
            self.get()

        loads.assert_not_called()

    def test_another_page_in_redis_is_decoded_and_shown(self):
        self.get("/a/")
        self.get("/b/")
        shown = self.get("/b/")
        of_a, of_b = (self.page_key(path) for path in ("/a/", "/b/"))
        redis = self.redis("site")
        redis.set(of_a, redis.get(of_b))

        self.assertEqual(self.get("/a/"), shown)

    def test_what_redis_lost_is_not_served(self):
        self.get()
        self.get()
        self.redis("site").delete(self.page_key("/a/"))

        self.get()

        self.assertEqual(self.built, 2)

    def test_what_was_dropped_is_not_served(self):
        self.get()
        self.get()
        new_generations("site", ["g"])

        self.get()

        self.assertEqual(self.built, 2)

    def test_garbage_in_place_of_a_decoded_page_is_a_miss(self):
        self.get()
        self.get()
        self.redis("site").set(self.page_key("/a/"), b"\xc1\x01garbage")

        with mock.patch("mysite.caches.log.logger.warning"):
            self.get()

        self.assertEqual(self.built, 2)

    def page_key(self, path):
        """Return the key in Redis of the page whose body names `path`."""
        redis = self.redis("site")
        keys = self.keys("site", "*cache_page*")
        return next(key for key in keys if f"{path} built".encode() in redis.get(key))


class DecodedTestCase(SimpleTestCase):
    def setUp(self):
        self.serializer = SafeSerializer({})
        response = HttpResponse("body", headers={"X-Name": "value"}, status=201, reason="Made")
        self.entry = self.serializer.dumps((7, 8.5, response))
        self.decoded = Decoded()

    def read(self):
        return self.decoded.get("key", self.entry, self.serializer.loads)


class CopyTests(DecodedTestCase):
    """Each request gets a response of its own."""

    def test_it_is_what_was_stored(self):
        self.read()

        token, renew_at, response = self.read()

        expected = self.serializer.loads(self.entry)[2]
        self.assertEqual((token, renew_at), (7, 8.5))
        self.assertEqual(response.serialize(), expected.serialize())
        self.assertEqual(
            (response.status_code, response.reason_phrase, response.charset),
            (expected.status_code, expected.reason_phrase, expected.charset),
        )

    def test_it_has_all_that_a_response_has(self):
        self.read()

        response = self.read()[2]

        self.assertEqual(vars(response).keys(), vars(HttpResponse("body", status=200)).keys())

    def test_what_is_done_to_it_is_not_seen_by_the_next(self):
        changes = {
            "header": lambda response: response.headers.setdefault("Age", "5"),
            "deleted header": lambda response: response.headers.pop("X-Name"),
            "body": lambda response: setattr(response, "content", b""),
            "more body": lambda response: response.write("more"),
            "cookie": lambda response: response.set_cookie("name", "value"),
            "status": lambda response: setattr(response, "status_code", 304),
            "closed": lambda response: response.close(),
            "closer": lambda response: response._resource_closers.append(print),
        }
        untouched = self.told(self.read()[2])
        for name, change in changes.items():
            with self.subTest(name):
                with mock.patch("django.core.signals.request_finished.send"):
                    change(self.read()[2])

                self.assertEqual(self.told(self.read()[2]), untouched)

    def told(self, response):
        return (
            *(response.serialize(), response.status_code, response.cookies.output()),
            *(response.closed, len(response._resource_closers)),
        )

    def test_a_response_with_a_cookie_is_decoded_each_time(self):
        response = HttpResponse("body")
        response.set_cookie("name", "value")
        self.entry = self.serializer.dumps((7, 8.5, response))
        self.read()

        self.assertEqual(self.read()[2].cookies["name"].value, "value")

    def test_a_list_is_a_new_one_each_time(self):
        self.entry = self.serializer.dumps(["X-Name"])
        self.read().append("more")

        self.assertEqual(self.read(), ["X-Name"])


class RoomTests(DecodedTestCase):
    """A process does not keep all that Redis has."""

    def kept(self):
        return len(self.decoded._kept)

    def test_the_places_are_bounded(self):
        for number in range(2 * PLACES):
            self.decoded.get(f"key {number}", self.entry, self.serializer.loads)

        self.assertEqual(self.kept(), PLACES)

    def test_the_first_to_come_is_the_first_to_go(self):
        for number in range(PLACES + 1):
            self.decoded.get(f"key {number}", self.entry, self.serializer.loads)

        self.assertNotIn("key 0", self.decoded._kept)
        self.assertIn(f"key {PLACES}", self.decoded._kept)

    def test_what_is_large_is_not_kept(self):
        self.read()
        self.entry = self.serializer.dumps((7, 8.5, HttpResponse("x" * LARGEST)))

        self.read()

        self.assertEqual(self.kept(), 0)


class ThreadTests(PagesTestCase):
    """One process, several threads: a client each, and the same decoded pages."""

    def test_the_clients_of_an_alias_share_them(self):
        first = caches.create_connection("site").client
        second = caches.create_connection("site").client

        self.assertIs(first.decoded, second.decoded)
        self.assertIsNot(first.decoded, caches["view"].client.decoded)
