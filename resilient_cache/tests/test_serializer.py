import contextlib
import copy
import datetime as dt
import io
import itertools
import math
import os
import pickle
import random
import tracemalloc
import uuid
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import msgpack
from django.contrib.auth.models import Group
from django.core.exceptions import ImproperlyConfigured
from django.db.models import TextChoices
from django.http import (
    FileResponse,
    HttpResponse,
    HttpResponseNotModified,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.template import engines
from django.template.response import ContentNotRenderedError, SimpleTemplateResponse
from django.test import SimpleTestCase
from django.utils.functional import lazystr
from django.utils.safestring import SafeString, mark_safe

from resilient_cache.log import MOST_KINDS, Quiet, hidden_error
from resilient_cache.pages import cache_page
from resilient_cache.responses import UnsendableResponse
from resilient_cache.serializer import (
    FORMAT,
    MAX_BYTES,
    MAX_COLLISIONS,
    MAX_ITEMS,
    MAX_MEMBERS,
    MAX_RESPONSES,
    SafeSerializer,
    UnreadableValue,
    ValueTooLarge,
)
from resilient_cache.tests.base import CacheTestCase, silent

try:
    import hypothesis
    from hypothesis import strategies as st
except ImportError:  # The other tests run without it.
    st = None

serializer = SafeSerializer({})
BERLIN = ZoneInfo("Europe/Berlin")


def round_trip(value):
    return serializer.loads(serializer.dumps(value))


def same(one, other):
    """Return whether two values are equal and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return [*one] == [*other] and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, (dt.datetime, dt.time)):
        return one.isoformat() == other.isoformat() and same_zone(one, other)
    if isinstance(one, (float, Decimal)):
        return str(one) == str(other)
    return one == other


def same_zone(one, other):
    return (one.fold, repr(one.tzinfo)) == (other.fold, repr(other.tzinfo))


def describe(response):
    """Return all that a server sends of a response."""
    cookies = [cookie.OutputString() for cookie in response.cookies.values()]
    return (
        *(response.status_code, response.reason_phrase, response.charset),
        *([*response.items()], cookies, response.content),
    )


def page():
    """Return a response like those that pages.py stores."""
    response = HttpResponse("<p>Grüße</p>" * 100, headers={"ETag": '"abc"', "Vary": "Accept"})
    response["Expires"] = "Sun, 22 Nov 2026 17:00:00 GMT"
    response["Content-Length"] = str(len(response.content))
    response.set_cookie("seen", "a b;c", max_age=60, httponly=True, samesite="Lax")
    return response


class PlainTypeTests(SimpleTestCase):
    """Values come back equal and with the same type."""

    VALUES = (
        *(None, True, False, 0, -1, 2**63, 2**64, -(2**63) - 1, 10**5000, -(10**400)),
        *(0.0, -0.0, 1.5, math.inf, math.nan, "", "Grüße", "\x00", "a\ud800b", b"", b"\xff\x00"),
        *([], (), [1, (2, [3])], (1,), ((),), {}, {"a": {"b": ()}}, {1: "a", (2024, 5): 3}),
        *({None: 1, b"x": 2, 1.5: 3, dt.date(2024, 2, 29): 4, frozenset({1}): 5},),
        *(set(), {1, "a"}, frozenset(), frozenset({(1, 2)})),
        *(dt.date.min, dt.date.max, dt.datetime.min, dt.datetime.max, dt.time(), dt.time.max),
        dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
        dt.datetime(2024, 1, 1, 12, 0, 0, 5, dt.UTC),
        dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3, seconds=7))),
        dt.time(3, 4, tzinfo=dt.timezone(dt.timedelta(hours=1), "Zürich")),
        *(dt.time(3, 4, fold=1), dt.timedelta(-1, 5, 6), dt.timedelta.max),
        *(Decimal("0.10"), Decimal("-1E+400"), Decimal("NaN"), Decimal("sNaN12"), Decimal("-0")),
        *(uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)),
        *(mark_safe("<b>"), mark_safe(""), [mark_safe("ü")]),
        {"posts": [{"title": "Keys", "at": dt.datetime(2024, 1, 1, tzinfo=dt.UTC)}]},
    )

    def test_each_plain_type_comes_back(self):
        for value in self.VALUES:
            with self.subTest(value=str(value)[:50] if not isinstance(value, int) else "int"):
                self.assertTrue(same(value, round_trip(value)))

    def test_a_fragment_stays_a_safe_string_that_templates_do_not_escape(self):
        fragment = round_trip(mark_safe("<b>bold</b>"))

        self.assertIs(type(fragment), SafeString)
        html = engines["django"].from_string("{{ it }}").render({"it": fragment})
        self.assertEqual(html, "<b>bold</b>")

    def test_bytearray_and_memoryview_come_back_as_bytes(self):
        self.assertEqual(round_trip([bytearray(b"a"), memoryview(b"b")]), [b"a", b"b"])

    def test_the_file_of_a_zone_is_read_once(self):
        value = serializer.dumps(dt.datetime(2024, 1, 1, tzinfo=BERLIN))
        zone = serializer.loads(value).tzinfo
        ZoneInfo.clear_cache()

        self.assertIs(serializer.loads(value).tzinfo, zone)

    def test_equal_values_give_equal_bytes(self):
        value = {"a": (1, {2}), "b": mark_safe("x")}

        self.assertEqual(serializer.dumps(value), serializer.dumps(copy.deepcopy(value)))


class Suit(TextChoices):
    HEARTS = "hearts"


class Number(IntEnum):
    ONE = 1


class RefusedTypeTests(SimpleTestCase):
    """A type that would not come back is refused when it is stored, with a hint."""

    def assert_refused(self, value, *words):
        with self.assertRaises(TypeError) as caught:
            serializer.dumps([value])
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_a_model_instance_is_refused(self):
        self.assert_refused(Group(name="x"), "Group can't be cached", "primary key")

    def test_a_queryset_is_refused(self):
        self.assert_refused(Group.objects.all(), "list(queryset.values())")

    def test_a_lazy_string_is_refused(self):
        self.assert_refused(lazystr("x"), "lazy", "str(value)")

    def test_members_of_an_enum_are_refused(self):
        self.assert_refused(Suit.HEARTS, "Suit", "str(value)")
        self.assert_refused(Number.ONE, "Number", "int(value)")

    def test_other_subclasses_of_plain_types_are_refused(self):
        self.assert_refused(os.stat_result(range(10)), "stat_result", "tuple(value)")

    def test_any_other_object_is_refused(self):
        for value in (object(), Suit, len, ...):
            self.assert_refused(value, "can't be cached", "plain data")
        self.assert_refused(SimpleNamespace(), "types.SimpleNamespace")

    def test_a_time_in_an_unknown_kind_of_zone_is_refused(self):
        class Elsewhere(dt.tzinfo):
            def utcoffset(self, at):
                return dt.timedelta(hours=1)

        self.assert_refused(dt.datetime(2024, 1, 1, tzinfo=Elsewhere()), "zoneinfo.ZoneInfo")

    def test_a_list_inside_itself_is_refused(self):
        value = []
        value.append(value)

        self.assert_refused(value, "can't be cached")

    def test_a_value_over_the_size_limit_is_refused(self):
        with self.assertRaises(ValueTooLarge):
            serializer.dumps(b"x" * MAX_BYTES)
        with self.assertRaises(ValueTooLarge):
            SafeSerializer({"MAX_VALUE_BYTES": 10}).dumps("x" * 10)

    def test_a_list_that_loads_would_not_accept_is_refused(self):
        self.assertEqual(len(round_trip([0] * MAX_ITEMS)), MAX_ITEMS)
        with self.assertRaises(ValueTooLarge):
            serializer.dumps([0] * (MAX_ITEMS + 1))

    def test_more_than_a_thousand_members_with_a_predictable_hash_are_refused(self):
        for kind in (set, frozenset, dict.fromkeys):
            self.assertEqual(len(round_trip(kind(range(MAX_MEMBERS)))), MAX_MEMBERS)
            for member in (int, float, Decimal, lambda number: (number,)):
                value = kind(map(member, range(MAX_MEMBERS + 1)))
                with self.subTest(type(value)), self.assertRaisesRegex(ValueTooLarge, "str"):
                    serializer.dumps([value])

    def test_any_number_of_texts_bytes_and_dates_may_be_members(self):
        for member in (str, lambda number: b"%d" % number, dt.date.fromordinal):
            members = [*map(member, range(1, 5000))]
            for value in (set(members), dict.fromkeys(members)):
                self.assertTrue(same(value, round_trip(value)))

    def test_members_that_share_their_hash_are_refused(self):
        # hash(-1) == hash(-2), so all of these tuples have one hash.
        tuples = [*itertools.product((-1, -2), repeat=8)]
        for value in (set(tuples), frozenset(tuples), dict.fromkeys(tuples)):
            with self.subTest(type(value)), self.assertRaisesRegex(ValueTooLarge, "hash"):
                serializer.dumps(value)
        few = set(tuples[:MAX_COLLISIONS])
        self.assertEqual(round_trip(few), few)

    def test_a_limit_of_the_size_is_a_positive_int(self):
        for wrong in ("5", 0, -1, None, 1.5, True):
            with self.subTest(wrong), self.assertRaisesRegex(ImproperlyConfigured, "MAX_VALUE"):
                SafeSerializer({"MAX_VALUE_BYTES": wrong})


class ResponseTests(SimpleTestCase):
    """A response comes back as an HttpResponse that sends the same bytes."""

    def assert_comes_back(self, response):
        again = round_trip(response)

        self.assertIs(type(again), HttpResponse)
        self.assertEqual(describe(again), describe(response))
        return again

    def test_a_page_comes_back(self):
        again = self.assert_comes_back(page())

        self.assertEqual(again.text, page().text)
        self.assertEqual(again.cookies["seen"].value, "a b;c")
        again.set_cookie("more", "1")
        again["X-More"] = "1"
        again.write("more")

    def test_subclasses_of_http_response_come_back(self):
        self.assert_comes_back(JsonResponse({"a": 1}))
        self.assert_comes_back(HttpResponseRedirect("/a/?b=ü"))
        self.assert_comes_back(HttpResponse(status=404, reason="Gone fishing"))

    def test_a_304_gets_no_content_type(self):
        again = self.assert_comes_back(HttpResponseNotModified(headers={"ETag": '"a"'}))

        self.assertNotIn("Content-Type", again.headers)

    def test_another_charset_comes_back(self):
        self.assert_comes_back(HttpResponse("ü", charset="latin-1"))
        self.assert_comes_back(HttpResponse("ü", content_type="text/plain", charset="latin-1"))
        self.assert_comes_back(HttpResponse(b"\x00", content_type="image/png"))

    def test_a_template_response_comes_back_once_it_is_rendered(self):
        template = engines["django"].from_string("<p>{{ a }}</p>")
        response = SimpleTemplateResponse(template, {"a": 1})
        with self.assertRaises(ContentNotRenderedError):
            serializer.dumps(response)

        self.assert_comes_back(response.render())

    def test_a_response_to_head_keeps_the_content_length_of_its_page(self):
        self.assert_comes_back(HttpResponse(b"", headers={"Content-Length": "512"}))

    def test_a_streaming_response_is_refused(self):
        for response in (StreamingHttpResponse([b"a"]), FileResponse(io.BytesIO(b"a"))):
            with self.assertRaisesRegex(TypeError, "its content streams"):
                serializer.dumps(response)

    def test_a_response_that_loads_would_not_accept_is_refused(self):
        for response in (
            HttpResponse(b"x", content_type="text/plain; charset=unknown-8bit"),
            HttpResponse(b"x", charset="a\x00b"),
            HttpResponse("x", reason="\u20ac"),
            HttpResponse("x", headers={"X-A": "a\x00b"}),
            HttpResponse("x", headers={"Content-Length": "999"}),
        ):
            with self.assertRaises(UnsendableResponse):
                serializer.dumps((1, response))

    def test_more_than_a_thousand_responses_are_refused(self):
        self.assertEqual(len(round_trip([HttpResponse("x")] * MAX_RESPONSES)), MAX_RESPONSES)
        with self.assertRaisesRegex(ValueTooLarge, "responses"):
            serializer.dumps([HttpResponse("x")] * (MAX_RESPONSES + 1))

    def test_a_response_within_a_tuple_comes_back(self):
        token, again = round_trip((2**61, page()))

        self.assertEqual((token, describe(again)), (2**61, describe(page())))


class UnstorablePageTests(CacheTestCase):
    """A page that could not be read back is served, and not stored."""

    def test_a_page_with_an_unknown_charset_is_built_for_each_request(self):
        def view(request):
            return HttpResponse(b"x", content_type="text/plain; charset=unknown-8bit")

        for level, page in (("site", view), ("view", cache_page(60, cache="view")(view))):
            path = self.route(page, f"/charset/{level}/")
            for _ in "12":
                with self.subTest(level), silent():
                    response = self.get(path)
                    self.assertEqual((response.status_code, response.content), (200, b"x"))
                    self.assertNotIn("Age", response)
            self.assertEqual(self.keys(level, f"{level}:?:page:*"), [])


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (Path(self.path), "executed")


# As dumps() packs them: a list is 0x90 + its length, a mark 0xC7 0x00 and its code.
MARK_RESPONSE, MARK_SET = b"\xc7\x00\x06", b"\xc7\x00\x01"


class UntrustedValueTests(SimpleTestCase):
    """Bytes that are not a value of this serializer raise UnreadableValue and nothing else."""

    def assert_unreadable(self, value):
        with self.assertRaises(UnreadableValue):
            serializer.loads(value)

    def test_a_pickle_is_not_executed(self):
        with TemporaryDirectory() as directory:
            target = Path(directory, "executed")
            poison = pickle.dumps(Bomb(target))
            pickle.loads(poison)  # noqa: S301 - the proof that it is one.
            self.assertTrue(target.exists())
            target.unlink()

            self.assert_unreadable(poison)
            self.assert_unreadable(FORMAT + poison)

            self.assertFalse(target.exists())

    def test_other_formats_and_garbage_are_unreadable(self):
        body = serializer.dumps({"a": 1})[len(FORMAT) :]
        for value in (b"", b"\xc1", b"garbage", b'{"a": 1}', b"\x1f\x8b\x08", body, FORMAT):
            self.assert_unreadable(value)

    def test_the_next_version_of_the_format_is_unreadable(self):
        value = bytearray(serializer.dumps({"a": 1}))
        value[1] += 1

        self.assert_unreadable(bytes(value))

    def test_a_truncated_value_is_unreadable(self):
        value = serializer.dumps((1, page(), [dt.datetime.now(dt.UTC)]))

        for length in range(len(value)):
            self.assert_unreadable(value[:length])

    def test_a_value_with_more_bytes_behind_it_is_unreadable(self):
        self.assert_unreadable(serializer.dumps(1) + b"\x01")

    def test_bytes_over_the_size_limit_are_unreadable(self):
        self.assert_unreadable(FORMAT + b"\xc6\x7f\xff\xff\xff")
        with self.assertRaisesRegex(UnreadableValue, "limit"):
            serializer.loads(FORMAT + b"\xc6" + MAX_BYTES.to_bytes(4) + b"x" * MAX_BYTES)

    def test_a_list_that_claims_more_items_than_it_has_is_unreadable(self):
        self.assert_unreadable(FORMAT + b"\xdd\x7f\xff\xff\xff" * 100)

    def test_a_short_value_cannot_reserve_long_lists(self):
        # 1,000 lists within each other, each of which claims 65,536 items of 8 bytes.
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)

        self.assert_unreadable(FORMAT + b"\xdd\x00\x01\x00\x00" * 1000)

        self.assertLess(tracemalloc.get_traced_memory()[1], 10_000_000)
        self.assertEqual(serializer.loads(FORMAT + b"\xdc\x00\x01\xc0"), [None])

    def test_numbers_with_one_hash_are_unreadable(self):
        # Each of them is a multiple of the number that Python's hashes are the rest of.
        numbers = [number * (2**61 - 1) for number in range(1, 5000)]
        packed = [serializer.dumps(number)[len(FORMAT) :] for number in numbers]
        size = len(packed).to_bytes(2)
        for value in (
            b"\xde" + size + b"\xc0".join([*packed, b""]),
            b"\xdc" + (len(packed) + 1).to_bytes(2) + MARK_SET + b"".join(packed),
        ):
            with self.assertRaisesRegex(UnreadableValue, "limit is 1000"):
                serializer.loads(FORMAT + value)

    def test_endless_nesting_is_unreadable(self):
        self.assert_unreadable(FORMAT + b"\x91" * 1_000_000 + b"\x90")
        self.assert_unreadable(FORMAT + b"\x92\xc7\x00\x00" * 500_000 + b"\x90")

    def test_a_mark_in_a_wrong_place_is_unreadable(self):
        for value in (MARK_RESPONSE, b"\x92\x01" + MARK_RESPONSE, b"\x81\x01" + MARK_RESPONSE):
            self.assert_unreadable(FORMAT + value)
        self.assert_unreadable(FORMAT + b"\x91\xc7\x00\x63")

    def test_a_response_that_a_server_could_not_send_is_unreadable(self):
        for header, value in (
            ("X-A", "a\x00b"),
            ("X-A", "a\r\nSet-Cookie: b"),
            ("X A", "b"),
            ("", "b"),
            ("X-A\r\nB", "b"),
            ("Content-Length", "999"),
        ):
            self.assert_unreadable(self.response_bytes(headers={header: value}))
        self.assert_unreadable(self.response_bytes(status=999))
        self.assert_unreadable(self.response_bytes(status="200"))
        self.assert_unreadable(self.response_bytes(reason="OK\r\nX: y"))
        self.assert_unreadable(self.response_bytes(charset="no-such-charset"))
        self.assert_unreadable(self.response_bytes(body="text"))
        self.assert_unreadable(self.response_bytes(cookies=[["a", "b", "c", {}]]))
        serializer.loads(self.response_bytes())

    def response_bytes(self, **changes):
        parts = {
            "status": 200,
            "reason": None,
            "charset": None,
            "headers": {},
            "cookies": [],
            "body": b"x",
        }
        mark = msgpack.ExtType(6, b"")
        return FORMAT + msgpack.packb([mark, *(parts | changes).values()])

    def test_of_a_thousand_mutated_values_each_is_readable_or_unreadable(self):
        dice = random.Random(4)  # noqa: S311
        good = [
            serializer.dumps(value)
            for value in (
                page(),
                (2**61, page()),
                ["Accept-Encoding", "Cookie"],
                {"posts": [{"id": 1, "at": dt.datetime(2024, 1, 1, tzinfo=BERLIN)}]},
                SafeString("<p>x</p>" * 20),
                [Decimal("1.5"), uuid.UUID(int=5), {1, 2}, 2**80, dt.date.max, dt.time.max],
            )
        ]
        unreadable = 0
        for _ in range(1000):
            value = mutate(bytearray(dice.choice(good)), dice)
            try:
                result = serializer.loads(value)
            except UnreadableValue:
                unreadable += 1
                continue
            # A changed letter is still a letter. What can be read can be stored and sent.
            serializer.dumps(result)
            if isinstance(result, HttpResponse):
                describe(result)
        self.assertGreater(unreadable, 300)


def mutate(value, dice):
    """Change, insert, delete or repeat some bytes."""
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(value))
        kind = dice.randrange(4)
        if kind == 0:
            value[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            value[at:at] = dice.randbytes(dice.randint(1, 8))
        elif kind == 2:
            del value[at : at + dice.randint(1, 8)]
        else:
            value[at : at + 4] = value[at : at + dice.randint(1, 40)]
        value = value or bytearray(b"x")
    return bytes(value)


if st is not None:
    # The same examples on each run, so that a failure can be repeated.
    PROFILE = hypothesis.settings(deadline=None, max_examples=300, derandomize=True, database=None)
    ZONES = st.one_of(
        st.none(),
        st.just(dt.UTC),
        st.sampled_from([BERLIN, ZoneInfo("America/New_York")]),
        st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)).map(dt.timezone),
    )
    TIME_ZONES = ZONES.filter(lambda zone: zone is None or isinstance(zone, dt.timezone))
    HASHABLE = st.one_of(
        *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()),
        *(st.text().map(mark_safe), st.dates(), st.timedeltas(), st.decimals(), st.uuids()),
        *(st.datetimes(timezones=ZONES), st.times(timezones=TIME_ZONES)),
    ).filter(lambda value: not (isinstance(value, Decimal) and value.is_snan()))
    KEYS = HASHABLE.filter(lambda value: value == value)  # NaN is never found again.
    VALUES = st.recursive(
        HASHABLE,
        lambda parts: st.one_of(
            *(st.lists(parts), st.lists(parts).map(tuple), st.dictionaries(KEYS, parts)),
            *(st.sets(KEYS), st.frozensets(KEYS)),
            st.dictionaries(st.lists(KEYS, max_size=3).map(tuple), parts),
        ),
        max_leaves=20,
    )

    class PropertyTests(SimpleTestCase):
        """Values that Hypothesis generates."""

        @hypothesis.settings(PROFILE)
        @hypothesis.given(VALUES)
        def test_every_value_comes_back(self, value):
            self.assertTrue(same(value, round_trip(value)))

        @hypothesis.settings(PROFILE)
        @hypothesis.given(st.binary())
        def test_no_bytes_raise_anything_but_unreadable_value(self, value):
            for data in (value, FORMAT + value):
                with contextlib.suppress(UnreadableValue):
                    serializer.loads(data)


class QuietTests(SimpleTestCase):
    """Warnings about something that fails often."""

    def test_a_second_warning_within_the_time_is_counted_instead_of_written(self):
        quiet = Quiet(60)
        with self.assertLogs("resilient_cache") as logged:
            for number in range(5):
                quiet.warning("number %d", number)
            quiet.warning("the end", always=True)

        messages = [record.getMessage() for record in logged.records]
        self.assertEqual(messages, ["number 0", "the end (4 more since the last such line)"])

    def test_two_kinds_do_not_hold_each_other_back(self):
        quiet = Quiet(60)
        with self.assertLogs("resilient_cache") as logged:
            self.assertTrue(quiet.warning("one", kind="a"))
            self.assertTrue(quiet.warning("two", kind="b"))
            self.assertFalse(quiet.warning("three", kind="a"))

        self.assertEqual(len(logged.records), 2)

    def test_a_server_that_invents_kinds_does_not_fill_the_memory(self):
        quiet = Quiet(60)
        with self.assertLogs("resilient_cache"):
            for number in range(5 * MOST_KINDS):
                quiet.warning("line", kind=number)
            self.assertTrue(quiet.warning("line", kind=0))

    def test_an_error_that_the_cache_hides_is_written_once_per_kind(self):
        with self.assertLogs("resilient_cache") as logged:
            for _ in range(3):
                hidden_error("a test", ValueError(), "CROSSSLOT Keys in request")
                hidden_error("a test", ValueError(), "TRYAGAIN Multiple keys")

        self.assertEqual(len(logged.records), 2)
        self.assertIn("a test refuses a command", logged.output[0])
        self.assertIn("CROSSSLOT", logged.output[0])
