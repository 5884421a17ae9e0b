"""The middleware: every response, whatever happens in it, and nothing in the cache."""

from django.core.cache import cache
from django.http import FileResponse, HttpResponse
from django.test import AsyncClient, RequestFactory

from watch.event import current
from watch.middleware import WatchMiddleware
from watch.tests.case import WatchTestCase
from watch.tests.settings import MIDDLEWARE

HEADERS = {"Cache-Status", "Server-Timing"}


class ResponseTests(WatchTestCase):
    """Which responses have the headers."""

    def test_every_page_has_both(self):
        self.client.raise_request_exception = False
        for path in ("/", "/never/", "/fragments/", "/error/", "/missing/", "/redirect/"):
            for method in ("get", "head", "post"):
                with self.subTest(path, method=method):
                    response = getattr(self.client, method)(path)

                    self.assertLessEqual(HEADERS, set(response.headers))

    def test_static_files_have_none(self):
        response = self.client.get("/static/file")

        self.assertFalse(HEADERS & set(response.headers))

    def test_the_watch_does_not_watch_itself(self):
        response = self.client.get("/watch/")

        self.assertFalse(HEADERS & set(response.headers))

    def test_pages_answer_when_redis_is_away(self):
        self.take_redis_away()
        for path in ("/", "/view/", "/fragments/", "/low-level/"):
            with self.subTest(path):
                response = self.client.get(path)

                self.assertEqual(response.status_code, 200)
                self.assertLessEqual(HEADERS, set(response.headers))

    def test_an_exception_in_a_view_ends_the_watching(self):
        self.client.raise_request_exception = False

        response = self.client.get("/error/")

        self.assertEqual(response.status_code, 500)
        self.assertEqual(self.metric(response, "low-level"), "miss n=1 ttl=-1 b=0")
        self.assertIsNone(current.get())

    def test_an_exception_that_nobody_handles_ends_the_watching(self):
        def get_response(request):
            raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            WatchMiddleware(get_response)(RequestFactory().get("/"))

        self.assertIsNone(current.get())

    def test_an_error_in_the_instrument_is_none_of_the_page(self):
        response = HttpResponse("fine")
        response.headers = None

        with self.assertLogs("watch", "ERROR"):
            answer = WatchMiddleware(lambda request: response)(RequestFactory().get("/"))

        self.assertEqual(answer.content, b"fine")


class StreamTests(WatchTestCase):
    """A body that is made while it is sent."""

    def test_it_arrives_unchanged(self):
        self.assertEqual(self.client.get("/stream/").getvalue(), b"chunk")

    def test_it_is_not_read_before_it_is_sent(self):
        response = self.client.get("/stream/")

        self.assertIsNone(self.metric(response, "low-level"))
        self.assertFalse(cache.has_key("streamed"))

    def test_what_it_asks_is_in_the_event(self):
        response = self.client.get("/stream/")
        response.getvalue()
        response.close()

        levels = {level["level"]: level["word"] for level in self.event_of(response)["levels"]}
        self.assertEqual(levels["low-level"], "miss")

    def test_one_that_nobody_reads_is_in_the_stream_too(self):
        response = self.client.get("/stream/")
        response.close()

        self.assertEqual(self.event_of(response)["path"], "/stream/")

    def test_a_file_can_still_be_sent_by_the_server(self):
        with open(__file__, "rb") as file:  # noqa: PTH123 - as views do it.
            response = FileResponse(file)
            WatchMiddleware(lambda request: response)(RequestFactory().get("/"))

            self.assertIs(response.file_to_stream, file)


class AsyncTests(WatchTestCase):
    """Async views, through the async handler."""

    async def test_an_async_view_is_watched(self):
        response = await AsyncClient().get("/async/")

        self.assertEqual(self.metric(response, "low-level"), "miss n=1 ttl=-1 b=0")

    async def test_a_sync_view_under_asgi_is_watched(self):
        response = await AsyncClient().get("/low-level/")

        self.assertRegex(self.metric(response, "low-level"), r"^miss n=1 ")

    async def test_an_async_body_arrives_unchanged(self):
        response = await AsyncClient().get("/async-stream/")

        self.assertEqual([chunk async for chunk in response], [b"chunk"])

    async def test_what_an_async_body_asks_is_in_the_event(self):
        response = await AsyncClient().get("/async-stream/")
        async for _ in response:
            pass
        response.close()

        levels = {level["level"]: level["word"] for level in self.event_of(response)["levels"]}
        self.assertEqual(levels["low-level"], "miss")


class CachedBytesTests(WatchTestCase):
    """What Redis holds is the same with the watch on or off."""

    def stored_page(self):
        """Return the bytes that a request leaves in Redis, and forget them there."""
        self.client.get("/")
        [key] = self.redis("site").scan_iter(f"{self.name}-*cache_page*", count=10_000)
        stored = self.redis("site").get(key)
        self.redis("site").delete(key)
        return stored

    def test_a_cached_page_is_byte_identical(self):
        watched = self.stored_page()
        with self.modify_settings(MIDDLEWARE={"remove": MIDDLEWARE[:1]}):
            plain = self.stored_page()

        self.assertIn(b"home", plain)
        self.assertEqual(watched, plain)

    def test_a_hit_has_the_headers_of_this_request(self):
        first = self.client.get("/")

        second = self.client.get("/")

        self.assertNotEqual(first.headers["Server-Timing"], second.headers["Server-Timing"])
        self.assertNotIn("miss", second.headers["Server-Timing"])
