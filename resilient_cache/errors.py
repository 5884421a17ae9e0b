"""Which errors mean that a Redis server can't be used."""

from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    InvalidResponse,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
)

from resilient_cache.compat import server_message

# Errors that mean "not this server". AskError includes MOVED, ClusterDownError includes
# MASTERDOWN. OSError is what a socket raises while it connects.
OUTAGES = (
    ConnectionError,
    TimeoutError,
    OSError,
    InvalidResponse,
    ReadOnlyError,
    ClusterDownError,
    AskError,
)
# The same for errors without a class in redis-py. A server that can't save to its disk, or has
# too few replicas, takes no writes at all. A server that is BUSY runs a script for too long.
OUTAGE_CODES = {"MISCONF", "NOREPLICAS", "BUSY"}


class BreakerOpen(ConnectionError):
    """Redis was not asked, because it failed a moment ago."""


def is_outage(error: object) -> bool:
    """
    Return whether `error` means that this server can't be used.

    A server that refuses all writes is one: no value on it could be invalidated, so no
    value may be read from it. A new connection may reach another server, as after a failover.
    """
    if isinstance(error, OUTAGES):
        return True
    return isinstance(error, ResponseError) and (
        server_message(error).split(" ", 1)[0] in OUTAGE_CODES
    )
