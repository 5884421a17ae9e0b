"""Why did this miss? The parts of a key beside those of the nearest one."""

from django.core.cache import caches
from django.test import RequestFactory, override_settings
from django.utils.cache import get_cache_key

from blog.tests.test_browser import BrowserTestCase
from lab.keys import PARTS, django_keys
from lab.tests import LabTestCase
from mysite.private_redis import use_redis


class KeysTests(LabTestCase):
    def ask(self, url, **options):
        response = self.client.post("/lab/keys/", {"url": url} | options)
        self.assertEqual(response.status_code, 200)
        return response

    def differing(self, response):
        return [row["part"] for row in response.context["rows"] if row["differs"]]

    def keep_varied(self, header, value):
        """Store a page that varies on a header, as Django does."""
        request = RequestFactory().get("/about/", headers={header: value})
        names, page = django_keys(request, header)
        caches["site"].set(names, [f"HTTP_{header.upper().replace('-', '_')}"])
        caches["site"].set(page, "the page")

    def nearest(self, response):
        """Return what the nearest key's URL means."""
        (url,) = (row for row in response.context["rows"] if row["part"] == "URL, hashed")
        return url["their_means"]

    def test_the_keys_are_those_that_django_uses(self):
        request = RequestFactory().get("/about/")
        header, page = django_keys(request, "Accept-Language, Cookie")
        caches["site"].set(header, ["HTTP_ACCEPT_LANGUAGE", "HTTP_COOKIE"])

        self.assertEqual(page, get_cache_key(request, "", "GET", caches["site"]))

    def test_a_page_that_is_kept_is_a_hit(self):
        self.client.get("/about/")

        response = self.ask("http://testserver/about/")

        self.assertIn("A hit, for", response.context["verdict"])

    def test_asking_is_no_visit(self):
        self.ask("http://testserver/about/")

        self.assertIsNone(self.client.get("/about/").get("Age"))

    def test_a_cookie_that_the_page_varies_on_is_another_key(self):
        self.keep_varied("Cookie", "name=alice")

        response = self.ask("http://testserver/about/", cookie="name=bob", plain="on")

        self.assertEqual(self.differing(response), ["Values of the headers in Vary, hashed"])
        self.assertContains(response, "Cookie: name=bob")

    def test_where_no_header_counts_it_says_so(self):
        self.client.get("/about/")

        rows = {row["part"]: row for row in self.ask("http://testserver/about/").context["rows"]}

        vary = rows["Values of the headers in Vary, hashed"]
        self.assertEqual(vary["means"], "of nothing: no header counts")
        self.assertEqual(vary["their_means"], vary["means"])

    def test_the_key_is_the_one_in_redis(self):
        self.client.get("/about/")

        response = self.ask("http://testserver/about/")

        keys = [key.decode() for key in caches["site"].client.get_client().scan_iter()]
        self.assertIn(response.context["key"], keys)

    def test_https_differs_in_the_url_alone(self):
        self.client.get("/about/")

        response = self.ask("https://testserver/about/")

        self.assertEqual(self.differing(response), ["URL, hashed"])
        self.assertContains(response, "http://testserver/about/")

    def test_the_nearest_key_is_that_of_the_same_page(self):
        for path in ("/", "/feed/", "/about/"):
            self.client.get(path)

        response = self.ask("https://testserver/about/")

        self.assertEqual(self.nearest(response), "http://testserver/about/")

    def test_the_nearest_key_may_be_that_of_https(self):
        self.client.get("/about/", secure=True)

        response = self.ask("http://testserver/about/")

        self.assertEqual(self.nearest(response), "https://testserver/about/")

    def test_one_press_explains_a_page_of_the_blog(self):
        form = self.client.get("/lab/keys/").context["form"]

        response = self.ask(form["url"].initial)

        self.assertContains(response, "✗ A miss")
        self.assertContains(response, '<a href="http://testserver/about/">open it</a>')

    def test_what_is_not_here_is_no_link(self):
        self.assertNotContains(self.ask("https://testserver/about/"), "open it")

    def test_the_blog_drops_a_campaign_from_the_url(self):
        self.client.get("/about/")

        response = self.ask("http://testserver/about/?utm_source=x")

        self.assertIn("A hit", response.context["verdict"])

    def test_django_alone_would_miss_with_a_campaign(self):
        self.client.get("/about/")

        response = self.ask("http://testserver/about/?utm_source=x", plain="on")

        self.assertEqual(self.differing(response), ["URL, hashed"])

    def test_a_page_that_varies_differs_in_the_header(self):
        self.keep_varied("Accept-Language", "en")

        response = self.ask("http://testserver/about/", language="de", plain="on")

        self.assertEqual(self.differing(response), ["Values of the headers in Vary, hashed"])

    def test_a_dropped_page_says_so(self):
        from mysite.caches.invalidation import invalidate

        self.client.get("/about/")
        invalidate({("site", "posts")}, {})

        response = self.ask("http://testserver/about/")

        self.assertIn("was dropped", response.context["verdict"])

    def test_an_empty_level_says_so(self):
        response = self.ask("http://testserver/about/")

        self.assertIn("holds no page at all", response.context["verdict"])

    def test_a_page_that_nobody_keeps_says_so(self):
        response = self.ask("http://testserver/archive/")

        self.assertContains(response, "No page level keeps this path")

    def test_without_redis_it_says_so(self):
        with use_redis("redis://127.0.0.1:1"):
            response = self.ask("http://testserver/about/")

        self.assertContains(response, "Redis does not answer")

    def test_another_port_is_not_kept(self):
        response = self.ask("http://testserver:9999/about/")

        self.assertContains(response, "PUBLIC_PORTS")

    def test_a_foreign_host_is_a_form_error(self):
        response = self.client.post("/lab/keys/", {"url": "http://example.org/"})

        self.assertContains(response, "does not answer to that host", status_code=400)

    def test_a_host_that_is_an_ipv6_address(self):
        with override_settings(ALLOWED_HOSTS=["[::1]", "localhost", "127.0.0.1", "testserver"]):
            response = self.ask("http://[::1]:80/about/")

        self.assertIn("A miss", response.context["verdict"])

    def test_garbage_in_redis_is_a_miss(self):
        self.client.get("/about/")
        redis = caches["site"].client.get_client()
        for key in redis.scan_iter("*cache_*"):
            redis.set(key, "7")

        response = self.ask("http://testserver/about/")

        self.assertIn("A miss", response.context["verdict"])

    def test_what_is_no_url_is_a_form_error(self):
        response = self.client.post("/lab/keys/", {"url": "http://["})

        self.assertEqual(response.status_code, 400)

    def test_hostile_text_is_text(self):
        response = self.ask("http://testserver/archive/?<script>alert(1)</script>")

        self.assertNotContains(response, "<script>alert")

    def test_every_key_of_a_page_can_be_taken_apart(self):
        self.client.get("/about/")
        self.client.get("/feed/")

        keys = [
            key.decode() for key in caches["site"].client.get_client().scan_iter("*cache_page*")
        ]
        self.assertEqual(len(keys), 2)
        self.assertTrue(all(map(PARTS.fullmatch, keys)), keys)


class KeysInTheBrowserTests(BrowserTestCase, LabTestCase):
    def why(self, page=None):
        page = page or self.page
        page.locator("[data-start]").click()
        page.locator(".lab-parts").wait_for()
        return page.locator(".lab-verdict").inner_text()

    def test_open_it_and_ask_again(self):
        self.page.goto("/lab/keys/")
        self.assertIn("✗ A miss", self.why())

        self.page.locator("main a", has_text="open it").click()
        self.page.locator("h1", has_text="About").wait_for()
        self.page.goto("/lab/keys/")

        self.assertIn("✓ A hit", self.why())

    def test_what_differs_is_said_with_a_sign(self):
        self.page.goto("/about/")
        self.page.goto("/lab/keys/")
        self.page.locator(".lab-command", has_text="over https").click()
        self.page.locator(".lab-parts").wait_for()

        self.assertEqual(self.page.locator(".lab-differs td").first.inner_text(), "✗ differs")
        self.assertEqual(self.page.locator(".lab-differs").count(), 1)

    def test_a_phone_shows_all_of_it(self):
        page = self.visitor(viewport={"width": 360, "height": 640})
        page.goto("/lab/keys/")
        self.why(page)

        self.assertEqual(page.evaluate("document.documentElement.scrollWidth"), 360)
