"""
A django-redis client that takes what Redis returns for untrusted.

A value that SafeSerializer can't read, or a key that holds another type than a string, is
a miss, and the key is deleted: get_or_set() and add() store with SET NX, and would find the
key taken for as long as the broken value lives.
"""

import os
from contextlib import suppress

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django_redis.client import DefaultClient
from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import RedisError, ResponseError

from mysite.caches.log import Quiet
from mysite.caches.serializer import FORMAT, SafeSerializer, UnreadableValue, ValueTooLarge

# Lookups that are kept as Redis is sent them: what is asked for most is asked for again.
MOST_PACKED = 500

_MISSING = object()
_log = Quiet(10)  # Seconds: each process has its own, and the second line tells little more.


class SafeClient(DefaultClient):
    """
    OPTIONS["CLIENT_CLASS"] of every alias; goes with SafeSerializer.

    It also raises ConnectionInterrupted where DefaultClient lets the error of redis-py
    out, so that IGNORE_EXCEPTIONS covers touch(), ttl(), pttl(), persist(), expire() and
    pexpire(). Locks, the iterators (iter_keys, sscan_iter) and the set, hash and sorted
    set commands of django-redis stay uncovered.
    """

    def __init__(self, server, params, backend):
        super().__init__(server, params, backend)
        self.serializer = SafeSerializer(params.get("OPTIONS", {}))
        self._idle = []
        self._packed = {}

    def decode(self, value):
        """Return the value that Redis holds as `value`. Raises UnreadableValue."""
        if isinstance(value, bytes) and value.startswith(FORMAT):
            # DefaultClient first tries int(), which takes as long as reading a fragment.
            return self.serializer.loads(value)
        return super().decode(value)

    def decode_at(self, name, value):
        """Return the value that Redis holds at `name` as `value`. Raises UnreadableValue."""
        return self.decode(value)

    def read(self, value):
        """Return the value that Redis holds as `value`, or None: nothing, or nothing readable."""
        try:
            return None if value is None else self.decode(value)
        except UnreadableValue:
            return None

    def tell(self, what, *names):
        """Tell an instrumented client what only the cache knows of these keys in Redis."""
        if note := getattr(self.get_client(write=False), what, None):
            for name in names:
                note(name)

    def get(self, key, default=None, version=None, client=None):
        """Return the value at `key`, or `default` when it is missing or can't be read."""
        try:
            return super().get(key, default, version, client)
        except UnreadableValue as error:
            reason = error
        except ConnectionInterrupted as error:
            if not _is_wrong_type(error.__cause__):
                raise
            reason = error.__cause__
        self.discard(key, reason, version, client)
        distrust(self.get_client(write=True))
        return default

    def get_many(self, keys, version=None, client=None):
        """Return a dict of the keys that have a readable value."""
        keys = list(keys)
        try:
            return super().get_many(keys, version, client)
        except UnreadableValue:
            self.tell("again", *(self.make_key(key, version) for key in keys))
            # At least one of them. One at a time, to find and delete it. By name of the
            # class, because the get() of a subclass may well use get_many().
            found = {key: SafeClient.get(self, key, _MISSING, version, client) for key in keys}
            return {key: value for key, value in found.items() if value is not _MISSING}

    def look(self, keys, version=None):
        """
        Return the values at `keys`, None for each that has none: get_many() for every hit.

        Nothing of redis-py comes between that nobody needs here: it takes a third of the time.
        """
        return self.look_at([self.make_key(key, version) for key in keys], keys, version)

    def look_at(self, names, keys, version=None):
        """look(), for whoever knows already what Redis calls these keys."""
        redis = self.get_client(write=False)
        try:
            # An instrumented client is asked in its own way, so that it sees the command.
            if watch := getattr(redis, "watch_mget", None):
                found = watch(names, self._mget)
            else:
                found = self._mget(names)[0]
            return [
                None if value is None else self.decode_at(name, value)
                for name, value in zip(names, found, strict=True)
            ]
        except RedisError as error:
            raise ConnectionInterrupted(connection=redis) from error
        except UnreadableValue:
            self.tell("again", *names)
            found = SafeClient.get_many(self, keys, version)
            return [found.get(key) for key in keys]

    def _mget(self, names, left=()):
        """Return what Redis has at `names`, and the milliseconds that each key in `left` has."""
        pool = self.get_client(write=False).connection_pool
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = None
        if connection is None or connection.pid != os.getpid():
            # Of its own, and none of the pool: those are checked before each use. Here it
            # is enough that a lost connection is tried once more.
            connection = pool.connection_class(**pool.connection_kwargs)
        packed = self._pack(connection, tuple(names), tuple(left))

        def exchange():
            connection.send_packed_command((packed,), False)
            answer = connection.read_response()
            return answer, [_answer(connection) for _ in left]

        answers = connection.retry.call_with_retry(exchange, lambda error: connection.disconnect())
        # Not after an error: there may be an answer left that nobody has read.
        self._idle.append(connection)
        return answers

    def _pack(self, connection, names, left):
        """
        Return MGET of `names` and PTTL of each in `left` in Redis's protocol.

        In one piece: of two, Redis answers the first before it has seen the second.
        """
        packed = self._packed.get((names, left))
        if packed is None:
            commands = [("MGET", *names), *(("PTTL", key) for key in left)]
            packed = b"".join(part for args in commands for part in connection.pack_command(*args))
            if len(self._packed) >= MOST_PACKED:
                self._packed.clear()
            self._packed[names, left] = packed
        return packed

    def has_key(self, key, version=None, client=None):
        """Return whether get() would find a value. Reads the value, as EXISTS can't tell."""
        return SafeClient.get(self, key, _MISSING, version, client) is not _MISSING

    def add(self, key, value, timeout=DEFAULT_TIMEOUT, version=None, client=None):
        """Store `value` unless the key has a readable one. Return whether it was stored."""
        added = super().add(key, value, timeout, version, client)
        if not added and not self.has_key(key, version, client):
            added = super().add(key, value, timeout, version, client)
        return added

    def set(self, key, value, timeout=DEFAULT_TIMEOUT, version=None, client=None, **kwargs):
        """
        Store `value` and return whether Redis took it.

        With a `client`, such as a pipeline, it is tried though Redis refused a write just now.
        """
        if client is None:
            self.check_breaker()
        try:
            return super().set(key, value, timeout, version, client, **kwargs)
        except ValueTooLarge as error:
            name = self.make_key(key, version)
            _log.warning("The value for %.200r is not cached: %s", str(name), error)
            if not kwargs.get("nx"):
                # Otherwise the value that this one should have replaced would live on.
                self.delete(key, version=version, client=client)
            return False

    def set_many(self, data, timeout=DEFAULT_TIMEOUT, version=None, client=None):
        """Store a dict of values. See set()."""
        if client is None:
            self.check_breaker()
        return super().set_many(data, timeout, version, client)

    def check_breaker(self):
        """
        Raise ConnectionInterrupted while Redis is taken to be down or to refuse writes.

        It would be raised anyway, but after the value was packed: 10 ms for a search index.
        """
        breaker = breaker_behind(self.get_client(write=True))
        try:
            if breaker is not None:
                breaker.check_writes()
        except RedisError as error:
            raise ConnectionInterrupted(connection=None) from error

    def incr(self, key, delta=1, version=None, client=None, ignore_key_check=False):
        """
        Add `delta` to the number at `key` and return the sum.

        Raises ValueError when the key is missing, as Django has it, and also when it
        holds something else than a number, which is deleted: the next add() counts anew.
        """
        return self._count(key, version, client, super().incr, delta, ignore_key_check)

    def decr(self, key, delta=1, version=None, client=None):
        """Subtract `delta` from the number at `key`. See incr()."""
        return self._count(key, version, client, super().decr, delta)

    def _count(self, key, version, client, count, delta, *args):
        if client is None:
            self.check_breaker()
        try:
            total = count(key, delta, version, client, *args)
            if type(total) is int:
                return total
            reason = f"{type(total).__name__} is no counter"
        except (TypeError, ArithmeticError) as error:
            # DefaultClient has added delta to something that is no number.
            reason = error
        self.discard(key, reason, version, client)
        raise ValueError(f"Key {key!r} has no whole number")

    def touch(self, key, timeout=DEFAULT_TIMEOUT, version=None, client=None):
        """Give `key` a new timeout. Return whether the key exists."""
        return self._interruptible(super().touch, key, timeout, version, client)

    def ttl(self, key, version=None, client=None):
        """Return the seconds `key` has left: 0 when it is missing, None for no timeout."""
        return self._interruptible(super().ttl, key, version, client)

    def pttl(self, key, version=None, client=None):
        """Return the milliseconds `key` has left. See ttl()."""
        return self._interruptible(super().pttl, key, version, client)

    def persist(self, key, version=None, client=None):
        """Take the timeout off `key`."""
        return self._interruptible(super().persist, key, version, client)

    def expire(self, key, timeout, version=None, client=None):
        """Give `key` a new timeout in seconds."""
        return self._interruptible(super().expire, key, timeout, version, client)

    def pexpire(self, key, timeout, version=None, client=None):
        """Give `key` a new timeout in milliseconds."""
        return self._interruptible(super().pexpire, key, timeout, version, client)

    def _interruptible(self, method, *args):
        try:
            return method(*args)
        except RedisError as error:
            raise ConnectionInterrupted(connection=args[-1]) from error

    def misfit(self, key, version=None):
        """Take note that the value of `key` can be read, and that nobody here has written it."""
        name = self.make_key(key, version)
        _log.warning("The value of %.200r is of another shape, it is built anew", str(name))
        distrust(self.get_client(write=True))

    def discard(self, key, reason, version=None, client=None):
        """
        Delete a key whose value is of no use, and say so in the log.

        Somebody may have replaced the value since it was read. That one is lost too: a
        cache miss, which is cheaper than a script that compares before it deletes.
        """
        name = self.make_key(key, version)
        _log.warning("The value of %.200r can't be read, deleting it: %s", str(name), reason)
        self.tell("refused", name)
        with suppress(ConnectionInterrupted):
            self.delete(key, version=version, client=client)


def breaker_behind(redis):
    """Return the breaker of a client of redis-py, or None: another pool has none."""
    return getattr(redis.connection_pool, "breaker", None)


def distrust(redis):
    """Tell the breaker of a client of redis-py that its Redis holds what nobody here wrote."""
    if breaker := breaker_behind(redis):
        breaker.distrust()


def _answer(connection):
    """Return the next answer of Redis, a refusal too: PTTL may be forbidden."""
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


def _is_wrong_type(error):
    return isinstance(error, ResponseError) and str(error).startswith("WRONGTYPE")
