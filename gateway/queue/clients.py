"""Redis clients: the only place that decides how long to wait for Redis and how often to try.

redis-py retries every command ten times by default, also pushes whose reply was lost, and waits
five seconds in a blocking read whatever its BLOCK says. So every client here names both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import BlockingConnectionPool, Connection, Redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool
from redis.exceptions import ResponseError
from redis.retry import Retry

from gateway.settings import Settings

CONNECT_SECONDS = 1.0
IMPATIENT_SECONDS = 1.5  # a caller waits for this reply
BLOCK_SECONDS = 1.0  # longest a blocking read is asked to wait by us
BLOCKING_READ_SECONDS = 4.0  # a blocking read that stays silent longer has lost its Redis


def commands(settings: Settings, size: int) -> Redis:
    """A client for short commands: a bounded pool, no retries.

    Raises redis' ConnectionError or TimeoutError within about CONNECT_SECONDS + IMPATIENT_SECONDS.
    """
    return _client(settings, size, IMPATIENT_SECONDS)


def blocking(settings: Settings) -> Redis:
    """A client of one connection for blocking reads of at most BLOCK_SECONDS."""
    return _client(settings, 1, BLOCKING_READ_SECONDS)


def _client(settings: Settings, size: int, read_seconds: float) -> Redis:
    pool = BlockingConnectionPool.from_url(
        settings.redis_url,
        max_connections=size,
        timeout=IMPATIENT_SECONDS,
        socket_timeout=read_seconds,
        socket_connect_timeout=CONNECT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        protocol=2,
        **_transport(settings),
    )
    return Redis(connection_pool=pool)


def _transport(settings: Settings) -> dict[str, Any]:
    # An option of another kind of connection is a TypeError in redis-py.
    if settings.redis_url.startswith("unix:"):
        return {}
    if not settings.redis_url.startswith("rediss:") or settings.redis_verify_tls:
        return {"socket_keepalive": True}
    return {"socket_keepalive": True, "ssl_cert_reqs": "none", "ssl_check_hostname": False}


def take(redis: Redis) -> Connection:
    """A connection of the client's pool, for a reader or writer that speaks to it directly."""
    pool: ConnectionPool = redis.connection_pool
    return pool.get_connection()


def round_trip(connection: Connection, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The reply to each command, in one round trip; a refused one's reply is its ResponseError.

    Raises ConnectionError and TimeoutError: then some commands may have been run.
    """
    connection.send_packed_command(connection.pack_commands(commands))
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(connection.read_response())
        except ResponseError as error:
            replies.append(error)
    return replies


def give_back(redis: Redis, connection: Connection, *, broken: bool = False) -> None:
    """Return what `take` gave; a connection with a reply still on its way must be `broken`."""
    if broken:
        connection.disconnect()
    redis.connection_pool.release(connection)
