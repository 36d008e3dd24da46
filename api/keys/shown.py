"""Keys and owners as JSON shows them, with what they have used and what is left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from api.services import services
from gateway.account import counters, key_fields
from gateway.account.api_keys import PREFIX, KeyRecord
from gateway.account.counters import Counters
from gateway.account.key_fields import NANO, iso_time, to_json
from gateway.account.owners import OwnerRecord
from gateway.queue.keys import owner_scope

# In the order in which they are shown.
LIMIT = ("limit", "limit_unit", "limit_reset")
EXTRA = ("limit_extra", "limit_extra_until")
COUNTS = ("rpm", "tpm", "max_in_flight", "max_waiting")
KEY_OPTIONS = (
    *("priority", "weight", "cache_seconds", "batch_tokens_queued", "retry_on_worker_loss"),
    *("webhook_url", "alerts", "metadata"),
)
KEY_TIMES = ("expires", "created", "updated", "last_used", "rotated")
OWNER_OPTIONS = ("share_cache", "alerts", "metadata")
OWNER_TIMES = ("created", "updated")


def shown_keys(keys: Sequence[KeyRecord]) -> list[dict[str, Any]]:
    """OpenRouter's names where it has the field; money in USD, times in ISO 8601, null for none.

    Raises RedisError.
    """
    used = counters.read(services().broker.redis, [key.public_id for key in keys])
    now = time.time()
    return [_shown_key(key, each, now) for key, each in zip(keys, used, strict=True)]


def shown_owners(owners: Sequence[OwnerRecord]) -> list[dict[str, Any]]:
    """What `shown_keys` returns, of owners: the sums of their keys, and their own limits."""
    used = counters.read(services().broker.redis, [owner_scope(owner.id) for owner in owners])
    now = time.time()
    return [
        {
            "id": owner.id,
            "name": owner.name or owner.id,
            "disabled": owner.disabled,
            **_limits(owner, each, now),
            **_values(owner, (*OWNER_OPTIONS, *OWNER_TIMES)),
        }
        for owner, each in zip(owners, used, strict=True)
    ]


def _shown_key(key: KeyRecord, used: Counters, now: float) -> dict[str, Any]:
    previous = key.hmac_old_until if key.hmac_old_until > now else 0
    return {
        "id": key.public_id,
        "name": key.name,
        "label": f"{PREFIX}{key.public_id[:4]}...",
        **_values(key, ("owner", "operator", "disabled", "models")),
        **_limits(key, used, now),
        **_values(key, (*KEY_OPTIONS, *KEY_TIMES)),
        "previous_valid_until": iso_time(previous),
        **_values(key, ("created_by",)),
    }


def _limits(record: KeyRecord | OwnerRecord, used: Counters, now: float) -> dict[str, Any]:
    unit, reset = record.limit_unit, record.limit_reset
    resets = counters.window(reset, now)[1] if reset else 0
    return {
        **_values(record, LIMIT),
        "limit_remaining": key_fields.amount(counters.left(record, used, now), unit),
        "limit_resets_at": iso_time(resets),
        **_values(record, EXTRA),
        **{_name("usage", window): spent.usd / NANO for window, spent in used.spent.items()},
        **{_name("tokens", window): spent.tokens for window, spent in used.spent.items()},
        **{_name("requests", window): spent.requests for window, spent in used.spent.items()},
        "reserved": used.reserved.usd / NANO,
        "reserved_tokens": used.reserved.tokens,
        **_values(record, COUNTS),
        "in_flight": used.in_flight,
        "waiting": used.waiting,
    }


def _name(name: str, window: str) -> str:
    return f"{name}_{window}" if window else name


def _values(record: KeyRecord | OwnerRecord, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        key_fields.NAMES_IN_JSON.get(name, name): to_json(
            name, getattr(record, name), record.limit_unit
        )
        for name in names
    }
