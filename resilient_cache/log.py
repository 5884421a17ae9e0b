"""
The logger of this package, which writes few lines however often something fails.

A page may talk to Redis twenty times. If each failed call wrote a line, an outage would
write thousands of lines per second.
"""

import logging
import time
from collections.abc import Hashable

logger = logging.getLogger("resilient_cache")

# Kinds of warnings that are remembered. Part of a kind may come from a server, so the number
# is limited.
MOST_KINDS = 100


class Quiet:
    """
    Writes at most one warning every `seconds` for each kind, and counts the others.

    Safe to use from any thread and after a fork, because it takes no lock. Two threads at the
    same moment may both write their line.
    """

    def __init__(self, seconds: float = 1) -> None:
        self.seconds = seconds
        self._written: dict[Hashable, float] = {}  # Kind: when, by time.monotonic().
        self._left_out: dict[Hashable, int] = {}

    def warning(
        self, message: str, *args: object, kind: Hashable = None, always: bool = False
    ) -> bool:
        """
        Write the warning `message % args`, or count it. Return whether it was written.

        Warnings of different kinds don't hold each other back. With `always`, this one is
        written in any case.
        """
        now = time.monotonic()
        written = self._written.get(kind)
        if written is not None and now < written + self.seconds and not always:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return False
        if kind not in self._written and len(self._written) >= MOST_KINDS:
            self._written.clear()
            self._left_out.clear()
        self._written[kind] = now
        if left_out := self._left_out.pop(kind, 0):
            message += f" ({left_out} more since the last such line)"
        logger.warning(message, *args)
        return True


_hidden = Quiet(60)


def hidden_error(where: str, error: BaseException, message: str) -> None:
    """
    Write one warning per minute and kind about an error that the cache hides from its caller.

    `where` names the server, `message` what it answered. A kind is the server, the class of
    the error and the first word of the message.
    """
    name = type(error).__name__
    kind = where, name, message.split(" ", 1)[0]
    _hidden.warning("Redis at %s refuses a command (%s: %s)", where, name, message, kind=kind)
