"""A shared cache in front of Django: docker/nginx-edge.conf, and what nginx itself obeys."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from unittest import skipUnless
from urllib.parse import parse_qs, urlencode, urlsplit

from django.conf import settings
from django.test import SimpleTestCase, tag

from mysite.private_redis import PrivateRedis
from mysite.processes import free_port, wait_until
from mysite.tests.served import AUTHOR, Browser, Gunicorn, Home

POST = "/posts/per-view/"
# Debian has it where only root looks.
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
EDGE = settings.BASE_DIR / "docker" / "nginx-edge.conf"

# A proxy without rules of its own: each header of the response counts.
PLAIN = """
error_log stderr warn;
pid /tmp/nginx.pid;
events {}
http {
    client_body_temp_path /tmp/client_body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    access_log off;
    proxy_cache_path /tmp/pages keys_zone=pages:1m;
    upstream blog {
        server web:8000 resolve;
    }
    server {
        listen 8080;
        proxy_set_header Host $http_host;
        proxy_cache pages;
        proxy_cache_background_update on;
        add_header X-Cache $upstream_cache_status always;
        location / {
            proxy_pass http://blog;
        }
        location /use-stale/ {
            proxy_pass http://blog;
            proxy_cache_use_stale http_503;
        }
    }
}
"""


class Origin(ThreadingHTTPServer):
    """
    A server whose responses have the headers that the URL asks for: /?Cache-Control=no-cache.

    The body is the number of the request. In the state "broken" the response is a 503. In the
    state "silent" the connection ends without one.
    """

    state = "well"

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Responder)
        self.requests = count(1)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()


class Responder(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.server.state == "silent":
            self.close_connection = True
            return
        body = b"%d" % next(self.server.requests)
        self.send_response(503 if self.server.state == "broken" else 200)
        for name, values in parse_qs(urlsplit(self.path).query).items():
            self.send_header(name, values[0])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextmanager
def nginx(configuration, port):
    """Start nginx before the server at `port`. Yield nginx's own port."""
    listens = free_port()
    with tempfile.TemporaryDirectory() as folder:
        text = configuration.replace("/tmp/", f"{folder}/")  # noqa: S108
        text = text.replace("listen 8080", f"listen 127.0.0.1:{listens}")
        # With an address there is no name to look up, and nginx before 1.27.3 can't do that.
        text = text.replace("server web:8000 resolve", f"server 127.0.0.1:{port}")
        Path(folder, "nginx.conf").write_text(text)
        # As root, its workers would be another user, who may not enter the folder.
        directives = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
        log = Path(folder, "log")
        with log.open("w") as output:
            process = subprocess.Popen(
                [NGINX, "-p", folder, "-c", f"{folder}/nginx.conf", "-g", directives],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            if not wait_until(lambda: listens_at(listens) or process.poll() is not None, 30):
                raise AssertionError("nginx does not start")
            if process.poll() is not None:
                raise AssertionError(f"nginx ended: {log.read_text()}")
            yield listens
        finally:
            process.terminate()
            process.wait(30)


def listens_at(port):
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@tag("slow")
@skipUnless(NGINX, "nginx is not installed")
class EdgeTestCase(SimpleTestCase):
    def browser(self, port, **headers):
        browser = Browser(port, headers)
        self.addCleanup(browser.close)
        return browser

    def states(self, browser, path, times=2, **headers):
        """Ask for a page several times. Return what nginx says of each response."""
        return [browser.get(path, **headers).get("X-Cache") for _ in range(times)]


class BlogBehindNginxTests(EdgeTestCase):
    """docker/nginx-edge.conf before the blog."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.home = cls.enterClassContext(Home())
        cls.redis = cls.enterClassContext(PrivateRedis())
        cls.gunicorn = cls.enterClassContext(Gunicorn(cls.home, cls.redis.url))

    def edge(self, valid="60s", gunicorn=None):
        """Start nginx, which shows a page for `valid` without asking. Return its port."""
        text = EDGE.read_text()
        self.assertIn("proxy_cache_valid 200 10s;", text)
        text = text.replace("valid 200 10s", f"valid 200 {valid}")
        return self.enterContext(nginx(text, (gunicorn or self.gunicorn).port))

    def test_the_second_request_is_a_hit_with_the_same_bytes(self):
        visitor = self.browser(self.edge())

        for path in ("/", "/about/", "/feed/", POST):
            with self.subTest(path):
                answers = [visitor.get(path) for _ in range(2)]

                self.assertEqual([each.get("X-Cache") for each in answers], ["MISS", "HIT"])
                self.assertEqual(answers[0].body, answers[1].body)

    def test_a_hit_is_for_all_visitors_and_doesnt_reach_the_blog(self):
        gunicorn = self.enterContext(Gunicorn(self.home, self.redis.url))
        port = self.edge(gunicorn=gunicorn)
        self.browser(port).get("/about/")

        gunicorn.stop()
        answer = self.browser(port).get("/about/")

        self.assertEqual((answer.status, answer.get("X-Cache")), (200, "HIT"))

    def test_personal_pages_and_errors_are_never_stored(self):
        visitor = self.browser(self.edge())

        for path in ("/archive/", "/search/?q=redis", f"{POST}comment/", "/watch/", "/no/such/"):
            with self.subTest(path):
                self.assertEqual(self.states(visitor, path, 3), ["MISS"] * 3)

    def test_a_logged_in_author_reads_past_the_cache_and_stores_nothing(self):
        port = self.edge()
        author = self.browser(port)
        author.log_in()

        self.assertEqual(self.states(author, "/about/"), ["BYPASS", "BYPASS"])
        self.assertEqual(self.states(self.browser(port), "/about/"), ["MISS", "HIT"])
        self.assertEqual(self.states(author, "/about/"), ["BYPASS", "BYPASS"])

    def test_an_authorization_header_reads_past_the_cache(self):
        visitor = self.browser(self.edge())

        states = self.states(visitor, "/about/", Authorization="Basic QWRhOkFkYQ==")

        self.assertEqual(states, ["BYPASS", "BYPASS"])

    def test_an_invalidated_page_is_shown_until_nginxs_own_time_is_over(self):
        port = self.edge()
        visitor, author = self.browser(port), self.browser(port)
        visitor.get(POST)
        author.log_in()

        author.submit(f"{POST}comment/", author=AUTHOR, body="A new comment.")

        old, new = visitor.get(POST), author.get(POST)
        self.assertEqual(old.get("X-Cache"), "HIT")
        self.assertNotIn("A new comment.", old.text)
        self.assertIn("A new comment.", new.text)

    def test_the_browsers_copy_is_still_good_after_it_asked_the_edge(self):
        visitor = self.browser(self.edge())
        etag = visitor.get("/about/").get("ETag")

        answer = visitor.get("/about/", **{"If-None-Match": etag})

        self.assertEqual((answer.status, answer.get("X-Cache")), (304, "HIT"))
        self.assertEqual(answer.get("Cache-Control"), "no-cache")

    def test_each_query_and_each_host_is_an_entry_of_its_own(self):
        port = self.edge()
        visitor = self.browser(port)
        visitor.get("/about/")

        query = visitor.get("/about/?utm_source=mail")
        host = visitor.get("/about/", Host=f"localhost:{port}")

        self.assertEqual([query.get("X-Cache"), host.get("X-Cache")], ["MISS", "MISS"])
        self.assertEqual([query.status, host.status], [200, 200])

    def test_while_the_blog_is_down_an_old_page_is_shown_and_no_personal_one(self):
        gunicorn = self.enterContext(Gunicorn(self.home, self.redis.url))
        visitor = self.browser(self.edge("1s", gunicorn))
        visitor.get("/about/")
        visitor.get("/archive/")

        gunicorn.stop()

        self.assertTrue(wait_until(lambda: self.states(visitor, "/about/", 1) == ["STALE"]))
        self.assertEqual(visitor.get("/about/").status, 200)
        self.assertEqual(visitor.get("/archive/").status, 502)


class HeaderTests(EdgeTestCase):
    """What nginx does with the response headers of any application."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.origin = cls.enterClassContext(Origin())
        cls.port = cls.enterClassContext(nginx(PLAIN, cls.origin.server_port))

    def setUp(self):
        super().setUp()
        self.origin.state = "well"
        self.visitor = self.browser(self.port)

    def path(self, **headers):
        """Return the URL of a new page whose response has these headers. `_` stands for `-`."""
        query = urlencode({name.replace("_", "-"): value for name, value in headers.items()})
        return f"/{secrets.token_hex(4)}?{query}"

    def expired(self, path):
        """Ask for a page until nginx doesn't call it a hit. Return that answer."""
        answers = [self.visitor.get(path)]

        def ends():
            answers.append(self.visitor.get(path))
            return answers[-1].get("X-Cache") != "HIT"

        self.assertTrue(wait_until(ends))
        return answers[-1]

    def test_the_headers_decide_what_is_stored(self):
        for headers, second in (
            ({}, "MISS"),
            ({"Cache_Control": "max-age=60"}, "HIT"),
            ({"Cache_Control": "max-age=0, s-maxage=60"}, "HIT"),
            ({"Cache_Control": "max-age=60, s-maxage=0"}, "MISS"),
            ({"Cache_Control": "no-cache, s-maxage=60"}, "MISS"),
            ({"Cache_Control": "private, s-maxage=60"}, "MISS"),
            ({"Cache_Control": "max-age=60", "Vary": "*"}, "MISS"),
            ({"Cache_Control": "max-age=60", "Set_Cookie": "visitor=ada"}, "MISS"),
            ({"CDN_Cache_Control": "max-age=60"}, "MISS"),
            # Too old by RFC 9111, section 4.2. nginx doesn't count Age.
            ({"Cache_Control": "max-age=60", "Age": "100"}, "HIT"),
            # The order matters before nginx 1.23.
            ({"X_Accel_Expires": "60", "Cache_Control": "no-cache"}, "HIT"),
        ):
            with self.subTest(headers):
                self.assertEqual(self.states(self.visitor, self.path(**headers))[1], second)

    def test_x_accel_expires_stays_between_nginx_and_the_application(self):
        answer = self.visitor.get(self.path(X_Accel_Expires="60", Cache_Control="no-cache"))

        self.assertIsNone(answer.get("X-Accel-Expires"))
        self.assertEqual(answer.get("Cache-Control"), "no-cache")

    def test_vary_cookie_makes_an_entry_for_each_cookie_header(self):
        path = self.path(Cache_Control="max-age=60", Vary="Cookie")

        states = [self.visitor.get(path, Cookie=each).get("X-Cache") for each in ("a=1", "a=2")]

        self.assertEqual(states, ["MISS", "MISS"])
        self.assertEqual(self.visitor.get(path, Cookie="a=1").get("X-Cache"), "HIT")

    def test_the_default_key_leaves_the_visitors_host_out(self):
        path = self.path(Cache_Control="max-age=60")

        first = self.visitor.get(path, Host="one.example")
        second = self.visitor.get(path, Host="two.example")

        self.assertEqual((second.get("X-Cache"), second.body), ("HIT", first.body))

    def test_stale_while_revalidate_shows_the_old_page_and_fetches_the_new_one(self):
        path = self.path(Cache_Control="max-age=1, stale-while-revalidate=60")
        first = self.visitor.get(path)

        stale = self.expired(path)

        self.assertEqual((stale.get("X-Cache"), stale.body), ("STALE", first.body))
        self.assertTrue(wait_until(lambda: self.visitor.get(path).body != first.body))

    def test_stale_if_error_covers_an_application_that_does_not_answer(self):
        path = self.path(Cache_Control="max-age=1, stale-if-error=60")
        first = self.visitor.get(path)
        self.origin.state = "silent"

        stale = self.expired(path)

        self.assertEqual((stale.status, stale.body), (200, first.body))

    def test_stale_if_error_does_not_cover_an_error_of_the_application(self):
        path = self.path(Cache_Control="max-age=1, stale-if-error=60")
        self.visitor.get(path)
        self.origin.state = "broken"

        self.assertEqual(self.expired(path).status, 503)

    def test_use_stale_http_503_covers_an_error_of_the_application(self):
        path = self.path(Cache_Control="max-age=1").replace("/", "/use-stale/", 1)
        first = self.visitor.get(path)
        self.origin.state = "broken"

        stale = self.expired(path)

        self.assertEqual((stale.status, stale.body), (200, first.body))
