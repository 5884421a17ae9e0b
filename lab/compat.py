"""Every undocumented name of redis-py that the lab needs, with its reason."""

from importlib.util import find_spec

# Wire and the bench measure both parsers, so they need them by name: redis-py documents only the
# one that it takes by default. If a name changes, this import fails and so does every test of the
# lab.
from redis._parsers import _HiredisParser as HiredisParser
from redis._parsers import _RESP2Parser as PythonParser

__all__ = ["HiredisParser", "PythonParser", "has_hiredis", "tapped"]


def has_hiredis():
    """Return whether hiredis is installed. Without it, HiredisParser can't read."""
    return find_spec("hiredis") is not None


def tapped(connection_class, tap):
    """
    Return a subclass whose sockets are wrapped: `tap(socket)` is put in their place.

    `_connect` is the method that each of redis-py's connection classes has to define: TCP, TLS
    and Unix socket. It returns the socket. If redis-py renames it, Wire shows no bytes.
    """

    class Tapped(connection_class):
        def _connect(self):
            self.tap = tap(super()._connect())
            return self.tap

    return Tapped
