"""The feed: from every process into one bounded stream, at nobody's expense."""

import json
import os
import signal
import time
import warnings
from unittest import mock

from django.core.cache import caches
from django.core.management import CommandError, call_command

from watch.event import OP_FIELDS, Event, new_id, recording
from watch.feed import QUEUE_LENGTH, Feed, connect, feed
from watch.tests.case import WatchTestCase

SECONDS_A_CHILD_LIVES = 60  # If nobody kills it.


def an_event(method="GET", path="/"):
    event = Event(new_id())
    event.at, event.method, event.path, event.status = 1767225600.1234, method, path, 200
    event.sum_up()
    return event


class StreamTests(WatchTestCase):
    """What arrives."""

    def test_a_request_arrives(self):
        response = self.client.get("/low-level/?token=secret")

        event = self.event_of(response)

        self.assertEqual(event["kind"], "request")
        self.assertEqual((event["method"], event["status"]), ("GET", 200))
        self.assertEqual(event["path"], "/low-level/")
        self.assertEqual(event["cache_status"], response.headers["Cache-Status"])

    def test_it_tells_what_each_level_answered(self):
        levels = self.event_of(self.client.get("/low-level/"))["levels"]

        [level] = [level for level in levels if level["level"] == "low-level"]
        self.assertEqual(level["word"], "miss")
        self.assertEqual((level["hits"], level["misses"], level["stored"]), (0, 1, 1))
        self.assertEqual((level["bytes"], level["ttl"]), (2, 60_000))

    def test_it_tells_each_command(self):
        ops = self.ops_of(self.client.get("/low-level/"))
        ops = [op for op in ops if op["level"] == "low-level"]

        self.assertEqual(
            [(op["verb"], op["kind"], op["hit"], op["note"]) for op in ops],
            [
                ("GET", "lookup", False, ""),
                ("SET", "write", None, "stored"),
                ("GET", "readback", True, ""),
            ],
        )
        self.assertEqual({op["key"] for op in ops}, {self.key("answer")})

    def test_it_tells_the_worker(self):
        event = self.event_of(self.client.get("/"))

        self.assertRegex(event["worker"], r"^.+:\d+$")

    def test_of_a_page_with_many_commands_it_tells_the_first(self):
        event = self.event_of(self.client.get("/many/200/"))

        # 200, and the one by which the site level looked for the page.
        self.assertEqual((len(event["ops"]), event["left_out"]), (50, 151))
        self.assertEqual(event["levels"][1]["misses"], 200)

    def test_polls_are_one_operation_with_their_number(self):
        with recording() as event:
            for name in (*["building"] * 60, "answer", "building"):
                caches["default"].get(name)

        told = json.loads(event.as_json())
        ops = [dict(zip(OP_FIELDS, op, strict=True)) for op in told["ops"]]
        self.assertEqual([op["times"] for op in ops], [60, 1, 1])
        self.assertEqual(told["left_out"], 0)
        self.assertEqual(told["levels"][0]["misses"], 62)
        self.assertGreater(ops[0]["us"], ops[1]["us"])

    def test_hostile_text_is_json_all_the_same(self):
        event = an_event('G"\\', '/"\u2028\udc80\n</script>')

        told = json.loads(event.as_json())

        self.assertEqual((told["method"], told["path"]), (event.method, event.path))

    def test_it_has_a_database_of_its_own(self):
        response = self.client.get("/")
        self.event_of(response)

        self.assertEqual(connect().connection_pool.connection_kwargs["db"], 4)

    def test_events_keep_their_order(self):
        responses = [self.client.get("/never/") for _ in range(30)]

        self.event_of(responses[-1])

        numbers = [self.metric(response, "req").partition("@")[0] for response in responses]
        events = [event for event in self.events() if event["kind"] == "request"]
        self.assertEqual([event["id"] for event in events], numbers)


class FeedTestCase(WatchTestCase):
    def new_feed(self):
        """Return a feed of its own, which sends nothing after the test."""
        new = Feed()
        self.addCleanup(new.settings_changed)
        return new

    def idle_feed(self):
        """Return a feed whose thread never starts."""
        new = self.new_feed()
        self.enterContext(mock.patch.object(new, "_start"))
        return new


class BoundTests(FeedTestCase):
    """Neither Redis nor the queue grows without end."""

    watch = {"STREAM_LENGTH": 100}

    def test_the_stream_is_bounded(self):
        for _ in range(600):
            feed.put(an_event())
        feed.put(last := an_event())
        self.eventually(lambda: any(event.get("id") == last.id for event in self.events()))

        # About: Redis drops whole nodes of its list, of 100 entries each.
        self.assertLess(connect().xlen(self.name), 300)

    def test_the_queue_drops_the_oldest_and_counts_them(self):
        full = self.idle_feed()
        events = [an_event() for _ in range(QUEUE_LENGTH + 5)]
        for event in events:
            full.put(event)

        self.assertEqual(full.waiting(), events[5:])
        self.assertEqual(full.dropped, 5)

    def test_what_was_dropped_is_told_in_the_stream(self):
        late = self.new_feed()
        late.dropped = 5

        late.put(an_event())

        told = self.eventually(
            lambda: next((event for event in self.events() if event["kind"] == "dropped"), None)
        )
        self.assertEqual(told["events"], 5)


class RedisAwayTests(FeedTestCase):
    """A stream that can't be written to is nobody's problem."""

    watch = {"STREAM_URL": "unix:///nowhere/redis.sock"}

    def forget(self):
        feed.settings_changed()  # There is nothing where the stream would be.

    def test_pages_answer(self):
        self.assertEqual(self.client.get("/").status_code, 200)

    def test_events_are_dropped_and_counted_and_one_line_is_logged(self):
        lost = self.new_feed()

        with self.assertLogs("watch", "WARNING") as log, mock.patch("watch.feed.PAUSE", 0):
            for _ in range(100):
                lost.put(an_event())
            self.eventually(lambda: lost.dropped == 100)

        self.assertEqual(len(log.output), 1)

    def test_there_is_nothing_to_measure(self):
        with self.assertRaisesMessage(CommandError, "Redis does not answer"):
            call_command("measure_watch")


class SettingsTests(FeedTestCase):
    """Tests of a project repoint its caches, and no event goes to the wrong Redis."""

    def test_what_waits_for_one_redis_is_not_sent_to_another(self):
        repointed = self.idle_feed()
        repointed.put(an_event())

        repointed.settings_changed()

        self.assertEqual(repointed.waiting(), [])

    def test_a_forked_process_has_a_thread_of_its_own(self):
        self.event_of(self.client.get("/"))  # The thread of this process runs.

        with warnings.catch_warnings():
            # Python 3.12 warns of forks with threads around, which is what this is about.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            feed.put(Event("from-the-child"))
            time.sleep(SECONDS_A_CHILD_LIVES)
            os._exit(0)
        try:
            event = self.eventually(
                lambda: next((e for e in self.events() if e["id"] == "from-the-child"), None)
            )
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

        self.assertTrue(event["worker"].endswith(f":{child}"))
