"""The feed as a browser gets it: pushed, or asked for, and resumed where it ended."""

import asyncio
import json
from unittest import mock

from django.conf import settings
from django.test import AsyncClient

from watch import wall
from watch.feed import connect
from watch.tests.case import WatchTestCase
from watch.tests.walls import WallTestCase, a_request

BAD_IDS = ["", "$", "-", "+", "x", "1-2-3", "-1", "1-", " 1", "1.5", "١", "0x10", "9" * 30]


def parse(chunks):
    """Return [(ID, event)] of server-sent events, and the last ID that they name."""
    found, last = [], None
    for block in "".join(chunks).split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if line[:1] not in ("", ":"))
        last = lines.get("id", last)
        if "data" in lines:
            found.append((last, json.loads(lines["data"])))
    return found, last


@mock.patch("watch.wall.BLOCK", 0.02)
class StreamCase(WallTestCase):
    def open(self, after=None, **headers):
        """Return the response of a stream, which is closed at the end of the test."""
        query = "" if after is None else {"after": after}
        response = self.client.get("/watch/stream", query, headers=headers)
        self.addCleanup(response.close)
        return response

    def read(self, response, events):
        """Return [(ID, event)], so many of them, and the last ID."""
        chunks, found = [], []
        for chunk in response.streaming_content:
            chunks.append(chunk.decode())
            found, last = parse(chunks)
            if len(found) >= events:
                return found, last
        self.fail(f"The stream ended after {len(found)} of {events} events.")
        return None


class StreamTests(StreamCase):
    """/watch/stream"""

    def test_it_tells_what_happens_from_now_on(self):
        self.publish(a_request("/before/"))
        response = self.open()
        body = iter(response.streaming_content)
        next(body)

        [number] = self.publish(a_request("/after/"))

        [(found, event)], _ = parse([next(body).decode()])
        self.assertEqual((found, event["path"]), (number, "/after/"))

    def test_a_request_that_is_watched_arrives(self):
        response = self.open()

        self.client.get("/low-level/")

        [(_, event)], _ = self.read(response, 1)
        self.assertEqual(event["path"], "/low-level/")

    def test_nobody_may_keep_or_hold_it_up(self):
        response = self.open()

        self.assertEqual(response.headers["Content-Type"], "text/event-stream")
        self.assertIn("no-store", response.headers["Cache-Control"])
        self.assertEqual(response.headers["X-Accel-Buffering"], "no")

    def test_it_resumes_without_loss_or_repeat(self):
        first = self.open(after="0")
        sent = [self.publish(a_request(f"/{number}/"))[0] for number in range(30)]
        before, last = self.read(first, 10)
        first.close()
        sent += self.publish(*(a_request(f"/{number}/") for number in range(30, 500)))

        after, _ = self.read(self.open(**{"Last-Event-ID": last}), 500 - len(before))

        self.assertEqual([number for number, _ in before + after], sent)

    def test_a_stream_without_events_has_an_id_to_resume_with(self):
        self.publish(a_request("/before/"))
        response = self.open()
        _, last = parse([next(iter(response.streaming_content)).decode()])
        response.close()
        [missed] = self.publish(a_request("/while-nobody-listened/"))

        [(number, _)], _ = self.read(self.open(**{"Last-Event-ID": last}), 1)

        self.assertEqual(number, missed)

    def test_the_header_wins_over_the_parameter(self):
        numbers = self.publish(a_request("/1/"), a_request("/2/"), a_request("/3/"))

        response = self.open(after="0", **{"Last-Event-ID": numbers[1]})

        self.assertEqual(self.read(response, 1)[0][0][0], numbers[2])

    def test_a_bad_id_means_from_now_on(self):
        [newest] = self.publish(a_request())
        for text in BAD_IDS:
            for where in ({"after": text}, {"Last-Event-ID": text}):
                with self.subTest(**where):
                    response = self.open(**where)

                    self.assertEqual(response.status_code, 200)
                    first = next(iter(response.streaming_content)).decode()
                    self.assertIn(f"id: {newest}\n", first)
                    response.close()

    def test_an_id_of_the_future_means_from_now_on(self):
        [newest] = self.publish(a_request())

        response = self.open(after="99999999999999-0")

        self.assertIn(f"id: {newest}\n", next(iter(response.streaming_content)).decode())

    def test_while_nothing_happens_it_writes_a_comment(self):
        body = iter(self.open().streaming_content)
        next(body)

        self.assertTrue(next(body).startswith(b":"))

    def test_it_ends_so_that_a_worker_can(self):
        with mock.patch("watch.wall.LIFETIME", 0):
            response = self.open()

        self.assertEqual(list(response.streaming_content), [])

    def test_a_line_break_in_the_stream_begins_no_other_event(self):
        self.publish('{"path":\n"/1/"\r\n\n}')

        [(_, event)], _ = self.read(self.open(after="0"), 1)

        self.assertEqual(event, {"path": "/1/"})

    def test_what_is_no_event_is_left_out(self):
        connect().xadd(self.name, {"other": "field"})
        self.publish(a_request("/1/"))

        [(_, event)], _ = self.read(self.open(after="0"), 1)

        self.assertEqual(event["path"], "/1/")

    def test_post_is_not_allowed(self):
        self.assertEqual(self.client.post("/watch/stream").status_code, 405)


class PlaceTests(StreamCase):
    """A stream holds a thread, so a process has few."""

    def test_beyond_the_places_it_is_204_so_that_the_browser_asks_instead(self):
        self.open()

        self.assertEqual(self.open().status_code, 204)

    def test_closing_frees_the_place(self):
        self.open().close()

        self.assertEqual(self.open().status_code, 200)

    def test_a_stream_that_is_read_and_closed_frees_the_place(self):
        response = self.open()
        next(iter(response.streaming_content))
        response.close()

        self.assertEqual(self.open().status_code, 200)

    def test_a_response_that_nobody_closes_frees_the_place(self):
        body = wall.Stream((0, 0))
        self.assertTrue(wall.places.take(body))

        del body

        self.assertEqual(self.open().status_code, 200)

    def test_closing_twice_frees_one_place(self):
        first = self.open()
        first.close()
        second = self.open()
        first.close()

        self.assertEqual((second.status_code, self.open().status_code), (200, 204))

    def test_a_project_with_many_threads_can_have_more(self):
        with self.settings(WATCH=settings.WATCH | {"STREAMS": 2}):
            statuses = [self.open().status_code for _ in range(3)]

        self.assertEqual(statuses, [200, 200, 204])


@mock.patch("watch.wall.BLOCK", 0.02)
class AsyncTests(WallTestCase):
    """Django would read an ordinary iterator to its end before it sends anything."""

    def test_events_arrive_one_by_one_and_the_place_is_freed(self):
        async def listen():
            response = await AsyncClient().get("/watch/stream", query_params={"after": "0"})
            body = aiter(response.streaming_content)
            chunks = [(await anext(body)).decode(), (await anext(body)).decode()]
            taken = (await AsyncClient().get("/watch/stream")).status_code
            await body.aclose()
            return chunks, taken

        self.publish(a_request("/1/"))
        chunks, taken = asyncio.run(listen())

        self.assertEqual(parse(chunks)[0][0][1]["path"], "/1/")
        self.assertEqual(taken, 204)
        self.eventually(lambda: wall.places.take(self))
        wall.places.leave(self)


class EventsTests(WallTestCase):
    """/watch/events: the same by asking."""

    def ask(self, after=None):
        query = {} if after is None else {"after": after}
        response = self.client.get("/watch/events", query)
        self.assertEqual(response.status_code, 200)
        self.assertIn("no-store", response.headers["Cache-Control"])
        return response.json()

    def test_it_tells_what_came_after_an_id(self):
        numbers = self.publish(a_request("/1/"), a_request("/2/"), a_request("/3/"))

        answer = self.ask(numbers[0])

        self.assertEqual([item["id"] for item in answer["events"]], numbers[1:])
        self.assertEqual([item["event"]["path"] for item in answer["events"]], ["/2/", "/3/"])
        self.assertEqual(answer["last"], numbers[2])

    def test_without_an_id_it_tells_where_now_is(self):
        [newest] = self.publish(a_request())

        self.assertEqual(self.ask(), {"events": [], "last": newest, "redis": "up"})

    def test_an_empty_stream_begins_at_zero(self):
        self.assertEqual(self.ask()["last"], "0-0")

    def test_an_answer_is_bounded_and_nothing_is_lost(self):
        numbers = self.publish(*(a_request(f"/{number}/") for number in range(450)))

        found, after = [], "0"
        while (answer := self.ask(after))["events"]:
            self.assertLessEqual(len(answer["events"]), 200)
            found += [item["id"] for item in answer["events"]]
            after = answer["last"]

        self.assertEqual(found, numbers)

    def test_a_bad_id_means_from_now_on(self):
        [newest] = self.publish(a_request())
        for text in [
            *BAD_IDS,
            "1\n2",
            "99999999999999",
            "18446744073709551615-18446744073709551615",
        ]:
            with self.subTest(after=text):
                self.assertEqual(self.ask(text), {"events": [], "last": newest, "redis": "up"})

    def test_what_is_no_json_is_left_out(self):
        numbers = self.publish(a_request("/1/"), "{no json", b"\xff", a_request("/2/"))

        answer = self.ask("0")

        self.assertEqual([item["id"] for item in answer["events"]], [numbers[0], numbers[3]])

    def test_json_that_nobody_can_read_is_left_out(self):
        start = self.ask()["last"]
        deep = '{"a":' * 100_000 + "1" + "}" * 100_000
        numbers = self.publish(deep, "5", "[]", a_request("/2/"))

        events = self.ask(start)["events"]

        self.assertEqual([item["id"] for item in events], [numbers[3]])

    def test_what_can_be_read_and_not_told_is_no_error(self):
        for depth in range(500, 1000, 20):
            start = self.ask()["last"]
            self.publish('{"a":' * depth + "1" + "}" * depth)

            with self.subTest(depth):
                self.ask(start)

    def test_an_id_behind_all_others_is_no_error(self):
        self.publish(a_request())
        connect().xadd(self.name, {"e": "{}"}, f"{2**63}-0")

        for after in (None, "0"):
            with self.subTest(after=after):
                self.ask(after)
        self.assertEqual(self.client.get("/watch/").status_code, 200)

    def test_going_over_from_the_stream_to_asking_loses_nothing(self):
        numbers = self.publish(*(a_request(f"/{number}/") for number in range(5)))
        with mock.patch("watch.wall.BATCH", 2):
            stream = wall.Stream((0, 0))
            pushed, last = parse([next(stream), next(stream)])

        asked = [item["id"] for item in self.ask(last)["events"]]

        self.assertEqual([number for number, _ in pushed] + asked, numbers)


class RedisAwayTests(WatchTestCase):
    """Redis is away: the wall says so, and waits for nobody."""

    watch = {"STREAM_URL": "unix:///nowhere/redis.sock"}

    def forget(self):
        wall.reader.forget()
        wall.listener.stop()

    @mock.patch("watch.listener._logger")
    def test_every_address_answers(self, logger):
        for path, status in [("events", 200), ("state", 200), ("stream", 204)]:
            with self.subTest(path):
                response = self.client.get(f"/watch/{path}")

                self.assertEqual(response.status_code, status)
                if status == 200:
                    self.assertEqual(response.json()["redis"], "down")

    @mock.patch("watch.listener._logger")
    def test_a_redis_that_failed_is_left_alone_for_a_moment(self, logger):
        self.client.get("/watch/events")

        with mock.patch.object(wall.reader, "after") as ask:
            self.assertEqual(self.client.get("/watch/events").json()["redis"], "down")
            self.assertEqual(self.client.get("/watch/stream").status_code, 204)

        ask.assert_not_called()


class NothingWatchedTests(WatchTestCase):
    """No alias has this app's client: the wall says that it is off."""

    def setUp(self):
        super().setUp()
        caches = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
        self.change(CACHES=caches, WATCH={}, MIDDLEWARE=[])

    def forget(self):
        pass

    def test_every_address_answers_and_asks_no_redis(self):
        with mock.patch("watch.wall.connect", side_effect=AssertionError):
            self.assertEqual(self.client.get("/watch/events").json()["redis"], "off")
            self.assertEqual(self.client.get("/watch/state").json()["redis"], "off")
            self.assertEqual(self.client.get("/watch/stream").status_code, 204)
            self.assertContains(self.client.get("/watch/"), "No cache is watched")
