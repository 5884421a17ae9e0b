"""
Stampede: many requests at once for a value that is not cached. How many compute it?

Each guard is a function that a request would call. It gets two bursts: one on a cold key, one
about the time when the value expires. In another part, the holder of the lock never releases it.
The requests are threads of this process. The cache is a Redis that other processes share, too.
"""

import math
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
from lab.caches import PLAIN, RESILIENT, empty, lab_cache
from lab.experiment import Experiment, Question
from lab.run import Stopped
from resilient_cache import guard as resilient_guard

DATABASE = 6  # A pool of its own: each thread holds a connection.
FRESH = 2  # Seconds that a value is valid.
LOCK = 1.5  # Seconds after which Redis deletes the lock of a holder that died.
GUARDED = 10  # Seconds that a guarded value is valid. In the last one it is refreshed early.
MOST_PAGES = 50  # Requests at once for whole pages.
POSTS = 4  # That are rendered: some 50 ms of CPU.


# The guards ---------------------------------------------------------------------------


def unguarded(cache, key, build):
    """django-redis as it comes: GET, build(), SET. Each request in between builds, too."""
    return cache.get_or_set(key, build, FRESH)


def locked(cache, key, build):
    """One builds. The others wait for the lock, and look a second time when they have it."""
    value = cache.get(key)
    if value is None:
        # The error says at the end that build() took longer than the lock's timeout.
        with suppress(LockNotOwnedError), cache.lock(f"lock:{key}", timeout=LOCK, sleep=0.02):
            value = cache.get(key)  # Without this look, each would build, one after another.
            if value is None:
                value = build()
                cache.set(key, value, FRESH)
    return value


def herd(cache, key, build):
    """
    HerdClient stores a value for 60 more seconds (CACHE_HERD_TIMEOUT). In that time it says
    "missing" to a few by chance, and to more of them later. A cold key is not guarded. get_or_set()
    would never replace the old value, because it stores only where the key is missing.
    """
    value = cache.get(key)
    if value is None:
        value = build()
        cache.set(key, value, FRESH)
    return value


def resilient(cache, key, build):
    """get_or_set() of resilient_cache: one builds, also shortly before the value expires."""
    return cache.get_or_set(key, build, GUARDED)


# When the second burst comes, in seconds from now -------------------------------------


def when_expired(cache, key):
    return cache.pttl(key) / 1000 + 0.05


def when_herded(cache, key):
    # It counts whole seconds, and a value is old when its second is over.
    return cache.pttl(key) / 1000 - getattr(settings, "CACHE_HERD_TIMEOUT", 60) + 1.05


def shortly_before(cache, key):
    # Instead of waiting nine seconds for the last one.
    cache.pexpire(key, int(1000 * resilient_guard.early(GUARDED)))
    return 0


@dataclass
class Guard:
    """A way to ask for a value, and when its second burst comes."""

    name: str
    ask: Callable
    comes: Callable
    second: str  # What the second burst is called.
    backend: str = PLAIN
    options: dict = field(default_factory=dict)
    has_lock: bool = False  # So its holder can die.

    def cache(self, run):
        """Return the cache of a run that this guard works on."""
        return lab_cache(run.id, DATABASE, self.backend, **self.options)


HERD = {
    "CLIENT_CLASS": "django_redis.client.HerdClient",
    "SERIALIZER": "lab.caches.HerdSerializer",
}
GUARDS = [
    Guard("get_or_set", unguarded, when_expired, "just after expiry"),
    Guard("HerdClient", herd, when_herded, "just after expiry", options=HERD),
    Guard("a lock", locked, when_expired, "just after expiry", has_lock=True),
    Guard(
        "resilient_cache", resilient, shortly_before, "in the last second", RESILIENT, has_lock=True
    ),
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
    """What happened to requests that came at the same moment."""

    computed: int = 0
    waits: list = field(default_factory=list)  # Milliseconds.
    old: int = 0  # Answers that were built before the burst.


def burst(run, number, ask, work, seconds=0):
    """
    Let `number` threads ask at the same moment, `seconds` from now.

    Raises Stopped, or the first error of a request.
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
    Return (Burst, seconds until all had an answer) while the holder of the lock never releases it.

    It is a thread that begins to compute and doesn't end while others ask. To Redis that is
    the same as a process that was killed: the lock stays until its timeout.
    """
    work, has_lock, is_over = Work(run), threading.Event(), threading.Event()

    def never_ends():
        has_lock.set()
        is_over.wait(60)
        raise Stopped

    def hold():
        with suppress(Stopped):
            guard.ask(cache, "value", never_ends)

    def ask():
        return guard.ask(cache, "value", work.build)

    ask()  # Now the cache knows how long a build takes.
    cache.delete("value")
    began = time.monotonic()
    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    try:
        has_lock.wait(10)
        result = burst(run, number, ask, work)
        return result, time.monotonic() - began
    finally:
        is_over.set()
        holder.join(10)


def bursts(run, requests):
    """Send two bursts to each guard. Return how many computed for a cold key: {guard: number}."""
    done, of, computed = 0, 2 * len(GUARDS), {}
    for guard in GUARDS:
        cache = guard.cache(run)
        run.tell("progress", done=done, of=of, text=f"{guard.name}: the first burst")
        try:
            for name, result in two_bursts(run, guard, cache, requests):
                tell_burst(run, guard, name, result)
                computed.setdefault(guard.name, result.computed)  # The first burst is the cold one.
                done += 1
                run.tell("progress", done=done, of=of, text=f"{guard.name}: the second burst")
        finally:
            empty(cache)
    return computed


def deaths(run, requests):
    """Let the holder of each lock die while others ask. Return how many computed."""
    guards, computed = [guard for guard in GUARDS if guard.has_lock], {}
    for done, guard in enumerate(guards):
        cache = guard.cache(run)
        run.tell("progress", done=done, of=len(guards), text=f"{guard.name}: a holder dies")
        try:
            result, seconds = holder_dies(run, guard, cache, requests)
        finally:
            empty(cache)
        waits = [f"{wait / 1000:.2f} s" for wait in (median(result.waits), max(result.waits))]
        cells = [guard.name, result.computed, *waits, f"{seconds:.1f} s"]
        run.tell("row", table="dead", key=guard.name, cells=cells)
        computed[guard.name] = result.computed
    return computed


def pages(run, requests):
    """Let visitors ask for whole pages: of Django's cache_page, and of the blog's levels."""
    work, computed, of = Work(run), {}, len(stampede_pages.PAGES)
    run.tell("progress", done=0, of=of, text=f"{requests} visitors at once")
    with closing(stampede_pages.page_bursts(run, requests, burst, work)) as found:
        for done, (name, result) in enumerate(found, 1):
            numbers = [median(result.waits), p95(result.waits), max(result.waits)]
            cells = [name, requests, result.computed, *(f"{number:.0f}" for number in numbers)]
            run.tell("row", table="pages", key=name, cells=cells)
            run.tell("progress", done=done, of=of, text=f"{requests} visitors at once")
            computed[name] = result.computed
    return computed


# What happens, and how the numbers of those that computed are told.
PARTS = {
    "bursts": (bursts, "Of {} requests for a cold key, so many computed"),
    "dead": (deaths, "The holder died. Of {} others, so many computed"),
    "pages": (pages, "Of {} visitors at once, so many built the page"),
}


def stampede(run, requests, part):
    requests = min(requests, MOST_PAGES) if part == "pages" else requests
    play, says = PARTS[part]
    computed = play(run, requests)
    numbers = ", ".join(f"{name} {number}" for name, number in computed.items())
    run.tell("say", text=f"{says.format(requests)}: {numbers}.")
    run.tell("came", value=how_many(next(iter(computed.values())), requests))


def how_many(computed, of):
    """Return how many computed, as a key of the question's choices."""
    if computed == 1:
        return "one"
    return "some" if computed < of / 2 else "most"


def tell_burst(run, guard, name, result):
    waits = [round(wait, 1) for wait in result.waits]
    numbers = [f"{value:.0f}" for value in (median(waits), p95(waits), max(waits))]
    cells = [f"{guard.name}, {name}", result.computed, *numbers, result.old]
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
            ("dead", "the holder of the lock dies"),
            ("pages", "a burst on whole pages"),
        ],
    )


experiment = Experiment(
    slug="stampede",
    title="Stampede",
    post="stampede",
    idea="An expensive value is missing, and many requests ask for it at the same moment. "
    "How many of them compute it, and how long do the others wait?",
    lesson=(
        "Django’s and django-redis’s `get_or_set()` take no lock: every request that looks before "
        "the first one has stored the value computes it, too. Each is slower for it.",
        "A lock helps only together with the second look. All others wait, also for a holder that "
        "has died: for as long as the lock’s timeout.",
        "HerdClient does nothing for a cold key. After expiry a few compute, by chance, and the "
        "others get the old value.",
        "`resilient_cache` takes a lock, looks twice, and refreshes the value before it expires. "
        "If the holder dies, the others wait a moment longer than the last build took. Then each "
        "of them computes: a stampede is better than an outage.",
    ),
    code=(
        *(unguarded, herd, locked, resilient, Work, burst, two_bursts, holder_dies),
        *(resilient_guard.turn, *stampede_pages.PAGES.values()),
    ),
    question=Question(
        "How many of the requests compute, in the first row of the table?",
        {"one": "one", "some": "several, less than half of them", "most": "half of them or more"},
    ),
    form=StampedeForm,
    run=stampede,
    pages=stampede_pages.urls,
)
