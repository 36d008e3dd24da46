"""The tables of the account. A change needs a migration, additive first: old processes run on."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text

from gateway.account.ledger import SUMS

metadata = MetaData(
    naming_convention={"pk": "pk_%(table_name)s", "ix": "ix_%(table_name)s_%(column_0_name)s"}
)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _number(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


# One row a settled call or correction. What is filtered and sorted by are columns; `record` is JSON
# with all of it, so that a field more needs no migration. Money is in 1e-9 USD.
calls = Table(
    "calls",
    metadata,
    Column("id", Text, primary_key=True),
    _text("key_id"),
    _text("owner"),
    _text("model"),
    _text("kind"),
    _text("status"),
    _number("created_ms"),
    _number("settled_ms"),
    _number("cost_nano"),
    _text("record"),
)
# The last columns let a filter be decided in the index, without reading the rows.
Index("ix_calls_settled_ms", calls.c.settled_ms, calls.c.id)
Index("ix_calls_status", calls.c.status, calls.c.settled_ms, calls.c.id)
Index("ix_calls_key_id", *(calls.c[n] for n in ("key_id", "settled_ms", "id", "model", "status")))
Index("ix_calls_owner", *(calls.c[n] for n in ("owner", "settled_ms", "id", "model", "status")))
Index("ix_calls_model", *(calls.c[n] for n in ("model", "settled_ms", "id", "status")))

# Sums by time, key, owner, model and kind. `width` is 60, 3600 or 86400 seconds, or 0 for all time;
# `start` is in seconds since 1970.
usage = Table(
    "usage_buckets",
    metadata,
    Column("width", Integer, primary_key=True, autoincrement=False),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    *(Column(name, Text, primary_key=True) for name in ("key_id", "owner", "model", "kind")),
    *(_number(name) for name in SUMS),
)
Index("ix_usage_buckets_key_id", usage.c.key_id, usage.c.width, usage.c.start)
Index("ix_usage_buckets_owner", usage.c.owner, usage.c.width, usage.c.start)


def _copies(name: str) -> Table:
    """Copies of hashes in Redis; `fields` is JSON."""
    return Table(
        name,
        metadata,
        Column("id", Text, primary_key=True),
        _text("name"),
        _number("version"),
        _text("fields"),
    )


keys = _copies("keys")
owners = _copies("owners")

# `ms` and `number` are the two parts of an entry's id in the stream of Redis.
audit = Table(
    "audit",
    metadata,
    Column("ms", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    _text("entry"),
)
