"""One alias, one prefix and one Redis database a level, whatever REDIS_URL says."""

from django.conf import settings
from django.core.cache import cache, caches
from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase
from redis import ConnectionPool

from blog.tests import CacheTestCase
from mysite.caches import FORMAT, LEVELS, REDIS_TIMEOUT, database_url, make_key, redis_caches

ALIASES = {"site": 1, "view": 2, "template_fragments": 3, "default": 0}
PREFIXES = {
    "site": "site",
    "view": "view",
    "template_fragments": "fragment",
    "default": "low-level",
}


class LevelTests(CacheTestCase):
    """The four aliases."""

    def test_there_is_one_alias_a_level(self):
        self.assertEqual(set(settings.CACHES), set(ALIASES))
        self.assertEqual([level[0] for level in LEVELS], list(ALIASES))

    def test_each_has_its_prefix(self):
        for alias, prefix in PREFIXES.items():
            with self.subTest(alias):
                self.assertEqual(settings.CACHES[alias]["KEY_PREFIX"], prefix)

    def test_each_has_its_database(self):
        for alias, number in ALIASES.items():
            caches[alias].set("a-key", 1)

            with self.subTest(alias):
                self.assertEqual(len(self.keys(PREFIXES[alias], "*.1:a-key")), 1)
                self.assertRegex(settings.CACHES[alias]["LOCATION"], rf"[?&]db={number}$")

    def test_a_key_says_level_format_and_version(self):
        cache.set("a-key", 1, version=7)

        self.assertEqual(self.keys("low-level"), [f"low-level:f{FORMAT}.7:a-key"])
        self.assertEqual(make_key("k", "site", 1), f"site:f{FORMAT}.1:k")

    def test_each_is_django_redis_with_a_serializer_that_executes_nothing(self):
        for alias, options in settings.CACHES.items():
            with self.subTest(alias):
                self.assertEqual(options["BACKEND"], "django_redis.cache.RedisCache")
                self.assertNotIn("pickle", options["OPTIONS"]["SERIALIZER"].lower())

    def test_no_value_in_redis_is_a_pickle(self):
        self.make_comment(self.make_post("keys"))
        for url in ("/", "/posts/keys/", "/archive/", "/search/?q=keys"):
            self.client.get(url)

        stored = self.stored()
        self.assertGreater(len(stored), 10)
        for key, value in stored.items():
            with self.subTest(key):
                self.assertFalse(value.startswith(b"\x80"))

    def test_each_ignores_a_redis_that_is_away(self):
        for alias, options in settings.CACHES.items():
            with self.subTest(alias):
                self.assertTrue(options["OPTIONS"]["IGNORE_EXCEPTIONS"])

    def test_each_waits_a_quarter_of_a_second_at_most(self):
        self.assertLessEqual(REDIS_TIMEOUT, 0.25)
        for alias, options in redis_caches("redis://redis").items():
            pool = options["OPTIONS"]["CONNECTION_POOL_KWARGS"]
            with self.subTest(alias):
                self.assertEqual(pool["socket_timeout"], REDIS_TIMEOUT)
                self.assertEqual(pool["socket_connect_timeout"], REDIS_TIMEOUT)

    def test_hiredis_parses_the_answers(self):
        pool = caches["default"].client.get_client().connection_pool
        connection = pool.get_connection()
        self.addCleanup(pool.release, connection)

        self.assertIn("Hiredis", type(connection._parser).__name__)

    def test_only_page_levels_know_generations(self):
        for alias, options in settings.CACHES.items():
            client = options["OPTIONS"]["CLIENT_CLASS"]
            with self.subTest(alias):
                self.assertIs(client.endswith(".PageClient"), alias in ("site", "view"))

    def test_no_alias_keeps_for_ever_by_default(self):
        for alias in settings.CACHES:
            with self.subTest(alias):
                self.assertEqual(caches[alias].default_timeout, 300)


class DatabaseUrlTests(SimpleTestCase):
    """From one REDIS_URL to a URL a level."""

    def assertLeadsTo(self, url, number, **expected):
        """Assert where a connection to the URL goes, as redis-py understands it."""
        pool = ConnectionPool.from_url(database_url(url, number))
        found = {name: pool.connection_kwargs.get(name) for name in expected}
        self.assertEqual(found, expected)
        return pool

    def test_tcp(self):
        self.assertLeadsTo("redis://127.0.0.1:6379", 3, host="127.0.0.1", port=6379, db=3)
        self.assertLeadsTo("redis://127.0.0.1:6379/", 0, host="127.0.0.1", port=6379, db=0)
        self.assertLeadsTo("redis://redis", 1, host="redis", db=1)
        self.assertLeadsTo("redis://[::1]:6380", 1, host="::1", port=6380, db=1)

    def test_tls(self):
        pool = self.assertLeadsTo("rediss://redis.example:6380", 2, host="redis.example", db=2)

        self.assertIn("SSL", pool.connection_class.__name__)

    def test_a_unix_socket(self):
        self.assertLeadsTo("unix:///run/redis.sock", 3, path="/run/redis.sock", db=3)

    def test_a_base_database_is_the_first_of_four(self):
        self.assertLeadsTo("redis://redis/4", 0, db=4)
        self.assertLeadsTo("redis://redis/4", 3, db=7)
        self.assertLeadsTo("redis://redis?db=4", 3, db=7)
        self.assertLeadsTo("unix:///run/redis.sock?db=4", 3, path="/run/redis.sock", db=7)

    def test_a_password_stays(self):
        for url in ("redis://:s3cret@redis", "rediss://:s3cret@redis", "unix://:s3cret@/r.sock"):
            with self.subTest(url):
                self.assertLeadsTo(url, 1, password="s3cret", db=1)

    def test_a_user_stays(self):
        for url in ("redis://ada:s3cret@redis:6379", "unix://ada:s3cret@/r.sock"):
            with self.subTest(url):
                self.assertLeadsTo(url, 1, username="ada", password="s3cret", db=1)

    def test_a_password_with_signs_that_urls_use_stays(self):
        for quoted, password in (("p%40ss%2Fw%3Ard%3F%23", "p@ss/w:rd?#"), ("%C3%A9", "é")):
            for url in (f"redis://:{quoted}@redis", f"unix://:{quoted}@/r.sock"):
                with self.subTest(url):
                    self.assertLeadsTo(url, 1, password=password, db=1)

    def test_other_parameters_stay(self):
        self.assertLeadsTo("redis://redis?socket_timeout=3", 2, socket_timeout=3.0, db=2)
        self.assertLeadsTo("unix:///r.sock?socket_timeout=3", 2, socket_timeout=3.0, db=2)

    def test_every_level_leads_to_the_same_server(self):
        for url in ("redis://:s3cret@redis:6380/4", "unix://:s3cret@/r.sock?db=4"):
            databases, servers = set(), set()
            for options in redis_caches(url).values():
                found = ConnectionPool.from_url(options["LOCATION"]).connection_kwargs
                databases.add(found["db"])
                names = ("host", "port", "path", "username", "password")
                servers.add(tuple(found.get(name) for name in names))

            with self.subTest(url):
                self.assertEqual(databases, {4, 5, 6, 7})
                self.assertEqual(len(servers), 1)

    def test_no_url_is_one_line_that_says_what_it_takes(self):
        for url in (
            *("", " ", "nonsense", "127.0.0.1:6379", "http://127.0.0.1", "redis", "redis:", "//x"),
            *("redis://", "redis:///0", "redis://:password@", "redis://redis:port", "redis://[::1"),
            *("redis://redis:99999", "redis://redis:-1", "redis://redis:0", "redis://redis/abc"),
            *("redis://redis/1/2", "redis://redis?db=abc", "unix://", "unix:///", "unix:///r?db=x"),
            *("redis://redis/-1", "unix:///r.sock?db=-1", "postgres://redis"),
        ):
            with self.subTest(url):
                with self.assertRaises(ImproperlyConfigured) as caught:
                    redis_caches(url)
                message = str(caught.exception)
                self.assertIn("REDIS_URL", message)
                self.assertIn("redis://", message)
                self.assertNotIn("\n", message)

    def test_the_line_does_not_repeat_the_password(self):
        for url in ("redis://:s3cret@redis:port", "http://:s3cret@redis", "redis://:s3cret@[x"):
            with self.subTest(url):
                with self.assertRaises(ImproperlyConfigured) as caught:
                    redis_caches(url)
                self.assertNotIn("s3cret", str(caught.exception))

    def test_options_go_to_every_level(self):
        for alias, options in redis_caches("redis://redis", X=1).items():
            with self.subTest(alias):
                self.assertEqual(options["OPTIONS"]["X"], 1)
