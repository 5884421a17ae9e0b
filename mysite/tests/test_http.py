"""Headers and status codes that do not depend on the page."""

from urllib.parse import urlencode

from django.conf import settings
from django.test import SimpleTestCase, override_settings

from blog.tests import CacheTestCase


class PolicyTests(CacheTestCase):
    """The Content-Security-Policy is the one in the settings."""

    def test_misses_hits_errors_and_health_checks_have_it(self):
        for path in ("/about/", "/about/", "/no/such/page/", "/healthz"):
            with self.subTest(path):
                response = self.client.get(path)

                self.assertEqual(
                    response["Content-Security-Policy"], settings.CONTENT_SECURITY_POLICY
                )

    def test_it_allows_nothing_inline_and_no_other_site(self):
        policy = settings.CONTENT_SECURITY_POLICY

        self.assertIn("default-src 'self'", policy)
        self.assertNotIn("unsafe", policy)

    @override_settings(DEBUG=True)
    def test_the_error_pages_of_debug_may_use_their_inline_styles(self):
        self.assertNotIn("Content-Security-Policy", self.client.get("/no/such/page/").headers)


class HeadTests(CacheTestCase):
    """HEAD has the headers of GET and no body: RFC 9110, section 9.3.2."""

    # Different for each request, or made by the cache for hits only.
    CHANGING = {"Age", "Cache-Status", "Server-Timing", "Expires"}
    PATHS = ("/about/", "/posts/keys/", "/archive/", "/healthz", "/no/such/page/")

    @classmethod
    def setUpTestData(cls):
        cls.make_post("keys")

    def test_a_head_has_the_headers_of_a_get_on_misses_and_hits(self):
        for path in self.PATHS:
            first = self.client.head(path)
            get = self.client.get(path)
            second = self.client.head(path)

            for head in (first, second):
                with self.subTest(path, is_hit="Age" in head):
                    self.assertEqual(head.status_code, get.status_code)
                    self.assertEqual(self.headers(head), self.headers(get))
                    self.assertEqual(head.content, b"")

    def headers(self, response):
        return {name: response[name] for name in response.headers if name not in self.CHANGING}

    def test_the_length_is_that_of_the_body_of_a_get(self):
        get, head = self.client.get("/about/"), self.client.head("/about/")

        self.assertEqual(head["Content-Length"], str(len(get.content)))

    def test_a_head_with_the_right_etag_is_a_304(self):
        etag = self.client.get("/about/")["ETag"]

        response = self.client.head("/about/", headers={"if-none-match": etag})

        self.assertEqual((response.status_code, response.content), (304, b""))


class TooMuchTests(CacheTestCase):
    """A request that is refused is one line of the log, not a traceback."""

    @classmethod
    def setUpTestData(cls):
        cls.make_post("keys")

    def test_a_foreign_host_is_refused_in_one_line_of_the_log(self):
        with self.assertLogs("django.security.DisallowedHost") as log:
            response = self.client.get("/", headers={"host": "evil.example"})

        self.assertEqual(response.status_code, 400)
        self.assertEqual([record.exc_info for record in log.records], [None])

    def test_too_many_fields_and_too_long_a_body_are_refused_in_one_line_of_the_log(self):
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


class HttpsTests(SimpleTestCase):
    @override_settings(SECURE_SSL_REDIRECT=True, SECURE_REDIRECT_EXEMPT=["^(healthz|readyz)$"])
    def test_health_checks_by_http_are_not_redirected(self):
        self.assertEqual(self.client.get("/healthz").status_code, 200)
        self.assertEqual(self.client.get("/about/").status_code, 301)
