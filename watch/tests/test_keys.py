"""What the levels hold: listed, shown without running anything, and expired by hand."""

import json
import os
import pickle
import tempfile
from pathlib import Path
from unittest import mock

from django.conf import settings
from django.core.cache import caches
from django.http import HttpResponse
from django.test import Client
from django_redis.serializers.base import BaseSerializer

from watch import keys as looking
from watch.tests.case import location, watched_caches
from watch.tests.walls import WallTestCase
from watch.wall import kept_state

JSON = {"SERIALIZER": "django_redis.serializers.json.JSONSerializer"}
MINE = "watch.tests.test_keys.Mine"


class Mine(BaseSerializer):
    """A project's own serializer, which returns what no other one does."""

    def dumps(self, value):
        return b"mine"

    def loads(self, value):
        if value == b"deep":
            deep = []
            for _ in range(100_000):
                deep = [deep]
            return deep
        return (7, HttpResponse("<b>page</b>", headers={"X-Test": "1"}))


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


class ListTests(WallTestCase):
    """/watch/state: what Redis holds now."""

    def state(self):
        kept_state.forget()
        return self.client.get("/watch/state").json()

    def listed(self, name):
        return next(level for level in self.state()["levels"] if level["level"] == name)

    def test_it_lists_keys_with_time_left_and_memory(self):
        caches["default"].set("answer", "42" * 50, 30)

        [(key, ttl, memory)] = self.listed("low-level")["keys"]

        self.assertEqual(key, self.key("answer"))
        self.assertTrue(20_000 < ttl <= 30_000)
        self.assertGreater(memory, 100)

    def test_a_key_without_a_timeout_says_so(self):
        caches["default"].set("answer", 42, None)

        self.assertEqual(self.listed("low-level")["keys"][0][1], -1)

    def test_a_key_that_went_meanwhile_is_not_listed(self):
        client = looking.keys.client("default")

        with mock.patch.object(client, "scan", return_value=(0, [self.key("gone").encode()])):
            self.assertEqual(self.listed("low-level")["keys"], [])

    def test_foreign_keys_are_not_listed(self):
        foreign = f"{self.name}-other:1:key"
        self.redis("low-level").set(foreign, 1, ex=60)
        self.addCleanup(self.redis("low-level").delete, foreign)

        self.assertEqual(self.listed("low-level")["keys"], [])

    def test_bookkeeping_is_counted_and_not_listed(self):
        caches["default"].set("group:posts", 1)

        level = self.listed("low-level")

        self.assertEqual((level["keys"], level["aside"]), ([], 1))

    @mock.patch("watch.keys.MAX_KEYS", 5)
    def test_the_list_is_bounded(self):
        caches["default"].set_many({f"key-{number}": number for number in range(50)})

        level = self.listed("low-level")

        self.assertEqual(len(level["keys"]), 5)
        self.assertGreaterEqual(level["total"], 50)

    def test_what_is_a_pattern_to_redis_is_text_in_a_prefix(self):
        for prefix in ("a*", "a[bc]", "a\\*", "a?", "[^a]", "a-z"):
            with self.subTest(prefix):
                name = f"{self.name}-{prefix}"
                with self.settings(CACHES=watched_caches(name)):
                    caches["default"].set("mine", 1)
                    self.redis("low-level").set(f"{self.name}-abc-low-level:1:other", 1, ex=9)

                    rows = self.listed("low-level")["keys"]

                    self.assertEqual([row[0] for row in rows], [f"{name}-low-level:1:mine"])
                    caches["default"].delete("mine")

    def test_a_key_that_is_no_text_does_no_harm(self):
        self.redis("low-level").set(self.key("").encode() + b"\xff\x00", 1, ex=60)

        [(key, _, _)] = self.listed("low-level")["keys"]

        self.assertEqual(key, self.key("\\xff\x00"))

    def test_it_tells_what_redis_says_of_itself(self):
        [server] = self.state()["servers"]

        self.assertEqual(server["levels"], ["site", "view", "fragment", "low-level"])
        self.assertGreater(server["used_memory"], 0)
        self.assertIn("evicted_keys", server)

    def test_redis_is_asked_once_a_second_however_many_look(self):
        kept_state.forget()
        with mock.patch.object(looking.keys, "listed", return_value=[]) as listed:
            for _ in range(10):
                self.client.get("/watch/state")

        self.assertEqual(listed.call_count, 1)

    def test_looking_changes_nothing(self):
        caches["default"].set("answer", 42, 60)
        redis = self.redis("low-level")
        before = {key: redis.dump(key) for key in redis.scan_iter(f"{self.name}*")}

        for path in ("", "events", "state"):
            self.client.get(f"/watch/{path}")

        after = {key: redis.dump(key) for key in redis.scan_iter(f"{self.name}*")}
        self.assertEqual(before, after)


class ShowTests(WallTestCase):
    """/watch/keys/show: nothing is run to show a value."""

    cache_options = JSON

    def show(self, key, status=200, **more):
        response = self.client.post("/watch/keys/show", {"key": key, **more})
        self.assertEqual(response.status_code, status, response.content)
        self.assertIn("no-store", response.headers["Cache-Control"])
        return response.json() if status == 200 else None

    def test_it_shows_the_value_its_size_and_its_time(self):
        caches["default"].set("answer", {"a": [1, None]}, 30)

        answer = self.show(self.key("answer"))

        self.assertEqual(answer["text"], "{'a': [1, None]}")
        self.assertEqual((answer["type"], answer["level"]), ("string", "low-level"))
        self.assertEqual(answer["bytes"], len(json.dumps({"a": [1, None]})))
        self.assertTrue(20_000 < answer["ttl"] <= 30_000)

    def test_an_integer_is_stored_as_its_digits(self):
        caches["default"].set("answer", -42)

        self.assertEqual(self.show(self.key("answer"))["text"], "-42")

    def test_a_long_value_is_cut(self):
        caches["default"].set("answer", "x" * 10_000)

        self.assertEqual(len(self.show(self.key("answer"))["text"]), looking.MAX_SHOWN + 1)

    @mock.patch("watch.keys.MAX_DECODED", 100)
    def test_of_a_very_long_value_only_the_size_is_told(self):
        caches["default"].set("answer", "x" * 200)

        answer = self.show(self.key("answer"))

        self.assertEqual((answer["bytes"], answer["text"]), (202, None))

    def test_broken_bytes_are_said_to_be_broken(self):
        self.redis("low-level").set(self.key("answer"), b"{not json", ex=60)

        self.assertEqual(self.show(self.key("answer"))["why"], "It can't be read: JSONDecodeError.")

    def test_of_another_type_only_the_type_is_told(self):
        self.redis("low-level").lpush(self.key("answer"), 1)

        self.assertEqual(self.show(self.key("answer"))["type"], "list")

    def test_an_unknown_key_is_404(self):
        self.show(self.key("nowhere"), 404)

    def test_a_foreign_prefix_is_403(self):
        for key in ("", "sessions:1:x", self.name, f"{self.name}:listener", f"x{self.key('a')}"):
            with self.subTest(key):
                self.show(key, 403)
                self.show(key, 403, level="low-level")
        self.show(self.key("answer"), 403, level="view")
        self.show(self.key("answer"), 403, level="no such level")

    def test_get_is_not_allowed(self):
        self.assertEqual(self.client.get("/watch/keys/show").status_code, 405)


class PickleTests(WallTestCase):
    """django-redis pickles by default, and reading a pickle runs what it says."""

    def bomb(self):
        """Put a pickle into Redis that makes a folder when it is read. Return that folder."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name, "unpickled")
        self.redis("low-level").set(self.key("answer"), pickle.dumps(Bomb(str(path))), ex=60)
        return path

    def look(self):
        return self.client.post("/watch/keys/show", {"key": self.key("answer")}).json()

    def test_a_pickle_is_never_read(self):
        path = self.bomb()

        answer = self.look()

        self.assertEqual(answer["text"], None)
        self.assertIn("pickle", answer["why"])
        self.assertFalse(path.exists())

    def test_nor_is_anything_else_that_nobody_called_safe(self):
        path = self.bomb()
        with self.settings(CACHES=watched_caches(self.name, SERIALIZER=MINE)):
            self.assertEqual(self.look()["text"], None)
        self.assertFalse(path.exists())

    def test_nor_what_is_compressed(self):
        self.bomb()
        zlib = "django_redis.compressors.zlib.ZlibCompressor"
        with self.settings(CACHES=watched_caches(self.name, COMPRESSOR=zlib, **JSON)):
            self.assertIn("compressed", self.look()["why"])

    def test_a_project_names_its_own_safe_serializer(self):
        self.redis("low-level").set(self.key("answer"), b"mine", ex=60)
        watch = settings.WATCH | {"SAFE_SERIALIZERS": [MINE]}
        with self.settings(CACHES=watched_caches(self.name, SERIALIZER=MINE), WATCH=watch):
            text = self.look()["text"]

        self.assertTrue(text.startswith("7\nHTTP 200\n"))
        self.assertIn("X-Test: 1\n", text)
        self.assertTrue(text.endswith("\n\n<b>page</b>"))

    def test_a_backend_names_its_own_serializer(self):
        cache = watched_caches(self.name)["default"]
        cache["BACKEND"] = "watch.tests.backends.AddsDatabase"
        cache["LOCATION"] = location(0).rpartition("/")[0]
        with self.settings(CACHES={"default": cache}):
            caches["default"].set("answer", ["tea"], 60)

            self.assertEqual(self.look()["text"], "['tea']")

    def test_a_value_that_is_nested_too_deeply_does_no_harm(self):
        self.redis("low-level").set(self.key("answer"), b"deep", ex=60)
        watch = settings.WATCH | {"SAFE_SERIALIZERS": [MINE]}
        with self.settings(CACHES=watched_caches(self.name, SERIALIZER=MINE), WATCH=watch):
            self.assertEqual(self.look()["why"], "It can't be read: RecursionError.")


class ExpireTests(WallTestCase):
    """/watch/keys/expire: the key ends as if its time were over."""

    def expire(self, key):
        return self.client.post("/watch/keys/expire", {"key": key}).status_code

    def test_the_key_is_gone_at_once(self):
        caches["default"].set("answer", 42, 60)

        self.assertEqual(self.expire(self.key("answer")), 200)

        self.eventually(lambda: caches["default"].get("answer") is None)

    def test_the_list_of_keys_is_made_anew(self):
        caches["default"].set("answer", 42, 60)
        kept_state.forget()

        with mock.patch("watch.wall.STATE_AGE", 60):
            before = self.client.get("/watch/state").json()["at"]
            self.expire(self.key("answer"))
            after = self.client.get("/watch/state").json()["at"]

        self.assertGreater(after, before)

    def test_redis_tells_that_it_expired(self):
        caches["default"].set("answer", 42, 60)
        self.client.get("/watch/events")
        self.eventually(lambda: (self.holder() or {}).get("notifications") == "on")

        self.expire(self.key("answer"))

        event = self.eventually(
            lambda: next((event for event in self.events() if event["kind"] == "expired"), None)
        )
        self.assertEqual((event["level"], event["key"]), ("low-level", self.key("answer")))

    def test_an_unknown_key_is_404_and_a_foreign_one_403(self):
        self.redis("low-level").set("somebody-elses", 1, ex=60)
        self.addCleanup(self.redis("low-level").delete, "somebody-elses")

        self.assertEqual(self.expire(self.key("nowhere")), 404)
        self.assertEqual(self.expire("somebody-elses"), 403)
        self.assertGreater(self.redis("low-level").pttl("somebody-elses"), 1000)

    def test_without_the_token_of_the_page_it_is_403(self):
        caches["default"].set("answer", 42, 60)
        client = Client(enforce_csrf_checks=True)

        for path in ("show", "expire"):
            with self.assertLogs("django.security.csrf"):
                response = client.post(f"/watch/keys/{path}", {"key": self.key("answer")})
            self.assertEqual(response.status_code, 403)

        self.assertEqual(caches["default"].get("answer"), 42)

    def test_get_is_not_allowed(self):
        caches["default"].set("answer", 42, 60)

        response = self.client.get("/watch/keys/expire", {"key": self.key("answer")})

        self.assertEqual(response.status_code, 405)
        self.assertEqual(caches["default"].get("answer"), 42)


class OffTests(WallTestCase):
    """Without KEY_ACTIONS, a key can neither be shown nor expired by hand."""

    watch = {"KEY_ACTIONS": False}

    def test_the_addresses_do_not_exist(self):
        caches["default"].set("answer", 42, 60)
        for client in (self.client, Client(enforce_csrf_checks=True)):
            for path in ("show", "expire"):
                for method in (client.get, client.post):
                    response = method(f"/watch/keys/{path}", {"key": self.key("answer")})

                    self.assertEqual(response.status_code, 404)

        self.assertEqual(caches["default"].get("answer"), 42)

    def test_the_page_has_no_buttons_and_sets_no_cookie(self):
        response = self.client.get("/watch/")

        self.assertNotContains(response, "csrfmiddlewaretoken")
        self.assertFalse(response.cookies)


class UnprefixedTests(WallTestCase):
    """A level without KEY_PREFIX has a database to itself, and must be named."""

    def setUp(self):
        super().setUp()
        cache = watched_caches(self.name)["default"]
        cache["KEY_PREFIX"] = ""
        only = self.settings(
            CACHES={"default": cache | {"OPTIONS": cache["OPTIONS"] | JSON}},
            MIDDLEWARE=[],
            WATCH={"STREAM": self.name, "STREAM_URL": "unix:///nowhere", "KEY_ACTIONS": True},
        )
        only.enable()
        self.addCleanup(only.disable)

    def forget_wall(self):
        self.redis("low-level").delete(f":1:{self.name}")

    def forget(self):
        pass

    def test_without_the_level_nobody_knows_whose_key_it_is(self):
        caches["default"].set(self.name, "text", 60)

        for level, status in [("default", 200), ("", 403)]:
            answer = self.client.post(
                "/watch/keys/show", {"key": f":1:{self.name}", "level": level}
            )
            self.assertEqual(answer.status_code, status)


class SharedDatabaseTests(WallTestCase):
    """Two levels in one database, one prefix the beginning of the other: the longer one owns."""

    def setUp(self):
        super().setUp()
        cache = watched_caches(self.name)["default"]
        cache["OPTIONS"] |= JSON
        inner = cache | {"KEY_PREFIX": f"{cache['KEY_PREFIX']}:inner"}
        shared = self.settings(
            CACHES={"default": cache, "inner": inner},
            MIDDLEWARE=[],
            WATCH=settings.WATCH | {"LEVELS": {"default": "outer", "inner": "inner"}},
        )
        shared.enable()
        self.addCleanup(shared.disable)
        kept_state.forget()
        caches["default"].set("mine", "text", 60)
        caches["inner"].set("theirs", "text", 60)
        self.inner_key = self.key("theirs").replace(":1:", ":inner:1:")

    def test_each_level_lists_its_own(self):
        levels = self.client.get("/watch/state").json()["levels"]

        found = {level["level"]: [key for key, *_ in level["keys"]] for level in levels}
        self.assertEqual(found, {"outer": [self.key("mine")], "inner": [self.inner_key]})

    def test_a_key_is_not_touched_in_the_name_of_another_level(self):
        for level, status in [("outer", 403), ("inner", 200), ("", 200), ("nobody", 403)]:
            answer = self.client.post("/watch/keys/show", {"key": self.inner_key, "level": level})
            self.assertEqual(answer.status_code, status, level)
