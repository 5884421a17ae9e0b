"""
Which `manage.py up` runs for a database, so that every other command finds its Redis.

`up` locks a file beside the database and writes its addresses there. gunicorn inherits the
lock, and the kernel releases it when the last of its processes ends, however that happens.
"""

import json
import os
import time
from contextlib import closing

try:
    import fcntl
except ImportError:  # Windows, where gunicorn does not run, either.
    fcntl = None


class AlreadyRunning(Exception):
    """Another `up` runs for this database. Has its addresses as `blog` and `redis`."""

    def __init__(self, blog="", redis=""):
        self.blog, self.redis = blog, redis
        super().__init__(blog)


def lock_file(database):
    """Return the path of the file that `up` locks for this database file, a Path."""
    return database.with_name(f"{database.name}-up")


def claim(database, blog, redis):
    """
    Lock `database` for this process and the program that it becomes by exec.

    `blog` and `redis` are the URLs that others shall find. Raises AlreadyRunning, or OSError
    if the file can't be written.
    """
    # Only this user: `redis` may have a password.
    file = os.open(lock_file(database), os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + 1
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            # Those who look hold the lock, too, for a moment.
            if time.monotonic() > deadline:
                os.close(file)
                raise AlreadyRunning(**(running(database) or {})) from None
            time.sleep(0.05)
    os.set_inheritable(file, True)
    os.ftruncate(file, 0)
    os.write(file, json.dumps({"blog": blog, "redis": redis}).encode())


def running(database):
    """Return {"blog": URL, "redis": URL} of the `up` that runs for this file, or None."""
    try:
        with closing(lock_file(database).open()) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found = json.load(file)
                return {name: found[name] for name in ("blog", "redis")}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        pass  # It has never run, its file is another user's, or it is just starting.
    return None


def running_url(database):
    """Return the URL of the Redis that the `up` for this database file uses, or None."""
    found = running(database)
    return found and found["redis"]
