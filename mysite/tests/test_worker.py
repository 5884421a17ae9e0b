"""gunicorn's worker: connections that send nothing, or half of a request, stop no reader."""

import socket

from django.conf import settings
from django.test import SimpleTestCase, tag

from mysite.tests.served import Gunicorn, Home

HEAD = "GET {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n"
FORM = (
    "POST /posts/the-whole-site/comment/ HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n"
    "Content-Type: application/x-www-form-urlencoded\r\n"
)


@tag("slow")
class WorkerTestCase(SimpleTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        home = cls.enterClassContext(Home())
        cls.gunicorn = cls.enterClassContext(Gunicorn(home, settings.REDIS_URL, workers=1))

    def connect(self, *pieces):
        """Open a connection, send each text by itself, and return the connection."""
        address = "127.0.0.1", self.gunicorn.port
        connection = self.enterContext(socket.create_connection(address, 60))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece.encode())
        return connection

    def browser(self):
        browser = self.gunicorn.browser()
        self.addCleanup(browser.close)
        return browser

    def head(self, path):
        return HEAD.format(path, self.gunicorn.port)

    def form(self, *headers):
        return FORM.format(self.gunicorn.port) + "".join(f"{each}\r\n" for each in headers) + "\r\n"

    def status(self, connection):
        """Return the status of the next answer, and read all of it."""
        reader = connection.makefile("rb")
        status = int(reader.readline().split()[1])
        length = 0
        while line := reader.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        reader.read(length)
        return status


class StalledTests(WorkerTestCase):
    def is_open(self, connection):
        """Return whether the server still waits on this connection: neither data nor its end."""
        connection.setblocking(False)
        try:
            connection.recv(1)
        except BlockingIOError:
            return True
        finally:
            connection.settimeout(60)
        return False

    def test_200_silent_and_200_half_sent_connections_stop_no_reader(self):
        halves = (self.head("/"), self.form("Content-Length: 100") + "author=")
        stalled = [self.connect() for _ in range(200)]
        stalled += [self.connect(halves[number % 2]) for number in range(200)]
        browser = self.browser()

        answers = [browser.get(path) for path in ("/about/", "/about/", "/healthz", "/archive/")]

        self.assertEqual([answer.status for answer in answers], [200] * 4)
        # They were answered before the server gave up waiting for the others.
        self.assertTrue(all(map(self.is_open, stalled)))

    def test_200_long_requests_that_stop_halfway_stop_no_reader(self):
        # Without a CSRF cookie, Django answers 403 and does not wait for the body.
        form = self.form("Content-Length: 1000000", f"Cookie: csrftoken={'x' * 32}")
        long = form, "author=" + "x" * 70_000
        stalled = [self.connect(*long) for _ in range(200)]
        browser = self.browser()

        answers = [browser.get(path) for path in ("/about/", "/about/", "/healthz")]

        self.assertEqual([answer.status for answer in answers], [200] * 3)
        # They were answered before the server gave up waiting for the others.
        self.assertTrue(all(map(self.is_open, stalled)))

    def test_200_clients_that_do_not_close_their_end_stop_no_reader(self):
        # The server closes each after 2 seconds. One after the other that would be 400.
        for _ in range(200):
            self.connect(self.head("/healthz"), "Connection: close\r\n\r\n")
        browser = self.browser()

        answers = [browser.get(path) for path in ("/about/", "/about/", "/healthz")]

        self.assertEqual([answer.status for answer in answers], [200] * 3)

    def test_a_connection_that_goes_on_is_answered_as_any_other(self):
        connection = self.connect(self.head("/about/"))
        self.browser().get("/healthz")

        connection.sendall(b"\r\n")

        self.assertEqual(self.status(connection), 200)

    def test_a_connection_that_does_not_go_on_is_closed(self):
        for stalled in (self.connect(), self.connect(self.head("/"))):
            self.assertEqual(stalled.recv(1), b"")
        self.assertNotIn("Traceback", self.gunicorn.lines())

    def test_a_connection_that_ends_early_leaves_no_trace_in_the_log(self):
        for pieces in ((), (self.head("/"),), (self.form("Content-Length: 100"), "author=")):
            self.connect(*pieces).close()

        self.assertEqual(self.browser().get("/healthz").status, 200)
        self.assertNotIn("Traceback", self.gunicorn.lines())


class RequestTests(WorkerTestCase):
    """What a client may do with HTTP/1.1 works as before."""

    def test_two_requests_sent_at_once_are_both_answered(self):
        connection = self.connect((self.head("/about/") + "\r\n") * 2)

        with connection.makefile("rb") as reader:
            answers = [reader.readline()]
            while answers.count(b"HTTP/1.1 200 OK\r\n") < 2:
                line = reader.readline()
                self.assertTrue(line)
                answers.append(b"HTTP/1.1 200 OK\r\n" if b"HTTP/1.1 200" in line else line)

    def test_one_connection_takes_one_request_after_the_other(self):
        connection = self.connect()
        for path in ("/about/", "/healthz"):
            connection.sendall((self.head(path) + "\r\n").encode())
            self.assertEqual(self.status(connection), 200)

    def test_a_request_byte_by_byte_is_answered(self):
        self.assertEqual(self.status(self.connect(*self.head("/about/"), "\r\n")), 200)

    def test_a_body_in_pieces_is_read_to_its_end(self):
        connection = self.connect(self.form("Content-Length: 8"), "author", "=x")

        # Without its cookie, the form is refused by Django, who has read all of it.
        self.assertEqual(self.status(connection), 403)

    def test_a_chunked_body_is_read_to_its_end(self):
        form = self.form("Transfer-Encoding: chunked")

        self.assertEqual(self.status(self.connect(form, "8\r\nauthor=x\r\n", "0\r\n\r\n")), 403)

    def test_a_client_that_waits_to_be_told_to_continue_is_told(self):
        connection = self.connect(self.form("Content-Length: 8", "Expect: 100-continue"))

        self.assertEqual(self.status(connection), 100)
        connection.sendall(b"author=x")
        statuses = [self.status(connection)]
        if statuses == [100]:  # gunicorn says it once more.
            statuses.append(self.status(connection))
        self.assertEqual(statuses[-1], 403)

    def test_a_body_of_200_kb_is_read_to_its_end(self):
        body = "author=" + "x" * 200_000
        connection = self.connect(self.form(f"Content-Length: {len(body)}"), body)

        self.assertEqual(self.status(connection), 403)

    def test_a_request_that_makes_no_sense_is_refused(self):
        for text in ("nonsense\r\n\r\n", self.form("Content-Length: -1")):
            with self.subTest(text):
                self.assertEqual(self.status(self.connect(text)), 400)
