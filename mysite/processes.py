"""The blog as gunicorn serves it, in a folder of its own: for tests, scripts and the bench."""

import os
import random
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

# A process started from here has none of these variables unless its starter passes them.
# DATABASE_PATH stays, because a container can have a database only there.
VARIABLES = {
    *("ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS", "DEBUG", "HSTS_SECONDS", "HTTPS", "SECRET_KEY"),
    *(
        "CACHE_PREFIX",
        "CACHE_WATCH",
        "LAB",
        "PUBLIC_PORTS",
        "REDIS_URL",
        "STATIC_ROOT",
        "TRUST_PROXY",
    ),
    *("BIND", "PORT", "WEB_CONCURRENCY"),
}
HIDDEN = VARIABLES | {f"{name}_FILE" for name in VARIABLES}

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
    return {name: os.environ[name] for name in os.environ if name not in HIDDEN} | variables


def forget_variables():
    """Let this process have none of the project's variables. Call it before the settings."""
    for name in HIDDEN:
        os.environ.pop(name, None)


def wait_until(condition, seconds=60):
    """Return whether `condition()` becomes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)  # Between two looks; nothing is timed by it.
    return True


def free_port():
    """
    Return a TCP port on which no program listens, a different one each time.

    It is below those that the system gives to outgoing connections, so a server that is
    restarted finds it free again.
    """
    while True:
        port = random.randrange(15_000, 32_000)  # noqa: S311
        if port not in _given:
            with suppress(OSError), socket.create_server(("127.0.0.1", port)):
                _given.add(port)
                return port


_given = set()


class ProcessError(Exception):
    """A process did not start or ended with an error. The message has its output."""


class Home:
    """A folder with a seeded database and static files. A context manager."""

    def __init__(self, posts=0, comments=0, author=()):
        """Make it, with a superuser if `author` is a name and a password."""
        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name)
        self._secret_key = secrets.token_hex()  # The same in each process of this blog.
        arguments = [str(posts), str(comments), *author]
        self.run("-c", MAKE_HOME, *arguments, REDIS_URL="redis://127.0.0.1:1")

    def query(self, sql):
        """Run an SQL command and return its rows."""
        database = sqlite3.connect(self.path / "blog.sqlite3", timeout=10)
        with closing(database), database:
            return database.execute(sql).fetchall()

    def environment(self, **variables):
        """Return the environment of a process of this blog."""
        return environment(
            DATABASE_PATH=str(self.path / "blog.sqlite3"),
            STATIC_ROOT=str(self.path / "static"),
            DEBUG="0",
            SECRET_KEY=self._secret_key,
            **{"DJANGO_SETTINGS_MODULE": "mysite.settings"} | variables,
        )

    def run(self, *arguments, **variables):
        """Run Python with these arguments. Return its output. Raises ProcessError."""
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
        # Reads from a pipe that closes when this process ends, however it ends.
        self._janitor = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r line; kill -9 "-$1"', "janitor", str(self.process.pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            # Without a request: a test may want a process that has served none.
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

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()
