"""Waiting calls, pauses and workers as JSON: of the HTTP API, the commands and the console."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gateway.account.key_fields import iso_time
from gateway.queue.steering import Pause, Waiting, Worker


def shown_call(call: Waiting, now: float) -> dict[str, Any]:
    """A call that waits; `now` is in seconds since 1970."""
    return {
        "id": call.id,
        "reason": call.reason,
        "position": call.position,
        "pause": call.pause or None,
        "starts_at": _time(call.starts_ms),
        "waiting_since": _time(call.since_ms),
        "waiting_seconds": max(round(now - call.since_ms / 1000, 3), 0),
        "deadline_at": _time(call.deadline_ms),
        "api_key_id": call.key,
        "owner": call.owner or None,
        "model": call.model,
        "model_requested": call.model_requested or None,
        "provider_name": call.provider or None,
        "kind": call.kind,
        "streamed": call.streamed,
        "priority": call.priority or None,
        "request_id": call.request_id or None,
        "bytes": call.bytes,
        "cursor": call.cursor,
    }


def shown_pause(pause: Pause) -> dict[str, Any]:
    """What is paused, since when and by whom."""
    kind, _, id = pause.name.partition(":")
    return {
        "pause": pause.name,
        "kind": kind,
        "id": id,
        "since": iso_time(pause.since),
        "by": pause.by,
        "held": pause.held,
    }


def shown_worker(worker: Worker) -> dict[str, Any]:
    """A worker; it is drained once it takes and runs no calls."""
    fields = asdict(worker)
    fields["started_at"] = fields.pop("started") or None
    drained = fields.pop("drains") and not worker.running
    return {**fields, "drained": drained}


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else iso_time(milliseconds // 1000)
