"""Pages and fragments that can be dropped by name: mysite/caches/pages.py."""

import threading
from contextlib import contextmanager
from unittest import mock

from django.core.cache import caches
from django.core.cache.utils import make_template_fragment_key
from django.http import HttpResponse
from django.middleware.cache import FetchFromCacheMiddleware, UpdateCacheMiddleware
from django.template import Context, Template
from django.test import RequestFactory
from django.utils.cache import patch_vary_headers
from django.views.decorators.cache import cache_page
from django_redis.exceptions import ConnectionInterrupted

from blog.tests import CacheTestCase
from mysite.caches.breaker import breaker_of
from mysite.caches.pages import (
    GENERATION_TIMEOUT,
    generation_key,
    new_generations,
    new_token,
    page,
)


class PagesTestCase(CacheTestCase):
    """Django's own middleware around a view that counts how often it is asked."""

    def setUp(self):
        super().setUp()
        self.built = 0
        self.before_answer = lambda: None
        self.vary = ()
        self.site = UpdateCacheMiddleware(FetchFromCacheMiddleware(self.view))
        # Connect now, so that the tests count the commands of pages alone.
        for alias in ("site", "view", "template_fragments"):
            caches[alias].get("nothing")
        self.empty_caches()

    def view(self, request):
        self.built += 1
        number = self.built
        self.before_answer()
        response = HttpResponse(f"{request.path} built {number}, {request.headers.get('X', '')}")
        if self.vary:
            patch_vary_headers(response, self.vary)
        return response

    def get(self, path="/a/", generation="g", levels=("site",), method="get", **headers):
        """Request a page of `generation`, which `levels` keep. Return what it says."""
        request = getattr(RequestFactory(), method)(path, headers=headers)
        with page(levels, generation):
            return self.site(request).content.decode()

    def token_key(self, generation="g"):
        """Return the key in Redis of the generation's token."""
        (key,) = self.keys("site", f"*generation:{generation}")
        return key

    @contextmanager
    def refusing(self, *commands):
        """Let Redis refuse these commands, so that one fails and the next does not."""
        redis = self.redis("site")
        forbidden = [f"-{command}" for command in commands]
        redis.acl_setuser("default", enabled=True, nopass=True, commands=forbidden)
        try:
            with mock.patch("mysite.caches.log.logger.warning"):
                yield
        finally:
            redis.acl_setuser("default", enabled=True, nopass=True, categories=["+@all"])
            breaker_of("site").resume_writes()


class HitTests(PagesTestCase):
    """One round trip a hit."""

    def test_the_first_request_is_built_and_the_second_is_not(self):
        self.assertEqual(self.get(), self.get())
        self.assertEqual(self.built, 1)

    def test_a_hit_is_one_mget(self):
        self.get()

        with self.commands() as commands:
            self.get()

        self.assertEqual(commands, {"mget": 1})

    def test_a_miss_looks_twice_and_sets_token_right_header_list_and_page(self):
        with self.commands() as commands:
            self.get()

        self.assertEqual((commands["mget"], commands["set"]), (2, 4))

    def test_a_miss_of_a_generation_that_has_a_token_sets_right_header_list_and_page(self):
        self.get("/a/")

        with self.commands() as commands:
            self.get("/b/")

        self.assertEqual((commands["mget"], commands["set"]), (2, 3))

    def test_a_page_of_another_level_costs_nothing(self):
        with self.commands() as commands:
            self.get(levels=["view"])
            self.get(levels=[])

        self.assertEqual(commands, {})

    def test_head_is_answered_from_the_entry_of_get(self):
        first = self.get()

        self.assertEqual(self.get(method="head"), first)

    def test_get_is_not_answered_from_the_entry_of_head(self):
        self.get(method="head")

        self.get()

        self.assertEqual(self.built, 2)

    def test_a_second_head_is_a_hit(self):
        self.get(method="head")

        self.get(method="head")

        self.assertEqual(self.built, 1)

    def test_the_entry_of_head_is_dropped_too(self):
        self.get(method="head")

        new_generations("site", ["g"])
        self.get(method="head")

        self.assertEqual(self.built, 2)


class VaryTests(PagesTestCase):
    """Pages that depend on headers: the guessed key is wrong, and nothing else is."""

    def setUp(self):
        super().setUp()
        self.vary = ("X",)

    def test_each_value_has_its_entry(self):
        one, other = self.get(X="one"), self.get(X="other")

        self.assertEqual((self.get(X="one"), self.get(X="other")), (one, other))
        self.assertEqual(self.built, 2)

    def test_a_hit_is_one_round_trip_more(self):
        self.get(X="one")

        with self.commands() as commands:
            self.get(X="one")

        self.assertEqual(commands, {"mget": 1, "get": 1})

    def test_all_of_them_are_dropped_together(self):
        self.get(X="one")
        self.get(X="other")

        new_generations("site", ["g"])

        self.get(X="one")
        self.get(X="other")
        self.assertEqual(self.built, 4)

    def test_a_page_that_begins_to_vary_is_not_served_from_before(self):
        self.vary = ()
        self.get(X="one")
        new_generations("site", ["g"])
        self.vary = ("X",)
        self.get(X="other")

        self.assertIn("one", self.get(X="one"))


class GenerationTests(PagesTestCase):
    """An entry counts only while its token is the current one."""

    def test_a_new_generation_drops_its_pages(self):
        for path in ("/a/", "/b/"):
            self.get(path)

        new_generations("site", ["g"])

        self.assertIn("built 3", self.get("/a/"))
        self.assertIn("built 4", self.get("/b/"))

    def test_pages_of_other_generations_stay(self):
        self.get("/a/", "g")
        other = self.get("/b/", "h")

        new_generations("site", ["g"])

        self.assertEqual(self.get("/b/", "h"), other)

    def test_the_same_name_at_another_level_is_another_generation(self):
        first = self.get()

        new_generations("view", ["g"])

        self.assertEqual(self.get(), first)

    def test_a_page_that_moved_to_another_generation_is_built_again(self):
        self.get("/a/", "g")

        self.get("/a/", "h")

        self.assertEqual(self.built, 2)

    def test_a_token_that_was_evicted_matches_no_page(self):
        self.get()

        self.redis("site").delete(self.token_key())
        self.get()

        self.assertEqual(self.built, 2)

    def test_a_token_that_was_evicted_does_not_come_back(self):
        self.get("/a/")
        self.get("/b/")
        self.redis("site").delete(self.token_key())

        self.get("/a/")

        self.assertIn("built 4", self.get("/b/"))

    def test_no_token_and_an_entry_without_one_are_no_match(self):
        self.get()
        (key,) = self.pages("site")
        entry = (None, HttpResponse("forged"))
        caches["site"].set(key.split(":", 2)[2], entry)
        self.redis("site").delete(self.token_key())

        self.assertNotIn("forged", self.get())

    def test_an_entry_with_another_token_is_not_served(self):
        self.get()
        (key,) = self.pages("site")
        for token in (0, 1, True, "1", b"1", new_token(), [1], ()):
            caches["site"].set(key.split(":", 2)[2], (token, HttpResponse("forged")))

            with self.subTest(token):
                self.assertNotIn("forged", self.get())

    def test_an_entry_of_another_shape_is_a_miss(self):
        self.get()
        (key,) = self.pages("site")
        for entry in (HttpResponse("forged"), "forged", ("forged",), {"forged": 1}, 7, []):
            caches["site"].set(key.split(":", 2)[2], entry)

            with self.subTest(type(entry).__name__):
                self.assertIn("built", self.get())

    def test_an_entry_that_cannot_be_read_is_a_miss(self):
        self.get()
        (key,) = self.pages("site")
        self.redis("site").set(key, b"\x80\x04garbage")

        with mock.patch("mysite.caches.log.logger.warning"):
            self.assertIn("built 2", self.get())

    def test_a_header_list_of_another_shape_is_a_miss(self):
        self.get()
        (key,) = self.keys("site", "*cache_header*")
        for headers in ("HTTP_COOKIE", [1], {"a": 1}, 7, None):
            caches["site"].set(key.split(":", 2)[2], headers)

            with self.subTest(headers):
                self.assertIn("built", self.get())

    def test_tokens_are_never_used_twice(self):
        self.assertEqual(len({new_token() for _ in range(1000)}), 1000)

    def test_a_token_outlives_every_page(self):
        self.get()
        new_generations("site", ["h"])

        for name in ("g", "h"):
            with self.subTest(name):
                ttl = self.ttl("site", self.token_key(name))
                self.assertLessEqual(GENERATION_TIMEOUT - 5, ttl)
        self.assertGreater(GENERATION_TIMEOUT, 24 * 60 * 60)


class NewGenerationsTests(PagesTestCase):
    """Invalidation itself."""

    def test_it_is_one_round_trip_for_any_number_of_names(self):
        names = [f"name-{number}" for number in range(100)]

        with self.commands() as commands:
            new_generations("site", names)

        self.assertEqual(commands, {"multi": 1, "set": 100, "exec": 1})

    def test_it_deletes_no_page(self):
        self.get()
        pages = self.pages("site")

        new_generations("site", ["g"])

        self.assertEqual(self.pages("site"), pages)

    def test_a_redis_that_refuses_to_store_deletes_the_token(self):
        self.get()
        redis = self.redis("site")
        self.addCleanup(redis.config_set, "maxmemory", redis.config_get("maxmemory")["maxmemory"])
        self.addCleanup(redis.config_set, "maxmemory-policy", "volatile-lru")
        redis.config_set("maxmemory-policy", "noeviction")
        redis.config_set("maxmemory", 1)

        with mock.patch("mysite.caches.log.logger.warning"):
            new_generations("site", ["g"])

            self.assertEqual(self.keys("site", "*generation:g"), [])
            self.assertIn("built 2", self.get())

    def test_it_raises_when_redis_did_neither(self):
        with self.refusing("set", "del"), self.assertRaises(ConnectionInterrupted):
            new_generations("site", ["g"])


class SlowReaderTests(PagesTestCase):
    """A page whose building began before an invalidation is never served after it."""

    def meanwhile(self, happens):
        """Let something happen once, while the next page is being built."""

        def once():
            self.before_answer = lambda: None
            happens()

        self.before_answer = once

    def test_of_a_generation_that_has_a_token(self):
        self.get("/other/")
        self.meanwhile(lambda: new_generations("site", ["g"]))

        self.assertIn("built 2", self.get())
        self.assertIn("built 3", self.get())

    def test_of_a_generation_that_has_none_yet(self):
        self.meanwhile(lambda: new_generations("site", ["g"]))

        self.assertIn("built 1", self.get())
        self.assertIn("built 2", self.get())

    def test_whose_token_was_evicted_in_between(self):
        self.get("/other/")
        self.meanwhile(lambda: self.redis("site").delete(self.token_key()))

        self.assertIn("built 2", self.get())
        self.assertIn("built 3", self.get())

    def test_whose_token_was_evicted_and_set_anew_in_between(self):
        def evicted_and_invalidated():
            self.redis("site").delete(self.token_key())
            new_generations("site", ["g"])

        self.get("/other/")
        self.meanwhile(evicted_and_invalidated)

        self.assertIn("built 2", self.get())
        self.assertIn("built 3", self.get())

    def test_two_readers_of_a_new_generation_agree_on_one_token(self):
        # The inner one is first to store, and sets the token.
        self.meanwhile(lambda: self.get("/b/"))

        self.get("/a/")

        self.assertIn("built 2", self.get("/b/"))
        self.assertEqual(self.get("/a/"), self.get("/a/"))

    def test_an_invalidation_of_something_else_does_not_matter(self):
        self.meanwhile(lambda: new_generations("site", ["h"]))

        self.assertEqual(self.get(), self.get())


class FailedLookupTests(PagesTestCase):
    """When Redis did not say which token is current, nothing is stored."""

    def test_the_page_is_built(self):
        with self.refusing("mget"):
            self.assertIn("built 1", self.get())

    def test_nothing_is_stored(self):
        with self.refusing("mget"):
            self.get()

        self.assertEqual(self.keys("site"), [])

    def test_it_is_kept_again_when_redis_answers(self):
        with self.refusing("mget"):
            self.get()

        self.assertEqual(self.get(), self.get())

    def test_a_page_that_could_not_be_stored_is_built_again(self):
        with self.refusing("set"):
            self.get()

        self.assertEqual(self.keys("site"), [])
        self.assertIn("built 2", self.get())


class OwnerTests(PagesTestCase):
    """Only the levels that own a page keep it."""

    def test_only_the_pages_level_keeps_it(self):
        self.get(levels=["view"])

        self.assertEqual(self.keys("site"), [])

    def test_a_page_of_no_level_is_kept_nowhere(self):
        self.get(levels=[])

        self.assertEqual(self.keys("site"), [])

    def test_an_entry_is_not_served_to_a_request_that_another_level_owns(self):
        self.get()

        self.get(levels=["view"])

        self.assertEqual(self.built, 2)

    def test_of_two_levels_around_a_page_one_keeps_it(self):
        inner = cache_page(60, cache="view")(self.view)
        for level, other in (("view", "site"), ("site", "view")):
            self.empty_caches()
            self.site = UpdateCacheMiddleware(FetchFromCacheMiddleware(inner))

            self.assertEqual(self.get(levels=[level]), self.get(levels=[level]))

            with self.subTest(level):
                self.assertEqual(len(self.pages(level)), 1)
                self.assertEqual(self.keys(other), [])

    def test_a_page_that_sets_a_cookie_is_not_stored(self):
        def view(request):
            response = self.view(request)
            response.set_cookie("whose", "mine")
            return response

        self.site = UpdateCacheMiddleware(FetchFromCacheMiddleware(view))

        self.get()

        self.assertEqual(self.pages("site"), [])

    def test_a_page_within_a_page_leaves_the_outer_one_alone(self):
        self.before_answer = lambda: self.get("/inner/", "h") if self.built == 1 else None

        outer = self.get("/outer/", "g")

        self.assertEqual(self.get("/outer/", "g"), outer)
        new_generations("site", ["h"])
        self.assertEqual(self.get("/outer/", "g"), outer)

    def test_each_thread_has_a_page_of_its_own(self):
        inside, done = threading.Event(), threading.Event()

        def other():
            with page(["site"], "h"):
                inside.set()
                done.wait(10)

        thread = threading.Thread(target=other)
        with page(["site"], "g"):
            thread.start()
            inside.wait(10)
        first = self.get("/a/", "g")
        done.set()
        thread.join(10)

        new_generations("site", ["h"])
        self.assertEqual(self.get("/a/", "g"), first)

    def test_other_keys_are_plain_keys(self):
        cache = caches["site"]
        with page(["site"], "g"):
            cache.set("key", "value")

            self.assertEqual(cache.get("key"), "value")
        self.assertEqual(cache.get("key"), "value")
        self.assertEqual(cache.get_many(["key"]), {"key": "value"})

    def test_outside_of_any_page_the_middleware_works_as_django_has_it(self):
        first = self.site(RequestFactory().get("/a/")).content

        self.assertEqual(self.site(RequestFactory().get("/a/")).content, first)
        self.assertEqual(self.keys("site", "*generation:*"), [])


class TwoLevelsTests(PagesTestCase):
    """A page that both page levels keep, each with a token of its own."""

    def setUp(self):
        super().setUp()
        inner = cache_page(300, cache="view")(self.view)
        self.site = UpdateCacheMiddleware(FetchFromCacheMiddleware(inner))

    def get(self, path="/a/"):
        return super().get(path, levels=["site", "view"])

    def test_a_page_that_neither_has_is_stored_in_both(self):
        self.get()

        for level in ("site", "view"):
            with self.subTest(level):
                self.assertEqual(len(self.pages(level)), 1)

    def test_the_inner_max_age_is_the_timeout_of_the_outer(self):
        self.get()

        (key,) = self.pages("site")
        self.assertGreater(self.ttl("site", key), 290)

    def test_the_outer_answers_and_the_inner_is_not_asked(self):
        self.get()

        with self.commands() as commands:
            self.get()

        self.assertEqual(commands, {"mget": 1})
        self.assertEqual(self.built, 1)

    def test_a_new_generation_of_the_outer_lets_the_inner_answer(self):
        first = self.get()
        new_generations("site", ["g"])

        self.assertEqual(self.get(), first)
        self.assertEqual(self.built, 1)

    def test_what_the_inner_answers_does_not_refill_the_outer(self):
        self.get()
        self.redis("site").delete(*self.pages("site"))

        self.get()
        self.get()

        self.assertEqual(self.pages("site"), [])

    def test_a_new_generation_of_the_inner_is_not_seen_behind_the_outer(self):
        first = self.get()

        new_generations("view", ["g"])

        self.assertEqual(self.get(), first)

    def test_a_new_generation_of_both_builds_the_page_again(self):
        self.get()

        new_generations("view", ["g"])
        new_generations("site", ["g"])

        self.assertIn("built 2", self.get())
        self.assertIn("built 2", self.get())


class FragmentTests(PagesTestCase):
    """A fragment that was deleted can't be put back by a slow reader."""

    template = Template("{% load cache %}{% cache 60 name %}{{ value }}{% endcache %}")
    key = make_template_fragment_key("name")

    def setUp(self):
        super().setUp()
        self.cache = caches["template_fragments"]

    def render(self, value):
        with page():
            return self.template.render(Context({"value": value}))

    def test_a_hit_is_one_mget(self):
        self.render("first")

        with self.commands() as commands:
            self.assertEqual(self.render("second"), "first")

        self.assertEqual(commands, {"mget": 1})

    def test_a_miss_looks_twice_and_sets_token_right_and_value(self):
        with self.commands() as commands:
            self.render("first")

        self.assertEqual((commands["mget"], commands["set"]), (2, 3))

    def test_delete_and_delete_many_delete(self):
        for delete in (self.cache.delete, lambda key: self.cache.delete_many([key])):
            self.render("first")
            delete(self.key)

            self.assertEqual(self.render("second"), "second")
            delete(self.key)

    def test_a_fragment_deleted_while_it_is_rendered_is_not_put_back(self):
        def value():
            with page():  # Somebody else's request.
                self.cache.delete(self.key)
            return "old"

        self.assertEqual(self.render(value), "old")

        self.assertEqual(self.render("new"), "new")
        self.assertEqual(self.render("newer"), "new")

    def test_neither_is_one_that_had_been_deleted_before(self):
        self.cache.delete(self.key)

        self.test_a_fragment_deleted_while_it_is_rendered_is_not_put_back()

    def test_the_deletion_of_another_fragment_does_not_matter(self):
        def value():
            with page():
                self.cache.delete("another")
            return "first"

        self.render(value)

        self.assertEqual(self.render("second"), "first")

    def test_a_lookup_that_failed_stores_nothing(self):
        with self.refusing("mget"):
            self.assertEqual(self.render("first"), "first")

        self.assertEqual(self.keys("fragment", "*template.cache*"), [])

    def test_outside_of_any_request_it_works_too(self):
        self.assertEqual(self.template.render(Context({"value": "first"})), "first")
        self.assertEqual(self.template.render(Context({"value": "second"})), "first")
        self.cache.delete(self.key)
        self.assertEqual(self.template.render(Context({"value": "third"})), "third")

    def test_a_value_without_a_token_is_a_miss(self):
        redis_key = self.cache.make_key(self.key)
        caches["default"].set("forged", "forged")
        (source,) = self.keys("low-level", "*forged")
        for forged in (self.redis("low-level").get(source), b"garbage", b"7"):
            self.redis("fragment").set(redis_key, forged)

            with mock.patch("mysite.caches.log.logger.warning"), self.subTest(forged):
                self.assertEqual(self.render("right"), "right")

    def test_a_token_outlives_every_fragment(self):
        self.cache.delete(self.key)

        (key,) = self.keys("fragment", f"*{generation_key(self.key)}")
        self.assertLessEqual(GENERATION_TIMEOUT - 5, self.ttl("fragment", key))
