"""
Outage: Redis hangs, refuses, fills up, and comes back, while visitors ask for pages.

Stopping the blog's own Redis would hit everybody. So each run has a Redis of its own, really
paused, cut off and filled, and two crowds of threads that use it through Django's cache API:
one with the settings of this blog, one with those of a first try.
"""

import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from statistics import median
from threading import Event

from django import forms
from django.conf import settings
from django.utils.module_loading import import_string
from redis import Redis

from blog import rendering
from lab.experiment import Experiment, Question
from mysite.private_redis import PrivateRedis
from resilient_cache.backend import PoolFactory
from resilient_cache.location import database_url

TICK = 0.25  # Seconds between two points of the plot.
PAUSE = 0.05  # Seconds that a visitor reads before asking for the next page.
TIMEOUT = 1  # Seconds. Short, so that something expires while Redis is full.
LAST_PAGE = 0.5  # Seconds that the visitors have for it, at the end.
PARTS = ("first", "second")
WORKS = "works"
# What each part renders: Markdown with code to highlight, which takes some milliseconds.
TEXT = "```python\n" + "".join(Path(__file__).read_text().splitlines(keepends=True)[:30])


class OwnPools(PoolFactory):
    """OPTIONS["CONNECTION_FACTORY"]: django-redis never closes the pools of a run."""

    def get_or_create_connection_pool(self, params):
        return self.get_connection_pool(params)


OWN_POOLS = {"CONNECTION_FACTORY": f"{__name__}.OwnPools"}


def settings_of_this_blog(url):
    """Short timeouts, and one circuit breaker for all four levels: see resilient_cache/."""
    return {
        alias: {
            "BACKEND": "resilient_cache.backend.RedisCache",
            "LOCATION": url,
            "KEY_PREFIX": cache["KEY_PREFIX"],
            "OPTIONS": {"db": cache["OPTIONS"]["db"], **OWN_POOLS},
        }
        for alias, cache in settings.CACHES.items()
    }


def plain_settings(url):
    """Errors are ignored, and all else is the default: redis-py waits five seconds a command."""
    return {
        alias: {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": database_url(url, cache["OPTIONS"]["db"]),
            "KEY_PREFIX": f"plain-{cache['KEY_PREFIX']}",
            "OPTIONS": {"IGNORE_EXCEPTIONS": True, **OWN_POOLS},
        }
        for alias, cache in settings.CACHES.items()
    }


def ask_for_page(caches, build):
    """Do what a page over four levels does: eight lookups. What is missing is built and cached."""
    for cache in caches:
        for part in PARTS:
            cache.get_or_set(part, build, TIMEOUT)


@contextmanager
def hangs(server, seconds):
    """Redis accepts connections and commands, and does not answer."""
    server.redis.execute_command("CLIENT", "PAUSE", int(seconds * 1000), "ALL")
    yield


@contextmanager
def refuses(server, seconds):
    """Every connection is cut and no new one is accepted. Redis comes back empty."""
    door = server.private.socket
    door.rename(door.with_suffix(".shut"))
    server.redis.client_kill_filter(_type="normal", skipme=True)
    try:
        yield
    finally:
        server.redis.flushall()
        door.with_suffix(".shut").rename(door)


@contextmanager
def is_full(server, seconds):
    """Redis answers, and refuses each command that needs more memory: noeviction."""
    before = server.redis.config_get("maxmemory*")
    server.redis.config_set("maxmemory-policy", "noeviction")
    server.redis.config_set("maxmemory", 1)
    try:
        yield
    finally:
        for name in ("maxmemory", "maxmemory-policy"):
            server.redis.config_set(name, before[name])


# What happens to Redis, and for how many seconds. None: it works.
PHASES = (
    (None, 2),
    (hangs, 5),
    (None, 2.5),
    (refuses, 4),
    (None, 2.5),
    (is_full, 4),
    (None, 2),
)


class Server:
    """The Redis of one run, and a connection that no fault cuts. A context manager."""

    def __init__(self):
        self.private = PrivateRedis()

    def __enter__(self):
        self.private.start()
        self.redis = Redis(unix_socket_path=str(self.private.socket), decode_responses=True)
        self.redis.ping()  # Connected before the first fault.
        return self

    def __exit__(self, *error):
        self.redis.close()
        self.private.stop()


class Crowd:
    """Visitors who ask for page after page, and what they have seen."""

    def __init__(self, name, caches):
        self.name = name
        self.caches = [
            import_string(options["BACKEND"])(options["LOCATION"], options)
            for options in caches.values()
        ]
        for cache in self.caches:
            cache.client.get_client()  # One pool per level, made before there are threads.
        self._seen = SimpleQueue()

    @property
    def breaker(self):
        """Return the breaker that these caches share, or None."""
        return getattr(self.caches[0], "breaker", None)

    def visit(self, build, ended):
        """Ask for pages until `ended` is set. One visitor, in a thread of its own."""
        while not ended.wait(PAUSE):
            page = Page(time.monotonic())
            try:
                ask_for_page(self.caches, build)
            except Exception as error:
                page.error = f"{type(error).__name__}: {error}"
            page.ended = time.monotonic()
            self._seen.put(page)

    def pages(self):
        """Return the Pages that arrived since the last call."""
        pages = []
        while True:
            try:
                pages.append(self._seen.get_nowait())
            except Empty:
                return pages

    def close(self):
        """Close what is open. Only for a crowd whose threads have ended."""
        if self.breaker:
            self.breaker.forget_threads()  # It would probe a Redis that has ended.
        for cache in self.caches:
            cache.client.get_client().connection_pool.disconnect()


@dataclass
class Page:
    """A page that a visitor asked for. Times are those of time.monotonic()."""

    began: float
    ended: float = 0
    error: str = ""

    @property
    def ms(self):
        return (self.ended - self.began) * 1000

    def time_in(self, phase):
        """Return how much of its time lay in `phase`, in seconds; less than 0: how far off."""
        return min(self.ended, phase.began + phase.seconds) - max(self.began, phase.began)


@dataclass
class Phase:
    """A stretch of the run, and each crowd's share of it."""

    name: str
    began: float
    seconds: float
    arrived: dict = field(default_factory=dict)  # Crowd: number of pages
    pages: dict = field(default_factory=dict)  # Crowd: the Pages whose time was mostly in it

    def rate(self, crowd):
        """Return how many pages arrived per second."""
        return self.arrived.get(crowd, 0) / self.seconds


@contextmanager
def visitors(threads, crowds, number, build):
    """Let `number` visitors a crowd ask for pages until the block ends."""
    ended = Event()
    visits = [threads.submit(crowd.visit, build, ended) for crowd in crowds for _ in range(number)]
    try:
        yield
    finally:
        ended.set()
        wait(visits, LAST_PAGE)


def outage(run, visitors_each):
    """Let both crowds live through each fault, and tell what they see four times a second."""
    build = partial(rendering.to_html, TEXT)
    run.tell("say", text="A Redis of this run’s own starts.")
    crowds = []
    try:
        # They end from right to left: Redis ends first, so no visitor waits for it any more.
        with ThreadPoolExecutor(2 * visitors_each) as threads, Server() as server:
            url = server.private.url
            crowds += [Crowd("this blog’s", settings_of_this_blog(url))]
            crowds += [Crowd("plain", plain_settings(url))]
            with visitors(threads, crowds, visitors_each, build):
                live_through(run, server, crowds)
    finally:
        for crowd in crowds:
            crowd.close()


def live_through(run, server, crowds):
    """Go through the phases."""
    began, done = time.monotonic(), []
    total = sum(seconds for _, seconds in PHASES)
    run.tell("plan", seconds=total)
    for fault, seconds in PHASES:
        name = fault.__name__.replace("_", " ") if fault else WORKS
        done.append(Phase(name, time.monotonic(), seconds))
        run.tell("phase", name=name, at=done[-1].began - began, seconds=seconds)
        run.tell("say", text=f"Redis {name}.")
        with fault(server, seconds) if fault else nullcontext():
            while (left := done[-1].began + seconds - time.monotonic()) > 0:
                run.wait(min(TICK, left))
                tell_tick(run, crowds, done, time.monotonic() - began, total)
        tell_rows(run, crowds, done)
    run.tell("say", text=f"The run is over. {verdict(done, *crowds)}")
    run.tell("came", value=who_got_pages(done, *crowds))


def verdict(phases, ours, plain):
    """Return in a sentence what each fault left of the pages."""
    rates = ", ".join(
        f"it {phase.name}: {phase.rate(ours):.0f} and {phase.rate(plain):.0f}"
        for phase in phases
        if phase.name != WORKS
    )
    return f"Pages per second with this blog’s settings and with plain ones, while {rates}."


def who_got_pages(phases, ours, plain):
    """Return which crowd got pages while Redis hung, as a key of the question's choices."""
    hung = next(phase for phase in phases if phase.name == hangs.__name__)
    served = [hung.rate(crowd) > phases[0].rate(crowd) / 10 for crowd in (ours, plain)]
    return {(True, True): "both", (True, False): "ours", (False, True): "plain"}.get(
        tuple(served), "neither"
    )


def tell_tick(run, crowds, phases, at, total):
    """Tell of the pages that have arrived by now."""
    points = []
    for crowd in crowds:
        pages = crowd.pages()
        phases[-1].arrived[crowd] = phases[-1].arrived.get(crowd, 0) + len(pages)
        for page in pages:
            # It may have been asked for in an earlier phase: then it took long.
            phase = max(phases, key=page.time_in)
            phase.pages.setdefault(crowd, []).append(page)
        times = [page.ms for page in pages] or [0]
        points.append({"pages": len(pages), "median": median(times), "worst": max(times)})
    breaker = crowds[0].breaker
    run.tell("tick", at=at, open=breaker.is_open, crowds=points)
    run.tell("value", name="breaker", text="open" if breaker.is_open else "closed")
    run.tell("progress", done=at, of=total, text=f"{at:.0f} of {total:.0f} s")


def tell_rows(run, crowds, phases):
    """Tell each phase's numbers again: a page may arrive long after it was asked for."""
    for number, phase in enumerate(phases):
        for crowd in crowds:
            pages = phase.pages.get(crowd, [])
            times = [page.ms for page in pages]
            cells = [
                f"{number + 1}. {phase.name}",
                crowd.name,
                f"{phase.rate(crowd):.0f}",
                f"{median(times):,.1f}" if times else "–",
                f"{max(times):,.0f}" if times else "–",
                str(sum(bool(page.error) for page in pages)),
            ]
            run.tell("row", table="phases", key=f"{number} {crowd.name}", cells=cells)


class OutageForm(forms.Form):
    visitors_each = forms.IntegerField(
        label="Visitors of each crowd", min_value=1, max_value=8, initial=4, help_text="1 to 8"
    )


experiment = Experiment(
    slug="outage",
    post="when-redis-is-down",
    title="Outage",
    idea=(
        "Redis hangs, refuses and fills up, while visitors ask for pages with the settings of "
        "this blog and with plain ones. See what each crowd gets, and how it recovers."
    ),
    lesson=(
        "Ignoring errors is not enough. A Redis that hangs gives no error for five seconds, and "
        "each command waits that long. Set short timeouts.",
        "With a short timeout, each command still waits for it. With a circuit breaker one call "
        "waits, and the others build their pages at once.",
        "An open breaker asks twice a second whether Redis is back. No visitor waits for that.",
        "A full Redis is not down: it answers reads and refuses writes. The breaker stays closed, "
        "and each page costs what it costs without a cache, once its entries have expired. "
        "`volatile-lru` makes room instead, so choose that for a cache.",
    ),
    code=(ask_for_page, settings_of_this_blog, plain_settings, hangs, refuses, is_full),
    question=Question(
        "Redis hangs for five seconds. Which crowd still gets at least a tenth of its pages?",
        {
            "both": "both",
            "ours": "the one with this blog’s settings",
            "plain": "the one with plain settings",
            "neither": "neither",
        },
    ),
    form=OutageForm,
    run=outage,
)
