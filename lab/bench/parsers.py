"""hiredis against the Python parser: the same answers of Redis, read by each."""

from functools import partial

import redis

from lab.bench.report import Table
from lab.bench.rounds import microseconds, ratio
from lab.compat import HiredisParser, PythonParser, has_hiredis

VALUES = {"a value of 100 B": 100, "a value of 10 KB": 10_000, "a value of 100 KB": 100_000}
LIST = "a list of 1,000 items"


def measure(bench):
    seconds = 0.02 if bench.quick else 0.1
    parsers = {"Python": PythonParser} | ({"hiredis": HiredisParser} if has_hiredis() else {})
    contestants = {}
    for name, parser in parsers.items():
        client = redis.Redis.from_url(bench.redis.url, parser_class=parser)
        for answer, read in reads(client).items():
            run = partial(timed, read, seconds)
            run()
            contestants[answer, name] = run
    seen = bench.in_turns(contestants)
    client.flushall()
    rows = []
    for answer in (*VALUES, LIST):
        of = {name: seen.get((answer, name), {}).get("us") for name in ("hiredis", "Python")}
        rows.append(
            {"answer": answer} | of | {"Python / hiredis": ratio(of["Python"], of["hiredis"])}
        )
    return [
        Table(
            "parsers",
            "hiredis and the Python parser, us",
            "A whole command (GET, LRANGE) on one TCP connection, in one process, "
            f"Redis's own time included. The least of {bench.rounds} rounds in turns.",
            "us",
            rows,
            ["hiredis", "Python"],
            ["Python / hiredis"],
        )
    ]


def reads(client):
    """Store what is read. Return {what it is: function that reads it}."""
    functions = {}
    for answer, size in VALUES.items():
        client.set(f"bench:{size}", b"x" * size)
        functions[answer] = partial(client.get, f"bench:{size}")
    client.delete("bench:list")
    client.rpush("bench:list", *(f"item {number:05}" for number in range(1000)))
    functions[LIST] = partial(client.lrange, "bench:list", 0, -1)
    return functions


def timed(function, seconds):
    return {"us": microseconds(function, seconds)}
