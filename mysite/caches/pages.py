"""
Page entries that can be dropped by name, in one round trip a hit.

Django's page cache (UpdateCacheMiddleware, FetchFromCacheMiddleware, cache_page) has no
way to drop one page: its keys are hashes of the absolute URL and of every header named
in Vary. Here each page belongs to a generation, a name such as `post:keys`, and an entry
counts only while it carries the generation's current token:

1. A lookup asks with one MGET for Django's two keys and the generation's token. Where
   there is no token, the lookup sets one.
2. An entry is stored together with the token that was there before the page was built.
3. `new_generations()` replaces the tokens: one round trip, whether ten or a hundred
   thousand entries carry the old ones. Those are never served again and expire.

A page whose building began before an invalidation ends up with the old token, so a slow
reader can't put an old page back. A token that is missing matches nothing, so eviction
can't bring an old page back either.
"""

import re
import secrets
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from django.core.cache import caches
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.http import HttpResponse
from django_redis.exceptions import ConnectionInterrupted

from mysite.caches.client import SafeClient

# Seconds that a token lives after it was set. Longer than any page's or fragment's timeout.
GENERATION_TIMEOUT = 48 * 60 * 60

# Seconds that a token lives while nothing is stored under it: the time to build a page. Any
# path may ask for one, so they must not pile up.
RESERVED_TIMEOUT = 60
GENERATION = "generation:"

# Django's name for "which headers does this URL vary on?". A lookup begins with it. What
# follows is a guess at the page's own key for an empty Vary; a wrong guess costs one more
# round trip and nothing else.
HEADER_KEY = re.compile(r"(.*\.)cache_header\.(.*)\.([0-9a-f]{32})(.*)", re.DOTALL)
PAGE_KEY = re.compile(r".*\.cache_page\..*", re.DOTALL)
NO_VARY = "d41d8cd98f00b204e9800998ecf8427e"  # md5 of nothing


@dataclass
class Lookup:
    """What one level answered when it was asked for the current page."""

    token: int | None = None  # None as well for a lookup that failed.
    fetched: dict = field(default_factory=dict)


@dataclass
class Page:
    """The page that the current request asks for, as the page levels need to know it."""

    generation: str
    lookups: dict  # a Lookup for each alias that keeps the page
    leases: dict = field(default_factory=dict)


_page = ContextVar("page", default=None)


@contextmanager
def page(levels=(), generation=""):
    """Let these levels (aliases) alone keep what this request builds, under `generation`."""
    reset = _page.set(Page(generation, {alias: Lookup() for alias in levels}))
    try:
        yield
    finally:
        _page.reset(reset)


def generation_key(name):
    """Return the cache key of a generation's token."""
    return f"{GENERATION}{name}"


def new_token():
    """Return a token nobody has used. An int, which django-redis stores as plain digits."""
    return secrets.randbits(62)


def new_generations(alias, names, version=None):
    """
    Make every entry of these generations unreachable, in one round trip.

    Raises ConnectionInterrupted unless Redis did it: IGNORE_EXCEPTIONS is for reading.
    """
    tokens = {generation_key(name): new_token() for name in names}
    client = caches[alias].client
    try:
        client.set_many(tokens, GENERATION_TIMEOUT, version)
    except ConnectionInterrupted:
        # A full Redis refuses SET and takes DEL. A token that is missing matches no page.
        SafeClient.delete_many(client, tokens, version)


class GenerationClient(SafeClient):
    """A SafeClient that knows which alias it serves, from OPTIONS["ALIAS"]."""

    def __init__(self, server, params, backend):
        super().__init__(server, params, backend)
        self.alias = params["OPTIONS"]["ALIAS"]

    def token(self, key, found, version=None):
        """Return the token at `key`, from what a lookup `found` there, or set one."""
        if type(found) is int:
            return found
        token = new_token()
        if found is not None:
            SafeClient.delete(self, key, version)
        if SafeClient.set(self, key, token, RESERVED_TIMEOUT, version, nx=True):
            return token
        return SafeClient.get(self, key, None, version)

    def confirm(self, key, version=None):
        """Let the token at `key` live as long as what is stored under it. Is there one?"""
        return self.expire(key, GENERATION_TIMEOUT, version)

    def refuse(self, key):
        """Tell an instrumented client that what Redis answered for `key` counts as a miss."""
        refused = getattr(self.get_client(write=False), "refused", None)
        if refused:
            refused(self.make_key(key))


class PageClient(GenerationClient):
    """
    OPTIONS["CLIENT_CLASS"] of the two page levels.

    Keys that are not the page cache's, and requests without a current `page()`, get what
    SafeClient does.
    """

    def get(self, key, default=None, version=None, client=None):
        """Return the value at `key`, or `default` when it is missing or of an old generation."""
        current, header = _page.get(), HEADER_KEY.fullmatch(key)
        if current is None or not (header or PAGE_KEY.fullmatch(key)):
            return super().get(key, default, version, client)
        lookup = current.lookups.get(self.alias)
        if lookup is None:
            return default
        if header:
            generation = generation_key(current.generation)
            return self._get_all(lookup, generation, key, header, default, version, client)
        if key in lookup.fetched:
            entry = lookup.fetched.pop(key)
        else:
            entry = super().get(key, None, version, client)
        if entry is None:
            return default
        match entry:
            case (int(token), HttpResponse() as response) if token == lookup.token:
                return response
        self.refuse(key)
        return default

    def _get_all(self, lookup, generation, key, header, default, version, client):
        start, prefix, url, end = header.groups()
        guess = f"{start}cache_page.{prefix}.GET.{url}.{NO_VARY}{end}"
        lookup.token = None  # For a lookup that fails.
        found = self.get_many([key, guess, generation], version=version, client=client)
        lookup.token = self.token(generation, found.get(generation), version)
        lookup.fetched = {guess: found.get(guess)}
        headers = found.get(key)
        if isinstance(headers, list) and all(isinstance(name, str) for name in headers):
            return headers
        return default

    def set(self, key, value, timeout=DEFAULT_TIMEOUT, version=None, client=None, **kwargs):
        """Store `value` and return whether Redis took it."""
        current, is_page = _page.get(), PAGE_KEY.fullmatch(key)
        if current is None or not (is_page or HEADER_KEY.fullmatch(key)):
            return super().set(key, value, timeout, version, client, **kwargs)
        lookup = current.lookups.get(self.alias)
        if lookup is None or lookup.token is None:
            # Other levels keep this page. Or the lookup failed, and an invalidation
            # may have been lost in the same way.
            return False
        if is_page:
            # A cookie is for one visitor. Django stores it unless the page varies on Cookie.
            if value.cookies or not self.confirm(generation_key(current.generation), version):
                return False
            value = (lookup.token, value)
        return super().set(key, value, timeout, version, client, **kwargs)


class FragmentClient(GenerationClient):
    """
    OPTIONS["CLIENT_CLASS"] of the fragments: a deleted one can't be put back by a slow reader.

    {% cache %} looks, renders and stores. When the key is deleted while it renders, a plain
    client stores what was right before. Here delete() sets a token besides, and a value
    counts only together with the token that was there when its reader looked. For values
    alone: incr() and decr() need a plain client.
    """

    def get(self, key, default=None, version=None, client=None):
        """Return the value at `key`, or `default` when it is missing or deleted since."""
        return self.get_many([key], version, client).get(key, default)

    def get_many(self, keys, version=None, client=None):
        """Return a dict of the keys that have a value, and were not deleted since."""
        keys, values = list(keys), {}
        leases = getattr(_page.get(), "leases", {})
        leases |= dict.fromkeys(keys)  # For a lookup that fails.
        found = super().get_many([*keys, *map(generation_key, keys)], version, client)
        for key in keys:
            token, entry = found.get(generation_key(key)), found.get(key)
            match entry:
                case (int(stored), value) if stored == token:
                    values[key], leases[key] = value, token
                    continue
            if entry is not None:
                self.refuse(key)
            leases[key] = self.token(generation_key(key), token, version)
        return values

    def set(self, key, value, timeout=DEFAULT_TIMEOUT, version=None, client=None, **kwargs):
        """Store `value` and return whether Redis took it."""
        if not key.startswith(GENERATION):
            name = generation_key(key)
            leases = getattr(_page.get(), "leases", {})
            if key not in leases:
                leases[key] = self.token(name, SafeClient.get(self, name, None, version), version)
            token = leases.pop(key)
            if token is None or not self.confirm(name, version):
                return False
            value = (token, value)
        return super().set(key, value, timeout, version, client, **kwargs)

    def add(self, key, value, timeout=DEFAULT_TIMEOUT, version=None, client=None):
        """Store `value` unless the key has one that counts. Return whether it was stored."""
        if self.has_key(key, version, client):
            return False
        SafeClient.delete(self, key, version)
        return self.set(key, value, timeout, version, client, nx=True)

    def has_key(self, key, version=None, client=None):
        """Return whether get() would find a value."""
        return key in self.get_many([key], version, client)

    def delete(self, key, version=None, prefix=None, client=None):
        """Delete `key`, and what anybody is about to store there."""
        return self.delete_many([key], version, client)

    def delete_many(self, keys, version=None, client=None):
        """Delete `keys`, and what anybody is about to store there."""
        keys = list(keys)
        new_generations(self.alias, keys, version)
        return super().delete_many(keys, version, client)
