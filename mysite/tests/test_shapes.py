"""Shapes: what a value out of Redis must look like before it is used."""

import re
from decimal import Decimal

from django.test import SimpleTestCase

from mysite.caches.shapes import PK, SLUG, fits

CARD = {"pk": PK, "slug": SLUG}

# (shape, values that fit, values that don't)
SHAPES = (
    (None, [None], [0, "", False, []]),
    (int, [0, -1, 2**70], [True, 1.0, "1", Decimal(1), None]),
    (str, ["", "a"], [b"a", 1, None]),
    (PK, [1, 2**63 - 1], [0, -1, 2**63, True, 1.0, "1", None]),
    (SLUG, ["a", "a-b_C1"], ["", "a b", "a/", "a\n", "ä", b"a", 1]),
    (re.compile("a+"), ["aa"], ["ab", "ba", ["a"]]),
    ([int], [[], [1, 2]], [[1, "2"], (1,), {1}, {1: 2}, 1, "1", None]),
    ([CARD], [[], [{"pk": 1, "slug": "a"}]], [[{"pk": 0, "slug": "a"}], [{}], [[]], [None]]),
    ({str: {PK: float}}, [{}, {"a": {}}, {"a": {1: 0.5}}], [[], {"a": []}, {"a": {0: 0.5}}]),
    ({str: {PK: float}}, [{"a": {1: 0.5, 2: 1.0}}], [{"a": {1: 1}}, {1: {}}, {"a": {2**63: 0.5}}]),
    (CARD, [{"pk": 1, "slug": "a"}], [{"pk": 1}, {"pk": 1, "slug": "a", "more": 1}, {}, [], None]),
    ((None, [int]), [None, [], [1]], [0, [None], ()]),
)


class ShapeTests(SimpleTestCase):
    def test_what_fits(self):
        for shape, right, _ in SHAPES:
            for value in right:
                with self.subTest(shape=shape, value=value):
                    self.assertIs(fits(value, shape), True)

    def test_what_does_not_fit(self):
        for shape, _, wrong in SHAPES:
            for value in wrong:
                with self.subTest(shape=shape, value=value):
                    self.assertIs(fits(value, shape), False)

    def test_what_is_no_shape_is_an_error(self):
        for shape in (str.isdigit, "text", 5):
            with self.subTest(shape), self.assertRaisesMessage(TypeError, "is no shape"):
                fits("5", shape)
