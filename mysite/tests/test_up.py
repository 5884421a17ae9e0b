"""`manage.py up`, started and ended as a person does it."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from unittest import mock, skipUnless

from django.conf import settings
from django.core.management import CommandError, call_command
from django.test import SimpleTestCase, tag
from redis import Redis

from mysite.management.commands import up
from mysite.private_redis import PrivateRedis, RedisServerNotFound
from mysite.processes import free_port
from mysite.tests.processes import environment, is_alive, run, wait_until

NOBODY = "redis://127.0.0.1:1"


def get(port, path, **headers):
    """Return the status and the body of a page, or (None, "") if there is no answer."""
    try:
        with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
    except OSError:
        return None, ""


class Blog:
    """A running `manage.py up --no-seed` in a folder of its own. A context manager."""

    def __init__(self, **variables):
        self.folder = tempfile.TemporaryDirectory()
        self.database = Path(self.folder.name, "blog.sqlite3")
        self.port = free_port()
        self.output = Path(self.folder.name, "output")
        self.variables = {
            "DATABASE_PATH": str(self.database),
            "STATIC_ROOT": str(Path(self.folder.name, "static")),
            "PORT": str(self.port),
            # DEBUG=1 saves collecting the static files.
            "DEBUG": "1",
            "WEB_CONCURRENCY": "2",
        } | variables

    def __enter__(self):
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "up", "--no-seed"],
                cwd=settings.BASE_DIR,
                env=environment(**self.variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            if not wait_until(lambda: get(self.port, "/healthz")[0] == 200, seconds=60):
                raise AssertionError(f"The blog doesn't answer:\n{self.text}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.folder.cleanup()

    @property
    def text(self):
        """What it printed so far."""
        return self.output.read_text()

    @property
    def redis_url(self):
        return re.search(r"^Redis +(\S+) \(private\)$", self.text, re.MULTILINE)[1]


@tag("slow")
class UpTests(SimpleTestCase):
    """One command, and the blog is there."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.blog = cls.enterClassContext(Blog(DEBUG="0"))

    def test_it_prints_where_the_blog_is_and_serves_it(self):
        url = re.search(r"^Blog +(\S+)$", self.blog.text, re.MULTILINE)[1]

        self.assertEqual(url, f"http://127.0.0.1:{self.blog.port}/")
        self.assertEqual(get(self.blog.port, "/")[0], 200)

    def test_it_prints_the_redis_whose_keys_can_be_looked_at(self):
        get(self.blog.port, "/about/")

        with closing(Redis.from_url(self.blog.redis_url, db=1)) as client:
            self.assertTrue([key for key in client.scan_iter() if key.startswith(b"site:")])

    def test_it_serves_as_in_production(self):
        status, body = get(self.blog.port, "/no/such/page/")

        self.assertEqual(status, 404)
        self.assertNotIn("DEBUG", body)

    def test_static_files_are_served_under_hashed_names(self):
        (path,) = re.findall(r'href="(/static/admin/css/base\.[0-9a-f]{12}\.css)"', self.admin())

        self.assertEqual(get(self.blog.port, path)[0], 200)

    def admin(self):
        return get(self.blog.port, "/admin/login/")[1]

    def test_the_secret_key_is_kept_beside_the_database_for_this_user_only(self):
        path = self.blog.database.with_name("secret-key")

        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertGreaterEqual(len(path.read_text()), 50)

    def test_a_request_that_is_too_long_is_refused_before_django(self):
        self.assertEqual(get(self.blog.port, "/search/?q=" + "x" * 10_000)[0], 414)
        self.assertEqual(get(self.blog.port, "/", Cookie="x" * 10_000)[0], 431)

    def test_a_port_that_is_taken_is_one_line(self):
        other = str(self.blog.database.with_name("other.sqlite3"))

        done = run("manage.py", "up", **self.blog.variables | {"DATABASE_PATH": other})

        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, rf"^CommandError: Port {self.blog.port} .*\n$")

    def test_a_second_one_for_this_database_is_refused_whatever_its_port_and_redis(self):
        for more in ({}, {"PORT": str(free_port())}, {"REDIS_URL": NOBODY}):
            with self.subTest(more):
                done = run("manage.py", "up", **self.blog.variables | more)

                self.assertEqual(done.returncode, 1)
                url = f"http://127.0.0.1:{self.blog.port}/"
                self.assertRegex(done.stderr, rf"^CommandError: .* already runs at {url}.*\n$")

    def test_other_commands_find_its_redis(self):
        get(self.blog.port, "/about/")
        variables = self.blog.variables | {"DEBUG": "1"}

        keys = run("manage.py", "redis", "-n", "1", "--scan", **variables)
        check = run("manage.py", "check", **variables)

        self.assertIn("/about/\n", keys.stdout)
        self.assertEqual(check.stderr, "")

    def test_it_prints_how_to_look_at_each_level(self):
        for number in range(4):
            self.assertIn(f"python manage.py redis -n {number} --scan\n", self.blog.text)


@tag("slow")
class EndTests(SimpleTestCase):
    """However it ends, no process and no file of Redis is left."""

    def check(self, end):
        """Start a blog, leave a request unfinished, let `end(process)` end the blog."""
        with Blog() as blog:
            with closing(Redis.from_url(blog.redis_url)) as client:
                server = client.info("server")["process_id"]
            directory = Path(blog.redis_url.removeprefix("unix://")).parent
            # A request that never ends.
            with socket.create_connection(("127.0.0.1", blog.port)) as unfinished:
                unfinished.sendall(b"GET / HTTP/1.1\r\n")
                get(blog.port, "/")

                end(blog.process)

                # The workers hold the pipe, too, so Redis ends after the last of them.
                self.assertTrue(wait_until(lambda: not is_alive(server)), "Redis is left.")
                self.assertTrue(wait_until(lambda: not directory.exists()), "Its files are left.")
                self.assertTrue(wait_until(lambda: blog.process.poll() is not None))
            with self.assertRaises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", blog.port))

    def test_ctrl_c_ends_all_of_it(self):
        # The terminal sends it to every process of the group.
        self.check(lambda process: os.killpg(process.pid, signal.SIGINT))

    def test_sigterm_ends_all_of_it(self):
        self.check(lambda process: process.terminate())

    def test_kill_9_of_the_parent_ends_all_of_it(self):
        self.check(lambda process: process.kill())


@tag("slow")
class RedisUrlTests(SimpleTestCase):
    """With REDIS_URL set, that Redis is used and none is started."""

    def test_the_given_redis_is_used(self):
        with PrivateRedis() as redis, Blog(REDIS_URL=redis.url) as blog:
            health = get(blog.port, "/healthz")[1]

            self.assertIn('"redis": "up"', health)
            self.assertIn(f"{redis.url} (from REDIS_URL)", blog.text)
            self.assertNotIn("private", blog.text)

    def test_a_given_redis_that_does_not_answer_is_a_warning(self):
        with Blog(REDIS_URL=NOBODY) as blog:
            health = get(blog.port, "/healthz")[1]

            self.assertIn('"redis": "down"', health)
            self.assertRegex(blog.text, f"(?m)^Warning: {NOBODY} can't be used")


@tag("slow")
class EnvironmentTests(SimpleTestCase):
    """The variables that `up` sets."""

    def setUp(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.enterContext(mock.patch.dict(os.environ, environment(), clear=True))
        os.environ["DATABASE_PATH"] = str(folder / "blog.sqlite3")
        self.key = folder / "secret-key"

    def test_the_secret_key_survives_a_restart(self):
        up.set_environment()
        key = self.key.read_text()
        del os.environ["SECRET_KEY_FILE"]

        up.set_environment()

        self.assertEqual(self.key.read_text(), key)
        self.assertEqual(os.environ["SECRET_KEY_FILE"], str(self.key))

    def test_what_the_user_set_stays(self):
        os.environ |= {"SECRET_KEY": "mine", "DEBUG": "1", "LAB": "0"}

        up.set_environment()

        self.assertEqual((os.environ["DEBUG"], os.environ["LAB"]), ("1", "0"))
        self.assertFalse(self.key.exists())

    @skipUnless(os.access(up.BASE_DIR, os.W_OK), "this folder can't be written")
    def test_the_database_is_where_the_settings_look_for_it(self):
        del os.environ["DATABASE_PATH"]
        command = "from django.conf import settings; print(settings.DATABASE_PATH)"

        done = run("manage.py", "shell", "--no-imports", "-c", command)

        self.assertEqual(done.stdout.strip(), str(up.BASE_DIR / "db.sqlite3"))


@tag("slow")
class BadInputTests(SimpleTestCase):
    """A wrong variable or option is one line and exit status 1."""

    def assertOneLine(self, done, pattern):
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, rf"^.*{pattern}.*\n$")

    def test_bad_variables_of_every_command_and_of_gunicorn(self):
        port = str(free_port())
        for variables, pattern in (
            ({"REDIS_URL": "http://127.0.0.1"}, "Redis"),
            ({"REDIS_URL": "redis://127.0.0.1:1/?typo=1"}, "Redis.*typo"),
            ({"DEBUG": "0"}, "SECRET_KEY"),
            ({"DATABASE_PATH": "/dev/null/blog.sqlite3"}, "DATABASE_PATH"),
        ):
            for command in (
                ["manage.py", "migrate"],
                ["manage.py", "redis", "PING"],
                ["manage.py", "runserver", port],
                ["-m", "gunicorn"],
            ):
                with self.subTest(variables=variables, command=command):
                    self.assertOneLine(run(*command, **variables, PORT=port), pattern)

    def test_a_redis_url_that_can_never_work_is_named_at_the_start(self):
        for url in (
            "redis://127.0.0.1:port",
            "redis://127.0.0.1/?ssl_cert_reqs=none",
            "redis://127.0.0.1/?decode_responses=true",
        ):
            with self.subTest(url):
                self.assertOneLine(run("manage.py", "check", REDIS_URL=url), "Redis")

    def test_a_redis_url_that_may_work_starts(self):
        with closing(socket.create_server(("127.0.0.1", 0))) as silent:
            place = f"127.0.0.1:{silent.getsockname()[1]}"
            for url in (
                f"redis://{place}/?socket_timeout=1",
                f"redis://:a,b@{place}",
                f"REDIS://{place}",
            ):
                with self.subTest(url):
                    done = run("manage.py", "check", REDIS_URL=url)

                    self.assertEqual(done.returncode, 0, done.stderr)

    def test_bad_variables_of_up(self):
        for variables, pattern in (
            ({"REDIS_URL": "http://127.0.0.1", "SECRET_KEY": "key"}, "Redis"),
            ({"DATABASE_PATH": "/dev/null/blog.sqlite3"}, "DATABASE_PATH"),
            ({"PORT": "http", "SECRET_KEY": "key"}, "PORT"),
            ({"PORT": "65536", "SECRET_KEY": "key"}, "PORT"),
            ({"WEB_CONCURRENCY": "0", "SECRET_KEY": "key"}, "WEB_CONCURRENCY"),
        ):
            with self.subTest(variables=variables):
                self.assertOneLine(run("manage.py", "up", **variables), pattern)

    def test_an_option_that_is_no_number_is_named(self):
        for option in ("--port", "--workers"):
            with self.subTest(option):
                done = run("manage.py", "up", option, "0", SECRET_KEY="key")
                self.assertOneLine(done, option)

    def test_no_redis_on_this_platform(self):
        missing = RedisServerNotFound("No redis-server here.")

        with (
            mock.patch.dict(os.environ, environment(), clear=True),
            mock.patch("mysite.private_redis.find_redis_server", side_effect=missing),
            self.assertRaisesMessage(CommandError, "No redis-server here."),
        ):
            call_command("up", port=str(free_port()))
