"""Level 1, the whole site: the home page, lists of posts, /start/, /about/, /feed/ and more."""

from datetime import UTC, datetime

from django.conf import settings
from django.core.cache import caches
from django.test import tag

from blog.tests import CacheTestCase

WHOLE_SITE = (
    *("/", "/?page=2", "/start/", "/posts/", "/cheatsheet/"),
    *("/tags/redis/", "/about/", "/feed/", "/sitemap.xml"),
)


class WholeSiteTestCase(CacheTestCase):
    @classmethod
    def setUpTestData(cls):
        for number in range(12):
            published_at = datetime(2026, 3, number + 1, tzinfo=UTC)
            cls.make_post(f"post-{number}", published_at=published_at)


@tag("behaviour")
class WholeSiteTests(WholeSiteTestCase):
    """The per-site cache: UpdateCacheMiddleware and FetchFromCacheMiddleware."""

    def test_the_first_get_is_built_from_the_database(self):
        for url in WHOLE_SITE:
            with self.subTest(url):
                self.assertEqual(self.assertMiss(url).status_code, 200)

    def test_the_second_get_runs_no_query_and_has_an_age(self):
        for url in WHOLE_SITE:
            self.client.get(url)

            with self.subTest(url):
                self.assertEqual(self.assertHit(url).status_code, 200)

    def test_the_second_get_is_byte_for_byte_the_first(self):
        for url in WHOLE_SITE:
            first = self.client.get(url)

            with self.subTest(url):
                second = self.assertHit(url)
                self.assertEqual(second.content, first.content)
                self.assertEqual(second["Content-Type"], first["Content-Type"])

    def test_an_expired_page_is_built_again(self):
        for url in WHOLE_SITE:
            self.client.get(url)

            caches["site"].clear()

            with self.subTest(url):
                self.assertMiss(url)
                self.assertHit(url)

    def test_each_page_of_a_list_is_an_entry_of_its_own(self):
        first = self.client.get("/")
        second = self.client.get("/?page=2")

        self.assertContains(first, "/posts/post-11/")
        self.assertNotContains(first, "/posts/post-0/")
        self.assertContains(second, "/posts/post-0/")
        self.assertEqual(self.assertHit("/").content, first.content)
        self.assertEqual(self.assertHit("/?page=2").content, second.content)

    def test_a_missing_page_is_404_each_time(self):
        for url in ("/tags/nonsense/", "/?page=99", "/posts/?page=2", "/nonsense/"):
            for _ in range(2):
                with self.subTest(url):
                    self.assertEqual(self.assertMiss(url).status_code, 404)


class WholeSiteInRedisTests(WholeSiteTestCase):
    """What Redis holds of the whole site: database 1, and keys that begin with `site`."""

    def test_the_key_of_a_page_is_its_url(self):
        for url in WHOLE_SITE:
            self.empty_caches()

            self.client.get(url)

            with self.subTest(url):
                self.assertEqual(self.pages("site"), [f"site:1:page:http://testserver{url}"])

    def test_a_page_lives_for_the_seconds_of_the_settings(self):
        for url in WHOLE_SITE:
            self.empty_caches()

            self.client.get(url)

            with self.subTest(url):
                (key,) = self.pages("site")
                seconds = settings.CACHE_MIDDLEWARE_SECONDS
                self.assertLessEqual(seconds - 5, self.ttl("site", key))
                self.assertLessEqual(self.ttl("site", key), seconds)

    def test_every_key_has_a_timeout(self):
        for url in WHOLE_SITE:
            self.client.get(url)

        for key in self.keys("site"):
            with self.subTest(key):
                self.assertGreater(self.ttl("site", key), 0)

    def test_the_other_levels_cache_nothing_of_it(self):
        self.empty_caches()

        for url in WHOLE_SITE:
            self.client.get(url)

        for level in ("view", "fragment", "low-level"):
            with self.subTest(level):
                self.assertEqual(self.keys(level), [])

    def test_a_hit_is_one_round_trip_to_redis(self):
        for url in WHOLE_SITE:
            self.client.get(url)

            with self.commands() as commands:
                self.assertHit(url)

            with self.subTest(url):
                self.assertEqual(commands, {"mget": 1})

    def test_a_missing_page_is_not_stored(self):
        for url in ("/tags/nonsense/", "/?page=99", "/posts/?page=2", "/nonsense/"):
            with self.subTest(url):
                self.assertEqual(self.client.get(url).status_code, 404)
                self.assertEqual(self.pages("site"), [])
