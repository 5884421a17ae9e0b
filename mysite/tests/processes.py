"""What the tests of real processes share."""

import os
import subprocess
import sys
from pathlib import Path

from django.conf import settings

from mysite.processes import environment, wait_until

__all__ = ["environment", "is_alive", "run", "wait_until"]


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


def is_alive(pid):
    """Return whether the process runs. A zombie, which nobody has waited for, does not."""
    try:
        if Path("/proc/self/stat").exists():
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True
