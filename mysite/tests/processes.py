"""What the tests of real processes share."""

import os
import subprocess
import sys
import time
from pathlib import Path

from django.conf import settings

# A process under test gets none of these but what its test gives it. DATABASE_PATH stays:
# no test writes there, and it is the only place where a container has a database.
VARIABLES = {
    *("ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS", "DEBUG", "HTTPS", "SECRET_KEY", "TRUST_PROXY"),
    *("CACHE_WATCH", "LAB", "REDIS_URL", "STATIC_ROOT"),
    *("BIND", "PORT", "WEB_CONCURRENCY"),
}


def environment(**variables):
    """Return this process's environment with only these of the project's variables."""
    hidden = VARIABLES | {f"{name}_FILE" for name in VARIABLES}
    return {name: os.environ[name] for name in os.environ if name not in hidden} | variables


def run(*arguments, **variables):
    """Run Python with these arguments in the project. Returns it with its output, as text."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=settings.BASE_DIR,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
    )


def wait_until(condition, seconds=10):
    """Return whether `condition()` becomes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)  # Between two looks; nothing is timed by it.
    return True


def is_alive(pid):
    """Return whether the process runs. A zombie, which nobody has waited for, does not."""
    try:
        if Path("/proc/self/stat").exists():
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True
