"""The four levels: what a page costs without a cache, on a miss, as a hit, and at the least."""

import json
from contextlib import ExitStack
from functools import partial
from http.client import HTTPConnection

import redis

from lab.bench.bench import CLIENTS, CONFIG, WORKERS
from lab.bench.client import LoadError
from lab.bench.report import Table
from lab.bench.rounds import medians, ratio

PAGES = {
    "whole site": "/",
    "per view": "/posts/the-whole-site/",
    "fragment": "/archive/",
    "low-level": "/search/?q=cache+redis",
}
KEPT = ("whole site", "per view")  # What a page level keeps, and cache_page could.
MOST_CPU = 2.0  # Times the CPU of a bare view that a page hit may cost.
LEAST_RATE = 1.5  # Times the requests/s of plain cache_page, by default and with as many workers.

# How a beginner's gunicorn starts: the default settings.
DEFAULT_CONFIG = """
import os
bind = "127.0.0.1:" + os.environ["PORT"]
control_socket_disable = True
"""
STARTS = 3  # of all gunicorns
PLAIN = ("plain", "plain x 2", "plain, tuned")

UNDER = (
    f"{CLIENTS} keep-alive clients in a process of their own against gunicorn with {WORKERS} "
    "workers and the shipped gunicorn.conf.py, instrument off (CACHE_WATCH=0), Redis on a Unix "
    "socket."
)


def measure(bench):
    # Where a process happens to have its things in memory makes a tenth of what it costs.
    starts = 1 if bench.quick else STARTS
    seen = [measure_once(bench, bench.rounds // starts) for _ in range(starts)]
    return tables(medians(seen), f"{bench.rounds} rounds in turns, started {starts} times")


def measure_once(bench, rounds):
    """Return {(level, contestant): {figure: median}} of gunicorns that are started for this."""
    seconds = 0.1 if bench.quick else 0.3
    with ExitStack() as stack:
        servers = start(bench, stack)
        flush = redis.Redis.from_url(bench.redis.url).flushall
        contestants = {}
        for level, page in PAGES.items():
            contestants[level, "miss"] = partial(miss, servers["hit"], page, flush)
            for name, server in servers.items():
                if level not in KEPT and name in ("watched", *PLAIN):
                    continue
                is_kept = level in KEPT and name in ("hit", "watched", *PLAIN)
                run = partial(under_load, server, page, seconds, flush, is_kept)
                contestants[level, name] = run
        for run in contestants.values():  # Each worker imports and compiles what it needs.
            run()
        return bench.in_turns(contestants, rounds=rounds)


def start(bench, stack):
    """Return {name: Server} of everything that is compared."""
    bench.tell("starting eight gunicorns")
    default = bench.folder / "default.conf.py"
    default.write_text(DEFAULT_CONFIG)
    pages = bench.folder / "pages.json"
    dummy = {"DJANGO_SETTINGS_MODULE": "lab.bench.plain", "BENCH": "none"}
    plain = dummy | {"BENCH": "cache_page", "app": "lab.bench.plain:django()"}
    bare = {"DJANGO_SETTINGS_MODULE": "lab.bench.bare", "BENCH_PAGES": str(pages)}
    serve = partial(bench.serve, stack)
    servers = {
        "hit": serve(),
        "watched": serve(CACHE_WATCH="1"),
        "none": serve(**dummy),
        "plain": serve(config=default, workers=1, **plain),
        "plain x 2": serve(config=default, **plain),
        "plain, tuned": serve(config=CONFIG, **plain),
    }
    pages.write_text(json.dumps({page: hit_of(servers["hit"], page) for page in PAGES.values()}))
    servers["bare Django"] = serve(app="lab.bench.bare:django()", **bare)
    servers["bare WSGI"] = serve(app="lab.bench.bare:wsgi", **bare)
    return servers


def hit_of(server, page):
    """Return (headers, body) of the page as it comes from the cache."""
    server.ask(page, requests=2)
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", page)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    of_gunicorn = ("Server", "Date", "Connection")
    return {name: value for name, value in response.getheaders() if name not in of_gunicorn}, body


def miss(server, page, flush):
    """Return what one request costs with every cache empty."""
    flush()
    return server.ask(page)


def under_load(server, page, seconds, flush, is_kept):
    """Return what a request costs with the caches warm. Raises LoadError if they are not."""
    flush()  # So that no entry runs out of time within the round.
    server.ask(page, requests=2)
    seen = server.under_load(page, seconds)
    if is_kept and seen["hits"] < seen["requests"]:
        raise LoadError(f"{page}: {seen['hits']} of {seen['requests']} answers were hits.")
    return seen


def tables(seen, how_often):
    """Return the tables of {(level, contestant): {figure: median}}."""
    cpu, rates, plain = [], [], []
    for level, page in PAGES.items():
        of = {name: figures for (where, name), figures in seen.items() if where == level}
        bare = of["bare Django"]
        row = {"level": level, "page": page}
        cpu.append(
            row
            | {name: of[key]["cpu"] for name, key in COLUMNS.items()}
            | {
                "no cache / hit": ratio(of["none"]["cpu"], of["hit"]["cpu"]),
                "hit / bare Django": ratio(of["hit"]["cpu"], bare["cpu"]),
            }
        )
        rates.append(
            row
            | {name: of[key]["rate"] for name, key in COLUMNS.items() if key != "miss"}
            | {
                "hit / no cache": ratio(of["hit"]["rate"], of["none"]["rate"]),
                "hit / bare Django": ratio(of["hit"]["rate"], bare["rate"]),
            }
        )
        plain += [
            {
                "setup": f"{level}: {name}",
                "CPU ms": of[key]["cpu"],
                "requests/s": of[key]["rate"],
                "CPU / bare Django": ratio(of[key]["cpu"], bare["cpu"]),
                "requests/s / plain": ratio(of[key]["rate"], of["plain"]["rate"]),
                "/ plain x 2": ratio(of[key]["rate"], of["plain x 2"]["rate"]),
            }
            for name, key in SETUPS.items()
            if level in KEPT
        ]
    return [
        Table(
            "levels",
            "CPU of a request, ms",
            f"CPU of the workers. {UNDER} No cache: Django's dummy backend. Miss: "
            "one client, all of Redis emptied before each request. Bare: a Django view without "
            f"middleware, or a WSGI function, that returns the same bytes. Medians of {how_often}.",
            "ms",
            cpu,
            ["no cache", "miss", "hit", "bare Django", "bare WSGI"],
            ["no cache / hit", "hit / bare Django"],
        ),
        Table(
            "levels",
            "Requests a second",
            f"{UNDER} The clients share the cores with the workers. Medians of {how_often}.",
            "requests/s",
            rates,
            ["no cache", "hit", "bare Django", "bare WSGI"],
            ["hit / no cache", "hit / bare Django"],
        ),
        Table(
            "levels",
            "A page hit, here and under plain cache_page",
            "Plain: the same page under cache_page with the settings of startproject, django-redis "
            "with a LOCATION and no options (pickles), in gunicorn with its default settings: one "
            "sync worker, a connection for each request; the same Redis on the same Unix socket. "
            "x 2: with two workers, as this blog has. Tuned: under the shipped gunicorn.conf.py. "
            f"Watched: this blog with CACHE_WATCH=1. {CLIENTS} clients, medians of {how_often}.",
            "requests/s",
            plain,
            ["requests/s"],
            ["CPU / bare Django", "requests/s / plain", "/ plain x 2"],
        ),
    ]


COLUMNS = {
    "no cache": "none",
    "miss": "miss",
    "hit": "hit",
    "bare Django": "bare Django",
    "bare WSGI": "bare WSGI",
}
SETUPS = {
    "this blog": "hit",
    "this blog, watched": "watched",
    "plain cache_page": "plain",
    "plain cache_page x 2": "plain x 2",
    "plain cache_page, tuned": "plain, tuned",
    "bare Django": "bare Django",
}


def goals(tables):
    """Return what was to be reached: goal, limit, measured and whether it is reached."""
    cpu, _, plain = tables
    for row in cpu.rows:
        if row["level"] in KEPT:
            measured = row["hit / bare Django"]
            yield {
                "goal": f"{row['level']}: CPU of a hit / bare Django",
                "limit": f"at most {MOST_CPU}",
                "measured": measured,
                "reached": None if measured is None else measured <= MOST_CPU,
            }
    for row in plain.rows:
        level, _, setup = row["setup"].partition(": ")
        for column in ("requests/s / plain", "/ plain x 2") if setup == "this blog" else ():
            measured = row[column]
            yield {
                "goal": f"{level}: requests/s of a hit / plain cache_page"
                + column.rpartition("plain")[2],
                "limit": f"at least {LEAST_RATE}",
                "measured": measured,
                "reached": measured >= LEAST_RATE,
            }
