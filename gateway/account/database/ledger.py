"""The ledger in a database: Postgres or SQLite."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, cast

import orjson
from redis import Redis
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    case,
    delete,
    func,
    insert,
    select,
    tuple_,
)

from gateway.account.database import schema
from gateway.account.database.engine import make_engine, off_loop, transaction
from gateway.account.database.tables import audit, calls, keys, owners, usage
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
    UsageRow,
    Windows,
    health,
)
from gateway.account.records import Record
from gateway.settings import Settings

DAY, MINUTE = BUCKET_SECONDS["1d"], BUCKET_SECONDS["1m"]
SLICE = 1_000  # rows that `trim` deletes at once
CALL_COLUMNS = [column.name for column in calls.c if column.name != "record"]
COLUMNS = {"api_key_id": usage.c.key_id, "owner": usage.c.owner} | {
    "model": usage.c.model,
    "kind": usage.c.kind,
}


class SqlLedger:
    """The ledger in a database. All methods raise LedgerUnavailable; see `Ledger`."""

    copies = True

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self.engine = make_engine(settings.database_url)
        # Only that of the database in use: the dialect of Postgres takes 2 MB.
        dialect = import_module(f"sqlalchemy.dialects.{self.engine.dialect.name}")
        self._insert: Any = dialect.insert  # the standard's knows no conflicts
        upsert = self._insert(usage)
        self._add_usage = upsert.on_conflict_do_update(
            index_elements=list(usage.primary_key),
            set_={name: usage.c[name] + upsert.excluded[name] for name in SUMS},
        )
        self._redis = redis
        self._record_ms = settings.record_days * DAY * 1000

    def check(self) -> None:
        """Raise ConfigurationError if the tables are not those of this release."""
        schema.check(self.engine)

    def write(self, records: Sequence[Record]) -> None:
        """Keep these records and add them to the sums, all or none.

        Raises RecordRefused if the database cannot hold a value of one.
        """
        if records:
            off_loop(self.engine, self._write, records)

    def _write(self, records: Sequence[Record]) -> None:
        by_id = {record.id: record for record in reversed(records)}  # the first one stands
        with transaction(self.engine, writes=True) as connection:
            listed = select(calls.c.id).where(calls.c.id.in_(sorted(by_id)))
            for existing in connection.scalars(listed):
                del by_id[existing]
            if not by_id:
                return
            connection.execute(insert(calls), [_row(record) for record in by_id.values()])
            connection.execute(self._add_usage, _buckets(by_id.values()))

    def generation(self, call_id: str) -> Record | None:
        """Return the record of a call, if it is settled, written and not expired."""
        rows = self._read(select(calls.c.record).where(calls.c.id == call_id))
        return Record.decode(rows[0].record) if rows else None

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
        filters: dict[ColumnElement[str], str | None] = {
            calls.c.key_id: key_id,
            calls.c.owner: owner,
            calls.c.model: model,
        }
        # Nearly all calls are completed: SQLite would take the index of the status for a key's.
        alone = not any(filters.values())
        filters[calls.c.status if alone else calls.c.status.concat("")] = status
        statement = (
            select(calls.c.record)
            .where(*(column == each for column, each in filters.items() if each is not None))
            .order_by(calls.c.settled_ms.desc(), calls.c.id.desc())
            .limit(limit + 1)
        )
        if start_ms is not None:
            statement = statement.where(calls.c.settled_ms >= start_ms)
        if end_ms is not None:
            statement = statement.where(calls.c.settled_ms < end_ms)
        if after is not None:
            last = self._read(select(calls.c.settled_ms).where(calls.c.id == after))
            if not last:
                raise UnknownCursor(after)
            position = tuple_(calls.c.settled_ms, calls.c.id)
            statement = statement.where(position < tuple_(last[0].settled_ms, after))
        records = [Record.decode(row.record) for row in self._read(statement)]
        return Page(tuple(records[:limit]), len(records) > limit)

    def usage(self, query: UsageQuery) -> list[UsageBucket]:
        """Return the buckets that have usage, in the order of time."""
        width = BUCKET_SECONDS[query.bucket_width]
        groups = [COLUMNS[name] for name in query.group_by]
        filters = zip(
            COLUMNS.values(),
            (query.api_key_ids, query.owners, query.models, query.kinds),
            strict=True,
        )
        statement = (
            select(usage.c.start, *groups, *(func.sum(usage.c[name]) for name in SUMS))
            .where(
                usage.c.width == width,
                usage.c.start >= query.start - query.start % width,
                usage.c.start < query.end,
                *(column.in_(chosen) for column, chosen in filters if chosen),
            )
            .group_by(usage.c.start, *groups)
        )
        buckets: dict[int, list[UsageRow]] = {}
        for row in sorted(self._read(statement), key=lambda row: row[: 1 + len(groups)]):
            names = dict(zip(query.group_by, row[1:], strict=False))
            sums = Sums(*map(int, row[1 + len(groups) :]))
            buckets.setdefault(row.start, []).append(UsageRow(sums, **names))
        return [UsageBucket(start, start + width, tuple(rows)) for start, rows in buckets.items()]

    def totals(self, scope: str, now: int) -> Spend:
        """Return what a scope (`public_id` or `owner:id`) used, by the windows of `now`."""
        windows = Windows.at(now)
        column, name = usage.c.key_id, scope
        if scope.startswith("owner:"):
            column, name = usage.c.owner, scope[6:]
        statement = (
            select(usage.c.width, usage.c.start, *(func.sum(usage.c[each]) for each in SUMS))
            .where(
                column == name,
                usage.c.width.in_((DAY, ALL_TIME)),
                (usage.c.width == ALL_TIME) | (usage.c.start >= min(windows.week, windows.month)),
            )
            .group_by(usage.c.width, usage.c.start)
        )
        sums = {(row.width, row.start): Sums(*map(int, row[2:])) for row in self._read(statement)}
        return Spend(
            sums.pop((ALL_TIME, 0), Sums()),
            *(
                sum((each for (_, day), each in sums.items() if day >= begin), Sums())
                for begin in (windows.day, windows.week, windows.month)
            ),
        )

    def save_key(self, public_id: str, fields: Fields) -> None:
        """Keep a copy of a key's record, unless a later one is kept; without fields, none."""
        off_loop(self.engine, self._save, keys, public_id, fields)

    def save_owner(self, owner: str, fields: Fields) -> None:
        """Keep a copy of an owner's record, unless a later one is kept; without fields, none."""
        off_loop(self.engine, self._save, owners, owner, fields)

    def _save(self, table: Table, name: str, fields: Fields) -> None:
        if not fields:
            with transaction(self.engine, writes=True) as connection:
                connection.execute(delete(table).where(table.c.id == name))
            return
        upsert = self._insert(table).values(
            id=name,
            name=fields.get("name", ""),
            version=int(fields.get("version", 0)),
            fields=orjson.dumps(dict(fields)).decode(),
        )
        copied = ("name", "version", "fields")
        with transaction(self.engine, writes=True) as connection:
            connection.execute(
                upsert.on_conflict_do_update(
                    index_elements=[table.c.id],
                    set_={each: upsert.excluded[each] for each in copied},
                    where=upsert.excluded.version >= table.c.version,
                )
            )

    def keys(self) -> Iterable[tuple[str, dict[str, str]]]:
        """Return public id and copied fields of every key."""
        return [(row.id, orjson.loads(row.fields)) for row in self._read(select(keys))]

    def owners(self) -> Iterable[tuple[str, dict[str, str]]]:
        """Return id and copied fields of every owner."""
        return [(row.id, orjson.loads(row.fields)) for row in self._read(select(owners))]

    def audit(self, entries: Sequence[AuditEntry]) -> None:
        """Keep entries of the audit log; one that is there already, by its id, changes nothing."""
        if entries:
            off_loop(self.engine, self._audit, entries)

    def _audit(self, entries: Sequence[AuditEntry]) -> None:
        rows = [
            {"ms": ms, "number": number, "entry": orjson.dumps(dict(each.entry)).decode()}
            for each in entries
            for ms, number in [_parts(each.id)]
        ]
        statement = self._insert(audit).on_conflict_do_nothing()
        with transaction(self.engine, writes=True) as connection:
            connection.execute(statement, rows)

    def audit_log(self, *, after: str | None = None, limit: int = 100) -> list[AuditEntry]:
        """Return entries of the audit log older than that of the id `after`, the latest first."""
        statement = select(audit).order_by(audit.c.ms.desc(), audit.c.number.desc()).limit(limit)
        if after is not None:
            statement = statement.where(tuple_(audit.c.ms, audit.c.number) < tuple_(*_parts(after)))
        return [
            AuditEntry(f"{row.ms}-{row.number}", orjson.loads(row.entry))
            for row in self._read(statement)
        ]

    def unlike_records(self) -> Iterable[tuple[str, str, Sums, Sums]]:
        """Return keys and days whose sums are not those of their records, and what both say."""
        # The day that is being trimmed, and the one before which the oldest record was settled.
        first_day = (time.time_ns() // 1_000_000 - self._record_ms) // (DAY * 1000) + 1
        day = calls.c.settled_ms // (DAY * 1000)
        is_request = case((calls.c.kind == "correction", 0), else_=1)
        records = self._read(
            select(calls.c.key_id, day, func.sum(is_request), func.sum(calls.c.cost_nano))
            .where(calls.c.settled_ms >= first_day * DAY * 1000)
            .group_by(calls.c.key_id, day)
        )
        buckets = self._read(
            select(
                usage.c.key_id,
                usage.c.start // DAY,
                func.sum(usage.c.requests),
                func.sum(usage.c.cost_nano),
            )
            .where(usage.c.width == DAY, usage.c.start >= first_day * DAY)
            .group_by(usage.c.key_id, usage.c.start)
        )
        recorded, kept = (
            {(row[0], int(row[1])): Sums(int(row[2]), cost_nano=int(row[3])) for row in rows}
            for rows in (records, buckets)
        )
        for place in sorted(recorded.keys() | kept.keys()):
            pair = recorded.get(place, Sums()), kept.get(place, Sums())
            if pair[0] != pair[1]:
                date = datetime.fromtimestamp(place[1] * DAY, UTC)
                yield place[0], f"{date:%Y-%m-%d}", *pair

    def trim(self, now_ms: int) -> int:
        """Delete one slice of what is older than `RECORD_DAYS`, and return how many rows it was.

        Records and the sums of minutes go; those of hours and days stay.
        """
        return off_loop(self.engine, self._trim, now_ms - self._record_ms)

    def _trim(self, before_ms: int) -> int:
        old_calls = (
            select(calls.c.id)
            .where(calls.c.settled_ms < before_ms)
            .order_by(calls.c.settled_ms)
            .limit(SLICE)
        )
        minute = tuple_(*usage.primary_key)
        old_minutes = (
            select(*usage.primary_key)
            .where(usage.c.width == MINUTE, usage.c.start < before_ms // 1000)
            .limit(SLICE)
        )
        with transaction(self.engine, writes=True) as connection:
            deleted = connection.execute(delete(calls).where(calls.c.id.in_(old_calls))).rowcount
            deleted += connection.execute(delete(usage).where(minute.in_(old_minutes))).rowcount
            return cast(int, deleted)

    def health(self) -> Health:
        """Return how far the ledger is behind. Raises RedisError."""
        return health(self._redis)

    def _read(self, statement: Select[Any]) -> Sequence[Any]:
        return off_loop(self.engine, self._rows, statement)

    def _rows(self, statement: Select[Any]) -> Sequence[Any]:
        connection: Connection
        with transaction(self.engine) as connection:
            return connection.execute(statement).all()


def _row(record: Record) -> dict[str, Any]:
    row = {name: getattr(record, name) for name in CALL_COLUMNS}
    row["record"] = record.encode().decode()
    return row


def _buckets(records: Iterable[Record]) -> list[dict[str, Any]]:
    """The rows that these records add to, in an order that all writers have."""
    minutes: dict[tuple[int, str, str, str, str], Sums] = {}
    for record in records:
        group = (
            record.settled_ms // (MINUTE * 1000) * MINUTE,
            *(record.key_id, record.owner, record.summed_model, record.kind),
        )
        added = Sums.of(record)
        minutes[group] = minutes[group] + added if group in minutes else added
    sums: dict[tuple[int, int, str, str, str, str], Sums] = {}
    for (minute, key_id, owner, model, kind), added in minutes.items():
        for width in WIDTHS:
            start = minute - minute % width if width else 0
            # What lasts for ever must not grow with the models: callers may make up names.
            by = (model, kind) if width else ("", "")
            bucket = (width, start, key_id, owner, *by)
            sums[bucket] = sums[bucket] + added if bucket in sums else added
    columns = [column.name for column in usage.primary_key]
    return [
        {**dict(zip(columns, bucket, strict=True)), **_counts(each)}
        for bucket, each in sorted(sums.items())
    ]


def _counts(sums: Sums) -> Mapping[str, int]:
    return {name: getattr(sums, name) for name in SUMS}


def _parts(stream_id: str) -> tuple[int, int]:
    ms, _, number = stream_id.partition("-")
    return int(ms), int(number)
