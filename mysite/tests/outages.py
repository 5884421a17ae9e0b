"""
The ways in which Redis fails, for real: processes stopped and signalled, a network that loses.

Each fault begins one for a `blog` and returns the function that ends it. The blog has a
`server` (RedisServer), `seconds` that the fault should last, and after `way_to_redis()` a
`proxy` or `hosts` where a fault needs it.
"""

import os
import subprocess
import threading
from contextlib import suppress

import redis

from mysite.tests.faults import Proxy, free_port
from mysite.tests.processes import wait_until
from resilient_cache.circuit import PERIOD

# Seconds after a fault in which there must be hits again.
RECOVERY = PERIOD + 1


def nothing(blog):
    return lambda: None


def stopped(blog):
    """Redis ends, and comes back with the data it had."""
    blog.server.save_and_end()
    return blog.server.start


def restarted(blog):
    """Redis is killed and started again once a second, empty."""
    (blog.server.directory / "dump.rdb").unlink(missing_ok=True)
    return every_second(lambda: (blog.server.kill(), blog.server.start()))


def hung(blog):
    """SIGSTOP: Redis accepts connections and answers nothing."""
    blog.server.hang()
    return blog.server.wake


def auth(blog):
    """Redis suddenly wants a password."""
    blog.server.command("CONFIG", "SET", "requirepass", "secret")
    with redis.Redis(port=blog.server.port, password="secret") as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def end():
        with redis.Redis(port=blog.server.port, password="secret") as client:
            client.config_set("requirepass", "")

    return end


def full(blog):
    """Redis is empty and refuses every new value: noeviction."""
    blog.server.command("FLUSHALL")
    blog.server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    blog.server.command("CONFIG", "SET", "maxmemory", "1")
    return lambda: blog.server.command("CONFIG", "SET", "maxmemory", "0")


def read_only(blog):
    """Redis has become a replica of a server that is gone."""
    blog.server.command("REPLICAOF", "127.0.0.1", str(free_port()))
    return lambda: blog.server.command("REPLICAOF", "NO", "ONE")


def loading(blog):
    """Redis starts with data that take it seconds to load, and says so to whoever asks."""
    blog.server.command("CONFIG", "SET", "appendonly", "yes")
    if not wait_until(lambda: not rewrites(blog.server), 60):
        raise AssertionError("Redis writes its log for ever")
    blog.server.kill()
    # Redis looks at its clients after 1,000 commands that it has loaded, later releases after
    # 1,024. One of a thousand lets it sleep, so that whoever asks has an answer in time.
    thousand = b"*3\r\n$5\r\nDEBUG\r\n$5\r\nSLEEP\r\n$4\r\n0.02\r\n" + b"*1\r\n$4\r\nPING\r\n" * 999
    # appendonly.aof, or since Redis 7 the latest file of appendonlydir/.
    *_, log = sorted(blog.server.directory.rglob("*.aof"), key=lambda path: path.stat().st_mtime)
    with log.open("ab") as file:
        for _ in range(int(1.3 * blog.seconds / 0.02)):  # Some loads faster than it sleeps.
            file.write(thousand)
    blog.server.start("--appendonly", "yes", wait=False)
    if not wait_until(lambda: is_loading(blog.server)):
        raise AssertionError("Redis loads nothing")

    def end():
        if not wait_until(blog.server.answers, blog.seconds + 60):
            raise AssertionError("Redis loads for ever")
        blog.server.command("CONFIG", "SET", "appendonly", "no")

    return end


def is_loading(server):
    """Return whether it answers, and says that it loads."""
    try:
        server.command("PING")
    except redis.BusyLoadingError:
        return True
    except redis.RedisError:
        pass
    return False


def rewrites(server):
    """Return whether it still writes what it holds to its log of commands."""
    with redis.Redis(port=server.port) as client:
        status = client.info("persistence")
    return status["aof_rewrite_in_progress"] or status["aof_rewrite_scheduled"]


def half_open(blog):
    """From now on the network loses all packets of the connections that are open."""
    blog.proxy.drop()
    return lambda: None


def dns(blog):
    """The host name of Redis is not found, and connections that there were are lost."""
    name = blog.hosts.read_text()
    blog.hosts.write_text("127.0.0.1 localhost\n")
    blog.server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    return lambda: blog.hosts.write_text(name)


def wrong_type(blog):
    """Every key holds a list, and nothing says where it came from; again each second."""

    def overwrite():
        for number in range(4):
            with redis.Redis(port=blog.server.port, db=number) as client:
                pipeline = client.pipeline()  # Takes less of the machine than one a key.
                for key in client.scan_iter(count=10_000):
                    pipeline.delete(key).lpush(key, "wrong")
                pipeline.execute()

    return every_second(overwrite)


def garbage(blog):
    """Every key holds bytes that nobody wrote, or a pickle; again each second."""

    def overwrite():
        for number in range(4):
            with redis.Redis(port=blog.server.port, db=number) as client:
                pipeline = client.pipeline()
                for turn, key in enumerate(client.scan_iter(count=10_000)):
                    pipeline.set(key, (os.urandom(500), b"\x80\x05.", b"\xc1\x01")[turn % 3])
                pipeline.execute()

    return every_second(overwrite)


def every_second(do):
    """Do it now and each second, and return how that ends."""
    stop = threading.Event()

    def repeat():
        while not stop.wait(1):
            do()

    do()
    thread = threading.Thread(target=repeat)
    thread.start()
    return lambda: (stop.set(), thread.join())[0]


FAULTS = {
    "none": nothing,
    "stopped": stopped,
    "restarted": restarted,
    "hung": hung,
    "auth": auth,
    "full": full,
    "read-only": read_only,
    "loading": loading,
    "half-open": half_open,
    "dns": dns,
    "wrong type": wrong_type,
    "garbage": garbage,
}

# These need another way to Redis than the direct one.
SPECIAL = ("half-open", "dns")


def way_to_redis(stack, blog, name):
    """Prepare for a fault. Return the URL of Redis and the command that starts gunicorn."""
    if name == "half-open":
        blog.proxy = Proxy(blog.server.port)
        stack.callback(blog.proxy.close)
        return blog.proxy.url, ()
    if name == "dns":
        # A /etc/hosts that only this gunicorn sees.
        blog.hosts = blog.home.path / "hosts"
        blog.hosts.write_text("127.0.0.1 localhost redis.test\n")
        mount = f'mount --bind {blog.hosts} /etc/hosts && exec "$@"'
        command = ("unshare", "--map-root-user", "--mount", "sh", "-c", mount, "gunicorn")
        return f"redis://redis.test:{blog.server.port}", command
    return blog.server.url, ()


def has_namespaces():
    """Return whether a process here may have a /etc/hosts of its own."""
    command = [
        "unshare",
        "--map-root-user",
        "--mount",
        "mount",
        "--bind",
        "/dev/null",
        "/etc/hosts",
    ]
    with suppress(OSError):
        return subprocess.run(command, capture_output=True).returncode == 0
    return False
