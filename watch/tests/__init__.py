"""
The tests of the instrument, with settings, a Redis server and a small site of their own.

    python -m django test watch.tests --settings watch.tests.settings
"""

import os
import unittest
from pathlib import Path


def load_tests(loader, tests, pattern):
    """Run nothing under the settings of another project: these tests have their own command."""
    if os.environ.get("DJANGO_SETTINGS_MODULE") != "watch.tests.settings":
        return unittest.TestSuite()
    folder = Path(__file__).parent
    return loader.discover(folder, pattern or "test*.py", folder.parents[1])
