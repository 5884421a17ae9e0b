"""
The tests of the instrument, with settings, a Redis server and a small site of their own.

    python -m django test watch.tests --settings watch.tests.settings
"""

import unittest
from pathlib import Path

from django import conf


def load_tests(loader, tests, pattern):
    """Run nothing under the settings of another project: these tests have their own command."""
    if conf.settings.SETTINGS_MODULE != "watch.tests.settings":
        return unittest.TestSuite()
    folder = Path(__file__).parent
    return loader.discover(folder, pattern or "test*.py", folder.parents[1])
