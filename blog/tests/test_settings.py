"""One alias, one key prefix and one Redis database per level."""

from django.conf import settings
from django.core.cache import cache, caches

from blog.tests import CacheTestCase

ALIASES = {"site": 1, "view": 2, "template_fragments": 3, "default": 0}
PREFIXES = {
    "site": "site",
    "view": "view",
    "template_fragments": "fragment",
    "default": "low-level",
}


class LevelTests(CacheTestCase):
    """The four aliases."""

    def test_there_is_one_alias_per_level(self):
        self.assertEqual(set(settings.CACHES), set(ALIASES))

    def test_each_has_its_prefix(self):
        for alias, prefix in PREFIXES.items():
            with self.subTest(alias):
                self.assertEqual(settings.CACHES[alias]["KEY_PREFIX"], prefix)

    def test_each_has_its_database(self):
        for alias, number in ALIASES.items():
            caches[alias].set("a-key", 1)

            with self.subTest(alias):
                self.assertEqual(self.keys(PREFIXES[alias], "*"), [f"{PREFIXES[alias]}:1:a-key"])
                self.assertEqual(settings.CACHES[alias]["OPTIONS"]["db"], number)

    def test_a_key_says_level_and_version(self):
        cache.set("a-key", 1, version=7)

        self.assertEqual(self.keys("low-level"), ["low-level:7:a-key"])

    def test_all_have_one_location_and_one_backend(self):
        backend = "resilient_cache.backend.RedisCache"
        for alias, options in settings.CACHES.items():
            with self.subTest(alias):
                self.assertEqual(options["BACKEND"], backend)
                self.assertEqual(options["LOCATION"], settings.REDIS_URL)

    def test_no_value_in_redis_is_a_pickle(self):
        self.make_comment(self.make_post("keys"))
        for url in ("/", "/posts/keys/", "/archive/", "/search/?q=keys"):
            self.client.get(url)

        stored = self.stored()
        self.assertGreater(len(stored), 10)
        for key, value in stored.items():
            with self.subTest(key):
                self.assertFalse(value.startswith(b"\x80"))

    def test_hiredis_parses_the_replies(self):
        from redis.utils import HIREDIS_AVAILABLE

        self.assertTrue(HIREDIS_AVAILABLE)

    def test_every_alias_has_a_default_timeout(self):
        for alias in settings.CACHES:
            with self.subTest(alias):
                self.assertEqual(caches[alias].default_timeout, 300)
