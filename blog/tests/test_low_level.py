"""Level 4, the low-level cache API: /search/?q=."""

from concurrent.futures import ThreadPoolExecutor
from unittest import mock

from django.core.cache import cache
from django.test import tag

from blog import caching, limits, search
from blog.models import Post
from blog.tests import CacheTestCase
from resilient_cache.groups import version

ANSWERS = "low-level:*:search:answer:*"
INDEX = "low-level:*:search:index"


class SearchTestCase(CacheTestCase):
    url = "/search/?q=hashes"

    @classmethod
    def setUpTestData(cls):
        cls.make_post("keys", body="Keys name values. Hashes too.")
        cls.hashes = cls.make_post("hashes", body="Hashes have fields.")
        cls.make_post("lists", body="Lists have ends.")

    def slugs(self, response, name="results"):
        return [card["slug"] for card in response.context[name]]


@tag("behaviour")
class SearchCacheTests(SearchTestCase):
    """cache.get, set, get_or_set, get_many, set_many, add, incr and touch, as search uses them."""

    # get_or_set: the index

    def test_the_index_is_built_once_for_all_questions(self):
        with mock.patch("blog.search.build_index", side_effect=search.build_index) as build_index:
            for query in ("hashes", "lists", "nonsense"):
                self.client.get("/search/", {"q": query})

        build_index.assert_called_once()

    # get and set: the answers

    def test_a_hit_searches_nothing(self):
        first = self.client.get(self.url)

        with mock.patch("blog.search.best", side_effect=AssertionError), self.assertNoQueries():
            second = self.client.get(self.url)

        self.assertEqual(self.slugs(second), self.slugs(first))
        self.assertEqual(self.slugs(second, "related"), self.slugs(first, "related"))

    def test_the_same_words_in_another_order_are_a_hit(self):
        self.client.get("/search/?q=hashes+keys")

        with mock.patch("blog.search.best", side_effect=AssertionError):
            self.client.get("/search/?q=Keys,+HASHES!+keys")

    def test_other_words_are_another_answer(self):
        hashes = self.client.get("/search/?q=fields")
        lists = self.client.get("/search/?q=ends")

        self.assertEqual([self.slugs(hashes), self.slugs(lists)], [["hashes"], ["lists"]])

    def test_an_answer_is_made_of_plain_values(self):
        self.client.get(self.url)

        with mock.patch.object(search, "find", side_effect=AssertionError):
            answer = self.client.get(self.url).context
        self.assertEqual({type(card) for card in answer["results"] + answer["related"]}, {dict})

    # None is an answer: a sentinel tells it from a miss

    def test_an_empty_answer_is_a_hit(self):
        self.client.get("/search/?q=nonsense")

        with mock.patch("blog.search.find", side_effect=AssertionError), self.assertNoQueries():
            response = self.client.get("/search/?q=nonsense")

        self.assertEqual(self.slugs(response), [])

    # version=: an invalidation leads to other keys

    def test_a_new_version_of_the_posts_builds_the_index_again(self):
        self.client.get(self.url)

        with self.commit():
            self.hashes.save()
        with mock.patch("blog.search.build_index", side_effect=search.build_index) as build_index:
            self.client.get(self.url)

        build_index.assert_called_once()

    def test_a_comment_leaves_the_answer_cached_and_changes_the_count(self):
        self.client.get(self.url)
        self.make_comment(self.hashes)

        with mock.patch("blog.search.find", side_effect=AssertionError):
            response = self.client.get(self.url)

        self.assertEqual(response.context["results"][0]["comments"], 1)

    # get_many and set_many: the comment counts

    def test_missing_counts_are_one_query(self):
        for number in range(10):
            self.make_comment(self.make_post(f"hashes-{number}", body="Hashes."))
        self.client.get(self.url)
        self.make_comment(self.hashes)

        with self.assertNumQueriesOn("blog_comment", 1):
            response = self.client.get(self.url)

        counts = {card["slug"]: card["comments"] for card in response.context["results"]}
        self.assertEqual(len(counts), 12)
        self.assertEqual((counts["hashes"], counts["hashes-3"], counts["keys"]), (1, 1, 0))

    def test_a_post_without_comments_is_cached_as_zero(self):
        self.client.get(self.url)

        with self.assertNoQueries():
            self.client.get(self.url)

        counted = cache.get(f"comments:{self.hashes.pk}", version=version("comments"))
        self.assertEqual(counted, 0)

    # add, incr and touch: counters

    def test_each_search_is_counted(self):
        for number in (1, 2, 3):
            response = self.client.get(self.url)

            self.assertEqual(response.context["searches"], number)
            self.assertContains(response, number)

    def test_a_search_without_words_is_not_counted(self):
        for query in ("7", "!", "a b c"):
            response = self.client.get("/search/", {"q": query})

            self.assertEqual(response.context["searches"], 0)
            self.assertContains(response, "There is no word in this")
            self.assertNotContains(response, "Nothing has these words")

    def test_a_counter_that_expires_between_two_calls_is_zero(self):
        with mock.patch.object(limits, "cache") as cache:
            cache.incr.side_effect = ValueError("Key not found")

            self.assertEqual(limits.count_up("test:counter", 60), 0)


class SearchInRedisTests(SearchTestCase):
    """What Redis holds of the search: database 0, and keys that begin with `low-level`."""

    def key(self, pattern):
        """Return the one key of this level that looks like `pattern`."""
        (key,) = self.keys("low-level", pattern)
        return key

    def test_all_keys_have_the_prefix_low_level(self):
        self.client.get(self.url)

        self.assertGreater(len(self.keys("low-level")), 4)
        for key in self.keys("low-level"):
            with self.subTest(key):
                self.assertTrue(key.startswith("low-level:"))

    def test_the_other_levels_cache_nothing_of_it(self):
        self.client.get(self.url)

        for level in ("site", "view", "fragment"):
            with self.subTest(level):
                self.assertEqual(self.keys(level), [])

    def test_index_answers_and_comment_counts_have_their_version_in_their_keys(self):
        self.client.get(self.url)

        posts, comments = version("posts"), version("comments")
        self.assertEqual(self.key(INDEX), f"low-level:{posts}:search:index")
        self.assertTrue(self.key(ANSWERS).startswith(f"low-level:{posts}:search:answer:"))
        self.key(f"low-level:{comments}:comments:{self.hashes.pk}")

    def test_index_and_answers_live_for_ten_minutes(self):
        self.client.get(self.url)

        self.assertEqual(caching.SEARCH_TIMEOUT, 600)
        for pattern in (INDEX, ANSWERS):
            with self.subTest(pattern):
                self.assertLessEqual(595, self.ttl("low-level", self.key(pattern)))
                self.assertLessEqual(self.ttl("low-level", self.key(pattern)), 600)

    def test_a_hit_leaves_the_timeouts_of_index_and_answers_alone(self):
        # Used every minute, they would outlive a change that invalidates nothing, such as raw SQL.
        self.client.get(self.url)
        for pattern in (INDEX, ANSWERS):
            self.redis("low-level").expire(self.key(pattern), 100)

        for query in ("hashes", "lists"):
            self.client.get("/search/", {"q": query})

        for pattern in (INDEX, ANSWERS):
            with self.subTest(pattern):
                ttls = [self.ttl("low-level", key) for key in self.keys("low-level", pattern)]
                self.assertLessEqual(min(ttls), 100)

    def test_an_expired_answer_is_found_again(self):
        self.client.get(self.url)
        self.redis("low-level").delete(self.key(ANSWERS))

        response = self.client.get(self.url)

        self.assertEqual(self.slugs(response)[0], "hashes")
        self.key(ANSWERS)

    def test_an_invalidation_deletes_no_value(self):
        self.client.get(self.url)
        before = set(self.keys("low-level", "low-level:*:search:*"))

        with self.commit():
            self.hashes.save()
        self.client.get(self.url)

        self.assertLess(before, set(self.keys("low-level", "low-level:*:search:*")))

    def test_an_evicted_version_is_replaced_by_another_one(self):
        self.client.get(self.url)
        before = version("posts")

        self.redis("low-level").delete("low-level:1:group:posts")

        self.assertNotEqual(version("posts"), before)
        self.assertEqual(self.slugs(self.client.get(self.url))[0], "hashes")

    def test_comment_counts_of_all_results_are_one_command(self):
        for number in range(10):
            self.make_post(f"hashes-{number}", body="Hashes.")
        self.client.get(self.url)

        with self.commands() as commands:
            response = self.client.get(self.url)

        self.assertGreater(len(self.slugs(response)), 10)
        self.assertEqual(commands["mget"], 1)

    def test_a_counter_is_counted_up_by_redis_itself(self):
        # Two processes that read, add and write back would lose one of two.
        self.client.get(self.url)

        with self.commands() as commands:
            self.client.get(self.url)

        self.assertEqual(commands["incrby"], 1)

    def test_every_call_of_many_threads_is_counted(self):
        with ThreadPoolExecutor(8) as pool:
            numbers = list(pool.map(lambda _: limits.count_up("test:counter", 60), range(200)))

        self.assertEqual(sorted(numbers), list(range(1, 201)))

    def test_counting_does_not_prolong_a_counter(self):
        limits.count_up("test:counter", 60)
        key = "low-level:1:test:counter"
        self.redis("low-level").expire(key, 20)

        self.assertEqual(limits.count_up("test:counter", 60), 2)

        self.assertLessEqual(self.ttl("low-level", key), 20)

    def test_the_count_of_searches_lives_for_an_hour_after_the_last_search(self):
        self.client.get(self.url)
        key = self.key("low-level:1:search:count:*")
        self.redis("low-level").expire(key, 20)

        self.client.get(self.url)

        self.assertGreater(self.ttl("low-level", key), 3590)

    def test_every_key_has_a_timeout(self):
        self.client.get(self.url)
        self.client.get("/search/?q=nonsense")

        for key in self.keys("low-level"):
            with self.subTest(key):
                self.assertGreater(self.ttl("low-level", key), 0)

    def test_a_search_without_words_asks_neither_redis_nor_the_database(self):
        for url in ("/search/", "/search/?q=", "/search/?q=+", "/search/?q=7", "/search/?q=!"):
            with self.subTest(url), self.commands() as commands, self.assertNumQueries(0):
                self.assertEqual(self.client.get(url).status_code, 200)

            self.assertEqual(commands, {})


class SearchTests(CacheTestCase):
    """What the search finds, and in which order."""

    @classmethod
    def setUpTestData(cls):
        cls.make_post("keys", title="Keys", body="Keys name values.")
        cls.make_post("names", title="Names", body="A name is no address. Keys have names.")
        cls.make_post("eviction", title="Eviction", body="What goes first.")

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

    def test_no_word_of_a_long_question_is_ignored(self):
        question = "an article about all best big cats do eat zebras and eviction"

        self.assertEqual(self.slugs(self.find(question))[0], "eviction")

    def test_accents_do_not_matter(self):
        self.make_post("pagina", title="Página", body="Invalidar só uma página, não as outras.")

        for query in ("pagina", "PÁGINA", "so", "não"):
            with self.subTest(query):
                self.assertEqual(self.slugs(self.find(query)), ["pagina"])

    def test_words_in_other_scripts_are_found(self):
        self.make_post("kesh", title="Кэш", body="Кэш хранит страницы.")

        self.assertEqual(self.slugs(self.find("КЭШ")), ["kesh"])

    def test_lessons_come_before_made_up_notes(self):
        note = {"seeded_as": "x", "title": "Eviction", "body": "Eviction eviction eviction."}
        self.make_post("note-1", **note)
        self.make_post(
            "lesson", title="A lesson", body=f"Eviction. {'Other words. ' * 99}", lesson=1
        )

        self.assertEqual(self.slugs(self.find("eviction")), ["eviction", "lesson", "note-1"])

    def test_at_most_twenty_posts_are_shown(self):
        for number in range(25):
            self.make_post(f"many-{number}", title="Many")

        self.assertEqual(len(self.slugs(self.find("many"))), 20)

    def test_an_empty_blog_has_no_results(self):
        Post.objects.all().delete()

        self.assertEqual(self.slugs(self.find("keys")), [])
