"""What visitors get while Redis fails, with the settings of this blog and with plain ones."""

import json
import re
from pathlib import Path
from unittest import mock

from django.test import Client, tag

from blog.tests.test_browser import BrowserTestCase
from lab import outage
from lab.outage import hangs, is_full, refuses
from lab.tests import LabTestCase

# Shorter than on the page. Expiry and the breaker's probe take a second each.
PHASES = (
    (None, 0.5),
    (hangs, 1.5),
    (None, 2),
    (refuses, 1.5),
    (None, 2),
    (is_full, 2),
    (None, 1),
)
OURS, PLAIN = "this blog’s", "plain"


def start(visitors_each=2):
    response = Client().post("/lab/outage/", {"visitors_each": visitors_each})
    assert response.status_code == 200, response
    return response


def lines_of(response):
    lines = [json.loads(line) for line in b"".join(response).splitlines() if line]
    response.close()
    return lines


@tag("outage")
class OutageTests(LabTestCase):
    """One run of all faults, and what it showed."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.enterClassContext(mock.patch.object(outage, "PHASES", PHASES))
        case = cls()
        with case.assertLogs("resilient_cache", "WARNING") as logs:
            cls.lines = lines_of(start())
        cls.logs = logs.output

    def row(self, phase, crowd):
        """Return {column: cell} of the table's last word."""
        cells = self.rows(self.lines, "phases")[f"{phase} {crowd}"]
        names = ("redis", "settings", "rate", "median", "worst", "errors")
        return dict(zip(names, cells, strict=True))

    def ticks(self, phase):
        """Return the ticks of a phase, by its number."""
        numbers, number = [], -1
        for line in self.lines:
            if line["kind"] == "phase":
                number += 1
            elif line["kind"] == "tick" and number == phase:
                numbers.append(line)
        return numbers

    def arrived(self, phase, crowd):
        index = (OURS, PLAIN).index(crowd)
        return sum(tick["crowds"][index]["pages"] for tick in self.ticks(phase))

    def test_it_ends_and_all_phases_were_told(self):
        names = [line["name"] for line in self.lines if line["kind"] == "phase"]

        expected = ["works", "hangs", "works", "refuses", "works", "is full", "works"]
        self.assertEqual(names, expected)
        self.assertEqual(self.lines[-1]["kind"], "end")

    def test_no_page_fails_with_either_settings(self):
        for key, cells in self.rows(self.lines, "phases").items():
            with self.subTest(key):
                self.assertEqual(cells[-1], "0")

    def test_while_it_hangs_this_blog_answers_and_plain_settings_wait(self):
        self.assertGreater(self.arrived(1, OURS), self.arrived(1, PLAIN))

    def test_hung_or_refusing_it_opens_the_breaker_until_it_is_back(self):
        for phase in (1, 3):
            with self.subTest(phase):
                self.assertTrue(any(tick["open"] for tick in self.ticks(phase)))
                self.assertFalse(all(tick["open"] for tick in self.ticks(phase + 1)))

    def test_in_the_end_it_says_what_each_fault_left(self):
        said = [line["text"] for line in self.lines if line["kind"] == "say"][-1]

        hung = [self.row(1, crowd)["rate"] for crowd in (OURS, PLAIN)]
        self.assertIn(f"while it hangs: {' and '.join(hung)}, it refuses: ", said)
        self.assertIn("it is full: ", said)

    def test_what_came_is_who_got_pages_while_it_hung(self):
        [came] = [line["value"] for line in self.lines if line["kind"] == "came"]

        rates = {
            crowd: [int(self.row(at, crowd)["rate"]) for at in (0, 1)] for crowd in (OURS, PLAIN)
        }
        served = {crowd: hung > works / 10 for crowd, (works, hung) in rates.items()}
        expected = {(True, False): "ours", (True, True): "both", (False, True): "plain"}
        self.assertEqual(came, expected.get((served[OURS], served[PLAIN]), "neither"))
        self.assertIn(came, outage.experiment.question.choices)

    def test_the_breaker_is_told_live(self):
        told = [line["text"] for line in self.lines if line.get("name") == "breaker"]

        self.assertEqual({"open", "closed"}, set(told))
        self.assertEqual(told[-1], "closed")

    def test_refusing_it_leaves_both_with_pages_that_are_built(self):
        for crowd in (OURS, PLAIN):
            with self.subTest(crowd):
                self.assertGreater(self.arrived(3, crowd), 0)

    def test_full_it_refuses_what_is_to_be_kept(self):
        refused = [line for line in self.logs if "used memory > 'maxmemory'" in line]

        self.assertTrue(refused, self.logs)

    def test_full_it_is_not_down(self):
        self.assertFalse(any(tick["open"] for tick in self.ticks(5)))
        for crowd in (OURS, PLAIN):
            with self.subTest(crowd):
                self.assertGreater(self.arrived(5, crowd), 0)

    def test_its_redis_is_gone_with_it(self):
        socket = Path(re.search(r"Redis at (\S+)", self.logs[0])[1])

        self.assertNotEqual(socket.parent, Path(socket.anchor))
        self.assertFalse(socket.parent.exists())


@tag("outage")
class RunTests(LabTestCase):
    def setUp(self):
        super().setUp()
        phases = ((None, 0.5), (hangs, 20), (None, 0.5))
        self.enterContext(mock.patch.object(outage, "PHASES", phases))
        self.logs = self.enterContext(self.assertLogs("resilient_cache", "WARNING"))

    def sockets(self):
        return {Path(re.search(r"Redis at (\S+)", line)[1]) for line in self.logs.output}

    def until_open(self, response):
        """Read until the breaker is open."""
        for line in response:
            if b'"open": true' in line:
                return
        self.fail("The breaker never opened.")

    def test_two_at_once_have_a_redis_each(self):
        first, second = start(), start()
        self.until_open(first)
        self.until_open(second)
        for response in (first, second):
            response.close()

        self.assertEqual(len(self.sockets()), 2)


class OptionTests(LabTestCase):
    def test_visitors_out_of_range_are_400_and_name_the_range(self):
        for number, limit in ((0, "greater than or equal to 1"), (9, "less than or equal to 8")):
            with self.subTest(number):
                response = self.client.post("/lab/outage/", {"visitors_each": number})
                self.assertEqual(response.status_code, 400)
                self.assertIn(limit, response.json()["errors"]["visitors_each"][0])

    def test_all_of_it_takes_less_than_thirty_seconds(self):
        self.assertLess(sum(seconds for _, seconds in outage.PHASES), 28)


@tag("browser", "outage")
class OutageInTheBrowserTests(BrowserTestCase, LabTestCase):
    def test_it_is_plotted_while_it_goes_on(self):
        phases = ((None, 0.5), (hangs, 1), (None, 1.5))
        self.enterContext(mock.patch.object(outage, "PHASES", phases))
        self.enterContext(self.assertLogs("resilient_cache", "WARNING"))
        self.page.goto("/lab/outage/")

        self.page.locator("[data-start]").click()
        self.page.locator(".plot-state").first.wait_for()  # The breaker is open.
        self.page.locator('.lab[data-state="done"]').wait_for()

        self.assertEqual(self.page.locator(".plot-band-name").all_text_contents(), ["hangs"])
        self.assertEqual(self.page.locator("[data-table] tbody tr").count(), 6)
        self.assertEqual(self.page.locator('[data-value="breaker"]').inner_text(), "closed")
        self.assertIn("while it hangs: ", self.page.locator(".lab-said").inner_text())

    def test_a_phone_shows_all_of_it(self):
        page = self.visitor(viewport={"width": 360, "height": 640})
        page.goto("/lab/outage/")

        self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), 360)
