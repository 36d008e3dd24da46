"""The shapes of keys, owners and the audit log, for the OpenAPI document alone."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.schemas.response_schema import Count

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Usd = Annotated[float, Field(ge=0, description="In USD.")]
Amount = Annotated[float, Field(ge=0, description="In USD or tokens, as `limit_unit` says.")]


class Limits(TypedDict):
    """Limits, and what is used of them. Null: no limit. Windows are UTC days, weeks and months."""

    limit: Amount | None
    limit_unit: Literal["usd", "tokens"]
    limit_reset: Literal["daily", "weekly", "monthly"] | None
    limit_remaining: Annotated[
        Amount | None, Field(description="Neither used nor reserved by running calls.")
    ]
    limit_resets_at: Time | None
    limit_extra: Amount | None
    limit_extra_until: Time | None
    usage: Usd
    usage_daily: Usd
    usage_weekly: Usd
    usage_monthly: Usd
    tokens: Count
    tokens_daily: Count
    tokens_weekly: Count
    tokens_monthly: Count
    requests: Count
    requests_daily: Count
    requests_weekly: Count
    requests_monthly: Count
    reserved: Annotated[Usd, Field(description="Held by running calls, in USD.")]
    reserved_tokens: Count
    requests_per_minute: Count | None
    tokens_per_minute: Count | None
    max_in_flight: Count | None
    max_waiting: Count | None
    in_flight: Annotated[Count, Field(description="Calls that are queued or running.")]
    waiting: Annotated[Count, Field(description="Calls that wait for others of the key to end.")]
    alerts: Annotated[list[float], Field(description="Shares of the limit.")]
    metadata: dict[str, str]
    disabled: bool
    created_at: Time | None
    updated_at: Time | None


class Key(Limits):
    """An API key. Its secret is not shown."""

    id: Annotated[str, Field(description="The public id, which stays when the secret changes.")]
    name: str
    label: Annotated[str, Field(examples=["mk_inference_ab12..."])]
    owner: str | None
    operator: Annotated[bool, Field(description="Whether it manages keys and calls no model.")]
    allowed_models: Annotated[list[str] | None, Field(description="Null: all.")]
    priority: Literal["interactive", "standard", "batch"]
    weight: Count
    cache_seconds: Count | None
    batch_tokens_queued: Count | None
    retry_on_worker_loss: Annotated[
        bool, Field(description="Whether calls of a lost worker run once more.")
    ]
    webhook_url: Annotated[str | None, Field(description="Where the key's events are sent.")]
    expires_at: Time | None
    last_used_at: Time | None
    rotated_at: Time | None
    previous_valid_until: Annotated[
        Time | None, Field(description="Until when the secret before the last rotation is valid.")
    ]
    created_by: str | None


class Owner(Limits):
    """A team or customer. Its limits hold for all its keys together."""

    id: str
    name: str
    share_cache: Annotated[bool, Field(description="Whether its keys share cached responses.")]


Secret = Annotated[str, Field(description="The whole key. It cannot be shown again.")]


WebhookSecret = Annotated[
    str,
    Field(
        description="Only if the request set `webhook_url`: what signs the events. It cannot be "
        "shown again.",
        examples=["whsec_..."],
    ),
]


class KeyResponse(TypedDict):
    """A key."""

    data: Key


class ChangedKey(TypedDict):
    """A key as it is after a change."""

    data: Key
    webhook_secret: NotRequired[WebhookSecret]


class CreatedKey(TypedDict):
    """A new key."""

    data: Key
    key: Secret
    webhook_secret: NotRequired[WebhookSecret]


class RotatedKey(TypedDict):
    """A key with a new secret."""

    data: Key
    key: Secret
    previous_valid_until: Time | None


class KeyList(TypedDict):
    """Keys, the oldest first."""

    data: list[Key]
    has_more: bool


class OwnerResponse(TypedDict):
    """An owner."""

    data: Owner


class OwnerList(TypedDict):
    """Owners, by id."""

    data: list[Owner]
    has_more: bool


class Deleted(TypedDict):
    """It was deleted."""

    deleted: Literal[True]


class AuditEntry(TypedDict):
    """One change of a key or an owner, or one act that steers the queue or a worker."""

    id: str
    created_at: Time | None
    action: Annotated[str, Field(examples=["key.updated"])]
    target: Annotated[str, Field(description="Id of the key, owner, call, pause or worker.")]
    actor: Annotated[str, Field(description="Public id of an operator key, or another name.")]
    address: str | None
    forwarded_for: Annotated[
        str | None,
        Field(description="The header X-Forwarded-For, which a client may have made up."),
    ]
    changes: Annotated[
        dict[str, list[Any]], Field(description="Each changed field: its values before and after.")
    ]


class AuditLog(TypedDict):
    """The changes of keys and owners, the latest first."""

    data: list[AuditEntry]
    has_more: bool
