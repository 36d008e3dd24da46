"""/files: the input of batches, and what they have written. A key sees its own files."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, request

from api.files import schema
from api.files.upload import MAX_BYTES, Received
from api.http.auth import keyed, reader
from api.http.body import RETRY_SECONDS
from api.http.json import json_response, page_of
from api.schemas import query
from api.services import services
from gateway.account.api_keys import KeyRecord
from gateway.errors import InvalidRequest, NotFound, Overloaded, Unavailable
from gateway.files import records
from gateway.files.records import FileRecord
from gateway.files.storage import ObjectMissing, Storage

files = Blueprint("files", __name__)

PURPOSES = ("batch", "batch_output")
PAGE = 10_000  # files of a page, by default and at most
NOT_CONFIGURED = "Files and batches are not configured: set FILES_URL."


def storage() -> Storage:
    """The storage of files; raises Unavailable if none is configured."""
    configured = services().storage
    if configured is None:
        raise Unavailable(NOT_CONFIGURED, code="files_not_configured", should_retry=False)
    return configured


@files.post("/files")
@keyed
def upload_file(key: KeyRecord) -> Response:
    """Store a file, which is never whole in memory."""
    file_id = records.new_id()
    received = Received(storage(), records.object_name(file_id))
    readers = services().readers
    if not readers.take(key.public_id):
        raise Overloaded(retry_after=RETRY_SECONDS)
    try:
        with services().files.room(key.public_id, file_id, declared_size(MAX_BYTES)):
            record = _received(key, file_id, received)
    finally:
        readers.give_back(key.public_id)
    return json_response(shown(record))


def declared_size(most: int) -> int:
    """The size of the body of the present request; `most` if it declares none, or a larger one."""
    length = request.content_length
    return most if length is None else min(length, most)


def _received(key: KeyRecord, file_id: str, received: Received) -> FileRecord:
    """Store the file of the present request and its record."""
    try:
        received.read(request.environ, services().settings.body_timeout)
        seconds = schema.lifetime(received.fields)
        if not received.filename.endswith(".jsonl"):
            raise InvalidRequest("Invalid file format for Batch API. Must be .jsonl")
        received.check_first_line()
        received.commit()
    except BaseException:
        received.abort()
        raise
    now = int(time.time())
    record = FileRecord(
        id=file_id,
        key_id=key.public_id,
        filename=received.filename,
        bytes=received.size,
        purpose="batch",
        created=now,
        expires=records.expiry(now, seconds),
    )
    services().files.add(record)
    return record


@files.get("/files")
@reader
def list_files(key: KeyRecord) -> Response:
    """Return a page of files, the latest first unless `order` is `asc`."""
    args = request.args
    query.refuse_unknown(args, ("after", "limit", "order", "purpose"))
    page = services().files.page(
        _whose(key),
        after=query.text(args, "after", query.ID) or "",
        limit=query.number(args, "limit", PAGE, PAGE),
        descending=query.choice(args, "order", ("asc", "desc")) != "asc",
        purpose=query.choice(args, "purpose", PURPOSES) or "",
    )
    if page is None:
        raise InvalidRequest("Invalid 'after': no such file.", param="after", code="invalid_value")
    data = [shown(record) for record in page[0]]
    return json_response(page_of(data, page[1]))


@files.get("/files/<file_id>")
@reader
def get_file(key: KeyRecord, file_id: str) -> Response:
    """Return what is known of a file."""
    return json_response(shown(find(key, file_id)))


@files.delete("/files/<file_id>")
@reader
def delete_file(key: KeyRecord, file_id: str) -> Response:
    """Delete a file. A batch that reads it goes on."""
    record = find(key, file_id)
    services().files.delete(record, services().batches.input_until(record.id))
    return json_response({"id": record.id, "object": "file", "deleted": True})


@files.get("/files/<file_id>/content")
@reader
def get_file_content(key: KeyRecord, file_id: str) -> Response:
    """Return the content of a file, read from the storage while it is sent."""
    record = find(key, file_id)
    try:
        pieces = records.content(storage(), record)
    except ObjectMissing:
        raise _missing(file_id) from None
    response = Response(pieces, content_type="application/octet-stream")
    response.headers["Content-Length"] = str(record.bytes)
    name = quote(record.filename, safe="")
    response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
    response.headers["Cache-Control"] = "no-store"
    return response


def find(key: KeyRecord, file_id: str) -> FileRecord:
    """The record of a file that this key may see; raises NotFound and Unavailable."""
    storage()
    record = services().files.get(file_id, _whose(key))
    if record is None or record.purpose not in PURPOSES:
        raise _missing(file_id)
    return record


def shown(record: FileRecord) -> dict[str, Any]:
    """A file as OpenAI shows it."""
    return {
        "id": record.id,
        "object": "file",
        "bytes": record.bytes,
        "created_at": record.created,
        "expires_at": record.expires,
        "filename": record.filename,
        "purpose": record.purpose,
        "status": "processed",
        "status_details": None,
    }


def _whose(key: KeyRecord) -> str:
    """The key whose files this one sees; "": those of all keys."""
    storage()
    return "" if key.operator else key.public_id


def _missing(file_id: str) -> NotFound:
    return NotFound(f"No such File object: {file_id[:64]}", param="id", code="file_not_found")
