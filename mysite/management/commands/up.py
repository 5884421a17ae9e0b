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

from mysite import running
from mysite.checks import redis_problem, without_password
from mysite.private_redis import PrivateRedis, use_redis

BASE_DIR = Path(__file__).resolve().parents[3]

# One page per level, and the Redis database that has it.
PAGES = (
    ("whole site", "/", 1),
    ("per view", "/posts/<slug>/", 2),
    ("fragment", "/archive/", 3),
    ("low-level", "/search/?q=redis", 0),
)


def set_environment():
    """
    Set the variables that a server would set, unless the user did. Call it before the settings.

    SECRET_KEY is made once and stored beside the database, so a restart ends no session.
    Raises ImproperlyConfigured if it can't be stored.
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
        # Set the mode first: at no moment can other users read the key.
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
                f"Port {port} of {host} can't be used: {error.strerror}. Try --port {port + 1}."
            ) from None


class Command(BaseCommand):
    help = (
        "Migrate, seed and serve the blog with gunicorn, on a private Redis unless "
        "REDIS_URL is set. Ctrl-C ends all of it."
    )
    # The checks would ask for a Redis before there is one.
    requires_system_checks = []

    def add_arguments(self, parser):
        get = os.environ.get
        parser.add_argument("--port", default=get("PORT", "8000"), help="PORT or 8000")
        parser.add_argument("--workers", default=get("WEB_CONCURRENCY", "2"), help="processes: 2")
        parser.add_argument("--no-seed", action="store_true", help="leave the database empty")

    def handle(self, port, workers, no_seed, **options):
        """
        Prepare everything, then become gunicorn. Doesn't return.

        All of it happens in one process, so Ctrl-C or a signal ends everything at any moment.
        """
        port = number("--port or PORT", port, 65535)
        workers = number("--workers or WEB_CONCURRENCY", workers, 64)
        os.environ.update(PORT=str(port), WEB_CONCURRENCY=str(workers))
        site = f"http://127.0.0.1:{port}/"
        given = os.environ.get("REDIS_URL") or os.environ.get("REDIS_URL_FILE")
        redis = None if given else PrivateRedis(inheritable=True)
        self.claim(site, redis.url if redis else settings.REDIS_URL)
        check_port_is_free(os.environ.get("BIND", "127.0.0.1"), port)
        with redis or nullcontext():
            if redis:
                os.environ["REDIS_URL"] = redis.url
                use_redis(redis.url).enable()
            self.prepare(no_seed)
            self.tell(site, redis)
            self.serve()

    def claim(self, site, redis_url):
        """Tell other commands which Redis this blog uses. Raises CommandError if it runs."""
        database = settings.DATABASES["default"]["NAME"]
        try:
            running.claim(Path(database), site, redis_url)
        except running.AlreadyRunning as other:
            # With a second Redis, an edit through one of them would never reach the other.
            raise CommandError(
                f"This blog already runs at {other.blog or 'another port'}. Open it there, or end "
                "it with Ctrl-C in its terminal. A second blog needs a DATABASE_PATH of its own."
            ) from None
        except OSError as error:
            raise CommandError(f"{running.lock_file(database)}: {error.strerror}.") from None

    def prepare(self, no_seed):
        """Migrate and seed the database, and collect the static files."""
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
        self.stdout.write(f"Blog      {site}")
        self.stdout.write(f"Redis     {given} ({'private' if redis else 'from REDIS_URL'})")
        self.stdout.write(f"Database  {settings.DATABASES['default']['NAME']}")
        if not redis and (problem := redis_problem(settings.REDIS_URL)):
            self.stderr.write(f"Warning: {given} can't be used, nothing is cached: {problem}.")
        self.stdout.write(
            "\nThe keys of each level, once you have opened its page. In another terminal:"
        )
        for level, page, database in PAGES:
            self.stdout.write(f"{level:12}{page:20}python manage.py redis -n {database} --scan")
        self.stdout.write("\nCtrl-C ends all of it.")

    def serve(self):
        """Replace this program with gunicorn, which owns the private Redis from then on."""
        sys.stdout.flush()
        command = ["-m", "gunicorn", "--chdir", BASE_DIR, "--config", BASE_DIR / "gunicorn.conf.py"]
        os.execv(sys.executable, [sys.executable, *map(str, command), "mysite.wsgi"])  # noqa: S606
