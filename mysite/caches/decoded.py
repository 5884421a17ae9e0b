"""
What this process has decoded lately, so that the same bytes are not decoded again.

Redis is asked for every page, and what it answers counts: only when an answer is, byte for
byte, one that was decoded before is that work saved. Comparing 20 KB takes a hundredth of
the time that reading them as msgpack and building a response does. So nothing is staler
than Redis, and what Redis has dropped is not served from here.
"""

from contextlib import suppress

from django.http import HttpResponse
from django.http.cookie import SimpleCookie
from django.http.response import ResponseHeaders

# A process keeps this many of the values that it has decoded, and none that is larger.
PLACES = 100
LARGEST = 64 * 1024


class Decoded:
    """The entries of one alias, as `decode` makes them of what Redis has. For all threads."""

    def __init__(self):
        self._kept = {}  # name: (what Redis has, what it means)

    def get(self, name, value, decode):
        """Return decode(value), where `value` is what Redis has at `name`. It is the caller's."""
        kept = self._kept.get(name)
        if kept is None or kept[0] != value:
            entry = decode(value)
            if len(value) > LARGEST or not _can_copy(entry):
                self._kept.pop(name, None)
                return entry
            if kept is None and len(self._kept) >= PLACES:
                self._make_room()
            self._kept[name] = kept = value, entry
        return _copy(kept[1])

    def _make_room(self):
        # Another thread may add to it or be faster; then there is one more or one less.
        with suppress(StopIteration, RuntimeError, KeyError):
            del self._kept[next(iter(self._kept))]


def _can_copy(entry):
    match entry:
        case (int(), float(), HttpResponse() as response):
            return not response.cookies
        case list():
            return all(type(item) is str for item in entry)
    return False


def _copy(entry):
    if type(entry) is list:
        return entry.copy()
    token, renew_at, response = entry
    return token, renew_at, copy_of(response)


def copy_of(response):
    """
    Return a response like this one, which is new and has no cookies.

    HttpResponse(...) would check each header again, which takes five times as long.
    """
    new = HttpResponse.__new__(HttpResponse)
    vars(new).update(vars(response))
    new.headers = ResponseHeaders({})
    new.headers._store = response.headers._store.copy()
    new._container = response._container.copy()
    new._resource_closers = []
    new.cookies = SimpleCookie()
    return new
