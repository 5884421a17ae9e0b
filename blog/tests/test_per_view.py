"""Level 2, per view: /posts/<slug>/."""

from unittest import mock

from blog import caching
from blog.models import Post
from blog.tests import CacheTestCase


class PerViewTests(CacheTestCase):
    """`@cache_page(POST_TIMEOUT, cache="view")`, as the post page uses it."""

    url = "/posts/keys/"

    def setUp(self):
        super().setUp()
        self.post = self.make_post("keys")
        self.make_comment(self.post)

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

    def test_the_entry_has_the_prefix_view(self):
        self.client.get(self.url)

        (key,) = self.pages("view")
        self.assertTrue(key.startswith("view:"))

    def test_the_whole_site_keeps_nothing_of_it(self):
        self.client.get(self.url)
        self.client.get(self.url)

        self.assertEqual(self.keys("site"), [])

    def test_no_finer_level_keeps_anything_of_it(self):
        self.client.get(self.url)

        self.assertEqual(self.keys("fragment"), [])
        self.assertEqual(self.keys("low-level"), [])

    def test_the_time_to_live_is_the_decorators(self):
        self.client.get(self.url)

        (key,) = self.pages("view")
        self.assertEqual(caching.POST_TIMEOUT, 300)
        self.assertLessEqual(295, self.ttl("view", key))
        self.assertLessEqual(self.ttl("view", key), 300)

    def test_nothing_is_stored_for_ever(self):
        self.client.get(self.url)

        for key in self.keys("view"):
            with self.subTest(key):
                self.assertGreater(self.ttl("view", key), 0)

    def test_an_entry_that_expired_is_built_again(self):
        self.client.get(self.url)

        self.redis("view").delete(*self.pages("view"))

        self.assertMiss(self.url)
        self.assertHit(self.url)

    def test_each_post_is_an_entry_of_its_own(self):
        self.make_post("hashes")

        self.client.get(self.url)
        self.client.get("/posts/hashes/")

        self.assertEqual(len(self.pages("view")), 2)
        self.assertContains(self.assertHit("/posts/hashes/"), "About hashes")
        self.assertContains(self.assertHit(self.url), "About keys")

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

    def test_the_comment_form_has_a_page_of_its_own_that_is_not_stored(self):
        response = self.client.get(self.url)
        self.assertContains(response, f'href="{self.url}comment/"')
        self.assertNotContains(response, "csrfmiddlewaretoken")
        self.empty_caches()

        self.client.get(f"{self.url}comment/")

        self.assertEqual(self.stored(), {})
