"""`manage.py measure_watch`: what the watch costs a page that comes out of the cache."""

import http.client
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

TIMEOUT = 20  # Seconds in which gunicorn must answer its first request.
CPU_PATH = "/measure-watch-cpu"


def application():
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

    pages = get_wsgi_application()

    def pages_and_cpu(environ, start_response):
        if environ["PATH_INFO"] != CPU_PATH:
            return pages(environ, start_response)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(time.process_time()).encode()]

    return pages_and_cpu


class Server:
    """One gunicorn with one worker, and one keep-alive connection to it."""

    def __init__(self, watch, folder):
        self.socket = str(Path(folder, f"{watch}.sock"))
        self.cpu = 0
        self.milliseconds = []
        factory = f"{__name__}:application()"
        config = Path(folder, "empty.py")  # Instead of a gunicorn.conf.py that lies around.
        config.touch()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", factory, "--bind", f"unix:{self.socket}"),
                *("--workers", "1", "--worker-class", "gthread", "--threads", "4"),
                *("--config", str(config), "--log-level", "error", "--keep-alive", "60"),
                "--no-control-socket",
            ],
            env=os.environ | {"MEASURE_WATCH": watch},
        )
        self.connection = http.client.HTTPConnection("localhost", timeout=10)

    def connect(self):
        """Wait until it answers."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            self.connection.sock = socket.socket(socket.AF_UNIX)
            try:
                self.connection.sock.connect(self.socket)
                return
            except OSError:
                self.connection.close()
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise CommandError("gunicorn does not start.") from None
                time.sleep(0.05)

    def get(self, path):
        """Return (response, body, milliseconds to the first byte)."""
        start = time.perf_counter()
        self.connection.request("GET", path)
        response = self.connection.getresponse()
        first_byte = 1000 * (time.perf_counter() - start)
        return response, response.read(), first_byte

    def cpu_used(self):
        """Return the seconds of CPU so far, what still has to be published included."""
        time.sleep(0.3)
        return float(self.get(CPU_PATH)[1])

    def round(self, path, requests):
        """Ask for the page `requests` times, and return the microseconds of CPU a request."""
        before = self.cpu_used()
        for _ in range(requests):
            self.milliseconds.append(self.get(path)[2])
        return 1e6 * (self.cpu_used() - before) / requests

    def stop(self):
        self.connection.close()
        self.process.terminate()
        self.process.wait()


class Command(BaseCommand):
    help = "Measures what the watch costs a cached page: CPU, and time to the first byte."

    def add_arguments(self, parser):
        parser.add_argument("--path", default="/", help="a page that the cache answers")
        parser.add_argument("--rounds", type=int, default=10, help="on and off take turns")
        parser.add_argument("--requests", type=int, default=300, help="a round")

    def handle(self, *, path, rounds, requests, **options):
        with tempfile.TemporaryDirectory() as folder:
            servers = {watch: Server(watch, folder) for watch in ("off", "on")}
            try:
                cpu = self.measure(servers, path, rounds, requests)
            finally:
                for server in servers.values():
                    server.stop()
        self.report(path, cpu, {watch: servers[watch].milliseconds for watch in servers})

    def measure(self, servers, path, rounds, requests):
        cpu = {watch: [] for watch in servers}
        for watch, server in servers.items():
            server.connect()
            for _ in range(50):
                response, body, _ = server.get(path)
            if response.status != 200:
                raise CommandError(f"{path} answers {response.status}.")
            self.stdout.write(f"{watch}: {len(body)} bytes, {response.headers['Server-Timing']}")
            server.milliseconds.clear()
        for number in range(rounds):
            # In turns, and each goes first as often, because the machine gets busy and idle.
            for watch in sorted(servers, reverse=bool(number % 2)):
                cpu[watch].append(servers[watch].round(path, requests))
            self.stdout.write(".", ending="\n" if number + 1 == rounds else "")
            self.stdout.flush()
        return cpu

    def report(self, path, cpu, milliseconds):
        off, on = (statistics.median(cpu[watch]) for watch in ("off", "on"))
        self.stdout.write(f"GET {path} through gunicorn, medians of {len(cpu['on'])} rounds:")
        self.stdout.write(f"CPU a request: off {off:.0f} us, on {on:.0f} us, {on / off - 1:+.1%}")
        off, on = (statistics.median(milliseconds[watch]) for watch in ("off", "on"))
        self.stdout.write(f"First byte:    off {off:.3f} ms, on {on:.3f} ms, {on - off:+.3f} ms")
