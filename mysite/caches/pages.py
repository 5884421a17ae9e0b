"""
Page entries that can be dropped by name, in one round trip a hit.

Django's page cache (UpdateCacheMiddleware, FetchFromCacheMiddleware, cache_page) has no
way to drop one page: its keys are hashes of the absolute URL and of every header named
in Vary. Here each page belongs to a generation, a name such as `post:keys`, and an entry
counts only while it carries the generation's current token:

1. A lookup asks with one MGET for Django's two keys and the generation's token. Where
   there is no token, the lookup sets one.
2. An entry is stored together with the token that was there before the page was built,
   and with the time of its renewal: of all who miss it, one builds it (see stampede.py).
3. `new_generations()` replaces the tokens: one round trip, whether ten or a hundred
   thousand entries carry the old ones. Those are never served again and expire.

A page whose building began before an invalidation ends up with the old token, so a slow
reader can't put an old page back. A token that is missing matches nothing, so eviction
can't bring an old page back either.
"""

import re
import secrets
import time
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache

from django.core.cache import caches
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.http import HttpResponse
from django.utils import timezone
from django.utils.cache import set_response_etag
from django.utils.module_loading import import_string
from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import RedisError

from mysite.caches.client import SafeClient
from mysite.caches.decoded import Decoded
from mysite.caches.serializer import FORMAT
from mysite.caches.stampede import BUILDING, MISSING, renewal, store, take_turn

# Seconds that a token lives after it was set. Longer than any page's or fragment's timeout.
GENERATION_TIMEOUT = 48 * 60 * 60

# Seconds that a token lives while nothing is stored under it: the time to build a page. Any
# path may ask for one, so they must not pile up.
RESERVED_TIMEOUT = 60
GENERATION = "generation:"

# Django's name for "which headers does this URL vary on?". A lookup begins with it. What
# follows is a guess at the page's own key for an empty Vary; a wrong guess costs one more
# round trip and nothing else.
HEADERS = "views.decorators.cache.cache_header."
PAGES = "views.decorators.cache.cache_page."
HEADER_KEY = re.compile(re.escape(HEADERS) + r"(.*)\.([0-9a-f]{32})(.*)", re.DOTALL)
NO_VARY = "d41d8cd98f00b204e9800998ecf8427e"  # md5 of nothing


@dataclass(slots=True)
class Lookup:
    """What one level answered when it was asked for the current page."""

    token: int | None = None  # Anything else than an int is none: a lookup that failed.
    headers: list | None = None  # What the page varies on, as far as Redis knows.
    header_key: str = ""
    guess: str = ""
    fetched: dict = field(default_factory=dict)

    def understand(self, headers, token):
        """Take note of what Redis has as the list of headers and as the generation's token."""
        is_list = isinstance(headers, list) and all(isinstance(name, str) for name in headers)
        self.headers, self.token = headers if is_list else None, token

    def judge(self, entry):
        """Return (response, whether to renew it) of an entry, or (MISSING, False)."""
        response, is_due = valid(entry, self.token)
        if self.headers is None or not isinstance(response, HttpResponse):
            return MISSING, False
        return response, is_due


@dataclass(slots=True)
class Page:
    """The page that the current request asks for, as the page levels need to know it."""

    generation: str
    lookups: dict  # a Lookup for each alias that keeps the page
    leases: dict = field(default_factory=dict)
    # What this request alone builds: a Right for each alias that keeps the page, and each
    # fragment.
    rights: dict = field(default_factory=dict)


_page = ContextVar("page", default=None)
_decoded = {}  # A Decoded for each alias that keeps pages, for all clients of this process.


class page:
    """Let these levels (aliases) alone keep what this request builds, under `generation`."""

    def __init__(self, levels=(), generation=""):
        self.page = Page(generation, {alias: Lookup() for alias in levels})

    def __enter__(self):
        self.reset = _page.set(self.page)

    def __exit__(self, *error):
        _page.reset(self.reset)
        for right in self.page.rights.values():
            right.nothing_to_keep()


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
        # With a client of redis-py it is tried in any case: see SafeClient.set().
        client.set_many(tokens, GENERATION_TIMEOUT, version, client.get_client(write=True))
    except ConnectionInterrupted:
        # A full Redis refuses SET and takes DEL. A token that is missing matches no page.
        SafeClient.delete_many(client, tokens, version)


def valid(entry, token):
    """
    Return (value, whether to renew it) of an entry as Redis has it, or (MISSING, False).

    It counts only with the token that is current.
    """
    match entry:
        case (int(stored), float(renew_at), value) if type(token) is int and stored == token:
            return value, time.time() >= renew_at
    return MISSING, False


class GenerationClient(SafeClient):
    """A SafeClient that knows which alias it serves, from OPTIONS["ALIAS"]."""

    def __init__(self, server, params, backend):
        super().__init__(server, params, backend)
        self.alias = params["OPTIONS"]["ALIAS"]

    def token(self, key, found, version=None):
        """Return the token at `key`, from what a lookup `found` there, or set one."""
        if type(found) is int:
            return found
        self.check_breaker()
        name = self.make_key(key, version)
        try:
            pipeline = self.get_client(write=True).pipeline(transaction=False)
            self._reserve(name, found, pipeline)
            *_, token = pipeline.get(name).execute()
        except RedisError as error:
            raise ConnectionInterrupted(connection=None) from error
        return self.read(token)

    def _reserve(self, name, found, pipeline):
        """Let `pipeline` set a token at `name`, unless a lookup `found` one there."""
        if type(found) is not int:
            if found is not None:
                pipeline.delete(name)
            pipeline.set(name, new_token(), nx=True, px=RESERVED_TIMEOUT * 1000)

    def see_to_token(self, key, token, version=None):
        """Delete what stands at `key` in place of a token. It would keep each new one out."""
        if type(token) is not int:
            with suppress(ConnectionInterrupted):  # The next one who misses it tries again.
                self.check_breaker()
                SafeClient.get(self, generation_key(key), None, version)

    def build_or_wait(self, current, place, key, found, kept, second_look, names, version=None):
        """
        Return the value at `key`, or MISSING if this request is to build it.

        `kept` is what the first look gave: MISSING, or a value that is to be renewed. The right
        is noted at `place`. `names` are what `second_look` reads, the token's the last, and
        `found` is the token that the first look found.
        """
        name = self.make_key(key, version)
        building = self.make_key(f"{BUILDING}{key.removeprefix(PAGES)}", version)
        is_missing = kept is MISSING
        try:
            value, right = take_turn(
                *(self, building, names, second_look),
                prepare=lambda pipeline: self._reserve(names[-1], found, pipeline),
                wait=is_missing,
            )
        except ConnectionInterrupted:
            return kept
        if right:
            current.rights[place] = right
            if not is_missing:
                self.tell("refused", name)
            return MISSING
        if value is not MISSING and is_missing:
            self.tell("collapsed", *names[:-1])
        return kept if value is MISSING else value

    def store(self, current, place, key, token, value, timeout, version, **kwargs):
        """
        Store an entry, and let the token at `token` live as long as it. Return success.

        A token that is gone by now is no reason not to: it matches no entry.
        """
        name, right = self.make_key(generation_key(token), version), current.rights.get(place)
        stored = store(
            *(self, key, value, timeout, version, right),
            prepare=lambda pipeline: pipeline.pexpire(name, GENERATION_TIMEOUT * 1000),
            **kwargs,
        )
        right = current.rights.pop(place, None)
        if right and not stored:  # Too large: those who wait get no more than that either.
            right.nothing_to_keep()
        return stored


class PageClient(GenerationClient):
    """
    OPTIONS["CLIENT_CLASS"] of the two page levels.

    OPTIONS["BEFORE_STORING"] names a function that may change a response before it is stored.
    Keys that are not the page cache's, and requests without a current `page()`, get what
    SafeClient does.
    """

    def __init__(self, server, params, backend):
        super().__init__(server, params, backend)
        # Django writes the name of the time zone into each key. Where none is active, it
        # finds out by an exception each time. There is a client a thread, as there is a zone.
        timezone.activate(timezone.get_current_timezone())
        self.decoded = _decoded.setdefault(self.alias, Decoded())
        before_storing = params["OPTIONS"].get("BEFORE_STORING")
        self.before_storing = import_string(before_storing) if before_storing else None
        # A page that is hit is asked for again and again, and always by these keys.
        self.asked_for = lru_cache(maxsize=200)(self._asked_for)

    def decode_at(self, name, value):
        """Return the value that Redis holds at `name` as `value`. Raises UnreadableValue."""
        if value.startswith(FORMAT):
            return self.decoded.get(name, value, self.decode)
        return self.decode(value)

    def get(self, key, default=None, version=None, client=None):
        """Return the value at `key`, or `default` when it is missing or of an old generation."""
        current, is_list = _page.get(), key.startswith(HEADERS)
        if current is None or not (is_list or key.startswith(PAGES)):
            return super().get(key, default, version, client)
        lookup = current.lookups.get(self.alias)
        if lookup is None:
            return default
        if is_list:
            return self._get_all(current, lookup, key, default, version)
        if key not in lookup.fetched:
            entry = super().get(key, None, version, client)
            lookup.fetched[key] = self._answer(current, lookup, key, entry, version)
        response = lookup.fetched.pop(key)
        return default if response is MISSING else response

    def _asked_for(self, key, generation, version):
        """Return the keys of a lookup that begins with `key`, and what Redis calls them."""
        prefix, url, end = HEADER_KEY.fullmatch(key).groups()
        keys = key, f"{PAGES}{prefix}.GET.{url}.{NO_VARY}{end}", generation_key(generation)
        return keys, tuple(self.make_key(name, version) for name in keys)

    def _get_all(self, current, lookup, key, default, version):
        keys, names = self.asked_for(key, current.generation, version)
        guess = keys[1]
        lookup.header_key, lookup.fetched, lookup.token, lookup.guess = key, {}, None, guess
        headers, entry, token = self.look_at(names, keys, version)
        lookup.understand(headers, token)
        if not lookup.headers:
            lookup.fetched[guess] = self._answer(current, lookup, guess, entry, version)
        return default if lookup.headers is None else lookup.headers

    def _answer(self, current, lookup, key, entry, version):
        """Return the page at `key`, or MISSING if this request is to build it."""
        response, is_due = lookup.judge(entry)
        place = (self.alias, None)
        if (response is not MISSING and not is_due) or place in current.rights:
            return response
        if response is MISSING and entry is not None:
            self.tell("refused", self.make_key(key, version))
        elsewhere = object()

        def second_look(values):
            headers, entry, token = map(self.read, values)
            lookup.understand(headers, token)
            if lookup.headers and key == lookup.guess:
                return elsewhere  # It varies, so it has another key, which Django asks for next.
            again, is_due = lookup.judge(entry)
            return MISSING if is_due else again

        keys = lookup.header_key, key, generation_key(current.generation)
        names = [self.make_key(name, version) for name in keys]
        response = self.build_or_wait(
            *(current, place, key, lookup.token, response, second_look, names, version)
        )
        if response is MISSING:
            self.see_to_token(current.generation, lookup.token, version)
        return MISSING if response is elsewhere else response

    def set(self, key, value, timeout=DEFAULT_TIMEOUT, version=None, client=None, **kwargs):
        """Store `value` and return whether Redis took it."""
        current, is_page = _page.get(), key.startswith(PAGES)
        if current is None or not (is_page or key.startswith(HEADERS)):
            return super().set(key, value, timeout, version, client, **kwargs)
        lookup = current.lookups.get(self.alias)
        if lookup is None or type(lookup.token) is not int:
            # Other levels keep this page. Or the lookup failed, and an invalidation
            # may have been lost in the same way.
            return False
        if not is_page:
            return super().set(key, value, timeout, version, client, **kwargs)
        if value.cookies:
            # A cookie is for one visitor. Django stores it unless the page varies on Cookie.
            return False
        # ConditionalGetMiddleware would compute the same for each hit: a hash of the whole page.
        set_response_etag(value)
        if self.before_storing:
            self.before_storing(value)
        return self.store(
            *(current, (self.alias, None), key, current.generation),
            *((lookup.token, renewal(timeout), value), timeout, version),
            **kwargs,
        )


class FragmentClient(GenerationClient):
    """
    OPTIONS["CLIENT_CLASS"] of the fragments: a deleted one can't be put back by a slow reader.

    {% cache %} looks, renders and stores. When the key is deleted while it renders, a plain
    client stores what was right before. Here delete() sets a token besides, and a value
    counts only together with the token that was there when its reader looked. For text
    alone: anything else is a miss, and incr() and decr() need a plain client.
    """

    def get(self, key, default=None, version=None, client=None):
        """Return the value at `key`, or `default` when it is missing or deleted since."""
        current = _page.get()
        if current is None:  # Nobody would give up a right.
            return self.get_many([key], version, client).get(key, default)
        current.leases[key] = None  # For a lookup that fails.
        entry, token = self.look([key, generation_key(key)], version)
        value = self._answer(current, key, entry, token, version)
        return default if value is MISSING else value

    def _valid(self, key, entry, token, version):
        """valid(), and a miss for what is no fragment: templates would fail on it."""
        value, is_due = valid(entry, token)
        if value is MISSING or isinstance(value, str):
            return value, is_due
        self.misfit(key, version)
        return MISSING, False

    def _answer(self, current, key, entry, token, version):
        """Return the fragment at `key`, or MISSING if this request is to build it."""
        current.leases[key] = token
        value, is_due = self._valid(key, entry, token, version)
        place = (self.alias, key)
        if (value is not MISSING and not is_due) or place in current.rights:
            return value
        if value is MISSING and entry is not None:
            self.tell("refused", self.make_key(key, version))

        def second_look(values):
            entry, current.leases[key] = map(self.read, values)
            again, is_due = self._valid(key, entry, current.leases[key], version)
            return MISSING if is_due else again

        names = [self.make_key(name, version) for name in (key, generation_key(key))]
        value = self.build_or_wait(current, place, key, token, value, second_look, names, version)
        if value is MISSING:
            self.see_to_token(key, current.leases[key], version)
        return value

    def get_many(self, keys, version=None, client=None):
        """Return a dict of the keys that have a value, and were not deleted since."""
        keys, values = list(keys), {}
        leases = getattr(_page.get(), "leases", {})
        leases |= dict.fromkeys(keys)  # For a lookup that fails.
        found = super().get_many([*keys, *map(generation_key, keys)], version, client)
        for key in keys:
            token, entry = found.get(generation_key(key)), found.get(key)
            value, _ = self._valid(key, entry, token, version)
            if value is not MISSING:
                values[key], leases[key] = value, token
                continue
            if entry is not None:
                self.tell("refused", self.make_key(key, version))
            with suppress(ConnectionInterrupted):  # What the other keys have is right.
                leases[key] = self.token(generation_key(key), token, version)
        return values

    def set(self, key, value, timeout=DEFAULT_TIMEOUT, version=None, client=None, **kwargs):
        """Store `value` and return whether Redis took it."""
        if key.startswith(GENERATION):
            return super().set(key, value, timeout, version, client, **kwargs)
        self.check_breaker()
        current = _page.get() or Page("", {})
        if key not in current.leases:
            found = SafeClient.get(self, generation_key(key), None, version)
            current.leases[key] = self.token(generation_key(key), found, version)
        token = current.leases.pop(key)
        if type(token) is not int:
            return False
        if timeout is DEFAULT_TIMEOUT:
            timeout = self._backend.default_timeout
        entry = (token, renewal(timeout), value)
        place = (self.alias, key)
        return self.store(current, place, key, key, entry, timeout, version, **kwargs)

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
