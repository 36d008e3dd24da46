"""Calls: the list with its filters, as it grows, and one call with its timeline and receipt."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson
from flask import Response, request
from redis.exceptions import ResponseError
from werkzeug.datastructures import MultiDict

from api.console.names import key_names
from api.console.page import console, fragment, page
from api.console.session import signed_in
from api.console.stream import stream
from api.http import sse
from api.schemas import query as read
from api.services import services
from api.usage.view import STATUSES, find_record
from gateway.account.api_keys import KeyRecord
from gateway.account.ledger import Page, UnknownCursor
from gateway.account.pricing import resolved
from gateway.account.records import Record
from gateway.errors import InvalidRequest, NotFound
from gateway.queue import keys

ROWS = 50  # of a page
LOOK_SECONDS = 2.0  # between two looks for new calls
# Value of the filter -> label and seconds.
RANGES = {
    "": ("Any time", 0),
    "1h": ("Last hour", 3_600),
    "24h": ("Last 24 hours", 86_400),
    "7d": ("Last 7 days", 7 * 86_400),
    "30d": ("Last 30 days", 30 * 86_400),
}
# Label, count of the usage, counts that are part of it and shown on their own, and price.
RECEIPT = (
    ("Input", "input", ("input_audio", "input_image"), "prompt"),
    ("Cached input", "cache_read", ("cache_read_audio",), "input_cache_read"),
    ("Cache write, 5 min", "cache_write", (), "input_cache_write"),
    ("Cache write, 1 h", "cache_write_1h", (), "input_cache_write_1h"),
    ("Output", "output", ("reasoning", "output_audio", "output_image"), "completion"),
    ("Reasoning", "reasoning", (), "internal_reasoning"),
    ("Audio input", "input_audio", (), "audio"),
    ("Cached audio", "cache_read_audio", (), "input_audio_cache"),
    ("Audio output", "output_audio", (), "audio_output"),
    ("Image input", "input_image", (), "image_token"),
    ("Image output", "output_image", (), "image_output"),
)


@dataclass(frozen=True, slots=True)
class Filters:
    """Which calls: those of an operator's choice, or of one key."""

    key_id: str | None
    owner: str | None
    model: str | None
    status: str | None
    within: str

    @classmethod
    def of_request(cls, key: KeyRecord) -> Filters:
        """The filters of the query; empty ones count as absent. Raises InvalidRequest."""
        args = MultiDict((name, value) for name, value in request.args.items() if value)
        chosen = read.text(args, "key", read.ID)
        return cls(
            chosen if key.operator else key.public_id,
            read.text(args, "owner", read.ID) if key.operator else None,
            read.text(args, "model", read.MODEL),
            read.choice(args, "status", STATUSES),
            read.choice(args, "within", RANGES) or "",
        )

    def page(self, after: str | None, limit: int) -> Page:
        """A page of these calls, in one query, the latest first."""
        seconds = RANGES[self.within][1]
        return services().ledger.generations(
            key_id=self.key_id,
            owner=self.owner,
            model=self.model,
            status=self.status,
            start_ms=int((time.time() - seconds) * 1000) if seconds else None,
            after=after,
            limit=limit,
        )


@console.get("/console/calls")
@signed_in
def calls(key: KeyRecord) -> Response:
    """A page of calls that have ended, the latest first."""
    filters = Filters.of_request(key)
    after = read.text(request.args, "after", read.ID)
    try:
        page_of_calls = filters.page(after, ROWS)
    except UnknownCursor:
        raise InvalidRequest(
            "The call that this page begins after is not there any more."
        ) from None
    query = {name: value for name, value in request.args.items() if value and name != "after"}
    return page(
        "calls.html",
        filters=filters,
        filtered=bool(query),
        query=query,
        after=after,
        records=page_of_calls.records,
        older=page_of_calls.records[-1].id if page_of_calls.has_more else None,
        statuses=STATUSES,
        ranges=RANGES,
        names=key_names(key),
    )


@console.get("/console/calls/stream")
@signed_in
def calls_stream(key: KeyRecord) -> Response:
    """The rows of calls that end from now on, as server-sent events."""
    filters = Filters.of_request(key)
    names = key_names(key)
    redis = services().broker.redis
    latest = next((each.id for each in filters.page(None, 1).records), None)
    settled: Any = None

    def look() -> bytes | None:
        nonlocal latest, settled
        try:
            written = redis.xinfo_stream(keys.RECORDS)["last-generated-id"]
        except ResponseError:  # there is none yet
            return None
        if written == settled:
            return None  # no call has ended: the ledger need not be asked
        if services().ledger.health().backlog == 0:
            settled = written
        rows = []
        for record in filters.page(None, ROWS).records:
            if record.id == latest:
                break
            rows.append(record)
        if not rows:
            return None
        latest = rows[0].id
        html = fragment("call_rows.html", records=rows, names=names)
        return sse.event(orjson.dumps({"html": html}), "calls")

    return stream(look, LOOK_SECONDS)


@console.get("/console/calls/<call_id>")
@signed_in
def calls_one(key: KeyRecord, call_id: str) -> Response:
    """One call, also while it waits or runs; raises NotFound for a call of another key."""
    record = find_record(call_id)
    if record is None or not (key.operator or record.key_id == key.public_id):
        raise NotFound("There is no such call, or its record is not kept any more.")
    return page(
        "call.html",
        record=record,
        ended=bool(record.settled_ms),
        steps=timeline(record),
        bars=bars(record),
        receipt=receipt(record),
        names=key_names(key),
    )


def timeline(record: Record) -> list[tuple[str, float | None, str]]:
    """Label, milliseconds after the request and explanation of each step of a call."""
    steps: list[tuple[str, float | None, str]] = [("Admitted", 0, _admitted(record))]
    if record.status == "queued":
        return [*steps, ("Queued", None, "It waits for its turn: the queue shows why.")]
    steps.append(("Queued", 0, f"Priority {record.priority}." if record.priority else ""))
    if not record.settled_ms:
        return [*steps, ("Claimed", None, "It runs now.")]
    if record.worker:
        steps.append(("Claimed", record.queued_ms, f"By worker {record.worker}."))
    for number, attempt, begin, _ in _attempts(record):
        failed = f"{attempt['status']} {attempt['code']}" if attempt.get("code") else "Answered"
        where = f"{attempt.get('provider_name')}/{attempt.get('model')}"
        steps.append((f"Attempt {number}", begin, f"{where}: {failed}."))
    if record.time_to_first_token_ms is not None:
        steps.append(("First token", record.time_to_first_token_ms, ""))
    steps.append((record.status.capitalize(), record.latency_ms, _end(record)))
    return sorted(steps, key=lambda step: step[1] or 0)


def bars(record: Record) -> list[tuple[str, str, float, float]]:
    """Label, kind, begin and end in percent of each stretch of a call that has ended."""
    total = max(record.latency_ms, 1)
    if not record.settled_ms:
        return []
    spans: list[tuple[str, str, float, float]] = [("Queue", "s6", 0, record.queued_ms)]
    for number, attempt, begin, end in _attempts(record):
        kind = "bad" if attempt.get("code") else "s0"
        spans.append((f"Attempt {number}", kind, begin, end))
    if record.time_to_first_token_ms is not None:
        spans.append(("Tokens", "s1", record.time_to_first_token_ms, record.latency_ms))
    return [
        (label, kind, min(begin / total, 1) * 100, min(end / total, 1) * 100)
        for label, kind, begin, end in spans
    ]


def receipt(record: Record) -> list[tuple[str, int, Decimal | None, Decimal | None]]:
    """Label, tokens, USD for a million tokens, and USD of each line; None: no price is known."""
    units: Mapping[str, str] = (record.prices or {}).get("units", {})
    lines = []
    for label, name, parts, price in RECEIPT:
        tokens = record.usage.get(name, 0) - sum(record.usage.get(part, 0) for part in parts)
        if tokens > 0:
            digits = resolved(units, price)
            unit = None if digits is None else Decimal(digits)
            lines.append((label, tokens, unit and unit * 1_000_000, unit and unit * tokens))
    return lines


def _attempts(record: Record) -> list[tuple[int, Mapping[str, Any], float, float]]:
    """Number, attempt, and its begin and end in milliseconds; pauses between them are not known."""
    begin: float = record.queued_ms
    placed = []
    for number, attempt in enumerate(record.attempts, 1):
        end = begin + attempt.get("latency_ms", 0)
        placed.append((number, attempt, begin, end))
        begin = end
    return placed


def _admitted(record: Record) -> str:
    if record.reserved_nano or record.reserved_tokens:
        return f"Reserved {record.reserved_tokens:,} tokens."
    return "By the limits of its key and owner."


def _end(record: Record) -> str:
    if record.error_code:
        return f"{record.error_code}."
    return f"Finish reason: {record.finish_reason}." if record.finish_reason else ""
