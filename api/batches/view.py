"""/batches: OpenAI's batches. A key sees its own, an operator key all."""

from __future__ import annotations

import time
from typing import Any

import orjson
from flask import Blueprint, Response, request

from api.batches import schema
from api.batches.apis import OPENAI
from api.files.view import storage
from api.http.auth import keyed, reader
from api.http.body import request_json
from api.http.json import json_response, page_of
from api.schemas import query
from api.schemas.check import check
from api.schemas.errors import invalid_request
from api.services import services
from gateway.account.api_keys import KeyRecord
from gateway.errors import InvalidRequest, NotFound
from gateway.files import records
from gateway.files.batches import STOPPABLE, WINDOW_SECONDS, Batch, new_id

batches = Blueprint("batches", __name__)

PAGE, MOST = 20, 100  # batches of a page
# Status of a batch -> the time at which it came.
TIMES = (
    "in_progress",
    "finalizing",
    "completed",
    "failed",
    "expired",
    "cancelling",
    "cancelled",
)


@batches.post("/batches")
@keyed
def create_batch(key: KeyRecord) -> Response:
    """Create a batch, whose input is checked later."""
    storage()
    data = request_json()
    check(schema.NEW_BATCH, data, invalid_request)
    services().batches.require_room(key.public_id)
    now = int(time.time())
    batch = Batch(
        id=new_id(OPENAI.prefix),
        api=OPENAI.name,
        key_id=key.public_id,
        endpoint=data["endpoint"],
        input_file_id=data["input_file_id"],
        input_object=_input(key, data["input_file_id"], now + WINDOW_SECONDS),
        metadata=orjson.dumps(data["metadata"]).decode() if data.get("metadata") else "",
        created=now,
        expires=now + WINDOW_SECONDS,
        output_seconds=(data.get("output_expires_after") or {}).get("seconds", 0),
        output_id=records.new_id(),
        error_id=records.new_id(),
    )
    services().batches.add(batch)
    return json_response(shown(batch))


@batches.get("/batches")
@reader
def list_batches(key: KeyRecord) -> Response:
    """Return a page of batches, the latest first."""
    query.refuse_unknown(request.args, ("after", "limit"))
    after = query.text(request.args, "after", query.ID) or ""
    limit = query.number(request.args, "limit", PAGE, MOST)
    page = services().batches.page(OPENAI.name, whose(key), limit, after)
    if page is None:
        raise InvalidRequest("Invalid 'after': no such batch.", param="after", code="invalid_value")
    data = [shown(batch) for batch in page[0]]
    return json_response(page_of(data, page[1]))


@batches.get("/batches/<batch_id>")
@reader
def get_batch(key: KeyRecord, batch_id: str) -> Response:
    """Return a batch."""
    return json_response(shown(find(OPENAI.name, key, batch_id)))


@batches.post("/batches/<batch_id>/cancel")
@reader
def cancel_batch(key: KeyRecord, batch_id: str) -> Response:
    """Start no further request of a batch; those that run get ten minutes to end."""
    batch = find(OPENAI.name, key, batch_id)
    changed = cancel(batch)
    if changed.status not in ("cancelling", "cancelled"):
        raise InvalidRequest(
            f"Cannot cancel a batch with status '{changed.status}'.",
            status=409,
            code="batch_not_cancellable",
        )
    return json_response(shown(changed))


def cancel(batch: Batch) -> Batch:
    """Cancel a batch, if it can still be; return it as it is then."""
    values = {"status": "cancelling", "cancelling": int(time.time())}
    return services().batches.change(batch.id, STOPPABLE, **values) or batch


def find(api: str, key: KeyRecord, batch_id: str) -> Batch:
    """A batch of this API that the key may see; raises NotFound and Unavailable."""
    batch = services().batches.get(batch_id, api, whose(key))
    if batch is None:
        raise NotFound(
            f"No batch found with id '{batch_id[:64]}'.", param="id", code="batch_not_found"
        )
    return batch


def whose(key: KeyRecord) -> str:
    """The key whose batches this one sees; "": those of all keys. Raises Unavailable."""
    storage()
    return "" if key.operator else key.public_id


def shown(batch: Batch) -> dict[str, Any]:
    """A batch as OpenAI shows it."""
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model or None,
        "errors": {"object": "list", "data": orjson.loads(batch.errors)} if batch.errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": "24h",
        "status": batch.status,
        "output_file_id": batch.output_file_id or None,
        "error_file_id": batch.error_file_id or None,
        "created_at": batch.created,
        "expires_at": batch.expires,
        **{f"{name}_at": getattr(batch, name) or None for name in TIMES},
        "request_counts": {
            "total": batch.lines,
            "completed": batch.lines_completed,
            "failed": batch.lines_failed,
        },
        "usage": {
            "input_tokens": batch.input_tokens,
            "input_tokens_details": {"cached_tokens": batch.cached_tokens},
            "output_tokens": batch.output_tokens,
            "output_tokens_details": {"reasoning_tokens": batch.reasoning_tokens},
            "total_tokens": batch.input_tokens + batch.output_tokens,
        },
        "metadata": orjson.loads(batch.metadata) if batch.metadata else None,
    }


def _input(key: KeyRecord, file_id: str, until: int) -> str:
    """The object with the content of a file, which is kept until then; "" if there is none."""
    record = services().files.get(file_id, key.public_id)
    if record is None or record.purpose != "batch":
        return ""  # the batch fails, as OpenAI's do
    services().files.keep(record, until)
    return records.object_name(record.id)
