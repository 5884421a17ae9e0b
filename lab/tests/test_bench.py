"""`manage.py bench`: what one quick run prints, writes and draws, and what it leaves behind."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from unittest import skipUnless
from xml.etree import ElementTree

from django.conf import settings
from django.core.management import CommandError, call_command
from django.test import SimpleTestCase

from lab.bench import PARTS
from lab.bench.plot import as_html, as_svg
from lab.bench.report import Table, as_json, as_text, machine
from lab.bench.rounds import cpu_seconds, in_turns
from mysite.processes import environment, wait_until

SVG = "{http://www.w3.org/2000/svg}"


@contextmanager
def started(folder, *options, **variables):
    """Start a bench whose temporary files are all in `folder`, in a session of its own."""
    with subprocess.Popen(
        [sys.executable, "manage.py", "bench", *options],
        cwd=settings.BASE_DIR,
        env=environment(TMPDIR=str(folder), **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def processes_of(folder):
    """Return the command lines of the processes that were told of `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            told = (path / "environ").read_bytes() + (path / "cmdline").read_bytes()
            if os.fsencode(folder) in told:
                found.append((path / "cmdline").read_text().replace("\0", " "))
        except OSError:  # It ended meanwhile, or is somebody else's.
            continue
    return found


class BenchTests(SimpleTestCase):
    """One quick run of everything."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.temporary = cls.folder / "tmp"
        cls.temporary.mkdir()
        cls.json, cls.svg = cls.folder / "run.json", cls.folder / "run.svg"
        options = ("--quick", "--json", str(cls.json), "--plot", str(cls.svg))
        # A Redis and a database that are not to be touched: nobody could even reach them.
        with started(cls.temporary, *options, REDIS_URL="redis://127.0.0.1:1") as process:
            cls.output, cls.progress = process.communicate()
        if process.returncode:
            raise AssertionError(cls.progress)
        cls.report = json.loads(cls.json.read_text())
        cls.tables = {table["title"]: table for table in cls.report["results"]}

    def rows(self, title):
        """Return {name: row} of the one table whose title begins so."""
        (table,) = (table for name, table in self.tables.items() if name.startswith(title))
        return {next(iter(row.values())): row for row in table["rows"]}

    def test_every_part_has_its_tables(self):
        self.assertEqual(
            [table["part"] for table in self.report["results"]],
            [*["levels"] * 3, "parsers", *["backends"] * 2, *["serializers"] * 3, *["growth"] * 3],
        )

    def test_the_machine_and_its_programs_are_named(self):
        machine = self.report["machine"]

        self.assertGreaterEqual(machine["cores"], 1)
        for name in ("cpu", "python", "django", "redis", "redis-py", "gunicorn", "date"):
            with self.subTest(name):
                self.assertTrue(machine[name])
                self.assertIn(str(machine[name]), self.output)

    def test_every_table_says_how_it_was_measured(self):
        for title, table in self.tables.items():
            with self.subTest(title):
                self.assertRegex(table["method"], "edians of 2 rounds")
                self.assertIn(table["method"], self.output)

    def test_every_row_is_printed(self):
        for table in self.report["results"]:
            for row in table["rows"]:
                name = next(iter(row.values()))
                with self.subTest(table["title"], row=name):
                    self.assertRegex(self.output, rf"(?m)^\| +{re.escape(name)} +\|")

    def test_levels_compares_each_level_with_no_cache_and_with_nothing_to_do(self):
        rows = self.rows("CPU of a request")

        self.assertEqual(list(rows), ["whole site", "per view", "fragment", "low-level"])
        for level, row in rows.items():
            with self.subTest(level):
                self.assertGreater(row["no cache"], row["hit"])
                self.assertGreater(row["no cache"], row["bare Django"])
                self.assertGreater(row["no cache"], row["bare WSGI"])

    def test_ratios_are_those_of_the_figures(self):
        for level, row in self.rows("CPU of a request").items():
            with self.subTest(level):
                self.assertAlmostEqual(row["hit / bare Django"], row["hit"] / row["bare Django"])
                self.assertAlmostEqual(row["no cache / hit"], row["no cache"] / row["hit"])

    def test_ratios_stand_by_their_names_too(self):
        row = self.rows("CPU of a request")["per view"]

        name = "CPU of a request, ms: per view: hit / bare Django"
        self.assertEqual(self.report["ratios"][name], row["hit / bare Django"])

    def test_a_page_hit_is_compared_with_plain_cache_page(self):
        rows = self.rows("A page hit")

        for level in ("whole site", "per view"):
            with self.subTest(level):
                plain = rows[f"{level}: plain cache_page"]
                self.assertEqual(plain["requests/s / plain"], 1)
                two = rows[f"{level}: plain cache_page x 2"]
                self.assertEqual(two["/ plain x 2"], 1)
                self.assertGreater(plain["CPU / bare Django"], 1)
                self.assertIn(f"{level}: this blog, watched", rows)

    def test_goals_are_judged_by_the_tables(self):
        cpu, rates = self.rows("CPU of a request"), self.rows("A page hit")
        measured = set()
        for level in ("whole site", "per view"):
            rate = rates[f"{level}: this blog"]
            measured |= {cpu[level]["hit / bare Django"]}
            measured |= {rate["requests/s / plain"], rate["/ plain x 2"]}
        self.assertEqual({goal["measured"] for goal in self.report["goals"]}, measured)
        for goal in self.report["goals"]:
            with self.subTest(goal["goal"]):
                bound, limit = goal["limit"].rsplit(" ", 1)
                below = goal["measured"] <= float(limit)
                self.assertEqual(goal["reached"], below if bound == "at most" else not below)
                word = "reached" if goal["reached"] else "not reached"
                self.assertRegex(self.output, rf"{re.escape(goal['goal'])} .* {word} +\|")

    def test_hiredis_is_faster_for_lists(self):
        row = self.rows("hiredis")["a list of 1,000 items"]

        self.assertGreater(row["Python / hiredis"], 1.5)
        self.assertAlmostEqual(row["Python / hiredis"], row["Python"] / row["hiredis"])

    def test_backends_are_compared_at_two_sizes(self):
        names = {"locmem", "file", "database (SQLite)", "Django's Redis backend"}
        names |= {"django-redis, no options", "this blog: default"}

        for size in ("2 KB", "30 KB"):
            rows = self.rows(f"Cache backends, a value of {size}")
            with self.subTest(size):
                self.assertLessEqual(names, set(rows))
                self.assertTrue(any(name.startswith("memcached") for name in rows))
                self.assertLess(rows["locmem"]["get"], rows["Django's Redis backend"]["get"])

    def test_json_stands_for_plain_values_only(self):
        self.assertNotIn("JSON", self.rows("Serializers, a page"))
        self.assertIn("JSON", self.rows("Serializers, 20 search results"))

    def test_compressors_make_it_smaller_or_say_that_they_are_not_installed(self):
        for name, row in self.rows("Compressors").items():
            with self.subTest(name):
                if name.endswith("(not installed)"):
                    self.assertIsNone(row["bytes"])
                else:
                    self.assertLess(row["bytes / before"], 1)

    def test_an_invalidation_costs_less_than_a_search_through_all_keys(self):
        rows = self.rows("More keys in Redis")

        self.assertEqual(list(rows), ["100", "10,000"])
        self.assertGreater(rows["10,000"]["delete_pattern"], rows["10,000"]["an invalidation"])

    def test_growth_has_a_row_for_each_number_of_clients_and_workers(self):
        self.assertEqual(list(self.rows("More clients")), ["1", "4", "16", "64"])
        self.assertEqual(list(self.rows("More workers")), ["1", "2", "3"])

    def test_progress_is_shown_beside_the_results(self):
        for part in PARTS:
            with self.subTest(part):
                self.assertIn(f" {part}: ", self.progress)
        self.assertNotIn("round 1 of 2", self.output)

    def test_nothing_is_left_behind(self):
        self.assertEqual(list(self.temporary.iterdir()), [])
        self.assertTrue(wait_until(lambda: not processes_of(self.temporary)))
        self.assertEqual(
            {path.name for path in self.folder.iterdir()}, {"tmp", "run.json", "run.svg"}
        )

    def test_the_svg_has_a_label_and_a_dot_for_each_figure(self):
        root = ElementTree.parse(self.svg).getroot()  # noqa: S314 - of our own making.

        self.assertEqual(root.tag, f"{SVG}svg")
        figures = sum(
            row[column] is not None
            for table in self.report["results"]
            for row in table["rows"]
            for column in table["plotted"]
        )
        self.assertEqual(len(root.findall(f".//{SVG}circle")), figures)
        text = [each.text for each in root.iter(f"{SVG}text")]
        for label in (
            "whole site, bare Django",
            "a list of 1,000 items, hiredis",
            "64, half within",
        ):
            with self.subTest(label):
                self.assertIn(label, text)

    def test_no_dot_or_text_stands_outside_the_svg(self):
        root = ElementTree.parse(self.svg).getroot()  # noqa: S314 - of our own making.

        left, top, width, height = map(float, root.get("viewBox").split())
        for each in [*root.iter(f"{SVG}circle"), *root.iter(f"{SVG}text")]:
            x, y = (float(each.get(name) or each.get(f"c{name}")) for name in "xy")
            self.assertTrue(left <= x <= left + width and top <= y <= top + height, each.attrib)

    def test_the_page_has_every_table_and_plot(self):
        page = as_html(self.report)

        self.assertEqual(page.count("<svg "), len(self.tables))
        self.assertEqual(page.count("<table>"), len(self.tables) + 1)
        self.assertIn(">this blog: template_fragments</td>", page)

    def test_the_drawings_load_nothing_and_have_a_dark_look(self):
        for drawing in (as_svg(self.report), as_html(self.report)):
            with self.subTest(drawing[:20]):
                outside = drawing.replace('xmlns="http://www.w3.org/2000/svg"', "")
                self.assertNotRegex(outside, r"(?i)https?://|src=|href=|@import|url\(")
                self.assertIn("prefers-color-scheme: dark", drawing)


class NotMeasuredTests(SimpleTestCase):
    """Where the system tells no CPU time, the bench says so, and goes on."""

    @skipUnless(sys.platform == "linux", "measured on Linux alone")
    def test_the_cpu_time_of_a_process_that_is_gone(self):
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()

        self.assertIsNone(cpu_seconds([os.getpid(), process.pid]))
        self.assertGreater(cpu_seconds([os.getpid()]), 0)

    def test_one_round_without_a_figure_is_no_median(self):
        figures = iter([1.0, None, 3.0])

        seen = in_turns({"page": lambda: {"cpu": next(figures)}}, 3, lambda text: None)

        self.assertEqual(seen, {"page": {"cpu": None}})

    def test_what_is_not_measured_is_said_and_not_drawn(self):
        rows = [
            {"level": "none", "hit": None, "ratio": None},
            {"level": "all", "hit": 2.0, "ratio": 1.0},
        ]
        table = Table("levels", "CPU", "By hand.", "ms", rows, ["hit"], ["ratio"])
        goal = {"goal": "fast", "limit": "at most 2", "measured": None, "reached": None}
        report = as_json(machine("7.2"), [table], [goal], quick=False)

        self.assertIn("| none  | not measured | not measured |", as_text(report))
        self.assertIn("| fast | at most 2 | not measured | not measured |", as_text(report))
        self.assertEqual(as_svg(report).count("<circle"), 1)


class TurnsTests(SimpleTestCase):
    """What is compared takes turns."""

    def test_every_second_round_goes_backwards(self):
        order = []
        contestants = {name: lambda name=name: order.append(name) or {} for name in "ab"}

        in_turns(contestants, 3, lambda text: None)

        self.assertEqual("".join(order), "abbaab")

    def test_the_median_counts(self):
        figures = iter([5, 1, 100])

        seen = in_turns({"page": lambda: {"ms": next(figures)}}, 3, lambda text: None)

        self.assertEqual(seen["page"]["ms"], 5)


@skipUnless(Path("/proc/self/environ").exists(), "needs /proc to find what is left")
class EndTests(SimpleTestCase):
    """A bench that somebody stops."""

    @contextmanager
    def at_work(self):
        """Start a bench, and go on when it measures."""
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        with started(folder, "--quick", "--only", "growth") as process:
            self.assertTrue(any("hits, round 1" in line for line in process.stderr))
            self.assertGreater(len(processes_of(folder)), 8)
            yield process, folder

    def test_ctrl_c_ends_all_of_it_and_is_not_interrupted_by_another_signal(self):
        with self.at_work() as (process, folder):
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            output, progress = process.communicate(timeout=60)

        self.assertEqual(output, "")
        last = progress.splitlines()[-1]
        self.assertEqual(last, "CommandError: Stopped. Nothing is left behind.")
        self.assertNotIn("Traceback", progress)
        self.assertEqual(process.returncode, 130)
        self.assertTrue(wait_until(lambda: not processes_of(folder)))
        self.assertEqual(list(folder.iterdir()), [])

    def test_kill_leaves_no_process(self):
        with self.at_work() as (process, folder):
            process.kill()

            self.assertTrue(wait_until(lambda: not processes_of(folder)))


class BadInputTests(SimpleTestCase):
    """What can't be done is said in one line, before anything is measured."""

    def assert_refused(self, message, **options):
        with self.assertRaisesRegex(CommandError, rf"\A[^\n]*{message}[^\n]*\Z") as caught:
            call_command("bench", **options)

        self.assertEqual(caught.exception.returncode, 1)

    def test_an_unknown_part(self):
        self.assert_refused("No part is called wheels. There are levels, ", only=["wheels"])

    def test_a_plot_of_an_unknown_kind(self):
        self.assert_refused("ends with .svg or .html, not plot.png", plot=Path("plot.png"))

    def test_a_file_in_a_folder_that_is_not_there(self):
        for option in ("json", "plot"):
            with self.subTest(option):
                path = Path("/nowhere/at/all.svg")
                self.assert_refused("all.svg can't be written: No such file", **{option: path})

    def test_a_folder_instead_of_a_file(self):
        self.assert_refused("can't be written: Is a directory", json=settings.BASE_DIR)

    def test_looking_whether_a_file_can_be_written_changes_none(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (folder / "old.json").write_text("{}")

        for name in ("old.json", "new.json"):
            self.assert_refused("nowhere", json=folder / name, plot=Path("/nowhere/plot.svg"))

        self.assertEqual([path.name for path in folder.iterdir()], ["old.json"])
        self.assertEqual((folder / "old.json").read_text(), "{}")

    def test_the_command_line_says_it_in_one_line(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        with started(folder, "--only", "wheels") as process:
            output, error = process.communicate()

        self.assertEqual((process.returncode, output, error.count("\n")), (1, "", 1))
