"""A Redis to break, and a network to break between it and the blog."""

import contextlib
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from mysite.private_redis import find_redis_server
from mysite.processes import free_port, wait_until


class RedisServer:
    """A redis-server that a test may hang, kill and start again at the same address."""

    def __init__(self, *arguments):
        self.arguments = arguments
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._directory = tempfile.TemporaryDirectory()
        self.directory = Path(self._directory.name)
        self.unix_url = f"unix://{self.directory}/redis.sock"
        self.process = self._janitor = None

    def start(self, *arguments, wait=True):
        """Start it with `arguments` besides the usual ones, and return self once it answers."""
        self.process = subprocess.Popen(
            [
                *(find_redis_server(), "--port", str(self.port), "--dir", self.directory),
                *("--unixsocket", f"{self.directory}/redis.sock", "--save", ""),
                *("--bind", "127.0.0.1", "--loglevel", "warning", *self.arguments, *arguments),
            ],
            stdout=subprocess.DEVNULL,
        )
        # Reads from a pipe that closes when this process ends, however it ends.
        self._janitor = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r line; kill -9 "$1"', "janitor", str(self.process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        if wait and not wait_until(self.answers):
            raise AssertionError("redis-server does not answer")
        return self

    def answers(self):
        """Return whether it answers a PING, and no other server at its port does."""
        if self.process.poll() is not None:
            raise AssertionError(f"redis-server ended with {self.process.returncode}")
        try:
            self.command("PING")  # INFO is answered while it loads, too.
            return self.command("INFO", "server")["process_id"] == self.process.pid
        except redis.RedisError:
            return False

    def command(self, *words):
        """Run one command on a connection of its own."""
        once = Retry(NoBackoff(), 0)
        with redis.Redis(port=self.port, socket_timeout=20, retry=once) as client:
            return client.execute_command(*words)

    def hang(self):
        """Let it accept connections and answer nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def wake(self):
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        """End it as a power cut would."""
        self._janitor.kill()
        self._janitor.communicate()
        self.process.kill()
        self.process.wait()

    def save_and_end(self):
        """End it with all that it holds on its disk. Nothing is taken after it has saved."""
        with contextlib.suppress(redis.ConnectionError):
            self.command("SHUTDOWN", "SAVE")
        self.kill()

    def close(self):
        """End it for good."""
        self.kill()
        self._directory.cleanup()


class Proxy:
    """A TCP proxy to `port` that can lose what it should pass on."""

    def __init__(self, port):
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self.refuse = False
        self._sockets = []
        self._lost = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self):
        """Lose every packet of the connections that are open now. Neither end notices."""
        self._lost.update(self._sockets)

    def close(self):
        """Close all connections and listen no more."""
        for each in (self.listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                self._sockets += (near, far)
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source, sink):
        with contextlib.suppress(OSError):
            while received := source.recv(65536):
                if source not in self._lost:
                    sink.sendall(received)


def answer_everything_with(answer):
    """Listen for connections, answer each with the bytes `answer`, and return the listener."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return listener
