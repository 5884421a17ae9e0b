"""The test runner: starts a Redis server, and moves the caches there."""

from django.test import override_settings
from django.test.runner import DiscoverRunner

from watch.tests.server import RedisServer
from watch.tests.settings import caches_at


class Runner(DiscoverRunner):
    """TEST_RUNNER of this package's tests."""

    def setup_test_environment(self, **kwargs):
        super().setup_test_environment(**kwargs)
        self.server = RedisServer()
        self.moved = override_settings(CACHES=caches_at(self.server.url))
        self.moved.enable()

    def teardown_test_environment(self, **kwargs):
        self.moved.disable()
        self.server.stop()
        super().teardown_test_environment(**kwargs)
