"""Not found by discovery: what test_testing runs in worker processes."""

import os
import sys

from django.conf import settings
from django.core.cache import caches
from django.test import SimpleTestCase


class FirstTests(SimpleTestCase):
    def test_no_other_process_writes_to_these_caches(self):
        own = f"{os.getpid()} of {os.getppid()}"
        for alias in settings.CACHES:
            caches[alias].add("whose", own)
            self.assertEqual(caches[alias].get("whose"), own)
        sys.stdout.write(f"{own}: {settings.REDIS_URL}\n")


class SecondTests(FirstTests):
    pass
