"""
A circuit breaker: while Redis is down, every call fails at once instead of after a timeout.

A page may call Redis twenty times. With short timeouts alone it would wait twenty times.
Here the first failure opens the breaker for the whole process. While it is open, each call
raises BreakerOpen in microseconds, and a background thread asks Redis twice a second. When
Redis answers, the on_close() callbacks run, and then the breaker closes.

- Breaker (in circuit.py) is the state: one per server, for all aliases, pools and threads.
- BreakerRetry is the `retry` object of each connection. redis-py runs every connect, command,
  pipeline and lock through it.
- BreakerPool is the connection pool that gives its connections a BreakerRetry.

The breaker opens when the server can't be used: see is_outage(). It stays closed when Redis
refuses a single command, because its memory is full (OOM), its user may not send it (NOPERM),
or it doesn't know it. The cache hides these errors, so they are logged once per minute and kind.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from redis.backoff import NoBackoff
from redis.connection import Connection, ConnectionPool, UnixDomainSocketConnection
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    InvalidResponse,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from resilient_cache.circuit import Breaker, breaker_at, on_close
from resilient_cache.compat import connection_options, server_message
from resilient_cache.errors import OUTAGES, BreakerOpen, is_outage
from resilient_cache.log import Quiet, hidden_error

__all__ = [
    "Breaker",
    "BreakerOpen",
    "BreakerPool",
    "BreakerRetry",
    "HandshakeRefused",
    "breaker_at",
    "is_outage",
    "on_close",
]

# Options for TCP sockets, which are a TypeError for the connection of a Unix socket.
TCP_OPTIONS = ("socket_keepalive", "socket_keepalive_options", "socket_type")

T = TypeVar("T")
_log = Quiet(60)


class HandshakeRefused(ConnectionError):
    """Redis accepted the connection, but refused to log in or to select the database."""


class BreakerRetry(Retry):
    """
    Runs the calls of one connection while the breaker is closed.

    After a timeout it tries nothing again. After a lost connection it tries once more, at
    once: a connection that was idle during a restart of Redis is dead, though Redis is up.
    Before a new connection is used in place of a lost one, Breaker.reconnect() runs.
    """

    def __init__(self, pool: "BreakerPool") -> None:
        super().__init__(NoBackoff(), retries=1)
        self.pool = pool
        self._epoch = pool.breaker.epoch
        self._is_connected = self._was_lost = False
        self._closings = 0

    def connected(self) -> None:
        """Note that the connection is made, in place of a lost one unless it was closed."""
        self._was_lost |= self._is_connected and self._closings == self.pool.closings
        self._is_connected, self._closings = True, self.pool.closings

    def __deepcopy__(self, memo: dict[int, Any]) -> "BreakerRetry":
        # redis-py copies the object for each connection. The breaker must stay the same.
        return type(self)(self.pool)

    def call_with_retry(
        self,
        do: Callable[[], T],
        fail: Callable[..., object],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
        **kwargs: Any,
    ) -> T:
        """
        Return do(), or raise its error after telling the breaker.

        `fail` is a function of redis-py that closes the connection, so that the next do()
        opens a new one. `kwargs` takes the parameters of future versions.
        """

        def close(error: Exception, failures: int) -> None:
            self._is_connected = False
            if with_failure_count:
                fail(error, failures)
            else:
                fail(error)

        breaker = self.pool.breaker
        if breaker.is_open:
            breaker.check()
        epoch = breaker.epoch
        if self._epoch != epoch:
            # This connection is older than the last outage. The other end may have forgotten
            # it without a word, or it may lead to a server that has become a replica.
            self._epoch = epoch
            close(ConnectionError("The connection is older than the last outage"), 1)
        if self._was_lost:
            self._was_lost = False
            epoch = self._epoch = breaker.reconnect(epoch)
            breaker.check()
        failures = 0
        while True:
            try:
                answer = do()
            except BreakerOpen:
                raise  # do() had to connect, and another call has opened the breaker.
            except (*OUTAGES, ResponseError) as error:
                if is_retryable and not is_retryable(error):
                    raise
                if isinstance(error, ResponseError) and not is_outage(error):
                    breaker.refuse(error)
                    raise
                failures += 1
                is_lost = type(error) is ConnectionError  # Not one of its subclasses.
                if failures == 1 and is_lost and not breaker.is_open:
                    was_connected = self._is_connected
                    close(error, failures)
                    if was_connected:
                        epoch = self._epoch = breaker.reconnect(epoch)
                    continue
                breaker.fail(error, epoch, self.pool)
                close(error, failures)
                if isinstance(error, InvalidResponse):
                    # django-redis hides a ConnectionError from its caller, but not this one.
                    raise ConnectionError(f"This is not a Redis server: {error}") from error
                raise
            if isinstance(answer, list):
                # A pipeline may return errors among its replies.
                for reply in answer:
                    if isinstance(reply, ResponseError) and is_outage(reply):
                        breaker.fail(reply, epoch, self.pool)
                        close(reply, failures)
                    elif isinstance(reply, ResponseError):
                        breaker.refuse(reply)
            return answer


class BreakerPool(ConnectionPool):
    """OPTIONS["CONNECTION_POOL_CLASS"]: a pool whose connections use their server's breaker."""

    def __init__(self, connection_class: type[Any] = Connection, **kwargs: Any) -> None:
        if issubclass(connection_class, UnixDomainSocketConnection):
            address = kwargs.get("path", "")
            kwargs = {name: kwargs[name] for name in kwargs if name not in TCP_OPTIONS}
        else:
            address = f"{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}"
        self.breaker = breaker_at(address)
        self.closings = 0  # How often disconnect() was called.
        kwargs = connection_options() | {"redis_connect_func": self.shake_hands} | kwargs
        super().__init__(connection_class, **kwargs | {"retry": BreakerRetry(self)})
        self.breaker.pool = self

    def shake_hands(self, connection: Any) -> None:
        """
        Log in and select the database on a new connection of redis-py.

        A server that refuses HELLO (a proxy, Redis 5) is asked in RESP2 from then on. Raises
        HandshakeRefused if that doesn't help.
        """
        self._log_in(connection)
        if isinstance(connection.retry, BreakerRetry):  # Not that of a probe.
            connection.retry.connected()

    def _log_in(self, connection: Any) -> None:
        connection.handshake_metadata = None  # redis-py sets it to the answer to HELLO.
        try:
            try:
                connection.on_connect()
            except (ResponseError, AuthenticationError) as error:
                if connection.protocol == 2 or connection.handshake_metadata is not None:
                    raise  # It was not HELLO that failed.
                if isinstance(error, AuthenticationError) and not (
                    # The password was in HELLO, and the server says that it had none.
                    connection.password and server_message(error).startswith("NOAUTH")
                ):
                    raise
                self._log_hello(error)
                self.connection_kwargs["protocol"] = connection.protocol = 2
                connection.on_connect()
        except ResponseError as error:
            raise HandshakeRefused(server_message(error)) from error
        except (AttributeError, TypeError, ValueError) as error:  # +OK in answer to HELLO.
            raise HandshakeRefused(f"This is not a Redis server: {error}") from error

    def _log_hello(self, error: RedisError) -> None:
        _log.warning(
            "Redis at %s refuses HELLO (%s). RESP2 is used instead. "
            "Add the option protocol=2 to its URL: redis://...?protocol=2",
            self.breaker.address,
            server_message(error),
            kind=self.breaker.address,
        )

    def disconnect(self, inuse_connections: bool = False) -> None:
        """
        Close the connections that are idle, or with `inuse_connections` all of them.

        redis-py closes all by default. Those in use belong to other threads, which would take
        this for an outage.
        """
        self.closings += 1
        super().disconnect(inuse_connections=inuse_connections)

    def make_connection(self) -> Any:
        """Return a new connection. Raises ConnectionError if max_connections are in use."""
        try:
            return super().make_connection()
        except ConnectionError as error:
            hidden_error(self.breaker.address, error, str(error))
            raise
