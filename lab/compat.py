"""Every undocumented name of redis-py that the lab needs, with its reason."""

# Wire measures both parsers, so it needs them by name: redis-py documents only the one that it
# takes by default. If a name changes, this import fails and so does every test of the lab.
from redis._parsers import _HiredisParser as HiredisParser
from redis._parsers import _RESP2Parser as PythonParser

__all__ = ["HiredisParser", "PythonParser", "tapped"]


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
