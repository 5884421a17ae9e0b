"""The test runner: a Redis server for each test process, as Django makes a test database."""

from typing import Any

from django.test import override_settings
from django.test.runner import DiscoverRunner, ParallelTestSuite

from resilient_cache.tests.server import RedisServer, caches_at

ARGUMENTS = ("--maxmemory", "64mb", "--maxmemory-policy", "volatile-lru")

server: RedisServer | None = None  # This process's own. Tests may send it commands.


def start_server() -> override_settings:
    """Start this process's server and move the caches there. Return the changed settings."""
    global server
    server = RedisServer(*ARGUMENTS).start()
    moved = override_settings(CACHES=caches_at(server.url))
    moved.enable()
    return moved


def init_worker(*args: Any, **kwargs: Any) -> None:
    """Start a worker of `--parallel` as Django does, with a server of its own."""
    ParallelTestSuite.init_worker(*args, **kwargs)
    start_server()


class Suite(ParallelTestSuite):
    """Tests in processes that share neither a database nor a Redis server."""

    init_worker = init_worker


class Runner(DiscoverRunner):
    """TEST_RUNNER of the package's tests."""

    parallel_test_suite = Suite

    def setup_test_environment(self, **kwargs: Any) -> None:
        super().setup_test_environment(**kwargs)
        self.moved = start_server()

    def teardown_test_environment(self, **kwargs: Any) -> None:
        self.moved.disable()
        server.close()
        super().teardown_test_environment(**kwargs)
