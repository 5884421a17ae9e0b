"""gunicorn's gthread worker, which gives a thread to a request only when the request is there."""

import re
import selectors
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import BoundedSemaphore

from gunicorn.http import get_parser
from gunicorn.workers.gthread import ThreadWorker

# Seconds for a client to send its request. Then its connection is closed.
PATIENCE = 10

# Bytes that the worker collects for one connection. Comments and search terms are much shorter.
ENOUGH = 64 * 1024

# Threads for longer requests, which wait there for the rest. They have a pool of their own, so
# clients that never send the rest can't take the threads of all others.
LONG_REQUESTS = 8

# Threads that close connections. Each waits up to 2 seconds for the client to close its end,
# which gunicorn itself does in the main loop, while no other request is answered.
CLOSING = 32

# Connections that may be closed in that way at a time. Each is an open file. More than these are
# closed at once.
LINGERING = 256

LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r]*chunked", re.IGNORECASE)
EXPECT = re.compile(rb"\r\nexpect:[ \t]*100-continue", re.IGNORECASE)


class PatientWorker(ThreadWorker):
    """
    Collects requests in the main loop, which waits for all connections at once.

    In gunicorn's own worker, a connection that sends nothing holds a thread for 5 seconds, and
    one that sends half a request holds it until the client goes on. As many of them as there
    are threads stop the blog, and browsers open connections in advance.

    It uses gunicorn's internals, so test_worker.py has to pass with each new gunicorn.
    """

    def init_process(self):
        """Start to serve. Returns when the worker ends."""
        self.long_requests = ThreadPoolExecutor(max_workers=LONG_REQUESTS)
        self.closing = ThreadPoolExecutor(max_workers=CLOSING)
        self.may_linger = BoundedSemaphore(LINGERING)
        super().init_process()

    def close(self, close, graceful=False):
        """Close a connection without making the main loop wait."""
        if not (graceful and self.may_linger.acquire(blocking=False)):
            close()
            return
        done = self.closing.submit(close, graceful=True)
        done.add_done_callback(lambda done: self.may_linger.release())

    def enqueue_req(self, conn):
        """Give the connection a thread as soon as its next request has arrived."""
        if self.cfg.is_ssl:
            return super().enqueue_req(conn)
        if conn.parser is None:
            conn.parser = get_parser(self.cfg, conn.sock, conn.client)
            conn.close = partial(self.close, conn.close)
        conn.received = conn.parser.unreader.take_buffered()  # Of a pipelined request.
        conn.was_told_to_continue = False
        conn.sock.setblocking(False)
        if not self.collect(conn):
            # gunicorn closes each connection in this queue whose time is over.
            conn.timeout = time.monotonic() + PATIENCE
            self.pending_conns.append(conn)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.go_on, conn))
        return None

    def go_on(self, conn, sock):
        """Collect what has arrived on a connection that waits."""
        self.poller.unregister(sock)
        if self.collect(conn):
            self.pending_conns.remove(conn)
        else:
            self.poller.register(sock, selectors.EVENT_READ, partial(self.go_on, conn))

    def collect(self, conn):
        """Read what is there. Return whether this ended: a thread goes on, or it failed."""
        try:
            while not (whole := is_whole(conn)) and len(conn.received) < ENOUGH:
                if not (piece := conn.sock.recv(ENOUGH)):
                    raise ConnectionResetError
                conn.received += piece
        except BlockingIOError:
            return False
        except OSError:
            self.nr_conns -= 1
            conn.close()
            return True
        conn.parser.unreader.unread(conn.received)
        conn.data_ready = True
        pool = self.tpool if whole else self.long_requests
        done = pool.submit(self.handle, conn)
        done.add_done_callback(partial(self.method_queue.defer, self.finish_request, conn))
        return True


def is_whole(conn):
    """Return whether all of a request has arrived. Raises OSError."""
    received = conn.received
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return False
    head, body = received[: end + 2], len(received) - end - 4
    if CHUNKED.search(head):
        whole = received.endswith(b"0\r\n\r\n")
    else:
        length = LENGTH.search(head)
        whole = length is None or body >= int(length[1])
    if not whole and EXPECT.search(head) and not conn.was_told_to_continue:
        # The client waits for this before it sends the body. gunicorn says it a second time.
        conn.was_told_to_continue = True
        conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    return whole
