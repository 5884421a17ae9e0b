"""More keys in Redis: what grows with their number, and what doesn't."""

from contextlib import ExitStack
from functools import partial

import redis
from django.core.cache import caches
from django.test import override_settings

from lab.bench.bench import caches_at, start_redis
from lab.bench.levels import PAGES
from lab.bench.report import Table
from lab.bench.rounds import microseconds, ratio
from resilient_cache.groups import invalidate
from resilient_cache.location import database_url

PAGE = PAGES["whole site"]
SITE = 1  # The Redis database of the page.
GROUPS = ("site", "posts", "comments", "post:the-whole-site")  # What a changed post invalidates.
AT_ONCE = 10_000  # Keys that one run of FILL sets: Redis does nothing else meanwhile.
FILL = """
for number = ARGV[1], ARGV[2] do
  redis.call('SET', 'another.page.' .. number, 'x')
end
"""


def measure(bench):
    """Return the table of {number of keys: what each thing takes}."""
    numbers = (100, 10_000) if bench.quick else (100, 10_000, 1_000_000)
    hits, changes, searches = {}, {}, {}
    with ExitStack() as stack:
        for number in numbers:
            bench.tell(f"filling a Redis with {number:,} keys")
            server = start_redis(stack)
            fill(server.url, number)
            contestant = bench.start(stack, REDIS_URL=server.url)
            hits[number] = partial(hit, contestant, 20 if bench.quick else 300)
            changes[number] = partial(change, server.url, 0.05 if bench.quick else 0.3)
            searches[number] = partial(search, server.url)
        measured = bench.in_turns(hits, "hits, ")
        changed = bench.in_turns(changes, "invalidations, ")
        bench.tell("searching all keys")
        searched = {number: run() for number, run in searches.items()}
    few = numbers[0]
    rows = [
        {
            "keys": f"{number:,}",
            "a hit": measured[number]["ms"],
            "an invalidation": changed[number]["ms"],
            "delete_pattern": searched[number]["ms"],
            "hit / 100 keys": ratio(measured[number]["ms"], measured[few]["ms"]),
            "invalidation / 100 keys": ratio(changed[number]["ms"], changed[few]["ms"]),
            "delete_pattern / 100 keys": ratio(searched[number]["ms"], searched[few]["ms"]),
        }
        for number in numbers
    ]
    return [
        Table(
            "growth",
            "More keys in Redis, ms",
            f"A hit: CPU of GET {PAGE} inside the WSGI application. An invalidation: the time that "
            "invalidate() takes for what a saved post belongs to. delete_pattern: the way that "
            "reads every key, measured once. One Redis for each number of keys. "
            f"The least of {bench.rounds} rounds in turns.",
            "ms",
            rows,
            ["a hit", "an invalidation", "delete_pattern"],
            ["hit / 100 keys", "invalidation / 100 keys", "delete_pattern / 100 keys"],
        )
    ]


def fill(url, number):
    """Add `number` keys to the database of the whole site's pages."""
    with redis.Redis.from_url(database_url(url, SITE), socket_timeout=60) as client:
        for first in range(0, number, AT_ONCE):
            client.eval(FILL, 0, first + 1, min(first + AT_ONCE, number))


def hit(contestant, requests):
    """Return the CPU of one hit."""
    contestant.ask(PAGE, requests=2)
    return {"ms": contestant.ask(PAGE, requests)["us"] / 1000}


def change(url, seconds):
    """Return how long it takes to invalidate what a changed post is shown on."""
    with override_settings(CACHES=caches_at(url)):
        act = partial(invalidate, *GROUPS)
        act()
        return {"ms": microseconds(act, seconds) / 1000}


def search(url):
    """Return how long django-redis takes to find that no key has this name."""
    with override_settings(CACHES=caches_at(url)):
        return {"ms": microseconds(partial(caches["site"].delete_pattern, "*nothing*"), 0) / 1000}
