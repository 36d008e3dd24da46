"""The commands of a call's life: submit, cancel, look, emit, finish.

With `workers`, the only place that knows RQ. Scripts write the jobs in the form that RQ 3 reads, so
that `rq info` and `Job.fetch` show them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

import orjson
from redis import Redis

from gateway.errors import (
    AuthenticationFailed,
    CallCancelled,
    CancelledByOperator,
    DeadlineExceeded,
    GatewayError,
    ReplyLost,
    code_of,
)
from gateway.queue import keys, scripts
from gateway.queue.clients import Command
from gateway.queue.protocol import (
    CHUNKS,
    OUTCOME,
    RETRY,
    AdmissionRequest,
    CallSpec,
    Event,
    Outcome,
    ProtocolError,
    outcome_event,
)
from gateway.settings import Settings

TASK = b"workers.tasks.run"
UNLIMITED = 2**53  # entries and bytes of a log
EVENT_BYTES = 1_000_000  # a larger outcome is not in the inbox as well: Redis would hold it twice
PIECE_BYTES = 1_000_000  # of a larger outcome: Redis serves others between two pieces


@dataclass(frozen=True, slots=True)
class JobState:
    """What Redis knows of a job; all fields are "" if it knows none.

    `retry` is the claim of the worker that was lost, of a call that runs once more; or "1" if the
    call may.
    """

    status: str = ""
    worker: str = ""
    claim: str = ""
    retry: str = ""


def now_text() -> str:
    """Return the present in RQ's time format (UTC, by this process' clock)."""
    # RQ's own utcformat() takes four times as long.
    seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_text_of(seconds)}.{microseconds:06d}Z"


@lru_cache(maxsize=1)
def _text_of(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def submit_command(
    settings: Settings,
    spec: CallSpec,
    body: bytes,
    admission: AdmissionRequest,
    budget: float,
    expiry: float = 0,
    hit: bytes = b"",
    log: Sequence[bytes] = (),
) -> tuple[object, ...]:
    """Return the command that queues a call, whose deadline is `budget` seconds after it runs.

    All limits of the key and of its owner admit the call, or nothing is used up. Run twice, it
    queues the call once and replies the same. Run after `expiry` (seconds since 1970 by Redis'
    clock, 0 for never) it refuses the call, because nobody waits for the reply any more. If the
    reply is lost, the call may be queued: cancel it until that succeeds.

    `hit` is the record of a call that a kept response answers: it is settled and not queued. `log`
    are the encoded events of such a call, if it has a log.

    The reply is a list: `ok` and what was admitted (see lua/submit.lua), or the reason of the
    refusal and what belongs to it.
    """
    call_id = spec.call_id
    return scripts.SUBMIT.command(
        [
            keys.job(call_id),
            keys.call(call_id),
            keys.key(admission.public_id),
            keys.cancel(call_id),
            keys.RQ_QUEUE,
            keys.QUEUED_BYTES,
            keys.RQ_QUEUES,
        ],
        [
            call_id,
            spec.encode(body),
            admission.hmac,
            admission.version,
            spec.web,
            int(budget * 1000),
            settings.queue_limit,
            settings.queue_bytes,
            now_text(),
            b'["%b",null,["%b"],{}]' % (TASK, call_id.encode()),  # RQ's form of a call
            keys.GRACE_SECONDS,
            keys.QUEUE,
            int(expiry * 1000),
            spec.kind,
            keys.JOB_SECONDS,
            settings.records_backlog,
            keys.UNSETTLED_SECONDS,
            _stub(spec, admission),
            admission.public_id,
            spec.account.get("priority", ""),
            f"{admission.prompt_tokens} {admission.prompt_nano} {admission.output_tokens} "
            f"{admission.output_nano_per_token} {admission.max_output_tokens} {admission.wait:d}",
            hit,
            int(admission.delay * 1000),
            int(admission.retry),
            *log,
        ],
    )


def _stub(spec: CallSpec, admission: AdmissionRequest) -> bytes:
    """The beginning of the call's record, for those who settle it without having run it.

    Its names are those of `gateway.account.records.Record`; `prompt_tokens`, `prompt_nano` and
    `output_nano_per_token` are what an estimate needs; `provider` is what a pause may name.
    """
    account = dict(spec.account)
    model = account.pop("model", "")
    return orjson.dumps(
        {
            "created_ms": int(time.time() * 1000),
            **account,
            "id": spec.call_id,
            "key_id": admission.public_id,
            "kind": spec.kind,
            "streamed": spec.stream,
            "model": spec.targets[0].model,
            "provider": spec.targets[0].provider,
            "family": row.id if (row := spec.targets[0].row).family else "",
            "model_requested": model,
            **admission.estimate(),
        }
    )


def _ending(fields: Mapping[str, Any]) -> bytes:
    """The beginning of a record, to which the scripts add what they know and the call's stub."""
    return orjson.dumps(fields)[:-1]


BY_OPERATOR = " operator"  # behind the id of a call that its worker should stop
UNKNOWN = " unknown"  # behind that of a call that its worker should announce if it runs it


def cancel(redis: Redis, call_id: str, error: GatewayError | None = None) -> bytes:
    """Give a call up. Raises RedisError.

    A call that never started is settled: its reservation is released, its record appended, and its
    log, if it has one, is ended. `error` says why, by default CallCancelled. A worker that runs the
    call ends it with CancelledByOperator if that is the error, and with CallCancelled otherwise.

    Returns b"removed" (it never started), b"told" (its worker will stop it), b"ended", or b"marked"
    (Redis does not know the call; a submit of it that is still on its way is refused).
    """
    ending: dict[str, Any] = {"status": "cancelled", "cancelled": True}
    if error is not None:
        cancelled = isinstance(error, CancelledByOperator)
        status = "cancelled" if cancelled else "failed"
        ending = {"status": status, "cancelled": cancelled, "error_code": error.code or ""}
    names = [
        keys.job(call_id),
        keys.RQ_QUEUE,
        keys.call(call_id),
        keys.cancel(call_id),
        keys.RQ_CANCELED,
        keys.QUEUED_BYTES,
    ]
    args = [
        call_id,
        keys.CANCEL_SECONDS,
        now_text(),
        keys.JOB_SECONDS,
        keys.cancel(""),
        b"",
        _ending(ending),
        BY_OPERATOR if isinstance(error, CancelledByOperator) else "",
        refusal_event(call_id, error or CallCancelled()),
    ]
    result: bytes = scripts.CANCEL(redis, names, args)
    return result


def ask_worker(redis: Redis, worker: str, call_ids: Sequence[str]) -> None:
    """Have a worker announce those of these calls that it runs. Raises RedisError.

    Redis does not know them: they have ended, or their jobs were lost.
    """
    name = keys.cancel(worker)
    redis.sadd(name, *(call_id + UNKNOWN for call_id in call_ids))
    redis.expire(name, keys.CANCEL_SECONDS)


def announce_command(
    call_id: str, claim: str, worker: str, address: str, seconds: float
) -> tuple[object, ...]:
    """Return the command that writes a running call's job anew if Redis does not know it.

    `seconds` is how long the call may still take.
    """
    args = [
        *(call_id, claim, worker, address),
        *(int(max(seconds, 0) * 1000), keys.GRACE_SECONDS, now_text()),
    ]
    return scripts.ANNOUNCE.command([keys.job(call_id), keys.RQ_STARTED], args)


def retry_command(call_id: str, claim: str, address: str) -> tuple[object, ...]:
    """Return the command that queues a call once more whose worker was lost with this claim.

    Its reply is 1 if the call runs once more, and 0 if it may not, has done so before, has ended,
    or if something of its response is in its log. `address` is where its events go: see CallSpec.
    """
    logged = keys.is_log(address)
    seconds = keys.INBOX_SECONDS
    if logged:
        seconds = keys.SHARED_SECONDS + keys.log_seconds(address)
    event = Event(call_id, "", 0, RETRY, claim.encode()).encode()
    return scripts.RETRY.command(
        [keys.job(call_id), keys.call(call_id), keys.inbox(address), keys.RQ_STARTED],
        [call_id, claim, event, int(logged), seconds],
    )


def retry(redis: Redis, call_id: str, claim: str, address: str) -> bool:
    """Run a `retry_command` and return whether the call runs once more. Raises RedisError."""
    return bool(scripts.run(redis, retry_command(call_id, claim, address)))


def promote(redis: Redis) -> int:
    """Queue what waits outside the queue for nothing more; return how many calls still do.

    That is calls for which there is room in flight, whose start has come, or whose pause has ended.
    Ends those whose deadline has passed. Raises RedisError.
    """
    lasts = [refusal_event("", error) for error in (DeadlineExceeded(), AuthenticationFailed())]
    args = [now_text(), keys.JOB_SECONDS, keys.GRACE_SECONDS, *lasts]
    return int(scripts.PROMOTE(redis, [], args))


def refusal_event(call_id: str, error: GatewayError) -> bytes:
    """Return the only event, encoded, of a call that failed before it started."""
    return Event(call_id, "", 1, OUTCOME, Outcome(error=error).encode()).encode()


def states(redis: Redis, call_ids: Sequence[str]) -> list[JobState]:
    """Return what Redis knows of these jobs, in one round trip. Raises RedisError."""
    with redis.pipeline(transaction=False) as pipeline:
        for call_id in call_ids:
            pipeline.hmget(keys.job(call_id), "status", "worker_name", "claim", "retry")
        rows = pipeline.execute()
    return [JobState(*(field.decode() if field else "" for field in row)) for row in rows]


def outcomes(redis: Redis, call_ids: Sequence[str]) -> list[Outcome | None]:
    """Return the outcome of each call, None if Redis has none. Raises RedisError."""
    values = cast(  # no client here decodes
        "list[bytes | None]", redis.mget([keys.outcome(call_id) for call_id in call_ids])
    )
    return [decode_outcome(value) if value is not None else None for value in values]


def delivered(redis: Redis, call_ids: Sequence[str]) -> list[bool]:
    """Return for each finished call whether Redis no longer holds its outcome. Raises RedisError.

    An outcome that is still to be written counts as held.
    """
    with redis.pipeline(transaction=False) as pipeline:
        for call_id in call_ids:
            pipeline.hget(keys.job(call_id), "status")
            pipeline.exists(keys.outcome(call_id))
        replies = pipeline.execute()
    pairs = zip(replies[::2], replies[1::2], strict=True)
    return [status != b"started" and not exists for status, exists in pairs]


def decode_outcome(value: bytes) -> Outcome:
    """Return an encoded outcome; one that nobody can read is an error, ReplyLost."""
    try:
        return Outcome.decode(value)
    except ProtocolError:
        return Outcome(error=ReplyLost())


def depth(redis: Redis) -> int:
    """Return how many calls are queued. Raises RedisError."""
    return redis.llen(keys.RQ_QUEUE)


def emit_command(address: str, events: Sequence[bytes]) -> tuple[object, ...]:
    """Return the command that puts encoded events into an inbox, or into the log of a call.

    Its reply is how full an inbox is then, in percent of what it may hold. A log is never full.
    """
    limits: tuple[object, ...] = (keys.INBOX_EVENTS, keys.INBOX_BYTES, keys.INBOX_SECONDS)
    if keys.is_log(address):  # the call may be silent for long
        seconds = keys.SHARED_SECONDS + keys.log_seconds(address)
        limits = (UNLIMITED, UNLIMITED, seconds)
    return scripts.EMIT.command([keys.inbox(address)], [*limits, *events])


def wake_reader(redis: Redis, web: str) -> None:
    """End the blocking read of a web process' reader by an event of no call. Raises RedisError."""
    scripts.run(redis, emit_command(web, [Event("", "", 0, CHUNKS, b"").encode()]))


SUBMIT_SECONDS = 2  # from the look for a response until the call is in the queue


def look_for_response(
    redis: Redis, name: str, call_id: str, seconds: float, group: str = ""
) -> tuple[bytes, bytes]:
    """Look for a kept response; return what to do, and the response if there is one.

    Calls with the same request wait for each other if they are of the same `group`.

    That is `hit`; `first` (this call runs for all with the same request, for `seconds` at most);
    `wait` (another does); or `run` (it did, and left no response). Raises RedisError.
    """
    names = [keys.cached(name), keys.first_call(name + group)]
    args = [call_id, int(seconds) + keys.GRACE_SECONDS, keys.job(""), SUBMIT_SECONDS]
    action, *rest = scripts.LOOK(redis, names, args)
    return action, rest[0] if rest else b""


def forget_first_call(redis: Redis, name: str, group: str = "") -> None:
    """Let no call wait for the first one, which the queue has just refused. Raises RedisError."""
    redis.delete(keys.first_call(name + group))


def store_command(name: str, response: bytes, seconds: int, most_bytes: int) -> tuple[object, ...]:
    """Return the command that keeps a response, if all together have at most `most_bytes`."""
    return scripts.STORE.command(
        [keys.cached(name), keys.CACHED, keys.CACHED_BYTES],
        [response, seconds, most_bytes, name, keys.cached(""), keys.CACHED_SECONDS],
    )


def finish_commands(
    call_id: str,
    claim: str,
    address: str,
    worker: str,
    outcome: Outcome,
    record: bytes = b"",
    nano: int = 0,
    tokens: int = 0,
    ending: Mapping[str, Any] | None = None,
) -> list[Command]:
    """Return the commands that end a call, in order: one, or of a large outcome its pieces before.

    The first outcome stands. Others may be served between two commands; one that is run again
    changes nothing.

    It settles the call: releases what it has reserved, adds what it has used (`nano` is its cost in
    1e-9 USD) to its key and owner, and appends its record. That is `record`; without one it is made
    of `ending`, fields of `gateway.account.records.Record`, and of what was known when the call was
    submitted. `address` is where its events go: the name of a web process, or that of a log.
    """
    seconds, outcome_seconds = keys.INBOX_SECONDS, keys.OUTCOME_SECONDS
    if keys.is_log(address):
        seconds, outcome_seconds = keys.log_seconds(address), keys.LOGGED_OUTCOME_SECONDS
    failed = outcome.error is not None
    if not record and ending is None:
        cancelled = isinstance(outcome.error, CallCancelled)
        status = "cancelled" if cancelled else "failed" if failed else "completed"
        ending = {
            "status": status,
            "cancelled": cancelled,
            "error_code": code_of(outcome.error),
            "worker": worker,
        }
    value = outcome.encode()
    inside = len(value) <= EVENT_BYTES or keys.is_log(address)
    last = Event(call_id, claim, outcome.last + 1, OUTCOME, b"")
    event = last if inside else outcome_event(call_id)
    partial, size = keys.partial_outcome(call_id, claim), 0
    pieces: list[Command] = []
    if not inside:
        size, whole = len(value), value
        value = replace(outcome, answer=b"", error=ReplyLost()).encode()
        pieces = [
            scripts.PIECE.command(
                [partial], [start, whole[start : start + PIECE_BYTES], outcome_seconds]
            )
            for start in range(0, size, PIECE_BYTES)
        ]
    finish = scripts.FINISH.command(
        [
            keys.outcome(call_id),
            keys.job(call_id),
            keys.inbox(address),
            keys.RQ_STARTED,
            keys.RQ_FAILED if failed else keys.RQ_FINISHED,
            keys.call(call_id),
            partial,
        ],
        [
            call_id,
            claim,
            value,
            event.encode(),
            "failed" if failed else "finished",
            now_text(),
            outcome_seconds,
            keys.JOB_SECONDS,
            seconds,
            record,
            nano,
            tokens,
            _ending(ending) if ending else "",
            int(inside),
            size,
        ],
    )
    return [*pieces, finish]


def lost_commands(
    call_id: str,
    claim: str,
    address: str,
    worker: str,
    error: GatewayError,
    estimate: Mapping[str, Any],
    written: int = 0,
    last: int = 0,
) -> list[Command]:
    """Return the commands that end a call whose worker is lost; the first outcome stands.

    It is settled by an estimate, which its record says: the prompt, and `written` tokens of output.
    `estimate` has `prompt_tokens`, `prompt_nano` and `output_nano_per_token`, as the call's stub
    does. `last` is the number of the last event that arrived.
    """
    prompt = estimate.get("prompt_tokens", 0)
    nano = estimate.get("prompt_nano", 0) + round(
        estimate.get("output_nano_per_token", 0) * written
    )
    ending = {
        "status": "lost",
        "error_code": error.code,
        "worker": worker,
        "usage": {"input": prompt, "output": written},
        "usage_source": "estimated",
        "cost_nano": nano,
    }
    outcome = Outcome(last=last, error=error)
    tokens = prompt + written
    return finish_commands(
        call_id, claim, address, worker, outcome, nano=nano, tokens=tokens, ending=ending
    )


def estimate(redis: Redis, call_id: str) -> dict[str, Any]:
    """Return what `lost_commands` needs of a call; empty if Redis does not know it.

    Raises RedisError.
    """
    stub = cast("bytes | None", redis.hget(keys.job(call_id), "stub"))
    return orjson.loads(stub) if stub else {}


def finish(redis: Redis, commands: Sequence[Command]) -> bool:
    """Run `finish_commands`, and return whether their outcome stands. Raises RedisError."""
    return bool([scripts.run(redis, command) for command in commands][-1] == 1)
