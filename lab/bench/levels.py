"""The four levels: what a page costs uncached, on a miss, as a hit, and at the least."""

import json
from contextlib import ExitStack
from functools import partial

import redis

from lab.bench.inside import ContestantError
from lab.bench.report import Table
from lab.bench.rounds import ratio

PAGES = {
    "whole site": "/",
    "per view": "/posts/the-whole-site/",
    "fragment": "/archive/",
    "low-level": "/search/?q=cache+redis",
}
WHOLE = ("whole site", "per view")  # Levels that cache whole pages, as Django's cache_page does.
MOST_CPU = 0.80  # Times the CPU of the same hit in the plain project.

SLICES = 4  # per round. Short ones, because whatever else the machine does only adds CPU.

METHOD = (
    "CPU time of the process (process_time) per request, inside the WSGI application: called one "
    "request after the other, without a server. CACHE_WATCH=0, Redis by TCP on the same machine. "
)
COLUMNS = ("uncached", "miss", "hit", "plain hit", "bare Django", "bare WSGI")


def measure(bench):
    """Return the table of {level: CPU of each contestant}."""
    seconds = 0.02 if bench.quick else 0.1
    with ExitStack() as stack:
        contestants = start(bench, stack)
        flush = stack.enter_context(redis.Redis.from_url(bench.redis.url)).flushall
        seen = {}
        for level, page in PAGES.items():
            turns = {
                name: partial(
                    warm, contestant, page, flush, seconds, level in WHOLE and "hit" in name
                )
                for name, contestant in contestants.items()
            }
            turns["miss"] = partial(miss, contestants["hit"], page, flush)
            seen[level] = bench.in_turns(turns, f"{level}, ")
        return [table(seen, bench.rounds)]


def start(bench, stack):
    """Return {name: Contestant} of all that is compared."""
    pages = bench.folder / "pages.json"
    other = {"DJANGO_SETTINGS_MODULE": "lab.bench.plain"}
    bare = {"DJANGO_SETTINGS_MODULE": "lab.bench.bare", "BENCH_PAGES": str(pages)}
    contestants = {
        "hit": bench.start(stack),
        "plain hit": bench.start(stack, BENCH="plain", **other),
        "uncached": bench.start(stack, BENCH="uncached", **other),
    }
    found = {}
    for page in PAGES.values():
        answer = contestants["hit"].ask(page, requests=2)
        found[page] = dict(answer["headers"]), answer["body"]
    pages.write_text(json.dumps(found))
    contestants["bare Django"] = bench.start(stack, **bare)
    contestants["bare WSGI"] = bench.start(stack, "lab.bench.bare:wsgi", **bare)
    return contestants


def warm(contestant, page, flush, seconds, is_hit):
    """Return what a request costs with the caches warm. Raises ContestantError if they are not."""
    flush()  # So that no entry expires within the round.
    one = contestant.ask(page, requests=5)["us"]
    requests = max(3, int(seconds * 1e6 / one))
    slices = [contestant.ask(page, requests) for _ in range(SLICES)]
    if is_hit and any(each["hits"] < requests for each in slices):
        raise ContestantError(f"{page}: not all answers were hits.")
    return {"us": min(each["us"] for each in slices)}


def miss(contestant, page, flush):
    """Return what one request costs with every cache empty."""
    flush()
    return {"us": contestant.ask(page)["us"]}


def table(seen, rounds):
    """Return the Table of {level: {contestant: {"us": CPU}}}."""
    rows = []
    for level, page in PAGES.items():
        ms = {name: seen[level][name]["us"] / 1000 for name in COLUMNS}
        rows.append(
            {"level": level, "page": page}
            | ms
            | {
                "uncached / hit": ratio(ms["uncached"], ms["hit"]),
                "hit / plain hit": ratio(ms["hit"], ms["plain hit"]),
            }
        )
    return Table(
        "levels",
        "CPU of a request, ms",
        f"{METHOD}Uncached: Django's dummy backend. Miss: Redis emptied before the request. Plain: "
        "the same pages with the settings of startproject, django-redis without options and "
        "Django's cache_page. Bare: a Django view without middleware, or a WSGI function, that "
        f"returns the same bytes. The least of {rounds} rounds in turns, {SLICES} slices each.",
        "ms",
        rows,
        list(COLUMNS),
        ["uncached / hit", "hit / plain hit"],
    )


def goals(table):
    """Return what was to be reached: goal, limit, measured and whether it is reached."""
    for row in table.rows:
        if row["level"] in WHOLE:
            measured = row["hit / plain hit"]
            yield {
                "goal": f"{row['level']}: CPU of a hit / the same hit in the plain project",
                "limit": f"at most {MOST_CPU:.2f}",
                "measured": measured,
                "reached": measured <= MOST_CPU,
            }
