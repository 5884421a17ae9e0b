"""The request as gunicorn's workers make it."""

import socket
from contextlib import ExitStack
from copy import copy
from urllib.parse import urlencode
from wsgiref.util import setup_testing_defaults

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpResponse
from django.test import SimpleTestCase, override_settings
from django.views.decorators.clickjacking import xframe_options_exempt

from blog.tests import CacheTestCase
from mysite.caches.serializer import SafeSerializer
from mysite.http import Request, add_what_all_pages_have
from mysite.tests.served import Gunicorn, Home
from mysite.wsgi import application


class RequestTests(SimpleTestCase):
    """Its URL is Django's, put together once."""

    def environment(self, **changes):
        environment = {"HTTP_HOST": "testserver", "PATH_INFO": "/tags/r\u00e9dis/"} | changes
        setup_testing_defaults(environment)
        return environment

    def test_the_url_is_the_one_of_django(self):
        for query in ("", "page=2", "q=%20&x"):
            with self.subTest(query):
                environment = self.environment(QUERY_STRING=query)

                url = Request(environment).build_absolute_uri()

                self.assertEqual(url, WSGIRequest(environment).build_absolute_uri())

    def test_it_is_put_together_once(self):
        request = Request(self.environment())

        self.assertIs(request.build_absolute_uri(), request.build_absolute_uri())

    def test_a_parameter_that_was_dropped_is_not_in_it(self):
        request = Request(self.environment(QUERY_STRING="utm_source=x"))
        before = request.build_absolute_uri()

        request.META["QUERY_STRING"] = ""

        self.assertEqual(request.build_absolute_uri(), before.removesuffix("?utm_source=x"))

    def test_a_copy_with_another_path_has_another_url(self):
        request = Request(self.environment())
        request.build_absolute_uri()

        other = copy(request)
        other.path = "/feed/"

        self.assertEqual(other.build_absolute_uri(), "http://testserver/feed/")

    def test_another_location_is_made_absolute(self):
        request = Request(self.environment())
        request.build_absolute_uri()

        self.assertEqual(request.build_absolute_uri("/feed/"), "http://testserver/feed/")

    def test_a_foreign_host_is_refused_each_time(self):
        request = Request(self.environment(HTTP_HOST="example.org"))

        for _ in range(2):
            with self.assertRaises(DisallowedHost):
                request.build_absolute_uri()

    def test_a_foreign_host_is_one_line_of_the_log(self):
        with self.assertLogs("django.security.DisallowedHost") as log:
            response = self.client.get("/", headers={"host": "evil.example"})

        self.assertEqual(response.status_code, 400)
        self.assertEqual([record.exc_info for record in log.records], [None])

    def test_gunicorn_makes_requests_of_it(self):
        self.assertIs(application.request_class, Request)


class TooMuchTests(CacheTestCase):
    """Who sends too much is refused, and fills no log."""

    def setUp(self):
        super().setUp()
        self.make_post("keys")

    def test_too_much_is_one_line_of_the_log(self):
        for name, form in (
            ("TooManyFieldsSent", {f"field-{number}": "" for number in range(2000)}),
            ("RequestDataTooBig", {"body": "x" * 3_000_000}),
        ):
            with self.subTest(name), self.assertLogs(f"django.security.{name}") as log:
                response = self.client.post(
                    "/posts/keys/comment/",
                    urlencode(form),
                    content_type="application/x-www-form-urlencoded",
                )

                self.assertEqual(response.status_code, 400)
                self.assertEqual([record.exc_info for record in log.records], [None])


class HeadersOfAllPagesTests(CacheTestCase):
    """What each page has is kept with it, so that no hit needs to have it added."""

    names = {
        *("X-Content-Type-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy"),
        *("X-Frame-Options", "Content-Security-Policy"),
    }
    paths = {"site": "/", "view": "/posts/keys/"}

    def setUp(self):
        super().setUp()
        self.make_post("keys")

    def kept(self, level):
        """Return the headers of the one page that `level` keeps."""
        (key,) = self.pages(level)
        value = self.redis(level).get(key)
        *_, response = SafeSerializer({}).loads(value)
        return response.headers

    def test_they_are_in_redis(self):
        for level, page in self.paths.items():
            with self.subTest(level):
                self.client.get(page)

                self.assertLessEqual(self.names, set(self.kept(level)))

    def test_a_hit_has_the_headers_of_a_miss(self):
        for level, page in self.paths.items():
            with self.subTest(level):
                miss, hit = self.client.get(page), self.assertHit(page)

                self.assertEqual(
                    {name: miss[name] for name in self.names},
                    {name: hit[name] for name in self.names},
                )
                self.assertEqual(sorted(miss.headers), sorted(set(hit.headers) - {"Age"}))

    @override_settings(SECURE_HSTS_SECONDS=60)
    def test_who_comes_by_https_leaves_nothing_of_it_for_others(self):
        for level, page in self.paths.items():
            with self.subTest(level):
                first = self.client.get(page, secure=True)

                self.assertEqual(first["Strict-Transport-Security"], "max-age=60")
                self.assertNotIn("Strict-Transport-Security", self.kept(level))

    def test_a_page_that_may_be_framed_stays_so(self):
        response = xframe_options_exempt(lambda request: HttpResponse())(None)

        add_what_all_pages_have(response)

        self.assertNotIn("X-Frame-Options", response)

    def test_what_the_view_says_is_left_alone(self):
        said = {"X-Frame-Options": "SAMEORIGIN", "Referrer-Policy": "origin"}
        response = HttpResponse(headers=said)

        add_what_all_pages_have(response)

        self.assertEqual({name: response[name] for name in said}, said)

    def test_both_page_levels_do_so(self):
        for alias in ("site", "view"):
            self.assertEqual(
                settings.CACHES[alias]["OPTIONS"]["BEFORE_STORING"],
                "mysite.http.add_what_all_pages_have",
            )


class StalledTests(SimpleTestCase):
    """Who begins a request and does not go on holds a thread for some seconds, and not for ever."""

    HALVES = (
        b"GET / HTTP/1.1\r\nHost: %s\r\nX-Half:",
        b"POST /posts/the-whole-site/comment/ HTTP/1.1\r\nHost: %s\r\nContent-Length: 100\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\nauthor=",
    )

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        home = cls.enterClassContext(Home())
        cls.gunicorn = cls.enterClassContext(Gunicorn(home, settings.REDIS_URL, workers=1))

    def test_as_many_as_there_are_threads_do_not_stop_the_blog(self):
        host = b"127.0.0.1:%d" % self.gunicorn.port
        with ExitStack() as stack:
            stalled = []
            for number in range(8):
                address = ("127.0.0.1", self.gunicorn.port)
                connection = stack.enter_context(socket.create_connection(address, 60))
                connection.sendall(self.HALVES[number % 2] % host)
                stalled.append(connection)

            answer = self.gunicorn.browser().get("/healthz")

            self.assertEqual(answer.status, 200)
            for connection in stalled[:4]:  # Those who had the threads.
                self.assertIn(connection.recv(20)[:12], (b"", b"HTTP/1.1 403"))
        self.assertNotIn("Traceback", self.gunicorn.lines())
