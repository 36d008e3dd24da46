"""A call as OpenRouter's generation object, from its record."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from gateway.account.pricing import usd
from gateway.account.records import Record
from gateway.account.usage import PROMPT


def generation(record: Record) -> dict[str, Any]:
    """OpenRouter's names where it has the field; durations in milliseconds, money in USD.

    What is not known is None. A call that has not ended has neither tokens nor a cost.
    """
    usage = record.usage
    ended = bool(record.settled_ms)
    counted = ended and record.usage_source != "none"
    prompt = sum(usage.get(name, 0) for name in PROMPT) if counted else None
    completion = usage.get("output", 0) if counted else None
    cost = usd(record.cost_nano) if ended else None
    return {
        "id": record.id,
        "status": record.status,
        "kind": record.kind,
        "created_at": iso_time(record.created_ms),
        "settled_at": iso_time(record.settled_ms),
        "key_id": record.key_id,
        "owner": record.owner or None,
        "request_id": record.request_id or None,
        "upstream_id": record.upstream_id or None,
        "model": record.model or None,
        "model_requested": record.model_requested or None,
        "provider_name": record.provider_name or None,
        "upstream_model": record.upstream_model or None,
        "streamed": record.streamed,
        "cancelled": record.cancelled,
        "error_code": record.error_code or None,
        "finish_reason": record.finish_reason or None,
        "native_finish_reason": record.native_finish_reason or None,
        "latency": record.latency_ms if ended else None,
        "queued_ms": record.queued_ms if ended else None,
        "time_to_first_token": record.time_to_first_token_ms,
        "generation_time": record.generation_time_ms,
        "tokens_prompt": prompt,
        "tokens_completion": completion,
        "native_tokens_prompt": prompt,
        "native_tokens_completion": completion,
        "native_tokens_cached": usage.get("cache_read", 0) if counted else None,
        "native_tokens_cache_write": _cache_writes(usage) if counted else None,
        "native_tokens_reasoning": usage.get("reasoning", 0) if counted else None,
        "usage_source": record.usage_source,
        "usage": cost,
        "total_cost": cost,
        "saved": usd(record.saved_nano) if ended else None,
        "prices": dict(record.prices) if record.prices else None,
        "reserved": usd(record.reserved_nano),
        "reserved_tokens": record.reserved_tokens,
        "provider_responses": [_attempt(attempt) for attempt in record.attempts],
        "priority": record.priority or None,
        "deadline": iso_time(record.deadline_ms),
        "worker": record.worker or None,
        "user_agent": record.user_agent or None,
        "service_tier": record.service_tier or None,
        "cache_hit": record.cache_hit,
        "batch_id": record.batch_id or None,
        "correction": record.correction,
        "note": record.note or None,
    }


def iso_time(milliseconds: int) -> str | None:
    """ISO 8601 in UTC, with milliseconds; None for 0."""
    if not milliseconds:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cache_writes(usage: Mapping[str, int]) -> int:
    return usage.get("cache_write", 0) + usage.get("cache_write_1h", 0)


def _attempt(attempt: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "provider_name": attempt.get("provider_name"),
        "model": attempt.get("model"),
        "status": attempt.get("status"),
        "latency": attempt.get("latency_ms"),
        "error": attempt.get("code") or None,
    }
