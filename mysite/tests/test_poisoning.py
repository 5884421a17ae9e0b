"""No unkeyed input changes a page that others get. Raw sockets: a client would tidy up."""

import re
import socket
from contextlib import closing

from django.test import SimpleTestCase, tag
from redis import Redis

from mysite.tests.faults import RedisServer
from mysite.tests.served import PATIENT, Gunicorn, Home

POST = "/posts/the-whole-site/"
PAGES = ("/", POST, "/feed/", "/about/")
LEVELS = PAGES[:2]  # One that the whole site keeps, and one that its view keeps.

# Each line is a header field, or several.
FIELDS = (
    *(b"X-Forwarded-Host: evil.example", b"X-Forwarded-Server: evil.example"),
    *(b"X-Forwarded-Proto: https", b"X-Forwarded-Protocol: ssl", b"X-Forwarded-Ssl: on"),
    *(b"X-Forwarded-For: evil.example", b"X-Forwarded-Port: 1337", b"X-Forwarded-Prefix: /evil"),
    *(b"X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http", b"X-Forwarded-Proto: evil"),
    *(b"Forwarded: host=evil.example;proto=https", b"X-Host: evil.example"),
    *(b"X-Original-URL: /posts/evil/", b"X-Rewrite-URL: /posts/evil/"),
    *(b"X-HTTP-Method-Override: POST", b"X-HTTP-Method: DELETE", b"X-Method-Override: PUT"),
    # With an underscore they look like variables of the server.
    *(
        b"SCRIPT_NAME: /evil",
        b"SCRIPT_NAME: /",
        b"PATH_INFO: /posts/evil/",
        b"QUERY_STRING: page=2",
    ),
    *(b"X_Forwarded_Proto: https", b"X_Forwarded_Host: evil.example", b"REMOTE_USER: evil"),
    *(b"Accept: evil/evil", b"Accept-Language: xx-evil", b"Accept-Encoding: evil, gzip"),
    *(
        b"User-Agent: evil.example",
        b"Referer: http://evil.example/",
        b"Origin: http://evil.example",
    ),
    *(b"Authorization: Basic ZXZpbA==", b"Cookie: sessionid=evil; csrftoken=evil; visitor=evil"),
    *(b"Cookie: a=1\r\nCookie: b=evil", b"Accept-Language: de\r\nAccept-Language: xx-evil"),
    *(b"Range: bytes=0-10", b'If-Match: "evil"', b"If-None-Match: *", b"If-Range: evil"),
    *(b"If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT", b"If-None-Match: " + b'"e",' * 1000),
    *(b"Cache-Control: no-store", b"Pragma: evil", b"Vary: X-Evil", b"X-Evil: evil"),
    *(b"Content-Type: text/evil", b"Content-Length: 6\r\n\r\npage=2", b"Expect: evil"),
    b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 6\r\n\r\npage=2",
    b"Transfer-Encoding: chunked\r\n\r\n6\r\npage=2\r\n0",
    *(b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0", b"Transfer-Encoding: evil"),
    *(b"Content-Length: 0\r\nContent-Length: 6\r\n\r\npage=2", b"Content-Length: evil"),
    *(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",),
    *(b"X-Evil: " + b"e" * 8000, b"X-Evil: " + b"e" * 9000, b"Cookie: " + b"e" * 8000),
    *(b"\r\n".join(b"X-%d: evil" % n for n in range(45)), b"X: e\r\n" * 60 + b"X: e"),
    *(
        b"X-Evil: a\r\n folded",
        b"X-Evil : e",
        b"X-Evil: \x00",
        b"X-Evil: \xff\xfe",
        b": evil",
        b"evil",
    ),
    *(b"Host: evil.example", b"Host: 127.0.0.1", b"hOST: evil.example"),  # The second one.
)
HOSTS = (
    *(b"evil.example", b"127.0.0.1@evil.example", b"127.0.0.1:80@evil.example", b""),
    *(b"127.0.0.1 evil.example", b"127.0.0.1,evil.example", b"127.0.0.1:evil", b"127.0.0.1/evil"),
    *(b"127.0.0.1#evil.example", b"127.0.0.1\\evil.example", b"127.0.0.1%0d%0aevil", b"[::1]:x"),
    *(b"127.0.0.1:1337", b"localhost", b"LOCALHOST", b"localhost.", b"[::1]", b"\xff"),
)
# Django takes the query for text in this charset, as it does the body.
CHARSETS = (
    *(b"cp037", b"cp500", b"utf-16", b"utf-16-be", b"utf-32", b"utf-7", b"base64", b"rot13"),
    *(b"punycode", b"idna", b"undefined", b"unicode_escape", b"evil", b"\xff", b""),
)
METHODS = (
    *(b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT"),
    *(b"EVIL", b"get", b"GETGET", b"G\x00T"),
)
QUERIES = (
    *(b"page=2;page=3", b"page=2&page=1", b"page=1&page=2", b"%70age=2", b"page=%32", b"page=2"),
    *(b"page=1;page=2", b"page=1%26page=2", b"page=2%26page=1", b"page=2%00", b"page=%ff"),
    *(b"PAGE=2", b"page[]=2", b"page=2&PAGE=1", b"&&page=2&&", b"page=+2", b"page=02", b"page"),
    *(b"page=\xef\xbc\x92", b"page=-1", b"page=99999", b"page=last", b"page=2#page=1", b"?page=2"),
    *(b"utm_content=evil", b"callback=evil", b"_method=POST", b"q=evil", b"x=1&" * 900),
)


def targets(path):
    """Yield other ways to write, or almost to write, `path`."""
    path = path.encode()
    yield from (b"/" + path, b"//" + path, b"/." + path, b"/%2e" + path, b"/evil/.." + path)
    yield from (b"/evil/%2e%2e" + path, b"/%2f" + path, b"/\\" + path, path + b"/", path + b"//")
    yield from (path + b";evil", path + b";/", path + b"%3bevil", path + b"%00", path + b"%0d%0a")
    yield from (path + b"#evil", path + b"?", path + b"??", path + b"%3fpage=2", path + b"%20")
    yield from (b"http://evil.example" + path, b"https://127.0.0.1" + path, b"*", b"evil", b"")
    yield from (path.replace(b"a", b"%61"), path.replace(b"a", b"A"), path.replace(b"/", b"%2f"))


def fields_of(answer):
    """Return (status line, {name: value} without what each answer has of its own, body)."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    for name in ("Date", "Age", "Expires", "Connection", "Server-Timing", "Cache-Status"):
        fields.pop(name, None)
    return status, fields, body


@tag("slow")
class PoisoningTestCase(SimpleTestCase):
    environment = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = RedisServer().start()
        cls.addClassCleanup(cls.server.close)
        cls.home = cls.enterClassContext(Home())
        # Thousands of pages are built here, so they are short.
        cls.home.query("UPDATE blog_post SET body = 'Short.'")
        environment = PATIENT | cls.environment
        cls.gunicorn = cls.enterClassContext(Gunicorn(cls.home, cls.server.url, **environment))
        cls.host = b"127.0.0.1:%d" % cls.gunicorn.port
        cls.right = {path: cls.ask(path) for path in (*PAGES, "/?page=2")}

    @classmethod
    def send(cls, target, *fields, method=b"GET", host=None):
        """Send a request as it is given and return the whole answer."""
        first = method + b" " + target + b" HTTP/1.1"
        host = b"Host: " + (cls.host if host is None else host)
        message = b"\r\n".join([first, host, b"Connection: close", *fields, b"", b""])
        with closing(socket.create_connection(("127.0.0.1", cls.gunicorn.port), 30)) as connection:
            connection.settimeout(30)
            connection.sendall(message)
            answer = b""
            try:
                while received := connection.recv(65536):
                    answer += received
            except ConnectionError:
                pass  # gunicorn closes without reading what it refuses.
        return answer

    @classmethod
    def ask(cls, path):
        """Return what somebody without any intentions gets."""
        return fields_of(cls.send(path.encode()))

    def assertHarmless(self, path, send):
        """Assert that after `send()` to empty caches everybody gets the right page."""
        self.server.command("FLUSHALL")
        answer = send()
        self.assertNotIn(b" 500 ", answer[:20])
        for clean in (path, path, "/?page=2") if path == "/" else (path, path):
            self.assertEqual(self.ask(clean), self.right[clean])
        return answer

    def assertStatus(self, status, answer):
        self.assertEqual(answer[:12], b"HTTP/1.1 %d" % status)


class PoisoningTests(PoisoningTestCase):
    """As it is shipped: reached directly, believing nobody."""

    def test_pages_asked_for_without_intentions_are_200_and_set_no_cookie(self):
        for path, (status, fields, body) in self.right.items():
            with self.subTest(path):
                self.assertEqual(status, "HTTP/1.1 200 OK")
                self.assertNotIn(b"evil", body)
                self.assertNotIn("Set-Cookie", fields)
        self.assertNotEqual(self.right["/"], self.right["/?page=2"])

    def test_a_header_field_changes_no_page_that_others_get(self):
        for fields in FIELDS:
            for path in LEVELS:
                with self.subTest(fields[:40], path=path):
                    self.assertHarmless(path, lambda f=fields, p=path: self.send(p.encode(), f))

    def test_a_header_field_changes_no_page_that_is_cached_already(self):
        for path in LEVELS:
            self.ask(path)
        for fields in FIELDS:
            for path in LEVELS:
                with self.subTest(fields[:40], path=path):
                    self.send(path.encode(), fields)
                    self.assertEqual(self.ask(path), self.right[path])

    def test_a_charset_changes_no_page_that_others_get(self):
        for charset in CHARSETS:
            field = b"Content-Type: text/plain; charset=" + charset
            for path in (*LEVELS, "/?page=2", "/healthz", "/archive/"):
                with self.subTest(charset, path=path):
                    clean = path if path in self.right else "/"
                    self.assertHarmless(clean, lambda f=field, p=path: self.send(p.encode(), f))

    def test_a_host_changes_no_page_that_others_get(self):
        for host in HOSTS:
            for path in PAGES:
                with self.subTest(host, path=path):
                    self.assertHarmless(path, lambda h=host, p=path: self.send(p.encode(), host=h))

    def test_a_foreign_host_is_refused(self):
        for host in HOSTS[:12]:
            with self.subTest(host):
                self.assertStatus(400, self.send(b"/", host=host))

    def test_a_method_changes_no_page_that_others_get(self):
        for method in METHODS:
            for path in LEVELS:
                with self.subTest(method, path=path):
                    self.assertHarmless(
                        path, lambda m=method, p=path: self.send(p.encode(), method=m)
                    )

    def test_another_spelling_of_a_path_changes_no_page_that_others_get(self):
        for path in LEVELS:
            for target in targets(path):
                with self.subTest(target):
                    self.assertHarmless(path, lambda t=target: self.send(t))

    def test_a_query_string_changes_no_page_that_others_get(self):
        for query in QUERIES:
            for path in LEVELS:
                with self.subTest(query[:40], path=path):
                    target = path.encode() + b"?" + query
                    self.assertHarmless(path, lambda t=target: self.send(t))

    def test_a_hidden_page_number_is_the_page_it_names(self):
        for query in (b"%70age=2", b"page=%32", b"page=1&page=2", b"&&page=2&&"):
            with self.subTest(query):
                answer = self.assertHarmless("/", lambda q=query: self.send(b"/?" + q))
                self.assertEqual(fields_of(answer)[2], self.right["/?page=2"][2])

    def test_two_page_numbers_in_one_are_not_found(self):
        for query in (b"page=2;page=3", b"page=1;page=2", b"page=2%26page=1"):
            with self.subTest(query):
                self.assertStatus(404, self.send(b"/?" + query))

    def test_nothing_that_was_sent_is_stored(self):
        self.server.command("FLUSHALL")
        for path in LEVELS:
            for fields in FIELDS:
                self.send(path.encode(), fields)
            for host in HOSTS:
                self.send(path.encode(), host=host)
            for target in targets(path):
                self.send(target)

        for database in range(4):
            with Redis(port=self.server.port, db=database) as client:
                for key in client.scan_iter():
                    value = key + (client.get(key) or b"")
                    self.assertNotRegex(value, rb"evil\.example|xx-evil|=evil")

    def test_a_part_of_a_page_or_a_304_is_not_cached(self):
        self.assertHarmless("/", lambda: self.send(b"/", b"Range: bytes=0-10"))
        etag = self.right["/"][1]["ETag"].encode()

        answer = self.assertHarmless("/", lambda: self.send(b"/", b"If-None-Match: " + etag))

        self.assertStatus(304, answer)


class DirectTests(PoisoningTestCase):
    """TRUST_PROXY=0: what claims to come from a proxy counts for nothing, from nobody."""

    environment = {"HTTPS": "1"}

    def test_http_leads_to_https(self):
        answer = self.send(b"/about/")

        self.assertStatus(301, answer)
        self.assertIn(b"Location: https://" + self.host + b"/about/", answer)

    def test_nobody_can_claim_to_have_come_by_https(self):
        for field in (
            *(b"X-Forwarded-Proto: https", b"X-Forwarded-Protocol: ssl", b"X-Forwarded-Ssl: on"),
            *(b"X_Forwarded_Proto: https", b"Forwarded: proto=https"),
        ):
            with self.subTest(field):
                self.assertStatus(301, self.send(b"/about/", field))

    def test_nobody_can_move_the_blog_to_another_path(self):
        answer = self.send(b"/evil/healthz", b"SCRIPT_NAME: /evil")

        self.assertNotIn(b" 200 ", answer[:15])

    def test_the_health_check_needs_no_https(self):
        self.assertStatus(200, self.send(b"/healthz"))


class BehindProxyTests(PoisoningTestCase):
    """TRUST_PROXY=1 and HTTPS=1: the proxy says what the visitor came by."""

    environment = {"TRUST_PROXY": "1", "HTTPS": "1"}

    @classmethod
    def send(cls, target, *fields, proto=b"https", **kwargs):
        if proto:
            fields = (b"X-Forwarded-Proto: " + proto, *fields)
        return super().send(target, *fields, **kwargs)

    def test_https_is_served(self):
        for path in PAGES:
            with self.subTest(path):
                self.assertEqual(self.ask(path)[0], "HTTP/1.1 200 OK")

    def test_the_feed_and_the_sitemap_name_https(self):
        for path in ("/feed/", "/sitemap.xml"):
            body = self.ask(path)[2]
            self.assertIn(b"https://" + self.host + b"/posts/", body)
            self.assertNotIn(b"http://" + self.host, body)

    def test_http_leads_to_https_and_is_not_cached(self):
        for proto in (b"http", b"evil", b"", b"HTTPS evil", None):
            with self.subTest(proto):
                answer = self.assertHarmless(
                    "/about/", lambda p=proto: self.send(b"/about/", proto=p)
                )
                self.assertStatus(301, answer)

    def test_a_header_field_changes_no_page_that_others_get(self):
        for fields in FIELDS:
            if not fields.startswith(b"X-Forwarded-Proto"):
                with self.subTest(fields[:40]):
                    self.assertHarmless("/feed/", lambda f=fields: self.send(b"/feed/", f))

    def test_browsers_are_told_to_stay_with_https(self):
        self.assertIn("max-age=", self.ask("/")[1]["Strict-Transport-Security"])

    def test_cookies_are_for_https_alone(self):
        answer = self.send(f"{POST}comment/".encode())

        cookies = re.findall(rb"Set-Cookie: .*", answer)
        self.assertTrue(cookies)
        for cookie in cookies:
            self.assertIn(b"Secure", cookie)

    def test_a_comment_is_taken(self):
        browser = self.gunicorn.browser(**{"X-Forwarded-Proto": "https"})
        self.addCleanup(browser.close)
        host = f"https://127.0.0.1:{self.gunicorn.port}"
        browser.headers |= {"Origin": host, "Referer": f"{host}{POST}comment/"}

        self.assertEqual(browser.comment("the-whole-site", "Ada", "By HTTPS.").status, 302)

    def test_a_comment_from_another_site_is_refused(self):
        browser = self.gunicorn.browser(**{"X-Forwarded-Proto": "https"})
        self.addCleanup(browser.close)
        browser.headers["Origin"] = "https://evil.example"

        self.assertEqual(browser.comment("the-whole-site", "Ada", "From evil.").status, 403)

    def test_the_limit_on_comments_counts_the_address_that_the_proxy_saw(self):
        browser = self.gunicorn.browser(**{"X-Forwarded-Proto": "https"})
        self.addCleanup(browser.close)
        browser.headers["Referer"] = f"https://127.0.0.1:{self.gunicorn.port}/"
        statuses = []
        for number in range(6):
            # What the visitor made up comes first, what the proxy saw comes last.
            browser.headers["X-Forwarded-For"] = f"10.0.0.{number}, 192.0.2.7"
            statuses.append(browser.comment("the-whole-site", "Ada", "Again.").status)

        self.assertEqual(statuses, [302] * 5 + [429])
