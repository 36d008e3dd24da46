"""Redis clients: the only place that decides how long to wait for Redis and how often to try.

redis-py retries every command ten times by default, also pushes whose reply was lost, and waits
five seconds in a blocking read whatever its BLOCK says. So every client here sets both.

A process that stood still while it waited has not looked: it gives Redis as long again.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, Full, LifoQueue
from typing import Any

import hiredis
from redis import BlockingConnectionPool, Connection, Redis
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.exceptions import ConnectionError, DataError, RedisError, ResponseError, TimeoutError
from redis.retry import Retry

from gateway import descriptors
from gateway.settings import Settings
from gateway.stalls import Stalls

log = logging.getLogger(__name__)

# How long this process waits for Redis, in seconds.
CONNECT_SECONDS = 1.0  # for a connection
# For a reply that a caller waits for; for a connection of a pool of which none gets a reply.
IMPATIENT_SECONDS = 1.5
BLOCK_SECONDS = 1.0  # how long a blocking command may block in Redis
BLOCKING_READ_SECONDS = 4.0  # for the reply to a blocking command; after it, Redis is away

# Large commands are sent in pieces, for each of which Redis has as long as for a reply.
PIECE_BYTES = 262_144
SEND_BYTES = 65_536  # of small commands that are sent at once
# What the system takes ahead of the network. By default it takes megabytes, and Redis' time for
# its reply begins before they are sent.
UNSENT_BYTES = 131_072
NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", None)

IDLE_SECONDS = 0.5  # a dedicated connection unused for so long is checked before it is used

# redis-py reads a file for each connection that is given none. The command that sends it must
# stay: its reply comes after TLS 1.3's tickets, which the pool would take for an unread reply.
DRIVER = DriverInfo()

Command = tuple[Any, ...]


class OutOfDescriptors(ConnectionError):
    """Raised where this process, and not Redis, is why there is no connection."""


def patience(size: int) -> float:
    """Return how many seconds a short command of `size` bytes may take, its reply included."""
    return IMPATIENT_SECONDS * (1 + size // PIECE_BYTES)


def commands(settings: Settings, size: int, stalls: Stalls | None = None) -> Redis:
    """Return a client for short commands: at most `size` connections, no retries.

    Where Redis is silent, a command raises redis' ConnectionError or TimeoutError within about
    CONNECT_SECONDS + IMPATIENT_SECONDS, and the time that this process stood still by `stalls`. It
    waits for a free connection for as long as others get replies.
    """
    return _client(settings, size, IMPATIENT_SECONDS, stalls)


def blocking(settings: Settings, stalls: Stalls | None = None) -> Redis:
    """Return a client of one connection for commands that block at most BLOCK_SECONDS in Redis."""
    return _client(settings, 1, BLOCKING_READ_SECONDS, stalls)


class DedicatedConnection:
    """One connection to Redis that a single greenlet uses; it connects when first used.

    A round trip that fails closes the connection, since replies may still be on their way; the
    next one connects again. `redis` supplies the address and the waiting times. Its pool only
    makes the connection: a pool takes 0.1 ms of CPU for each round trip (see BatchWriter).
    """

    def __init__(self, redis: Redis) -> None:
        self._connection = redis.connection_pool.make_connection()
        self._used = 0.0

    def connect(self) -> None:
        """Connect, unless connected; replace a connection that Redis closed while it was idle.

        Raises ConnectionError and TimeoutError. Nothing was sent then.
        """
        connection = self._connection
        if connection.is_connected and time.monotonic() - self._used > IDLE_SECONDS:
            try:
                closed = connection.can_read()  # no reply is expected: only the end can be there
            except (RedisError, OSError):
                closed = True
            if closed:
                connection.disconnect()
        if not connection.is_connected:
            _blaming(connection.connect)

    def round_trip(self, commands: Sequence[Command]) -> list[Any]:
        """Send the commands and return the reply to each, in one round trip.

        The reply to a command that Redis refuses is its ResponseError. Raises ConnectionError and
        TimeoutError: some of the commands may have run then.
        """
        self.connect()
        connection = self._connection
        try:
            connection.send_packed_command(_packed(commands))
            replies: list[Any] = []
            for _ in commands:
                try:
                    replies.append(connection.read_response())
                except ResponseError as error:
                    replies.append(error)
        except BaseException:
            connection.disconnect()
            raise
        self._used = time.monotonic()
        return replies

    def execute(self, *command: Any) -> Any:
        """Run one command and return its reply. Raises RedisError."""
        [reply] = self.round_trip([command])
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    def disconnect(self) -> None:
        """Close the connection; a round trip of another greenlet ends with ConnectionError."""
        self._connection.disconnect()


def _packed(commands: Sequence[Command]) -> list[bytes | memoryview]:
    """Return the commands as what is sent at once: small ones together, large ones in pieces.

    redis-py looks at each argument twice, and sends 6 kB at once. Raises DataError for an argument
    that Redis cannot be sent.
    """
    pieces: list[bytes | memoryview] = []
    small: list[bytes] = []
    size = 0
    for command in commands:
        try:
            packed = hiredis.pack_command(command)
        except TypeError as error:
            raise DataError(*error.args) from None
        if size + len(packed) > SEND_BYTES and small:
            pieces.append(b"".join(small))
            small, size = [], 0
        if len(packed) > SEND_BYTES:
            view = memoryview(packed)
            pieces += (view[at : at + PIECE_BYTES] for at in range(0, len(packed), PIECE_BYTES))
        else:
            small.append(packed)
            size += len(packed)
    if small:
        pieces.append(b"".join(small))
    return pieces


class Pool(BlockingConnectionPool):
    """A pool that loses no slot: redis-py 8.1.0 keeps that of a connection it cannot make."""

    def make_connection(self) -> Any:
        """Return a new connection, which is not connected yet."""
        try:
            return super().make_connection()  # type: ignore[no-untyped-call]
        except BaseException:
            with contextlib.suppress(Full):  # not called for a slot
                self.pool.put_nowait(None)
            raise

    def get_connection(self, *args: Any, **options: Any) -> Any:
        """Return a connected connection. Raises ConnectionError and TimeoutError."""
        return _blaming(super().get_connection, *args, **options)


def _blaming(connect: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Connect; raise OutOfDescriptors where that is the reason of a failure."""
    try:
        return connect(*args, **options)
    except (ConnectionError, OSError) as error:
        if descriptors.exhausted():
            log.error("no file descriptors are left: at most %d", descriptors.limit())
            raise OutOfDescriptors("this process has no file descriptors left") from error
        raise


class _FreeConnections(LifoQueue[Any]):
    """The free connections of a pool. Who waits for one gives up when none has had a reply.

    A pool that is just small, or a process that stood still, is no reason to call Redis away.
    """

    def __init__(self, size: int, stalls: Stalls) -> None:
        super().__init__(size)
        self._stalls = stalls
        self._working = 0  # connections that were returned in working order

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if item is not None and item.is_connected:  # a failure would have closed it
            self._working += 1
        super().put(item, block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        while True:
            working, stood_still = self._working, self._stalls.total
            try:
                return super().get(block, timeout)
            except Empty:
                if self._working == working and self._stalls.seconds() == stood_still:
                    raise


def _patient(kind: type[Connection], stalls: Stalls) -> type[Connection]:
    """Return a kind of connection that does not count the time its own process stood still.

    redis-py closes a connection whose read times out. This one goes on reading it after a stall.
    """

    class Patient(kind):  # type: ignore[misc, valid-type]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            if issubclass(kind, Connection) and NOTSENT_LOWAT is not None:  # else not TCP
                self.socket_keepalive_options |= {NOTSENT_LOWAT: UNSENT_BYTES}

        def connect(self) -> None:
            stood_still = stalls.total
            try:
                super().connect()
            except TimeoutError:
                if stalls.seconds() == stood_still:
                    raise
                super().connect()

        def read_response(
            self, *args: Any, disconnect_on_error: bool = True, **options: Any
        ) -> Any:
            waited = 0.0
            while True:
                stood_still = stalls.total
                try:
                    return super().read_response(*args, disconnect_on_error=False, **options)
                except ResponseError:
                    raise  # a reply
                except BaseException as error:
                    waited += self.socket_timeout - (stalls.seconds() - stood_still)
                    if isinstance(error, TimeoutError) and waited < self.socket_timeout:
                        continue
                    if disconnect_on_error:
                        self.disconnect()
                    raise

    return Patient


def _client(settings: Settings, size: int, read_seconds: float, stalls: Stalls | None) -> Redis:
    stalls = stalls or Stalls()
    pool = Pool.from_url(
        settings.redis_url,
        max_connections=size,
        timeout=IMPATIENT_SECONDS,
        queue_class=partial(_FreeConnections, stalls=stalls),
        socket_timeout=read_seconds,
        socket_connect_timeout=CONNECT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        protocol=2,
        driver_info=DRIVER,
        **_transport(settings),
    )
    pool.connection_class = _patient(pool.connection_class, stalls)
    return Redis(connection_pool=pool)


def _transport(settings: Settings) -> dict[str, Any]:
    # An option of another kind of connection is a TypeError in redis-py.
    if settings.redis_url.startswith("unix:"):
        return {}
    if not settings.redis_url.startswith("rediss:") or settings.redis_verify_tls:
        return {"socket_keepalive": True}
    return {"socket_keepalive": True, "ssl_cert_reqs": "none", "ssl_check_hostname": False}
