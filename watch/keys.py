"""
The keys that the levels hold in Redis now: list them, show one, let one expire.

Only keys of watched levels: what has another prefix belongs to other code, also in the same
database. Looking goes over connections of its own, past the breaker and the pools of the
caches. It reads TTL and memory, neither of which makes a key look used to the eviction;
but Redis removes a key whose time is over when it is looked at, and that may be here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.http import HttpResponse
from django.utils.module_loading import import_string
from redis import Redis

from watch.conf import address, config, pool_of, serializer_of
from watch.feed import TIMEOUT, new_client

MAX_KEYS = 40  # keys per level that are listed
ROUNDS = 5  # SCANs per level, of COUNT keys each, that are spent on finding them
COUNT = 200

# What is told of INFO.
INFO = ("used_memory", "maxmemory", "maxmemory_policy", "evicted_keys", "expired_keys")

MAX_DECODED = 256 * 1024  # bytes: of a larger value only the size is told
MAX_SHOWN = 4000  # characters

PLAIN_COMPRESSOR = "django_redis.compressors.identity.IdentityCompressor"


class ForeignKey(Exception):
    """The key belongs to no watched level."""


class UnknownKey(Exception):
    """Redis does not have this key, or not any more."""


@dataclass(frozen=True, slots=True)
class Level:
    """Where a level has its keys."""

    name: str
    alias: str
    prefix: str  # what its keys start with; "" when it has a database to itself
    server: str
    database: int


def levels() -> list[Level]:
    """Return the Level of each watched alias, outermost first."""
    found = []
    for name, alias in config().aliases.items():
        prefix = settings.CACHES[alias].get("KEY_PREFIX")
        place = address(pool_of(alias).connection_kwargs)
        found.append(Level(name, alias, f"{prefix}:" if prefix else "", *place))
    return found


def breakers() -> list[dict[str, Any]]:
    """
    Return what the circuit breakers say that the caches of this process go through.

    A connection pool may have one: `breaker`, whose state() has `redis`, "up" or "down", and
    `since`, a Unix time. Levels that share a breaker are one entry.
    """
    found: dict[Any, list[str]] = {}
    for level in levels():
        breaker = getattr(pool_of(level.alias), "breaker", None)
        if breaker is not None:
            found.setdefault(breaker, []).append(level.name)
    return [
        {"levels": names, "redis": state["redis"], "since": state["since"]}
        for breaker, names in found.items()
        for state in (breaker.state(),)
    ]


def owner(key: str, candidates: Iterable[Level]) -> Level | None:
    """Return which of these levels `key` belongs to, or None."""
    own = [level for level in candidates if key.startswith(level.prefix)]
    return max(own, key=lambda level: len(level.prefix), default=None)


def connect(alias: str, timeout: float = TIMEOUT) -> Redis:
    """Return a plain client for the database of an alias, with connections of its own."""
    pool = pool_of(alias)
    parameters = {**pool.connection_kwargs, "connection_class": pool.connection_class}
    return new_client(parameters, timeout)


class Keys:
    """Looks into Redis for one process. Safe to use from any thread."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Connect anew the next time."""
        self._clients: dict[str, Redis] = {}

    def client(self, alias: str) -> Redis:
        """Return the client for an alias, always the same one."""
        if alias not in self._clients:
            self._clients[alias] = connect(alias)
        return self._clients[alias]

    def listed(self) -> list[dict[str, Any]]:
        """Return for each level some of its keys, as [key, ms left, bytes of memory]."""
        everything = levels()
        return [
            {"level": level.name, **self._look(level, _neighbours(level, everything))}
            for level in everything
        ]

    def _look(self, level: Level, neighbours: list[Level]) -> dict[str, Any]:
        client: Any = self.client(level.alias)
        cursor = 0
        values: dict[bytes, str] = {}  # SCAN may return a key twice.
        aside: set[bytes] = set()
        for _ in range(ROUNDS):
            cursor, found = client.scan(cursor, f"{_escape(level.prefix)}*", COUNT)
            for key in found:
                text = key.decode(errors="backslashreplace")
                if owner(text, neighbours) is not level:
                    continue
                if config().name_of(text).startswith(config().aside):
                    aside.add(key)
                else:
                    values[key] = text
            if not cursor or len(values) >= MAX_KEYS:
                break
        asked = list(values.items())[:MAX_KEYS]
        pipeline = client.pipeline(transaction=False)
        pipeline.dbsize()
        for key, _ in asked:
            pipeline.pttl(key)
            pipeline.memory_usage(key)
        total, *replies = pipeline.execute(raise_on_error=False)
        rows = [
            (text, ttl, _number(size))
            for (_, text), ttl, size in zip(asked, replies[::2], replies[1::2], strict=True)
            if isinstance(ttl, int) and ttl != -2  # It has expired since.
        ]
        return {"total": _number(total), "aside": len(aside), "keys": rows}

    def servers(self) -> list[dict[str, Any]]:
        """Return what INFO says of each Redis that has levels."""
        answer: dict[str, dict[str, Any]] = {}
        for level in levels():
            server = answer.get(level.server)
            if server is None:
                pipeline = self.client(level.alias).pipeline(transaction=False)
                pipeline.info("memory")
                pipeline.info("stats")
                memory, stats = pipeline.execute(raise_on_error=False)
                server = answer[level.server] = {"levels": []}
                for info in (memory, stats):
                    if isinstance(info, dict):
                        server |= {name: info[name] for name in INFO if name in info}
            server["levels"].append(level.name)
        return list(answer.values())

    def show(self, key: str, name: str | None = None) -> dict[str, Any]:
        """
        Return what Redis holds at `key`, as text that is safe to look at.

        Raises ForeignKey or UnknownKey.
        """
        level = self._find(key, name)
        client: Any = self.client(level.alias)
        pipeline = client.pipeline(transaction=False)
        for ask in (pipeline.type, pipeline.pttl, pipeline.memory_usage):
            ask(key)
        kind, ttl, memory = pipeline.execute(raise_on_error=False)
        if kind == b"none":
            raise UnknownKey(key)
        answer = {"key": key, "level": level.name, "type": _text(kind), "ttl": ttl}
        answer["memory"] = memory if isinstance(memory, int) else None
        if kind != b"string":
            return answer | {"bytes": None, "text": None, "why": "It is not a string."}
        size = client.strlen(key)
        if size > MAX_DECODED:
            return answer | {"bytes": size, "text": None, "why": "It is too long to be shown."}
        value = client.get(key)
        if value is None:
            raise UnknownKey(key)
        text, why = readable(value, level.alias)
        return answer | {"bytes": len(value), "text": text, "why": why}

    def expire(self, key: str, name: str | None = None) -> None:
        """
        Let `key` expire now. Raises ForeignKey or UnknownKey.

        Not deleted: in a millisecond its time is over, and Redis says so when it notices.
        """
        level = self._find(key, name)
        if not self.client(level.alias).pexpire(key, 1):
            raise UnknownKey(key)

    def _find(self, key: str, name: str | None) -> Level:
        everything = levels()
        # Without the level's name only a prefix can tell whose key it is.
        candidates = [
            level for level in everything if level.name == name or level.prefix and not name
        ]
        level = owner(key, candidates)
        if level is None or owner(key, _neighbours(level, everything)) is not level:
            raise ForeignKey(key)
        return level


def readable(value: bytes, alias: str) -> tuple[str | None, str | None]:
    """Return (text, None), or (None, why not). Executes nothing of the value."""
    options = settings.CACHES[alias].get("OPTIONS", {})
    name = serializer_of(alias)
    if value.removeprefix(b"-").isdigit():
        # django-redis stores an integer as its digits, past the serializer.
        return _cut(value.decode()), None
    if options.get("COMPRESSOR", PLAIN_COMPRESSOR) != PLAIN_COMPRESSOR:
        return None, "It is compressed: what it would grow to is not known before."
    if name not in config().safe_serializers:
        return None, "It is a pickle, or may be one: reading it could run any code."
    try:
        return _cut(described(import_string(name)(options).loads(value))), None
    except Exception as error:
        # Broken bytes can fail anywhere in there, and the message may quote them.
        return None, f"It can't be read: {type(error).__name__}."


def described(value: Any) -> str:
    """Return a decoded value as text: a page with its headers, other things as Python has them."""
    if isinstance(value, HttpResponse):
        headers = "".join(f"{name}: {text}\n" for name, text in value.items())
        body = value.content[: 4 * MAX_SHOWN].decode(value.charset, errors="replace")
        return f"HTTP {value.status_code}\n{headers}\n{body}"
    if isinstance(value, str):
        return str(value)
    if type(value) is tuple and any(isinstance(item, (HttpResponse, str)) for item in value):
        return "\n".join(map(described, value))
    return repr(value)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _text(reply: Any) -> str | None:
    return reply.decode(errors="replace") if isinstance(reply, bytes) else None


def _number(reply: Any) -> int | None:
    return reply if isinstance(reply, int) else None


def _neighbours(level: Level, everything: list[Level]) -> list[Level]:
    """Return the levels that share the database of `level`, itself among them."""
    place = (level.server, level.database)
    return [other for other in everything if (other.server, other.database) == place]


def _escape(text: str) -> str:
    """Return `text` for MATCH, which takes * ? [ ] and \\ for patterns."""
    return "".join(f"\\{char}" if char in "*?[]\\^-" else char for char in text)


keys = Keys()


@receiver(setting_changed)
def _settings_changed(setting: str, **kwargs: Any) -> None:
    if setting == "CACHES":
        keys.forget()
