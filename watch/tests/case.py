"""What the tests have in common."""

import json
import logging
import re
import time
import uuid

from django.conf import settings
from django.test import SimpleTestCase, override_settings
from redis import ConnectionPool, Redis

from watch.event import OP_FIELDS
from watch.feed import connect, feed
from watch.tests.settings import LEVELS, NAMES, caches_at

DATABASES = {NAMES.get(alias, alias): database for alias, database in LEVELS.items()}


def location(database):
    """Return the URL of a database of the tests' Redis."""
    return re.sub(r"/\d+$", f"/{database}", settings.CACHES["default"]["LOCATION"])


def watched_caches(prefix, **options):
    """Return CACHES with the four levels, each with a prefix that only this test has."""
    return caches_at(location(0).rpartition("/")[0], prefix, **options)


class WatchTestCase(SimpleTestCase):
    """The small site with keys, and a stream, that only this test has."""

    cache_options = {}
    watch = {}

    def setUp(self):
        super().setUp()
        # Django logs the pages that don't work on purpose.
        level = logging.getLogger("django.request").level
        logging.getLogger("django.request").setLevel(logging.CRITICAL)
        self.addCleanup(logging.getLogger("django.request").setLevel, level)
        feed.dropped = 0  # What an outage in another test has lost is not told in this one.
        self.name = f"watch-test-{uuid.uuid4().hex}"
        overridden = override_settings(
            CACHES=watched_caches(self.name, **self.cache_options),
            WATCH=settings.WATCH | {"STREAM": self.name} | self.watch,
        )
        overridden.enable()
        self.addCleanup(overridden.disable)
        self.addCleanup(self.forget)

    def forget(self):
        """Delete what this test left in Redis."""
        feed.settings_changed()
        connect().delete(self.name)
        for level in DATABASES:
            keys = list(self.redis(level).scan_iter(f"{self.name}-*", count=10_000))
            if keys:
                self.redis(level).delete(*keys)

    def change(self, **changed):
        """Change settings until the end of the test."""
        overridden = override_settings(**changed)
        overridden.enable()
        self.addCleanup(overridden.disable)

    def take_redis_away(self):
        """Let the caches look for Redis where there is no server, until the end of the test."""
        broken = {
            alias: options | {"LOCATION": "unix:///nowhere/redis.sock"}
            for alias, options in settings.CACHES.items()
        }
        self.change(CACHES=broken)

    def redis(self, level):
        """Return a plain client for the database of `level`."""
        pool = ConnectionPool.from_url(location(DATABASES[level]))
        self.addCleanup(pool.disconnect)
        return Redis(connection_pool=pool)

    def key(self, name, level="low-level", version=1):
        """Return `name` as Redis has it."""
        return f"{self.name}-{level}:{version}:{name}"

    def timing(self, response):
        """Return Server-Timing as a list of (name, dur, desc)."""
        return parse_timing(response.headers["Server-Timing"])

    def metric(self, response, name):
        """Return the desc of one metric."""
        return {metric[0]: metric[2] for metric in self.timing(response)}.get(name)

    def events(self):
        """Return the events that have arrived in the stream."""
        return [json.loads(fields[b"e"]) for _, fields in connect().xrange(self.name)]

    def event_of(self, response):
        """Return the event of this response, as soon as it is in the stream."""
        number = self.metric(response, "req").partition("@")[0]
        return self.eventually(
            lambda: next((event for event in self.events() if event.get("id") == number), None)
        )

    def ops_of(self, response):
        """Return the operations of the event of this response, as dicts."""
        return [dict(zip(OP_FIELDS, op, strict=True)) for op in self.event_of(response)["ops"]]

    def eventually(self, find, seconds=60):
        """Return what `find()` returns, once that is something."""
        deadline = time.monotonic() + seconds
        while not (found := find()):
            if time.monotonic() > deadline:
                self.fail(f"Nothing after {seconds} s.")
            time.sleep(0.01)  # Between two looks; nothing is timed by it.
        return found


# https://www.w3.org/TR/server-timing/#the-server-timing-header-field
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
QUOTED = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
PARAMETER = rf"{TOKEN}\s*=\s*(?:{TOKEN}|{QUOTED})"
METRIC = re.compile(rf"({TOKEN})((?:\s*;\s*{PARAMETER})*)")


def parse_timing(header):
    """Return (name, dur, desc) of each metric. Fails for what the grammar doesn't allow."""
    metrics, rest = [], header
    while True:
        match = METRIC.match(rest)
        assert match, f"no metric: {rest!r}"
        values = dict(re.findall(rf";({TOKEN})=({TOKEN}|{QUOTED})", match[2]))
        metrics.append((match[1], float(values.get("dur", 0)), values.get("desc", "").strip('"')))
        rest = rest[match.end() :]
        if not rest:
            return metrics
        assert rest.startswith(", "), f"no comma: {rest!r}"
        rest = rest[2:]
