"""
A contestant: a WSGI application in a process of its own, called without a server.

`python -m lab.bench.inside MODULE:NAME` reads an order per line, {"path": ..., "requests": n}, and
answers with a line, both JSON. It ends when its input ends. See ask() for the answer.
"""

import json
import subprocess
import sys
import time
from importlib import import_module
from io import BytesIO

# What gunicorn makes of a browser's request.
ENVIRON = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8000",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "127.0.0.1",
    "HTTP_HOST": "127.0.0.1:8000",
    "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "HTTP_ACCEPT": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "HTTP_ACCEPT_ENCODING": "identity",
    "HTTP_ACCEPT_LANGUAGE": "en-US,en;q=0.5",
    "HTTP_CONNECTION": "keep-alive",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}


def ask(application, path, requests):
    """
    Call the application `requests` times, one request after the other.

    Return {"us": CPU of this process per request in microseconds, "hits": answers with an Age,
    "status", "headers" and "body" of the last answer}.
    """
    path, _, query = path.partition("?")
    environ = ENVIRON | {"PATH_INFO": path, "QUERY_STRING": query, "RAW_URI": path}
    hits, answer = 0, None

    def start_response(status, headers, error=None):
        nonlocal answer
        answer = status, headers

    start = time.process_time()
    for _ in range(requests):
        response = application(environ | {"wsgi.input": BytesIO()}, start_response)
        body = b"".join(response)
        if close := getattr(response, "close", None):
            close()
        hits += any(name == "Age" for name, _ in answer[1])
    took = time.process_time() - start
    return {
        "us": 1e6 * took / requests,
        "hits": hits,
        "status": answer[0],
        "headers": answer[1],
        "body": body.decode(),
    }


class ContestantError(Exception):
    """A contestant did not answer as it should."""


class Contestant:
    """The application's process, seen from its owner. A context manager."""

    def __init__(self, application, cwd, environment):
        """Start it. `application` is its place, "module:name"; it is loaded by the first order."""
        self.application = application
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, application],
            cwd=cwd,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for its owner, which then ends it.
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()

    def ask(self, path, requests=1):
        """Return what ask() returns there. Raises ContestantError unless the answer is a 200."""
        self.process.stdin.write(json.dumps({"path": path, "requests": requests}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or '{"status": "nothing: it ended"}')
        if not answer["status"].startswith("200"):
            raise ContestantError(f"{self.application} answered {path} with {answer['status']}.")
        return answer


def main():
    module, _, name = sys.argv[1].partition(":")
    application = getattr(import_module(module), name)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(ask(application, **json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
