"""A run's results as text: Markdown tables that read well in a terminal, and JSON."""

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import django
import django_redis
import redis
from redis.utils import HIREDIS_AVAILABLE


@dataclass
class Table:
    """What was compared: rows of {column: value}, the first column being the row's name."""

    part: str
    title: str
    method: str
    unit: str  # of the columns in `plotted`
    rows: list
    plotted: list
    ratios: list  # columns that are one figure of this run divided by another


def machine(redis_version):
    """Return what the figures were measured on."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "cpu": cpu_model(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "django": django.__version__,
        "django-redis": django_redis.__version__,
        "redis-py": f"{redis.__version__} {'with' if HIREDIS_AVAILABLE else 'without'} hiredis",
        "redis": redis_version,
    }


def cpu_model():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def as_json(machine, tables, goals, quick):
    """Return the whole run as one dict of plain values."""
    return {
        "machine": machine,
        "method": "What is compared takes turns in short rounds on one machine. The least of the "
        "rounds counts. Ratios carry over to another machine, figures don't."
        + (" Quick: few and short rounds, so the figures are rough." if quick else ""),
        "quick": quick,
        "goals": goals,
        "results": [vars(table) for table in tables],
        "ratios": {
            f"{table.title}: {name_of(row)}: {column}": row[column]
            for table in tables
            for row in table.rows
            for column in table.ratios
        },
    }


def as_text(report):
    """Return the whole run as Markdown."""
    return "\n\n".join(
        [
            f"Measured on {machine_line(report)}. {report['method']}",
            *(
                f"## {each['title']}\n\n{each['method']}\n\n{markdown(cells(each))}"
                for each in report["results"]
            ),
            *([f"## Goals\n\n{markdown(goal_cells(report))}"] if report["goals"] else []),
        ]
    )


def machine_line(report):
    machine = report["machine"]
    named = ("python", "django", "django-redis", "redis-py", "redis")
    return ", ".join(
        [
            f"{machine['cores']} cores of {machine['cpu']}",
            machine["system"],
            *(f"{name} {machine[name]}" for name in named),
            machine["date"],
        ]
    )


def name_of(row):
    return next(iter(row.values()))


def cells(table):
    """Return a table of the report as rows of text, the first being its head."""
    return [
        list(table["rows"][0]),
        *(
            [
                figure(value, "x" if column in table["ratios"] else "")
                for column, value in row.items()
            ]
            for row in table["rows"]
        ),
    ]


def goal_cells(report):
    reached = {True: "reached", False: "not reached", None: "not measured"}
    return [
        ["goal", "limit", "measured", ""],
        *(
            [each["goal"], each["limit"], figure(each["measured"], "x"), reached[each["reached"]]]
            for each in report["goals"]
        ),
    ]


def figure(value, unit=""):
    """Return a number with three digits that count, or text as it is."""
    if value is None:
        return "not measured"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or value >= 100:
        return f"{value:,.0f}{unit}"
    return f"{value:.{1 if value >= 10 else 2 if value >= 1 else 3}f}{unit}"


def markdown(rows):
    """Return rows of text as a Markdown table with columns of even width, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [
        all(cell[:1].isdigit() or cell == "not measured" for cell in column)
        for column in zip(*rows[1:], strict=True)
    ]
    rule = [
        "-" * (width - 1) + ":" if is_right else "-" * width
        for width, is_right in zip(widths, right, strict=True)
    ]
    lines = [
        [
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        ]
        for row in rows
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])
