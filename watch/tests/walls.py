"""What the tests of the wall share: the small site, also as gunicorn serves it."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from http.client import HTTPConnection
from pathlib import Path
from unittest import skipUnless

from django.conf import settings
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler

from watch.feed import connect
from watch.listener import listener, lock_key, viewers_key
from watch.tests.case import WatchTestCase
from watch.tests.settings import MIDDLEWARE
from watch.wall import kept_state, reader

ONLY_SELF = "watch.tests.wsgi.only_self"

needs_gunicorn = skipUnless(importlib.util.find_spec("gunicorn"), "gunicorn is not installed")


class WallTestCase(WatchTestCase):
    """The small site, its wall, and a Redis that tells of its keys."""

    def setUp(self):
        super().setUp()
        self.addCleanup(self.forget_wall)
        reader.forget()  # A Redis that was down in another test counts as down for two seconds.
        kept_state.forget()

    def tell_keyspace_events(self, flags):
        """Let Redis tell what happens to its keys, or not, until the end of the test."""
        redis = self.redis("low-level")
        before = redis.config_get("notify-keyspace-events")["notify-keyspace-events"]
        redis.config_set("notify-keyspace-events", flags)
        self.addCleanup(redis.config_set, "notify-keyspace-events", before)

    def forget_wall(self):
        """End the listener of this process, and delete what the wall left in Redis."""
        listener.stop()
        connect().delete(lock_key(), viewers_key())

    def publish(self, *events):
        """Put events into the stream, in one go, and return their IDs."""
        pipeline = connect().pipeline(transaction=False)
        for event in events:
            text = event if isinstance(event, (str, bytes)) else json.dumps(event)
            pipeline.xadd(self.name, {"e": text})
        return [number.decode() for number in pipeline.execute()]

    def serve(self, workers=2, path="/watch/events"):
        """Return a Gunicorn that serves the site until the end of the test."""
        server = Gunicorn(workers)
        self.addCleanup(server.stop)
        server.wait(path)
        return server

    def holder(self):
        """Return what the process that listens says of itself, or None."""
        return json.loads(connect().get(lock_key()) or "null")


def a_request(path="/", level="site", word="hit", us=1500, **more):
    """Return an event as the middleware makes it."""
    hits, misses = int(word == "hit"), int(word == "miss")
    answer = {"level": level, "word": word, "hits": hits, "misses": misses, "failed": 0}
    answer |= {"us": 200, "bytes": 1000, "ttl": 60_000, "stored": misses}
    event = {"kind": "request", "id": uuid.uuid4().hex[:8], "at": round(time.time(), 3)}
    event |= {"worker": "test:1", "method": "GET", "path": path, "status": 200, "us": us}
    event |= {"watch_us": 100, "cache_status": "", "levels": [answer], "ops": [], "left_out": 0}
    return event | more


class Threads:
    """The current settings, served by this very process: it starts at once."""

    def __init__(self):
        self.server = ThreadedWSGIServer(("127.0.0.1", 0), QuietHandler)
        self.server.daemon_threads = True
        self.server.set_app(StaticFilesHandler(WSGIHandler()))
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=[0.05], daemon=True).start()

    def stop(self):
        """End it. Streams that are open end by themselves."""
        self.server.shutdown()
        self.server.server_close()


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *args):
        """Say nothing: a test tells what is wrong."""


class Gunicorn:
    """The current settings, served by workers with four threads each."""

    def __init__(self, workers=2):
        self.folder = tempfile.TemporaryDirectory()
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        given = {"CACHES": settings.CACHES, "WATCH": settings.WATCH}
        given["MIDDLEWARE"] = [ONLY_SELF, *MIDDLEWARE]
        # SSE must not be held up by what the project under test has in its own configuration.
        config = Path(self.folder.name, "empty.py")
        config.touch()
        self.log = Path(self.folder.name, "log").open("w+b")  # noqa: SIM115 - stop() closes it.
        with listening:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn", "watch.tests.wsgi:application()"),
                    *("--bind", f"fd://{listening.fileno()}", "--workers", str(workers)),
                    *("--worker-class", "gthread", "--threads", "4", "--config", str(config)),
                    *("--graceful-timeout", "1", "--log-level", "warning", "--no-control-socket"),
                ],
                cwd=Path(__file__).resolve().parents[2],
                env=os.environ | {"WATCH_TEST_SETTINGS": json.dumps(given)},
                pass_fds=[listening.fileno()],
                stdout=self.log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, path, seconds=20):
        """Return when it answers."""
        deadline = time.monotonic() + seconds
        while self.get(path)[0] != 200:
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.log.seek(0)
                raise AssertionError(f"gunicorn does not start: {self.log.read().decode()}")
            time.sleep(0.05)

    def get(self, path, **headers):
        """Return (status, headers, body) over a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        except OSError:
            return 0, {}, b""
        finally:
            connection.close()

    def json(self, path):
        """Return the JSON at `path`."""
        return json.loads(self.get(path)[2] or "{}")

    def stop(self):
        """End it: its workers too, and those that a test has stopped."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()
        self.folder.cleanup()


class Listening:
    """A wall: a stream that is read line by line."""

    def __init__(self, server, path="/watch/stream", **headers):
        self.connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
        self.connection.request("GET", path, headers=headers)
        self.response = self.connection.getresponse()
        self.status = self.response.status

    def events(self):
        """Yield (ID, event)."""
        number = None
        while line := self.response.readline():
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "id":
                number = value
            elif name == "data":
                yield number, json.loads(value)

    def close(self):
        """Do what closing the tab does."""
        self.response.close()
        self.connection.close()


def pid_of(worker):
    """Return the process ID in the name of a worker."""
    return int(worker.rpartition(":")[2])
