"""Joins what the clients saw, what the provider saw and what Redis holds: all defects must be 0."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from redis import Redis

from gateway.queue import keys
from tests.faults.client import PATIENCE_SECONDS, Seen

KINDS = {
    "lost": "no answer within the deadline + 5 s, or a connection that just ended",
    "duplicated": "more provider calls than the row allows, or two ends of one answer",
    "wrong": "text of another request, or of two models, or of one that was not asked",
    "truncated": "called a success, and not the whole answer; or a stream without an end",
    "orphaned": "the provider still at work 3 s after the client left",
    "misled": "told to try again, although the provider may have been called",
    "keys": "Redis keys without an end, calls that are neither queued nor running",
    "connections": "sockets of clients that are gone; more Redis connections than configured",
    "promise": "anything else the row promises",
}
ORPHAN_SECONDS = 3.0
LONGEST_TTL = 240  # seconds: an outcome lives 120, a job its deadline and 60
MOST_LOG_TTL = 91_000  # with an Idempotency-Key: a day, and an hour for a line of a batch
LASTING = (
    *(keys.RQ_QUEUES, keys.RQ_WORKERS, "rq:workers", keys.BELL, keys.OWNER, keys.AUDIT),
    *(keys.FAIR, keys.RECORDS, keys.LEDGER_RESTORED, keys.LEDGER_CALLS),
    *(keys.METRICS, keys.METRICS_CURSOR),
)
LASTING_PREFIXES = (
    *("gw:key:", "rq:worker:", "gw:lease:"),
    *("gw:spend:", "gw:ledger:"),  # the account
    "gw:webhooks",  # events are tried for a day
    *("gw:file:", "gw:files:", "gw:batch:", "gw:batches:"),  # for 30 days
    "gw:idem:",  # for a day
)
ESTABLISHED, CLOSE_WAIT = "01", "08"


@dataclass(frozen=True)
class Allowed:
    """What a row permits beyond the ordinary."""

    attempts: int = 1  # provider calls for one request at one model
    models: int = 1  # models that may be asked for one request
    broken: bool = False  # connections may break: the web process that held them is killed
    orphan_seconds: float = ORPHAN_SECONDS
    late_seconds: float = PATIENCE_SECONDS  # past a call's deadline
    retry: bool = False  # the provider itself says that the call may be tried again

    def times(self, patience: float) -> Allowed:
        """The same with limits of time that are so many times as long."""
        return replace(
            self,
            orphan_seconds=self.orphan_seconds * patience,
            late_seconds=self.late_seconds * patience,
        )


@dataclass(frozen=True)
class Defect:
    """One broken promise: its kind is one of KINDS."""

    kind: str
    what: str


def reconcile(
    seen: Iterable[Seen], log: Sequence[Mapping[str, Any]] | None, allowed: Allowed, now: float
) -> list[Defect]:
    """The defects of these calls. `now` is in seconds since 1970.

    `log` is the fake provider's; without it, what only the provider knows is not looked at.
    """
    calls: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for record in log or ():
        calls[nonce_of(record)].append(record)
    defects: list[Defect] = []
    for each in seen:
        records = calls[each.nonce]
        for kind, what in _of_client(each, bool(records), allowed):
            defects.append(Defect(kind, f"{_name(each)}: {what}"))
        for kind, what in _of_provider(each, records, allowed, now) if log is not None else ():
            defects.append(Defect(kind, f"{_name(each)}: {what}"))
    return defects


def _of_client(each: Seen, called: bool, allowed: Allowed) -> Iterable[tuple[str, str]]:
    if each.nonce not in each.text and each.text:
        # The nonce is the first delta, and comes whole or not at all.
        yield "wrong", f"got {each.text[:60]!r}"
    elif not each.wanted.startswith(each.text):
        yield "wrong", f"got {len(each.text)} characters that are not its answer's first"
    if each.reasons > 1:
        yield "duplicated", f"{each.reasons} finish reasons"
    if len(each.answerers) > 1:
        yield "wrong", f"an answer of {', '.join(sorted(each.answerers))}"
    if each.told_secret:
        yield "promise", "its response held a provider's key"
    if each.left:
        return
    late = each.ended - each.began > each.deadline + allowed.late_seconds
    if (each.broken and not allowed.broken) or late:
        yield "lost", f"{each.broken or 'late'} after {each.ended - each.began:.1f} s"
    elif not each.broken:
        if each.answered and each.text != each.wanted:
            yield "truncated", f"{len(each.text)} of {len(each.wanted)} characters"
        if not each.answered and not each.refused:
            yield "truncated", f"status {each.status} without a finish reason or an error"
        if each.stream and each.status == 200 and not each.done:
            yield "truncated", "a stream without [DONE]"
    if each.should_retry == "true" and called and not allowed.retry:
        yield "misled", f"{each.status} {each.code}"


def _of_provider(
    each: Seen, records: Sequence[Mapping[str, Any]], allowed: Allowed, now: float
) -> Iterable[tuple[str, str]]:
    models = Counter(record["model"] for record in records)
    for model, count in models.items():
        if count > allowed.attempts:
            yield "duplicated", f"{count} provider calls of {model}"
    if len(models) > allowed.models:
        yield "duplicated", f"{len(models)} models were called"
    if not each.answerers <= models.keys():
        yield "wrong", f"an answer of {', '.join(sorted(each.answerers))}, which was not called"
    if not each.left:
        return
    for record in records:
        after = (record["ended"] or now) - each.left
        if after > allowed.orphan_seconds:
            yield "orphaned", f"the provider worked on for {after:.1f} s"


def _name(each: Seen) -> str:
    kind = "stream" if each.stream else "whole"
    return f"{each.nonce} ({kind}, {each.model}, {each.status} {each.code})"


def nonce_of(record: Mapping[str, Any]) -> str:
    """The last user message of a provider call, which the clients make unique."""
    content = (record["body"] or {"messages": [{"content": ""}]})["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def leaked_keys(redis: Redis) -> list[str]:
    """What Redis should not hold once nothing runs: see KINDS."""
    leaks = [f"{name}: {count} calls" for name, count in _unended(redis).items() if count]
    names = [name.decode() for name in redis.scan_iter(count=1000)]
    for name in names:
        if name in LASTING or name.startswith(LASTING_PREFIXES):
            continue
        life = redis.ttl(name)
        if name.startswith("gw:log") and 0 < life <= MOST_LOG_TTL:
            continue
        registry = name in (keys.RQ_STARTED, *keys.RQ_ENDED)  # their members have ends of their own
        if life > LONGEST_TTL and name != keys.QUEUED_BYTES or life == -1 and not registry:
            leaks.append(f"{name}: lives for {life} s")
    return leaks


def _unended(redis: Redis) -> dict[str, int]:
    return {
        keys.RQ_STARTED: redis.zcard(keys.RQ_STARTED),
        keys.RQ_QUEUE: redis.llen(keys.RQ_QUEUE),
        keys.WAITING: redis.zcard(keys.WAITING),
        keys.RQ_DEFERRED: redis.zcard(keys.RQ_DEFERRED),
        keys.QUEUED_BYTES: int(redis.get(keys.QUEUED_BYTES) or 0),
    }


def sockets_left(port: int, table: str = "") -> int:
    """How many connections a server on this port of 127.0.0.1 still holds (Linux's /proc)."""
    text = table or Path("/proc/net/tcp").read_text()
    count = 0
    for line in text.splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        here = int(local.rpartition(":")[2], 16) == port
        count += here and state in (ESTABLISHED, CLOSE_WAIT)
    return count
