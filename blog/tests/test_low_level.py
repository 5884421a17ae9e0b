"""Level 4, the low-level cache API: /search/?q=."""

from concurrent.futures import ThreadPoolExecutor
from unittest import mock

from django.core.cache import cache

from blog import caching, search
from blog.models import Post
from blog.tests import CacheTestCase

RESULTS = "*:search:results:*"


class SearchCacheTests(CacheTestCase):
    """What search keeps, under which keys, and for how long."""

    url = "/search/?q=hashes"

    def setUp(self):
        super().setUp()
        self.keys_post = self.make_post("keys", body="Keys name values. Hashes too.")
        self.hashes = self.make_post("hashes", body="Hashes have fields.")
        self.lists = self.make_post("lists", body="Lists have ends.")

    def key(self, pattern):
        """Return the one key of this level that looks like `pattern`."""
        (key,) = self.keys("low-level", pattern)
        return key

    def slugs(self, response, name="results"):
        return [card["slug"] for card in response.context[name]]

    # get_or_build: the index

    def test_the_index_is_built_once_for_all_queries(self):
        with mock.patch("blog.search.build_index", side_effect=search.build_index) as build_index:
            for query in ("hashes", "lists", "nonsense"):
                self.client.get("/search/", {"q": query})

        build_index.assert_called_once()

    def test_the_index_lives_for_ten_minutes(self):
        self.client.get(self.url)

        ttl = self.ttl("low-level", self.key("*:search:index"))
        self.assertEqual(caching.SEARCH_INDEX_TIMEOUT, 600)
        self.assertLessEqual(595, ttl)
        self.assertLessEqual(ttl, 600)

    # get, touch: the results

    def test_a_hit_searches_nothing(self):
        first = self.client.get(self.url)

        with mock.patch("blog.search.best", side_effect=AssertionError), self.assertNumQueries(0):
            second = self.client.get(self.url)

        self.assertEqual(self.slugs(second), self.slugs(first))
        self.assertEqual(self.slugs(second, "related"), self.slugs(first, "related"))

    def test_the_same_words_in_another_order_are_the_same_entry(self):
        self.client.get("/search/?q=hashes+keys")

        self.client.get("/search/?q=Keys,+HASHES!+keys")

        self.assertEqual(len(self.keys("low-level", RESULTS)), 1)

    def test_other_words_are_another_entry(self):
        self.client.get("/search/?q=hashes")

        self.client.get("/search/?q=lists")

        self.assertEqual(len(self.keys("low-level", RESULTS)), 2)

    def test_results_live_for_ten_minutes(self):
        self.client.get(self.url)

        ttl = self.ttl("low-level", self.key(RESULTS))
        self.assertEqual(caching.SEARCH_RESULTS_TIMEOUT, 600)
        self.assertLessEqual(595, ttl)
        self.assertLessEqual(ttl, 600)

    def test_a_hit_gives_the_results_no_more_time(self):
        self.client.get(self.url)
        self.redis("low-level").expire(self.key(RESULTS), 20)

        self.client.get(self.url)

        self.assertLessEqual(self.ttl("low-level", self.key(RESULTS)), 20)

    def test_an_index_that_is_used_has_its_whole_time_again(self):
        self.client.get(self.url)
        self.redis("low-level").expire(self.key("*:search:index"), 20)

        self.client.get("/search/?q=lists")

        self.assertGreater(self.ttl("low-level", self.key("*:search:index")), 590)

    def test_results_that_expired_are_found_again(self):
        self.client.get(self.url)
        self.redis("low-level").delete(self.key(RESULTS))

        response = self.client.get(self.url)

        self.assertEqual(self.slugs(response)[0], "hashes")
        self.assertEqual(len(self.keys("low-level", RESULTS)), 1)

    def test_results_are_plain_values_and_no_models(self):
        self.client.get(self.url)

        key = self.key(RESULTS).partition(":search:")[2]
        version = caching.version(caching.SEARCH_GENERATION_KEY)
        _, answer = cache.get(f"search:{key}", version=version)
        self.assertEqual({type(card) for card in answer["results"] + answer["related"]}, {dict})

    # An empty result told from a miss

    def test_an_empty_result_is_stored(self):
        self.client.get("/search/?q=nonsense")

        self.assertEqual(len(self.keys("low-level", RESULTS)), 1)

    def test_a_stored_empty_result_is_a_hit(self):
        self.client.get("/search/?q=nonsense")

        with mock.patch("blog.search.best", side_effect=AssertionError), self.assertNumQueries(0):
            response = self.client.get("/search/?q=nonsense")

        self.assertEqual(self.slugs(response), [])

    # version=: keys that an invalidation makes unreachable

    def test_index_results_and_comment_counts_have_their_generation_in_their_keys(self):
        self.client.get(self.url)

        search, comments = caching.SEARCH_GENERATION_KEY, caching.COMMENTS_GENERATION_KEY
        counts = f"*:comments:{self.hashes.pk}"
        for pattern, name in (("*:search:index", search), (RESULTS, search), (counts, comments)):
            with self.subTest(pattern):
                self.assertIn(f".{caching.version(name)}:", self.key(pattern))

    def test_a_comment_leaves_the_index_alone(self):
        self.client.get(self.url)
        before = self.keys("low-level", "*:search:index")

        with self.commit():
            self.make_comment(self.hashes)
        self.client.get("/search/?q=lists")

        self.assertEqual(self.keys("low-level", "*:search:index"), before)

    def test_a_new_generation_makes_all_of_them_unreachable_and_deletes_none(self):
        self.client.get(self.url)
        before = set(self.keys("low-level", "*.[0-9]*:search:index"))

        with self.commit():
            self.hashes.save()
        with mock.patch("blog.search.build_index", side_effect=search.build_index) as build_index:
            self.client.get(self.url)

        build_index.assert_called_once()
        self.assertLess(before, set(self.keys("low-level", "*.[0-9]*:search:index")))

    def test_a_generation_that_was_evicted_is_a_new_one(self):
        self.client.get(self.url)
        before = caching.version(caching.SEARCH_GENERATION_KEY)

        self.redis("low-level").delete(self.key("*:search:generation"))

        self.assertGreater(caching.version(caching.SEARCH_GENERATION_KEY), before)
        self.assertEqual(self.slugs(self.client.get(self.url))[0], "hashes")

    # get_many and set_many: comment counts

    def test_comment_counts_of_all_results_are_one_command(self):
        for number in range(10):
            self.make_post(f"hashes-{number}", body="Hashes.")
        self.client.get(self.url)

        with self.commands() as commands:
            response = self.client.get(self.url)

        self.assertGreater(len(self.slugs(response)), 10)
        self.assertEqual(commands["mget"], 1)

    def test_counts_that_are_missing_are_one_query(self):
        self.make_comment(self.hashes)
        self.client.get(self.url)
        self.redis("low-level").delete(self.key(f"*:comments:{self.hashes.pk}"))

        with self.assertNumQueries(1):
            response = self.client.get(self.url)

        counts = {card["slug"]: card["comments"] for card in response.context["results"]}
        self.assertEqual(counts, {"hashes": 1, "keys": 0})

    def test_a_post_without_comments_is_stored_as_zero(self):
        self.client.get(self.url)

        with self.assertNumQueries(0):
            self.client.get(self.url)

        version = caching.version(caching.COMMENTS_GENERATION_KEY)
        self.assertEqual(cache.get(f"comments:{self.hashes.pk}", version=version), 0)

    # add and incr: counters

    def test_each_search_is_counted(self):
        for number in (1, 2, 3):
            response = self.client.get(self.url)

            self.assertEqual(response.context["searches"], number)
            self.assertContains(response, number)

    def test_a_counter_is_added_to_by_redis_itself(self):
        # Not read, added to and written back, where two processes lose one of two.
        self.client.get(self.url)

        with self.commands() as commands:
            self.client.get(self.url)

        self.assertEqual(commands["incrby"], 1)

    def test_no_count_is_lost_between_threads(self):
        with ThreadPoolExecutor(8) as pool:
            numbers = list(pool.map(lambda _: search.count_up("test:counter", 60), range(200)))

        self.assertEqual(sorted(numbers), list(range(1, 201)))

    def test_a_counter_has_a_timeout_that_counting_does_not_prolong(self):
        search.count_up("test:counter", 60)
        (key,) = self.keys("low-level", "*:test:counter")
        self.redis("low-level").expire(key, 20)

        self.assertEqual(search.count_up("test:counter", 60), 2)

        self.assertLessEqual(self.ttl("low-level", key), 20)

    def test_a_counter_that_expired_in_between_is_zero(self):
        def expired(*args, **kwargs):
            self.redis("low-level").delete(*self.keys("low-level", "*:test:counter"))
            raise ValueError("Key not found")

        with mock.patch.object(cache, "incr", expired):
            self.assertEqual(search.count_up("test:counter", 60), 0)

    def test_nothing_is_stored_for_ever(self):
        self.client.get(self.url)
        self.client.get("/search/?q=nonsense")

        for key in self.keys("low-level"):
            with self.subTest(key):
                self.assertGreater(self.ttl("low-level", key), 0)

    # The page

    def test_all_keys_have_the_prefix_low_level(self):
        self.client.get(self.url)

        self.assertGreater(len(self.keys("low-level")), 4)
        for key in self.keys("low-level"):
            with self.subTest(key):
                self.assertTrue(key.startswith("low-level:"))

    def test_no_other_level_keeps_anything_of_it(self):
        self.client.get(self.url)

        for level in ("site", "view", "fragment"):
            with self.subTest(level):
                self.assertEqual(self.keys(level), [])

    def test_a_search_for_nothing_asks_neither_redis_nor_the_database(self):
        for url in ("/search/", "/search/?q=", "/search/?q=+"):
            with self.subTest(url), self.commands() as commands, self.assertNumQueries(0):
                self.assertEqual(self.client.get(url).status_code, 200)

            self.assertEqual(commands, {})


class SearchTests(CacheTestCase):
    """What is found."""

    def setUp(self):
        super().setUp()
        self.make_post("keys", title="Keys", body="Keys name values.")
        self.make_post("names", title="Names", body="A name is no address. Keys have names.")
        self.make_post("eviction", title="Eviction", body="What goes first.")

    def find(self, query):
        return self.client.get("/search/", {"q": query})

    def slugs(self, response, name="results"):
        return [card["slug"] for card in response.context[name]]

    def test_the_best_match_comes_first(self):
        self.assertEqual(self.slugs(self.find("keys")), ["keys", "names"])

    def test_the_page_links_to_what_was_found(self):
        self.assertContains(self.find("eviction"), 'href="/posts/eviction/"')

    def test_case_and_punctuation_do_not_matter(self):
        self.assertEqual(self.slugs(self.find("EVICTION?!")), ["eviction"])

    def test_a_rare_word_counts_for_more_than_a_common_one(self):
        self.make_post("common", title="Common", body="Keys keys keys keys.")

        self.assertEqual(self.slugs(self.find("keys eviction"))[0], "eviction")

    def test_the_newer_post_comes_first_among_equals(self):
        self.make_post("twin-1", title="Twin", summary="Same.", body="Same.")
        self.make_post("twin-2", title="Twin", summary="Same.", body="Same.")

        self.assertEqual(self.slugs(self.find("twin")), ["twin-2", "twin-1"])

    def test_related_posts_share_words_with_the_best_match_but_are_not_it(self):
        related = self.slugs(self.find("keys"), "related")

        self.assertIn("names", related)
        self.assertNotIn("keys", related)

    def test_drafts_are_not_found(self):
        self.make_post("draft", title="Unfinished", published_at=None)

        self.assertEqual(self.slugs(self.find("unfinished")), [])

    def test_nothing_found_says_so_with_200(self):
        response = self.find("nonsense")

        self.assertEqual(response.status_code, 200)
        self.assertEqual(self.slugs(response), [])

    def test_the_query_is_shown_escaped(self):
        response = self.find("<b>bold</b>")

        self.assertContains(response, "&lt;b&gt;bold&lt;/b&gt;")
        self.assertNotContains(response, "<b>bold</b>")

    def test_at_most_twenty_posts_are_shown(self):
        for number in range(25):
            self.make_post(f"many-{number}", title="Many")

        self.assertEqual(len(self.slugs(self.find("many"))), 20)

    def test_an_empty_blog_has_no_results(self):
        Post.objects.all().delete()

        self.assertEqual(self.slugs(self.find("keys")), [])
