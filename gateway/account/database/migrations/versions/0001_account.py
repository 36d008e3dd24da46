"""Tables of the account: calls, usage, copies of keys and owners, audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

SUMS = (
    "requests",
    "input",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "output",
    "reasoning",
    "input_audio",
    "cache_read_audio",
    "output_audio",
    "input_image",
    "output_image",
    "cost_nano",
    "saved_nano",
)


def upgrade() -> None:
    op.create_table(
        "calls",
        sa.Column("id", sa.Text, nullable=False),
        *(text(name) for name in ("key_id", "owner", "model", "kind", "status")),
        *(number(name) for name in ("created_ms", "settled_ms", "cost_nano")),
        text("record"),
        sa.PrimaryKeyConstraint("id", name="pk_calls"),
    )
    op.create_index("ix_calls_settled_ms", "calls", ["settled_ms", "id"])
    op.create_index("ix_calls_status", "calls", ["status", "settled_ms", "id"])
    op.create_index("ix_calls_key_id", "calls", ["key_id", "settled_ms", "id", "model", "status"])
    op.create_index("ix_calls_owner", "calls", ["owner", "settled_ms", "id", "model", "status"])
    op.create_index("ix_calls_model", "calls", ["model", "settled_ms", "id", "status"])

    group = ("width", "start", "key_id", "owner", "model", "kind")
    op.create_table(
        "usage_buckets",
        sa.Column("width", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("start", sa.BigInteger, nullable=False, autoincrement=False),
        *(text(name) for name in group[2:]),
        *(number(name) for name in SUMS),
        sa.PrimaryKeyConstraint(*group, name="pk_usage_buckets"),
    )
    op.create_index("ix_usage_buckets_key_id", "usage_buckets", ["key_id", "width", "start"])
    op.create_index("ix_usage_buckets_owner", "usage_buckets", ["owner", "width", "start"])

    for table in ("keys", "owners"):
        op.create_table(
            table,
            text("id"),
            text("name"),
            number("version"),
            text("fields"),
            sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
        )
    op.create_table(
        "audit",
        sa.Column("ms", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
        text("entry"),
        sa.PrimaryKeyConstraint("ms", "number", name="pk_audit"),
    )


def text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)
