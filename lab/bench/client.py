"""
A load client: visitors with keep-alive connections, who ask for one page over and over.

A process of its own, so that it shares no interpreter with what is measured:
`python -m lab.bench.client` reads an order a line, runs it and answers with a line, both JSON.
It ends when its input does, so it never outlives its owner. See run() for orders and answers.
"""

import json
import select
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
TIMEOUT = 60  # Seconds without any answer.
LENGTH = b"\r\ncontent-length: "
CLOSES = b"\r\nconnection: close"
AGE = b"\r\nage: "  # Django adds it to a page from its cache.

# What is received goes here, for all visitors: they share the cores with what is measured, so
# the less they cost, the more of a request's time is the server's.
buffer = bytearray(1 << 18)


class Visitor:
    """One connection. It is opened again when the server closes it."""

    def __init__(self, poll, port, path):
        self.poll, self.port = poll, port
        self.question = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        self.socket = None

    def ask(self):
        self.start, self.head, self.missing = time.perf_counter(), b"", 0
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self.port), TIMEOUT)
            self.socket.settimeout(None)  # With one, Python asks before each call whether to wait.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.poll.register(self, select.POLLIN)
        self.socket.sendall(self.question)

    def fileno(self):
        return self.socket.fileno()

    def read(self):
        """Read what is there. Return the head of the answer once all of it is, else None."""
        received = self.socket.recv_into(buffer)
        if not received:
            raise ConnectionError("the server closed a connection in the middle of an answer")
        if self.missing:
            self.missing -= received
        else:
            self.head += buffer[:received]
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return None
            head, body = self.head[:end].lower(), len(self.head) - end - 4
            at = head.find(LENGTH)
            if at < 0:
                raise ConnectionError("an answer has no Content-Length")
            self.head = head
            self.missing = int(head[at + len(LENGTH) :].split(b"\r", 1)[0]) - body
        if self.missing:
            return None
        if CLOSES in self.head:
            self.close()
        return self.head

    def close(self):
        if self.socket is not None:
            self.poll.unregister(self)
            self.socket.close()
            self.socket = None


def run(port, path, clients=1, seconds=0, requests=0):
    """
    Ask for `path` until `requests` answers have come, or for `seconds` when it is 0.

    Each of the `clients` sends its next request when it has the answer to the last. Returns
    a dict: requests, seconds, hits (answers with Age), statuses {status: count}, and the
    milliseconds that half (p50) and 95 of 100 answers (p95) took at most.
    """
    milliseconds, statuses, hits, asked = [], Counter(), 0, 0
    poll = select.poll()
    visitors = [Visitor(poll, port, path) for _ in range(clients)]
    by_number = {}
    start = time.perf_counter()
    for visitor in visitors:
        visitor.ask()
        by_number[visitor.fileno()] = visitor
        asked += 1
    while len(milliseconds) < asked:
        ready = poll.poll(1000 * TIMEOUT)
        if not ready:
            raise TimeoutError(f"no answer within {TIMEOUT} s")
        for number, _ in ready:
            visitor = by_number[number]
            head = visitor.read()
            if head is None:
                continue
            now = time.perf_counter()
            milliseconds.append(1000 * (now - visitor.start))
            statuses[int(head[9:12])] += 1
            hits += AGE in head
            if asked < requests if requests else now < start + seconds:
                visitor.ask()
                by_number[visitor.fileno()] = visitor
                asked += 1
    took = time.perf_counter() - start
    for visitor in visitors:
        visitor.close()
    milliseconds.sort()
    return {
        "requests": asked,
        "seconds": took,
        "hits": hits,
        "statuses": statuses,
        "p50": milliseconds[asked // 2],
        "p95": milliseconds[asked * 95 // 100],
    }


class LoadError(Exception):
    """The server did not answer as it should."""


class Load:
    """The client's process, seen from its owner. A context manager."""

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for its owner, who then ends it.
        )
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()

    def __call__(self, port, path, **order):
        """
        Let the client run() this and return its answer without the statuses.

        Raises LoadError unless each of them was 200.
        """
        self.process.stdin.write(json.dumps({"port": port, "path": path, **order}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or '{"error": "it ended"}')
        if "error" in answer:
            raise LoadError(f"The load client asked for {path}: {answer['error']}.")
        statuses = answer.pop("statuses")
        if set(statuses) != {"200"}:
            raise LoadError(f"{path} answered {', '.join(statuses)}.")
        return answer


def main():
    for line in sys.stdin:
        try:
            answer = run(**json.loads(line))
        except OSError as error:
            answer = {"error": str(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
