"""The ledger: where the records of calls and their sums are kept, and what may be asked of it.

Two stores implement it: `SqlLedger` (`DATABASE_URL`) and `RedisLedger` (without one). Only the
ledger writer of one worker writes; calls never wait for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from operator import add, attrgetter
from typing import Any, Protocol, cast

from redis import Redis

from gateway.account.records import Record
from gateway.queue import keys
from gateway.settings import Settings

log = logging.getLogger(__name__)

BUCKET_SECONDS = {"1m": 60, "1h": 3_600, "1d": 86_400}
ALL_TIME = 0  # the width of the one bucket that sums up everything
WIDTHS = (*BUCKET_SECONDS.values(), ALL_TIME)
GROUPS = ("api_key_id", "owner", "model", "kind")


class LedgerUnavailable(Exception):
    """Raised when the database does not answer, or its tables are not those of this release."""


class RecordRefused(ValueError):
    """Raised when the database cannot hold a value of a record, now or later."""


class UnknownCursor(ValueError):
    """Raised when a page should begin after a record that is not there (any more)."""


@dataclass(frozen=True, slots=True)
class Page:
    """Records, the latest settled first. The next page begins after the id of the last one."""

    records: tuple[Record, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which buckets and rows of the usage. Times are seconds since 1970; `end` is exclusive.

    Buckets begin at multiples of their width in UTC. Empty filters let everything through.
    """

    start: int
    end: int
    bucket_width: str = "1d"  # one of BUCKET_SECONDS
    group_by: tuple[str, ...] = ()  # of GROUPS
    api_key_ids: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over calls: requests, tokens in the normal form of usage, money in 1e-9 USD.

    A correction adds to the money and is no request.
    """

    requests: int = 0
    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    input_audio: int = 0
    cache_read_audio: int = 0
    output_audio: int = 0
    input_image: int = 0
    output_image: int = 0
    cost_nano: int = 0
    saved_nano: int = 0

    @property
    def tokens(self) -> int:
        """The tokens that limits count."""
        return self.input + self.cache_read + self.cache_write + self.cache_write_1h + self.output

    def __add__(self, other: Sums) -> Sums:
        return Sums(*map(add, _SUMS(self), _SUMS(other)))

    @classmethod
    def of(cls, record: Record) -> Sums:
        """Return what one record adds."""
        return cls(**added(record))


def added(record: Record) -> dict[str, int]:
    """Return what one record adds to the sums, by their names; some that are 0 are left out."""
    counts = {name: count for name, count in record.usage.items() if name in SUMS}
    if not record.correction:
        counts["requests"] = 1
    if record.cost_nano:
        counts["cost_nano"] = record.cost_nano
    if record.saved_nano:
        counts["saved_nano"] = record.saved_nano
    return counts


SUMS = tuple(item.name for item in fields(Sums))
_SUMS = attrgetter(*SUMS)


@dataclass(frozen=True, slots=True)
class UsageRow:
    """The sums of one group; a name that is not grouped by is None."""

    sums: Sums
    api_key_id: str | None = None
    owner: str | None = None
    model: str | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class UsageBucket:
    """A stretch of time and its rows; a bucket without usage is left out of an answer."""

    start: int
    end: int
    rows: tuple[UsageRow, ...]


@dataclass(frozen=True, slots=True)
class Windows:
    """When the calendar windows (UTC, Monday weeks) of a moment began, in seconds since 1970."""

    day: int
    week: int
    month: int

    @classmethod
    def at(cls, now: int) -> Windows:
        """Return the windows of a time in seconds since 1970."""
        day = now - now % 86_400
        moment = datetime.fromtimestamp(day, UTC)
        month = moment.replace(day=1)
        return cls(day, day - moment.weekday() * 86_400, int(month.timestamp()))


@dataclass(frozen=True, slots=True)
class Spend:
    """What a key or an owner has used: in all, and in the windows of one moment."""

    all_time: Sums = Sums()
    day: Sums = Sums()
    week: Sums = Sums()
    month: Sums = Sums()


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change of a key or an owner: its id in the stream `gw:audit`, and what was logged."""

    id: str
    entry: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Health:
    """How far the ledger is behind: records that wait to be written, and the age of the oldest."""

    backlog: int
    lag_seconds: float

    @property
    def degraded(self) -> bool:
        """Whether the ledger is further behind than a writer's failover takes."""
        return self.lag_seconds > LAG_SECONDS


LAG_SECONDS = 30.0

Fields = Mapping[str, str]  # of the Redis hash of a key or an owner


class Ledger(Protocol):
    """The account's store. Reads block only the greenlet that makes them.

    Every method raises LedgerUnavailable, or RedisError without a database, where the store does
    not answer. `copies`: it keeps copies of keys, owners and audit log, which live in Redis.
    """

    copies: bool

    def check(self) -> None:
        """Raise ConfigurationError if the tables are not those of this release."""

    def write(self, records: Sequence[Record]) -> None:
        """Keep these records and add them to the sums, all or none.

        A record that is there already, by its id, changes nothing.
        """

    def generation(self, call_id: str) -> Record | None:
        """Return the record of a call, if it is settled, written and not expired."""

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
        """Return records settled from `start_ms` to before `end_ms`, the latest first.

        `after` is the id of the last record of the page before. Raises UnknownCursor.
        """

    def usage(self, query: UsageQuery) -> list[UsageBucket]:
        """Return the buckets that have usage, in the order of time, from sums kept at writing."""

    def totals(self, scope: str, now: int) -> Spend:
        """Return what a scope (`public_id` or `owner:id`) used, by the windows of `now`."""

    def save_key(self, public_id: str, fields: Fields) -> None:
        """Keep a copy of a key's record in Redis, unless a later version is kept.

        No fields: the key was deleted.
        """

    def save_owner(self, owner: str, fields: Fields) -> None:
        """Keep a copy of an owner's record in Redis, unless a later version is kept.

        No fields: the owner was deleted.
        """

    def keys(self) -> Iterable[tuple[str, dict[str, str]]]:
        """Return public id and copied fields of every key; without a database none."""

    def owners(self) -> Iterable[tuple[str, dict[str, str]]]:
        """Return id and copied fields of every owner; without a database none."""

    def audit(self, entries: Sequence[AuditEntry]) -> None:
        """Keep entries of the audit log; one that is there already, by its id, changes nothing."""

    def audit_log(self, *, after: str | None = None, limit: int = 100) -> list[AuditEntry]:
        """Return entries of the audit log older than that of the id `after`, the latest first."""

    def unlike_records(self) -> Iterable[tuple[str, str, Sums, Sums]]:
        """Return keys and days whose sums are not those of their records, and what both say.

        Only requests and money are compared, and whole days of which all records are kept.
        """

    def trim(self, now_ms: int) -> int:
        """Delete one slice of what is older than `RECORD_DAYS`, and return how much it was."""

    def health(self) -> Health:
        """Return how far the ledger is behind, by Redis. Raises RedisError."""


def bucket_rows(
    rows: Mapping[tuple[str, str, str, str], Sums], query: UsageQuery
) -> tuple[UsageRow, ...]:
    """Return the rows of a bucket that the query lets through, grouped as it says.

    `rows` are by key, owner, model and kind.
    """
    filters = (query.api_key_ids, query.owners, query.models, query.kinds)
    places = [GROUPS.index(name) for name in query.group_by]
    grouped: dict[tuple[str, ...], Sums] = {}
    for names, sums in rows.items():
        if all(not chosen or name in chosen for name, chosen in zip(names, filters, strict=True)):
            group = tuple(names[place] for place in places)
            grouped[group] = grouped.get(group, Sums()) + sums
    return tuple(
        UsageRow(sums, **dict(zip(query.group_by, group, strict=True)))
        for group, sums in sorted(grouped.items())
    )


def received(fields: dict[bytes, bytes]) -> Record:
    """Return the record of an entry of the stream. Raises ValueError for what is none."""
    record = Record.from_entry(fields)
    if not isinstance(record.usage, dict):
        raise ValueError("the usage of a record must be an object")
    numbers = (record.cost_nano, record.saved_nano, record.created_ms, record.settled_ms)
    ids = (record.id, record.key_id, record.owner)
    names = (*ids, record.model, record.family, record.kind, record.status)
    if not all(type(number) is int for number in (*numbers, *record.usage.values())):
        raise ValueError("a number of a record must be an integer")
    if not all(type(name) is str for name in names):
        raise ValueError("a name in a record must be a text")
    return record


def open_ledger(settings: Settings, redis: Redis) -> Ledger:
    """Return the ledger that the settings describe. Connects to nothing yet."""
    if settings.database_url:
        return cast("Ledger", _SqlLedgerLater(settings, redis))
    from gateway.account.redis_ledger import RedisLedger  # it imports this module

    return RedisLedger(settings, redis)


class _SqlLedgerLater:
    """The ledger in a database, which is imported when it is first used.

    SQLAlchemy takes 16 MB, and a web process needs it for reports only.
    """

    copies = True

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._settings, self._redis = settings, redis
        self._ledger: Ledger | None = None

    def health(self) -> Health:
        return health(self._redis)

    def __getattr__(self, name: str) -> Any:
        if self._ledger is None:
            from gateway.account.database.ledger import SqlLedger

            self._ledger = SqlLedger(self._settings, self._redis)
        return getattr(self._ledger, name)


def check_tables(ledger: Ledger) -> None:
    """Raise ConfigurationError if the tables of the ledger are not those of this release.

    A database that does not answer is a warning: calls do not need it.
    """
    try:
        ledger.check()
    except LedgerUnavailable as error:
        log.warning("ledger: the database does not answer (%s)", error)


def health(redis: Redis) -> Health:
    """Return how far the ledger is behind. Raises RedisError."""
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.xlen(keys.RECORDS)
        pipeline.xrange(keys.RECORDS, count=1)
        pipeline.time()
        backlog, oldest, (seconds, microseconds) = pipeline.execute()
    if not oldest:
        return Health(0, 0.0)
    written_ms = int(oldest[0][0].partition(b"-")[0])
    return Health(backlog, max(0.0, seconds + microseconds / 1e6 - written_ms / 1000))
