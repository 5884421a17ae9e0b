"""
Predict: plays a situation for real, and writes down what Redis was asked.

Each run has a cache of its own for each of the four levels. They stand in for the aliases of the
settings while the run goes on, and in its thread alone. So the code of a situation is plain
Django, with its usual names, and no entry of the blog is read or changed.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.cache import caches
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.test import RequestFactory
from redis import Redis

from lab.caches import PLAIN, RESILIENT, empty, lab_cache
from lab.pages import new_run
from lab.visitor import Visitor

LEVELS = settings.WATCH["LEVELS"]  # Alias: its level.
SHOWN_HEADERS = ("Age", "Cache-Control", "Vary", "Set-Cookie")
DIGEST = re.compile(r"[0-9a-f]{32}")
# What a command did, and what it says if it did not. Others read: found, or not there.
ANSWERS = {
    "SET": ("stored", "not stored"),
    "DEL": ("deleted", "not there"),
    "EXPIRE": ("expired", "not there"),
    "PEXPIRE": ("prolonged", "not there"),
}
# Keys that hold no page and no value: versions of groups, and locks.
BESIDE = re.compile(r"[^:]+:[^:]+:(group|lock):")
LOCK = re.compile(r"[^:]+:[^:]+:lock:")


# What is written down ---------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """One command, one key. The key is without what the lab puts before it."""

    name: str
    level: str
    key: str
    has: bool  # Whether Redis had the key, or stored it.
    seconds: float | None = None  # The timeout of a SET.

    @property
    def short_key(self) -> str:
        """Return the key with the first letters of each hash in it."""
        return DIGEST.sub(lambda digest: f"{digest[0][:6]}…", self.key)

    @property
    def text(self) -> str:
        """Return the command as it was sent, without a value."""
        seconds = "" if self.seconds is None else f" PX {self.seconds * 1000:.0f}"
        return f"{self.name} {self.short_key}{seconds}"

    @property
    def answer(self) -> str:
        """Return what Redis answered, in words."""
        done, not_done = ANSWERS.get(self.name, ("found", "not there"))
        return done if self.has else not_done

    @property
    def line(self) -> str:
        """Return the command and its answer."""
        return f"{self.text} → {self.answer}"

    @property
    def is_read(self) -> bool:
        return self.name in ("GET", "MGET")

    @property
    def is_beside(self) -> bool:
        """Return whether the key holds no page and no value."""
        return bool(BESIDE.match(self.key))

    @property
    def stores_entry(self) -> bool:
        return self.name == "SET" and self.has and not self.is_beside


@dataclass
class Step:
    """One request of a situation, or one line of Python, and what came of it."""

    label: str
    sent: dict[str, str] = field(default_factory=dict)
    is_request: bool = True
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    built: int = 0  # How often something was built.
    commands: list[Command] = field(default_factory=list)

    @property
    def is_hit(self) -> bool:
        """Return whether what was found in a cache was enough: nothing was built."""
        return not self.built and any(each.is_read and each.has for each in self.commands)

    @property
    def outcome(self) -> str:
        """Return what became of a request, in words."""
        if not self.commands:
            return "no level was asked"
        if self.is_hit:
            return "hit"
        return "miss, stored" if self.stored else "miss, not stored"

    @property
    def shown(self) -> list[Command]:
        """Return the commands without locks, and without a look that found the same before."""
        plain = [each for each in self.commands if not LOCK.match(each.key)]
        return list(
            dict.fromkeys(each for each in plain if each.name != "PEXPIRE" or not each.is_beside)
        )

    @property
    def stored(self) -> list[Command]:
        """Return the commands that stored a page, its list of headers, or a value."""
        return [command for command in self.commands if command.stores_entry]

    @property
    def deletions(self) -> list[Command]:
        return [command for command in self.commands if command.name == "DEL"]


@dataclass
class Played:
    """A situation that was played. What is right is read from it."""

    steps: list[Step]

    @property
    def first(self) -> Step:
        return self.steps[0]

    @property
    def last(self) -> Step:
        return self.steps[-1]

    @property
    def outcome(self) -> str:
        return "hit" if self.last.is_hit else "miss"

    @property
    def level(self) -> str:
        """Return the level that the last request asked, "" if it asked none or several."""
        asked = {command.level for command in self.last.commands}
        return asked.pop() if len(asked) == 1 else ""


@dataclass
class Run:
    """A run that goes on."""

    id: str
    built: int = 0
    commands: list[Command] = field(default_factory=list)


current: ContextVar[Run] = ContextVar("current")


def edition() -> int:
    """Count how often this run has built something, and return the number."""
    try:
        run = current.get()
    except LookupError:
        raise Http404("There is no such page outside of a run.") from None
    run.built += 1
    return run.built


class RecordedRedis(Redis):
    """A redis.Redis that writes down the commands of the run that goes on."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        answer = super().execute_command(*args, **options)
        if run := current.get(None):
            run.commands += commands_of(run, args, answer)
        return answer


def commands_of(run: Run, args: tuple[Any, ...], answer: Any) -> Iterator[Command]:
    """Yield a Command for each key of this run."""
    name, before = str(args[0]), f"lab:{run.id}:"
    seconds = None
    if name == "SET" and "PX" in args:
        seconds = int(args[args.index("PX") + 1]) / 1000
    keys = args[1:2] if name == "SET" else args[1:]
    answers = answer if name == "MGET" else [answer] * len(keys)
    for key, value in zip(keys, answers, strict=True):
        if str(key).startswith(before):
            key = str(key).removeprefix(before)
            has = value is not None if name in ("GET", "MGET") else bool(value)
            yield Command(name, key.partition(":")[0], key, has, seconds)


# What is asked ----------------------------------------------------------------------


@dataclass(frozen=True)
class Ask:
    """A request. A header may be a function of the request that asks for the run."""

    path: str = "/prices/"
    method: str = "GET"
    headers: dict[str, str | Callable[[HttpRequest], str]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.method} {self.path}"

    def sent(self, asker: HttpRequest) -> dict[str, str]:
        """Return the headers that this request sends."""
        return {
            name: value(asker) if callable(value) else value for name, value in self.headers.items()
        }


@dataclass(frozen=True)
class Do:
    """A function that is called between two requests. It gets the first of them."""

    function: Callable[[HttpRequest], Any]

    @property
    def label(self) -> str:
        return f"{self.function.__name__}(request)"

    def sent(self, asker: HttpRequest) -> dict[str, str]:
        return {}


def own_host(asker: HttpRequest) -> str:
    """Return the host that the reader asks for."""
    return asker.get_host()


def other_host(asker: HttpRequest) -> str:
    """Return another host that this server answers to, or the same one at another port."""
    own = urlsplit(f"//{asker.get_host()}")
    names = [name for name in settings.ALLOWED_HOSTS if re.fullmatch(r"\w[\w.-]*", name)]
    other = next((name for name in names if name != own.hostname), None)
    if other is None:
        return f"{own.hostname}:{8001 if own.port == 8000 else 8000}"
    return f"{other}:{own.port}" if own.port else other


# The run ----------------------------------------------------------------------------


@contextmanager
def own_caches(run: Run, backend: str) -> Iterator[None]:
    """Let the aliases of the settings lead to caches of this run, in this thread."""
    others = {alias: caches[alias] for alias in LEVELS}
    mine = {
        alias: lab_cache(f"{run.id}:{level}", backend=backend, REDIS_CLIENT_CLASS=RECORDED)
        for alias, level in LEVELS.items()
    }
    try:
        for alias, cache in mine.items():
            caches[alias] = cache
        yield
    finally:
        for alias, cache in others.items():
            caches[alias] = cache
        empty(lab_cache(run.id))


RECORDED = f"{__name__}.{RecordedRedis.__name__}"


def project(view: Callable, middleware: tuple[type, ...]) -> Callable:
    """Put middleware around a view, as Django's handler does: the first one is the outermost."""
    handle = view
    for layer in reversed(middleware):
        handle = layer(handle)
    return handle


def request_like(asker: HttpRequest, ask: Ask) -> HttpRequest:
    """Return the request that `ask` describes, at the host and port of `asker`."""
    return RequestFactory().generic(
        ask.method,
        ask.path,
        secure=asker.is_secure(),
        headers={"Host": asker.get_host()} | ask.sent(asker),
        SERVER_PORT=asker.META["SERVER_PORT"],
    )


def play(asker: HttpRequest, situation: Any) -> Played:
    """Play a situation with empty caches. Raises the errors of Redis."""
    lab_cache("").get("")  # The blog's own backend hides an error, so ask before and after.
    run = Run(new_run())
    with own_caches(run, RESILIENT if situation.in_blog else PLAIN):
        running = current.set(run)
        try:
            played = Played([play_step(run, asker, situation, step) for step in situation.steps])
        finally:
            current.reset(running)
    lab_cache("").get("")
    return played


def play_step(run: Run, asker: HttpRequest, situation: Any, what: Ask | Do) -> Step:
    """Send one request, or call one function, and return what came of it."""
    step = Step(what.label, what.sent(asker))
    built, seen = run.built, len(run.commands)
    if isinstance(what, Do):
        step.is_request = False
        step.text = repr(what.function(request_like(asker, situation.steps[0])))
    else:
        response = response_to(asker, situation, what)
        step.status, step.text = response.status_code, text_of(response)
        step.headers = {name: response[name] for name in SHOWN_HEADERS if name in response}
        if response.cookies:
            step.headers["Set-Cookie"] = response.cookies.output(header="", attrs=[]).strip()
    step.built, step.commands = run.built - built, run.commands[seen:]
    return step


def response_to(asker: HttpRequest, situation: Any, ask: Ask) -> HttpResponseBase:
    """Return the response of the blog, with all its middleware, or of a plain project."""
    if situation.in_blog:
        return Visitor(asker).generic(ask.method, ask.path, headers=ask.sent(asker))
    return project(situation.view, situation.middleware)(request_like(asker, ask))


def text_of(response: HttpResponseBase) -> str:
    """Return the text of a response, also of one that streams."""
    content = response.streaming_content if response.streaming else [response.content]
    return b"".join(content).decode()
