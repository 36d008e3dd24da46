"""/messages/batches: Anthropic's message batches. A key sees its own, an operator key all."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
from flask import Response, g, request

from api.batches import view
from api.batches.apis import ANTHROPIC
from api.batches.elements import NAME, elements
from api.batches.validation import ENVELOPE_BYTES, TOKEN_LIMIT
from api.files.view import declared_size, storage
from api.http.auth import keyed, reader
from api.http.body import PIECE_BYTES, arriving, check_type
from api.http.errors import ApiBlueprint
from api.http.json import json_response, page_of
from api.http.links import link
from api.messages import errors as messages_errors
from api.schemas import query
from api.schemas.errors import invalid
from api.services import services
from gateway import strict_json
from gateway.account.api_keys import KeyRecord
from gateway.account.key_fields import iso_time
from gateway.errors import InvalidRequest, NotFound, PayloadTooLarge, RateLimited
from gateway.files import records
from gateway.files.batches import WINDOW_SECONDS, Batch, new_id
from gateway.files.records import FileRecord
from gateway.files.storage import ObjectMissing, put
from gateway.stalls import give_turn
from gateway.tokens import CHARACTERS_PER_TOKEN

message_batches = ApiBlueprint("message_batches", __name__, dialect=messages_errors.render)

PATH = "/messages"  # of each request
PAGE, MOST = 20, 1_000  # batches of a page
MAX_REQUESTS = 100_000
MAX_BYTES = 268_435_456
CUSTOM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
STATUSES = {"validating": "in_progress", "in_progress": "in_progress", "cancelling": "canceling"}


@message_batches.after_request
def add_request_id(response: Response) -> Response:
    """Name the request under Anthropic's name too."""
    response.headers["request-id"] = g.request_id
    return response


@message_batches.post("/messages/batches")
@keyed
def create_message_batch(key: KeyRecord) -> Response:
    """Create a batch. Its requests go to the storage while they arrive."""
    check_type(request.environ)
    services().batches.require_room(key.public_id)
    file_id = records.new_id()
    with services().files.room(key.public_id, file_id, declared_size(MAX_BYTES)):
        batch = _received(key, file_id)
    services().batches.add(batch)
    return json_response(shown(batch))


def _received(key: KeyRecord, file_id: str) -> Batch:
    """Store the requests in the body of the present request; return their batch."""
    settings, lines, now = services().settings, _Requests(), int(time.time())
    name = records.object_name(file_id)
    with arriving(request.environ, MAX_BYTES, settings.body_timeout) as body:

        def pieces() -> Iterator[bytes]:
            while piece := body.read(PIECE_BYTES):
                yield piece
                give_turn()
            body.check()

        requests = elements(pieces(), settings.max_body_bytes + ENVELOPE_BYTES)
        size = put(storage(), name, lines.checked(requests))
    limit = key.batch_tokens_queued
    queued = 0 if limit is None else services().batches.queued_tokens(key.public_id)
    if not lines.count or (limit is not None and queued + lines.tokens > limit):
        storage().delete([name])
        if not lines.count:
            raise invalid("too_short", NAME, [], min_length=1)
        raise RateLimited(TOKEN_LIMIT.format(limit), should_retry=False)
    record = FileRecord(
        id=file_id,
        key_id=key.public_id,
        filename="",
        bytes=size,
        purpose=ANTHROPIC.purpose,
        created=now,
        expires=records.expiry(now, 2 * WINDOW_SECONDS),
    )
    services().files.add(record, listed=False)
    return Batch(
        id=new_id(ANTHROPIC.prefix),
        api=ANTHROPIC.name,
        key_id=key.public_id,
        endpoint=PATH,
        input_file_id=file_id,
        input_object=name,
        model=next(iter(lines.models)) if len(lines.models) == 1 else "",
        created=now,
        expires=now + WINDOW_SECONDS,
        output_id=records.new_id(),
        lines=lines.count,
        queued_tokens=lines.tokens,
    )


@message_batches.get("/messages/batches")
@reader
def list_message_batches(key: KeyRecord) -> Response:
    """Return a page of batches, the latest first."""
    query.refuse_unknown(request.args, ("limit", "before_id", "after_id", "beta"))
    before, after = (query.text(request.args, f"{name}_id", query.ID) for name in CURSORS)
    if before and after:
        raise invalid("wrong.value", "before_id", reason="send either before_id or after_id")
    limit = query.number(request.args, "limit", PAGE, MOST)
    whose = view.whose(key)
    page = services().batches.page(ANTHROPIC.name, whose, limit, after or "", before or "")
    if page is None:
        name = "before_id" if before else "after_id"
        raise invalid("wrong.value", name, reason="there is no such batch")
    data = [shown(batch) for batch in page[0]]
    body = page_of(data, page[1])
    del body["object"]  # Anthropic's pages have none
    return json_response(body)


@message_batches.get("/messages/batches/<batch_id>")
@reader
def get_message_batch(key: KeyRecord, batch_id: str) -> Response:
    """Return a batch."""
    return json_response(shown(view.find(ANTHROPIC.name, key, batch_id)))


@message_batches.post("/messages/batches/<batch_id>/cancel")
@reader
def cancel_message_batch(key: KeyRecord, batch_id: str) -> Response:
    """Start no further request of a batch; those that run get ten minutes to end."""
    return json_response(shown(view.cancel(view.find(ANTHROPIC.name, key, batch_id))))


@message_batches.delete("/messages/batches/<batch_id>")
@reader
def delete_message_batch(key: KeyRecord, batch_id: str) -> Response:
    """Delete a batch that has ended, and its results."""
    batch = view.find(ANTHROPIC.name, key, batch_id)
    if batch.active:
        raise InvalidRequest("This batch is still being processed. Cancel it first.")
    for file_id in (batch.input_file_id, batch.output_file_id):
        if file_id and (record := services().files.get(file_id)):
            services().files.delete(record)
    services().batches.delete(batch)
    return json_response({"id": batch.id, "type": "message_batch_deleted"})


@message_batches.get("/messages/batches/<batch_id>/results")
@reader
def get_message_batch_results(key: KeyRecord, batch_id: str) -> Response:
    """Return the results of a batch that has ended, as lines of JSON."""
    batch = view.find(ANTHROPIC.name, key, batch_id)
    if batch.active:
        raise InvalidRequest("The results of this batch are not available before it has ended.")
    if not batch.output_file_id:  # it was cancelled before it began
        return Response(b"", content_type="application/x-jsonl")
    record = services().files.get(batch.output_file_id)
    try:
        if record is None:
            raise ObjectMissing
        pieces = records.content(storage(), record)
    except ObjectMissing:
        raise NotFound("The results of this batch have expired.", code="file_not_found") from None
    response = Response(pieces, content_type="application/x-jsonl")
    response.headers["Content-Length"] = str(record.bytes)
    return response


CURSORS = ("before", "after")


def shown(batch: Batch) -> dict[str, Any]:
    """A batch as Anthropic shows it: what its requests became is known once it has ended."""
    ended = not batch.active
    # Anthropic's clients join a path to their base URL, which ends before `/v1`.
    results_url = f"/v1/messages/batches/{batch.id}/results"
    if services().settings.public_url:
        results_url = link("message_batches.get_message_batch_results", batch_id=batch.id)
    ended_at = batch.completed or batch.cancelled or batch.expired or batch.failed
    counts = {
        "succeeded": batch.lines_completed,
        "errored": batch.lines_failed,
        "canceled": batch.lines_cancelled,
        "expired": batch.lines_expired,
    }
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": "ended" if ended else STATUSES.get(batch.status, "in_progress"),
        "request_counts": {
            "processing": 0 if ended else batch.lines,
            **{name: count if ended else 0 for name, count in counts.items()},
        },
        "created_at": iso_time(batch.created),
        "expires_at": iso_time(batch.expires),
        "ended_at": iso_time(ended_at if ended else 0),
        "cancel_initiated_at": iso_time(batch.cancelling),
        "archived_at": None,
        "results_url": results_url if ended else None,
    }


@dataclass(slots=True)
class _Requests:
    """The requests of a new batch, so far."""

    count: int = 0
    tokens: int = 0
    ids: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)

    def checked(self, texts: Iterator[bytes]) -> Iterator[bytes]:
        """Yield each request as a line for the runner; raises InvalidRequest for a wrong one."""
        for text in texts:
            if self.count == MAX_REQUESTS:
                raise PayloadTooLarge(f"A batch has at most {MAX_REQUESTS} requests.")
            yield self._line(text, f"{NAME}[{self.count}]")
            self.count += 1
            self.tokens += len(text) // CHARACTERS_PER_TOKEN

    def _line(self, text: bytes, path: str) -> bytes:
        try:
            fields = strict_json.loads(text, len(text))
        except InvalidRequest as error:
            if error.code == "json_too_deep":
                raise
            raise InvalidRequest(
                "The request body is not valid JSON.", code="invalid_json"
            ) from None
        for name, kind, expected in (("custom_id", str, "a string"), ("params", dict, "an object")):
            if name not in fields:
                raise invalid("missing", f"{path}.{name}")
            if not isinstance(fields[name], kind):
                raise invalid("wrong.type", f"{path}.{name}", fields[name], expected=expected)
        unknown = next((name for name in fields if name not in ("custom_id", "params")), None)
        if unknown is not None:
            raise invalid("extra_forbidden", f"{path}.{unknown[:64]}")
        custom_id, params = fields["custom_id"], fields["params"]
        if not CUSTOM_ID.fullmatch(custom_id):
            pattern = f"^{CUSTOM_ID.pattern}$"
            raise invalid("string_pattern_mismatch", f"{path}.custom_id", pattern=pattern)
        if custom_id in self.ids:
            reason = "it must be unique within the batch"
            raise invalid("wrong.value", f"{path}.custom_id", reason=reason)
        if params.get("stream"):
            raise invalid("wrong.value", f"{path}.params.stream", reason="batches do not stream")
        if params.get("max_tokens") == 0:
            reason = "it must be at least 1"
            raise invalid("wrong.value", f"{path}.params.max_tokens", reason=reason)
        self.ids.add(custom_id)
        if isinstance(model := params.get("model"), str):
            self.models.add(model)
        line = {"custom_id": custom_id, "body": params}
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
