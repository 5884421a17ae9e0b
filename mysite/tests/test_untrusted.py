"""Whatever is written into Redis, pages answer 200 and no code runs: all four levels."""

import pickle
import random
import tempfile
from pathlib import Path

from django.core.cache import caches

from blog.tests import DATABASES, CacheTestCase
from resilient_cache.serializer import FORMAT, MAX_BYTES, SafeSerializer

PAGES = ("/", "/posts/keys/", "/archive/", "/search/?q=keys")


class Bomb:
    """A value whose pickle creates a file when it is read."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def mutate(value, dice):
    """Return `value` with some bytes changed, cut off or added."""
    value = bytearray(value)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(value) + 1)
        match dice.randrange(3):
            case 0:
                value[place : place + 1] = dice.randbytes(1)
            case 1:
                del value[place : place + dice.randint(1, 9)]
            case 2:
                value[place:place] = dice.randbytes(dice.randint(1, 9))
    return bytes(value)


class UntrustedTests(CacheTestCase):
    @classmethod
    def setUpTestData(cls):
        cls.make_comment(cls.make_post("keys"))

    def setUp(self):
        super().setUp()
        self.right = self.fill_once(self.read)

    def read(self):
        """Return the lines of each page that name the post."""
        said = {}
        for path in PAGES:
            response = self.client.get(path)
            self.assertEqual(response.status_code, 200, path)
            said[path] = [line.strip() for line in response.text.splitlines() if "keys" in line]
        return said

    def spoil(self, spoiled, but=None):
        """Overwrite each key of each level whose name does not have `but`. Return how many."""
        number = 0
        for level in DATABASES:
            for key in self.keys(level):
                if but is None or but not in key:
                    redis = self.redis(level)
                    redis.set(key, spoiled(redis.get(key)), keepttl=True)
                    number += 1
        return number

    def assert_misses(self, spoiled):
        self.assertGreaterEqual(self.spoil(spoiled), 8)

        self.assertEqual(self.read(), self.right)

    def assert_misses_with_right_versions(self, spoiled):
        """With a wrong version, no request would read what is stored under it."""
        self.spoil(spoiled, but="group:")

        self.assertEqual(self.read(), self.right)

    def test_a_pickle_runs_nothing(self):
        target = Path(self.enterContext(tempfile.TemporaryDirectory()), "executed")
        poison = pickle.dumps(Bomb(target))

        self.assert_misses(lambda value: poison)

        self.assertIs(target.exists(), False)

    def test_a_pickle_behind_the_mark_of_the_format_runs_nothing(self):
        target = Path(self.enterContext(tempfile.TemporaryDirectory()), "executed")
        poison = FORMAT + pickle.dumps(Bomb(target))

        self.assert_misses_with_right_versions(lambda value: poison)

        self.assertIs(target.exists(), False)

    def test_a_truncated_value_is_a_miss(self):
        self.assert_misses_with_right_versions(
            lambda value: value[: len(value) // 2] if len(value) > 30 else b""
        )

    def test_a_value_that_is_too_large_is_a_miss(self):
        page = caches["site"].make_key("page:http://testserver/")
        redis = self.redis("site")
        redis.set(page, redis.get(page) + b"x" * MAX_BYTES, keepttl=True)

        self.assertEqual(self.read(), self.right)

    def test_a_value_of_the_next_format_is_a_miss(self):
        self.assert_misses_with_right_versions(lambda value: b"\xc1\x02" + value[2:])

    def test_a_key_of_the_wrong_type_is_a_miss(self):
        for level in DATABASES:
            for key in self.keys(level):
                self.redis(level).delete(key)
                self.redis(level).rpush(key, "a list")

        self.assertEqual(self.read(), self.right)

    def test_a_miss_that_could_not_be_read_is_stored_again(self):
        self.spoil(lambda value: b"garbage")
        self.read()
        self.read()

        with self.assertNumQueries(0):
            self.client.get("/")
            self.client.get("/posts/keys/")

    def test_a_page_of_another_type_is_a_miss(self):
        serializer = SafeSerializer({})
        for level, url in (("site", "/"), ("view", "/posts/keys/")):
            redis, key = self.redis(level), f"{level}:1:page:http://testserver{url}"
            *entry, _ = serializer.loads(redis.get(key))
            for other in (None, 5, "text", b"bytes", {}, ["HTTP_COOKIE", 5], [1]):
                with self.subTest(level=level, other=other):
                    redis.set(key, serializer.dumps((*entry, other)), ex=60)
                    self.assertEqual(self.client.get(url).status_code, 200)

    def test_a_counter_that_is_not_a_number_starts_again(self):
        for key in self.keys("low-level", "*search:*count*"):
            self.redis("low-level").set(key, SafeSerializer({}).dumps("many"))

        self.assertEqual(self.read(), self.right)

    def test_random_mutations_at_all_levels(self):
        dice = random.Random(5)  # noqa: S311 - the same ones in each run.
        stored = {
            level: {
                key: self.redis(level).get(key)
                for key in self.keys(level)
                # Plain low-level values are the application's own: a number in the place of a
                # list is not unreadable.
                if level != "low-level"
            }
            for level in DATABASES
        }
        for number in range(10):
            for level, values in stored.items():
                if values:
                    key = dice.choice(list(values))
                    self.redis(level).set(key, mutate(values[key], dice), ex=60)
            with self.subTest(number):
                self.read()
