"""The fields of keys and owners that operators set: the one schema of HTTP and of the commands."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Required

from pydantic import ConfigDict, Field, TypeAdapter, WithJsonSchema
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.schemas.check import check
from api.schemas.errors import invalid, invalid_request
from api.schemas.fields import Metadata, Whole, checked
from gateway import webhooks
from gateway.account import counters
from gateway.account.api_keys import KeyRecord
from gateway.account.key_fields import FIELDS_BY_JSON_NAME, NANO, Limits

# Redis' scripts count in floats, which are exact up to 9e15: a limit and its extra stay below.
MOST_USD = 4_000_000
MOST_TOKENS = 4_000_000_000_000_000
MOST = 1_000_000_000  # of calls and tokens in a minute
GRACE_SECONDS = 86_400
MOST_GRACE_SECONDS = 30 * 86_400
MOST_CACHE_SECONDS = 30 * 86_400

STRICT = ConfigDict(extra="forbid")


def timestamp(text: str) -> int | None:
    """The seconds since 1970 of a time in ISO 8601 with its offset from UTC; None: it is none.

    Its year must be from 1971 to 9999, in UTC: others cannot be shown.
    """
    try:
        time = datetime.fromisoformat(text)
        in_utc = time.astimezone(UTC)
        return int(time.timestamp()) if time.tzinfo and in_utc.year > 1970 else None
    except (ValueError, OverflowError):
        return None


def _is_model(name: str) -> bool:
    return name.isprintable() and "*" not in name[:-1]


Count = Annotated[int, Field(ge=1, le=MOST), Whole]
CountOrNone = Annotated[int, Field(ge=0, le=MOST), Whole]
Amount = Annotated[float, Field(ge=0, le=MOST_TOKENS)]
Share = Annotated[float, Field(ge=0.01, le=1)]
Name = Annotated[
    str,
    Field(min_length=1, max_length=128),
    checked("wrong.value", "expected no control characters", str.isprintable),
]
OwnerId = Annotated[str, Field(pattern="^[A-Za-z0-9_.-]{1,64}$")]
Time = Annotated[
    str,
    checked(
        "wrong.value",
        "expected a time with its offset from UTC, such as 2027-01-31T23:59:59Z",
        lambda text: timestamp(text) is not None,
    ),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
ModelPattern = Annotated[
    str,
    Field(min_length=1, max_length=256),
    checked("wrong.value", "expected the id of a model, with * at its end only", _is_model),
]


class LimitFields(TypedDict, total=False):
    """Limits of a key or of an owner. Null: none. Absent in a change: as it was.

    `limit` and `limit_extra` are in USD or tokens, as `limit_unit` says; `limit_reset` null means
    that the limit is for all time. `limit_extra` ends with the current window unless
    `limit_extra_until` says otherwise.
    """

    __pydantic_config__ = STRICT  # type: ignore[misc]

    limit: Amount | None
    limit_unit: Literal["usd", "tokens"] | None
    limit_reset: Literal["daily", "weekly", "monthly"] | None
    limit_extra: Amount | None
    limit_extra_until: Time | None
    requests_per_minute: Count | None
    tokens_per_minute: Count | None
    max_in_flight: Count | None
    max_waiting: CountOrNone | None
    alerts: Annotated[list[Share], Field(max_length=10)] | None
    metadata: Metadata | None
    disabled: bool | None


class KeyFields(LimitFields, total=False):
    """What may be set of a key besides its name."""

    owner: OwnerId | None
    allowed_models: Annotated[list[ModelPattern], Field(max_length=200)] | None
    priority: Literal["interactive", "standard", "batch"] | None
    weight: Annotated[int, Field(ge=1, le=1000), Whole] | None
    cache_seconds: Annotated[int, Field(ge=1, le=MOST_CACHE_SECONDS), Whole] | None
    batch_tokens_queued: Annotated[int, Field(ge=0, le=MOST_TOKENS), Whole] | None
    retry_on_worker_loss: bool | None
    webhook_url: Annotated[str, Field(min_length=1, max_length=webhooks.MAX_URL)] | None
    expires_at: Time | None


class NewKey(KeyFields, total=False):
    """A new key. An operator key manages keys and calls no model."""

    name: Required[Name]
    operator: bool


class KeyChange(KeyFields, total=False):
    """A change of a key. Null: none. Absent: as it was."""

    name: Name


class NewOwner(LimitFields, total=False):
    """A new owner."""

    id: Required[OwnerId]
    name: Name | None
    share_cache: bool | None


class OwnerChange(LimitFields, total=False):
    """A change of an owner. Null: none. Absent: as it was."""

    name: Name | None
    share_cache: bool | None


class RotationRequest(TypedDict, total=False):
    """How long the present secret stays valid."""

    __pydantic_config__ = STRICT  # type: ignore[misc]

    grace_seconds: Annotated[int, Field(ge=0, le=MOST_GRACE_SECONDS), Whole]


NEW_KEY = TypeAdapter(NewKey)
KEY_CHANGE = TypeAdapter(KeyChange)
NEW_OWNER = TypeAdapter(NewOwner)
OWNER_CHANGE = TypeAdapter(OwnerChange)
ROTATION = TypeAdapter(RotationRequest)


def checked_fields(adapter: TypeAdapter[Any], data: Any) -> dict[str, Any]:
    """The data, if it has the adapter's shape; raises InvalidRequest for the first problem."""
    check(adapter, data, invalid_request)
    fields: dict[str, Any] = data
    return fields


def to_record(
    data: Mapping[str, Any], record: Limits, now: float, webhook_hosts: Collection[str] = ()
) -> dict[str, Any]:
    """The values that a record gets from checked fields; None for what is taken away.

    `record` is the one that changes, or a blank one. Raises InvalidRequest for fields that do not
    go together, and for a webhook to another host than those of `webhook_hosts`.
    """
    values = {FIELDS_BY_JSON_NAME[name]: value for name, value in data.items() if name != "id"}
    unit = data.get("limit_unit", record.limit_unit) or "usd"
    for name in ("limit", "limit_extra"):
        if values.get(name) is not None:
            values[name] = _units(name, values[name], unit)
        elif unit != record.limit_unit and name not in values and getattr(record, name) is not None:
            raise invalid("wrong.value", "limit_unit", reason=f"'{name}' must change with it")
    for name in ("expires", "limit_extra_until"):
        if values.get(name) is not None:
            values[name] = timestamp(values[name])
    for name in ("models", "alerts"):
        if values.get(name) is not None:
            values[name] = tuple(values[name])
    extra = values.get("limit_extra", record.limit_extra)
    if extra is None and values.get("limit_extra_until") is not None:
        raise invalid("wrong.value", "limit_extra_until", reason="there is no 'limit_extra'")
    if "limit_extra" in values and "limit_extra_until" not in values:
        reset = data.get("limit_reset", record.limit_reset)
        ends = extra is not None and reset
        values["limit_extra_until"] = counters.window(reset, now)[1] if ends else None
    if isinstance(record, KeyRecord) and "webhook_url" in data:
        if (data["webhook_url"] or "") != record.webhook_url:
            values |= _webhook(data["webhook_url"], webhook_hosts)
    return values


def _webhook(url: str | None, hosts: Collection[str]) -> dict[str, str | None]:
    """The fields of a new webhook, which has a secret of its own, or of none."""
    if url is None:
        return {"webhook_url": None, "webhook_nonce": None}
    if webhooks.allowing(url, hosts) is None:
        reason = "the operator's WEBHOOK_HOSTS does not allow it"
        raise invalid("wrong.value", "webhook_url", reason=reason)
    return {"webhook_url": url, "webhook_nonce": webhooks.new_nonce()}


def _units(name: str, value: float, unit: str) -> int:
    """An amount of USD in 1e-9 USD, or one of tokens as it is."""
    if unit == "usd":
        if value > MOST_USD:
            raise invalid("less_than_equal", name, value, le=float(MOST_USD))
        return round(Decimal(str(value)) * NANO)
    if value != int(value):
        raise invalid("wrong.value", name, reason="expected a whole number of tokens")
    return int(value)
