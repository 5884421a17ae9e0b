"""
Stampede: many requests at once for a value that is not there. How many compute it?

Each guard is a function that a request would call. They get two bursts: one on a cold key, one
about the time when the value expires. Then one that has the right to compute never gives it up.
The requests are threads of this process, the cache is a Redis that other processes share too.
"""

import math
import random
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from statistics import median

from django import forms
from django.conf import settings
from redis.exceptions import LockNotOwnedError

from blog.content import written_posts
from blog.rendering import to_html
from lab import stampede_pages
from lab.caches import lab_cache
from lab.experiment import Experiment
from lab.run import Stopped

DATABASE = 6  # A pool of its own: each thread holds a connection.
FRESH = 2  # seconds that a value is good
STALE = 30  # seconds more that it is kept, where a stale one is of use
# Seconds after which a right to compute is free again, whoever had it. The mark of stale_while_
# renewed() stays for that long in any case: longer than FRESH, it would hinder the next renewal.
LOCK = 1.5
REFRESHED = 6  # Seconds, the last tenth of which is for an early refresh: see guard.py.
MOST_PAGES = 50  # requests at once: the blog's own connections to Redis are not endless
POSTS = 4  # that are rendered: some 50 ms of CPU
SAFE = {}


# The guards ---------------------------------------------------------------------------


def unguarded(cache, key, build):
    """GET, build(), SET. Whoever asks between GET and SET builds too."""
    return cache.get_or_set(key, build, FRESH)


def locked(cache, key, build):
    """One builds, all others wait for the lock, and look a second time when they have it."""
    value = cache.get(key)
    if value is None:
        # The error says at the end that build() took longer than the lock's time.
        with suppress(LockNotOwnedError), cache.lock(f"lock:{key}", timeout=LOCK, sleep=0.02):
            value = cache.get(key)  # Without this look, each of them would build in turn.
            if value is None:
                value = build()
                cache.set(key, value, FRESH)
    return value


def herd(cache, key, build):
    """
    HerdClient keeps a value for 60 seconds longer (CACHE_HERD_TIMEOUT). In that time it says
    "missing" to a few by chance, to more of them later. A cold key has no guard at all, and
    get_or_set() would never replace the old value: it stores only where there is none.
    """
    value = cache.get(key)
    if value is None:
        value = build()
        cache.set(key, value, FRESH)
    return value


def stale_while_renewed(cache, key, build):
    """One renews what is stale, and the others take it as it is. add() says who is the one."""
    entry = cache.get(key)
    if entry:
        is_fresh = time.time() < entry["fresh_until"]
        if is_fresh or cache.add(f"renewing:{key}", 1, LOCK) is False:
            return entry["value"]
    value = build()
    entry = {"value": value, "fresh_until": time.time() + FRESH}
    cache.set(key, entry, FRESH + STALE)
    return value


def early(cache, key, build):
    """XFetch: each rolls a die, and the nearer the end and the dearer the value, the likelier."""
    entry = cache.get(key)
    if entry is None or time.time() + entry["cost"] * random.expovariate(1) >= entry["ends"]:
        began = time.thread_time()  # CPU, not the clock: others may build at the same time.
        value = build()
        cost = time.thread_time() - began
        entry = {"value": value, "cost": cost, "ends": time.time() + FRESH}
        cache.set(key, entry, FRESH)
    return entry["value"]


def as_the_blog_does(cache, key, build):
    """get_or_set() of resilient_cache: one builds, and the others wait for the value."""
    return cache.get_or_set(key, build, REFRESHED)


# When the second burst comes, in seconds from now -------------------------------------


def when_expired(cache, key):
    return cache.pttl(key) / 1000 + 0.05


def when_herded(cache, key):
    # It counts whole seconds, and a value is old when its second is over.
    return cache.pttl(key) / 1000 - getattr(settings, "CACHE_HERD_TIMEOUT", 60) + 1.05


def when_stale(cache, key):
    return cache.get(key)["fresh_until"] - time.time() + 0.05


def shortly_before(cache, key):
    entry = cache.get(key)
    return entry["ends"] - time.time() - 5 * entry["cost"] if entry else 0


def shortly_before_its_end(cache, key):
    return cache.pttl(key) / 1000 - 0.4


@dataclass
class Guard:
    """A way to ask for a value, and when its second burst comes."""

    name: str
    ask: Callable
    comes: Callable
    second: str  # what the second burst is called
    options: dict = field(default_factory=lambda: SAFE)
    has_right: bool = False  # to compute, which somebody can take and never give back


GUARDS = [
    Guard("get_or_set", unguarded, when_expired, "just after expiry"),
    Guard("lock", locked, when_expired, "just after expiry", has_right=True),
    Guard(
        "HerdClient",
        herd,
        when_herded,
        "just after expiry",
        {
            "CLIENT_CLASS": "django_redis.client.HerdClient",
            "SERIALIZER": "lab.caches.HerdSerializer",
        },
    ),
    Guard("stale + add", stale_while_renewed, when_stale, "just after expiry", has_right=True),
    Guard("XFetch", early, shortly_before, "shortly before expiry"),
    Guard("resilient_cache", as_the_blog_does, shortly_before_its_end, "near its end", SAFE, True),
]


# Requests at once ---------------------------------------------------------------------


class Work:
    """Markdown with highlighted code, rendered for real. Counts how often."""

    def __init__(self, run):
        self.run, self.texts = run, [post["body"] for post in written_posts()[:POSTS]]
        self.done, self._lock = 0, threading.Lock()

    def build(self):
        """Return what the requests ask for. It begins with a number, a new one each time."""
        with self._lock:
            self.done += 1
            number = self.done
        html = []
        for text in self.texts:
            self.run.check()
            html.append(to_html(text))
        return [number, "".join(html)]


@dataclass
class Burst:
    """What became of requests that came at the same moment."""

    computed: int = 0
    waits: list = field(default_factory=list)  # milliseconds
    old: int = 0  # answers that were built before the burst


def burst(run, number, ask, work, seconds=0):
    """
    Let `number` threads ask at the same moment, `seconds` from now.

    Raises Stopped, or what one of them raised.
    """
    result, errors, before = Burst(), [], work.done
    opens, gate = time.monotonic() + seconds, threading.Event()

    def request():
        gate.wait()
        try:
            began = time.perf_counter()
            built, _ = ask()
            result.waits.append((time.perf_counter() - began) * 1000)
            result.old += built <= before
        except Exception as error:
            errors.append(error)

    name = f"stampede-{run.id}"
    threads = [threading.Thread(target=request, name=name, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        run.wait(max(0, opens - time.monotonic()))
    finally:
        gate.set()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)
            run.check()
    if errors:
        raise errors[0]
    result.computed = work.done - before
    return result


def p95(values):
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def two_bursts(run, guard, cache, number):
    """Yield (name, Burst) of a burst on a cold key, and of one when the value expires."""
    work = Work(run)

    def ask():
        return guard.ask(cache, "value", work.build)

    yield "cold", burst(run, number, ask, work)
    yield guard.second, burst(run, number, ask, work, guard.comes(cache, "value"))


def holder_dies(run, guard, cache, number):
    """
    Return (Burst, seconds until somebody computed) after one who never gives up the right.

    It is a thread that begins to compute and doesn't end while others ask. To Redis that is
    the same as a process that was killed: the right is there until its time is over.
    """
    work, has_right, is_over = Work(run), threading.Event(), threading.Event()

    def never_ends():
        has_right.set()
        is_over.wait(60)
        raise Stopped

    def hold():
        with suppress(Stopped):
            guard.ask(cache, "value", never_ends)

    def ask():
        return guard.ask(cache, "value", work.build)

    if guard.ask is stale_while_renewed:
        ask()  # Something stale to give away.
        run.wait(when_stale(cache, "value"))
    before, began = work.done, time.monotonic()
    threading.Thread(target=hold, daemon=True).start()
    try:
        has_right.wait(10)
        result = burst(run, number, ask, work)
        while work.done == before:
            run.wait(0.1)
            ask()
        result.computed = work.done - before
        return result, time.monotonic() - began
    finally:
        is_over.set()


def bursts(run, requests):
    """Send two bursts to each guard, one after the other, and tell what came of them."""
    done, of, cold = 0, 2 * len(GUARDS), []
    for guard in GUARDS:
        cache = lab_cache(run.id, DATABASE, **guard.options)
        run.tell("progress", done=done, of=of, text=f"{guard.name}: the first burst")
        try:
            for name, result in two_bursts(run, guard, cache, requests):
                tell_burst(run, guard, name, result)
                cold += [f"{guard.name} {result.computed}"] if name == "cold" else []
                done += 1
                run.tell("progress", done=done, of=of, text=f"{guard.name}: the second burst")
        finally:
            cache.delete_pattern("*")
    return f"Of {requests} requests for a cold key, so many computed: {', '.join(cold)}."


def deaths(run, requests):
    """Let a holder die, for each guard that has a right to compute, and others ask."""
    guards, computed = [guard for guard in GUARDS if guard.has_right], []
    for done, guard in enumerate(guards):
        cache = lab_cache(run.id, DATABASE, **guard.options)
        run.tell("progress", done=done, of=len(guards), text=f"{guard.name}: a holder dies")
        try:
            result, seconds = holder_dies(run, guard, cache, requests)
        finally:
            cache.delete_pattern("*")
        waits = [f"{wait / 1000:.2f} s" for wait in (median(result.waits), max(result.waits))]
        cells = [guard.name, result.computed, *waits, result.old, f"{seconds:.1f} s"]
        run.tell("row", table="dead", key=guard.name, cells=cells)
        computed.append(f"{guard.name} after {seconds:.1f} s")
    return f"The holder died, and the next one computed: {', '.join(computed)}."


def pages(run, requests):
    """Let the requests ask for whole pages: of plain cache_page, and of the blog's levels."""
    requests, work = min(requests, MOST_PAGES), Work(run)
    names, built = list(stampede_pages.PAGES), []
    run.tell("progress", done=0, of=len(names), text=f"{requests} visitors at once")
    with closing(stampede_pages.page_bursts(run, requests, burst, work)) as found:
        for done, (name, result) in enumerate(found, 1):
            numbers = [median(result.waits), p95(result.waits), max(result.waits)]
            cells = [name, requests, result.computed, *(f"{number:.0f}" for number in numbers)]
            run.tell("row", table="pages", key=name, cells=cells)
            run.tell("progress", done=done, of=len(names), text=f"{requests} visitors at once")
            built.append(f"{name} {result.computed}")
    return f"Of {requests} visitors at once, so many built the page: {', '.join(built)}."


def stampede(run, requests, part):
    says = {"bursts": bursts, "dead": deaths, "pages": pages}[part](run, requests)
    run.tell("say", text=says)


def tell_burst(run, guard, name, result):
    waits = [round(wait, 1) for wait in result.waits]
    numbers = [f"{value:.0f}" for value in (median(waits), p95(waits), max(waits))]
    cells = [guard.name, name, result.computed, *numbers, result.old]
    run.tell("row", table="bursts", key=f"{guard.name} {name}", cells=cells)
    run.tell("burst", guard=guard.name, is_cold=name == "cold", values=waits)


class StampedeForm(forms.Form):
    requests = forms.IntegerField(
        label="Requests at once", min_value=2, max_value=100, initial=50, help_text="2 to 100"
    )
    part = forms.ChoiceField(
        label="What happens",
        choices=[
            ("bursts", "two bursts for each guard"),
            ("dead", "the one who computes dies"),
            ("pages", "a burst on whole pages"),
        ],
    )


experiment = Experiment(
    slug="stampede",
    title="Stampede",
    idea="A costly value is gone, and many requests ask for it at the same moment. "
    "How many of them compute it, and how long do the others wait?",
    lesson=(
        "`get_or_set()` takes no lock: nearly everybody who comes in the meantime computes, and "
        "each is slower for it.",
        "A lock helps only together with the second look. Everybody waits, also for a holder "
        "that has died: its timeout is how long.",
        "HerdClient, XFetch and a stale value do nothing for a cold key. Where an old value "
        "will do, they let nobody wait: a stale value and `add()` for exactly one computation, "
        "the other two for a few, by chance.",
        "`resilient_cache` takes a lock with a second look, and refreshes a value shortly before "
        "its end: one computation each time. No request waits while the value is in demand.",
    ),
    code=(
        *(unguarded, locked, herd, stale_while_renewed, early, as_the_blog_does),
        *(Work, burst, two_bursts, holder_dies, *stampede_pages.PAGES.values()),
    ),
    form=StampedeForm,
    run=stampede,
    pages=stampede_pages.urls,
)
