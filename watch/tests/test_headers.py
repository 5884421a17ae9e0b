"""The two headers: Cache-Status (RFC 9211) and Server-Timing (W3C)."""

import dataclasses
import json
import re
from unittest import skipUnless

from django.conf import settings
from django.core.cache import cache, caches
from django.http import HttpResponse
from django.test import RequestFactory
from django_redis import get_redis_connection

from watch.conf import config
from watch.event import LOOKUP, Event, Op, recording
from watch.headers import MAX_TIMING, cache_status, server_timing
from watch.tests.case import WatchTestCase, parse_timing
from watch.tests.settings import MIDDLEWARE

try:
    import http_sfv
except ImportError:
    http_sfv = None

HOSTILE = '"\\\r\nSet-Cookie: a=b\r\n\r\n<script>, x;dur=1;desc="é\0'


class CacheStatusTests(WatchTestCase):
    """Each page level that was asked says what it did, the one closest to the view first."""

    def status(self, path, method="get", **headers):
        return getattr(self.client, method)(path, **headers).headers["Cache-Status"]

    def test_a_miss_that_is_stored(self):
        self.assertEqual(self.status("/"), '"django-site"; fwd=uri-miss; stored; ttl=60')

    def test_a_hit(self):
        self.client.get("/")
        for key in self.redis("site").scan_iter(f"{self.name}-*cache_page*"):
            self.redis("site").pexpire(key, 41_900)

        self.assertEqual(self.status("/"), '"django-site"; hit; ttl=41')

    def test_a_hit_for_head(self):
        self.client.get("/")

        self.assertRegex(self.status("/", "head"), r'^"django-site"; hit; ttl=\d+$')

    def test_a_miss_that_redis_did_not_take_is_not_stored(self):
        redis = self.redis("site")
        self.addCleanup(redis.config_set, "maxmemory", 0)
        redis.config_set("maxmemory", 1)  # It is full, and evicts nothing.

        self.assertEqual(self.status("/"), '"django-site"; fwd=uri-miss')

    def test_a_variant_that_is_missing(self):
        self.status("/varies/", headers={"X-Edition": "first"})

        self.assertEqual(
            self.status("/varies/", headers={"X-Edition": "second"}),
            '"django-view"; fwd=vary-miss; stored; ttl=300, '
            '"django-site"; fwd=vary-miss; stored; ttl=300',
        )

    def test_post(self):
        self.assertEqual(self.status("/", "post"), '"django-site"; fwd=method')

    def test_never_cache(self):
        self.assertEqual(self.status("/never/"), '"django-site"; fwd=bypass; detail=never-cache')

    def test_private(self):
        self.assertEqual(self.status("/private/"), '"django-site"; fwd=bypass; detail=private')

    def test_a_cookie_of_its_own(self):
        self.assertEqual(self.status("/cookie/"), '"django-site"; fwd=bypass; detail=cookie')

    def test_redis_down(self):
        self.take_redis_away()

        self.assertEqual(self.status("/"), '"django-site"; fwd=bypass; detail=redis-down')

    def test_the_view_level_comes_first(self):
        self.assertEqual(
            self.status("/view/"),
            '"django-view"; fwd=uri-miss; stored; ttl=300, '
            '"django-site"; fwd=uri-miss; stored; ttl=300',
        )

    def test_a_page_of_the_view_level_that_the_site_level_was_not_asked_for(self):
        with (
            self.modify_settings(MIDDLEWARE={"remove": MIDDLEWARE[1:]}),
            self.settings(WATCH=settings.WATCH | {"SITE_ALIAS": "site"}),
        ):
            status = self.status("/view/")

        self.assertEqual(
            status,
            '"django-view"; fwd=uri-miss; stored; ttl=300, '
            '"django-site"; fwd=bypass; detail=cached-by-view',
        )

    def test_without_a_site_cache_there_is_no_member_for_it(self):
        with self.modify_settings(MIDDLEWARE={"remove": MIDDLEWARE[1:]}):
            response = self.client.get("/")

        self.assertNotIn("Cache-Status", response.headers)

    def test_an_error_page(self):
        self.client.raise_request_exception = False

        self.assertEqual(self.status("/error/"), '"django-site"; fwd=uri-miss')


class CacheEventTests(WatchTestCase):
    """cache_event(): what a cache above redis-py knows and Redis doesn't."""

    def setUp(self):
        super().setUp()
        self.client_of_redis = get_redis_connection("site")
        self.page = self.key("page:http://testserver/", "site")
        self.group = self.key("group:/", "site")
        self.variant = f"{self.page}|0123456789abcdef"

    def status_after(self, *events, stored=True):
        """Return Cache-Status of a request that looks up a page, after these events."""
        if stored:
            self.client_of_redis.mset({self.page: "x", self.group: 1})
        with recording() as event:
            self.client_of_redis.mget(self.page, self.group)
            for what in events:
                self.client_of_redis.cache_event(what, self.page)
            if "varies" in events:
                self.client_of_redis.get(self.variant)
        return cache_status(event, config(), RequestFactory().get("/"), HttpResponse())

    def test_a_page_that_the_cache_accepts_is_a_hit(self):
        self.assertEqual(self.status_after(), '"django-site"; hit')

    def test_a_page_that_is_not_there_is_a_miss(self):
        self.assertEqual(self.status_after(stored=False), '"django-site"; fwd=uri-miss')

    def test_a_page_that_the_cache_refuses_is_a_miss(self):
        self.assertEqual(self.status_after("refused"), '"django-site"; fwd=uri-miss')

    def test_a_page_that_another_request_builds_is_collapsed(self):
        status = self.status_after("refused", "collapsed")

        self.assertEqual(status, '"django-site"; fwd=uri-miss; collapsed')

    def test_a_page_that_varies_is_a_hit_where_its_variant_is_there(self):
        self.client_of_redis.set(self.variant, "the page", ex=60)

        self.assertRegex(self.status_after("varies"), r'^"django-site"; hit; ttl=\d+$')

    def test_a_page_that_varies_is_a_vary_miss_where_its_variant_is_missing(self):
        self.assertEqual(self.status_after("varies"), '"django-site"; fwd=vary-miss')

    def test_a_second_look_is_not_a_lookup(self):
        with recording() as event:
            self.client_of_redis.get(self.page)
            self.client_of_redis.set(self.group, 1)
            self.client_of_redis.mget(self.page, self.group)
            self.client_of_redis.cache_event("again", self.page)

        [answer] = event.answers.values()
        self.assertEqual((answer.hits, answer.misses), (0, 1))

    def test_a_page_that_was_found_and_built_anew_is_a_miss(self):
        self.client_of_redis.mset({self.page: "x", self.group: 1})
        with recording() as event:
            self.client_of_redis.mget(self.page, self.group)
            self.client_of_redis.set(self.page, "the next one", ex=60)

        status = cache_status(event, config(), RequestFactory().get("/"), HttpResponse())
        self.assertEqual(status, '"django-site"; fwd=uri-miss; stored; ttl=60')

    def test_a_value_that_another_request_builds_is_collapsed(self):
        client = get_redis_connection("default")
        with recording() as event:
            client.get(self.key("answer"))
            client.cache_event("collapsed", self.key("answer"))
            client.get(self.key("other"))

        metrics = parse_timing(server_timing(event, config()))
        keys = {desc.split()[1]: desc.split() for name, _, desc in metrics if name == "l"}
        self.assertEqual((keys["answer"][0], keys["answer"][3:]), ("miss", ["collapsed"]))
        self.assertEqual(keys["other"][3:], [])
        [level] = json.loads(event.as_json())["levels"]
        self.assertEqual((level["misses"], level["collapsed"]), (2, 1))

    def test_unknown_words_and_keys_do_nothing(self):
        with recording() as event:
            self.client_of_redis.get(self.page)
            self.client_of_redis.cache_event("unheard-of", self.page)
            self.client_of_redis.cache_event("refused", "another key")
        self.client_of_redis.cache_event("refused", self.page)  # Outside of a request.

        [answer] = event.answers.values()
        self.assertEqual((answer.hits, answer.misses), (0, 1))


class ForeignLevelTests(WatchTestCase):
    """Keys of a level that WATCH does not name."""

    def test_a_level_that_is_not_named_is_not_told(self):
        with recording() as event:
            get_redis_connection("site").get(self.key("answer", "site"))
        others = dataclasses.replace(config(), levels=("view",), site=None)

        names = [name for name, _, _ in parse_timing(server_timing(event, others))]
        self.assertNotIn("site", names)
        self.assertEqual(cache_status(event, others, RequestFactory().get("/"), HttpResponse()), "")


@skipUnless(http_sfv, "http-sfv is not installed: pip install -r requirements-dev.txt")
class StructuredFieldTests(WatchTestCase):
    """Cache-Status as an independent parser of RFC 8941 reads it."""

    def members(self, response):
        header = http_sfv.List()
        header.parse(response.headers["Cache-Status"].encode())
        return [(member.value, dict(member.params)) for member in header]

    def test_a_miss_that_is_stored(self):
        members = self.members(self.client.get("/"))

        self.assertEqual(members, [("django-site", {"fwd": "uri-miss", "stored": True, "ttl": 60})])

    def test_a_hit(self):
        self.client.get("/")

        [(name, parameters)] = self.members(self.client.get("/"))

        self.assertEqual(name, "django-site")
        self.assertIs(parameters["hit"], True)
        self.assertIn(parameters["ttl"], range(55, 61))

    def test_two_levels(self):
        names = [name for name, _ in self.members(self.client.get("/view/"))]

        self.assertEqual(names, ["django-view", "django-site"])

    def test_every_page_has_one_that_parses(self):
        self.client.raise_request_exception = False
        for path in ("/never/", "/private/", "/cookie/", "/error/", "/missing/", "/redirect/"):
            for method in ("get", "head", "post", "put"):
                with self.subTest(path, method=method):
                    response = getattr(self.client, method)(path)

                    [(name, parameters)] = self.members(response)
                    self.assertEqual(name, "django-site")
                    self.assertIsInstance(parameters["fwd"], http_sfv.Token)


class ServerTimingTests(WatchTestCase):
    """One metric a request, a level and a key."""

    def test_the_application_comes_first(self):
        names = [name for name, _, _ in self.timing(self.client.get("/"))]

        self.assertEqual(names[:3], ["app", "req", "site"])

    def test_the_request_has_an_id_and_its_time(self):
        response = self.client.get("/")

        self.assertRegex(self.metric(response, "req"), r"^[0-9a-f]+@\d{10}$")

    def test_two_requests_have_two_ids(self):
        first, second = (self.metric(self.client.get("/"), "req") for _ in range(2))

        self.assertNotEqual(first.partition("@")[0], second.partition("@")[0])

    def test_a_miss(self):
        response = self.client.get("/")

        self.assertRegex(self.metric(response, "site"), r"^miss n=1 ttl=60 b=\d+ at=")

    def test_a_hit(self):
        self.client.get("/")

        response = self.client.get("/")

        self.assertRegex(self.metric(response, "site"), r"^hit n=1 ttl=\d+ b=\d+ at=")

    def test_the_levels_come_from_the_outside_in(self):
        with recording() as event:
            for alias in ("default", "template_fragments", "view", "site"):
                caches[alias].get("a")

        names = [name for name, _, _ in parse_timing(server_timing(event, config()))]

        self.assertEqual(names[2:6], ["site", "view", "fragment", "low-level"])

    def test_a_mixed_level(self):
        cache.set("key-1", 1)

        response = self.client.get("/many/4/")

        self.assertRegex(self.metric(response, "low-level"), r"^1/4 n=4 ttl=\d+ b=\d+$")

    def test_redis_down(self):
        self.take_redis_away()

        response = self.client.get("/low-level/")

        self.assertRegex(self.metric(response, "low-level"), r"^down n=\d ttl=-1 b=0$")
        self.assertIsNone(self.metric(response, "why"))  # "down" says it.

    def test_a_level_that_was_not_asked_has_no_metric(self):
        response = self.client.get("/")

        self.assertIsNone(self.metric(response, "fragment"))

    def test_a_fragment_has_its_key_and_its_line(self):
        response = self.client.get("/fragments/")

        self.assertRegex(
            self.metric(response, "f"),
            r"^miss template\.cache\.hours\.[0-9a-f]{32} fragments\.html:12",
        )

    def test_a_hit_has_the_time_left_and_the_bytes(self):
        self.client.get("/prices/")

        response = self.client.get("/prices/")

        self.assertRegex(
            self.metric(response, "l"), r"^hit price:milk prices\.py:\d+ ttl=\d+ b=\d+$"
        )

    def test_the_watch_tells_its_own_cost(self):
        [cost] = [dur for name, dur, _ in self.timing(self.client.get("/")) if name == "watch"]

        self.assertGreater(cost, 0)

    def test_it_is_2_kb_at_most_and_tells_what_it_left_out(self):
        response = self.client.get("/many/200/")

        header = response.headers["Server-Timing"]
        shown = [name for name, _, _ in self.timing(response)].count("l")
        self.assertLessEqual(len(header), MAX_TIMING)
        self.assertEqual(self.metric(response, "dropped"), str(200 - shown))
        self.assertGreater(shown, 10)

    def test_what_the_view_says_itself_is_kept(self):
        response = self.client.get("/says-it-itself/")

        self.assertEqual([name for name, _, _ in self.timing(response)][:2], ["db", "app"])


class UnprefixedTests(WatchTestCase):
    """A project whose caches have no KEY_PREFIX, and one database each."""

    def setUp(self):
        super().setUp()
        plain = {
            alias: {name: value for name, value in options.items() if name != "KEY_PREFIX"}
            for alias, options in settings.CACHES.items()
        }
        self.change(CACHES=plain, WATCH={"STREAM": self.name})

    def test_a_fragment_is_one_and_says_which_level_it_is_of(self):
        for alias in ("default", "template_fragments"):
            self.addCleanup(caches[alias].delete_pattern, "template.cache.*")

        response = self.client.get("/fragments/")

        words = [desc.split() for name, _, desc in self.timing(response) if name == "f"]
        self.assertEqual(
            [(key.rpartition(".")[0], where) for _, key, _, where in words],
            [
                ("template.cache.months", "in=template_fragments"),
                ("template.cache.days", "in=default"),
                ("template.cache.hours", "in=template_fragments"),
            ],
        )


class InjectionTests(WatchTestCase):
    """No key, path or source line can end a quoted string or begin a header."""

    def test_a_hostile_key(self):
        with recording() as event:
            get_redis_connection("default").get(self.key(HOSTILE))

        header = server_timing(event, config())

        self.assertEqual(
            [name for name, _, _ in parse_timing(header)],
            ["app", "req", "low-level", "watch", "l"],
        )
        self.assertRegex(header, r"^[ -~]*$")

    def test_a_hostile_path(self):
        response = self.client.get("/hostile/%22%5C%0D%0ASet-Cookie:%20a=b%00%3Cscript%3E")

        self.assertRegex(response.headers["Server-Timing"], r"^[ -~]*$")
        self.assertEqual(response.cookies, {})

    def test_a_hostile_source_line(self):
        event = Event("1")
        event.ops = [Op("GET", "low-level", "k", LOOKUP, True, 1, 1, 1, HOSTILE, "")]
        event.sum_up()

        header = server_timing(event, config())

        self.assertEqual(len(parse_timing(header)), 5)

    def test_a_description_has_neither_comma_nor_semicolon(self):
        with recording() as event:
            get_redis_connection("default").get(self.key("a,b;c d"))

        header = server_timing(event, config())

        self.assertIn('desc="miss a%2Cb%3Bc%20d ', header)

    def test_a_long_key_is_cut_in_the_middle(self):
        with recording() as event:
            cache.get("a" * 100 + "b" * 100)

        [key] = re.findall(r', l;dur=[\d.]+;desc="miss ([^ ]+) ', server_timing(event, config()))

        self.assertEqual(len(key), 80)
        self.assertTrue(key.startswith("aaa"))
        self.assertTrue(key.endswith("bbb"))
