"""GET /key: the caller's own key. /keys, /owners and /audit: what operators manage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

from flask import Blueprint, Response, request

from api import idempotency
from api.http.auth import actor, operator, reader
from api.http.body import request_json
from api.http.json import json_response
from api.keys import acts, schema
from api.keys.shown import shown_keys, shown_owners
from api.schemas import query
from api.schemas.errors import invalid
from api.services import services
from gateway.account import owners
from gateway.account.api_keys import KeyRecord
from gateway.account.key_fields import iso_time
from gateway.account.owners import OwnerRecord
from gateway.account.record_store import ADMIN
from gateway.errors import NotFound

keys = Blueprint("keys", __name__)
_json = partial(json_response, no_store=True)

PAGE, LARGEST_PAGE = 100, 500  # items in a response
# As Redis makes them: numbers of 64 bits, the first of which is a time.
ENTRY_ID = re.compile(r"[1-9]\d{0,17}-\d{1,18}", re.ASCII)

T = TypeVar("T")


@keys.get("/key")
@reader
def own_key(key: KeyRecord) -> Response:
    """Show the caller's own key: its limits, what it has used, and what is left."""
    record = key if key.public_id == ADMIN else services().keys.get(key.public_id)
    return _json({"data": _shown(record)})


@keys.get("/keys")
@operator
def list_keys(key: KeyRecord) -> Response:
    """List the keys that are not deleted, the oldest first."""
    args = request.args
    query.refuse_unknown(args, ("after", "limit", "owner", "include_disabled"))
    after, owner = (query.text(args, name, query.ID) for name in ("after", "owner"))
    disabled = query.choice(args, "include_disabled", ("false", "true")) == "true"
    records = sorted(services().keys.all(), key=_age)
    if after is not None:
        ids = [record.public_id for record in records]
        if after not in ids:
            raise invalid("wrong.value", "after", reason="there is no such key")
        records = records[ids.index(after) + 1 :]
    listed = [
        record
        for record in records
        if not record.revoked
        and (disabled or not record.disabled)
        and (owner is None or owner == record.owner)
    ]
    page, more = _page(listed)
    return _json({"data": shown_keys(page), "has_more": more})


@keys.post("/keys")
@operator
def create_key(key: KeyRecord) -> Response:
    """Create a key. Only this response has its secret."""
    created = acts.create_key(request_json(), actor(key))
    shown = {"data": _shown(created.record), "key": created.key}
    return _json(shown | _webhook(created.webhook_secret), 201)


@keys.get("/keys/<key_id>")
@operator
def get_key(key: KeyRecord, key_id: str) -> Response:
    """Show a key: its limits, what it has used, and what is left."""
    record = services().keys.get(key_id)
    return _json({"data": _shown(None if record is None or record.revoked else record)})


@keys.patch("/keys/<key_id>")
@operator
def change_key(key: KeyRecord, key_id: str) -> Response:
    """Change the fields that the request has; null takes a value away."""
    data = request_json()
    record, webhook_secret = acts.change_key(key_id, lambda _: data, actor(key))
    return _json({"data": _shown(record), **_webhook(webhook_secret)})


@keys.delete("/keys/<key_id>")
@operator
def delete_key(key: KeyRecord, key_id: str) -> Response:
    """Refuse a key from now on, and end its running calls. What it has used stays known."""
    if not services().keys.revoke(key_id, actor(key)):
        raise _no_key()
    return _json({"deleted": True})


@keys.post("/keys/<key_id>/rotate")
@operator
def rotate_key(key: KeyRecord, key_id: str) -> Response:
    """Give a key a new secret; the present one stays valid for `grace_seconds`."""
    # A body is optional here.
    empty = not request.content_length and "Transfer-Encoding" not in request.headers
    data = schema.checked_fields(schema.ROTATION, {} if empty else request_json())
    grace = data.get("grace_seconds", schema.GRACE_SECONDS)
    idempotency_key = idempotency.name_of(request.headers)
    rotation = services().keys.rotate(key_id, grace, actor(key), idempotency_key)
    if rotation is None:
        raise _no_key()
    data = _shown(rotation.record)
    previous = data["previous_valid_until"]
    response = _json({"data": data, "key": rotation.key, "previous_valid_until": previous}, 201)
    if rotation.replayed:
        response.headers[idempotency.REPLAYED] = "true"
    return response


@keys.get("/owners")
@operator
def list_owners(key: KeyRecord) -> Response:
    """List the owners, by id."""
    query.refuse_unknown(request.args, ("after", "limit"))
    after = query.text(request.args, "after", query.ID) or ""
    records = sorted(services().owners.all(), key=lambda owner: owner.id)
    page, more = _page([record for record in records if record.id > after])
    return _json({"data": shown_owners(page), "has_more": more})


@keys.post("/owners")
@operator
def create_owner(key: KeyRecord) -> Response:
    """Create an owner."""
    data = request_json()
    acts.create_owner(data, actor(key))
    return _json({"data": _shown_owner(services().owners.read(data["id"]))}, 201)


@keys.get("/owners/<owner_id>")
@operator
def get_owner(key: KeyRecord, owner_id: str) -> Response:
    """Show an owner: its limits, what its keys have used, and what is left."""
    return _json({"data": _shown_owner(services().owners.read(owner_id))})


@keys.patch("/owners/<owner_id>")
@operator
def change_owner(key: KeyRecord, owner_id: str) -> Response:
    """Change the fields that the request has; null takes a value away."""
    data = request_json()
    return _json({"data": _shown_owner(acts.change_owner(owner_id, lambda _: data, actor(key)))})


@keys.delete("/owners/<owner_id>")
@operator
def delete_owner(key: KeyRecord, owner_id: str) -> Response:
    """Delete an owner that has no keys."""
    owners.delete(services().broker.redis, services().keys.all(), owner_id, actor(key))
    return _json({"deleted": True})


@keys.get("/audit")
@operator
def list_audit_log(key: KeyRecord) -> Response:
    """List the changes of keys and owners, the latest first."""
    query.refuse_unknown(request.args, ("after", "limit"))
    after = query.text(request.args, "after", ENTRY_ID)
    limit = query.number(request.args, "limit", PAGE, LARGEST_PAGE)
    entries = services().ledger.audit_log(after=after, limit=limit + 1)
    page = [{"id": each.id, **_shown_entry(each.entry)} for each in entries[:limit]]
    return _json({"data": page, "has_more": len(entries) > limit})


def _shown(record: KeyRecord | None) -> dict[str, Any]:
    if record is None:
        raise _no_key()
    return shown_keys([record])[0]


def _shown_owner(record: OwnerRecord | None) -> dict[str, Any]:
    if record is None:
        raise NotFound("There is no such owner.", code="owner_not_found")
    return shown_owners([record])[0]


def _webhook(secret: str | None) -> dict[str, str]:
    return {} if secret is None else {"webhook_secret": secret}


def _no_key() -> NotFound:
    return NotFound("There is no such API key.", code="key_not_found")


def _age(record: KeyRecord) -> tuple[int, str]:
    return record.created, record.public_id


def _shown_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"created_at": iso_time(entry["time"]), **{k: entry[k] for k in entry if k != "time"}}


def _page(records: list[T]) -> tuple[list[T], bool]:
    limit = query.number(request.args, "limit", PAGE, LARGEST_PAGE)
    return records[:limit], len(records) > limit
