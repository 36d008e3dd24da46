"""The ledger without a database: Redis keeps the sums and the last records.

Keys and owners need no copy, because Redis is where they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import orjson
from redis import Redis

from gateway.account.ledger import (
    ALL_TIME,
    BUCKET_SECONDS,
    SUMS,
    WIDTHS,
    AuditEntry,
    Fields,
    Health,
    Page,
    Spend,
    Sums,
    UnknownCursor,
    UsageBucket,
    UsageQuery,
    Windows,
    added,
    bucket_rows,
    health,
)
from gateway.account.records import Record
from gateway.queue import keys, scripts
from gateway.settings import Settings

DAY = BUCKET_SECONDS["1d"]
CHUNK = 200  # records or buckets that are read at once

Group = tuple[str, str, str, str]  # public id of the key, owner, model, kind


class RedisLedger:
    """The ledger in Redis. All methods raise RedisError where it does not answer."""

    copies = False

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._redis = redis
        self._record_seconds = settings.record_days * DAY

    def check(self) -> None:
        """Do nothing: there are no tables."""

    def write(self, records: Sequence[Record]) -> None:
        """Keep these records and add them to the sums, all or none."""
        if not records:
            return
        args: list[Any] = [
            keys.ledger_record(""),
            keys.ledger_usage("", "")[:-1],
            self._record_seconds,
            keys.LEDGER_RECORDS,
            orjson.dumps([(width, keys.USAGE_SECONDS[width]) for width in WIDTHS]),
        ]
        for record in records:
            group = orjson.dumps([record.key_id, record.owner, record.summed_model, record.kind])
            # What lasts for ever must not grow with the models: callers may make up names.
            all_time = orjson.dumps([record.key_id, record.owner, "", ""])
            args += [record.id, record.settled_ms, record.encode()]
            args += [group, all_time, orjson.dumps(added(record))]
        scripts.LEDGER(self._redis, [keys.LEDGER_CALLS], args)

    def generation(self, call_id: str) -> Record | None:
        """Return the record of a call, if it is settled, written and not expired."""
        text = cast("bytes | None", self._redis.get(keys.ledger_record(call_id)))
        return Record.decode(text) if text else None

    def generations(
        self,
        *,
        key_id: str | None = None,
        owner: str | None = None,
        model: str | None = None,
        status: str | None = None,
        start_ms: int | None = None,
        end_ms: int | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Page:
        """Return records settled from `start_ms` to before `end_ms`, the latest first."""
        filters = {"key_id": key_id, "owner": owner, "model": model, "status": status}
        filters = {name: value for name, value in filters.items() if value is not None}
        page: list[Record] = []
        for record in self._latest(after, end_ms):
            if start_ms is not None and record.settled_ms < start_ms:
                break
            if all(getattr(record, name) == value for name, value in filters.items()):
                page.append(record)
            if len(page) > limit:
                break
        return Page(tuple(page[:limit]), len(page) > limit)

    def _latest(self, after: str | None, end_ms: int | None) -> Iterator[Record]:
        """The records below a cursor and a time, the latest first."""
        rank = 0
        if after is not None:
            place = cast("int | None", self._redis.zrevrank(keys.LEDGER_CALLS, after))
            if place is None:
                raise UnknownCursor(after)
            rank = place + 1
        if end_ms is not None:
            rank = max(rank, self._redis.zcount(keys.LEDGER_CALLS, end_ms, "+inf"))
        last: tuple[int, str] | None = None
        while True:
            names = cast(
                "list[bytes]", self._redis.zrevrange(keys.LEDGER_CALLS, rank, rank + CHUNK - 1)
            )
            if not names:
                return
            rank += len(names)
            texts = self._redis.mget([keys.ledger_record(name.decode()) for name in names])
            for text in cast("list[bytes | None]", texts):
                record = Record.decode(text) if text else None
                if record is None:  # expired
                    continue
                position = (record.settled_ms, record.id)
                # Records written meanwhile move the others down: those were read before.
                if last is None or position < last:
                    last = position
                    yield record

    def usage(self, query: UsageQuery) -> list[UsageBucket]:
        """Return the buckets that have usage, in the order of time."""
        width = BUCKET_SECONDS[query.bucket_width]
        starts = range(query.start - query.start % width, query.end, width)
        buckets = []
        for start, rows in self._buckets(width, starts):
            grouped = bucket_rows(rows, query)
            if grouped:
                buckets.append(UsageBucket(start, start + width, grouped))
        return buckets

    def totals(self, scope: str, now: int) -> Spend:
        """Return what a scope (`public_id` or `owner:id`) used, by the windows of `now`."""
        windows = Windows.at(now)
        first = min(windows.week, windows.month)
        days = dict.fromkeys(range(first, now + 1, DAY), Sums())
        for start, rows in self._buckets(DAY, days):
            days[start] = _of_scope(rows, scope)
        [(_, rows)] = self._buckets(ALL_TIME, [0])
        return Spend(
            _of_scope(rows, scope),
            *(
                sum((each for day, each in days.items() if day >= begin), Sums())
                for begin in (windows.day, windows.week, windows.month)
            ),
        )

    def save_key(self, public_id: str, fields: Fields) -> None:
        """Do nothing: Redis has the record."""

    def save_owner(self, owner: str, fields: Fields) -> None:
        """Do nothing: Redis has the record."""

    def keys(self) -> Iterable[tuple[str, dict[str, str]]]:
        """Return no copies."""
        return ()

    def owners(self) -> Iterable[tuple[str, dict[str, str]]]:
        """Return no copies."""
        return ()

    def audit(self, entries: Sequence[AuditEntry]) -> None:
        """Do nothing: Redis has the log."""

    def audit_log(self, *, after: str | None = None, limit: int = 100) -> list[AuditEntry]:
        """Return entries of the audit log older than that of the id `after`, the latest first."""
        entries = cast(
            "list[tuple[bytes, dict[bytes, bytes]]]",
            self._redis.xrevrange(keys.AUDIT, f"({after}" if after else "+", count=limit),
        )
        return [
            AuditEntry(stream_id.decode(), orjson.loads(fields[b"entry"]))
            for stream_id, fields in entries
        ]

    def unlike_records(self) -> Iterable[tuple[str, str, Sums, Sums]]:
        """Return nothing: which records are left depends on how many there were."""
        return ()

    def trim(self, now_ms: int) -> int:
        """Do nothing: records expire by themselves."""
        return 0

    def health(self) -> Health:
        """Return how far the ledger is behind."""
        return health(self._redis)

    def _buckets(
        self, width: int, starts: Iterable[int]
    ) -> Iterator[tuple[int, dict[Group, Sums]]]:
        listed = list(starts)
        for i in range(0, len(listed), CHUNK):
            chunk = listed[i : i + CHUNK]
            with self._redis.pipeline(transaction=False) as pipeline:
                for start in chunk:
                    pipeline.hgetall(keys.ledger_usage(width, start))
                for start, fields in zip(chunk, pipeline.execute(), strict=True):
                    yield start, _rows(fields)


def _rows(fields: dict[bytes, bytes]) -> dict[Group, Sums]:
    rows: dict[Group, dict[str, int]] = {}
    for field, count in fields.items():
        name, _, group = field.decode().partition(" ")
        if name in SUMS:
            key: Group = tuple(orjson.loads(group))
            rows.setdefault(key, {})[name] = int(count)
    return {group: Sums(**counts) for group, counts in rows.items()}


def _of_scope(rows: dict[Group, Sums], scope: str) -> Sums:
    place, name = (1, scope[6:]) if scope.startswith("owner:") else (0, scope)
    return sum((sums for group, sums in rows.items() if group[place] == name), Sums())
