"""What the parts measure with: a Redis, a seeded blog and applications, all of their own."""

import os
import secrets
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

from django.conf import settings
from django.test import override_settings

from lab.bench.inside import Contestant, ContestantError
from lab.bench.rounds import in_turns
from resilient_cache.tests.server import RedisServer

# Variables of the environment that would change what is measured.
HIDDEN = ("CACHE_PREFIX", "CSRF_TRUSTED_ORIGINS", "HTTPS", "PUBLIC_PORTS", "TRUST_PROXY")
COMMANDS = (
    ("migrate", "--verbosity=0"),
    ("seed", "--verbosity=0"),
    ("collectstatic", "--noinput", "--verbosity=0"),
)


@contextmanager
def bench(quick, tell):
    """
    Yield a Bench. All of it ends, and nothing is left, when the block ends.

    In the block this process uses the bench's Redis too, through the blog's own aliases
    without the instrument. `tell` takes a line about progress.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = start_redis(stack)
        moved = override_settings(DEBUG=False, REDIS_URL=redis.url, CACHES=caches_at(redis.url))
        stack.enter_context(moved)
        yield Bench(stack, folder, redis, quick, tell)


def start_redis(stack):
    """Return a RedisServer that ends with `stack`."""
    server = RedisServer("--maxmemory", "512mb", "--maxmemory-policy", "volatile-lru")
    stack.callback(server.close)
    return server.start()


def caches_at(url):
    """Return settings.CACHES at another Redis, without the instrument."""
    options = {
        alias: {k: v for k, v in cache["OPTIONS"].items() if k != "REDIS_CLIENT_CLASS"}
        for alias, cache in settings.CACHES.items()
    }
    return {
        alias: cache | {"LOCATION": url, "OPTIONS": options[alias]}
        for alias, cache in settings.CACHES.items()
    }


class Bench:
    """See bench(). With `quick` everything is shorter and smaller, and the figures are rough."""

    def __init__(self, stack, folder, redis, quick, tell):
        self.stack, self.folder, self.redis = stack, folder, redis
        self.quick, self.tell = quick, tell
        self.rounds = 4 if quick else 9

    def in_turns(self, contestants, what="", times=1):
        """Return in_turns() of the contestants, with as many rounds as there is time for."""
        return in_turns(contestants, times * self.rounds, lambda text: self.tell(what + text))

    @cached_property
    def environment(self):
        """What a process of the blog finds in its environment. Its database is seeded."""
        self.tell("seeding a blog")
        hidden = {f"{name}_FILE" for name in ("SECRET_KEY", "REDIS_URL", "DATABASE_PATH")}
        environment = {
            name: os.environ[name] for name in os.environ if name not in hidden.union(HIDDEN)
        } | {
            "ALLOWED_HOSTS": "127.0.0.1",
            "CACHE_WATCH": "0",
            "DATABASE_PATH": str(self.folder / "blog.sqlite3"),
            "DEBUG": "0",
            "DJANGO_SETTINGS_MODULE": "mysite.settings",
            "LAB": "0",
            "REDIS_URL": self.redis.url,
            "SECRET_KEY": secrets.token_hex(),
            "STATIC_ROOT": str(self.folder / "static"),
        }
        posts, comments = ("20", "200") if self.quick else ("200", "5000")
        for command in COMMANDS:
            if command[0] == "seed":
                command += (f"--posts={posts}", f"--comments={comments}")
            done = subprocess.run(
                [sys.executable, "manage.py", *command],
                cwd=settings.BASE_DIR,
                env=environment,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise ContestantError(f"manage.py {command[0]}: {done.stderr[-500:].strip()}")
        return environment

    def start(self, stack, application="mysite.wsgi:application", **variables):
        """Return a Contestant that ends with `stack`. The blog by default."""
        environment = self.environment | variables
        return stack.enter_context(Contestant(application, settings.BASE_DIR, environment))
