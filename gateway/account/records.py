"""The record of a call: what it was, how it ended, what it used and what it cost.

Whoever settles a call appends its record to the stream `gw:records`; the ledger keeps it. Both ends
of that message are here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Record:
    """One settled call. Times end in `_ms`: milliseconds since 1970, or a duration.

    Money is in integers of 1e-9 USD. `usage` is the normal form: `input` (uncached), `cache_read`,
    `cache_write`, `cache_write_1h`, `output` and `reasoning` (part of `output`) in tokens, and the
    units of other modalities. A correction is a record whose cost may be negative.
    """

    id: str
    key_id: str
    created_ms: int
    settled_ms: int
    status: str = "completed"  # completed, failed, cancelled or lost
    kind: str = "chat"
    request_id: str = ""
    owner: str = ""
    model: str = ""  # the catalogue's id of the model that answered
    model_requested: str = ""
    provider_name: str = ""
    upstream_model: str = ""
    upstream_id: str = ""
    streamed: bool = False
    cancelled: bool = False
    error_code: str = ""
    finish_reason: str = ""
    native_finish_reason: str = ""
    latency_ms: int = 0  # from the request's arrival to the end
    queued_ms: int = 0
    time_to_first_token_ms: int | None = None
    generation_time_ms: int | None = None
    usage: Mapping[str, int] = field(default_factory=dict)
    usage_source: str = "none"  # provider, estimated or none
    cost_nano: int = 0
    saved_nano: int = 0
    prices: Mapping[str, Any] | None = None  # version, unit prices used, tier; None: unknown
    reserved_nano: int = 0
    reserved_tokens: int = 0
    attempts: tuple[Mapping[str, Any], ...] = ()
    priority: str = ""
    deadline_ms: int = 0
    worker: str = ""
    user_agent: str = ""
    service_tier: str = ""
    cache_hit: bool = False
    batch_id: str = ""
    correction: bool = False
    note: str = ""

    def encode(self) -> bytes:
        """Return the record as JSON; fields at their default are left out."""
        return orjson.dumps(
            {
                item.name: value
                for item in dataclasses.fields(self)
                if (value := getattr(self, item.name)) != _DEFAULTS.get(item.name, _NONE)
            }
        )

    @classmethod
    def decode(cls, data: bytes | str) -> Record:
        """Return the record that `encode` wrote; fields of a newer release are left out.

        Raises ValueError for what is no record.
        """
        fields = orjson.loads(data)
        if not isinstance(fields, dict):
            raise ValueError("a record must be a JSON object")
        fields = {name: value for name, value in fields.items() if name in _NAMES}
        if "attempts" in fields:
            fields["attempts"] = tuple(fields["attempts"])
        try:
            return cls(**fields)
        except TypeError as error:
            raise ValueError(f"not a record: {error}") from None


_NONE = object()
_NAMES = frozenset(item.name for item in dataclasses.fields(Record))
_DEFAULTS: dict[str, Any] = {
    item.name: item.default if item.default_factory is dataclasses.MISSING else {}
    for item in dataclasses.fields(Record)
    if item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
}
