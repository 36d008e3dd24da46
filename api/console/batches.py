"""Batches: their progress, their errors, their results to download, and how to cancel them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson
from flask import Response, request, url_for

from api.batches.apis import ANTHROPIC, APIS, OPENAI
from api.batches.view import cancel, whose
from api.console.names import key_names
from api.console.page import console, done, page, see_other
from api.console.session import signed_in
from api.files.view import NOT_CONFIGURED, storage
from api.schemas import query as read
from api.services import services
from gateway.account.api_keys import KeyRecord
from gateway.errors import NotFound
from gateway.files import records
from gateway.files.batches import STOPPABLE, Batch
from gateway.files.storage import ObjectMissing

ROWS = 50  # of a page
LABELS = {OPENAI.name: "OpenAI", ANTHROPIC.name: "Anthropic"}
KINDS = {
    "completed": "good",
    "failed": "bad",
    "expired": "bad",
    "cancelled": "",
}  # classes of badges; the others are busy
DONE = {"cancelled": "No further request is started. Those that run get ten minutes to end."}


@console.get("/console/batches")
@signed_in
def batches(key: KeyRecord) -> Response:
    """A page of batches, the latest first."""
    api = read.choice(request.args, "api", APIS) or OPENAI.name
    if services().storage is None:
        return page("batches.html", unavailable=NOT_CONFIGURED, rows=())
    after = read.text(request.args, "after", read.ID) or ""
    batch_page = services().batches.page(api, whose(key), ROWS, after)
    if batch_page is None:
        raise _missing()
    rows, more = batch_page
    return page(
        "batches.html",
        unavailable="",
        rows=[_shown(batch) for batch in rows],
        more=more,
        after=after,
        api=api,
        labels=LABELS,
        names=key_names(key),
    )


@console.get("/console/batches/<batch_id>")
@signed_in
def batches_one(key: KeyRecord, batch_id: str) -> Response:
    """One batch with its progress, errors and files."""
    batch = _find(key, batch_id)
    return page(
        "batch.html",
        batch=_shown(batch),
        stoppable=batch.status in STOPPABLE,
        errors=orjson.loads(batch.errors) if batch.errors else (),
        names=key_names(key),
        done=done(DONE),
    )


@console.post("/console/batches/<batch_id>/cancel")
@signed_in
def batches_cancel(key: KeyRecord, batch_id: str) -> Response:
    """Start no further request of a batch."""
    cancel(_find(key, batch_id))
    return see_other(url_for("console.batches_one", batch_id=batch_id, done="cancelled"))


@console.get("/console/batches/<batch_id>/<kind>.jsonl")
@signed_in
def batches_file(key: KeyRecord, batch_id: str, kind: str) -> Response:
    """The results or the errors of a batch, read from the storage while they are sent."""
    batch = _find(key, batch_id)
    file_id = {"output": batch.output_file_id, "errors": batch.error_file_id}.get(kind)
    record = services().files.get(file_id, whose(key)) if file_id else None
    if record is None:
        raise _missing()
    try:
        pieces = records.content(storage(), record)
    except ObjectMissing:
        raise _missing() from None
    response = Response(pieces, content_type="application/octet-stream")
    name = quote(f"{batch.id}-{kind}.jsonl", safe="")
    response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
    response.headers["Cache-Control"] = "no-store"
    return response


def _find(key: KeyRecord, batch_id: str) -> Batch:
    batch = services().batches.get(batch_id, key_id=whose(key))
    if batch is None:
        raise _missing()
    return batch


def _missing() -> NotFound:
    return NotFound("There is no such batch, or it is not kept any more.")


def _shown(batch: Batch) -> dict[str, Any]:
    ended = batch.completed or batch.failed or batch.expired or batch.cancelled
    return {
        "id": batch.id,
        "status": batch.status,
        "kind": KINDS.get(batch.status, "busy"),
        "endpoint": batch.endpoint or LABELS[batch.api],
        "model": batch.model,
        "key_id": batch.key_id,
        "created": batch.created * 1000,
        "ended": ended * 1000,
        "expires": batch.expires * 1000,
        "lines": batch.lines,
        "completed": batch.lines_completed,
        "failed": batch.lines_failed,
        "unfinished": batch.lines_cancelled + batch.lines_expired,
        "input": batch.input_tokens,
        "cached": batch.cached_tokens,
        "output": batch.output_tokens,
        "has_output": bool(batch.output_file_id),
        "has_errors": bool(batch.error_file_id),
    }
