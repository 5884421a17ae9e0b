"""The request as gunicorn's workers make it."""

from copy import copy
from wsgiref.util import setup_testing_defaults

from django.core.exceptions import DisallowedHost
from django.core.handlers.wsgi import WSGIRequest
from django.test import SimpleTestCase

from mysite.http import Request
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

    def test_gunicorn_makes_requests_of_it(self):
        self.assertIs(application.request_class, Request)
