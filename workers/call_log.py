"""The worker's lines about calls: one for each call, and one for each attempt that failed."""

from __future__ import annotations

import logging

from gateway.account.records import Record
from gateway.account.usage import PROMPT
from gateway.catalogue.target import Target
from gateway.errors import GatewayError, UpstreamAuth, code_of
from gateway.queue.protocol import CallSpec
from workers.failover import SKIPPED

log = logging.getLogger(__name__)


def log_call(record: Record) -> None:
    """Log how a call ended. Times are from the request's arrival at the web process."""
    usage = record.usage
    fields = {
        "request_id": record.request_id,
        "call_id": record.id,
        "key_id": record.key_id,
        "model": record.model_requested or record.model,
        "route": f"{record.provider_name}/{record.upstream_model}",
        "status": record.status,
        "error": record.error_code,
        "queued_ms": record.queued_ms,
        "first_token_ms": record.time_to_first_token_ms,
        "total_ms": record.latency_ms,
        "input_tokens": sum([usage.get(name, 0) for name in PROMPT]),
        "output_tokens": usage.get("output", 0),
        "attempts": len([each for each in record.attempts if each["code"] != SKIPPED]),
    }
    log.info("call", extra={"fields": fields})


def log_failure(
    spec: CallSpec, target: Target, error: GatewayError, host: str, number: int, seconds: float
) -> None:
    """Log a failed attempt, the call's `number`-th at this target."""
    fields = {
        "request_id": spec.account.get("request_id", ""),
        "call_id": spec.call_id,
        "key_id": spec.key,
        "route": target.route,
        "attempt": number,
        "host": error.host or host,
        "status": error.upstream_status or None,
        "error": code_of(error),
        "cause": error.cause,
        "ms": int(seconds * 1000),
    }
    # A refused key is for the operator to fix: the caller learns nothing about it.
    level = logging.ERROR if isinstance(error, UpstreamAuth) else logging.WARNING
    log.log(level, "attempt failed", extra={"fields": fields})


def log_skip(spec: CallSpec, target: Target) -> None:
    """Log that a target was not called because its breaker is open."""
    fields = {
        "request_id": spec.account.get("request_id", ""),
        "call_id": spec.call_id,
        "key_id": spec.key,
        "route": target.route,
        "error": SKIPPED,
    }
    log.warning("attempt skipped", extra={"fields": fields})
