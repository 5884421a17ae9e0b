"""
The test runner: a real Redis made for the run, as Django makes a test database.

Docs: https://docs.djangoproject.com/en/5.2/topics/testing/advanced/#defining-a-test-runner
"""

import re
import warnings
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.test.runner import DiscoverRunner, ParallelTestSuite

from mysite.private_redis import PrivateRedis, use_redis

# Seconds that Redis may take in tests. A machine that pauses is no outage.
PATIENCE = 10
# The same in a test that waits until they are over, because its Redis hangs.
TEST_TIMEOUT = 2
worker_redis = None  # The Redis of this worker process, with --parallel.


def set_up_warnings():
    """Turn the deprecation warnings that this project's own apps cause into errors."""
    own = [app.name for app in apps.get_app_configs() if Path(app.path).parent == settings.BASE_DIR]
    modules = rf"({'|'.join(map(re.escape, own))})(\.|$)"
    for category in (DeprecationWarning, PendingDeprecationWarning):
        warnings.filterwarnings("error", category=category, module=modules)


def timeouts(seconds):
    """Return the OPTIONS of a cache whose Redis may take so many seconds, as may connecting."""
    names = "socket_timeout", "socket_connect_timeout"
    return {"CONNECTION_POOL_KWARGS": dict.fromkeys(names, seconds)}


def use_redis_within(seconds, url):
    """Return a context manager in which the caches are at `url`, which may take so long."""
    moved = use_redis(url)
    for cache in moved.options["CACHES"].values():
        cache["OPTIONS"] = cache["OPTIONS"] | timeouts(seconds)
    return moved


def move_to(redis):
    """Return a context manager in which the caches use `redis` and keep their journal there."""
    moved = use_redis_within(PATIENCE, redis.url)
    moved.options["INVALIDATION_JOURNAL"] = Path(redis.socket).with_name("journal")
    return moved


def init_worker(*args, **kwargs):
    """Do what Django does at the start of a worker, and give it a Redis of its own."""
    global worker_redis
    ParallelTestSuite.init_worker(*args, **kwargs)
    set_up_warnings()
    worker_redis = PrivateRedis().start()  # Nobody stops it: it ends with this process.
    move_to(worker_redis).enable()


class PrivateRedisSuite(ParallelTestSuite):
    """Tests shared out to processes that share neither a database nor a Redis."""

    init_worker = init_worker


class PrivateRedisRunner(DiscoverRunner):
    """
    TEST_RUNNER: starts a private Redis before the tests and ends it after them.

    REDIS_URL may name any Redis; the tests never see it.
    """

    parallel_test_suite = PrivateRedisSuite

    def setup_test_environment(self, **kwargs):
        super().setup_test_environment(**kwargs)
        set_up_warnings()
        self.redis = PrivateRedis().start()
        self.redis_settings = move_to(self.redis)
        self.redis_settings.enable()

    def teardown_test_environment(self, **kwargs):
        self.redis_settings.disable()
        self.redis.stop()
        super().teardown_test_environment(**kwargs)
