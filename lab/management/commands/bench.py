"""`manage.py bench`: what the caches cost and save, measured on this machine."""

import json
import signal
import time
from importlib import import_module
from pathlib import Path

from django.core.management import BaseCommand, CommandError

from lab.bench import PARTS

STOPS = (signal.SIGINT, signal.SIGTERM)


class Command(BaseCommand):
    help = (
        "Measures the cache levels, parsers, backends, serializers and growth, on a Redis and a "
        "database of its own. It takes about five minutes and prints Markdown tables."
    )
    requires_system_checks = []  # It uses neither this project's Redis nor its database.

    def add_arguments(self, parser):
        parser.add_argument(
            "--only", nargs="+", default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
        )
        parser.add_argument("--quick", action="store_true", help="half a minute, rough figures")
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
        parser.add_argument(
            "--plot", type=Path, metavar="FILE", help="draw them: an .svg, or an .html with tables"
        )

    def handle(self, *, only, quick, plot, **options):
        from lab.bench import plot as plots
        from lab.bench.report import as_text

        if unknown := set(only) - set(PARTS):
            raise CommandError(
                f"No part is called {', '.join(sorted(unknown))}. There are {', '.join(PARTS)}."
            )
        drawings = {".svg": plots.as_svg, ".html": plots.as_html}
        if plot and plot.suffix not in drawings:
            raise CommandError(f"--plot takes a file that ends with .svg or .html, not {plot}.")
        files = [path for path in (options["json"], plot) if path]
        for path in files:
            check_is_writable(path)
        # Parts in their own order, whatever the order they were named in.
        report = self.measure([part for part in PARTS if part in only], quick)
        self.stdout.write(as_text(report))
        if options["json"]:
            options["json"].write_text(json.dumps(report, indent=2) + "\n")
        if plot:
            plot.write_text(drawings[plot.suffix](report))

    def measure(self, parts, quick):
        """Return the report. Ends all that it started, whatever happens."""
        from lab.bench.bench import bench
        from lab.bench.inside import ContestantError
        from lab.bench.levels import goals
        from lab.bench.report import as_json, machine

        self.started = time.monotonic()
        handlers = {stop: signal.signal(stop, interrupt) for stop in STOPS}
        try:
            with bench(quick, self.tell) as workbench:
                tables = []
                for self.part in parts:
                    tables += import_module(f"lab.bench.{self.part}").measure(workbench)
                version = workbench.redis.info("server")["redis_version"]
                reached = list(goals(tables[0])) if "levels" in parts else []
                return as_json(machine(version), tables, reached, quick)
        except ContestantError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Stopped. Nothing is left behind.", returncode=130) from None
        finally:
            for stop, handler in handlers.items():
                signal.signal(stop, handler)
            if self.stderr.isatty():
                self.stderr.write("\r\x1b[K", ending="")

    def tell(self, progress):
        """Show what is going on: on a terminal one line that changes, else one line each time."""
        line = f"{time.monotonic() - self.started:4.0f} s  {self.part}: {progress}"
        style = self.style.NOTICE
        if self.stderr.isatty():
            self.stderr.write(f"\r\x1b[K{line}", style, ending="")
        else:
            self.stderr.write(line, style)
        self.stderr.flush()


def interrupt(number, frame):
    """Begin to clean up, and don't let a second Ctrl-C interrupt that."""
    for stop in STOPS:
        # Not SIG_IGN: Python complains about a signal that came just before.
        signal.signal(stop, lambda number, frame: None)
    raise KeyboardInterrupt


def check_is_writable(path):
    """Raise CommandError unless a file can be written there. Leaves no file behind."""
    is_new = not path.exists()
    try:
        path.open("a").close()
    except OSError as error:
        raise CommandError(f"{path} can't be written: {error.strerror}.") from None
    if is_new:
        path.unlink()
