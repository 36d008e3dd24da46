"""What is noted of a call while a worker runs it, for its record: attempts, usage and cost.

A stream's tokens are not noted one by one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.account.pricing import Prices, price, prices_of, usd
from gateway.account.records import Record
from gateway.account.usage import NONE, Usage, normal
from gateway.catalogue.target import Target
from gateway.errors import CallCancelled, GatewayError, code_of
from gateway.queue.protocol import CallSpec
from workers.claims import Claimed

MAX_TEXT = 256  # characters of a provider's own words


@dataclass(slots=True)
class Bill:
    """What one call has used, and how it went. Times are on the monotonic clock; 0: not yet.

    `usage` and `nano` are of all attempts that used something, `prices` those of the last one.
    `source` says who counted: "provider", "estimated" if any part is an estimate, or "none".
    """

    target: Target | None = None  # the one that answered, or that was called last
    attempts: list[dict[str, Any]] = field(default_factory=list)
    usage: Usage = NONE
    nano: int = 0
    prices: Prices | None = None
    source: str = "none"
    began: float = 0.0  # when the last attempt did
    first_token: float = 0.0  # of a stream
    upstream: dict[str, str] = field(default_factory=dict)  # see ChatCall
    end: Mapping[str, Any] = field(default_factory=dict)  # the choice that ended
    service_tier: object = None

    def cost(self, target: Target, usage: Mapping[str, Any]) -> float | None:
        """Return the cost of the call in USD, if its last attempt uses this; None if unknown."""
        counts = normal(usage)
        prices = prices_of(target.row, target.upstream_model, counts.prompt)
        return None if prices is None else usd(self.nano + price(counts, prices))

    def add(self, target: Target, usage: Mapping[str, Any]) -> None:
        """Add what an attempt at this target has used: OpenAI's usage, or an estimate of it."""
        counts = normal(usage)
        self.prices = prices_of(target.row, target.upstream_model, counts.prompt)
        self.nano += price(counts, self.prices)
        self.usage = counts if self.source == "none" else self.usage.plus(counts)
        if self.source != "estimated":
            self.source = "estimated" if "estimated" in usage else "provider"

    def note(self, target: Target, error: GatewayError | None, seconds: float) -> None:
        """Note how an attempt ended, which took so many seconds."""
        self.attempts.append(
            {
                "provider_name": target.provider,
                "model": target.upstream_model,
                "status": 200 if error is None else error.status,
                "code": code_of(error),
                "latency_ms": int(seconds * 1000),
            }
        )

    def note_response(self, end: Mapping[str, Any]) -> None:
        """Note how the response ended: in this chunk, or in this whole response."""
        self.service_tier = end.get("service_tier")
        for choice in end.get("choices") or ():
            if choice.get("finish_reason"):
                self.end = choice

    def record(
        self, claimed: Claimed, spec: CallSpec, error: GatewayError | None, worker: str
    ) -> Record:
        """Return the record of the call, which has just ended with this error or with none."""
        now, ended = int(time.time() * 1000), time.monotonic()
        account, admission = spec.account, claimed.admission
        queued = admission.get("queued_ms", 0)
        before = queued + admission.get("lost_ms", 0)  # until this run
        latency = before + int((ended - claimed.claimed_at) * 1000)
        left = claimed.budget + claimed.claimed_at - ended
        target = self.target or spec.targets[0]
        cancelled = isinstance(error, CallCancelled)
        status = "cancelled" if cancelled else "failed" if error else "completed"
        stream = spec.stream
        begun = self.first_token if stream else self.began
        first = self.first_token - claimed.claimed_at if stream and self.first_token else None
        return Record(
            id=claimed.call_id,
            key_id=spec.key,
            created_ms=account.get("created_ms") or now - latency,
            settled_ms=now,
            status=status,
            kind=spec.kind,
            request_id=account.get("request_id", ""),
            owner=account.get("owner", ""),
            model=target.model,
            family=target.row.id if target.row.family else "",
            model_requested=account.get("model", ""),
            provider_name=target.provider,
            upstream_model=target.upstream_model,
            upstream_id=_text(self.upstream.get("id")),
            streamed=stream,
            cancelled=cancelled,
            error_code=code_of(error),
            finish_reason=_text(self.end.get("finish_reason")),
            native_finish_reason=_text(self.end.get("native_finish_reason")),
            latency_ms=latency,
            queued_ms=queued,
            time_to_first_token_ms=None if first is None else before + int(first * 1000),
            generation_time_ms=int((ended - begun) * 1000) if begun else None,
            usage=self.usage.to_dict(),
            usage_source=self.source,
            cost_nano=self.nano,
            prices=self.prices.record if self.prices else None,
            reserved_nano=admission.get("reserved_usd", 0),
            reserved_tokens=admission.get("reserved_tokens", 0),
            attempts=tuple(self.attempts),
            priority=account.get("priority", ""),
            deadline_ms=now + int(left * 1000),
            worker=worker,
            user_agent=account.get("user_agent", ""),
            response_id=account.get("response_id", ""),
            service_tier=_text(self.service_tier),
            batch_id=account.get("batch_id", ""),
        )


def _text(value: object) -> str:
    """Return a provider's word, if it is one, as it can be written."""
    if type(value) is not str:
        return ""
    text = value[:MAX_TEXT]
    # What a lenient reader took may hold surrogates.
    return text if text.isascii() else text.encode(errors="replace").decode()
