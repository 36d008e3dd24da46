"""The logs of calls: their events, which any process may read, and what it needs to render them.

An Idempotency-Key stands for a call with a log. Logs are kept for hours: those of an API key are
counted, so that they leave room for others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from redis import Redis

from gateway.errors import GatewayError
from gateway.queue import commands, keys, scripts
from gateway.queue.protocol import OUTCOME, Event, Outcome

LOG_SHARE = 0.5  # calls with a log are accepted while less of Redis' maxmemory is used
LOG_BYTES = 1_000  # that such a call takes besides its log


class LogsFull(Exception):
    """Raised when the logs of an API key hold as many `bytes` as they may now, or more.

    The first of them expires in `reset_ms` milliseconds. `bytes` is negative while Redis uses more
    than LOG_SHARE of its maxmemory, whoever fills it.
    """

    def __init__(self, bytes: int, reset_ms: int) -> None:
        super().__init__(bytes, reset_ms)
        self.bytes, self.reset_ms = bytes, reset_ms


def store_logged_request(redis: Redis, key: str, address: str, value: bytes, budget: float) -> None:
    """Store what is needed to render a logged call of a key, which may live `budget` seconds.

    Raises LogsFull and RedisError.
    """
    remember(redis, key, "", b"", address, value, budget)


def remember(
    redis: Redis,
    key: str,
    idempotent: str,
    value: bytes,
    address: str,
    request: bytes,
    budget: float,
) -> bytes | None:
    """Note which call an Idempotency-Key stands for, and `store_logged_request` for it.

    `idempotent` is its name (`keys.idempotent`), "" for a call without one; `value` is the call's
    id and a fingerprint. Returns the value that was noted before, and has noted nothing then.
    Raises what `store_logged_request` does.
    """
    call_id = address.rpartition(":")[2]
    seconds = math.ceil(budget) + keys.log_seconds(address) + keys.GRACE_SECONDS
    names = [keys.logged_request(call_id), *_logs(key), keys.growing_logs(key)]
    if idempotent:
        names.append(idempotent)
    args = [request, seconds, call_id, LOG_SHARE, keys.log(""), keys.job(""), LOG_BYTES]
    reply = scripts.REMEMBER(redis, names, [*args, value, keys.IDEMPOTENT_SECONDS])
    if isinstance(reply, list):
        raise LogsFull(*reply[1:])
    return cast("bytes | None", reply)


def _logs(key: str) -> list[str]:
    return [keys.logs(key), keys.log_sizes(key)]


def idempotent_calls(redis: Redis, names: Sequence[str]) -> list[str]:
    """Return the ids of the calls that these Idempotency-Keys stand for, of those that are known.

    `names` are those in Redis (`keys.idempotent`). Raises RedisError.
    """
    values = cast("list[bytes | None]", redis.mget(names)) if names else []
    return [value.decode().partition(" ")[0] for value in values if value is not None]


def forget(redis: Redis, idempotent: str, value: bytes) -> None:
    """Let the next request with an Idempotency-Key make a call, if it stands for this one.

    Raises RedisError.
    """
    scripts.FORGET(redis, [idempotent], [value])


def refuse_logged(
    redis: Redis, key: str, address: str, request: bytes, error: GatewayError
) -> None:
    """End the log of a call of a key that was not queued, for those who follow it.

    `request` replaces what is needed to render the call. Raises RedisError.
    """
    call_id = address.rpartition(":")[2]
    scripts.FORGET_LOG(redis, _logs(key), [call_id])
    scripts.run(redis, commands.emit_command(address, [commands.refusal_event(call_id, error)]))
    redis.expire(keys.log(call_id), keys.REFUSED_SECONDS)
    redis.set(keys.logged_request(call_id), request, ex=keys.REFUSED_SECONDS)


def logged_request(redis: Redis, call_id: str) -> bytes | None:
    """Return what was stored to render a logged call; None if it is not known any more.

    Raises RedisError.
    """
    return cast("bytes | None", redis.get(keys.logged_request(call_id)))


def logged_outcome(redis: Redis, call_id: str) -> tuple[Outcome, int] | None:
    """Return the outcome of a logged call, and when it ended in Unix seconds; None: it has not.

    Raises RedisError.
    """
    entries = cast("list[Any]", redis.xrevrange(keys.log(call_id), count=1))
    if not entries:
        return None
    entry_id, fields = entries[0]
    event = Event.decode(fields[b"e"])
    if event.kind != OUTCOME:
        return None
    return commands.decode_outcome(event.payload), int(entry_id.partition(b"-")[0]) // 1000


def delete_log(redis: Redis, key: str, call_id: str) -> None:
    """Delete the log of a call of a key, and what renders it. Raises RedisError."""
    names = [*_logs(key), keys.log(call_id), keys.logged_request(call_id)]
    scripts.FORGET_LOG(redis, names, [call_id])
