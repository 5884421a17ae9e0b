"""
Ten minutes of readers, comments, edits and a Redis that is killed and hung at random.

    python tools/soak.py [--seconds 600] [--seed 1]

gunicorn as it is shipped, through real HTTP clients. Exits with status 1 unless no answer was
a 5xx, each page of every level showed every edit, and each post every comment, accepted before
it was asked for (from two seconds after a fault on), all of them are there at the end, and the
memory of the workers and of Redis stayed flat.
"""

import argparse
import random
import re
import statistics
import sys
import threading
import time
from collections import Counter, defaultdict
from contextlib import ExitStack, suppress
from http.client import HTTPException
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mysite.tests.faults import RedisServer
from mysite.tests.processes import wait_until
from mysite.tests.served import Gunicorn, Home

READERS, WRITERS, WORKERS = 5, 2, 2
SLUGS = ("the-whole-site", "per-view", "fragments", "stampede", "keys-prefixes-and-versions")
POSTS = [f"/posts/{slug}/" for slug in SLUGS]
OTHERS = [
    *("/", "/?page=2", "/tags/redis/", "/about/", "/feed/", "/sitemap.xml", "/archive/"),
    *("/search/?q=redis", "/search/?q=cache+redis", "/posts/stampede/comment/", "/healthz"),
]
TITLE = re.compile(r"Edited \d+")  # As edit() makes them.
SHOWN = 100  # A page has its 200 latest comments: these are there, whatever comes meanwhile.
PAUSE = 0.5  # Seconds between two comments of a writer, and between two edits.

# As docker-compose.yml starts Redis.
REDIS = ("--maxmemory", "64mb", "--maxmemory-policy", "volatile-lru")

# Memory is flat when the last fifth of the time is not above the second one by more.
# The slack is for threads that are used for the first time: each has a database connection.
GROWTH, SLACK = 1.1, 32 * 2**20
STALE_AFTER = 2  # Seconds after a fault from which on no process may show what is outdated.


class Soak:
    """All that goes on, and what was seen."""

    def __init__(self, stack, seconds, seed):
        self.seconds, self.seed = seconds, seed
        self.recovered = 0.0  # Of time.monotonic(): when the last fault ended.
        self.fault = "the start"  # The last one, or the one that goes on.
        self.home = stack.enter_context(Home(posts=100, comments=500))
        self.server = RedisServer(*REDIS).start()
        stack.callback(self.server.close)
        # The comments of one address are limited: each one here comes from an address of its
        # own, as a proxy would say it.
        self.gunicorn = stack.enter_context(
            Gunicorn(self.home, self.server.url, WORKERS, TRUST_PROXY="1")
        )
        rows = self.home.query("SELECT slug, id FROM blog_post")
        self.pks = {slug: pk for slug, pk in rows if slug in SLUGS}
        self.lock = threading.Lock()
        self.comments = defaultdict(list)  # Accepted, by path.
        self.titles = defaultdict(list)  # All that were sent, by path, oldest first.
        self.accepted = defaultdict(int)  # How many of the titles were accepted, at least.
        self.seen, self.faults = Counter(), Counter()
        self.problems = []
        self.memory = []  # (time, of the workers, of Redis)
        self.broken = False  # Redis is, just now.

    def run(self):
        jobs = [(self.read, number) for number in range(READERS)]
        jobs += [(self.comment, number) for number in range(WRITERS)]
        jobs += [(self.edit, 0), (self.break_redis, 0), (self.weigh, 0)]
        self.deadline = time.monotonic() + self.seconds
        threads = [threading.Thread(target=self.guard, args=job) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.at_the_end()

    def guard(self, job, number):
        try:
            # Seeded by what it is: the same seed makes the same choices.
            job(random.Random(f"{self.seed} {job.__name__} {number}"))  # noqa: S311
        except Exception as error:
            self.problem(f"{job.__name__} ended: {type(error).__name__}: {error}")

    def problem(self, text):
        with self.lock:
            now = time.monotonic()
            self.problems.append(
                f"{self.deadline - now:.1f} s before the end, {now - self.recovered:.1f} s after "
                f"{self.fault}: {text}"
            )

    @property
    def may_be_stale(self):
        """Return whether Redis is broken, or was until a moment ago: see Bounds in README."""
        return self.broken or time.monotonic() < self.recovered + STALE_AFTER

    @property
    def goes_on(self):
        return time.monotonic() < self.deadline

    def count(self, what, answer):
        with self.lock:
            self.seen[what] += 1
        if answer.status >= 500:
            self.problem(f"{what}: {answer.status}")

    def read(self, choose):
        browser = self.gunicorn.browser()
        while self.goes_on:
            path = choose.choice(POSTS if choose.random() < 0.5 else OTHERS)
            outdated = self.outdated()
            comments = self.comments[path][-SHOWN:]
            accepted = self.accepted[path]
            may_be_stale = self.may_be_stale
            try:
                answer = browser.get(path)
            except (OSError, HTTPException) as error:
                browser.close()
                self.problem(f"{path}: {type(error).__name__}")
                continue
            self.count("hits" if answer.is_hit else "other answers", answer)
            if answer.status != 200:
                self.problem(f"{path}: {answer.status}")
                continue
            if may_be_stale or self.may_be_stale:
                continue
            # Lists, feeds, fragments and results show titles too. Nothing here is as old as a
            # timeout allows: an edit invalidates them at once.
            shown = TITLE.findall(answer.text)
            if shown and path in OTHERS:
                self.count("of them with edited titles in a list", answer)
            if old := outdated.intersection(shown):
                self.problem(
                    f"{path} shows {len(old)} titles that were edited since "
                    f"({answer.headers.get('Cache-Status')})"
                )
            if missing := [text for text in comments if text not in answer.text]:
                self.problem(f"{path} misses {len(missing)} of {len(comments)} comments")
            # The last title that was accepted before, or a later one.
            titles = self.titles[path][max(0, accepted - 1) :]
            if accepted and not any(title in answer.text for title in titles):
                self.problem(f"{path} has an old title")
        browser.close()

    def outdated(self):
        """Return the titles that were replaced by one that was accepted by now."""
        return {
            title
            for path, titles in list(self.titles.items())
            for title in titles[: max(0, self.accepted[path] - 1)]
        }

    def comment(self, choose):
        while self.goes_on:
            slug = choose.choice(SLUGS)
            text = f"said {time.time_ns()}"
            address = ".".join(str(choose.randrange(256)) for _ in range(4))
            browser = self.gunicorn.browser(**{"X-Forwarded-For": address})
            answer = browser.comment(slug, "Ada", text)
            browser.close()
            self.count("comments", answer)
            if answer.status == 302:
                self.comments[f"/posts/{slug}/"].append(text)
            else:
                self.problem(f"a comment was not taken: {answer.status}")
            time.sleep(PAUSE)

    def edit(self, choose):
        browser = self.gunicorn.browser()
        browser.log_in()
        while self.goes_on:
            slug = choose.choice(SLUGS)
            path, title = f"/posts/{slug}/", f"Edited {time.time_ns()}"
            self.titles[path].append(title)
            answer = browser.edit(self.pks[slug], title=title)
            self.count("edits", answer)
            if answer.status == 302:
                self.accepted[path] = len(self.titles[path])
            else:
                self.problem(f"an edit was not taken: {answer.status}")
            time.sleep(PAUSE)
        browser.close()

    def break_redis(self, choose):
        while self.goes_on:
            time.sleep(min(choose.uniform(2, 6), max(0, self.deadline - time.monotonic())))
            fault = choose.choice(["hung", "killed", "killed, and back with its data", "blinked"])
            self.broken = True
            self.fault = fault
            self.faults[fault] += 1
            if fault == "hung":
                self.server.hang()
                time.sleep(choose.uniform(0.1, 3))
                self.server.wake()
            elif fault == "blinked":  # Shorter than a timeout, or hardly longer.
                for _ in range(5):
                    self.server.hang()
                    time.sleep(choose.uniform(0.01, 0.4))
                    self.server.wake()
                    time.sleep(choose.uniform(0, 0.3))
            else:
                dump = self.server.directory / "dump.rdb"
                dump.unlink(missing_ok=True)
                if fault == "killed":
                    self.server.kill()
                else:
                    self.server.save_and_end()
                time.sleep(choose.uniform(0, 2))
                self.server.start()
            self.broken, self.recovered = False, time.monotonic()

    def weigh(self, choose):
        start = time.monotonic()
        while self.goes_on:
            pages = (Path(f"/proc/{pid}/statm").read_text() for pid in self.gunicorn.workers())
            workers = sum(int(line.split()[1]) for line in pages) * 4096
            redis = None
            with suppress(Exception):
                if not self.broken:
                    redis = self.server.command("INFO", "memory")["used_memory"]
            self.memory.append((time.monotonic() - start, workers, redis))
            time.sleep(1)

    def at_the_end(self):
        kept = {text for (text,) in self.home.query("SELECT body FROM blog_comment")}
        said = {text for texts in self.comments.values() for text in texts}
        if lost := said - kept:
            self.problem(f"{len(lost)} comments are lost")
        titles = {title for (title,) in self.home.query("SELECT title FROM blog_post")}
        for path, sent in self.titles.items():
            if self.accepted[path] and sent[self.accepted[path] - 1] not in titles:
                self.problem(f"the last edit of {path} is lost")
        browsers = [self.gunicorn.browser() for _ in range(8)]
        if not wait_until(lambda: all(b.get(POSTS[0]).is_hit for b in browsers)):
            self.problem("no hits after the last fault")
        for browser in browsers:
            browser.close()
        if len(set(self.gunicorn.workers())) != WORKERS:
            self.problem("a worker was replaced")
        for index, what in ((1, "the workers"), (2, "Redis")):
            before, after = self.fifth(index, 1), self.fifth(index, 4)
            print(f"Memory of {what}: {before / 2**20:.1f} MB, then {after / 2**20:.1f} MB")
            if after > GROWTH * before + SLACK:
                self.problem(f"memory of {what} grows")

    def fifth(self, index, number):
        """Return the median of a fifth of the time. The first one is the warm-up."""
        start, end = self.seconds * number / 5, self.seconds * (number + 1) / 5
        return statistics.median(
            [each[index] for each in self.memory if start <= each[0] < end and each[index]] or [0]
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=int, default=600, help="how long (600)")
    parser.add_argument("--seed", type=int, default=1, help="of the random choices (1)")
    options = parser.parse_args()
    if not 20 <= options.seconds <= 24 * 60 * 60:
        parser.error("--seconds takes 20 to 86400.")
    with ExitStack() as stack:
        soak = Soak(stack, options.seconds, options.seed)
        soak.run()
        print("Answers:", ", ".join(f"{count} {what}" for what, count in soak.seen.items()))
        print("Redis:", ", ".join(f"{count} x {what}" for what, count in soak.faults.items()))
        if soak.problems:
            print(f"{len(soak.problems)} PROBLEMS:", *soak.problems[:20], sep="\n  ")
            print(*soak.gunicorn.lines().splitlines()[-20:], sep="\n")
            sys.exit(1)
        print("No problems.")


if __name__ == "__main__":
    main()
