"""Query strings and request headers: a client can send anything, and Redis has limited room."""

import re
from unittest import mock

from django.test import tag

from blog import caching
from blog.tests import CacheTestCase

LISTS = ("/", "/tags/redis/")
NO_LISTS = (
    *("/start/", "/posts/", "/cheatsheet/"),
    *("/about/", "/feed/", "/sitemap.xml", "/posts/keys/"),
)
TRACKING = (
    "utm_source=newsletter",
    "utm_medium=mail&utm_campaign=spring",
    "utm_term=a&utm_content=b",
    "fbclid=IwAR0",
    "gclid=Cj0",
)


class QueryStringTestCase(CacheTestCase):
    @classmethod
    def setUpTestData(cls):
        for number in range(12):
            cls.make_post(f"post-{number}")
        cls.make_post("keys")


@tag("behaviour")
class QueryStringTests(QueryStringTestCase):
    """One page is one entry, with any query string."""

    def test_tracking_parameters_hit_the_entry_without_them(self):
        for url in LISTS + NO_LISTS:
            self.client.get(url)

            for query in TRACKING:
                with self.subTest(url, query=query):
                    self.assertHit(f"{url}?{query}")

    def test_a_first_visit_with_tracking_parameters_serves_the_visits_without(self):
        for url in LISTS + NO_LISTS:
            self.client.get(f"{url}?utm_source=newsletter")

            with self.subTest(url):
                self.assertHit(url)

    def test_a_page_number_survives_tracking_parameters(self):
        second = self.client.get("/?page=2")

        for query in ("utm_source=x&page=2", "page=2&gclid=x", "page=3&page=2"):
            with self.subTest(query):
                self.assertEqual(self.assertHit(f"/?{query}").content, second.content)

    def test_a_charset_does_not_lead_to_another_page(self):
        second = self.client.get("/?page=2").text
        self.empty_caches()

        odd = self.client.get("/?page=2", CONTENT_TYPE="text/plain; charset=cp037").text

        self.assertEqual([odd, self.client.get("/?page=2").text], [second, second])

    def test_page_1_is_the_page_without_a_number(self):
        self.assertEqual(self.client.get("/?page=1").content, self.client.get("/").content)

    def test_the_cached_page_repeats_nothing_of_the_query(self):
        for url in LISTS + NO_LISTS:
            with self.subTest(url):
                response = self.client.get(f"{url}?utm_source=repeated")
                self.assertNotContains(response, "repeated")
                self.assertNotContains(self.client.get(url), "repeated")


class EntriesTests(QueryStringTestCase):
    """How many entries a client can make with query strings: as many as there are pages."""

    def entries(self):
        return self.pages("site") + self.pages("view")

    def test_tracking_parameters_make_no_entries(self):
        for url in LISTS + NO_LISTS:
            self.client.get(url)
        before = self.entries()

        for url in LISTS + NO_LISTS:
            for query in TRACKING:
                self.client.get(f"{url}?{query}")

        self.assertEqual(self.entries(), before)

    def test_random_query_strings_make_no_entries(self):
        for url in LISTS + NO_LISTS:
            self.client.get(url)
        before = self.entries()

        for url in LISTS + NO_LISTS:
            for number in range(10):
                self.client.get(f"{url}?{number}&x={number}&y[]={number}&Page={number}")

        self.assertEqual(self.entries(), before)

    def test_a_list_has_at_most_one_entry_more_than_pages(self):
        for number in ("0", "1", "2", "3", "-1", "01", "+2", "2.0", "abc", "", "٢", "1" * 400):
            self.client.get("/", {"page": number})
        self.client.get("/")

        # "/" and "/?page=1" are the same page.
        self.assertEqual(len(self.pages("site")), 3)

    def test_a_page_number_where_there_are_no_pages_makes_no_entries(self):
        for url in NO_LISTS:
            self.empty_caches()
            self.client.get(url)
            before = self.entries()

            for number in ("0", "2", "99", "-1", "abc", "x" * 400):
                self.client.get(url, {"page": number})

            with self.subTest(url):
                self.assertEqual(self.entries(), before)


@tag("behaviour")
class HeaderTests(CacheTestCase):
    """Request headers change no page."""

    urls = ("/", "/tags/redis/", "/about/", "/feed/", "/sitemap.xml", "/posts/keys/")
    headers = (
        {"Cookie": f"sessionid={'s' * 32}; csrftoken={'c' * 32}; visitor=v; _ga=1"},
        {"Accept-Language": "de"},
        {"Accept-Encoding": "gzip, br"},
        {"Accept": "application/json"},
        {"User-Agent": "A phone"},
        {"X-Requested-With": "XMLHttpRequest"},
        {"X-Forwarded-Host": "elsewhere.example"},
        {"X-Forwarded-For": "192.0.2.1"},
        {"X-Forwarded-Proto": "https"},
        {"Cache-Control": "no-cache"},
        {"Pragma": "no-cache"},
    )

    @classmethod
    def setUpTestData(cls):
        cls.make_post("keys")

    def test_a_request_with_any_header_hits_the_cached_page(self):
        for url in self.urls:
            first = self.client.get(url)

            for headers in self.headers:
                with self.subTest(url, headers=headers):
                    self.assertEqual(self.assertHit(url, **headers).content, first.content)

    def test_the_page_of_a_request_with_any_header_serves_all_visitors(self):
        for headers in self.headers:
            self.empty_caches()
            for url in ("/", "/posts/keys/"):  # One of each page level.
                first = self.client.get(url, headers=headers)

                with self.subTest(url, headers=headers):
                    second = self.assertHit(url)
                    self.assertEqual(second.content, first.content)

    def test_a_request_with_credentials_gets_the_public_page(self):
        for url in self.urls:
            public = self.client.get(url)

            for credentials in ("Basic YTpi", "Bearer 1"):
                with self.subTest(url):
                    response = self.client.get(url, headers={"Authorization": credentials})
                    self.assertEqual(response.content, public.content)
                self.assertHit(url)

    def test_a_cookie_that_a_page_sets_reaches_no_other_visitor(self):
        # Django deletes a session cookie and replaces a CSRF cookie that it never gave out.
        for cookie in ("sessionid=1", "csrftoken=1"):
            for url in self.urls:
                self.empty_caches()

                response = self.client_class().get(url, headers={"Cookie": cookie})

                with self.subTest(url, cookie=cookie):
                    self.assertNotEqual(response.cookies, {})
                    self.assertEqual(self.client_class().get(url).cookies, {})

    def test_a_response_that_sets_a_cookie_comes_from_the_cache_if_the_page_is_there(self):
        for cookie in ("sessionid=1", "csrftoken=1"):
            for url in self.urls:
                self.client.get(url)

                with self.subTest(url, cookie=cookie), self.assertNoQueries():
                    response = self.client_class().get(url, headers={"Cookie": cookie})
                    self.assertIn("Age", response)
                self.assertEqual(self.assertHit(url).cookies, {})


class HeaderEntriesTests(CacheTestCase):
    """Request headers make no entries."""

    urls, headers = HeaderTests.urls, HeaderTests.headers

    @classmethod
    def setUpTestData(cls):
        cls.make_post("keys")

    def test_a_request_with_any_header_makes_no_entry(self):
        for url in self.urls:
            self.client.get(url)
        before = self.pages("site") + self.pages("view")

        for url in self.urls:
            for headers in self.headers:
                self.client.get(url, headers=headers)

        self.assertEqual(self.pages("site") + self.pages("view"), before)

    def test_a_host_that_is_not_ours_is_refused_and_stored_nowhere(self):
        self.empty_caches()
        for url in self.urls:
            with self.subTest(url), self.assertLogs("django.security.DisallowedHost"):
                response = self.client.get(url, headers={"Host": "elsewhere.example"})

                self.assertEqual(response.status_code, 400)
                self.assertEqual(self.stored(), {})


class SearchBoundTests(CacheTestCase):
    """A visitor can ask anything. Search stores a limited number of answers."""

    @classmethod
    def setUpTestData(cls):
        cls.make_post("keys")

    def search(self, query):
        return self.client.get("/search/", {"q": query})

    def test_the_bound_is_500_answers_in_ten_minutes(self):
        self.assertEqual(caching.SEARCH_ANSWERS_LIMIT, 500)
        self.assertEqual(caching.SEARCH_TIMEOUT, 600)

    def test_answers_beyond_the_bound_are_not_stored(self):
        with mock.patch.object(caching, "SEARCH_ANSWERS_LIMIT", 5):
            for number in range(20):
                self.search(f"word{number}")

        self.assertEqual(len(self.keys("low-level", "*:search:answer:*")), 5)

    def test_no_key_at_all_is_stored_beyond_the_bound(self):
        with mock.patch.object(caching, "SEARCH_ANSWERS_LIMIT", 5):
            for number in range(5):
                self.search(f"word{number}")
            before = self.keys("low-level")

            for number in range(5, 20):
                self.search(f"word{number}")

        self.assertEqual(self.keys("low-level"), before)

    def test_answers_beyond_the_bound_are_right(self):
        with mock.patch.object(caching, "SEARCH_ANSWERS_LIMIT", 0):
            for _ in range(2):
                response = self.search("keys")

                self.assertContains(response, 'href="/posts/keys/"')

    def test_answers_that_are_stored_are_still_hits_beyond_the_bound(self):
        self.search("keys")

        with (
            mock.patch.object(caching, "SEARCH_ANSWERS_LIMIT", 0),
            mock.patch("blog.search.best", side_effect=AssertionError),
        ):
            self.search("keys")

    def test_an_edit_does_not_raise_the_bound(self):
        with mock.patch.object(caching, "SEARCH_ANSWERS_LIMIT", 5):
            for number in range(10):
                self.search(f"word{number}")
            with self.commit():
                self.make_post("hashes")
            for number in range(10):
                self.search(f"word{number}")

        self.assertEqual(len(self.keys("low-level", "*:search:answer:*")), 5)

    def test_the_count_that_bounds_begins_anew_after_ten_minutes(self):
        self.search("keys")

        (key,) = self.keys("low-level", "*:search:stored")
        self.assertLessEqual(595, self.ttl("low-level", key))
        self.assertLessEqual(self.ttl("low-level", key), 600)

    def test_a_question_beyond_200_characters_makes_no_other_entry(self):
        words = "word " * 40
        self.search(words)
        before = self.keys("low-level")

        self.search(f"{words} and more")

        self.assertEqual(self.keys("low-level"), before)

    def test_random_parameters_make_no_entry(self):
        self.search("keys")
        before = self.keys("low-level")

        for number in range(10):
            self.client.get(f"/search/?q=keys&utm_source={number}&x={number}")

        self.assertEqual(self.keys("low-level"), before)

    def test_a_key_never_contains_the_query(self):
        self.search("unmistakable and more")

        for key in self.keys("low-level"):
            with self.subTest(key):
                self.assertIsNone(re.search("unmistakable", key))


class ArchiveBoundTests(CacheTestCase):
    """Each month that has posts is a fragment. The others are not."""

    def test_months_without_posts_store_nothing(self):
        self.make_post("keys")

        for year in (2024, 2025):
            for month in range(1, 13):
                self.client.get(f"/archive/{year}/{month:02}/")

        self.assertEqual(self.keys("fragment", "*:template.cache.*"), [])

    def test_query_strings_make_no_fragments(self):
        self.make_post("keys")
        self.client.get("/archive/")
        before = self.keys("fragment", "*:template.cache.*")

        for number in range(10):
            self.client.get(f"/archive/?page={number}&x={number}")

        self.assertEqual(self.keys("fragment", "*:template.cache.*"), before)
