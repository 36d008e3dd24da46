"""How a call gets into the queue and out of it again: the web side's way to Redis.

With `workers`, the only place that knows RQ: jobs are written by a script, in the form that RQ 3
reads (`rq info` and `Job.fetch` tell the truth about them).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from redis import Redis
from rq.utils import utcformat

from gateway import keyspace, scripts
from gateway.channel import OUTCOME, Event, Outcome, Plan, ProtocolError
from gateway.errors import (
    AuthenticationFailed,
    CallCancelled,
    GatewayError,
    Overloaded,
    QueueUnavailable,
    ReplyLost,
)
from gateway.keys import KeyRecord, incorrect
from gateway.settings import Settings

TASK = b"workers.tasks.run"

log = logging.getLogger(__name__)

UNAVAILABLE_SECONDS = 2  # to wait before the next try
MEMORY_SECONDS = 5  # least, where Redis is full: of what, nobody knows


@dataclass(frozen=True, slots=True)
class JobState:
    """What Redis says of a job; status is "" where it knows none."""

    status: str = ""
    worker: str = ""
    claim: str = ""


def now_text() -> str:
    """The present in RQ's time format."""
    return str(utcformat(datetime.now(UTC)))


def submit_command(
    settings: Settings, plan: Plan, body: bytes, key: KeyRecord, budget: float, expiry: float = 0
) -> tuple[object, ...]:
    """The command that puts a call into the queue; `budget` is its life in seconds.

    Run twice it queues the call once; run after `expiry`, in Redis' time (0: never), it does not,
    since nobody waits for its reply any more. Where the reply is lost the call may be queued all
    the same: then it is to be cancelled until that succeeds.
    """
    call_id = plan.call_id
    return scripts.SUBMIT.command(
        [
            keyspace.job(call_id),
            keyspace.call(call_id),
            keyspace.key(key.public_id),
            keyspace.cancel(call_id),
            keyspace.RQ_QUEUE,
            keyspace.BELL,
            keyspace.QUEUED_BYTES,
            keyspace.RQ_QUEUES,
        ],
        [
            call_id,
            plan.encode(body),
            key.hmac,
            plan.web,
            int(budget * 1000),
            settings.queue_limit,
            settings.queue_bytes,
            now_text(),
            b'["%b",null,["%b"],{}]' % (TASK, call_id.encode()),  # RQ's form of a call
            keyspace.GRACE_SECONDS,
            keyspace.QUEUE,
            keyspace.SHARED_SECONDS,
            int(expiry * 1000),
            plan.kind,
        ],
    )


def refusal(reply: object, key: KeyRecord, seconds: Callable[[int], float]) -> GatewayError | None:
    """Why the submit script did not take a call, or None if it did.

    `seconds(depth)` says how long to wait where so many calls are queued.
    """
    if reply == b"ok":
        return None
    if reply == b"key":  # revoked since this process last looked
        return AuthenticationFailed(incorrect(key.public_id))
    if reply == b"cancelled":
        return CallCancelled()
    if reply == b"late":
        return QueueUnavailable(retry_after=UNAVAILABLE_SECONDS)
    reason, _, depth = reply.partition(b" ") if isinstance(reply, bytes) else (b"", b"", b"")
    if reason in (b"calls", b"bytes", b"memory"):
        least = MEMORY_SECONDS if reason == b"memory" else 0
        return Overloaded(retry_after=max(seconds(int(depth or 0)), least))
    log.error("submit: refused (%s)", type(reply).__name__)
    return QueueUnavailable(retry_after=UNAVAILABLE_SECONDS)


def cancel(redis: Redis, call_id: str) -> bytes:
    """Give a call up: b"removed" (it never started), b"told" (its worker will stop it), b"ended",
    or b"marked" (not known; refused should it still come). Raises RedisError."""
    keys = [
        keyspace.job(call_id),
        keyspace.RQ_QUEUE,
        keyspace.call(call_id),
        keyspace.cancel(call_id),
        keyspace.RQ_CANCELED,
        keyspace.QUEUED_BYTES,
    ]
    args = [call_id, keyspace.CANCEL_SECONDS, now_text(), keyspace.JOB_SECONDS]
    result: bytes = scripts.CANCEL(redis, keys, args)
    return result


def states(redis: Redis, call_ids: Sequence[str]) -> list[JobState]:
    """What Redis knows of these jobs, in one round trip. Raises RedisError."""
    with redis.pipeline(transaction=False) as pipeline:
        for call_id in call_ids:
            pipeline.hmget(keyspace.job(call_id), "status", "worker_name", "claim")
        rows = pipeline.execute()
    return [JobState(*(field.decode() if field else "" for field in row)) for row in rows]


def outcomes(redis: Redis, call_ids: Sequence[str]) -> list[Outcome | None]:
    """The outcomes that Redis holds of these calls, in one round trip. Raises RedisError."""
    values = redis.mget([keyspace.outcome(call_id) for call_id in call_ids])
    found = cast("list[bytes | None]", values)  # no client here decodes
    return [_outcome(value) if value is not None else None for value in found]


def _outcome(value: bytes) -> Outcome:
    try:
        return Outcome.decode(value)
    except ProtocolError:
        return Outcome(error=ReplyLost())


def alive(redis: Redis, processes: Sequence[str]) -> list[bool]:
    """Which of these processes hold their lease. Raises RedisError."""
    if not processes:
        return []
    values = redis.mget([keyspace.lease(process) for process in processes])
    return [value is not None for value in values]


def live_workers(redis: Redis) -> int:
    """How many registered workers hold their lease. Raises RedisError."""
    return len(live_slots(redis))


def live_slots(redis: Redis) -> list[int]:
    """How many calls each of them runs at once; 0 once it stops. Raises RedisError."""
    members = cast("set[bytes]", redis.smembers(keyspace.RQ_WORKERS))
    if not members:
        return []
    names = [member.decode().rpartition(":")[2] for member in members]
    values = cast("list[bytes | None]", redis.mget([keyspace.lease(name) for name in names]))
    return [int(value) if value.isdigit() else 0 for value in values if value is not None]


def depth(redis: Redis) -> int:
    """How many calls are queued. Raises RedisError."""
    return redis.llen(keyspace.RQ_QUEUE)


def emit_command(web: str, events: Sequence[bytes]) -> tuple[object, ...]:
    """The command that puts encoded events into a web process' inbox."""
    args = [keyspace.INBOX_EVENTS, keyspace.INBOX_SECONDS, *events]
    return scripts.EMIT.command([keyspace.inbox(web)], args)


def finish_command(
    call_id: str, claim: str, web: str, worker: str, outcome: Outcome, milliseconds: int = 0
) -> tuple[object, ...]:
    """The command that ends a call, for an outbox or for `finish`."""
    failed = outcome.error is not None
    return scripts.FINISH.command(
        [
            keyspace.outcome(call_id),
            keyspace.job(call_id),
            keyspace.inbox(web),
            keyspace.RQ_STARTED,
            keyspace.RQ_FAILED if failed else keyspace.RQ_FINISHED,
            keyspace.rq_worker(worker),
            keyspace.call(call_id),
        ],
        [
            call_id,
            claim,
            outcome.encode(),
            Event(call_id, claim, outcome.last + 1, OUTCOME, b"").head(),
            "failed" if failed else "finished",
            now_text(),
            keyspace.OUTCOME_SECONDS,
            keyspace.JOB_SECONDS,
            milliseconds,
            keyspace.INBOX_EVENTS,
            keyspace.INBOX_SECONDS,
        ],
    )


def finish(redis: Redis, command: tuple[object, ...]) -> bool:
    """Run a `finish_command`; whether its outcome stands. Raises RedisError."""
    return bool(scripts.run(redis, command) == 1)
