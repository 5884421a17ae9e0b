"""Servers that tests start: nobody else gets their port, and nobody else's Redis is theirs."""

import socket
import struct
import sys
from contextlib import closing
from unittest import skipUnless

from django.test import SimpleTestCase

from mysite.processes import free_port, give_back
from mysite.tests.faults import RedisServer

IP_LOCAL_PORT_RANGE = 51  # See ip(7). Linux has it since 6.3.


class FreePortTests(SimpleTestCase):
    def setUp(self):
        self.port = free_port()
        self.addCleanup(give_back, self.port)

    def any_port(self):
        """Return a port as the kernel gives it to whoever asks for any, if only ours is left."""
        with closing(socket.socket()) as other:
            only = struct.pack("I", self.port | self.port << 16)
            try:
                other.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, only)
            except OSError:
                self.skipTest("this kernel can't narrow its choice")
            other.bind(("127.0.0.1", 0))
            return other.getsockname()[1]

    def test_nobody_listens_there(self):
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", self.port))

    def test_who_knows_its_number_may_listen_there(self):
        with (
            socket.create_server(("127.0.0.1", self.port)),
            socket.create_connection(("127.0.0.1", self.port)) as connection,
        ):
            self.assertEqual(connection.getpeername()[1], self.port)

    @skipUnless(sys.platform == "linux", "elsewhere no port can be held")
    def test_nobody_else_is_given_it_before_it_is_given_back(self):
        with self.assertRaises(OSError):
            self.any_port()

        give_back(self.port)

        self.assertEqual(self.any_port(), self.port)

    def test_it_is_never_the_same_in_one_process(self):
        ports = []
        for _ in range(1000):
            ports.append(free_port())
            give_back(ports[-1])

        self.assertEqual(len(set(ports)), 1000)


class RedisServerTests(SimpleTestCase):
    def test_another_server_at_its_port_is_not_taken_for_it(self):
        other = RedisServer().start()
        self.addCleanup(other.close)
        server = RedisServer()
        self.addCleanup(server.close)
        give_back(server.port)
        server.port = other.port

        with self.assertRaisesRegex(AssertionError, "ended"):
            server.start()
