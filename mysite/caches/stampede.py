"""
A guard against stampedes: of all who miss the same key at once, one builds the value.

The right to build is a key beside the value's, `building:<key>`, set with NX and a timeout:

1. Who misses tries to take the right, and looks a second time in the same round trip:
   whoever had it before may have stored the value since the first look. Without the
   second look everybody who had missed would build after all, one after the other.
2. Who gets it builds, stores the value and gives up the right, in one round trip.
3. Who doesn't get it waits until the value is there, and takes it. When the right is free
   and there is no value (its holder died, or what it built was dropped meanwhile), exactly
   one of those who wait gets it next.
4. Who built something that can't be kept (an error, a page with a cookie) leaves a mark in
   place of the right for a moment. All who wait go on at once, and not one by one.
5. In the last part of an entry's time one request takes the right and builds anew. The
   others get the entry, which is still valid, and nobody waits.

A right that its holder could not give up, because Redis went away meanwhile, is given up when
Redis is back. So is one that may have been taken: a Redis that hung carries out what it was
sent, for somebody who has long gone on.

A right that can't be had because Redis is away or full is no reason to wait: the value is
then built at once, as without a guard. For a moment after such a refusal nobody even tries. Nor
does anybody wait while Redis is restarted again and again or overwritten by somebody: it
forgets who builds, and after each wait there would be another one. After a single
restart, which may be the first of many, nobody waits longer for a value than for a Redis that
hangs. What is built within that time is still built once.
"""

import secrets
import time
from collections import deque
from contextlib import suppress

from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import RedisError, ResponseError

from mysite.caches import REDIS_TIMEOUT
from mysite.caches.breaker import on_close
from mysite.caches.client import SafeClient, breaker_behind, distrust
from mysite.caches.shapes import fits

BUILDING = "building:"
TOKEN = b"right:"  # What the value of a right begins with. Anything else is nobody's.

# Seconds that a right lasts. When its holder dies, that is how long the others wait for
# nothing; when building takes longer, a second one begins.
BUILD_TIMEOUT = 5
# Seconds after which anybody builds without the right. Each who waits occupies a thread. When
# Redis has just lost a connection it is REDIS_TIMEOUT.
WAIT = 8
# Seconds between two looks at a right: the first pause, and what they grow to.
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.05

# The mark of a holder who has nothing to keep, and the seconds it stays.
NOTHING, NOTHING_TIMEOUT = b"nothing", 1

MISSING = object()

# The part of its time in which an entry is renewed, with the limits in seconds. Entries
# with a shorter timeout than SHORT are not: they would be renewed all the time.
EARLY, LEAST, MOST, SHORT = 0.1, 1, 10, 5
NEVER = float("inf")

# Somebody else may hold the right by now: only who knows its token may touch it.
GIVE_UP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""


class Right:
    """The right to build what is missing at one key. `client` is a redis-py client."""

    def __init__(self, client, name):
        self.client, self.name = client, name
        self.token = TOKEN + secrets.token_bytes(8)

    def give_up(self, pipeline=None):
        """Let others build. With a pipeline, when that is executed."""
        (pipeline or self.client).eval(GIVE_UP, 1, self.name, self.token, "", 0)

    def nothing_to_keep(self):
        """Let all who wait go on at once. Never raises: the right ends by itself, too."""
        milliseconds = NOTHING_TIMEOUT * 1000
        try:
            self.client.eval(GIVE_UP, 1, self.name, self.token, NOTHING, milliseconds)
        except RedisError as error:
            self.leave(error)

    def leave(self, error):
        """Give it up later, if `error` says that Redis is away. Refused, it was not taken."""
        if not isinstance(error, ResponseError):
            _left.append(self)


# Rights that somebody may have and nobody uses. More than this end by themselves.
_left = deque(maxlen=1000)


@on_close
def give_up_what_was_left(breaker):
    """Let nobody wait for those who could not give up their right during the outage."""
    for right in _left.copy():
        if breaker_behind(right.client) is breaker:
            with suppress(ResponseError):  # Not allowed to, for one. Then it ends by itself.
                right.give_up()
            with suppress(ValueError):  # So many came meanwhile that it is out.
                _left.remove(right)


def renewal(timeout):
    """Return the Unix time from which an entry with this timeout (seconds) is renewed."""
    if timeout is None or timeout < SHORT:
        return NEVER
    return time.time() + timeout - window(timeout)


def window(timeout):
    """Return the seconds before its end in which an entry is renewed."""
    return min(MOST, max(LEAST, timeout * EARLY))


def take_turn(client, name, keys, accept, prepare=None, wait=True):
    """
    Return (value, None) if somebody built it, (MISSING, right) if it is ours to build, or
    (MISSING, None) if it is to be built without a right, or not to be waited for.

    `client` is a SafeClient, `name` and `keys` are as Redis has them. `accept` is called with
    what Redis has at `keys`, and returns the value or MISSING. `prepare` adds commands to the
    pipeline. Raises ConnectionInterrupted.
    """
    client.check_breaker()
    redis = client.get_client(write=True)
    right = Right(redis, name)
    began = time.monotonic()
    try:
        while True:
            pipeline = redis.pipeline(transaction=False)
            if prepare:
                prepare(pipeline)
            pipeline.set(name, right.token, nx=True, px=BUILD_TIMEOUT * 1000)
            pipeline.mget(*keys, name)
            try:
                *_, taken, (*values, holder) = pipeline.execute()
            except ResponseError:  # The right was refused, and the keys were read all the same.
                client.tell("again", *keys)
                raise
            client.tell("again", *keys)
            value = accept(values)
            if value is not MISSING:
                if taken:
                    right.give_up()
                return value, None
            if taken:
                return MISSING, right
            if not wait or holder == NOTHING:
                return MISSING, None
            is_garbage = holder is not None and not holder.startswith(TOKEN)
            if is_garbage:
                _delete_garbage(redis, name)
            if _patience(redis, began) <= 0:
                return MISSING, None
            if not is_garbage:
                _wait_for_change(redis, name, holder, began)
    except RedisError as error:
        right.leave(error)
        raise ConnectionInterrupted(connection=redis) from error


def _wait_for_change(redis, name, holder, began):
    """Return when the right at `name` is no longer that of `holder`. It moves no value."""
    pause = FIRST_PAUSE
    while (left := _patience(redis, began)) > 0:
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE)
        try:
            now = redis.get(name)
            if now is None or now != holder:  # It may have ended between SET and MGET.
                return
        except ResponseError:  # No text at all, so it is nobody's, and would never end.
            _delete_garbage(redis, name)
            return


def _patience(redis, began):
    """Return the seconds for which somebody who waits since `began` still may."""
    breaker, patience = breaker_behind(redis), WAIT
    if breaker is not None:
        if breaker.is_unsteady:
            return 0
        if breaker.has_lost:
            patience = REDIS_TIMEOUT
    return began + patience - time.monotonic()


def _delete_garbage(redis, name):
    """Delete what stands in place of a right. The right that was there is lost."""
    distrust(redis)
    redis.delete(name)


def store(client, key, value, timeout, version=None, right=None, prepare=None, **kwargs):
    """
    Store `value` and give up the right, in one round trip. Return whether Redis took it.

    What is too large to be stored leaves the right where it is. Raises ConnectionInterrupted.
    """
    client.check_breaker()
    redis = client.get_client(write=True)
    pipeline = redis.pipeline(transaction=False)
    if prepare:
        prepare(pipeline)
    first = len(pipeline)
    # By name of the class: a subclass may well use this function for its set().
    queued = SafeClient.set(client, key, value, timeout, version, client=pipeline, **kwargs)
    if right and queued:
        right.give_up(pipeline)
    try:
        replies = pipeline.execute()
    except RedisError as error:
        raise ConnectionInterrupted(connection=redis) from error
    return bool(queued and replies[first])


class NotKept(Exception):
    """Raised by a build() for a value that is right, and not worth storing."""

    def __init__(self, value):
        super().__init__()
        self.value = value


def get_or_build(cache, key, build, timeout, version=None, shape=None):
    """
    Return the value at `key`. When it is missing, one of all who ask calls build().

    cache.get_or_set() with the guard. Entries are written and read by this function alone:
    each has the time of its renewal beside the value. An exception of build() is raised for
    the one who called it, and the others go on.

    With a `shape` (see shapes.py), a value that somebody else wrote into Redis and that looks
    different is missing, instead of an error wherever it is used.
    """
    client = cache.client
    entry = cache.get(key, version=version)
    kept, is_due = _read(entry, shape)
    if kept is MISSING and entry is not None:
        client.misfit(key, version)
        client.tell("refused", client.make_key(key, version))
    if is_due:
        # touch() may have given it more time since it was stored.
        left = cache.pttl(key, version=version)
        is_due = left is not None and left <= window(timeout) * 1000
    if kept is not MISSING and not is_due:
        return kept

    def second_look(values):
        value, is_due = _read(client.read(values[0]), shape)
        return MISSING if is_due else value

    # Redis that takes no right takes no value, which would be packed for nothing.
    right, may_store = None, False
    with suppress(ConnectionInterrupted):
        building, name = (client.make_key(name, version) for name in (f"{BUILDING}{key}", key))
        value, right = take_turn(client, building, [name], second_look, wait=kept is MISSING)
        may_store = True
        if value is not MISSING:
            if kept is MISSING:
                client.tell("collapsed", name)
            return value
    if right is None and kept is not MISSING:
        return kept
    if kept is not MISSING:
        client.tell("refused", name)
    try:
        value = build()
        with suppress(ConnectionInterrupted):
            entry = renewal(timeout), value
            if may_store and store(client, key, entry, timeout, version, right):
                right = None
        return value
    except NotKept:
        # No mark either: endless keys would leave endless marks.
        if right:
            try:
                right.give_up()
            except RedisError as error:
                right.leave(error)
            right = None
        raise
    finally:
        if right:
            right.nothing_to_keep()


def _read(entry, shape):
    """Return the value of an entry of get_or_build(), or MISSING, and whether it is due."""
    match entry:
        case (float(renew_at), value) if shape is None or fits(value, shape):
            return value, time.time() >= renew_at
    return MISSING, False
