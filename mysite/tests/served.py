"""The blog as gunicorn serves it, and browsers to read it with, for tests and scripts."""

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, suppress
from html import unescape
from html.parser import HTMLParser
from http.client import HTTPConnection, HTTPException
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode

from mysite.tests.faults import free_port
from mysite.tests.processes import environment, wait_until

PROJECT = Path(__file__).resolve().parents[2]
AUTHOR, PASSWORD = "author", "a password for tests"

MAKE_HOME = """
import sys
import django
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
call_command("migrate", verbosity=0, skip_checks=True)
call_command("seed", posts=int(sys.argv[1]), comments=int(sys.argv[2]), skip_checks=True)
call_command("collectstatic", interactive=False, verbosity=0, skip_checks=True)
User.objects.create_superuser(sys.argv[3], password=sys.argv[4])
"""


class Home:
    """A folder with a seeded database, an author and static files. A context manager."""

    def __init__(self, posts=0, comments=0):
        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name)
        arguments = [str(posts), str(comments), AUTHOR, PASSWORD]
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
            SECRET_KEY="the same in each process of this blog",
            **{"DJANGO_SETTINGS_MODULE": "mysite.settings"} | variables,
        )

    def run(self, *arguments, **variables):
        """Run Python with these arguments, and return what it printed."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=PROJECT,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise AssertionError(done.stdout + done.stderr)
        return done.stdout

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._folder.cleanup()


class Gunicorn:
    """A gunicorn with the project's own configuration. A context manager."""

    def __init__(self, home, redis_url, workers=1, command=(), **variables):
        """Start it, by way of `command` if there is one. It has answered no request yet."""
        self.port = free_port()
        self.log = home.path / f"gunicorn-{self.port}.log"
        variables = {"REDIS_URL": redis_url, "WEB_CONCURRENCY": str(workers)} | variables
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    *(*command, sys.executable, "-m", "gunicorn"),
                    *("--config", PROJECT / "gunicorn.conf.py"),
                ],
                cwd=PROJECT,
                env=home.environment(PORT=str(self.port), **variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # Reads from a pipe that closes when this process ends, however it ends.
        self._janitor = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r line; kill -9 -- "-$1"', "janitor", str(self.process.pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # Not a request: a test may want a process that has not served any.
        if not wait_until(lambda: len(self.workers()) == workers and self._listens(), 30):
            text = self.log.read_text()
            self.stop()
            raise AssertionError(f"gunicorn does not start:\n{text}")

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

    def browser(self, **headers):
        """Return a Browser for this blog."""
        return Browser(self.port, headers)

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


class Answer:
    """What came back: status, headers as [(name, value)] and body as text."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self):
        return self.body.decode()

    def get(self, name, default=None):
        """Return the header `name`."""
        found = (value for key, value in self.headers if key.lower() == name.lower())
        return next(found, default)

    @property
    def is_hit(self):
        """Return whether a page level had it: Django adds Age to what it takes from a cache."""
        return self.get("Age") is not None


class Browser:
    """One visitor with a keep-alive connection and cookies. Not for several threads."""

    def __init__(self, port, headers=()):
        self.port = port
        self.headers = {"Host": f"127.0.0.1:{port}"} | dict(headers)
        self.cookies = {}
        self.connection = HTTPConnection("127.0.0.1", port, timeout=60)

    def request(self, method, path, body=None, **headers):
        """Send a request and return the Answer."""
        headers = self.headers | headers
        if self.cookies:
            cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            headers.setdefault("Cookie", cookie)
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(body, doseq=True)
            # gunicorn closes an idle connection at any moment, and a form is not sent twice.
            self.close()
        try:
            answer = self._ask(method, path, body, headers)
        except (HTTPException, ConnectionError):
            self.close()
            if body is not None:
                raise
            answer = self._ask(method, path, body, headers)
        for name, value in answer.headers:
            if name.lower() == "set-cookie":
                for morsel in SimpleCookie(value).values():
                    self.cookies[morsel.key] = morsel.coded_value
        return answer

    def _ask(self, method, path, body, headers):
        self.connection.request(method, path, body, headers)
        response = self.connection.getresponse()
        return Answer(response.status, response.getheaders(), response.read())

    def close(self):
        """Close the connection. The next request opens another one."""
        self.connection.close()

    def get(self, path, **headers):
        """GET a page."""
        return self.request("GET", path, **headers)

    def submit(self, path, **changes):
        """Open the page at `path`, change fields of its form, send it and return the Answer."""
        page = self.get(path)
        if page.status != 200:
            return page
        form = Form()
        form.feed(page.text)
        return self.request("POST", path, form.fields | changes)

    def comment(self, slug, author, body):
        """Send a comment and return the Answer: 302 when the blog took it."""
        return self.submit(f"/posts/{slug}/comment/", author=author, body=body)

    def log_in(self):
        """Log in as the author."""
        answer = self.submit("/admin/login/", username=AUTHOR, password=PASSWORD)
        if answer.status != 302:
            raise AssertionError(f"The author can't log in: {answer.status}")

    def edit(self, pk, **changes):
        """Change a post through the admin and return the Answer: 302 when it was saved."""
        return self.submit(f"/admin/blog/post/{pk}/change/", **changes)


class Form(HTMLParser):
    """The fields of a page's POST form with their values, as a browser would send them."""

    def __init__(self):
        super().__init__()
        self.fields = {}
        self._inside = False
        self._name = None

    def handle_starttag(self, tag, attributes):
        has = dict(attributes)
        name = has.get("name")
        if tag == "form":
            self._inside = has.get("method", "").lower() == "post" and "logout" not in has.get(
                "action", ""
            )
        elif not self._inside:
            return
        elif tag == "input" and name and has.get("type") not in ("submit", "checkbox"):
            self.fields[name] = unescape(has.get("value") or "")
        elif tag == "textarea":
            self._name, self.fields[name] = name, ""
        elif tag == "select":
            self._name, self.fields[name] = name, []
        elif tag == "option" and self._name and "selected" in has:
            self.fields[self._name].append(has["value"])

    def handle_data(self, data):
        if self._inside and isinstance(self.fields.get(self._name), str):
            self.fields[self._name] += data

    def handle_endtag(self, tag):
        if tag in ("textarea", "select"):
            name, self._name = self._name, None
            if tag == "textarea" and name in self.fields:
                # The first line break belongs to the markup.
                self.fields[name] = self.fields[name].removeprefix("\r\n").removeprefix("\n")
        elif tag == "form":
            self._inside = False
