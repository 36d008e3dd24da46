"""What operators see of the queue and of the workers, and how they steer them.

Each act is one script that adds its entry to the audit log. Nothing here reads a request's body.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import orjson
from redis import Redis

from gateway.errors import CancelledByOperator
from gateway.queue import commands, keys, scripts
from gateway.queue.lease import live_workers
from gateway.queue.protocol import OUTCOME, Event, Outcome

PAUSES = ("key", "model", "provider")  # what can be paused
# Why a call waits: for the calls before it, for others of its key or owner to end, while its key,
# model or provider is paused, or until its start.
IN_LINE, LIMIT, PAUSED, SCHEDULED = REASONS = ("in_line", "limit", "paused", "scheduled")
DRAIN = "drain"  # a field of RQ's record of a worker; while it is there, the worker takes no calls
BATCH = 200  # calls looked at in one round trip
JOB_FIELDS = ("status", "aside", "key", "owner", "queued_ms", "deadline_ms", "bytes", "stub")
STUB_FIELDS = "model model_requested provider kind streamed priority request_id".split()


@dataclass(frozen=True, slots=True)
class Waiting:
    """A call that waits. `pause` holds it (""): none does. Times are in milliseconds since 1970.

    `position` counts from 1: in the queue, or among its key's calls for those that wait for others
    of the key to end. `starts_ms` is when a scheduled call starts. `cursor` stands for its place.
    """

    id: str
    reason: str
    cursor: str
    key: str = ""
    owner: str = ""
    model: str = ""
    model_requested: str = ""
    provider: str = ""
    kind: str = ""
    streamed: bool = False
    priority: str = ""
    request_id: str = ""
    position: int | None = None
    pause: str = ""
    since_ms: int = 0
    deadline_ms: int = 0
    starts_ms: int | None = None
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Pause:
    """What is paused, since when (seconds since 1970), by whom, and how many calls it has held.

    `name` is `key:`, `model:` or `provider:` and the id. Held calls are those that workers would
    have taken: others of it may still stand in line.
    """

    name: str
    since: int = 0
    by: str = ""
    held: int = 0


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that lives. `draining`: it is to take no calls; `drains`: it no longer does."""

    name: str
    slots: int
    running: int
    release: str
    host: str
    pid: int
    started: str  # ISO 8601
    draining: bool
    drains: bool


def waiting(
    redis: Redis,
    *,
    reason: str | None = None,
    key: str | None = None,
    model: str | None = None,
    after: str = "",
    limit: int = 100,
) -> tuple[list[Waiting], bool]:
    """Return a page of the calls that wait, and whether there are more. Raises RedisError.

    Those in line come first, in the order in which they would start now; then the others, by
    their deadlines. `after` is the cursor of the last call of the page before: a call that waits
    all the time is on a page, even if that one has started meanwhile. Raises ValueError for what
    is no cursor.
    """
    page: list[Waiting] = []
    names = frozenset(cast("dict[bytes, bytes]", redis.hgetall(keys.PAUSED)))
    for call in _all_waiting(redis, names, after):
        if (
            reason in (None, call.reason)
            and key in (None, call.key)
            and model in (None, call.model, call.model_requested)
        ):
            if len(page) == limit:
                return page, True
            page.append(call)
    return page, False


def counts(redis: Redis) -> dict[str, int]:
    """Return how many calls wait for each of REASONS. Raises RedisError.

    Calls in line count as in line, although some may be paused.
    """
    held = sum(pause.held for pause in pauses(redis))
    with redis.pipeline(transaction=False) as pipeline:
        for line in (keys.WAITING, keys.RQ_DEFERRED, keys.SCHEDULED):
            pipeline.zcard(line)
        in_line, aside, scheduled = pipeline.execute()
    return {
        IN_LINE: in_line,
        LIMIT: max(aside - held - scheduled, 0),
        PAUSED: held,
        SCHEDULED: scheduled,
    }


def pauses(redis: Redis) -> list[Pause]:
    """Return what is paused, by name. Raises RedisError."""
    paused = sorted(cast("dict[bytes, bytes]", redis.hgetall(keys.PAUSED)).items())
    with redis.pipeline(transaction=False) as pipeline:
        for name, _ in paused:
            pipeline.zcard(keys.paused_calls(name.decode()))
        numbers = pipeline.execute() if paused else []
    return [
        Pause(name.decode(), held=held, **orjson.loads(value))
        for (name, value), held in zip(paused, numbers, strict=True)
    ]


def pause(redis: Redis, name: str, since: int, by: str, entry: Mapping[str, Any]) -> bool:
    """Hold the calls of a key, a model or a provider: see Pause. Returns whether it was not paused.

    Calls that run go on. A call is held by the model that it would call first. Raises RedisError.
    """
    value = orjson.dumps({"since": since, "by": by})
    return _steer(redis, keys.PAUSED, name, value, entry) > 0


def resume(redis: Redis, name: str, entry: Mapping[str, Any]) -> bool:
    """End a pause; return whether there was one. Workers queue its calls within a second, in the
    order in which they would have started. Raises RedisError."""
    return _steer(redis, keys.PAUSED, name, b"", entry) > 0


def move(redis: Redis, call_id: str, entry: Mapping[str, Any]) -> str:
    """Move a waiting call to the front; return `moved`, or why not: see lua/move.lua.

    A call that waits for others of its key to end goes to the front of those. Raises RedisError.
    """
    args = [call_id, orjson.dumps(entry), keys.AUDIT_ENTRIES]
    reply: bytes = scripts.MOVE(redis, [keys.job(call_id), keys.AUDIT], args)
    return reply.decode()


def cancel(redis: Redis, call_id: str, entry: Mapping[str, Any]) -> bool:
    """Cancel a call that waits or runs; return whether there is one. Raises RedisError.

    Its caller gets CancelledByOperator.
    """
    status, web = cast("list[bytes | None]", redis.hmget(keys.job(call_id), ["status", "web"]))
    if status is None:
        return False
    error = CancelledByOperator()
    result = commands.cancel(redis, call_id, error)
    if result not in (b"removed", b"told"):
        return False
    with redis.pipeline(transaction=True) as pipeline:
        if result == b"removed" and not keys.is_log((web or b"").decode()):
            outcome = Outcome(error=error).encode()
            event = Event(call_id, "operator", 1, OUTCOME, outcome)
            pipeline.set(keys.outcome(call_id), outcome, ex=keys.OUTCOME_SECONDS)
            inbox = keys.inbox((web or b"").decode())
            pipeline.xadd(inbox, {"e": event.encode()})
            pipeline.expire(inbox, keys.INBOX_SECONDS)
        pipeline.xadd(
            keys.AUDIT, {"entry": orjson.dumps(entry)}, maxlen=keys.AUDIT_ENTRIES, approximate=True
        )
        pipeline.execute()
    return True


def workers(redis: Redis) -> list[Worker]:
    """Return the workers that live, by name. Raises RedisError."""
    leases = sorted(live_workers(redis))
    fields = ("slots", "running", "release", "hostname", "pid", "birth", DRAIN, "drains")
    with redis.pipeline(transaction=False) as pipeline:
        for name in leases:
            pipeline.hmget(keys.rq_worker(name), *fields)
        rows = pipeline.execute() if leases else []
    alive = []
    for name, row in zip(leases, rows, strict=True):
        texts = [(field or b"").decode() for field in row]
        slots, running, release, host, pid, started, drain, drains = texts
        alive.append(
            Worker(
                name=name,
                slots=int(slots or 0),
                running=int(running or 0),
                release=release,
                host=host,
                pid=int(pid or 0),
                started=started,
                draining=bool(drain),
                drains=bool(drain) and drains == "1",
            )
        )
    return alive


def drain(
    redis: Redis, name: str, by: str, entry: Mapping[str, Any], draining: bool = True
) -> bool:
    """Let a worker take no more calls, or take calls again; return whether there is one.

    Its running calls go on, without a limit of time. Raises RedisError.
    """
    if name not in live_workers(redis):
        return False
    value = by.encode() if draining else b""
    return _steer(redis, keys.rq_worker(name), DRAIN, value, entry, exists=True) >= 0


def _steer(
    redis: Redis,
    name: str,
    field: str,
    value: bytes,
    entry: Mapping[str, Any],
    exists: bool = False,
) -> int:
    args = [field, value, int(exists), orjson.dumps(entry), keys.AUDIT_ENTRIES]
    return int(scripts.STEER(redis, [name, keys.AUDIT], args))


def _all_waiting(redis: Redis, paused: Collection[bytes], after: str) -> Iterator[Waiting]:
    """Yield every waiting call behind the cursor `after`."""
    letter, _, place = after.partition(":") if after else ("q", "", "")
    for line in (keys.WAITING, keys.RQ_DEFERRED)["qa".index(letter) :]:
        while True:
            start = _rank_behind(redis, line, place) if place else 0
            rows = cast(
                "list[tuple[bytes, float]]",
                redis.zrange(line, start, start + BATCH - 1, withscores=True),
            )
            yield from _described(redis, line, start, rows, paused)
            if len(rows) < BATCH:
                break
            place = _place(*rows[-1])
        place = ""


def _place(call_id: bytes, score: float) -> str:
    return f"{score!r}:{call_id.decode()}"


def _rank_behind(redis: Redis, line: str, place: str) -> int:
    """The rank behind a call of a sorted set, which may have left it meanwhile."""
    score, _, call_id = place.partition(":")
    rank = cast("int | None", redis.zrank(line, call_id))
    return redis.zcount(line, "-inf", f"({float(score)!r}") if rank is None else rank + 1


def _described(
    redis: Redis,
    line: str,
    start: int,
    rows: Sequence[tuple[bytes, float]],
    paused: Collection[bytes],
) -> Iterator[Waiting]:
    """Yield the calls of a line; `start` is the rank of the first."""
    with redis.pipeline(transaction=False) as pipeline:
        for call_id, _ in rows:
            pipeline.hmget(keys.job(call_id.decode()), *JOB_FIELDS)
        jobs = pipeline.execute() if rows else []
        for (call_id, _), (_, _, key, *_) in zip(rows, jobs, strict=True):
            pipeline.zscore(keys.SCHEDULED, call_id)
            pipeline.zrank(keys.parked((key or b"").decode()), call_id)
        places = pipeline.execute() if rows else []
    for number, ((call_id, score), job) in enumerate(zip(rows, jobs, strict=True)):
        status, aside, key, owner, since_ms, deadline_ms, size, stub = job
        if status not in (b"queued", b"deferred") or not stub:
            continue  # it has just left, or the previous release queued it
        call = orjson.loads(stub)
        starts_ms, rank = places[2 * number : 2 * number + 2]
        pause = ""
        if status == b"queued":
            rank = start + number
            mine = (f"{kind}:{name}".encode() for kind, name in _pausable(key, call))
            pause = next((name.decode() for name in mine if name in paused), "")
        elif starts_ms is None and aside:
            pause = aside.decode()
        reason = IN_LINE if status == b"queued" else LIMIT if starts_ms is None else SCHEDULED
        yield Waiting(
            id=call_id.decode(),
            reason=PAUSED if pause else reason,
            cursor=f"{'q' if line == keys.WAITING else 'a'}:{_place(call_id, score)}",
            position=None if pause or rank is None else rank + 1,
            pause=pause,
            key=key.decode(),
            owner=owner.decode(),
            since_ms=int(since_ms),
            deadline_ms=int(deadline_ms),
            starts_ms=None if starts_ms is None else int(starts_ms),
            bytes=int(size),
            **{name: call[name] for name in STUB_FIELDS if name in call},
        )


def _pausable(key: bytes, call: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    return zip(PAUSES, (key.decode(), call.get("model", ""), call.get("provider", "")), strict=True)
