"""How a run starts, streams its lines and ends, whatever the experiment."""

import json
import threading
from unittest import mock

import redis
from django import forms
from django.test import Client, SimpleTestCase, override_settings
from django.urls import include, path

from lab import run as run_module
from lab.experiment import Experiment
from lab.run import RUNS
from mysite.tests.processes import wait_until

ended = threading.Event()


def count(run, number):
    """Tell what the tests look for."""
    for done in range(number):
        run.tell("progress", done=done, of=number)


def wait(run, number):
    ended.clear()
    try:
        run.wait(30)
    finally:
        ended.set()


def fail(run, number):
    raise ValueError("That went wrong.")


def down(run, number):
    raise redis.ConnectionError("Error 111 connecting to 10.0.0.1:6379.")


class NumberForm(forms.Form):
    number = forms.IntegerField(min_value=1, max_value=5)


def experiment(function):
    return Experiment(
        slug=function.__name__,
        title="",
        idea="",
        lesson=(),
        code=(function,),
        form=NumberForm,
        run=function,
    )


urlpatterns = [
    path("", include("mysite.urls")),
    *(url for function in (count, wait, fail, down) for url in experiment(function).urls),
]


@override_settings(ROOT_URLCONF=__name__)
class RunTests(SimpleTestCase):
    def setUp(self):
        self.addCleanup(self.all_places_are_free)  # The last cleanup to run.
        self.enterContext(mock.patch.object(run_module, "HEARTBEAT", 0.01))

    def all_places_are_free(self):
        def are_free():
            taken = [run_module.places.acquire(blocking=False) for _ in range(RUNS)]
            for _ in filter(None, taken):
                run_module.places.release()
            return all(taken)

        self.assertTrue(wait_until(are_free), "a place was not given back")

    def start(self, name, number=3):
        response = self.client.post(f"/{name}/", {"number": number})
        self.addCleanup(response.close)
        return response

    def lines(self, response):
        return [json.loads(line) for line in b"".join(response).splitlines() if line]

    def test_its_lines_come_in_order_and_then_the_end(self):
        lines = self.lines(self.start("count"))

        self.assertEqual([line.get("done") for line in lines], [0, 1, 2, None])
        self.assertEqual(lines[-1], {"kind": "end"})

    def test_a_value_out_of_range_is_400_and_names_the_range(self):
        response = self.start("count", number=6)

        self.assertEqual(response.status_code, 400)
        self.assertIn("less than or equal to 5", response.json()["errors"]["number"][0])

    def test_a_value_that_is_not_a_number_is_400(self):
        self.assertEqual(self.start("count", number="many").status_code, 400)

    def test_without_a_csrf_token_it_is_403(self):
        response = Client(enforce_csrf_checks=True).post("/count/", {"number": 1})

        self.assertEqual(response.status_code, 403)

    def test_another_method_is_405(self):
        self.assertEqual(self.client.put("/count/").status_code, 405)

    def test_closing_the_response_ends_the_run(self):
        response = self.start("wait")
        next(iter(response))

        response.close()

        self.assertTrue(ended.wait(5))

    def test_a_quiet_run_has_a_heartbeat(self):
        with mock.patch.object(run_module, "HEARTBEAT", 0.01):
            response = self.start("wait")

            self.assertEqual(next(iter(response)), b"\n")

    def test_an_error_is_one_line_of_the_result(self):
        with self.assertLogs("lab.run", "ERROR"):
            lines = self.lines(self.start("fail"))

        self.assertEqual(lines, [{"kind": "error", "text": "ValueError: That went wrong."}])

    def test_a_redis_that_is_down_is_not_logged_as_a_failure(self):
        with self.assertNoLogs("lab.run", "ERROR"):
            (line,) = self.lines(self.start("down"))

        self.assertEqual(line["kind"], "error")
        self.assertIn("Redis does not answer", line["text"])

    def test_more_runs_than_places_are_503(self):
        taken = [self.start("wait") for _ in range(RUNS)]
        for response in taken:
            next(iter(response))

        response = self.start("count")

        self.assertEqual(response.status_code, 503)
        self.assertIn("Try again", response.json()["errors"][""][0])

    def test_a_place_is_free_again_after_the_end(self):
        for _ in range(RUNS + 1):
            self.assertEqual(self.lines(self.start("count"))[-1]["kind"], "end")

    def test_the_end_is_told_when_the_place_is_free(self):
        is_free, release = threading.Event(), run_module.places.release
        self.addCleanup(is_free.set)
        with (
            mock.patch.object(run_module, "HEARTBEAT", 0.01),
            mock.patch.object(run_module.places, "release", lambda: is_free.wait(10) and release()),
        ):
            for line in self.start("count"):
                if line == b"\n":  # A heartbeat: it waits, and nothing more was told.
                    is_free.set()

        self.assertTrue(is_free.is_set(), "the end was told before")

    def test_a_response_that_is_not_read_gives_its_place_back(self):
        for _ in range(RUNS + 1):
            response = self.start("count")
            self.assertEqual(response.status_code, 200)
            response.close()

    def test_a_run_that_takes_too_long_is_ended(self):
        with mock.patch.object(run_module, "LIMIT", 0.05):
            lines = self.lines(self.start("wait"))

        self.assertIn("Stopped after", lines[-1]["text"])
