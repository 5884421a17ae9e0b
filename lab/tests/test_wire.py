"""redis-py by hand: what is typed, what goes over the wire, and what Redis holds then."""

from unittest import mock

from django.conf import settings
from django.test import tag
from redis import Redis

from blog.tests.test_browser import BrowserTestCase
from lab import wire
from lab.caches import DATABASE
from lab.compat import PythonParser
from lab.tests import LabPageTestCase, LabTestCase
from mysite.private_redis import use_redis

MINE, OTHER = "0123456789ab", "ba9876543210"


class WireTests(LabPageTestCase):
    def send(self, command, scratch=MINE, status=200):
        response = self.client.post("/lab/wire/", {"command": command, "scratch": scratch})
        self.assertEqual(response.status_code, status)
        return response

    def answer(self, command, scratch=MINE):
        return self.send(command, scratch).context["result"]["answer"]

    def redis(self):
        client = Redis.from_url(settings.REDIS_URL, db=DATABASE)
        self.addCleanup(client.close)
        return client

    def test_a_value_that_was_set_can_be_got(self):
        self.send("SET greeting hello EX 60")

        self.assertEqual(self.answer("GET greeting"), "b'hello'")

    def test_ok_is_true_in_python(self):
        self.assertEqual(self.answer("SET greeting hello EX 60"), "True")

    def test_ex_is_in_seconds(self):
        self.send("SET greeting hello EX 60")

        self.assertIn(self.redis().ttl(f"lab:{MINE}:greeting"), (59, 60))

    def test_px_is_in_milliseconds(self):
        self.send("SET greeting hello PX 60000")

        self.assertGreater(self.redis().pttl(f"lab:{MINE}:greeting"), 50_000)

    def test_nx_leaves_what_is_there(self):
        self.send("SET greeting hello EX 60")

        self.assertEqual(self.answer("SET greeting other NX"), "None")
        self.assertEqual(self.answer("GET greeting"), "b'hello'")

    def test_del_deletes(self):
        self.send("SET greeting hello EX 60")

        self.assertEqual(self.answer("DEL greeting"), "1")
        self.assertEqual(self.answer("TTL greeting"), "-2")

    def test_the_bytes_are_shown_both_ways(self):
        result = self.send("SET greeting hello EX 60").context["result"]

        key = f"lab:{MINE}:greeting"
        words = ["$3", "SET", f"${len(key)}", key, "$5", "hello", "$2", "EX", "$2", "60"]
        self.assertEqual([line for line, _ in result["sent"]], ["*5", *words])
        self.assertEqual(result["sent"][0][1], "an array of 5")
        self.assertEqual(result["sent"][5:7], [("$5", "a text of 5 bytes"), ("hello", "")])
        self.assertEqual(result["received"], [("+OK", "a short text")])

    def test_what_looks_like_the_protocol_is_text_within_a_text(self):
        self.send("SET a *3 EX 60")

        result = self.send("GET a").context["result"]

        self.assertEqual(result["received"], [("$2", "a text of 2 bytes"), ("*3", "")])

    def test_each_kind_of_answer_is_explained(self):
        self.send("SET a hello EX 60")
        for command, line in (
            ("EXISTS a", (":1", "the number 1")),
            ("GET nothing", ("_", "nothing")),
            ("MGET a nothing", ("*2", "an array of 2")),
            ("PING", ("+PONG", "a short text")),
        ):
            with self.subTest(command):
                self.assertEqual(self.send(command).context["result"]["received"][0], line)

    def test_a_long_answer_is_cut(self):
        self.redis().set(f"lab:{MINE}:long", "x" * 200_000, ex=60)

        size, text, end = self.send("GET long").context["result"]["received"]

        self.assertEqual(size, ("$200000", "a text of 200000 bytes"))
        self.assertEqual((end, set(text[0])), (("...", ""), {"x"}))
        self.assertLessEqual(len(text[0]), 2000)

    def test_the_greeting_with_the_password_is_not_shown(self):
        result = self.send("PING").context["result"]

        sent, received = ([line for line, _ in result[way]] for way in ("sent", "received"))
        self.assertEqual((sent, received), (["*1", "$4", "PING"], ["+PONG"]))

    def test_python_says_the_same_with_arguments(self):
        response = self.send("SET greeting hello EX 60 NX")

        self.assertEqual(response.context["python"], "r.set('greeting', 'hello', ex=60, nx=True)")

    def test_what_is_nearly_a_number_is_text(self):
        response = self.send("GET --5")

        self.assertEqual(response.context["python"], "r.get('--5')")

    def test_a_measure_that_says_no_needs_a_command(self):
        response = self.client.post("/lab/wire/", {"measure": "0", "scratch": MINE})

        self.assertEqual(response.status_code, 400)

    def test_an_error_of_redis_is_an_answer(self):
        self.send("SET greeting hello EX 60")

        self.assertIn("not an integer", self.answer("INCR greeting"))

    def test_a_key_without_a_timeout_gets_ten_minutes(self):
        response = self.send("SET greeting hello")

        self.assertEqual(response.context["held"][0]["pttl"], -1)
        self.assertIn(self.redis().ttl(f"lab:{MINE}:greeting"), (599, 600))

    def test_two_people_have_keys_of_their_own(self):
        self.send("SET greeting hello EX 60", MINE)

        self.assertEqual(self.answer("GET greeting", OTHER), "None")

    def test_a_command_that_is_not_allowed_is_a_form_error(self):
        for command in ("FLUSHALL", "CONFIG GET *", "KEYS *", "EVAL x 0", ""):
            with self.subTest(command):
                self.send(command, status=400)

    def test_a_quote_that_is_not_closed_is_a_form_error(self):
        self.assertContains(self.send("SET a 'b", status=400), "No closing", status_code=400)

    def test_a_foreign_prefix_is_refused(self):
        self.send("GET greeting", scratch="*", status=400)

    def test_no_key_outside_of_the_scratch_can_be_named(self):
        self.redis().set("site:secret", "x")

        self.assertEqual(self.answer("GET site:secret"), "None")

    def test_too_few_words_are_an_answer_of_redis(self):
        self.assertIn("wrong number of arguments", self.answer("SET"))

    def test_without_redis_it_says_so(self):
        with use_redis("redis://127.0.0.1:1"):
            self.assertContains(self.send("PING"), "does not answer")

    def test_without_redis_the_parsers_say_so_beside_their_button(self):
        with use_redis("redis://127.0.0.1:1"):
            page = self.client.post("/lab/wire/", {"measure": "on", "scratch": MINE}).text

        self.assertIn("does not answer", page.partition('id="parsers"')[2])

    def test_what_is_typed_is_shown_as_text(self):
        self.assertNotContains(self.send("SET a '<script>alert(1)</script>'"), "<script>alert")

    def test_the_parser_in_use_is_hiredis(self):
        page = self.client.get("/lab/wire/")

        self.assertContains(page, "<strong>hiredis, in C</strong>")
        self.assertContains(page, "_HiredisParser")

    def test_without_hiredis_it_says_so(self):
        with mock.patch.object(wire, "DefaultParser", PythonParser):
            page = self.client.get("/lab/wire/")

        self.assertContains(page, "<strong>redis-py itself, in Python</strong>")

    def test_both_parsers_are_measured(self):
        response = self.client.post("/lab/wire/", {"measure": "on", "scratch": MINE})

        reads = [read for read, *_ in response.context["parsers"]]
        self.assertEqual(reads[-1], "MGET of 1,000 short values")


@tag("browser")
class WireInTheBrowserTests(BrowserTestCase, LabTestCase):
    def test_a_command_of_ones_own_and_then_those_to_try(self):
        self.page.goto("/lab/wire/")
        self.page.locator('[name="command"]').first.fill("SET greeting hi EX 60")
        self.page.locator("[data-start]").click()
        self.page.locator("h2", has_text="SET greeting hi EX 60").wait_for()

        self.page.locator(".lab-command", has_text="GET greeting").first.click()
        self.page.locator("h2", has_text="GET greeting").wait_for()

        self.assertShows("$2\\r\\n  ← a text of 2 bytes\nhi")
        self.assertShows("returns b'hi'")
        self.assertTrue(self.page.url.endswith("#result"))

    def test_both_parsers_are_measured_where_the_button_is(self):
        self.page.goto("/lab/wire/")
        self.page.locator('[name="measure"]:visible').click()

        self.page.locator("th", has_text="MGET of 1,000").wait_for()
        self.assertIn("Python / hiredis", self.page.locator("main").inner_text())

    def test_a_phone_shows_all_of_it(self):
        page = self.visitor(viewport={"width": 360, "height": 640})
        page.goto("/lab/wire/")
        page.locator("[data-start]").click()
        page.locator(".lab-wire").wait_for()

        self.assertEqual(page.evaluate("document.documentElement.scrollWidth"), 360)
