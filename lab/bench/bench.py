"""What the parts measure with: a Redis, a seeded blog, gunicorns and a load client, all private."""

import tempfile
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

from django.test import override_settings

from lab.bench.client import Load
from lab.bench.rounds import cpu_seconds, in_turns
from mysite.caches import redis_caches
from mysite.private_redis import PrivateRedis
from mysite.processes import PROJECT, Gunicorn, Home

WORKERS = 2
CLIENTS = 8
CONFIG = PROJECT / "gunicorn.conf.py"


@contextmanager
def bench(quick, tell):
    """
    Yield a Bench. All of it ends and nothing is left when the block does.

    In the block this process too uses the private Redis, by the blog's own aliases without
    the instrument. `tell` takes a line about progress.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(PrivateRedis())
        stack.enter_context(
            override_settings(
                DEBUG=False,
                REDIS_URL=redis.url,
                CACHES=redis_caches(redis.url),
                INVALIDATION_JOURNAL=folder / "journal",
            )
        )
        yield Bench(stack, folder, redis, stack.enter_context(Load()), quick, tell)


class Bench:
    """See bench(). With `quick` everything is shorter and smaller, and the figures are rough."""

    def __init__(self, stack, folder, redis, load, quick, tell):
        self.stack, self.folder, self.redis, self.load = stack, folder, redis, load
        self.quick, self.tell = quick, tell
        self.rounds = 2 if quick else 15

    def in_turns(self, contestants, what="", rounds=None):
        """Return in_turns() of the contestants, with as many rounds as there is time for."""
        return in_turns(contestants, rounds or self.rounds, lambda text: self.tell(what + text))

    @cached_property
    def home(self):
        """The blog's database and static files."""
        self.tell("seeding a blog")
        return self.stack.enter_context(Home(*((20, 200) if self.quick else (200, 5000))))

    def serve(self, stack, redis=None, workers=WORKERS, app=None, config=CONFIG, **variables):
        """Return a Server that ends with `stack`. The blog without the instrument by default."""
        arguments = ["--config", config, *([app] if app else [])]
        url = (redis or self.redis).url
        variables = {"CACHE_WATCH": "0"} | variables
        gunicorn = Gunicorn(self.home, url, workers=workers, arguments=arguments, **variables)
        return Server(self.load, stack.enter_context(gunicorn))


class Server:
    """A gunicorn under load."""

    def __init__(self, load, gunicorn):
        self.load, self.port = load, gunicorn.port
        self.workers = gunicorn.workers()

    def ask(self, path, requests=1):
        """Ask `requests` times on one connection. Return what the client saw and `cpu` in ms."""
        return self._measured(path, requests=requests)

    def under_load(self, path, seconds, clients=CLIENTS):
        """Let `clients` ask for `seconds`. Return what they saw, `cpu` and `rate` a second."""
        return self._measured(path, seconds=seconds, clients=clients)

    def _measured(self, path, **order):
        before = cpu_seconds(self.workers)
        seen = self.load(self.port, path, **order)
        after = cpu_seconds(self.workers)
        cpu = None if after is None else 1000 * (after - before) / seen["requests"]
        return seen | {"cpu": cpu, "rate": seen["requests"] / seen["seconds"]}
