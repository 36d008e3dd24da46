"""The record of a call: what it was, how it ended, what it used and what it cost.

Whoever settles a call appends its record to the stream `gw:records`; the ledger keeps it. Both ends
of that message are here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import compress
from operator import attrgetter, ne
from typing import Any

import orjson

from gateway.account.usage import PROMPT


@dataclass(slots=True)
class Record:
    """One settled call. It is not changed once it is made.

    Times end in `_ms`: milliseconds since 1970, or a duration.
    Money is in integers of 1e-9 USD. `usage` holds the counts of gateway.account.usage.Usage that
    are not 0, `prices` the `record` of the Prices that the last attempt with usage was charged at.
    Where attempts at several models have used something, usage and cost are of all of them. A
    correction is a record whose cost may be negative.
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
    family: str = ""  # the catalogue's row of any model of its provider, where that one served it
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
    time_to_first_token_ms: int | None = None  # of a stream, from the request's arrival
    generation_time_ms: int | None = None  # from the first token, or from a whole call's attempt
    usage: Mapping[str, int] = field(default_factory=dict)
    usage_source: str = "none"  # provider, estimated or none
    cost_nano: int = 0
    saved_nano: int = 0
    prices: Mapping[str, Any] | None = None  # None: unknown
    reserved_nano: int = 0
    reserved_tokens: int = 0
    # Each with provider_name, model, status, code ("": it succeeded) and latency_ms.
    attempts: tuple[Mapping[str, Any], ...] = ()
    priority: str = ""
    deadline_ms: int = 0
    worker: str = ""
    user_agent: str = ""
    service_tier: str = ""
    cache_hit: bool = False
    batch_id: str = ""
    response_id: str = ""  # of a background response
    correction: bool = False
    note: str = ""

    @property
    def tokens(self) -> int:
        """The tokens that limits count."""
        return sum(self.usage.get(name, 0) for name in COUNTED)

    @property
    def summed_model(self) -> str:
        """The model that the sums count for.

        Callers may make up the names of a family's models. One that no provider has answered counts
        for the family, so that sums do not grow with such names.
        """
        answered = self.status == "completed" or self.usage_source == "provider"
        return self.model if answered else self.family or self.model

    def encode(self) -> bytes:
        """Return the record as JSON; fields at their default are left out."""
        values = _VALUES(self)
        return orjson.dumps(
            dict(compress(zip(_ORDERED, values, strict=True), map(ne, values, _LEFT_OUT)))
        )

    @classmethod
    def from_entry(cls, entry: Mapping[bytes, bytes]) -> Record:
        """Return the record of an entry of the stream of records.

        It joins what the process that settled the call knew and what only Redis knows. Raises
        ValueError for what is no record.
        """
        try:
            fields = orjson.loads(entry[b"r"])
            numbers = orjson.loads(entry.get(b"q", b"{}"))
            fields.update(
                (ours, numbers[theirs]) for theirs, ours in FROM_REDIS.items() if theirs in numbers
            )
            fields.setdefault("created_ms", fields.get("settled_ms"))
            fields.setdefault("latency_ms", fields["settled_ms"] - fields["created_ms"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not an entry: {error!r}") from None
        return cls._from_fields(fields)

    @classmethod
    def decode(cls, data: bytes | str) -> Record:
        """Return the record that `encode` wrote; fields of a newer release are left out.

        Raises ValueError for what is no record.
        """
        fields = orjson.loads(data)
        if not isinstance(fields, dict):
            raise ValueError("a record must be a JSON object")
        return cls._from_fields(fields)

    @classmethod
    def _from_fields(cls, fields: Mapping[str, Any]) -> Record:
        if not fields.keys() <= _NAMES:
            fields = {name: value for name, value in fields.items() if name in _NAMES}
        try:
            record = cls(**fields)
            record.attempts = tuple(record.attempts)
            return record
        except TypeError as error:
            raise ValueError(f"not a record: {error}") from None


COUNTED = (*PROMPT, "output")
# What the script that settles a call knows -> the field of its record.
FROM_REDIS = {
    "queued_ms": "queued_ms",
    "reserved_usd": "reserved_nano",
    "reserved_tokens": "reserved_tokens",
    "settled_ms": "settled_ms",
}
_FIELDS = dataclasses.fields(Record)
_ORDERED = tuple(item.name for item in _FIELDS)
_NAMES = frozenset(_ORDERED)
_VALUES = attrgetter(*_ORDERED)
# The value of each field that `encode` leaves out; nothing equals that of a field without default.
_LEFT_OUT: tuple[object, ...] = tuple(
    {} if item.default_factory is not dataclasses.MISSING else item.default for item in _FIELDS
)
