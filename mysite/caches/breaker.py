"""
A circuit breaker: a Redis that is away costs one short timeout, not one a call.

With short timeouts alone, each of the twenty calls of a page waits in vain. Here the first
failure opens the breaker for the whole process, and while it is open every call fails at
once, in microseconds. A thread of its own asks Redis once a period, so no visitor waits
for that either. When Redis answers, what could not reach it is done again (on_close), and
then the breaker closes.

To use it: OPTIONS["CONNECTION_POOL_CLASS"] = "mysite.caches.breaker.BreakerPool", with
socket_timeout and socket_connect_timeout in OPTIONS["CONNECTION_POOL_KWARGS"].

- Breaker is the state: one for each server, however many aliases and pools there are.
- BreakerRetry is the way in: redis-py sends every connect, command, pipeline and lock
  through the retry object of its connection.
- BreakerPool gives the connections of an alias their BreakerRetry.

It opens after a timeout, a connection that is refused or is lost twice in a row, a host
name that is not found, a rejected password, LOADING, too many clients, and an answer that
is not Redis's. It stays closed when Redis refuses a command (OOM, READONLY, NOPERM,
MISCONF): reading still works then, and the refusal comes at once.

A refused write pauses the writes of this process for WRITE_PAUSE seconds. Each miss would try
three, at a round trip and an exception each, while a page that is built without a cache needs
none. check_writes() is for whoever stores something; nobody calls it before an invalidation.

It also knows whether Redis has lost a connection lately, and whether it is unsteady: restarted
again and again, or overwritten by somebody. Whoever would wait for what another request stores
asks that first: see stampede.py.
"""

import contextlib
import ipaddress
import os
import socket
import threading
import time
from concurrent.futures import Future, wait
from weakref import WeakValueDictionary

from django_redis import get_redis_connection
from redis.backoff import NoBackoff
from redis.connection import (
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.exceptions import (
    ConnectionError,
    InvalidResponse,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
)
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from mysite.caches.log import Quiet

# Seconds that the breaker stays open before Redis is asked again, by each process by itself. A
# shorter time finds Redis sooner; a request that takes less than this pays for one timeout at
# most. While one process still does without, its pages take the machine from the others.
PERIOD = 0.5

# Seconds without another attempt to store something after Redis refused one.
WRITE_PAUSE = 0.5

# A Redis that was restarted twice within this many seconds is unsteady for as long: whatever
# restarts one that ends at once does so within it. So is one that holds what nobody here wrote.
# After one restart waits are short for as long, and after an idle timeout that closed a connection.
UNSTEADY = 10
# Seconds in which all losses are one: a connection may be made anew to a Redis that is ending.
SAME_LOSS = 0.5

# Seconds for which all who want the address of a host wait for the same lookup.
SHARED_LOOKUP = 1


class BreakerOpen(ConnectionError):
    """Redis was not asked, because a moment ago it did not answer."""


class WritesPaused(ConnectionError):
    """Nothing was stored, because a moment ago Redis refused to."""


class Breaker:
    """What this process knows of one Redis server. Safe to use from any thread."""

    def __init__(self, address):
        self.address = address
        self.period = PERIOD
        self.pool = None  # The probe connects as this pool does.
        self.is_open = False
        # How often the breaker has opened. What began in an earlier epoch says nothing of
        # this one: neither a late timeout nor an idle connection, which may lead nowhere.
        self.epoch = 0
        self._error = ""
        self._since = time.time()
        self._log = Quiet()
        self._callback_log = Quiet(60)
        self._refusal_log = Quiet(60)
        self._opening_was_logged = False
        # No lock guards it: a float is replaced as one, and the latest refusal is right.
        self._pause_ends = 0  # of time.monotonic()
        self.forget_losses()
        self.forget_threads()

    def forget_threads(self):
        """Start with new locks and no probe. A forked child has none of its parent's threads."""
        self._lock = threading.Lock()
        self._probe_lock = threading.Lock()
        self._prober = None
        self._may_pass = None  # The thread that may talk to Redis while the breaker is open.

    def state(self):
        """
        Return a dict: redis (up or down), since (Unix time), error, and writes.

        `writes` are refused within WRITE_PAUSE seconds after one was, else taken.
        """
        writes = "refused" if self.pauses_writes else "taken"
        with self._lock:
            redis, error = ("down", self._error) if self.is_open else ("up", None)
            return {"redis": redis, "since": self._since, "error": error, "writes": writes}

    def check(self):
        """Raise BreakerOpen unless this thread may talk to Redis."""
        if not self.is_open or self._may_pass == threading.get_ident():
            return
        if self._prober is None:
            self._start_prober()
        raise BreakerOpen(f"Redis at {self.address} is taken to be down ({self._error})")

    @property
    def pauses_writes(self):
        """Whether Redis refused a write a moment ago, so that the next one is not worth it."""
        return time.monotonic() < self._pause_ends

    def check_writes(self):
        """Raise BreakerOpen as check() does, or WritesPaused."""
        self.check()
        if self.pauses_writes:
            raise WritesPaused(f"Redis at {self.address} refused a write a moment ago")

    def resume_writes(self):
        """End the pause: for whoever knows that Redis takes writes again."""
        self._pause_ends = 0

    @property
    def is_unsteady(self):
        """
        Whether Redis is restarted again and again, or holds what nobody here wrote.

        What somebody is building is lost with it, so there is nothing to wait for.
        """
        return time.monotonic() < self._unsteady_ends

    @property
    def has_lost(self):
        """
        Whether Redis lost a connection within UNSTEADY. If it does so again, it is unsteady.

        Who waits then has waited in vain, and begins to build that much later: waits are short.
        """
        return time.monotonic() < self._lost_at + UNSTEADY

    def distrust(self):
        """Take note that Redis holds what nobody here wrote: whoever did may overwrite more."""
        self._unsteady_ends = time.monotonic() + UNSTEADY

    def lose(self, since):
        """
        Take note that Redis has lost a connection that was made at `since` (time.monotonic()).

        A restart is noticed by each connection when it is next used. Those that are older than
        the last loss or the last outage tell nothing new. One restart makes nothing unsteady:
        afterwards everything is missing, and a guard against stampedes is needed most. It is
        kept for pages that are built within a timeout: see has_lost.
        """
        now = time.monotonic()
        with self._lock:
            if since <= self._noticed or now < self._noticed + SAME_LOSS:
                return
            if now < self._lost_at + UNSTEADY:
                self._unsteady_ends = now + UNSTEADY
            self._lost_at = self._noticed = now

    def forget_losses(self):
        """Take Redis for steady, whatever was noticed so far."""
        # All of time.monotonic(): until when, the last loss, and what older things don't tell.
        self._unsteady_ends, self._lost_at, self._noticed = 0, -UNSTEADY, -SAME_LOSS

    def fail(self, error, epoch=None):
        """
        Open the breaker because of `error`, in a call that began in `epoch`.

        Without `epoch` it opens in any case, and if a probe is about to close it, it stays
        open. That is for a caller who knows better, such as an invalidation that a full Redis
        refused: nothing may be read until it is redone.
        """
        description = f"{type(error).__name__}: {error}"
        with self._lock:
            if self._may_pass == threading.get_ident():
                # The probe has failed, and what else it wanted to do need not wait in vain.
                self._may_pass, self._error = None, description
                return
            if self.is_open:
                if epoch is None:
                    self._may_pass = None  # A probe may have redone the rest already.
                return  # Another call was first.
            if epoch not in (None, self.epoch):
                return  # This one began too long ago to tell.
            self._error, self._since = description, time.time()
            self.epoch += 1
            self.is_open = True
        self._log_opening()
        self._start_prober()

    def _log_opening(self):
        # Opening and closing are both warnings: without LOGGING, Django shows nothing less.
        self._opening_was_logged = self._log.warning(
            "Redis at %s is down, pages are built without it (%s)", self.address, self._error
        )

    def refuse(self, error):
        """
        Take note of `error` if it is Redis's refusal of a command, and log it.

        Otherwise IGNORE_EXCEPTIONS would hide it for ever. A refused write pauses the others.
        """
        # In a pipeline redis-py writes the whole command before the reason, with its value.
        reason = str(error).rpartition(" of pipeline caused error: ")[2]
        is_of_writes = isinstance(error, _NO_WRITES) or reason.startswith(_NO_WRITES_EITHER)
        if isinstance(error, NoPermissionError):
            # Whatever else is forbidden concerns that command alone.
            is_of_writes = "'set'" in reason
        elif not is_of_writes and not reason.startswith(_NO_DATABASE):
            return
        what = "a command"
        if is_of_writes:
            self._pause_ends = time.monotonic() + WRITE_PAUSE
            what = "to store anything, and is read as before"
        self._refusal_log.warning("Redis at %s refuses %s: %s", self.address, what, reason)

    def probe(self):
        """
        Ask Redis now, and close the breaker if it answers. Return whether to use Redis.

        Takes the time of one timeout at most, and of the on_close callbacks.
        """
        if self._may_pass == threading.get_ident():
            return True  # A callback of this very probe asks.
        lock = self._probe_lock
        if not lock.acquire(blocking=False):
            with lock:  # Somebody else is asking: take their answer.
                return not self.is_open
        try:
            return self._probe() if self.is_open else True
        finally:
            lock.release()

    def _probe(self):
        self._may_pass = threading.get_ident()
        try:
            self._ping()
            for callback in _callbacks:
                if self._may_pass is not None:
                    self._call_back(callback)
        except Exception as error:
            self.fail(error)
        with self._lock:
            answered, self._may_pass = self._may_pass is not None, None
            if answered:
                seconds = time.time() - self._since
                self.is_open, self._since, self._prober = False, time.time(), None
                self._noticed = time.monotonic()
        if not answered:
            if not self._opening_was_logged:
                self._log_opening()
            return False
        if self._opening_was_logged:
            self._log.warning(
                "Redis at %s is back after %.1f s", self.address, seconds, always=True
            )
        return True

    def _call_back(self, callback):
        try:
            callback(self)
        except Exception as error:
            self._callback_log.warning(
                "Redis at %s answers, but stays unused until %s() works (%s: %s)",
                self.address,
                callback.__qualname__,
                type(error).__name__,
                error,
            )
            raise

    def _ping(self):
        # A connection of its own: one from the pool may be left over from before.
        connection = self.pool.connection_class(**self.pool.connection_kwargs)
        try:
            connection.connect()
            connection.send_command("PING")
            connection.read_response()
        except ResponseError:
            pass  # Not allowed to PING, for one. That is an answer too.
        finally:
            connection.disconnect()

    def _start_prober(self):
        with self._lock:
            if self._prober is not None or not self.is_open:
                return
            name = f"redis-probe-{self.address}"
            prober = threading.Thread(target=self._keep_probing, name=name, daemon=True)
            try:
                prober.start()
            except RuntimeError:
                return  # No more threads to be had. The next call tries again.
            self._prober = prober

    def _keep_probing(self):
        pause = self.period
        while True:
            time.sleep(pause)
            with self._lock:
                if self._prober is not threading.current_thread():
                    return
            start = time.monotonic()
            self.probe()
            # From one question to the next it is a period, however long the answer takes.
            pause = max(0, self.period - (time.monotonic() - start))


class BreakerRetry(Retry):
    """
    Lets the calls of one connection through while the breaker is closed.

    Nothing is tried again after a timeout. After a lost connection it is, once and at once:
    a connection that idled through a restart of Redis is dead, and Redis is well.
    """

    def __init__(self, breaker):
        super().__init__(NoBackoff(), retries=1)
        self.breaker = breaker
        self._epoch = breaker.epoch

    def __deepcopy__(self, memo):
        # redis-py copies the object for each connection. They must not get a breaker each.
        return type(self)(self.breaker)

    def call_with_retry(self, do, fail, is_retryable=None, with_failure_count=False):
        """Return do(), or raise what it raised after telling the breaker."""
        breaker = self.breaker
        if breaker.is_open:
            breaker.check()
        epoch = breaker.epoch
        if self._epoch != epoch:
            # Connected before the last outage. Packets may have been dropped for so long
            # that the other end has forgotten it, and a call would wait for a timeout.
            self._epoch = epoch
            stale = ConnectionError("Connected before the last outage")
            _drop_connection(fail, stale, 1, with_failure_count)
        failures = 0
        while True:
            try:
                answer = do()
                if type(answer) is list:
                    # A pipeline may have its errors among its replies.
                    for reply in answer:
                        if isinstance(reply, ResponseError):
                            breaker.refuse(reply)
                return answer
            except (*self._supported_errors, InvalidResponse) as error:
                if is_retryable and not is_retryable(error):
                    raise
                failures += 1
                if failures == 1 and type(error) is ConnectionError and not breaker.is_open:
                    _drop_connection(fail, error, failures, with_failure_count)
                    continue
                breaker.fail(error, epoch)
                _drop_connection(fail, error, failures, with_failure_count)
                if isinstance(error, InvalidResponse):
                    # django-redis ignores a lost connection, but not this.
                    raise ConnectionError(f"That is not Redis: {error}") from error
                raise
            except ResponseError as error:
                breaker.refuse(error)
                raise


# What Redis says when it takes no writes at all. redis-py has no class for the latter: Redis
# can't save to its disk, or has too few replicas.
_NO_WRITES = (OutOfMemoryError, ReadOnlyError)
_NO_WRITES_EITHER = ("MISCONF", "NOREPLICAS")
# To SELECT: there are fewer databases than levels, or it is a Redis Cluster.
_NO_DATABASE = ("DB index", "SELECT is not allowed")


def _drop_connection(fail, error, failures, with_failure_count):
    """Call redis-py's `fail`, which closes the connection; the next call opens a new one."""
    if with_failure_count:
        fail(error, failures)
    else:
        fail(error)


class BreakerPool(ConnectionPool):
    """OPTIONS["CONNECTION_POOL_CLASS"]: a pool whose connections share their server's breaker."""

    def __init__(self, connection_class=Connection, **kwargs):
        address = kwargs.get("path") or "{host}:{port}".format(
            host=kwargs.get("host", "localhost"), port=kwargs.get("port", 6379)
        )
        self.breaker = _breaker_at(address)
        # Connecting is then two round trips, HELLO and SELECT, instead of five. The ones
        # left out tell Redis the client's name, twice, and ask Redis Enterprise to announce
        # its maintenance, which may look up the host name and fails anywhere else.
        kwargs.setdefault("driver_info", None)
        kwargs.setdefault("maint_notifications_config", MaintNotificationsConfig(enabled=False))
        kwargs["retry"] = BreakerRetry(self.breaker)
        super().__init__(_INSTEAD_OF.get(connection_class, connection_class), **kwargs)
        self.breaker.pool = self


class _TellsLoss:
    """Tells the breaker when it has to connect anew."""

    _connected_at = None  # of time.monotonic()

    def connect_check_health(self, *args, **kwargs):
        is_new = not self.is_connected
        # Another pool may have connections of this class, and a retry object that knows no breaker.
        breaker = getattr(self.retry, "breaker", None)
        if is_new and self._connected_at is not None and breaker is not None:
            breaker.lose(self._connected_at)
        super().connect_check_health(*args, **kwargs)
        if is_new:
            self._connected_at = time.monotonic()


class _BoundedLookup(_TellsLoss):
    """Gives the lookup of the host name the timeout that the socket has, and it has not."""

    def connect_check_health(self, *args, **kwargs):
        if not self.is_connected:
            _look_up(self.host, self.port, self.socket_connect_timeout)
        super().connect_check_health(*args, **kwargs)


class BoundedConnection(_BoundedLookup, Connection):
    """redis://, where looking up the host name can't take longer than connecting."""


class BoundedSSLConnection(_BoundedLookup, SSLConnection):
    """rediss://, where looking up the host name can't take longer than connecting."""


class TellingUnixConnection(_TellsLoss, UnixDomainSocketConnection):
    """unix://, which tells the breaker when it is lost, as the others do."""


_INSTEAD_OF = {
    Connection: BoundedConnection,
    SSLConnection: BoundedSSLConnection,
    UnixDomainSocketConnection: TellingUnixConnection,
}


def _look_up(host, port, timeout):
    """
    Raise TimeoutError when looking up `host` takes longer than `timeout` seconds.

    When it doesn't, redis-py looks it up once more, which takes as long as that did. Callers
    share one thread a host. It may be stuck in the resolver for ten seconds, after an answer
    is to be had again: who comes a second after it began has another one.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return
    with _registry_lock:
        lookup, until = _lookups.get(host, (None, 0))
        if time.monotonic() >= until:
            lookup = Future()
            name = f"redis-lookup-{host}"
            thread = threading.Thread(
                target=_resolve, args=(host, port, lookup), name=name, daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                return  # No more threads to be had: then without the limit.
            _lookups[host] = lookup, time.monotonic() + SHARED_LOOKUP
    if wait([lookup], timeout).not_done:
        raise TimeoutError(f"Looking up {host} takes longer than {timeout} s")


def _resolve(host, port, lookup):
    # redis-py meets the same error a moment later, and reports it.
    with contextlib.suppress(OSError, UnicodeError):
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    with _registry_lock:
        if _lookups.get(host, (None, 0))[0] is lookup:
            del _lookups[host]
    lookup.set_result(None)


def on_close(callback):
    """
    Call `callback(breaker)` each time Redis has answered, before anybody else may use it.

    For what could not reach Redis during the outage. The callback runs in the thread of
    the probe and may use the caches. When it raises, or Redis fails it, the breaker stays
    open and the next probe calls it again. IGNORE_EXCEPTIONS hides refusals such as OOM
    from it, so look at what set() and delete() return. Also a decorator.
    """
    _callbacks.append(callback)
    return callback


def breaker_of(alias="default"):
    """Return the breaker that the cache `alias` goes through. Does not talk to Redis."""
    return get_redis_connection(alias).connection_pool.breaker


def _breaker_at(address):
    with _registry_lock:
        return _breakers.setdefault(address, Breaker(address))


_breakers = WeakValueDictionary()  # A breaker lives as long as a pool of its server.
_callbacks = []
_lookups = {}
_registry_lock = threading.Lock()


def _after_fork():
    global _registry_lock
    _registry_lock = threading.Lock()
    _lookups.clear()
    for breaker in _breakers.values():
        breaker.forget_threads()


os.register_at_fork(after_in_child=_after_fork)
