"""Counts what the records of ended calls say: the same records of which the ledger makes its sums.

So a call costs nothing for it in the processes that it passes through, and metrics, usage and
ledger agree. An entry of the stream of records counts once: the id of the last one that is counted
is kept with the counters, and both change in one script.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import cast

from redis import Redis

from gateway.account.ledger import received
from gateway.account.records import COUNTED, Record
from gateway.account.usage import NAMES
from gateway.logs import where
from gateway.metrics import families as f
from gateway.metrics.counts import Counts, Recent, count_command
from gateway.metrics.labels import (
    CIRCUIT_OPEN,
    OPERATIONS,
    PRIORITIES,
    STATUSES,
    ModelLabels,
    error_type,
    one_of,
)
from gateway.queue import keys, scripts

log = logging.getLogger(__name__)

BATCH = 500  # records that `catch_up` reads at once
BEGINNING = b"0-0"
DETAILS = tuple(name for name in NAMES if name not in COUNTED)
# Figures of live.py are in buckets whose bounds grow by a tenth.
GROWTH = 10


class RecordCounter:
    """Counts the records of the stream, in the one worker that writes the ledger."""

    def __init__(self, redis: Redis, labels: ModelLabels, by_key: bool = False) -> None:
        self._redis, self._labels, self._by_key = redis, labels, by_key
        self._cursor: bytes | None = None  # all entries up to it are counted; None: ask Redis

    def count(self, records: Mapping[bytes, Record]) -> None:
        """Count the oldest entries of the stream, by their ids, unless they are counted already.

        Call it before they are deleted. Raises RedisError.
        """
        while True:
            cursor = self._read_cursor()
            fresh = {
                entry: record for entry, record in records.items() if _order(entry) > _order(cursor)
            }
            if self._count(fresh, cursor) if fresh else not self._moved(cursor):
                return

    def catch_up(self) -> None:
        """Count all entries of the stream; for while the ledger takes none. Raises RedisError."""
        while True:
            cursor = self._read_cursor()
            entries = cast(
                "list[tuple[bytes, dict[bytes, bytes]]]",
                self._redis.xrange(keys.RECORDS, min=b"(" + cursor, count=BATCH),
            )
            records = {}
            for entry, fields in entries:
                try:
                    records[entry] = received(fields)
                except ValueError:
                    pass  # the ledger refuses it as well
            if records:
                self._count(records, cursor)
            elif not self._moved(cursor):
                return

    def _moved(self, cursor: bytes) -> bool:
        """Whether Redis has another cursor: it was emptied, maybe under an older clock."""
        self._cursor = None
        return self._read_cursor() != cursor

    def _read_cursor(self) -> bytes:
        if self._cursor is None:
            cursor = cast("bytes | None", self._redis.get(keys.METRICS_CURSOR))
            self._cursor = cursor or BEGINNING
        return self._cursor

    def _count(self, records: Mapping[bytes, Record], cursor: bytes) -> bool:
        """Count these records, unless another process has counted since the cursor was read."""
        counts, recent = Counts(), Recent()
        for record in records.values():
            try:
                add_record(counts, record, self._labels, self._by_key)
                add_recent(recent, record, self._labels)
            except Exception as error:  # the ledger must not wait for it
                log.error("metrics: %s at %s", type(error).__name__, where(error))
        last = max(records, key=_order)
        expected = b"" if cursor == BEGINNING else cursor
        command = count_command(
            keys.METRICS_CURSOR, 0, last, expected, counts.take(), recent.take()
        )
        self._cursor = None  # until it is known that Redis has done it
        if scripts.run(self._redis, command) != 1:
            return False
        self._cursor = last
        return True


def _order(entry: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry.partition(b"-")
    return int(milliseconds), int(number)


def add_record(counts: Counts, record: Record, labels: ModelLabels, by_key: bool = False) -> None:
    """Add what one record says to the counts; with `by_key`, also by its API key."""
    if record.correction:
        counts.add(f.CORRECTIONS, (), record.cost_nano)
        return
    model = labels.of(record.model, record.provider_name)
    operation = one_of(OPERATIONS, record.kind)
    status, error = one_of(STATUSES, record.status), error_type(record.error_code)
    counts.add(f.CALLS, (operation, *model, status, error))
    if by_key:
        counts.add(f.KEY_CALLS, (record.key_id, status))
        counts.add(f.KEY_COST, (record.key_id,), record.cost_nano)
    for name in COUNTED:
        if number := record.usage.get(name, 0):
            counts.add(f.TOKENS, (*model, name), number)
            if by_key:
                counts.add(f.KEY_TOKENS, (record.key_id, name), number)
    for name in DETAILS:
        if number := record.usage.get(name, 0):
            counts.add(f.TOKEN_DETAILS, (*model, name), number)
    if record.cost_nano:
        counts.add(f.COST, model, record.cost_nano)
    if record.saved_nano:
        counts.add(f.SAVED, model, record.saved_nano)
    if record.cache_hit:
        counts.add(f.CACHE_HITS, model)
    if record.usage_source == "estimated":
        counts.add(f.ESTIMATED, model)
    _add_times(counts, record, (operation, *model), error)
    _add_attempts(counts, record, operation, labels)


def _add_times(counts: Counts, record: Record, gen_ai: tuple[str, ...], error: str) -> None:
    counts.observe(f.SERVER_DURATION, (*gen_ai, error), record.latency_ms)
    if record.cache_hit:
        return  # it did not wait, and no provider was called
    priority = record.priority or "standard"
    counts.observe(f.QUEUE_WAIT, (one_of(PRIORITIES, priority),), record.queued_ms)
    if record.attempts:
        at_providers = sum(attempt.get("latency_ms", 0) for attempt in record.attempts)
        counts.observe(f.OVERHEAD, (gen_ai[0],), max(0, record.latency_ms - at_providers))
    if record.time_to_first_token_ms is None:
        return
    counts.observe(f.FIRST_TOKEN, gen_ai, record.time_to_first_token_ms)
    generation_ms, written = record.generation_time_ms or 0, record.usage.get("output", 0)
    if record.status == "completed" and written > 1:
        counts.observe(f.PER_TOKEN, gen_ai, generation_ms * 1000 // (written - 1))
    if record.attempts:
        first = record.attempts[-1].get("latency_ms", 0) - generation_ms
        counts.observe(f.FIRST_CHUNK, gen_ai, max(0, first))


def _add_attempts(counts: Counts, record: Record, operation: str, labels: ModelLabels) -> None:
    routes = [
        (str(attempt.get("provider_name", "")), str(attempt.get("model", "")))
        for attempt in record.attempts
    ]
    for route, attempt in zip(routes, record.attempts, strict=True):
        model, code = labels.of_route(*route), attempt.get("code", "")
        if code == CIRCUIT_OPEN:
            counts.add(f.BREAKER_SKIPS, model)
            continue
        milliseconds = attempt.get("latency_ms", 0)
        counts.observe(f.CLIENT_DURATION, (operation, *model, error_type(code)), milliseconds)
    for route, following in pairwise(routes):
        family = f.RETRIES if route == following else f.FALLBACKS
        counts.add(family, labels.of_route(*route))


def add_recent(recent: Recent, record: Record, labels: ModelLabels) -> None:
    """Add one record to the figures of the seconds in which it was settled."""
    if record.correction:
        return
    model = labels.of(record.model)[1]
    output, status = record.usage.get("output", 0), one_of(STATUSES, record.status)
    amounts = [
        ("calls", 1),
        (f"status {status}", 1),
        ("input", record.tokens - output),
        ("output", output),
        ("cost", record.cost_nano),
        (f"duration {log_bucket(record.latency_ms)}", 1),
        (f"model calls {model}", 1),
        (f"model output {model}", output),
        (f"model cost {model}", record.cost_nano),
    ]
    if status in ("failed", "lost"):
        amounts.append((f"model failed {model}", 1))
    if not record.cache_hit:
        amounts.append((f"queue {log_bucket(record.queued_ms)}", 1))
    if record.time_to_first_token_ms is not None:
        amounts.append((f"first {log_bucket(record.time_to_first_token_ms)}", 1))
    recent.add(record.settled_ms, amounts)


def log_bucket(milliseconds: int) -> int:
    """Return the number of the bucket of a duration; bounds of buckets grow by a tenth."""
    return round(math.log(max(milliseconds, 0) + 1) * GROWTH)


def bucket_seconds(bucket: int) -> float:
    """Return the duration in seconds that a bucket of `log_bucket` stands for."""
    return (math.exp(bucket / GROWTH) - 1) / 1000
