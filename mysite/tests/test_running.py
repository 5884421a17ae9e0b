"""Which `manage.py up` runs: a lock beside the database says so."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import TestCase

from django.conf import settings
from django.test import tag

from mysite.running import AlreadyRunning, claim, lock_file, running, running_url
from mysite.tests.processes import environment, wait_until

BLOG, REDIS = "http://127.0.0.1:8000/", "unix:///tmp/redis.sock"

# Claims the database at sys.argv[1] and becomes another program, as `up` does.
OWNER = f"""
import os, sys
from pathlib import Path
from mysite.running import claim
claim(Path(sys.argv[1]), {BLOG!r}, {REDIS!r})
print("claimed", flush=True)
os.execlp("cat", "cat")
"""


@tag("slow")
class RunningTests(TestCase):
    def setUp(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.database = Path(folder, "blog.sqlite3")

    def start(self):
        """Start a process that claims the database, and return it."""
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, self.database],
            cwd=settings.BASE_DIR,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.enterContext(owner)
        self.addCleanup(owner.kill)
        self.assertEqual(owner.stdout.readline(), "claimed\n")
        return owner

    def test_before_the_first_there_is_none(self):
        self.assertIsNone(running_url(self.database))

    def test_others_find_its_redis(self):
        self.start()

        self.assertEqual(running(self.database), {"blog": BLOG, "redis": REDIS})
        self.assertEqual(running_url(self.database), REDIS)

    def test_another_database_is_another_blog(self):
        self.start()

        self.assertIsNone(running_url(self.database.with_name("other.sqlite3")))

    def test_a_second_one_is_refused_and_told_where_the_first_is(self):
        self.start()

        with self.assertRaises(AlreadyRunning) as refused:
            claim(self.database, "http://127.0.0.1:8100/", "unix:///other")

        self.assertEqual((refused.exception.blog, refused.exception.redis), (BLOG, REDIS))
        self.assertEqual(running_url(self.database), REDIS)

    def test_it_ends_with_its_process_also_by_kill_9(self):
        for end in ("terminate", "kill"):
            with self.subTest(end):
                owner = self.start()

                getattr(owner, end)()

                self.assertTrue(wait_until(lambda: running_url(self.database) is None))

    def test_only_this_user_can_read_it(self):
        self.start()

        self.assertEqual(lock_file(self.database).stat().st_mode & 0o077, 0)

    def test_a_file_that_makes_no_sense_is_none(self):
        owner = self.start()
        for text in ("", "{", "[]", '{"blog": 1}'):
            with self.subTest(text):
                lock_file(self.database).write_text(text)

                self.assertIsNone(running_url(self.database))
        owner.kill()

    def test_many_who_look_do_not_keep_it_from_starting(self):
        look = "import sys; from pathlib import Path; from mysite.running import running\n"
        look += "for _ in range(20000): running(Path(sys.argv[1]))"
        command = [sys.executable, "-c", look, self.database]
        lock_file(self.database).touch()
        for _ in range(2):
            self.enterContext(subprocess.Popen(command, cwd=settings.BASE_DIR, env=os.environ))

        self.start()
