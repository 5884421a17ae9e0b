"""
The fault table: what each way in which Redis can fail does to the blog, for real.

    python tools/faults.py            all of it: before and now, about 27 minutes
    python tools/faults.py --now      without `before`, about 22
    python tools/faults.py --quick    only now, a minute, and no time is judged

gunicorn as it is shipped, with 2 processes, and 8 clients with keep-alive
connections, 4 to each process, that read every page while somebody comments and edits. Three
blogs: `now` is this project, `before` the same on plain django-redis, `off` the same without any
cache (see plain_settings.py). Exits with status 1 when a limit of the blog `now` is broken.

Each fault comes twice. Once under load, where the blog takes turns with the one that is `off`,
so that both have the same machine: requests/s and CPU are medians of the ratios of these turns,
in which every client reads every page. `before` has one turn of twelve seconds, because a page
may take twenty. Eight clients on two cores wait for each other, and what a request takes is then
a matter of luck: `late` are those that took longer than the slowest uncached one of that page in
the whole run and half a second. Uncached requests are late themselves now and then, by the limits
from all other faults: `late off`, which excuses nothing.

So the fault comes once more, to one visitor who reads every page twice, with a new connection each
time: `over` is the most that a page took beyond its uncached time. On a machine that does
something else meanwhile even that is luck; `waited` is the most that a request spent on Redis, by
its own Server-Timing, and no limit: under load most of that is waiting for a core.
"""

import argparse
import os
import re
import sys
import threading
import time
from collections import Counter, defaultdict
from contextlib import ExitStack, suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mysite.tests.faults import RedisServer
from mysite.tests.outages import (
    FAULTS,
    RECOVERY,
    SPECIAL,
    has_namespaces,
    is_loading,
    way_to_redis,
)
from mysite.tests.processes import wait_until
from mysite.tests.served import Gunicorn, Home

CLIENTS, WORKERS = 8, 2
COMMENTED = "/posts/the-whole-site/"
EDITED = "/posts/keys-prefixes-and-versions/"
PAGES = [
    *("/", "/?page=2", "/tags/redis/", "/about/", "/feed/", "/sitemap.xml"),
    *(COMMENTED, EDITED, "/posts/fragments/", "/posts/stampede/"),
    *("/archive/", "/search/?q=redis", "/search/?q=cache+redis", "/search/?q=stampede"),
    *(f"{EDITED}comment/", "/posts/no-such-post/"),
]
# What a page level keeps: Age says so. The rest of the pages say nothing about hits.
KEPT = PAGES[:10]
SHOWN = 100  # A page has its 200 latest comments: these are there, whatever comes meanwhile.

# The limits of the blog `now`.
STATUSES = {200, 404}
SHARE = 0.8  # Requests a second, of those without a cache.
LATE = 0.5  # Seconds that a request may take beyond the slowest uncached one of its page.
STALE_AFTER = 2  # Seconds after a fault from which on no answer may be stale.
TURN = 4  # Seconds that a blog has the machine before the other one has it, about.
BEFORE = 12  # Seconds that the blog `before` has.
TRIES = 300  # At having as many connections to each process.
LEVEL = re.compile(r"(?:site|view|fragment|low-level);dur=([\d.]+)")
PATIENCE = 10  # Seconds to wait for hits after a fault.
GIVE_UP = 20  # Seconds after which a client takes an answer for lost.


def waited_for_redis(answer):
    """Return the seconds that a request spent on Redis, as far as Server-Timing says."""
    return sum(map(float, LEVEL.findall(answer.get("Server-Timing", "")))) / 1000


def target(link):
    """Return what a link in /proc is to, or None: it may be gone by now."""
    with suppress(OSError):
        return str(link.readlink())
    return None


class Request(NamedTuple):
    """One request of a client. `waited` are the seconds of it that were spent on Redis."""

    start: float
    path: str
    seconds: float
    status: int | str
    is_hit: bool
    waited: float


class Load:
    """What the clients saw in one phase."""

    def __init__(self):
        self.requests = []
        self.stale = []  # When each request with an outdated answer began.
        self.cpu = 0
        self.rate = 0  # Requests a second: of each client while it read, and their sum.
        self.lock = threading.Lock()

    @classmethod
    def together(cls, loads):
        """Return several phases as one."""
        load = cls()
        for each in loads:
            load.requests += each.requests
            load.stale += each.stale
            load.rate += each.rate / len(loads)
        return load

    @property
    def wrong(self):
        """Return what is neither a page nor a page's own 404, as text."""
        counts = Counter(seen.status for seen in self.requests if seen.status not in STATUSES)
        return ", ".join(f"{count} x {status}" for status, count in counts.items())

    @property
    def cpu_a_request(self):
        """Return the seconds of CPU of a request."""
        return self.cpu / max(1, len(self.requests))

    def slowest(self):
        """Return {path: seconds}."""
        slowest = defaultdict(float)
        for seen in self.requests:
            slowest[seen.path] = max(slowest[seen.path], seen.seconds)
        return slowest


class Blog:
    """One of the three blogs, with a Redis of its own."""

    def __init__(self, stack, name, posts, comments):
        self.name = name
        self.home = stack.enter_context(Home(posts, comments))
        self.server = RedisServer().start()
        stack.callback(self.server.close)
        self.gunicorn = None
        self.due = {}  # What pages must show: {text: path}.
        self.accepted = set()  # All comments that the blog took, and the last edit.
        self.ended_early = []  # Faults that were over before the last client had read.
        stack.callback(self.stop)

    def start(self, url, command=()):
        self.stop()
        plain = {"DJANGO_SETTINGS_MODULE": "tools.plain_settings", "CACHE_WATCH": "0"}
        how = {"now": {}, "before": plain | {"CACHING": "plain"}, "off": plain | {"CACHING": "off"}}
        self.gunicorn = Gunicorn(
            self.home,
            url,
            workers=WORKERS,
            command=command,
            # The comments of one address are limited, and here they come from one.
            TRUST_PROXY="1",
            **how[self.name],
        )
        self.clients = [self.gunicorn.browser() for _ in range(CLIENTS + 2)]
        for client in self.clients:
            client.connection.timeout = GIVE_UP
        self.clients[-1].log_in()

    def stop(self):
        if self.gunicorn:
            self.gunicorn.stop()
            self.gunicorn = None

    def warm(self):
        for _ in range(2):
            for path in PAGES:
                with suppress(OSError, HTTPException):
                    self.clients[0].get(path)

    def load(self, seconds=0, rounds=0, writing=True, until=None):
        """
        Let the clients read pages, and return what they saw: for `seconds`, or each page as often
        as `rounds` says. Only rounds compare: who is slower reads other pages in the same seconds.

        With `until`, a function of the Load, it goes on until that is true, or PATIENCE ends.
        """
        self.connect()
        load, cpu, deadline = Load(), self.cpu(), time.monotonic() + seconds
        threads = [
            threading.Thread(
                target=self.read, args=(client, number * 2, deadline, rounds, load, until)
            )
            for number, client in enumerate(self.clients[:CLIENTS])
        ]
        over = threading.Event()
        writers = [threading.Thread(target=self.write, args=(over,))] if writing else []
        for thread in (*threads, *writers):
            thread.start()
        for thread in threads:
            thread.join()
        over.set()
        for thread in writers:
            thread.join()
        load.cpu = self.cpu() - cpu
        return load

    def connect(self):
        """
        Open the connections of the clients anew, as many to each process.

        Left to chance, six of eight end up in one of two now and then, and a sixth of the
        requests a second is lost.
        """
        room = dict.fromkeys(self.gunicorn.workers(), CLIENTS // WORKERS)
        clients = self.clients[:CLIENTS]
        for _ in range(TRIES):
            if not clients:
                return
            clients[-1].close()
            clients[-1].connection.connect()
            wait_until(partial(self.process_of, clients[-1]), 1)
            process = self.process_of(clients[-1])
            if room.get(process):
                room[process] -= 1
                clients.pop()
        print(f"{self.name}: connections are uneven, missing: {room}", file=sys.stderr)

    def process_of(self, client):
        """Return the number of the worker that has accepted the client's connection, or None."""
        ends = [f":{port:04X}" for port in (client.port, client.connection.sock.getsockname()[1])]
        for line in Path("/proc/net/tcp").read_text().splitlines():
            _, here, there, *_, inode = line.split()[:10]
            if here.endswith(ends[0]) and there.endswith(ends[1]):
                socket = f"socket:[{inode}]"
                for process in self.gunicorn.workers():
                    if socket in map(target, Path(f"/proc/{process}/fd").iterdir()):
                        return process
        return None

    def read(self, client, offset, deadline, rounds, load, until):
        began, number = time.monotonic(), 0
        while (
            number < rounds * len(PAGES)
            or (now := time.monotonic()) < deadline
            or (until and now < deadline + PATIENCE and not until(load))
        ):
            path = PAGES[offset % len(PAGES)]
            offset += 1
            number += 1
            due = [text for text, where in self.due.items() if where == path]
            start, hit, waited = time.monotonic(), False, 0
            try:
                answer = client.get(path)
                status, hit, waited = answer.status, answer.is_hit, waited_for_redis(answer)
            except (OSError, HTTPException) as error:
                client.close()
                status = type(error).__name__
            seconds = time.monotonic() - start
            with load.lock:
                load.requests.append(Request(start, path, seconds, status, hit, waited))
                # An edit in the meantime takes the place of the one before.
                if status == 200 and any(
                    text not in answer.text and text in self.due for text in due
                ):
                    load.stale.append(start)
        with load.lock:
            # Of each client by itself: at the end the last of them is alone for a while.
            load.rate += number / (time.monotonic() - began)

    def alone(self):
        """Return {path: seconds} that a page took one visitor, the slower one of two times."""
        slowest, client = defaultdict(float), self.clients[0]
        for path in PAGES * 2:
            client.close()  # Another process may get the next one.
            start = time.monotonic()
            client.get(path)
            slowest[path] = max(slowest[path], time.monotonic() - start)
        return slowest

    def write(self, over):
        """Comment twice a second, and edit a post once, until `over` is set."""
        visitor, author = self.clients[-2:]
        query = "SELECT id FROM blog_post WHERE slug = 'keys-prefixes-and-versions'"
        ((pk,),) = self.home.query(query)
        number = 0
        while not over.wait(0.5 if number else 0):
            number += 1
            text = f"written {time.time_ns()}"
            with suppress(OSError, HTTPException):
                if number == 2:
                    self.accepted -= {t for t, p in self.due.items() if p == EDITED}
                    self.due = {t: p for t, p in self.due.items() if p != EDITED}
                    answer = author.edit(pk, title=f"Keys, {text}")
                else:
                    visitor.headers["X-Forwarded-For"] = f"10.0.{number}.{time.time_ns() % 256}"
                    answer = visitor.comment("the-whole-site", "Ada", text)
                if answer.status == 302:
                    self.accepted.add(text)
                    self.due = self.due | {text: EDITED if number == 2 else COMMENTED}
                gone = [text for text, path in self.due.items() if path == COMMENTED][:-SHOWN]
                self.due = {t: p for t, p in self.due.items() if t not in gone}

    def lost(self):
        """Return how many accepted comments and edits the database has not."""
        rows = self.home.query("SELECT body FROM blog_comment UNION SELECT title FROM blog_post")
        return len(self.accepted - {text.removeprefix("Keys, ") for (text,) in rows})

    def cpu(self):
        """Return the seconds of CPU that the workers have used."""
        ticks = 0
        for pid in self.gunicorn.workers():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def measure(blog, off, name, seconds, is_judged):
    """Let a blog go through a fault, and return what it did."""
    with ExitStack() as stack:
        if name in SPECIAL or blog.gunicorn is None:
            blog.start(*way_to_redis(stack, blog, name))
        blog.warm()
        if is_judged:
            turns, turn, length = max(1, round(seconds / TURN)), {"rounds": 1}, TURN
        else:
            length = min(seconds, BEFORE)
            turns, turn = 1, {"seconds": length}
        # Twice, as the other blog has as many, and some more.
        blog.seconds = 3 * length * turns
        lines, began = len(blog.gunicorn.lines().splitlines()), time.monotonic()
        end = FAULTS[name](blog)
        uncached, during = [], []
        for _ in range(turns):
            uncached.append(off.load(**turn))
            during.append(blog.load(**turn))
        check(blog, name)
        end()
        ended = time.monotonic()
        lines = (len(blog.gunicorn.lines().splitlines()) - lines, ended - began)
        after = blog.load(2 * STALE_AFTER, writing=False, until=has_recovered)
        over = most_over(blog, off, name) if is_judged else None
        if name in SPECIAL or blog.name == "before":
            blog.stop()  # Its threads may still wait for Redis.
        blog.server.command("FLUSHALL")
        return Row(name, blog, during, after, uncached, lines, ended, over)


def check(blog, name):
    """Take note if the fault is over already. Only "loading" ends by itself."""
    if name == "loading" and not is_loading(blog.server):
        blog.ended_early.append(name)


def most_over(blog, off, name):
    """Return the most that a page takes one visitor beyond its uncached time, and which."""
    uncached = off.alone()
    blog.warm()
    blog.seconds = 10
    end = FAULTS[name](blog)
    over = {path: seconds - uncached[path] for path, seconds in blog.alone().items()}
    check(blog, name)
    end()
    return max((seconds, path) for path, seconds in over.items())


class Row:
    """One fault, and what one of the blogs did."""

    def __init__(self, name, blog, during, after, uncached, lines, ended, over):
        self.fault, self.blog = name, blog.name
        turns = list(zip(during, uncached, strict=True))
        self.share = median(now.rate / off.rate for now, off in turns)
        self.cpu_share = median(off.cpu_a_request / (now.cpu_a_request or 1) for now, off in turns)
        self.during, self.uncached = Load.together(during), Load.together(uncached)
        self.after = after
        self.lines, self.seconds = lines
        self.recovery = recovery(after, ended)
        self.over = over
        self.stale = len(self.during.stale) + len(after.stale)
        self.stale_later = [began for began in after.stale if began > ended + STALE_AFTER]
        self.lost = blog.lost()
        self.ended_early = self.fault in blog.ended_early

    def judge(self, limits, quick):
        """
        Note what is over a limit. `limits` has the seconds a page took without a cache.

        Two seconds a fault, on a machine that may do something else, are no measurement: with
        `quick` only what is right or wrong at any speed counts.
        """
        requests = self.during.requests + self.after.requests
        late = late_of(requests, limits)
        self.slowest = max(seen.seconds for seen in requests)
        self.late = late
        self.waited = max(seen.waited for seen in requests)
        self.wrong = ", ".join(filter(None, (self.during.wrong, self.after.wrong)))
        wrong = {
            "statuses": self.wrong,
            # A line a second, and one of each process when it begins.
            "log": self.lines > WORKERS + self.seconds,
            "no hits afterwards": self.recovery is None,
            "stale": self.stale_later,
            "lost": self.lost,
            "ended early": self.ended_early,
        }
        slow = {
            "requests/s": self.share < SHARE,
            "late": late,
            "slow": self.over is not None and self.over[0] > LATE,
            "recovery": self.recovery is not None and self.recovery > RECOVERY,
        }
        self.broken = [what for what, is_so in (wrong | ({} if quick else slow)).items() if is_so]

    def cells(self):
        recovery = "not seen" if self.recovery is None else f"{self.recovery:.1f} s"
        waited = f"{self.waited:.2f} s" if self.blog == "now" else ""
        over = "" if self.over is None else "{:.2f} s {}".format(*self.over)
        return (
            *(self.fault, self.blog, self.wrong or "0"),
            *(f"{self.share:.0%}", f"{self.cpu_share:.0%}"),
            *(f"{self.slowest:.2f} s", str(len(self.late)), str(len(self.late_off))),
            *(over, waited),
            *(f"{self.lines / self.seconds:.1f}", recovery),
            *(str(self.stale), str(self.lost)),
        )


HEAD = (
    *("fault", "blog", "other than 200/404", "req/s to off", "CPU to off", "slowest", "late"),
    *("late off", "over", "waited", "log lines/s", "hits again", "stale", "lost"),
)


def has_recovered(load):
    """Return whether the last answer for each page that is kept was a hit."""
    with load.lock:
        last = {seen.path: seen.is_hit for seen in load.requests if seen.path in KEPT}
    return set(last) == set(KEPT) and all(last.values())


def recovery(after, ended):
    """
    Return the seconds until no page was built in vain any more, or None if that never came.

    In vain is a miss that another one follows: what it built was not kept. The last miss of a
    page says nothing. When nobody asked for it earlier, it comes late and is kept at once.
    """
    if not has_recovered(after):
        return None
    vain = [ended]
    for page in KEPT:
        misses = sorted(
            (seen.start, seen.start + seen.seconds)
            for seen in after.requests
            if seen.path == page and not seen.is_hit
        )
        latest = misses[-1][0] if misses else ended
        vain += [start for start, end in misses if end < latest]
    return max(vain) - ended


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="only now, 2 s a fault, no time judged"
    )
    parser.add_argument("--now", action="store_true", help="without `before`")
    parser.add_argument("--seconds", type=float, help="that now and off have during a fault (48)")
    parser.add_argument("--only", nargs="+", choices=FAULTS, metavar="FAULT", default=list(FAULTS))
    options = parser.parse_args()
    seconds = options.seconds or (2 if options.quick else 48)
    names = [name for name in options.only if name != "dns" or has_namespaces()]
    for name in set(options.only) - set(names):
        print(f"{name}: left out, it needs Linux with user namespaces.")
    kinds = ("off", "now") if options.quick or options.now else ("off", "before", "now")
    with ExitStack() as stack:
        off, *blogs = (Blog(stack, name, posts=200, comments=5000) for name in kinds)
        off.start(off.server.url)
        off.warm()
        rows = []
        for name in names:
            for blog in blogs:
                is_judged = blog.name == "now" and not options.quick
                rows.append(measure(blog, off, name, seconds, is_judged))
                print(f"{name}, {blog.name}: {rows[-1].share:.0%}", file=sys.stderr, flush=True)
    sys.exit(report(rows, options.quick))


def slowest_of(rows):
    """Return {path: the most seconds that it took without a cache}."""
    limits = defaultdict(float)
    for row in rows:
        for path, seconds in row.uncached.slowest().items():
            limits[path] = max(limits[path], seconds)
    return limits


def late_of(requests, limits):
    """Return a line for each request that took longer than its limit and half a second."""
    return [
        f"{seen.path} took {seen.seconds:.2f} s, {seen.waited:.2f} s of it on Redis, "
        f"limit {limits[seen.path] + LATE:.2f} s"
        for seen in requests
        if seen.path in limits and seen.seconds > limits[seen.path] + LATE
    ]


def report(rows, quick):
    """Print the table and what is broken. Return the exit status."""
    limits = slowest_of(rows)
    for row in rows:
        others = [other for other in rows if other.fault != row.fault]
        row.late_off = late_of(row.uncached.requests, slowest_of(others)) if others else []
    for row in rows:
        row.judge(limits, quick)
    rate = sum(row.uncached.rate for row in rows) / len(rows)
    print(f"\nOff: {rate:.0f} requests/s, the slowest took {max(limits.values()):.2f} s.\n")
    print("|", " | ".join(HEAD), "|")
    print("|---" * len(HEAD) + "|")
    for row in rows:
        print("|", " | ".join(row.cells()), "|")
    broken = [row for row in rows if row.blog == "now" and row.broken]
    for row in broken:
        print(f"\nBROKEN {row.fault}: {', '.join(row.broken)}")
        for line in row.late:
            print(line)
    return 1 if broken else 0


if __name__ == "__main__":
    main()
