"""
The logger of the caches, which never floods.

A page over all four levels talks to Redis twenty times, so a fault that is logged where
it happens writes thousands of lines a second.
"""

import logging
import threading
import time

logger = logging.getLogger("mysite.caches")


class Quiet:
    """Writes at most one warning every `seconds`, and says how many it left out."""

    def __init__(self, seconds=1):
        self.seconds = seconds
        self._lock = threading.Lock()
        self._next = 0
        self._left_out = 0

    def warning(self, message, *args, always=False):
        """Log the warning, or count it. Return whether it was logged."""
        with self._lock:
            now = time.monotonic()
            if now < self._next and not always:
                self._left_out += 1
                return False
            self._next = now + self.seconds
            left_out, self._left_out = self._left_out, 0
        if left_out:
            message += f" ({left_out} more since the last such line)"
        logger.warning(message, *args)
        return True
