"""
The test runner: a real Redis made for the run, as Django makes a test database.

Docs: https://docs.djangoproject.com/en/5.2/topics/testing/advanced/#defining-a-test-runner
"""

import re
import traceback
import warnings
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.test.runner import (
    DiscoverRunner,
    ParallelTestSuite,
    RemoteTestResult,
    RemoteTestRunner,
)

from mysite.private_redis import PrivateRedis, use_redis

# What `manage.py test` leaves out unless it is asked for: --all, --tag, or a label.
LEFT_OUT = {
    "browser": "pages in Chromium",
    "outage": "a Redis that hangs, stops or is full",
    "slow": "long runs",
}
PATIENCE = 10  # Seconds that Redis may take in tests. A busy machine is no outage.
TEST_TIMEOUT = 2  # The same in a test whose Redis hangs, so that it has to wait for them.
APPS = ["blog", "lab", "mysite"]  # The packages have tests of their own: see CONTRIBUTING.md.
worker_redis = None  # With --parallel, the Redis of this worker process.


def set_up_warnings():
    """Turn warnings that this project's own code causes into errors."""
    own = [app.name for app in apps.get_app_configs() if Path(app.path).parent == settings.BASE_DIR]
    modules = rf"({'|'.join(map(re.escape, own))})(\.|$)"
    warnings.filterwarnings("error", module=modules)


def use_redis_within(seconds, url):
    """Return a context manager in which the caches are at `url`, with `seconds` to answer."""
    moved = use_redis(url, socket_timeout=seconds, socket_connect_timeout=seconds)
    # With DEBUG=0, keys of pages have a hash of the static files. Tests name whole keys.
    moved.options["CACHE_MIDDLEWARE_KEY_PREFIX"] = ""
    return moved


def init_worker(*args, **kwargs):
    """Do what Django does at the start of a worker, and give the worker a Redis of its own."""
    global worker_redis
    ParallelTestSuite.init_worker(*args, **kwargs)
    set_up_warnings()
    worker_redis = PrivateRedis().start()  # It ends with this process.
    use_redis_within(PATIENCE, worker_redis.url).enable()


class FailureInWorker(AssertionError):
    """A test failed in a worker process. The message is the traceback."""


class ErrorInWorker(Exception):
    """A test raised an error in a worker process. The message is the traceback."""


def as_text(error):
    """Return sys.exc_info() `error` as one whose message is the traceback."""
    kind, exception, frames = error
    while frames and "__unittest" in frames.tb_frame.f_globals:  # As unittest leaves them out.
        frames = frames.tb_next
    text = "\n" + "".join(traceback.format_exception(kind, exception, frames))
    new_kind = FailureInWorker if issubclass(kind, AssertionError) else ErrorInWorker
    return new_kind, new_kind(text), None


class SubTestAsText:
    """What a report says of a subtest, without its parameters."""

    failureException = AssertionError

    def __init__(self, subtest):
        self.name, self.text = subtest.id(), str(subtest)
        self.description = subtest.shortDescription()

    def __str__(self):
        return self.text

    def id(self):
        return self.name

    def shortDescription(self):
        return self.description


class ResultAsText(RemoteTestResult):
    """
    What a worker tells of its tests.

    Django sends exceptions and subtests themselves. One that can't be pickled ends the whole
    run. Without tblib, no traceback can.
    """

    def addError(self, test, err):
        super().addError(test, as_text(err))

    def addFailure(self, test, err):
        super().addFailure(test, as_text(err))

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, as_text(err))

    def addSubTest(self, test, subtest, err):
        if err is not None:
            subtest, err = SubTestAsText(subtest), as_text(err)
        super().addSubTest(test, subtest, err)


class WorkerRunner(RemoteTestRunner):
    resultclass = ResultAsText


class PrivateRedisSuite(ParallelTestSuite):
    """Tests in several processes. Each has its own database and its own Redis."""

    init_worker = init_worker
    runner_class = WorkerRunner


class PrivateRedisRunner(DiscoverRunner):
    """
    TEST_RUNNER: starts a private Redis before the tests and ends it after them.

    The tests never touch the Redis at REDIS_URL.
    """

    parallel_test_suite = PrivateRedisSuite

    def __init__(self, *args, all=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.all = all
        self.left_out = 0

    @classmethod
    def add_arguments(cls, parser):
        super().add_arguments(parser)
        parser.add_argument("--all", action="store_true", help="also what takes minutes")

    def build_suite(self, test_labels=None, **kwargs):
        """Find the tests. Without a label, a tag or --all, those in LEFT_OUT stay out."""
        test_labels = test_labels or APPS
        if self.all or self.tags or test_labels is not APPS:
            return super().build_suite(test_labels, **kwargs)
        everything = super().build_suite(test_labels, **kwargs).countTestCases()
        self.exclude_tags = self.exclude_tags | set(LEFT_OUT)
        suite = super().build_suite(test_labels, **kwargs)
        self.left_out = everything - suite.countTestCases()
        return suite

    def suite_result(self, suite, result, **kwargs):
        """Say at the end what was left out, and how to run it."""
        if self.left_out:
            kinds = ", ".join(f"{what} (--tag {tag})" for tag, what in LEFT_OUT.items())
            self.log(f"{self.left_out} tests were left out: {kinds}.")
            self.log("They need minutes: python manage.py test --all --parallel")
        return super().suite_result(suite, result, **kwargs)

    def setup_test_environment(self, **kwargs):
        super().setup_test_environment(**kwargs)
        set_up_warnings()
        self.redis = PrivateRedis().start()
        self.moved = use_redis_within(PATIENCE, self.redis.url)
        self.moved.enable()

    def teardown_test_environment(self, **kwargs):
        self.moved.disable()
        self.redis.stop()
        super().teardown_test_environment(**kwargs)
