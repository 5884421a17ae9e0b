"""What grows with the work and what doesn't: more keys, more clients, more workers."""

from contextlib import ExitStack
from functools import partial

import redis
from django.core.cache import caches

from blog import caching
from lab.bench.levels import PAGES
from lab.bench.report import Table
from lab.bench.rounds import microseconds, ratio
from mysite.caches import database_url
from mysite.caches.invalidation import invalidate
from mysite.private_redis import PrivateRedis, use_redis

PAGE = PAGES["whole site"]
SITE = 1  # The Redis database of the page.
# What a changed post drops.
DROPPED = {("site", "posts"), ("site", "tag:redis"), ("view", "post:the-whole-site")}
CLIENTS = (1, 4, 16, 64)
WORKERS = (1, 2, 3)
MANY = 16  # Clients for a comparison of workers.
AT_ONCE = 10_000  # Keys that one run of FILL sets: Redis does nothing else meanwhile.
FILL = """
for number = ARGV[1], ARGV[2] do
  redis.call('SET', 'another.page.' .. number, 'x')
end
"""


def measure(bench):
    tables = [keys(bench)]
    with ExitStack() as stack:
        webs = {number: bench.serve(stack, workers=number) for number in WORKERS}
        return [*tables, clients(bench, webs[2]), workers(bench, webs)]


def keys(bench):
    seconds = 0.1 if bench.quick else 0.3
    hits, changes, searches = {}, {}, {}
    numbers = (100, 10_000) if bench.quick else (100, 10_000, 1_000_000)
    with ExitStack() as stack:
        for number in numbers:
            bench.tell(f"filling a Redis with {number:,} keys")
            server = stack.enter_context(PrivateRedis())
            fill(server, number)
            web = bench.serve(stack, redis=server, workers=1)
            web.ask(PAGE, requests=3)
            hits[number] = partial(hit, web, seconds)
            changes[number] = partial(change, server, seconds)
            searches[number] = partial(search, server)
        measured = bench.in_turns(hits, "hits, ")
        changed = bench.in_turns(changes, "invalidations, ")
        bench.tell("searching all keys")
        searched = {number: run() for number, run in searches.items()}
    rows = [
        {
            "keys": f"{number:,}",
            "a hit": measured[number]["p50"],
            "an invalidation": changed[number]["ms"],
            "delete_pattern": searched[number]["ms"],
            "hit / 100 keys": ratio(measured[number]["p50"], measured[100]["p50"]),
            "invalidation / 100 keys": ratio(changed[number]["ms"], changed[100]["ms"]),
            "delete_pattern / 100 keys": ratio(searched[number]["ms"], searched[100]["ms"]),
        }
        for number in numbers
    ]
    return Table(
        "growth",
        "More keys in Redis, ms",
        f"A hit: GET {PAGE} through gunicorn, one worker and one client. An "
        "invalidation: what saving a post drops, by generations. delete_pattern: the way that "
        "reads every key, measured once. A Redis for each number of keys; "
        f"medians of {bench.rounds} rounds in turns.",
        "ms",
        rows,
        ["a hit", "an invalidation", "delete_pattern"],
        ["hit / 100 keys", "invalidation / 100 keys", "delete_pattern / 100 keys"],
    )


def fill(server, number):
    """Add `number` keys to the database of the whole site's pages."""
    client = redis.Redis.from_url(database_url(server.url, SITE))
    client.config_set("maxmemory", "512mb")
    for first in range(0, number, AT_ONCE):
        client.eval(FILL, 0, first + 1, min(first + AT_ONCE, number))
    client.close()


def hit(web, seconds):
    web.ask(PAGE, requests=2)
    return web.under_load(PAGE, seconds, clients=1)


def change(server, seconds):
    """Return the milliseconds that it takes to drop what a changed post is shown on."""
    with use_redis(server.url):
        drop = partial(invalidate, DROPPED, caching.POST_KEYS)
        drop()
        return {"ms": microseconds(drop, seconds) / 1000}


def search(server):
    """Return the milliseconds in which django-redis finds that no key has this name."""
    with use_redis(server.url):
        return {"ms": microseconds(partial(caches["site"].delete_pattern, "*nobody*"), 0) / 1000}


def clients(bench, web):
    seconds = 0.1 if bench.quick else 0.3
    loads = {number: partial(warm_load, web, seconds, number) for number in CLIENTS}
    seen = bench.in_turns(loads, "clients, ")
    rows = [
        {
            "clients": str(number),
            "half within": seen[number]["p50"],
            "95 of 100 within": seen[number]["p95"],
            "requests/s": seen[number]["rate"],
            "requests/s / 1 client": ratio(seen[number]["rate"], seen[1]["rate"]),
        }
        for number in CLIENTS
    ]
    return Table(
        "growth",
        "More clients, ms",
        f"Milliseconds to the whole answer of GET {PAGE}, a hit, from 2 workers with 4 threads, "
        f"with keep-alive. Medians of {bench.rounds} rounds in turns.",
        "ms",
        rows,
        ["half within", "95 of 100 within"],
        ["requests/s / 1 client"],
    )


def workers(bench, webs):
    seconds = 0.1 if bench.quick else 0.3
    loads = {number: partial(warm_load, web, seconds, MANY) for number, web in webs.items()}
    seen = bench.in_turns(loads, "workers, ")
    rows = [
        {
            "workers": str(number),
            "requests/s": seen[number]["rate"],
            "CPU ms": seen[number]["cpu"],
            "requests/s / 1 worker": ratio(seen[number]["rate"], seen[1]["rate"]),
        }
        for number in WORKERS
    ]
    return Table(
        "growth",
        "More workers, requests/s",
        f"Requests a second for GET {PAGE}, a hit, by {MANY} clients with keep-alive, which share "
        f"the cores with the workers. Medians of {bench.rounds} rounds in turns.",
        "requests/s",
        rows,
        ["requests/s"],
        ["requests/s / 1 worker"],
    )


def warm_load(web, seconds, clients):
    web.ask(PAGE, requests=2)
    return web.under_load(PAGE, seconds, clients=clients)
