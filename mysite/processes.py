"""The blog as gunicorn serves it, in a folder of its own: for tests, scripts and the bench."""

import os
import re
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]

# A process started from here gets none of these but what its starter gives it.
# DATABASE_PATH stays: nothing is written there, and it is the only place where a container
# has a database.
VARIABLES = {
    *("ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS", "DEBUG", "HSTS_SECONDS", "HTTPS", "SECRET_KEY"),
    *("CACHE_WATCH", "LAB", "PUBLIC_PORTS", "REDIS_URL", "STATIC_ROOT", "TRUST_PROXY"),
    *("BIND", "PORT", "WEB_CONCURRENCY"),
}

MAKE_HOME = """
import sys
import django
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
posts, comments, *author = sys.argv[1:]
call_command("migrate", verbosity=0, skip_checks=True)
call_command("seed", posts=int(posts), comments=int(comments), skip_checks=True)
call_command("collectstatic", interactive=False, verbosity=0, skip_checks=True)
if author:
    User.objects.create_superuser(author[0], password=author[1])
"""


def environment(**variables):
    """Return this process's environment with only these of the project's variables."""
    hidden = VARIABLES | {f"{name}_FILE" for name in VARIABLES}
    return {name: os.environ[name] for name in os.environ if name not in hidden} | variables


def wait_until(condition, seconds=10):
    """Return whether `condition()` becomes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)  # Between two looks; nothing is timed by it.
    return True


def free_port():
    """
    Return a TCP port that nobody listens on, and that no other process is given.

    Two that ask at the same time would otherwise be given the same one, and a server that is
    restarted could find its port taken by somebody's connection. On Linux a socket holds it until
    give_back(), and a server may listen there beside it; elsewhere it is only free. It is never
    the same twice in one process: the breaker of one server is not taken for another's.
    """
    while True:
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        if port in _given:
            holder.close()
            continue
        _given.add(port)
        if sys.platform == "linux":
            _held[port] = holder
        else:
            holder.close()
        return port


def give_back(port):
    """Let others have a port of free_port()."""
    if holder := _held.pop(port, None):
        holder.close()


_given = set()
_held = {}  # port: a socket that is bound to it, and doesn't listen.


class ProcessError(Exception):
    """What was started does not do what it should. The message has what it wrote."""


class Home:
    """A folder with a seeded database and static files. A context manager."""

    def __init__(self, posts=0, comments=0, author=()):
        """Make it, with a superuser if `author` is a name and a password."""
        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name)
        self._secret_key = secrets.token_hex()  # The same in each process of this blog.
        arguments = [str(posts), str(comments), *author]
        self.run("-c", MAKE_HOME, *arguments, REDIS_URL="redis://127.0.0.1:1")
        # What seeding could not tell a Redis that nobody has.
        for order in self.journal.glob("*"):
            order.unlink()
        with suppress(FileNotFoundError):
            self.journal.rmdir()

    @property
    def journal(self):
        """Where the blog keeps invalidations that wait for Redis."""
        return self.path / "blog.sqlite3-invalidations"

    def query(self, sql):
        """Run an SQL command and return its rows."""
        database = sqlite3.connect(self.path / "blog.sqlite3", timeout=10)
        with closing(database), database:
            return database.execute(sql).fetchall()

    def environment(self, **variables):
        """Return what a process of this blog finds in its environment."""
        return environment(
            DATABASE_PATH=str(self.path / "blog.sqlite3"),
            STATIC_ROOT=str(self.path / "static"),
            DEBUG="0",
            SECRET_KEY=self._secret_key,
            **{"DJANGO_SETTINGS_MODULE": "mysite.settings"} | variables,
        )

    def run(self, *arguments, **variables):
        """Run Python with these arguments, and return what it printed. Raises ProcessError."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=PROJECT,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise ProcessError(done.stdout + done.stderr)
        return done.stdout

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._folder.cleanup()


class Gunicorn:
    """A gunicorn with the project's own configuration. A context manager."""

    def __init__(self, home, redis_url, workers=1, command=(), arguments=None, **variables):
        """
        Start it, by way of `command` if there is one. It has answered no request yet.

        `arguments` take the place of `--config gunicorn.conf.py`. Raises ProcessError.
        """
        self.port = free_port()
        self.log = home.path / f"gunicorn-{self.port}.log"
        if arguments is None:
            arguments = ["--config", PROJECT / "gunicorn.conf.py"]
        variables = {"REDIS_URL": redis_url, "WEB_CONCURRENCY": str(workers)} | variables
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, sys.executable, "-m", "gunicorn", *arguments],
                cwd=PROJECT,
                env=home.environment(PORT=str(self.port), **variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # Reads from a pipe that closes when this process ends, however it ends. No `--` before
        # the process group: dash takes none.
        self._janitor = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r line; kill -9 "-$1"', "janitor", str(self.process.pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            # Not a request: a test may want a process that has not served any.
            if not wait_until(lambda: len(self.workers()) == workers and self._listens(), 30):
                raise ProcessError(f"gunicorn does not start:\n{self.lines()}")
        except BaseException:
            self.stop()
            raise

    def _listens(self):
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def workers(self):
        """Return the process ids of the workers, as gunicorn's log has them."""
        return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", self.lines())]

    def lines(self):
        """Return what was logged so far."""
        return self.log.read_text()

    def stop(self):
        """End it with all its workers, at once."""
        self._janitor.kill()
        self._janitor.communicate()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        give_back(self.port)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()
