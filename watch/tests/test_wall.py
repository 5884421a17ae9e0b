"""The wall of several processes: one feed, one of them listening, and places that come free."""

import json
import os
import signal
import threading
import time
from collections import Counter
from dataclasses import replace
from unittest import mock

from django.conf import settings
from django.core.cache import caches
from django.test import SimpleTestCase

from watch import keys
from watch import listener as listening
from watch.feed import connect
from watch.listener import Ear, Listener, Term, lock_key, viewers_key
from watch.tests.walls import Listening, WallTestCase, a_request, needs_gunicorn, pid_of
from watch.wall import kept_state


class PageTests(WallTestCase):
    """/watch/"""

    def test_nobody_may_keep_it(self):
        self.assertIn("no-store", self.client.get("/watch/").headers["Cache-Control"])

    def test_nothing_is_inline(self):
        html = self.client.get("/watch/").content.decode()

        self.assertNotRegex(html, r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:")

    def test_it_begins_with_what_happened_lately(self):
        self.publish(*(a_request(f"/{number}/") for number in range(300)))
        response = self.client.get("/watch/")

        after = json.loads(response.context["config"])["after"]

        answer = self.client.get("/watch/events", {"after": after}).json()
        self.assertEqual(len(answer["events"]), 200)
        self.assertEqual(answer["events"][-1]["event"]["path"], "/299/")

    def test_what_it_hands_to_the_script_can_not_end_the_attribute(self):
        with self.settings(WATCH=settings.WATCH | {"LEVELS": {"default": """x"'><script>"""}}):
            html = self.client.get("/watch/").content.decode()

        self.assertNotIn("<script>", html)


def is_ada(request):
    return request.headers.get("X-Name") == "Ada"


class ViewersTests(WallTestCase):
    """WATCH["WALL"] says who may see the wall."""

    addresses = ("", "stream", "events", "state", "keys/show", "keys/expire")

    def statuses(self, **headers):
        found = {}
        for path in self.addresses:
            ask = self.client.post if path.startswith("keys/") else self.client.get
            response = ask(f"/watch/{path}", {"key": self.key("a")}, headers=headers)
            found[path] = response.status_code
            response.close()
        return found

    def test_false_closes_it(self):
        with self.settings(WATCH=settings.WATCH | {"WALL": False}):
            self.assertEqual(set(self.statuses().values()), {404})

    def test_a_function_of_the_project_decides(self):
        with self.settings(WATCH=settings.WATCH | {"WALL": f"{__name__}.is_ada"}):
            self.assertEqual(set(self.statuses().values()), {404})
            answers = self.statuses(**{"X-Name": "Ada"})

        self.assertEqual([answers[path] for path in self.addresses[:4]], [200] * 4)


class BreakerTests(WallTestCase):
    """What the circuit breakers of the process that answers say."""

    cache_options = {"CONNECTION_POOL_CLASS": "watch.tests.backends.BrokenPool"}

    def test_the_state_is_told_without_the_reason(self):
        with self.settings(CACHES=elsewhere()):
            breakers = self.client.get("/watch/state").json()["breakers"]

        levels = ["site", "view", "fragment", "low-level"]
        told = {"levels": levels, "redis": "down", "since": 1767225600}
        self.assertEqual(breakers, [told])  # The reason has addresses in it.


def elsewhere():
    """Return CACHES at other URLs: django-redis shares the pools of the same URL."""
    return {
        alias: options | {"LOCATION": f"{options['LOCATION']}?client_name=other"}
        for alias, options in settings.CACHES.items()
    }


class ListenerTests(WallTestCase):
    """One process tells of what Redis does by itself."""

    def listen(self):
        """Let this process listen, and return what it says of itself once it does."""
        self.client.get("/watch/events")
        self.eventually(lambda: (self.holder() or {}).get("notifications") == "on")
        return self.holder()

    def told(self, kind):
        """Return the events of a kind, as soon as there are some."""
        return self.eventually(lambda: [event for event in self.events() if event["kind"] == kind])

    def test_an_expired_key_is_told(self):
        self.listen()

        caches["view"].set("page", 1, 0.01)

        [event] = self.told("expired")
        self.assertEqual((event["level"], event["key"]), ("view", self.key("page", "view")))

    def test_a_deleted_key_is_told(self):
        self.listen()
        caches["default"].set("answer", 42)

        caches["default"].delete("answer")

        [event] = self.told("deleted")
        self.assertEqual(event["key"], self.key("answer"))

    def test_a_deleted_lock_is_not_told_and_a_deleted_group_is(self):
        self.listen()
        for name in ("lock:answer", "group:posts"):
            caches["default"].set(name, 1)

        caches["default"].delete_many(["lock:answer", "group:posts"])

        self.assertEqual(
            [event["key"] for event in self.told("deleted")], [self.key("group:posts")]
        )

    def test_an_evicted_key_is_told(self):
        holder = self.listen()

        # As Redis does it, without filling all of the memory that other tests use too.
        channel = "__keyevent@0__:evicted"
        self.redis("low-level").publish(channel, self.key("answer"))

        [event] = self.told("evicted")
        self.assertEqual((event["level"], event["worker"]), ("low-level", holder["worker"]))

    def test_foreign_keys_and_its_own_are_not_told(self):
        self.listen()
        redis = self.redis("low-level")
        for key in (f"x{self.key('a')}", f"{self.name}-view:1:in-the-wrong-database", self.name):
            redis.set(key, 1)
            redis.delete(key)
        caches["default"].set("last", 1)
        caches["default"].delete("last")

        self.assertEqual([event["key"] for event in self.told("deleted")], [self.key("last")])

    def test_a_burst_is_told_in_part_and_counted(self):
        self.listen()
        names = [f"key-{number}" for number in range(1000)]
        caches["default"].set_many(dict.fromkeys(names, 1))

        caches["default"].delete_many(names)

        events = self.eventually(
            lambda: (
                (found := self.told("deleted"))
                and sum(event["events"] for event in found) == 1000
                and found
            )
        )
        self.assertLess(len(events), 300)
        self.assertTrue(any(event["key"] == "" for event in events))

    def test_one_of_several_has_the_lock_and_each_event_is_told_once(self):
        others = [Listener() for _ in range(3)]
        for other in others:
            self.addCleanup(other.stop)
            other.wake()
        self.listen()
        caches["default"].set("answer", 42)

        caches["default"].delete("answer")
        caches["default"].set("last", 42)
        caches["default"].delete("last")

        events = self.eventually(
            lambda: [event for event in self.events() if event.get("key") == self.key("last")]
        )
        self.assertEqual(len(events), 1)
        self.assertEqual(len(self.told("deleted")), 2)

    def test_nobody_takes_the_lock_from_another(self):
        first, second = Term(connect()), Term(connect())
        self.assertTrue(first.begin())
        self.addCleanup(first.end)

        self.assertFalse(second.begin())

        self.assertEqual(connect().get(lock_key()).decode(), first.value)

    def test_its_trial_is_not_told_where_every_key_is_a_levels(self):
        level = next(level for level in keys.levels() if level.name == "low-level")
        ear = Ear([replace(level, prefix="")])
        self.addCleanup(ear.close)
        heard = Counter()
        ear.probe()

        while ear.state() is None:
            ear.listen(heard, 0.1)

        self.assertEqual(ear.state(), "on")
        self.assertFalse([key for _, _, key in heard if "probe" in key])

    def test_who_has_lost_the_lock_adds_nothing(self):
        term = Term(connect())
        self.assertTrue(term.begin())
        self.addCleanup(term.end)
        connect().set(lock_key(), "somebody else", px=5000)
        heard = self.key("answer")
        self.redis("low-level").publish("__keyevent@0__:evicted", heard)

        self.eventually(lambda: not term.go_on(threading.Event()))

        self.assertEqual(self.events(), [])

    def test_when_nobody_looks_any_more_nobody_listens(self):
        with mock.patch.object(listening, "WATCHED", 1), mock.patch.object(listening, "BEAT", 0.1):
            self.listen()
            self.assertTrue(connect().exists(viewers_key()))  # Which other processes see too.

            self.eventually(lambda: self.holder() is None)

        self.assertFalse(connect().exists(viewers_key()))

    def test_who_looks_through_another_process_counts(self):
        with mock.patch.object(listening, "WATCHED", 1), mock.patch.object(listening, "BEAT", 0.1):
            first = self.listen()
            deadline = time.monotonic() + 2
            while time.monotonic() < deadline:
                connect().set(viewers_key(), 1, ex=5)

            self.assertEqual(self.holder()["token"], first["token"])

    def test_a_lock_that_says_nothing_is_no_error(self):
        for value in ("5", "[1]", "no json", b"\xff", "[" * 100_000):
            with self.subTest(value[:7]):
                connect().set(lock_key(), value, ex=5)
                kept_state.forget()

                self.assertIsNone(self.client.get("/watch/state").json()["listener"])

    def test_a_redis_that_tells_nothing_is_noticed(self):
        self.tell_keyspace_events("")
        with mock.patch.object(listening, "PROBE_WAIT", 0.2):
            self.client.get("/watch/events")

            self.eventually(lambda: (self.holder() or {}).get("notifications") == "off")

        answer = self.client.get("/watch/state").json()
        self.assertEqual(answer["listener"]["notifications"], "off")
        self.assertNotIn("token", answer["listener"])

    def test_a_redis_that_tells_of_one_kind_only_is_noticed(self):
        self.tell_keyspace_events("Eg")
        with mock.patch.object(listening, "PROBE_WAIT", 0.2):
            self.client.get("/watch/events")

            self.eventually(lambda: (self.holder() or {}).get("notifications") == "off")

    def test_an_outage_is_survived(self):
        with (
            self.assertLogs("watch", "WARNING") as log,
            mock.patch("watch.listener.BEAT", 0.05),
            mock.patch("watch.listener.connect", side_effect=[ConnectionError, connect()]),
        ):
            self.listen()

        self.assertEqual(len(log.output), 1)


@needs_gunicorn
class ProcessTests(WallTestCase):
    """Two workers of gunicorn, with four threads each."""

    def test_both_are_seen_in_one_feed(self):
        server = self.serve()
        wall = Listening(server)
        self.addCleanup(wall.close)
        events, workers = wall.events(), set()

        for number in range(200):
            server.get(f"/never/?{number}")
            _, event = next(events)
            workers.add(event["worker"])
            if len(workers) == 2:
                break

        self.assertEqual(len(workers), 2)

    def test_a_tab_that_is_closed_frees_its_place(self):
        server = self.serve(workers=1)
        first = Listening(server)
        next(iter(first.response))
        self.assertEqual(server.get("/watch/stream")[0], 204)

        first.close()

        self.eventually(lambda: (again := Listening(server)).status == 200 and not again.close())

    def test_ten_walls_leave_threads_for_pages(self):
        server = self.serve()
        walls = [Listening(server) for _ in range(10)]
        for wall in walls:
            self.addCleanup(wall.close)

        statuses = [wall.status for wall in walls]

        self.assertLessEqual(statuses.count(200), 2)
        self.assertEqual(set(statuses), {200, 204})
        for _ in range(20):
            self.assertEqual(server.get("/low-level/")[0], 200)

    def test_when_the_one_that_listens_is_killed_another_takes_over(self):
        server = self.serve()
        killed = self.eventually(lambda: server.get("/watch/events") and self.holder())
        # Both look on, so that there is somebody to take over.
        os.kill(pid_of(killed["worker"]), signal.SIGKILL)

        def next_one():
            server.get("/watch/events")
            caches["default"].set("answer", 42)
            caches["default"].delete("answer")
            return [
                event["worker"]
                for event in self.events()
                if event["kind"] == "deleted" and event["worker"] != killed["worker"]
            ]

        self.assertTrue(self.eventually(next_one))

    def test_it_ends_though_walls_are_open(self):
        server = self.serve()
        wall = Listening(server)
        self.addCleanup(wall.close)

        server.process.terminate()

        self.assertEqual(server.process.wait(60), 0)  # Raises TimeoutExpired if it hangs.


class PositionTests(SimpleTestCase):
    """Anybody can send anything as an ID."""

    def test_ids_are_ordered_as_numbers(self):
        from watch.wall import position

        self.assertLess(position("9-10"), position("10-9"))
        self.assertEqual(position("12"), (12, 0))
