"""
The state of a circuit breaker: is this Redis server up, and when may it be used again?

breaker.py connects it to redis-py.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError
from redis.retry import Retry

from resilient_cache.compat import connection_options, server_message
from resilient_cache.errors import BreakerOpen, is_outage
from resilient_cache.log import Quiet, hidden_error

# Seconds from one probe to the next. Each process probes for itself.
PERIOD = 0.5

# Seconds after a refused write (OOM) in which refuses_writes is true.
WRITE_PAUSE = 0.5

# The DEL of this key changes nothing. It shows whether a server takes writes again.
PROBE_KEY = "resilient_cache:probe"

Callback = TypeVar("Callback", bound=Callable[["Breaker"], object])


class Breaker:
    """What this process knows about one Redis server. Safe to use from any thread."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.period = PERIOD
        self.pool: ConnectionPool | None = None  # The probe connects as this pool does.
        self.is_open = False
        # Counts outages and lost connections. A call or a connection that began in an earlier
        # epoch proves nothing about the server as it is now.
        self.epoch = 0
        self._error = ""
        self._since = time.time()
        self._needs_write = False  # Whether a probe must find that Redis takes writes.
        self._writes_refused_until = 0.0  # By time.monotonic().
        self._log, self._callback_log = Quiet(1), Quiet(60)
        self._opening_is_logged = False
        self.forget_threads()

    def forget_threads(self) -> None:
        """Start with new locks and no thread, as a forked child has to."""
        self._lock = threading.Lock()
        self._probe_lock = threading.Lock()
        self._reconnect_lock = threading.Lock()
        self._reconnecting: int | None = None  # The thread that runs reconnect().
        self._prober: threading.Thread | None = None
        # The thread that may talk to Redis while the breaker is open: the one that probes.
        # It loses this permission when anything fails meanwhile.
        self._allowed: int | None = None

    def state(self) -> dict[str, Any]:
        """Return {"redis": "up" or "down", "since": Unix time, "error": text or None}."""
        with self._lock:
            redis, error = ("down", self._error) if self.is_open else ("up", None)
            return {"redis": redis, "since": self._since, "error": error}

    @property
    def refuses_writes(self) -> bool:
        """Whether Redis refused to store something less than WRITE_PAUSE seconds ago."""
        return time.monotonic() < self._writes_refused_until

    def check(self) -> None:
        """Raise BreakerOpen unless this thread may talk to Redis now."""
        if self.is_open and self._allowed != threading.get_ident():
            self._start_prober()
            raise BreakerOpen(f"Redis at {self.address} is considered down ({self._error})")

    def fail(
        self, error: BaseException, epoch: int | None = None, pool: ConnectionPool | None = None
    ) -> None:
        """
        Open the breaker because of `error`, or keep it open if a probe is about to close it.

        A call passes the `epoch` in which it began: an error from an earlier epoch is ignored.
        Probes connect with the settings of `pool`.
        """
        with self._lock:
            if epoch not in (None, self.epoch):
                return
            self._error = f"{type(error).__name__}: {server_message(error)}"
            self._allowed = None
            if self.is_open:
                return
            self._needs_write = isinstance(error, ResponseError)
            self.pool = pool or self.pool
            self._since = time.time()
            self.epoch += 1
            self.is_open = True
        self._log_opening()
        self._start_prober()

    def reconnect(self, epoch: int) -> int:
        """
        Call the on_close() callbacks because a connection was lost, and return the new epoch.

        Redis may have restarted with an older copy of its data, or another server may have
        taken its place. All connections of `epoch` are replaced, so the threads that lost one
        at the same time call the callbacks once. If a callback fails, the breaker opens.
        """
        if self._reconnecting == threading.get_ident():
            return self.epoch  # A callback has lost its connection. Its call is tried again.
        with self._reconnect_lock:
            with self._lock:
                if self.is_open:
                    return epoch  # This connection is older than the outage.
                if epoch != self.epoch:
                    return self.epoch
                self.epoch += 1
                epoch = self.epoch
            self._reconnecting = threading.get_ident()
            try:
                for callback in _callbacks:
                    callback(self)
            except Exception as error:
                self.fail(error)
            finally:
                self._reconnecting = None
            return epoch

    def refuse(self, error: ResponseError) -> None:
        """Log that Redis refused one command. After OOM, refuses_writes is true for a moment."""
        if isinstance(error, OutOfMemoryError):
            self._writes_refused_until = time.monotonic() + WRITE_PAUSE
        if not isinstance(error, NoScriptError):  # redis-py sends the script and tries again.
            hidden_error(self.address, error, server_message(error))

    def probe(self) -> bool:
        """
        Ask Redis now if the breaker is open, and close it if Redis can be used.

        Return whether the breaker is closed. Takes at most one timeout for connecting, one
        for each answer, and the time of the on_close() callbacks.
        """
        if self._allowed == threading.get_ident():
            return True  # A callback of this very probe asks.
        if not self._probe_lock.acquire(blocking=False):
            with self._probe_lock:  # Another thread is asking. Its answer will do.
                return not self.is_open
        try:
            return not self.is_open or self._probe()
        finally:
            self._probe_lock.release()

    def _probe(self) -> bool:
        this_thread = self._allowed = threading.get_ident()
        try:
            self._ask()
            for callback in _callbacks:
                self._call(callback)
        except Exception as error:
            self.fail(error)
        with self._lock:
            closes = self._allowed == this_thread
            if closes:
                seconds = time.time() - self._since
                self._allowed, self._since, self.is_open = None, time.time(), False
        if not closes:
            if not self._opening_is_logged:
                self._log_opening()
        elif self._opening_is_logged:
            line = "Redis at %s is back after %.1f s"
            self._log.warning(line, self.address, seconds, always=True)
        return closes

    def _ask(self) -> None:
        """Raise an error unless Redis can be used."""
        if self.pool is None:
            return  # No connection was ever made.
        # A connection of its own, because those of the pool may be older than the outage.
        # Its retry object knows no breaker.
        kwargs = connection_options() | self.pool.connection_kwargs
        kwargs["retry"] = Retry(NoBackoff(), 0)
        pool = ConnectionPool(self.pool.connection_class, **kwargs)
        client = Redis(connection_pool=pool)
        try:
            client.delete(PROBE_KEY) if self._needs_write else client.ping()
        except ResponseError as error:
            if is_outage(error):
                raise
            # Otherwise the error is an answer, too. The user may not send PING, for example.
        finally:
            pool.disconnect()

    def _call(self, callback: Callable[["Breaker"], object]) -> None:
        try:
            self.check()
            callback(self)
        except Exception as error:
            self._callback_log.warning(
                "Redis at %s answers, but is not used until %s() succeeds (%s: %s)",
                self.address,
                callback.__qualname__,
                type(error).__name__,
                error,
            )
            raise

    def _log_opening(self) -> None:
        # A warning, because Django's default LOGGING shows nothing less.
        self._opening_is_logged = self._log.warning(
            "Redis at %s is down, pages are built without it (%s)", self.address, self._error
        )

    def _start_prober(self) -> None:
        if self._prober is not None:
            return
        with self._lock:
            if self._prober is None and self.is_open:
                name = f"redis-probe-{self.address}"
                prober = threading.Thread(target=self._keep_probing, name=name, daemon=True)
                try:
                    prober.start()
                except RuntimeError:
                    return  # The system has no thread left. The next call tries again.
                self._prober = prober

    def _keep_probing(self) -> None:
        """Probe once per period until the breaker has closed."""
        pause = self.period
        while True:
            time.sleep(pause)
            with self._lock:
                if not self.is_open:
                    self._prober = None
                    return
            start = time.monotonic()
            self.probe()
            # From one probe to the next it is one period, however long the answer takes.
            pause = max(0, self.period - (time.monotonic() - start))


def on_close(callback: Callback) -> Callback:
    """
    Call `callback(breaker)` whenever Redis can be used again.

    After an outage it runs before the breaker closes, in the thread of the probe, which may
    use the caches. After a lost connection it runs in the thread that lost it. It is for what
    did not reach Redis, or was lost there. If it raises, or Redis fails meanwhile, the breaker
    is open and the next probe calls it again. Also a decorator. Returns `callback`.
    """
    _callbacks.append(callback)
    return callback


def breaker_at(address: str) -> Breaker:
    """Return the breaker of the server at `address`: "host:port", or the path of a socket."""
    with _registry_lock:
        if address not in _breakers:
            _breakers[address] = Breaker(address)
        return _breakers[address]


_breakers: dict[str, Breaker] = {}
_callbacks: list[Callable[[Breaker], object]] = []
_registry_lock = threading.Lock()


def _after_fork() -> None:
    global _registry_lock
    _registry_lock = threading.Lock()
    for breaker in _breakers.values():
        breaker.forget_threads()


os.register_at_fork(after_in_child=_after_fork)
