"""The browser's copy is a level too: Cache-Control, ETag, 304, HEAD, Vary and Age."""

import time
from datetime import UTC, datetime
from unittest import mock

from django.core.cache import caches
from django.test import tag

from blog.models import Post
from blog.tests import CacheTestCase

SHOWS_POSTS = ("/", "/tags/redis/", "/feed/", "/posts/keys/")
CACHED = (*SHOWS_POSTS, "/about/", "/sitemap.xml")
PERSONAL = ("/archive/", "/archive/2026/03/", "/search/?q=keys", "/posts/keys/comment/")


def directives(response):
    """Return the set of what Cache-Control says."""
    return {directive.strip() for directive in response["Cache-Control"].split(",")}


class BrowserTestCase(CacheTestCase):
    @classmethod
    def setUpTestData(cls):
        cls.post = cls.make_post("keys")

    def miss_and_hit(self, url):
        """Return the response that was built, and the one from the cache."""
        return self.assertMiss(url), self.assertHit(url)

    def change(self):
        with self.commit():
            Post.objects.filter(slug="keys").update(title="Keys, revised", body="Revised.")


class CacheControlTests(BrowserTestCase):
    """What the browser may do with its copy."""

    def test_the_browser_asks_before_it_shows_its_copy(self):
        for url in CACHED:
            for response in self.miss_and_hit(url):
                with self.subTest(url, hit="Age" in response):
                    self.assertEqual(directives(response), {"no-cache"})
                    self.assertNotIn("Expires", response)

    def test_the_browser_stores_no_personal_page(self):
        for url in PERSONAL:
            with self.subTest(url):
                self.assertLess({"no-store", "private"}, directives(self.client.get(url)))

    def test_the_timeout_of_the_entry_is_not_told_to_the_browser(self):
        for url, level, seconds in (("/", "site", 60), ("/posts/keys/", "view", 300)):
            response = self.client.get(url)

            with self.subTest(url):
                self.assertNotIn("max-age", response["Cache-Control"])
                (key,) = self.pages(level)
                self.assertGreater(self.ttl(level, key), seconds - 5)

    def test_an_error_page_gives_the_browser_no_time(self):
        for url in ("/posts/nonsense/", "/nonsense/", "/?page=99"):
            with self.subTest(url):
                self.assertNotIn("max-age", self.client.get(url).get("Cache-Control", ""))


@tag("behaviour")
class ConditionalGetTests(BrowserTestCase):
    """A browser asks whether its copy is still valid."""

    def test_every_cached_page_has_an_etag(self):
        for url in CACHED:
            built, cached = self.miss_and_hit(url)

            with self.subTest(url):
                self.assertRegex(built["ETag"], r'^(W/)?"[^"]+"$')
                self.assertEqual(cached["ETag"], built["ETag"])

    def test_a_valid_copy_is_answered_304_without_a_body(self):
        for url in CACHED:
            etag = self.client.get(url)["ETag"]

            response = self.client.get(url, headers={"If-None-Match": etag})

            with self.subTest(url):
                self.assertEqual(response.status_code, 304)
                self.assertEqual(response.content, b"")

    def test_a_304_from_the_cache_runs_no_query(self):
        for url in CACHED:
            etag = self.client.get(url)["ETag"]

            with self.subTest(url), self.assertNoQueries():
                self.client.get(url, headers={"If-None-Match": etag})

    def test_a_page_that_had_to_be_built_is_answered_304_too(self):
        for url in CACHED:
            etag = self.client.get(url)["ETag"]
            self.empty_caches()

            response = self.client.get(url, headers={"If-None-Match": etag})

            with self.subTest(url):
                self.assertEqual(response.status_code, 304)

    def test_a_304_repeats_what_the_browser_may_do(self):
        for url in CACHED:
            full = self.client.get(url)

            response = self.client.get(url, headers={"If-None-Match": full["ETag"]})

            with self.subTest(url):
                self.assertEqual(response["Cache-Control"], full["Cache-Control"])
                self.assertEqual(response["ETag"], full["ETag"])
                self.assertEqual(response.get("Vary"), full.get("Vary"))

    def test_a_304_is_never_stored_in_place_of_the_page(self):
        for url in CACHED:
            full = self.client.get(url)
            self.empty_caches()

            self.client.get(url, headers={"If-None-Match": full["ETag"]})

            with self.subTest(url):
                response = self.assertHit(url)
                self.assertEqual(response.status_code, 200)
                self.assertEqual(response.content, full.content)

    def test_a_copy_from_before_an_edit_is_answered_with_the_new_page(self):
        for url in SHOWS_POSTS:
            with self.commit():
                Post.objects.filter(slug="keys").update(title="Keys", body="As it was.")
            etag = self.client.get(url)["ETag"]

            self.change()
            response = self.client.get(url, headers={"If-None-Match": etag})

            with self.subTest(url):
                self.assertEqual(response.status_code, 200)
                self.assertContains(response, "Keys, revised")
                self.assertNotEqual(response["ETag"], etag)

    def test_a_copy_from_before_a_comment_is_answered_with_the_new_page(self):
        etag = self.client.get("/posts/keys/")["ETag"]

        with self.commit():
            self.client.post("/posts/keys/comment/", {"author": "Ada", "body": "I see."})
        response = self.client.get("/posts/keys/", headers={"If-None-Match": etag})

        self.assertContains(response, "I see.")

    def test_an_expired_page_that_did_not_change_is_still_304(self):
        etag = self.client.get("/posts/keys/")["ETag"]
        caches["view"].clear()

        response = self.client.get("/posts/keys/", headers={"If-None-Match": etag})

        self.assertEqual(response.status_code, 304)

    def test_a_reader_that_knows_only_the_date_learns_of_a_deletion(self):
        # Feed readers send If-Modified-Since. The posts that are left may be older than that.
        self.make_post("hashes", published_at=datetime(2026, 2, 1, tzinfo=UTC))
        for url in CACHED:
            self.client.get(url)
            date = self.client.get(url).get("Last-Modified")
            if date is None:
                continue

            with self.commit():
                self.post.delete()
            response = self.client.get(url, headers={"If-Modified-Since": date})

            with self.subTest(url):
                self.assertEqual(response.status_code, 200)

    def test_personal_pages_are_never_304(self):
        for url in ("/archive/", "/posts/keys/comment/"):
            etag = self.client.get(url).get("ETag", '"none"')
            client = self.client_class()
            client.cookies["visitor"] = self.signed_name()

            response = client.get(url, headers={"If-None-Match": etag})

            with self.subTest(url):
                self.assertEqual(response.status_code, 200)

    def signed_name(self):
        comment = {"author": "Ada", "body": "I see."}
        response = self.client_class().post("/posts/keys/comment/", comment)
        return response.cookies["visitor"].value


@tag("behaviour")
class HeadTests(BrowserTestCase):
    """HEAD is GET without the body."""

    def test_head_has_the_headers_of_get_and_no_body(self):
        for url in CACHED + ("/archive/", "/search/?q=keys"):
            get = self.client.get(url)
            self.empty_caches()

            head = self.client.head(url)

            with self.subTest(url):
                self.assertEqual(head.status_code, 200)
                self.assertEqual(head.content, b"")
                for name in ("Content-Type", "Cache-Control", "Vary"):
                    self.assertEqual(head.get(name), get.get(name), name)

    def test_head_says_how_long_the_body_of_get_is(self):
        for url in CACHED:
            get = self.client.get(url)

            with self.subTest(url):
                self.assertEqual(int(get["Content-Length"]), len(get.content))
                self.assertEqual(self.client.head(url)["Content-Length"], get["Content-Length"])

    def test_head_after_get_is_a_hit(self):
        for url in CACHED:
            self.client.get(url)

            with self.subTest(url), self.assertNoQueries():
                self.assertIn("Age", self.client.head(url).headers)

    def test_get_after_head_is_built_with_its_body(self):
        for url in CACHED:
            self.client.head(url)

            with self.subTest(url):
                self.assertGreater(len(self.assertMiss(url).content), 100)

    def test_a_304_to_head_does_not_say_that_the_page_is_empty(self):
        for url in CACHED:
            etag = self.client.get(url)["ETag"]

            response = self.client.head(url, headers={"If-None-Match": etag})

            with self.subTest(url):
                self.assertEqual(response.status_code, 304)
                self.assertNotIn("Content-Length", response)

    def test_head_of_a_missing_page_is_404(self):
        for url in ("/posts/nonsense/", "/nonsense/"):
            with self.subTest(url):
                self.assertEqual(self.client.head(url).status_code, 404)


@tag("behaviour")
class VaryTests(BrowserTestCase):
    """What a page depends on."""

    def test_cached_pages_depend_on_no_header(self):
        for url in CACHED:
            for response in self.miss_and_hit(url):
                with self.subTest(url, hit="Age" in response):
                    self.assertNotIn("Vary", response)

    def test_personal_pages_depend_on_cookies(self):
        for url in ("/archive/", "/posts/keys/comment/"):
            with self.subTest(url):
                self.assertIn("Cookie", self.client.get(url)["Vary"])


class AgeTests(BrowserTestCase):
    """How old the copy of a cache is."""

    def test_a_page_that_was_built_has_no_age(self):
        for url in CACHED:
            with self.subTest(url):
                self.assertNotIn("Age", self.client.get(url))

    def test_a_page_from_the_cache_says_how_many_seconds_old_it_is(self):
        for url in CACHED:
            self.client.get(url)

            with mock.patch("time.time", self.in_20_seconds()):
                age = int(self.client.get(url)["Age"])

            with self.subTest(url):
                self.assertIn(age, (20, 21))

    def in_20_seconds(self):
        later = time.time() + 20
        return lambda: later

    def test_personal_pages_have_no_age(self):
        for url in PERSONAL:
            self.client.get(url)

            with self.subTest(url):
                self.assertNotIn("Age", self.client.get(url))
