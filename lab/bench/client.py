"""
A load client: visitors with keep-alive connections, who ask for one page over and over.

A process of its own, so that it shares no interpreter with what is measured:
`python -m lab.bench.client` reads an order a line, runs it and answers with a line, both JSON.
It ends when its input does, so it never outlives its owner. See run() for orders and answers.
"""

import json
import re
import selectors
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
TIMEOUT = 60  # Seconds without any answer.
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
AGE = re.compile(rb"\r\nage: ", re.IGNORECASE)  # Django adds it to a page from its cache.


class Visitor:
    """One connection. It is opened again when the server closes it."""

    def __init__(self, selector, port, path):
        self.selector, self.port = selector, port
        self.question = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        self.socket = None

    def ask(self):
        self.start, self.answer = time.perf_counter(), b""
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self.port), TIMEOUT)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.selector.register(self.socket, selectors.EVENT_READ, self)
        self.socket.sendall(self.question)

    def read(self):
        """Read what is there. Return the head of the answer once all of it is, else None."""
        received = self.socket.recv(1 << 18)
        if not received:
            raise ConnectionError("the server closed a connection in the middle of an answer")
        self.answer += received
        end = self.answer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self.answer[:end]
        length = LENGTH.search(head)
        if length is None:
            raise ConnectionError("an answer has no Content-Length")
        if len(self.answer) < end + 4 + int(length[1]):
            return None
        if CLOSES.search(head):
            self.close()
        return head

    def close(self):
        if self.socket is not None:
            self.selector.unregister(self.socket)
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
    with selectors.DefaultSelector() as selector:
        visitors = [Visitor(selector, port, path) for _ in range(clients)]
        start = time.perf_counter()
        for visitor in visitors:
            visitor.ask()
            asked += 1
        while len(milliseconds) < asked:
            ready = selector.select(TIMEOUT)
            if not ready:
                raise TimeoutError(f"no answer within {TIMEOUT} s")
            for key, _ in ready:
                visitor = key.data
                head = visitor.read()
                if head is None:
                    continue
                now = time.perf_counter()
                milliseconds.append(1000 * (now - visitor.start))
                statuses[int(head[9:12])] += 1
                hits += AGE.search(head) is not None
                if asked < requests if requests else now < start + seconds:
                    visitor.ask()
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
