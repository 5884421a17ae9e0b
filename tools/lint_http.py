"""
What httplint says of the blog's responses: no note of level BAD or WARN.

    python tools/lint_http.py

gunicorn as it is shipped, on a Redis and a database of its own. Each kind of page is asked for as a
miss, a hit, a conditional request (304), a HEAD, and without Redis. Takes 15 seconds. Exits with
status 1 and a list if a note is not in NO_FAULTS, or if one in NO_FAULTS does not come any more.

httplint: https://pypi.org/project/httplint/
"""

import argparse
import re
import sys
import time
from collections import Counter
from contextlib import ExitStack, closing
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

from httplint import HttpRequestLinter, HttpResponseLinter, levels

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mysite.tests.faults import RedisServer
from mysite.tests.served import Gunicorn, Home

POST = "/posts/per-view/"
CACHED = ["/", "/?page=2", "/tags/redis/", "/about/", "/feed/", "/sitemap.xml", POST]
OTHERS = {  # path: its status
    **dict.fromkeys(["/archive/", "/archive/2026/09/", "/search/", "/search/?q=redis"], 200),
    **dict.fromkeys([f"{POST}comment/", "/admin/login/", "/healthz", "/readyz"], 200),
    **dict.fromkeys(["/watch/", "/watch/state", "/watch/events?after=0"], 200),
    **dict.fromkeys(["/lab/", "/lab/keys/", "/lab/wire/"], 200),
    "/about": 301,
    "/admin/": 302,
    **dict.fromkeys(["/no/such/page/", "/posts/no-such-post/", "/static/no-such-file.css"], 404),
}

# Name of a note in httplint, and the beginning of the paths that it comes for: why it is no fault.
NO_FAULTS = {
    ("CC_CONFLICTING", "/"): (
        "Django's never_cache() sends no-store with directives that say less, for old caches."
    ),
    ("FRESHNESS_HEURISTIC", "/about"): (
        "A redirect to the URL with a slash may be remembered for as long as a browser likes."
    ),
    ("STORE_PUBLIC_UNNECESSARY", "/static/"): (
        "whitenoise says `public` for files that never change. It is needless, and it is true."
    ),
    ("STATUS_BAD_REQUEST", "/"): "The request with a wrong Host was made to be refused.",
}


class Exchange:
    """One request and its response."""

    def __init__(self, port, what, path, status, method="GET", body=None, **headers):
        self.what, self.method, self.path, self.expected = what, method, path, status
        self.sent = {"Host": f"127.0.0.1:{port}", "Accept": "*/*"}
        self.sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        self.start = time.time()
        with closing(HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
            connection.request(method, path, body, self.sent)
            response = connection.getresponse()
            self.status, self.reason = response.status, response.reason
            self.headers, self.body = response.headers, response.read()

    def problems(self, used):
        """Yield each problem as text, and add the notes that NO_FAULTS lists to `used`."""
        if self.status != self.expected:
            yield f"status {self.status} and not {self.expected}"
        if self.what == "hit" and "Age" not in self.headers:
            yield "not a hit"
        for note in self.notes():
            if note.level not in (levels.BAD, levels.WARN):
                continue
            name = type(note).__name__
            listed = {key for key in NO_FAULTS if key[0] == name and self.path.startswith(key[1])}
            used |= listed
            if not listed:
                yield f"{note.level.name} {name}: {note.summary}"

    def notes(self):
        """Yield the notes of httplint on the response."""
        url = f"http://{self.sent['Host']}{self.path}"
        request = HttpRequestLinter()
        request.process_request_topline(self.method.encode(), url.encode(), b"1.1")
        request.process_headers(fields(self.sent))
        request.finish_content(True)
        linter = HttpResponseLinter(start_time=self.start, _related=request)
        linter.base_uri, linter.is_head_response = url, self.method == "HEAD"
        linter.process_response_topline(b"1.1", str(self.status).encode(), self.reason.encode())
        linter.process_headers(fields(self.headers))
        linter.feed_content(self.body)
        linter.finish_content(True)
        for note in linter.notes:
            yield note
            yield from note.subnotes


def fields(headers):
    """Return headers as httplint takes them."""
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


def exchanges(port, server):
    """Yield an Exchange for each kind of response. In the end it stops Redis."""
    ask = partial(Exchange, port)
    for path in CACHED:
        yield ask("miss", path, 200)
        hit = ask("hit", path, 200)
        yield hit
        yield ask("304", path, 304, If_None_Match=hit.headers["ETag"])
        yield ask("HEAD", path, 200, "HEAD")
        yield ask("HEAD 304", path, 304, "HEAD", If_None_Match=hit.headers["ETag"])
    yield ask("HEAD of a miss", "/tags/redis-py/", 200, "HEAD")
    for path, status in OTHERS.items():
        yield ask("first", path, status)
        second = ask("second", path, status)  # Its fragments and values are in the cache now.
        yield second
        yield ask("HEAD", path, status, "HEAD")
        if status == 200 and "ETag" in second.headers:
            yield ask("304", path, 304, If_None_Match=second.headers["ETag"])
    yield from static_files(ask)
    yield ask("405", "/", 405, "OPTIONS")
    yield ask("405", "/healthz", 405, "POST", b"")
    yield ask("403", f"{POST}comment/", 403, "POST", b"author=Ada")
    yield ask("400", "/", 400, Host="other.example")
    server.kill()
    for path in (*CACHED, "/archive/", "/search/?q=redis", "/healthz", "/readyz"):
        yield ask("Redis stopped", path, 200)


def static_files(ask):
    """Yield an Exchange for each kind of response with a static file."""
    path = re.search(r'href="(/static/[^"]+\.css)"', ask("page", "/", 200).body.decode())[1]
    for encoding in ("identity", "gzip"):
        file = ask("static file", path, 200, Accept_Encoding=encoding)
        yield file
        yield ask("HEAD", path, 200, "HEAD", Accept_Encoding=encoding)
        etag = file.headers["ETag"]
        yield ask("304", path, 304, Accept_Encoding=encoding, If_None_Match=etag)


def main():
    argparse.ArgumentParser(description=__doc__.split("\n\n")[0]).parse_args()
    seen, failed, used = Counter(), [], set()
    with ExitStack() as stack:
        home = stack.enter_context(Home())
        server = RedisServer().start()
        stack.callback(server.close)
        gunicorn = stack.enter_context(Gunicorn(home, server.url, LAB="1"))
        for each in exchanges(gunicorn.port, server):
            seen[each.what] += 1
            name = f"{each.method} {each.path} ({each.what})"
            failed += [f"{name}: {problem}" for problem in each.problems(used)]
    failed += [f"{note} is listed, and no longer comes" for note in NO_FAULTS.keys() - used]
    print(*failed, sep="\n", end="\n" if failed else "")
    print(", ".join(f"{count} x {what}" for what, count in seen.items()))
    print(f"{seen.total()} responses, {len(failed)} problems")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
