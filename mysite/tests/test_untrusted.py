"""Whatever somebody writes into Redis, pages answer 200 and no code runs: all four levels."""

import math
import pickle
import random
import tempfile
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from unittest import mock

from blog.tests import DATABASES, CacheTestCase
from mysite.caches.log import Quiet
from mysite.caches.serializer import FORMAT, MAX_BYTES, SafeSerializer
from mysite.tests.test_serializer import Bomb, mutate

PAGES = ("/", "/posts/keys/", "/archive/", "/search/?q=keys")
serializer = SafeSerializer({})
# Values that can be read and that nobody here has written.
SHAPES = (
    *(None, True, -1, 2**70, math.nan, "text", b"bytes", "", Decimal("NaN"), date(2026, 1, 1)),
    *([], {}, (), set(), [[1]], {"a": {"b": "c"}}, {1: 2}, (1, 2), (1.0, 2), (1, 1.0, 2)),
    *({"results": 1, "related": []}, {"results": [1], "related": []}, {"results": [{}]}),
    *({"keys": {1: "heavy"}}, {"keys": [1]}, {"keys": {2**70: 1.0}}, {"keys": {"1": 1.0}}),
)
# A fragment, the results of a search that finds nothing, the index of no posts: wrong, but of the
# right shape. Only a signature would tell.
PLAUSIBLE = ("text", "", None, {})


def inside(value, shape):
    """Return the value of an entry with `shape` in place of what it holds. Tokens stay right."""
    if not value.startswith(FORMAT):
        return value
    entry = serializer.loads(value)
    return serializer.dumps((*entry[:-1], shape) if type(entry) is tuple else shape)


def with_other_cards(value, new):
    """Return the value with other fields in what a search has found, if it is of a search."""
    entry = serializer.loads(value) if value.startswith(FORMAT) else None
    match entry:
        case (renew_at, {"results": results, **rest}):
            results = [card | new for card in results]
            return serializer.dumps((renew_at, {"results": results, **rest}))
    return value


class UntrustedTests(CacheTestCase):
    def setUp(self):
        super().setUp()
        self.post = self.make_post("keys")
        self.make_comment(self.post)
        self.warning = self.enterContext(mock.patch("mysite.caches.log.logger.warning"))
        self.right = self.read()
        self.read()

    def read(self):
        """Return what each page says."""
        said = {}
        for path in PAGES:
            response = self.client.get(path)
            self.assertEqual(response.status_code, 200, path)
            said[path] = [line.strip() for line in response.text.splitlines() if "keys" in line]
        return said

    def refill(self):
        """Let the levels hold what is right, and nothing else."""
        self.empty_caches()
        self.read()
        self.read()

    def spoil(self, spoiled, but=None):
        """Overwrite each key of each level that does not end in `but`. Return how many."""
        number = 0
        for level in DATABASES:
            redis = self.redis(level)
            for key in self.keys(level):
                if but and key.endswith(but):
                    continue
                number += 1
                value = spoiled(redis.get(key))
                redis.set(key, value, keepttl=True)
        return number

    def assert_misses(self, spoiled):
        self.assertGreaterEqual(self.spoil(spoiled), 8)
        self.assertEqual(self.read(), self.right)

        # Without the name of a version, nobody asks for what was stored under it.
        self.empty_caches()
        self.read()
        self.spoil(spoiled, but=":generation")
        self.assertEqual(self.read(), self.right)

        self.read()  # What was deleted as unreadable is stored again.
        for level in DATABASES:
            for key in self.keys(level):
                value = self.redis(level).get(key)
                self.assertTrue(value.isdigit() or value.startswith((FORMAT, b"nothing")), key)
                self.assertLess(len(value), MAX_BYTES, key)

    def test_a_pickle_runs_nothing(self):
        target = Path(self.enterContext(tempfile.TemporaryDirectory()), "executed")
        poison = pickle.dumps(Bomb(target))

        self.assert_misses(lambda value: poison)

        self.assertIs(target.exists(), False)

    def test_a_pickle_behind_the_mark_of_the_format_runs_nothing(self):
        target = Path(self.enterContext(tempfile.TemporaryDirectory()), "executed")
        poison = FORMAT + pickle.dumps(Bomb(target))

        self.assert_misses(lambda value: poison)

        self.assertIs(target.exists(), False)

    def test_a_truncated_value(self):
        self.assert_misses(lambda value: value[: len(value) // 2] if len(value) > 30 else b"")

    def test_an_oversized_value(self):
        self.assert_misses(lambda value: value + b"x" * MAX_BYTES)

    def test_a_value_of_the_next_format(self):
        self.assert_misses(lambda value: b"\xc1\x02" + value[2:])

    @mock.patch("mysite.caches.client._log", Quiet(10))
    def test_it_is_logged_and_does_not_flood(self):
        self.assert_logged(lambda value: b"garbage")

    @mock.patch("mysite.caches.client._log", Quiet(10))
    def test_a_value_of_another_shape_is_logged_and_does_not_flood(self):
        self.assert_logged(lambda value: inside(value, 5))

    def assert_logged(self, spoiled):
        self.spoil(spoiled)
        self.warning.reset_mock()

        self.read()

        self.assertIn(self.warning.call_count, (1, 2))

    def test_keys_of_another_release_are_not_read(self):
        before = {level: self.keys(level) for level in DATABASES}
        self.spoil(lambda value: b"\x80\x04 of another release")

        with mock.patch("mysite.caches.FORMAT", 2):
            self.assertEqual(self.read(), self.right)

        for level, keys in before.items():
            values = {self.redis(level).get(key) for key in keys}
            self.assertEqual(values, {b"\x80\x04 of another release"}, level)

    def test_readable_values_of_another_shape(self):
        for shape in SHAPES:
            with self.subTest(shape):
                self.refill()
                self.assert_misses(lambda value, shape=shape: serializer.dumps(shape))

    def test_entries_of_ours_that_hold_another_shape(self):
        for shape in SHAPES:
            with self.subTest(shape):
                self.refill()
                self.spoil(lambda value, shape=shape: inside(value, shape))
                read = self.read()
                if shape not in PLAUSIBLE:
                    self.assertEqual(read, self.right)

    def test_results_of_a_search_that_lead_nowhere(self):
        for name, value in (("slug", "no slug"), ("pk", 2**70), ("title", 5), ("summary", None)):
            with self.subTest(name):
                self.refill()
                self.spoil(lambda kept, new={name: value}: with_other_cards(kept, new))
                self.assertEqual(self.read(), self.right)

    def test_a_counter_that_is_no_whole_number(self):
        for number in (Decimal("NaN"), Decimal("sNaN"), Decimal(1), timedelta(1), math.nan):
            with self.subTest(repr(number)):
                self.refill()
                spoiled = serializer.dumps(number)
                for key in self.keys("low-level", "*search:count:*"):
                    self.redis("low-level").set(key, spoiled)
                self.read()

    def test_random_mutations_at_all_levels(self):
        dice = random.Random(5)  # noqa: S311
        kept = {level: self.values(level) for level in DATABASES}
        for number in range(250):  # Of four levels each.
            for level, values in kept.items():
                key = dice.choice(list(values))
                self.redis(level).set(key, bytes(mutate(bytearray(values[key]), dice)), ex=60)
            with self.subTest(number):
                self.read()

    def values(self, level):
        return {key: self.redis(level).get(key) for key in self.keys(level)}

    def test_random_mutations_of_a_page(self):
        dice = random.Random(4)  # noqa: S311
        self.client.get("/about/")
        site = self.redis("site")
        kept = {key: site.get(key) for key in self.keys("site")}
        for number in range(300):
            key = dice.choice(list(kept))
            site.set(key, bytes(mutate(bytearray(kept[key]), dice)), ex=60)

            with self.subTest(number):
                self.assertEqual(self.client.get("/about/").status_code, 200)
