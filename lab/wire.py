"""Wire: redis-py by hand, and the bytes that go over the wire both ways."""

import re
import shlex
import time
from functools import partial

from django import forms
from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.connection import DefaultParser
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from lab.bench.rounds import in_turns
from lab.caches import DATABASE, PREFIX, redis_url
from lab.compat import HiredisParser, PythonParser, tapped
from lab.experiment import Experiment, Question
from lab.pages import RUN, new_run

LONGEST = 10 * 60  # Seconds that a key may stay here.
SHOWN = 2000  # bytes of an answer

# What may be typed, and which of its words are keys.
COMMANDS = {
    **dict.fromkeys(["DEL", "EXISTS", "MGET"], slice(1, None)),
    "MSET": slice(1, None, 2),
    "PING": slice(0, 0),
    **dict.fromkeys(
        ["SET", "GET", "GETEX", "TTL", "PTTL", "EXPIRE", "PEXPIRE", "PERSIST", "TYPE", "STRLEN"]
        + ["INCR", "INCRBY", "DECR", "DECRBY"],
        slice(1, 2),
    ),
}

MEANINGS = {
    "*": "an array of {}",
    "$": "a text of {} bytes",
    "+": "a short text",
    "-": "an error",
    ":": "the number {}",
    "_": "nothing",
}

# The same in a word, for the question before the button.
KINDS = {
    "+": ("text", "a short text, such as OK"),
    "$": ("value", "a value"),
    "*": ("values", "several values"),
    ":": ("number", "a number"),
    "_": ("nothing", "nothing"),
    "-": ("error", "an error"),
}

TO_TRY = (
    "SET greeting hello EX 60",
    "TTL greeting",
    "GET greeting",
    "SET greeting other NX",
    "SET greeting bye PX 5000",
    "PTTL greeting",
    "DEL greeting",
    "GET greeting",
    "TTL greeting",
)


class WireForm(forms.Form):
    measure = forms.BooleanField(required=False, widget=forms.HiddenInput)
    command = forms.CharField(
        max_length=300,
        required=False,
        initial=TO_TRY[0],
        widget=forms.TextInput(
            attrs={"class": "lab-long", "autocomplete": "off", "required": True}
        ),
        help_text="SET, GET, DEL, TTL, PTTL, EXPIRE, INCR, MGET and some more, as in redis-cli.",
    )
    # Begins this tab's keys, so that each tab has keys of its own.
    scratch = forms.RegexField(rf"^{RUN}\Z", widget=forms.HiddenInput, initial=new_run)

    def clean_command(self):
        """Return the command's words."""
        if self.cleaned_data.get("measure"):
            return []
        try:
            words = shlex.split(self.cleaned_data["command"])
        except ValueError as error:
            raise forms.ValidationError(f"{error}.") from None
        if not words or words[0].upper() not in COMMANDS:
            raise forms.ValidationError(f"Not here. These are: {', '.join(COMMANDS)}.")
        return [words[0].upper(), *words[1:]]


class Tap:
    """A socket that notes what goes through it."""

    def __init__(self, socket):
        self.socket = socket
        self.clear()

    def clear(self):
        self.sent = self.received = b""

    def sendall(self, sent):
        self.sent += sent
        self.socket.sendall(sent)

    def recv_into(self, buffer):
        size = self.socket.recv_into(buffer)
        self.received += bytes(buffer[:size])
        return size

    def __getattr__(self, name):
        return getattr(self.socket, name)


def connect():
    """Return (a client with one connection, its Tap). Raises RedisError."""
    pool = ConnectionPool.from_url(
        redis_url(DATABASE),
        socket_timeout=1,
        socket_connect_timeout=1,
        retry=Retry(NoBackoff(), 0),
    )

    pool.connection_class = tapped(pool.connection_class, Tap)
    client = Redis(connection_pool=pool, single_connection_client=True)
    # The Tap has HELLO by now, which has the password in it. ask() clears it.
    return client, client.connection.tap


def ask(client, tap, *words):
    """Send one command, and return what went over the wire and how long it took."""
    tap.clear()
    start = time.perf_counter_ns()
    try:
        answer = client.execute_command(*words)
    except ResponseError as error:
        answer = error
    return {
        "us": (time.perf_counter_ns() - start) // 1000,
        "answer": answer,
        "sent": list(explained(tap.sent)),
        "received": list(explained(tap.received)),
    }


def explained(wire):
    """Yield (line, what it means) of RESP, where the first byte of a line says what follows."""
    is_cut, wire = len(wire) > SHOWN, wire[:SHOWN]
    while wire:
        line, _, wire = wire.partition(b"\r\n")
        kind, rest = plain(line[:1]), plain(line[1:])
        yield plain(line), MEANINGS.get(kind, "").format(rest) if rest != "-1" else "nothing"
        if kind == "$" and rest.isdigit():  # So many bytes come, and may hold anything.
            size = int(rest)
            yield plain(wire[:size]), ""
            wire = wire[size + len(b"\r\n") :]
    if is_cut:
        yield "...", ""


def plain(wire):
    return wire.decode("ascii", errors="backslashreplace")


def answer(request, command, scratch, measure):
    """Return what the page shows: a command and its bytes, or the two parsers measured."""
    try:
        return {"parsers": measure_parsers(scratch)} if measure else type_in(command, scratch)
    except RedisError:
        return {"parsers_failed" if measure else "failed": "Redis does not answer."}


def type_in(command, scratch):
    """Run the command on keys of this tab's own."""
    prefix = f"{PREFIX}:{scratch}:"
    keys = COMMANDS[command[0]]
    words = list(command)
    words[keys] = [prefix + key for key in words[keys]]
    client, tap = connect()
    try:
        result = ask(client, tap, *words)
        now = [held(client, key) for key in sorted(set(words[keys]))]
    finally:
        client.close()
        client.connection_pool.disconnect()
    return {
        "typed": shlex.join(command),
        "python": as_python(command),
        "prefix": prefix,
        "result": result | {"answer": as_text(result["answer"])},
        "held": now,
    }


def came(context):
    """Return what kind of answer came back, as a key of the question's choices."""
    if "result" not in context:
        return None
    line, means = next(iter(context["result"]["received"]), ("", ""))
    return "nothing" if means == "nothing" else KINDS.get(line[:1], (None,))[0]


def held(client, key):
    """Return what `key` holds now. A key without a timeout gets one: the database is for trying."""
    left = client.pttl(key)
    limited = left == -1 or left > LONGEST * 1000
    if limited:
        client.expire(key, LONGEST)
    return {"key": key, "value": as_text(client.get(key)), "pttl": left, "limited": limited}


def measure_parsers(scratch):
    """Return [(what is read, microseconds with hiredis, with the Python parser, ratio)...]."""
    parsers = {"hiredis": HiredisParser, "Python": PythonParser}
    clients = {
        name: Redis.from_url(redis_url(DATABASE), parser_class=parser, socket_timeout=1)
        for name, parser in parsers.items()
    }
    prefix = f"{PREFIX}:{scratch}:measured"
    reads = {"GET of 100 B": ("GET", f"{prefix}:100")}
    reads["GET of 100 KB"] = ("GET", f"{prefix}:100000")
    reads["MGET of 1,000 short values"] = ("MGET", *[f"{prefix}:100"] * 1000)
    for size in (100, 100_000):
        clients["hiredis"].set(f"{prefix}:{size}", b"x" * size, ex=60)

    def timed(client, words):
        return {"us": cpu_microseconds(lambda: client.execute_command(*words))}

    contestants = {
        (what, name): partial(timed, client, words)
        for what, words in reads.items()
        for name, client in clients.items()
    }
    seen = in_turns(contestants, 5, lambda text: None)
    for client in clients.values():
        client.close()
    times = [(what, *(seen[what, name]["us"] for name in parsers)) for what in reads]
    return [(*row, row[2] / row[1]) for row in times]


def cpu_microseconds(function):
    """Return the CPU time that one call takes in this thread. The wait for Redis does not count."""
    calls, start = 0, time.thread_time()
    while not calls or time.thread_time() < start + 0.02:
        function()
        calls += 1
    return 1e6 * (time.thread_time() - start) / calls


def as_text(answer):
    """Return an answer as Python shows it."""
    return f"{type(answer).__name__}: {answer}" if isinstance(answer, Exception) else repr(answer)


def as_python(command):
    """Return how redis-py spells the command. The options of SET are arguments there."""
    name, *words = command
    arguments = [
        repr(int(word)) if re.fullmatch("-?[0-9]{1,19}", word) else repr(word) for word in words
    ]
    if name in ("SET", "GETEX"):
        plain = 2 if name == "SET" else 1
        arguments, options = arguments[:plain], words[plain:]
        while options:
            option = options.pop(0).lower()
            takes = option in ("ex", "px", "exat", "pxat") and options
            arguments.append(f"{option}={options.pop(0) if takes else True}")
    if name == "MSET":
        pairs = ", ".join(
            f"{k}: {v}" for k, v in zip(arguments[::2], arguments[1::2], strict=False)
        )
        arguments = ["{" + pairs + "}"]
    return f"r.{ {'DEL': 'delete'}.get(name, name.lower()) }({', '.join(arguments)})"


experiment = Experiment(
    slug="wire",
    post="set-get-del",
    title="Wire: redis-py by hand",
    idea=(
        "Under every level is a short conversation in text. Type a command, and see the bytes that "
        "go to Redis, the bytes that come back, and what redis-py makes of them."
    ),
    lesson=(
        "SET with EX or PX stores the value and its timeout in one command. The key is never "
        "without a timeout.",
        "NX stores the value only if the key does not exist. That is `cache.add()`, and the heart "
        "of a lock.",
        "TTL is -2 for a key that does not exist, and -1 for a key without a timeout. Keys without "
        "a timeout fill Redis.",
        "redis-py uses hiredis’s parser when hiredis is installed. It saves more with more items "
        "in an answer, not with larger ones.",
    ),
    code=(type_in, ask, Tap, connect, explained, measure_parsers, cpu_microseconds),
    question=Question("What comes back from Redis?", dict(KINDS.values()), came),
    form=WireForm,
    answer=answer,
    context=lambda request: {
        "commands": TO_TRY,
        "parser": DefaultParser.__name__,
        "is_hiredis": DefaultParser is HiredisParser,
    },
)
