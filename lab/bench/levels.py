"""The four levels: what a page costs uncached, on a miss, as a hit, and at the least."""

import json
from contextlib import ExitStack
from functools import partial
from statistics import median

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

# Short turns, and many: a machine's speed changes from one second to the next, for all that run.
TURNS = 4  # per round

METHOD = (
    "CPU time of the process (process_time) per request, inside the WSGI application: called one "
    "request after the other, without a server. CACHE_WATCH=0, Redis by TCP on the same machine. "
)
COLUMNS = ("uncached", "miss", "hit", "plain hit", "bare Django", "bare WSGI")


def measure(bench):
    """Return the table of {level: CPU of each contestant}."""
    seconds = 0.02 if bench.quick else 0.05
    with ExitStack() as stack:
        contestants = start(bench, stack)
        flush = stack.enter_context(redis.Redis.from_url(bench.redis.url)).flushall
        seen = {}
        for level, page in PAGES.items():
            flush()  # So that no entry expires meanwhile.
            turns = {
                name: warm(contestant, page, seconds, level in WHOLE and "hit" in name)
                for name, contestant in contestants.items()
            }
            seen[level] = bench.in_turns(turns, f"{level}, ", TURNS)
            pairs = [pair(turns, number) for number in range(TURNS * bench.rounds)]
            seen[level]["hit"]["of plain"] = median(pairs)
        # At the end: a process that has built a hundred pages is slower ever after.
        for level, page in PAGES.items():
            turns = {"miss": partial(miss, contestants["hit"], page, flush)}
            seen[level] |= bench.in_turns(turns, f"{level}, misses, ")
        return [table(seen, TURNS * bench.rounds)]


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


def warm(contestant, page, seconds, is_hit):
    """
    Fill the caches, and return a function that returns what a request costs then.

    It takes `seconds`, and raises ContestantError unless all answers were hits.
    """
    contestant.ask(page)
    requests = max(3, int(seconds * 1e6 / contestant.ask(page, requests=3)["us"]))

    def turn():
        contestant.ask(page)  # The process has done nothing for a while.
        answer = contestant.ask(page, requests)
        if is_hit and answer["hits"] < requests:
            raise ContestantError(f"{page}: not all answers were hits.")
        return {"us": answer["us"]}

    return turn


def pair(turns, number):
    """Return the CPU of a hit / that of a plain hit, one right after the other."""
    names = ["hit", "plain hit"][:: -1 if number % 2 else 1]
    took = {name: turns[name]()["us"] for name in names}
    return took["hit"] / took["plain hit"]


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
                "hit / plain hit": seen[level]["hit"]["of plain"],
            }
        )
    return Table(
        "levels",
        "CPU of a request, ms",
        f"{METHOD}Uncached: Django's dummy backend. Miss: Redis emptied before the request. Plain: "
        "the same pages with the settings of startproject, django-redis without options and "
        "Django's cache_page. Bare: a Django view without middleware, or a WSGI function, that "
        f"returns the same bytes. The least of {rounds} rounds in turns; hit / plain hit: the "
        f"median of {rounds} pairs, one right after the other.",
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
