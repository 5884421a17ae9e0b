"""Django's cache backends side by side: get and set of one value, in one process."""

import getpass
import importlib.util
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import django_redis.cache
from django.core.cache import caches
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache
from django.core.cache.utils import make_template_fragment_key
from django.core.management import call_command
from django.db import connection

from lab.bench.report import Table
from lab.bench.rounds import microseconds, ratio
from lab.bench.values import text

SIZES = {"2 KB": 2_000, "30 KB": 30_000}
MEMCACHED = ("127.0.0.1", 11211)
PLAIN = "django-redis, no options"
# Ends a server when the pipe that this reads from closes: when its owner ends, however it ends.
JANITOR = '"$@" </dev/null & server=$!; read -r line; kill "$server"; wait'
KEY = make_template_fragment_key("bench")


def measure(bench):
    seconds = 0.01 if bench.quick else 0.06
    with ExitStack() as stack:
        stack.enter_context(database_at(bench.folder / "cache.sqlite3"))
        call_command("createcachetable", "bench_cache", verbosity=0)
        backends = {
            "locmem": LocMemCache("bench", {}),
            "file": FileBasedCache(bench.folder / "files", {}),
            "database (SQLite)": DatabaseCache("bench_cache", {}),
            **memcached(stack, bench.folder),
            "Django's Redis backend": RedisCache(bench.redis.url, {}),
            PLAIN: django_redis.cache.RedisCache(bench.redis.url, {}),
            "this blog: default": caches["default"],
            "this blog: template_fragments": caches["template_fragments"],
        }
        contestants = {
            (size, name): partial(get_and_set, backend, text(length), seconds)
            for size, length in SIZES.items()
            for name, backend in backends.items()
            if backend is not None
        }
        for run in contestants.values():
            run()
        seen = bench.in_turns(contestants)
        caches["default"].clear()
    return [table(size, backends, seen, bench.rounds) for size in SIZES]


def get_and_set(backend, value, seconds):
    """Return the microseconds of a set() and of a get(). Raises ValueError for a miss."""
    figures = {"set": microseconds(partial(backend.set, KEY, value, 300), seconds)}
    figures["get"] = microseconds(partial(backend.get, KEY), seconds)
    if backend.get(KEY) != value:
        raise ValueError(f"{backend!r} does not keep what it is given.")
    return figures


def table(size, backends, seen, rounds):
    rows = []
    for name in backends:
        figures = seen.get((size, name), {"get": None, "set": None})
        plain = seen[size, PLAIN]["get"]
        rows.append(
            {"backend": name, "get": figures["get"], "set": figures["set"]}
            | {"get / django-redis": ratio(figures["get"], plain)}
        )
    return Table(
        "backends",
        f"Cache backends, a value of {size}, us",
        "cache.get() and cache.set() of English text, in one process and thread, "
        "with the server on the same machine (Redis by TCP). "
        f"The least of {rounds} rounds in turns.",
        "us",
        rows,
        ["get", "set"],
        ["get / django-redis"],
    )


@contextmanager
def database_at(path):
    """Let Django's default connection lead to an SQLite file of the bench's own."""
    name = connection.settings_dict["NAME"]
    connection.close()
    connection.settings_dict["NAME"] = path
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict["NAME"] = name


def memcached(stack, folder):
    """Return {name: backend}: the machine's own memcached, one that ends with `stack`, or None."""
    if importlib.util.find_spec("pymemcache") is None:
        return {"memcached (no pymemcache here)": None}
    from django.core.cache.backends.memcached import PyMemcacheCache

    if program := shutil.which("memcached"):
        path = folder / "memcached.sock"
        # -u: as root it refuses to start unless it is told to stay root.
        command = [program, "-s", str(path), "-m", "64", "-u", getpass.getuser()]
        process = subprocess.Popen(
            ["/bin/sh", "-c", JANITOR, "janitor", *command],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        stack.callback(process.communicate)  # Closes the pipe and waits.
        if answers(path):
            return {"memcached": PyMemcacheCache(f"unix:{path}", {})}
    with suppress(OSError), socket.create_connection(MEMCACHED, 1):
        return {"memcached": PyMemcacheCache("{}:{}".format(*MEMCACHED), {"KEY_PREFIX": "bench"})}
    return {"memcached (no memcached here)": None}


def answers(path, seconds=5):
    """Return whether a server listens at this Unix socket within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            return True
        time.sleep(0.02)
    return False
