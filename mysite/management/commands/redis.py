"""`manage.py redis`: redis-cli for this blog, which also shows what a cached value holds."""

import os
import pprint
import shlex
import shutil
import sys
from contextlib import closing, suppress

from django.conf import settings
from django.core.management import BaseCommand, CommandError
from django.http import HttpResponse
from django.utils.module_loading import import_string
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from mysite.checks import without_password
from resilient_cache.backend import RedisCache
from resilient_cache.location import database_url

TIMEOUT = 10  # Seconds for an answer.
ENDLESS = {"MONITOR", "PSUBSCRIBE", "SUBSCRIBE"}  # They go on until Ctrl-C.
WAITING = {"BLMOVE", "BLMPOP", "BLPOP", "BRPOP", "BZMPOP", "BZPOPMAX", "BZPOPMIN", "WAIT", "XREAD"}
VALUES = {"GET", "GETDEL", "GETEX", "MGET"}  # Their answers may be values of the cache.


class Command(BaseCommand):
    help = (
        "Talk to the blog's Redis as redis-cli does: `redis -n 2 --scan`, `redis TTL key`, or a "
        "prompt without a command. Finds the Redis of a running `manage.py up`. GET shows what "
        "the cache stored, decoded."
    )
    requires_system_checks = []

    def add_arguments(self, parser):
        parser.called_from_command_line = False  # So that a wrong option is one line, too.
        parser.add_argument("-n", dest="number", default="0", help="the database: 0")
        parser.add_argument("--scan", action="store_true", help="print all keys")
        parser.add_argument("--pattern", default="*", help="for --scan, for example 'site:*'")
        parser.add_argument("words", nargs="...", metavar="COMMAND", help="for example: TTL key")

    def handle(self, number, scan, pattern, words, **options):
        if not (number.isascii() and number.isdigit()):
            raise CommandError(f"-n takes the number of a database, not {number!r}.")
        self.number = int(number)
        waits = bool(words) and words[0].upper() in ENDLESS | WAITING
        with suppress(AttributeError):
            sys.stdout.reconfigure(errors="backslashreplace")  # For a terminal without UTF-8.
        try:
            with closing(connect(self.number, None if waits else TIMEOUT)) as self.redis:
                if scan:
                    for key in self.redis.scan_iter(pattern, count=1000):
                        self.write(text(key))
                elif words:
                    self.run_command(words)
                else:
                    self.prompt()
        except BrokenPipeError:  # `... | head` has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except ResponseError as error:
            raise CommandError(f"Redis: {error}") from None
        except (RedisError, OSError) as error:
            raise CommandError(
                f"Redis at {without_password(settings.REDIS_URL)}: {error} "
                "Does `manage.py up` run, or a Redis at REDIS_URL?"
            ) from None

    def write(self, line):
        self.stdout.write(line)
        self.stdout.flush()  # For a pipe: MONITOR goes on for ever.

    def run_command(self, words):
        """Send one command and print its answer."""
        name = words[0].upper()
        answer = self.redis.execute_command(*words)
        if name in VALUES:
            several = name == "MGET"
            values = answer if several else [answer]
            shown = [show(value, key) for key, value in zip(words[1:], values, strict=False)]
            self.write("\n".join(numbered(shown)) if several else shown[0])
        else:
            self.write(show(answer))
        while name in ENDLESS:
            self.write(show(self.redis.connection.read_response()))

    def prompt(self):
        """Read commands from the keyboard, or from a pipe, until `exit` or Ctrl-D."""
        is_terminal = sys.stdin.isatty()
        if is_terminal:
            with suppress(ImportError):
                import readline  # noqa: F401 - now input() has a history.
            place = without_password(settings.REDIS_URL)
            self.write(f"{place}. `exit` or Ctrl-D ends this.")
            if shutil.which("iredis"):
                self.write(f"iredis is installed, too: iredis --url {place}")
        while True:
            try:
                words = shlex.split(input(f"redis[{self.number}]> " if is_terminal else ""))
                if words and words[0].lower() in ("exit", "quit"):
                    return
                if words:
                    self.run_command(words)
                    if words[0].upper() == "SELECT":
                        self.number = int(words[1])
            except EOFError:
                if is_terminal:
                    self.write("")
                return
            except (ResponseError, ValueError) as error:  # ValueError: a quote is missing.
                self.write(f"(error) {error}")


def connect(number, timeout):
    """Return a client of the blog's Redis, database `number`, that returns answers as they are."""
    url = database_url(settings.REDIS_URL, number)
    client = Redis.from_url(
        url,
        protocol=2,
        single_connection_client=True,
        socket_timeout=timeout,
        socket_connect_timeout=TIMEOUT,
        retry=Retry(NoBackoff(), 0),
    )
    for name in list(client.response_callbacks):
        if name != "SCAN":  # scan_iter() needs its callback.
            del client.response_callbacks[name]
    return client


def show(answer, key=None):
    """Return an answer of Redis as text. With `key`, it may be a value of the cache."""
    if answer is None:
        return "(nil)"
    if isinstance(answer, int):
        return f"(integer) {answer}"
    if isinstance(answer, list):
        return "\n".join(numbered(map(show, answer))) or "(empty)"
    if isinstance(answer, Exception):
        return f"(error) {answer}"  # Within the answer of EXEC.
    return text(answer) if key is None else decoded(key, answer)


def numbered(lines):
    """Return each text with its number. Further lines of a text are indented."""
    for number, line in enumerate(lines, 1):
        yield f"{number}) " + line.replace("\n", "\n   ")


def text(value):
    """Return bytes as text that does no harm to a terminal."""
    characters = value.decode(errors="backslashreplace").replace("\r\n", "\n")
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode()
        for each in characters
    )


def decoded(key, value):
    """Return the text of what the cache stored at `key`, decoded by its alias's SERIALIZER."""
    for cache in settings.CACHES.values():
        if key.startswith(f"{cache.get('KEY_PREFIX', '')}:"):
            options = cache.get("OPTIONS", {})
            path = options.get("SERIALIZER", RedisCache.DEFAULT_SERIALIZER)
            # Counters and versions are plain numbers, and locks are plain text.
            with suppress(Exception):
                return describe(import_string(path)(options).loads(value))
    return text(value)


def describe(value):
    """Return a cached value as text: a page with its headers, another value as in Python."""
    if isinstance(value, HttpResponse):
        headers = [f"{name}: {content}" for name, content in value.items()]
        return "\n".join([f"HTTP {value.status_code}", *headers, "", text(value.content)])
    if isinstance(value, tuple) and value and isinstance(value[-1], HttpResponse):
        # An entry of resilient_cache.pages: its group versions, when it was stored, the page.
        return f"{value[:-1]}\n{describe(value[-1])}"
    return pprint.pformat(value, width=100)
