"""`manage.py up`: the whole blog with one command, without Docker."""

import os
import secrets
import socket
import sys
from contextlib import nullcontext
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import BaseCommand, CommandError, call_command
from django.db import DatabaseError, connections

from mysite.checks import redis_problem, without_password
from mysite.private_redis import PrivateRedis, find_redis_cli, use_redis

BASE_DIR = Path(__file__).resolve().parents[3]

# A page a level, and the Redis database that keeps it.
PAGES = (
    ("whole site", "/", 1),
    ("per view", "/posts/<slug>/", 2),
    ("fragment", "/archive/", 3),
    ("low-level", "/search/?q=redis", 0),
)


def set_environment():
    """
    Set what a server would have set, unless the user did. Goes before the settings.

    SECRET_KEY is made once and kept beside the database: a restart logs nobody out.
    Raises ImproperlyConfigured when it can't be kept.
    """
    os.environ.setdefault("DEBUG", "0")
    os.environ.setdefault("LAB", "1")
    if os.environ.get("SECRET_KEY") or os.environ.get("SECRET_KEY_FILE"):
        return
    database = Path(os.environ.get("DATABASE_PATH") or BASE_DIR / "db.sqlite3")
    if database.is_dir():
        raise ImproperlyConfigured(f"DATABASE_PATH is {database}, which is a folder.")
    path = database.with_name("secret-key")
    try:
        # The mode first: a key that everybody could read for a moment is everybody's.
        path.touch(mode=0o600)
        if not path.read_text():
            path.write_text(secrets.token_urlsafe(50))
    except OSError as error:
        raise ImproperlyConfigured(
            f"DATABASE_PATH is {database}, and its folder can't be written: {error.strerror}."
        ) from None
    os.environ["SECRET_KEY_FILE"] = str(path)


def number(name, value, highest):
    """Return `value` as a number from 1 to `highest`, or raise CommandError."""
    if value.isascii() and value.isdigit() and 1 <= int(value) <= highest:
        return int(value)
    raise CommandError(f"{name} is a number from 1 to {highest}, not {value!r}.")


def check_port_is_free(host, port):
    """Raise CommandError unless gunicorn will be able to listen there."""
    with socket.socket() as listener:
        # As gunicorn does: connections that linger from the run before are no obstacle.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"Port {port} of {host} can't be had: {error.strerror}. Try --port {port + 1}."
            ) from None


class Command(BaseCommand):
    help = (
        "Migrate, seed and serve the blog with gunicorn, on a private Redis unless "
        "REDIS_URL is set. Ctrl-C ends all of it."
    )
    # They would ask for a Redis before there is one.
    requires_system_checks = []

    def add_arguments(self, parser):
        get = os.environ.get
        parser.add_argument("--port", default=get("PORT", "8000"), help="PORT or 8000")
        parser.add_argument("--workers", default=get("WEB_CONCURRENCY", "2"), help="processes: 2")
        parser.add_argument("--no-seed", action="store_true", help="leave the database empty")

    def handle(self, port, workers, no_seed, **options):
        """
        Prepare everything, then become gunicorn.

        All of it happens in this one process, so Ctrl-C or a signal at any moment ends
        all there is. Doesn't return.
        """
        port = number("--port or PORT", port, 65535)
        workers = number("--workers or WEB_CONCURRENCY", workers, 64)
        os.environ.update(PORT=str(port), WEB_CONCURRENCY=str(workers))
        check_port_is_free(os.environ.get("BIND", "127.0.0.1"), port)
        given = os.environ.get("REDIS_URL") or os.environ.get("REDIS_URL_FILE")
        with nullcontext() if given else PrivateRedis(inheritable=True) as redis:
            if redis:
                os.environ["REDIS_URL"] = redis.url
                use_redis(redis.url).enable()
            self.prepare(no_seed)
            self.tell(f"http://127.0.0.1:{port}", redis)
            self.serve()

    def prepare(self, no_seed):
        """Make the database and the static files what this release needs."""
        try:
            call_command("migrate", verbosity=0)
            if not no_seed:
                call_command("seed", stdout=self.stdout)
        except DatabaseError as error:
            raise CommandError(f"{settings.DATABASES['default']['NAME']}: {error}.") from error
        connections.close_all()
        if not settings.DEBUG:
            call_command("collectstatic", interactive=False, verbosity=0)

    def tell(self, site, redis):
        """Print what runs where. `redis` is the private one or None."""
        given = without_password(settings.REDIS_URL)
        self.stdout.write(f"Blog      {site}/")
        self.stdout.write(f"Redis     {given} ({'private' if redis else 'from REDIS_URL'})")
        self.stdout.write(f"Database  {settings.DATABASES['default']['NAME']}")
        if not redis and (problem := redis_problem(settings.REDIS_URL)):
            self.stderr.write(f"Warning: {given} is of no use, nothing is cached: {problem}.")
        if redis and (cli := find_redis_cli()):
            self.stdout.write("\nWhat each level keeps, once its page was opened:")
            for level, page, database in PAGES:
                look = f"{cli} -s {redis.socket} -n {database} --scan"
                self.stdout.write(f"{level:12}{page:20}{look}")
        if redis:
            self.stdout.write("\nmanage.py in another terminal needs the same Redis:")
            self.stdout.write(f"export REDIS_URL={redis.url}")
        self.stdout.write("\nCtrl-C ends all of it.")

    def serve(self):
        """Replace this program with gunicorn. The private Redis goes on and is its own now."""
        sys.stdout.flush()
        command = ["-m", "gunicorn", "--chdir", BASE_DIR, "--config", BASE_DIR / "gunicorn.conf.py"]
        os.execv(sys.executable, [sys.executable, *map(str, command), "mysite.wsgi"])  # noqa: S606
