"""Level 2, per view: /posts/<slug>/."""

from unittest import mock

from django.core.cache import caches
from django.test import tag

from blog import caching
from blog.models import Post
from blog.tests import CacheTestCase


class PerViewTestCase(CacheTestCase):
    url = "/posts/keys/"

    @classmethod
    def setUpTestData(cls):
        cls.post = cls.make_post("keys")
        cls.make_comment(cls.post)


@tag("behaviour")
class PerViewTests(PerViewTestCase):
    """`@cache_page(POST_TIMEOUT, cache="view", group="post:{slug}")`, as the post page uses it."""

    def test_the_first_get_is_built_from_the_database(self):
        self.assertContains(self.assertMiss(self.url), self.post.title)

    def test_the_second_get_runs_no_query_and_has_an_age(self):
        self.client.get(self.url)

        self.assertContains(self.assertHit(self.url), self.post.title)

    def test_the_second_get_is_byte_for_byte_the_first(self):
        first = self.client.get(self.url)

        self.assertEqual(self.assertHit(self.url).content, first.content)

    def test_a_hit_renders_no_markdown(self):
        self.client.get(self.url)

        with mock.patch.object(Post, "body_html", side_effect=AssertionError):
            self.assertHit(self.url)

    def test_an_expired_page_is_built_again(self):
        self.client.get(self.url)

        caches["view"].clear()

        self.assertMiss(self.url)
        self.assertHit(self.url)

    def test_each_post_is_an_entry_of_its_own(self):
        self.make_post("hashes")

        self.client.get(self.url)
        self.client.get("/posts/hashes/")

        self.assertContains(self.assertHit("/posts/hashes/"), "About hashes")
        self.assertContains(self.assertHit(self.url), "About keys")

    def test_a_missing_post_is_404_each_time(self):
        self.make_post("draft", published_at=None)

        for slug in ("draft", "nonsense"):
            for _ in range(2):
                with self.subTest(slug):
                    self.assertEqual(self.assertMiss(f"/posts/{slug}/").status_code, 404)

    def test_the_comment_form_is_another_page_that_is_never_cached(self):
        response = self.client.get(self.url)
        self.assertContains(response, f'href="{self.url}comment/"')
        self.assertNotContains(response, "csrfmiddlewaretoken")

        for _ in range(2):
            self.assertContains(self.assertMiss(f"{self.url}comment/"), "csrfmiddlewaretoken")


class PerViewInRedisTests(PerViewTestCase):
    """What Redis holds of the posts: database 2, and keys that begin with `view`."""

    def test_the_key_of_a_page_is_its_url(self):
        self.client.get(self.url)

        self.assertEqual(self.pages("view"), [f"view:1:page:http://testserver{self.url}"])

    def test_the_other_levels_cache_nothing_of_it(self):
        self.client.get(self.url)
        self.client.get(self.url)

        for level in ("site", "fragment", "low-level"):
            with self.subTest(level):
                self.assertEqual(self.keys(level), [])

    def test_a_page_lives_for_the_timeout_of_the_decorator(self):
        self.client.get(self.url)

        (key,) = self.pages("view")
        self.assertEqual(caching.POST_TIMEOUT, 300)
        self.assertLessEqual(295, self.ttl("view", key))
        self.assertLessEqual(self.ttl("view", key), 300)

    def test_every_key_has_a_timeout(self):
        self.client.get(self.url)

        for key in self.keys("view"):
            with self.subTest(key):
                self.assertGreater(self.ttl("view", key), 0)

    def test_a_hit_is_one_round_trip_to_redis(self):
        self.client.get(self.url)

        with self.commands() as commands:
            self.assertHit(self.url)

        self.assertEqual(commands, {"mget": 1})

    def test_a_missing_post_is_not_stored(self):
        self.make_post("draft", published_at=None)

        for slug in ("draft", "nonsense"):
            with self.subTest(slug):
                self.assertEqual(self.client.get(f"/posts/{slug}/").status_code, 404)
                self.assertEqual(self.pages("view"), [])

    def test_the_comment_form_stores_nothing(self):
        self.client.get(f"{self.url}comment/")

        self.assertEqual(self.stored(), {})
