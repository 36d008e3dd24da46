"""The fields of the records of keys and owners: their types, and their forms in Redis and JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

import orjson

NANO = 1_000_000_000  # money is counted in integers of 1e-9 USD

UNITS = ("usd", "tokens")
RESETS = ("daily", "weekly", "monthly")
PRIORITIES = ("interactive", "standard", "batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What keys and owners have in common. None: no limit. Times are seconds since 1970, 0: never.

    `limit` and `limit_extra` are in 1e-9 USD or in tokens, as `limit_unit` says. `limit_reset` is
    one of RESETS; "" means that the limit is for all time. `version` grows with each change.
    """

    rpm: int | None = None
    tpm: int | None = None
    max_in_flight: int | None = None
    max_waiting: int | None = None
    limit: int | None = None
    limit_unit: str = "usd"
    limit_reset: str = ""
    limit_extra: int | None = None
    limit_extra_until: int = 0
    alerts: tuple[float, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    disabled: bool = False
    updated: int = 0
    version: int = 0


def iso_time(seconds: int) -> str | None:
    """Return a time as ISO 8601 in UTC; None for 0."""
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def amount(units: int | None, unit: str) -> float | int | None:
    """Return an amount of 1e-9 USD in USD; one of tokens as it is."""
    return units / NANO if units is not None and unit == "usd" else units


@dataclass(frozen=True, slots=True)
class Form:
    """How values of one type are written into Redis and read from it. `empty` means: no field."""

    encode: Callable[[Any], str | int | bytes]
    decode: Callable[[bytes], Any]
    empty: Any


TEXT = Form(str, bytes.decode, "")
NUMBER = Form(int, int, None)
TIME = Form(int, int, 0)
FLAG = Form(int, lambda value: value == b"1", False)
SHARES = Form(orjson.dumps, lambda value: tuple(orjson.loads(value)), ())
NAMES = Form(orjson.dumps, lambda value: tuple(orjson.loads(value)), None)
OBJECT = Form(orjson.dumps, orjson.loads, {})
FORMS: dict[str, Form] = {
    "hmac": TEXT,
    "hmac_old": TEXT,
    "hmac_old_until": TIME,
    "rotation": TEXT,
    "name": TEXT,
    "owner": TEXT,
    "models": NAMES,
    "rpm": NUMBER,
    "tpm": NUMBER,
    "max_in_flight": NUMBER,
    "max_waiting": NUMBER,
    "batch_tokens_queued": NUMBER,
    "limit": NUMBER,
    "limit_unit": TEXT,
    "limit_reset": TEXT,
    "limit_extra": NUMBER,
    "limit_extra_until": TIME,
    "priority": TEXT,
    "weight": NUMBER,
    "alerts": SHARES,
    "metadata": OBJECT,
    "disabled": FLAG,
    "operator": FLAG,
    "share_cache": FLAG,
    "cache_seconds": NUMBER,
    "retry_on_worker_loss": FLAG,
    "webhook_url": TEXT,
    "webhook_nonce": TEXT,
    "expires": TIME,
    "created": TIME,
    "created_by": TEXT,
    "updated": TIME,
    "rotated": TIME,
    "last_used": TIME,
    "revoked": TIME,
    "version": NUMBER,
}
# Neither shown nor logged.
SECRET = frozenset({"hmac", "hmac_old", "rotation", "webhook_nonce"})
# Names in JSON that differ from those of the record.
NAMES_IN_JSON = {
    "models": "allowed_models",
    "rpm": "requests_per_minute",
    "tpm": "tokens_per_minute",
    "expires": "expires_at",
    "created": "created_at",
    "updated": "updated_at",
    "rotated": "rotated_at",
    "last_used": "last_used_at",
    "revoked": "revoked_at",
    "hmac_old_until": "previous_valid_until",
}
FIELDS_BY_JSON_NAME = {NAMES_IN_JSON.get(name, name): name for name in FORMS}
AMOUNTS = ("limit", "limit_extra")


def names(kind: Any) -> list[str]:
    """Return the names of the fields of a record, or of its dataclass, that Redis holds."""
    return [item.name for item in fields(kind) if item.name in FORMS]


def decode(kind: type[Any], stored: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Return the values of a record of this dataclass that Redis holds."""
    return {
        name: FORMS[name].decode(value)
        for name in names(kind)
        if (value := stored.get(name.encode())) is not None
    }


def encode(changes: Mapping[str, Any]) -> tuple[dict[str, str | int | bytes], list[str]]:
    """Return the fields to set in Redis and the names of those to delete, for these new values."""
    values = {
        name: FORMS[name].encode(value)
        for name, value in changes.items()
        if value != FORMS[name].empty
    }
    return values, [name for name in changes if name not in values]


def to_json(name: str, value: Any, unit: str) -> Any:
    """Return a value as JSON shows it: times in ISO 8601, money in USD, and null for none."""
    if name in AMOUNTS:
        return amount(value, unit)
    if FORMS[name] is TIME:
        return iso_time(value)
    if FORMS[name] is TEXT:
        return value or None
    return list(value) if isinstance(value, tuple) else value
