"""What is read from the settings, and the checks that they are complete."""

from django.test import SimpleTestCase, override_settings

from watch.apps import watch_is_complete
from watch.conf import address, config
from watch.tests.settings import MIDDLEWARE, caches_at

WATCHED = caches_at("redis://a")["default"]["OPTIONS"]


def redis_cache(location, prefix="", **options):
    return {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": location,
        "KEY_PREFIX": prefix,
        "OPTIONS": WATCHED | options,
    }


@override_settings(MIDDLEWARE=MIDDLEWARE, WATCH={})
class ConfigTests(SimpleTestCase):
    """Another project needs the app, one middleware and one option; the rest has defaults."""

    def test_a_level_is_a_watched_alias_under_its_key_prefix(self):
        caches = {
            "default": redis_cache("redis://a/0", "low-level"),
            "pages": redis_cache("redis://a/1"),
            "memory": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        }
        with self.settings(CACHES=caches):
            self.assertEqual(config().levels, ("low-level", "pages"))

    def test_the_level_of_whole_pages_is_the_outermost(self):
        caches = {"default": redis_cache("redis://a/0"), "pages": redis_cache("redis://a/1")}
        with self.settings(CACHES=caches, CACHE_MIDDLEWARE_ALIAS="pages"):
            self.assertEqual(config().levels, ("pages", "default"))

    def test_the_levels_have_their_names_with_the_watch_off_too(self):
        caches = {"default": redis_cache("redis://a/0", "p"), "pages": redis_cache("redis://a/1")}
        with self.settings(CACHES=caches, CACHE_MIDDLEWARE_ALIAS="pages"):
            on = config().titles
        for cache in caches.values():
            del cache["OPTIONS"]["REDIS_CLIENT_CLASS"]

        with self.settings(CACHES=caches, CACHE_MIDDLEWARE_ALIAS="pages"):
            self.assertEqual(config().titles, on)
            self.assertEqual(config().levels, ())

    def test_levels_can_be_named(self):
        caches = {"default": redis_cache("redis://a/0", "x")}
        with self.settings(CACHES=caches, WATCH={"LEVELS": {"default": "everything"}}):
            self.assertEqual(config().levels, ("everything",))

    def test_the_four_levels_have_titles_and_others_keep_their_names(self):
        names = {"default": "low-level", "pages": "mine"}
        caches = {"default": redis_cache("redis://a/0"), "pages": redis_cache("redis://a/1")}
        with self.settings(CACHES=caches, WATCH={"LEVELS": names}):
            self.assertEqual(config().titles, (("low-level", "Low-level"), ("mine", "mine")))

    def test_a_title_can_be_given(self):
        titles = {"default": "Values"}
        with self.settings(CACHES={"default": redis_cache("redis://a")}, WATCH={"TITLES": titles}):
            self.assertEqual(config().title_of("default"), "Values")

    def test_locks_are_bookkeeping_whatever_else_is(self):
        caches = {"default": redis_cache("redis://a")}
        with self.settings(CACHES=caches, WATCH={"ASIDE": ["notes:"], "LOCKS": ["mutex:"]}):
            self.assertEqual(config().aside, ("notes:", "mutex:"))

    def test_the_level_of_a_key_is_that_of_its_prefix(self):
        caches = {
            "default": redis_cache("redis://a/0", "blog"),
            "pages": redis_cache("redis://a/0", "blog:pages"),
        }
        with self.settings(CACHES=caches):
            self.assertEqual(config().level_of("blog:pages:1:x", None), "blog:pages")
            self.assertEqual(config().level_of("blog:1:x", None), "blog")
            self.assertEqual(config().level_of("other:1:x", None), None)

    def test_without_a_prefix_the_level_is_that_of_the_database(self):
        with self.settings(CACHES={"default": redis_cache("redis://a:6380/3")}):
            server = address({"host": "a", "port": 6380, "db": 3})

            self.assertEqual(config().servers[server], "default")

    def test_the_name_of_a_key_has_neither_prefix_nor_version(self):
        with self.settings(CACHES={"default": redis_cache("redis://a", "p")}):
            self.assertEqual(config().name_of("p:2:search:index"), "search:index")
            self.assertEqual(config().name_of(":1:search:index"), "search:index")

    def test_the_site_level_is_the_alias_of_the_cache_middleware(self):
        caches = {"default": redis_cache("redis://a/0"), "pages": redis_cache("redis://a/1")}
        with self.settings(CACHES=caches, CACHE_MIDDLEWARE_ALIAS="pages"):
            self.assertEqual(config().site, "pages")

    def test_without_the_cache_middleware_there_is_no_site_level(self):
        caches = {"default": redis_cache("redis://a/0")}
        with self.settings(
            CACHES=caches, CACHE_MIDDLEWARE_ALIAS="default", MIDDLEWARE=MIDDLEWARE[:1]
        ):
            self.assertIsNone(config().site)

    def test_the_stream_is_in_the_database_after_the_last(self):
        caches = {"default": redis_cache("redis://a/8"), "pages": redis_cache("redis://a/11")}
        with self.settings(CACHES=caches):
            connection = config().stream_connection

        self.assertEqual((connection["host"], connection["db"]), ("a", 12))

    def test_the_stream_is_on_a_socket_where_the_caches_are(self):
        with self.settings(CACHES={"default": redis_cache("unix:///run/redis.sock?db=2")}):
            connection = config().stream_connection

        self.assertEqual((connection["path"], connection["db"]), ("/run/redis.sock", 3))

    def test_a_database_that_the_backend_adds_counts(self):
        cache = redis_cache("redis://a", db=7) | {"BACKEND": "watch.tests.backends.AddsDatabase"}
        with self.settings(CACHES={"default": cache, "pages": redis_cache("redis://a/1")}):
            self.assertEqual(config().stream_connection["db"], 8)
            self.assertEqual(config().servers["a:6379", 7], "default")

    def test_the_stream_takes_the_password_of_the_caches(self):
        with self.settings(
            CACHES={"default": redis_cache("redis://with-a-password", PASSWORD="secret")}
        ):
            self.assertEqual(config().stream_connection["password"], "secret")

    def test_the_stream_can_be_elsewhere(self):
        caches = {"default": redis_cache("redis://a")}
        with self.settings(CACHES=caches, WATCH={"STREAM_URL": "redis://b/5"}):
            connection = config().stream_connection

        self.assertEqual((connection["host"], connection["db"]), ("b", 5))


class CheckTests(SimpleTestCase):
    """manage.py check says what is missing."""

    def ids(self):
        return [problem.id for problem in watch_is_complete(None)]

    @override_settings(MIDDLEWARE=MIDDLEWARE, CACHES={"default": redis_cache("redis://a")})
    def test_complete(self):
        self.assertEqual(self.ids(), [])

    @override_settings(MIDDLEWARE=MIDDLEWARE)
    def test_no_alias_is_watched(self):
        memory = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
        with self.settings(CACHES={"default": memory}):
            self.assertEqual(self.ids(), ["watch.W001"])

    @override_settings(CACHES={"default": redis_cache("redis://a")})
    def test_the_middleware_is_not_the_first(self):
        with self.settings(MIDDLEWARE=MIDDLEWARE[::-1]):
            self.assertEqual(self.ids(), ["watch.W002"])

    @override_settings(MIDDLEWARE=MIDDLEWARE, CACHES={"default": redis_cache("redis://a")})
    def test_a_setting_that_does_not_exist(self):
        with self.settings(WATCH={"LEVEL": {}}):
            self.assertEqual(self.ids(), ["watch.W003"])
