"""The blog as gunicorn serves it, and browsers to read it with, for tests and scripts."""

from html import unescape
from html.parser import HTMLParser
from http.client import HTTPConnection, HTTPException
from http.cookies import SimpleCookie
from urllib.parse import urlencode

from mysite import processes

AUTHOR, PASSWORD = "author", "a password for tests"

# For a Gunicorn whose Redis is well: a machine that pauses is no outage.
PATIENT = {"DJANGO_SETTINGS_MODULE": "mysite.tests.patient_settings"}


class Home(processes.Home):
    """A blog's folder, with an author. A context manager."""

    def __init__(self, posts=0, comments=0):
        super().__init__(posts, comments, author=(AUTHOR, PASSWORD))


class Gunicorn(processes.Gunicorn):
    """A gunicorn with the project's own configuration. A context manager."""

    def browser(self, **headers):
        """Return a Browser for this blog."""
        return Browser(self.port, headers)


class Answer:
    """What came back: status, headers as [(name, value)] and body as text."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self):
        return self.body.decode()

    def get(self, name, default=None):
        """Return the header `name`."""
        found = (value for key, value in self.headers if key.lower() == name.lower())
        return next(found, default)

    @property
    def is_hit(self):
        """Return whether a page level had it: Django adds Age to what it takes from a cache."""
        return self.get("Age") is not None


class Browser:
    """One visitor with a keep-alive connection and cookies. Not for several threads."""

    def __init__(self, port, headers=()):
        self.port = port
        self.headers = {"Host": f"127.0.0.1:{port}"} | dict(headers)
        self.cookies = {}
        self.connection = HTTPConnection("127.0.0.1", port, timeout=60)

    def request(self, method, path, body=None, **headers):
        """Send a request and return the Answer."""
        headers = self.headers | headers
        if self.cookies:
            cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            headers.setdefault("Cookie", cookie)
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(body, doseq=True)
            # gunicorn closes an idle connection at any moment, and a form is not sent twice.
            self.close()
        try:
            answer = self._ask(method, path, body, headers)
        except (HTTPException, ConnectionError):
            self.close()
            if body is not None:
                raise
            answer = self._ask(method, path, body, headers)
        for name, value in answer.headers:
            if name.lower() == "set-cookie":
                for morsel in SimpleCookie(value).values():
                    self.cookies[morsel.key] = morsel.coded_value
        return answer

    def _ask(self, method, path, body, headers):
        self.connection.request(method, path, body, headers)
        response = self.connection.getresponse()
        return Answer(response.status, response.getheaders(), response.read())

    def close(self):
        """Close the connection. The next request opens another one."""
        self.connection.close()

    def get(self, path, **headers):
        """GET a page."""
        return self.request("GET", path, **headers)

    def submit(self, path, **changes):
        """Open the page at `path`, change fields of its form, send it and return the Answer."""
        page = self.get(path)
        if page.status != 200:
            return page
        form = Form()
        form.feed(page.text)
        return self.request("POST", path, form.fields | changes)

    def comment(self, slug, author, body):
        """Send a comment and return the Answer: 302 when the blog took it."""
        return self.submit(f"/posts/{slug}/comment/", author=author, body=body)

    def log_in(self):
        """Log in as the author."""
        answer = self.submit("/admin/login/", username=AUTHOR, password=PASSWORD)
        if answer.status != 302:
            raise AssertionError(f"The author can't log in: {answer.status}")

    def edit(self, pk, **changes):
        """Change a post through the admin and return the Answer: 302 when it was saved."""
        return self.submit(f"/admin/blog/post/{pk}/change/", **changes)


class Form(HTMLParser):
    """The fields of a page's POST form with their values, as a browser would send them."""

    def __init__(self):
        super().__init__()
        self.fields = {}
        self._inside = False
        self._name = None

    def handle_starttag(self, tag, attributes):
        has = dict(attributes)
        name = has.get("name")
        if tag == "form":
            self._inside = has.get("method", "").lower() == "post" and "logout" not in has.get(
                "action", ""
            )
        elif not self._inside:
            return
        elif tag == "input" and name and has.get("type") not in ("submit", "checkbox"):
            self.fields[name] = unescape(has.get("value") or "")
        elif tag == "textarea":
            self._name, self.fields[name] = name, ""
        elif tag == "select":
            self._name, self.fields[name] = name, []
        elif tag == "option" and self._name and "selected" in has:
            self.fields[self._name].append(has["value"])

    def handle_data(self, data):
        if self._inside and isinstance(self.fields.get(self._name), str):
            self.fields[self._name] += data

    def handle_endtag(self, tag):
        if tag in ("textarea", "select"):
            name, self._name = self._name, None
            if tag == "textarea" and name in self.fields:
                # The first line break belongs to the markup.
                self.fields[name] = self.fields[name].removeprefix("\r\n").removeprefix("\n")
        elif tag == "form":
            self._inside = False
