"""
`manage.py measure_watch`: what the watch costs a page that comes out of the cache.

With `--walls 10`: what it costs those who read pages that ten people look at the wall.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.urls import NoReverseMatch, reverse
from redis import RedisError

from watch.feed import connect

TIMEOUT = 20  # Seconds in which gunicorn must answer its first request.
CPU_PATH = "/measure-watch-cpu"

RATE = 30  # pages a second that are asked for while walls are open
# Microseconds of CPU per request, and milliseconds to the first byte.
Figures = tuple[float, float]

READERS = 16  # threads that ask for them


def application() -> Callable[..., Iterable[bytes]]:
    """
    Return the WSGI application that gunicorn serves, with the watch or without it.

    Asked for CPU_PATH it answers with the seconds of CPU that its process has used: all
    threads, those of gunicorn and of the feed included.
    """
    if os.environ["MEASURE_WATCH"] == "off":
        settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "watch"]
        settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "watch." not in name]
        for cache in settings.CACHES.values():
            cache.get("OPTIONS", {}).pop("REDIS_CLIENT_CLASS", None)
    from django.core.wsgi import get_wsgi_application

    pages: Callable[..., Iterable[bytes]] = get_wsgi_application()

    def pages_and_cpu(
        environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if environ["PATH_INFO"] != CPU_PATH:
            return pages(environ, start_response)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(time.process_time()).encode()]

    return pages_and_cpu


class Server:
    """One gunicorn, and one keep-alive connection to it."""

    def __init__(self, watch: str, folder: str, workers: int = 1) -> None:
        self.socket = str(Path(folder, f"{watch}.sock"))
        factory = f"{__name__}:application()"
        config = Path(folder, "empty.py")  # Instead of a gunicorn.conf.py that lies around.
        config.touch()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", factory, "--bind", f"unix:{self.socket}"),
                *("--workers", str(workers), "--worker-class", "gthread", "--threads", "4"),
                *("--config", str(config), "--log-level", "error", "--keep-alive", "60"),
                "--no-control-socket",
            ],
            env=os.environ | {"MEASURE_WATCH": watch},
        )

    def new_connection(self) -> HTTPConnection:
        """Return a connection of its own, which is open."""
        connection = HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
        try:
            connection.sock.connect(self.socket)
        except OSError:
            connection.close()
            raise
        return connection

    def connect(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                self.connection: HTTPConnection = self.new_connection()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise CommandError("gunicorn does not start.") from None
                time.sleep(0.05)

    def get(self, path: str) -> tuple[HTTPResponse, bytes, float]:
        """Return (response, body, milliseconds to the first byte)."""
        connection = self.connection
        start = time.perf_counter()
        connection.request("GET", path)
        # Looked at and left there: taking the header apart is not the server's time.
        connection.sock.recv(1, socket.MSG_PEEK)
        first_byte = 1000 * (time.perf_counter() - start)
        response = connection.getresponse()
        return response, response.read(), first_byte

    def cpu_used(self) -> float:
        """Return the seconds of CPU so far, what still has to be published included."""
        time.sleep(0.3)
        return float(self.get(CPU_PATH)[1])

    def round(self, path: str, requests: int) -> Figures:
        """
        Ask for the page `requests` times.

        Return the microseconds of CPU a request, and the milliseconds to the first byte (median).
        """
        before = self.cpu_used()
        first_bytes = [self.get(path)[2] for _ in range(requests)]
        return 1e6 * (self.cpu_used() - before) / requests, statistics.median(first_bytes)

    def stop(self) -> None:
        if hasattr(self, "connection"):
            self.connection.close()
        self.process.terminate()
        self.process.wait()


class Wall:
    """One open page of the wall, without its looks: asks for what wall.js asks for."""

    def __init__(self, server: Server, number: int) -> None:
        self.server = server
        self.pace = 0.9 + number % 10 / 50  # Not all walls in the same moment.
        self.addresses = {name: reverse(f"watch:{name}") for name in ("stream", "events", "state")}
        self.last: str | None = None  # ID of the last event
        self.events = self.streams = 0
        self.has_ended = threading.Event()
        self.threads = [threading.Thread(target=run) for run in (self.follow, self.look)]
        for thread in self.threads:
            thread.start()

    def ask(self, name: str, query: str = "") -> tuple[HTTPConnection, HTTPResponse]:
        """Return the answer at an address as it comes."""
        connection = self.server.new_connection()
        connection.request("GET", self.addresses[name] + query)
        return connection, connection.getresponse()

    def follow(self) -> None:
        """Take in the stream while there is a place, and ask every two seconds otherwise."""
        while not self.has_ended.is_set():
            connection, response = self.ask("stream", f"?after={self.last}" if self.last else "")
            with closing(connection):
                if response.status == 200:
                    self.streams += 1
                    self.take_in(response)
                    continue
            again = time.monotonic() + 60
            while time.monotonic() < again and not self.wait(2):
                connection, response = self.ask("events", f"?after={self.last or ''}")
                with closing(connection):
                    answer = json.load(response)
                self.events += len(answer["events"])
                self.last = answer["last"]

    def take_in(self, response: HTTPResponse) -> None:
        """Read one stream to its end, or until this wall is closed."""
        while not self.has_ended.is_set() and (line := response.readline()):
            if line.startswith(b"id: "):
                self.last = line[4:].decode().strip()
            self.events += line.startswith(b"data: ")

    def look(self) -> None:
        """Ask for keys and memory every five seconds."""
        while not self.wait(5):
            connection, response = self.ask("state")
            with closing(connection):
                response.read()

    def wait(self, seconds: float) -> bool:
        """Return whether this wall was closed within these seconds."""
        return self.has_ended.wait(seconds * self.pace)

    def close(self) -> None:
        """Do what closing the tab does."""
        self.has_ended.set()
        for thread in self.threads:
            thread.join()


def ask_steadily(server: Server, path: str, seconds: int) -> list[float]:
    """
    Ask for a page RATE times a second, and return the milliseconds that each took.

    From the moment when it was due: a server that is late makes the next ones wait, and
    that counts.
    """
    start = time.monotonic()
    connections = threading.local()

    def ask(number: int) -> float:
        due = start + number / RATE
        time.sleep(max(0, due - time.monotonic()))
        if not hasattr(connections, "own"):
            connections.own = server.new_connection()
        connections.own.request("GET", path)
        response = connections.own.getresponse()
        response.read()
        if response.status != 200:
            raise CommandError(f"{path} answers {response.status}.")
        return 1000 * (time.monotonic() - due)

    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(ask, range(RATE * seconds)))


def positive(text: str) -> int:
    """Return a number of the command line that must be 1 or more. Raises ValueError."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def p95(values: Iterable[float]) -> float:
    """Return what 95 % of the values are not above."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


class Command(BaseCommand):
    help = "Measures what the watch costs a cached page: CPU, and time to the first byte."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--path", default="/", help="a page that the cache answers")
        parser.add_argument("--rounds", type=positive, default=8, help="on and off take turns")
        parser.add_argument("--requests", type=positive, default=100, help="a round")
        parser.add_argument("--starts", type=positive, default=8, help="of both, rounds each time")
        parser.add_argument(
            "--walls", type=positive, help="measure this number of open walls instead"
        )
        parser.add_argument("--seconds", type=positive, default=10, help="a round with --walls")

    def handle(
        self,
        *,
        path: str,
        rounds: int,
        requests: int,
        starts: int,
        walls: int | None,
        seconds: int,
        **options: Any,
    ) -> None:
        try:
            connect().ping()
        except RedisError as error:
            raise CommandError(f"Redis does not answer, so no page is cached: {error}") from None
        if walls:
            self.handle_walls(path, rounds, walls, seconds)
            return
        measured: dict[str, list[Figures]] = {watch: [] for watch in ("off", "on")}
        # Where a process happens to have its things in memory makes as much as the watch does.
        for start in range(starts):
            with tempfile.TemporaryDirectory() as folder:
                servers = {watch: Server(watch, folder) for watch in measured}
                try:
                    self.connect(servers, path, is_first=not start)
                    self.measure(servers, path, rounds, requests, measured)
                finally:
                    for server in servers.values():
                        server.stop()
        self.stdout.write("")
        self.report(path, measured, starts)

    def handle_walls(self, path: str, rounds: int, number: int, seconds: int) -> None:
        try:
            reverse("watch:stream")
        except NoReverseMatch:
            raise CommandError("The wall has no address: see README.md.") from None
        idles: list[float] = []
        watcheds: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            server = Server("on", folder, workers=2)
            try:
                server.connect()
                ask_steadily(server, path, 2)
                for _ in range(rounds):
                    idles.append(p95(ask_steadily(server, path, seconds)))
                    walls = [Wall(server, at) for at in range(number)]
                    watcheds.append(p95(ask_steadily(server, path, seconds)))
                    for wall in walls:
                        wall.close()
                    streams = sum(wall.streams > 0 for wall in walls)
                    events = min(wall.events for wall in walls)
                    if not events:
                        raise CommandError("A wall saw no event. Is there a Redis at REDIS_URL?")
                    self.stdout.write(
                        f"p95: {idles[-1]:.1f} ms idle, {watcheds[-1]:.1f} ms with {number} walls, "
                        f"{streams} of them with a stream; each got {events} events or more"
                    )
            finally:
                server.stop()
        idle, watched = statistics.median(idles), statistics.median(watcheds)
        self.stdout.write(
            f"GET {path}, {RATE} a second, 2 workers x 4 threads, medians of {rounds} rounds:"
        )
        self.stdout.write(
            f"p95: idle {idle:.1f} ms, {number} walls {watched:.1f} ms, x {watched / idle:.2f}"
        )

    def connect(self, servers: dict[str, Server], path: str, is_first: bool) -> None:
        for watch, server in servers.items():
            server.connect()
            for _ in range(50):
                response, body, _ = server.get(path)
            if response.status != 200:
                raise CommandError(f"{path} answers {response.status}.")
            if is_first:
                timing = response.headers["Server-Timing"]
                self.stdout.write(f"{watch}: {len(body)} bytes, {timing}")

    def measure(
        self,
        servers: dict[str, Server],
        path: str,
        rounds: int,
        requests: int,
        measured: dict[str, list[Figures]],
    ) -> None:
        for number in range(rounds):
            # In turns, and each goes first as often, because the machine gets busy and idle.
            for watch in sorted(servers, reverse=bool(number % 2)):
                measured[watch].append(servers[watch].round(path, requests))
            self.stdout.write(".", ending="")
            self.stdout.flush()

    def report(self, path: str, measured: dict[str, list[Figures]], starts: int) -> None:
        """Say what on costs more than off did in the same round, in half of the rounds."""
        (cpu_off, byte_off), (cpu_on, byte_on) = (
            zip(*measured[watch], strict=True) for watch in ("off", "on")
        )
        more_cpu = statistics.median(on / off - 1 for off, on in zip(cpu_off, cpu_on, strict=True))
        more_ms = statistics.median(on - off for off, on in zip(byte_off, byte_on, strict=True))
        off, on = map(statistics.median, (cpu_off, cpu_on))
        self.stdout.write(
            f"GET {path} through gunicorn, medians of {len(cpu_on)} rounds, started {starts} times:"
        )
        self.stdout.write(f"CPU a request: off {off:.0f} us, on {on:.0f} us, {more_cpu:+.1%}")
        off, on = map(statistics.median, (byte_off, byte_on))
        self.stdout.write(f"First byte:    off {off:.3f} ms, on {on:.3f} ms, {more_ms:+.3f} ms")
