"""Owners: teams or customers, with limits for all of their keys together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response, request, url_for

from api.console import forms
from api.console.keys import shown as shown_keys
from api.console.keys import to
from api.console.page import console, page
from api.console.session import operators
from api.http.auth import actor
from api.keys import schema
from api.keys.shown import shown_owner
from api.services import services
from gateway.account import counters
from gateway.account import owners as owner_records
from gateway.account.api_keys import KeyRecord
from gateway.account.owners import OwnerRecord
from gateway.errors import GatewayError, InvalidRequest, NotFound
from gateway.queue.keys import owner_scope

DONE = {
    "changed": "The owner has been changed. The next calls keep to the new limits.",
    "created": "The owner has been created.",
    "deleted": "The owner has been deleted.",
    "disabled": "The owner has been disabled. The running calls of its keys end within 5 seconds.",
    "enabled": "The owner has been enabled.",
    "extra": "The extra budget has been set.",
}


@console.get("/console/owners")
@operators
def owners(key: KeyRecord) -> Response:
    """All owners, by id."""
    records = sorted(services().owners.all(), key=lambda each: each.id)
    return page(
        "owners.html", rows=_shown(records), done=DONE.get(request.args.get("done", ""), "")
    )


@console.get("/console/owners/new")
@operators
def owners_new(key: KeyRecord) -> Response:
    """The form of a new owner."""
    return _new({}, None)


@console.post("/console/owners/new")
@operators
def owners_create(key: KeyRecord) -> Response:
    """Create the owner of the form."""
    texts = forms.entered(forms.NEW_OWNER)
    try:
        data = forms.data(forms.NEW_OWNER, texts, {})
        schema.checked_fields(schema.NEW_OWNER, data)
        values = schema.to_record(data, OwnerRecord(""), time.time())
        if not services().owners.create(data["id"], values, actor(key)):
            raise InvalidRequest("There is an owner with this id.", param="id", status=409)
    except GatewayError as error:
        return _new(texts, error)
    return to(url_for("console.owners_one", owner_id=data["id"], done="created"))


@console.get("/console/owners/<owner_id>")
@operators
def owners_one(key: KeyRecord, owner_id: str) -> Response:
    """One owner with its keys, and the forms that change it."""
    return _one(_find(owner_id))


@console.post("/console/owners/<owner_id>")
@operators
def owners_change(key: KeyRecord, owner_id: str) -> Response:
    """Set what the form changes."""
    texts = forms.entered(forms.OWNER)

    def edit(record: OwnerRecord) -> Mapping[str, Any]:
        before = forms.texts(forms.OWNER, _shown([record])[0])
        return _values(forms.data(forms.OWNER, texts, before), record)

    return _changed(key, owner_id, edit, "changed", texts)


@console.post("/console/owners/<owner_id>/extra")
@operators
def owners_extra(key: KeyRecord, owner_id: str) -> Response:
    """Add to the budget of the current window."""
    sections = (forms.Section("", forms.EXTRA),)
    texts = forms.entered(sections)

    def edit(record: OwnerRecord) -> Mapping[str, Any]:
        return _values({"limit_extra": None, **forms.data(sections, texts, {})}, record)

    return _changed(key, owner_id, edit, "extra", None)


@console.post("/console/owners/<owner_id>/switch")
@operators
def owners_switch(key: KeyRecord, owner_id: str) -> Response:
    """Disable the owner with all of its keys, or enable it again."""
    disabled = request.form.get("disabled") == "1"
    done = "disabled" if disabled else "enabled"
    return _changed(key, owner_id, lambda record: {"disabled": disabled}, done, None)


@console.post("/console/owners/<owner_id>/delete")
@operators
def owners_delete(key: KeyRecord, owner_id: str) -> Response:
    """Delete an owner that has no keys."""
    try:
        owner_records.delete(services().broker.redis, services().keys.all(), owner_id, actor(key))
    except InvalidRequest as error:
        return _one(_find(owner_id), error)
    return to(url_for("console.owners", done="deleted"))


def _shown(records: Sequence[OwnerRecord]) -> list[dict[str, Any]]:
    used = counters.read(services().broker.redis, [owner_scope(each.id) for each in records])
    return [shown_owner(*pair, time.time()) for pair in zip(records, used, strict=True)]


def _values(data: dict[str, Any], record: OwnerRecord) -> Mapping[str, Any]:
    schema.checked_fields(schema.OWNER_CHANGE, data)
    return schema.to_record(data, record, time.time())


def _new(texts: Mapping[str, str], error: GatewayError | None) -> Response:
    wrong, message = forms.problem(forms.NEW_OWNER, error) if error else ("", "")
    return page(
        "owner_new.html",
        error.status if error else 200,
        sections=forms.NEW_OWNER,
        texts=texts,
        wrong=wrong,
        message=message,
    )


def _one(record: OwnerRecord, error: GatewayError | None = None, texts: Any = None) -> Response:
    values = _shown([record])[0]
    wrong, message = forms.problem(forms.OWNER, error) if error else ("", "")
    members = [
        each for each in services().keys.all() if each.owner == record.id and not each.revoked
    ]
    return page(
        "owner.html",
        error.status if error else 200,
        shown=values,
        sections=forms.OWNER,
        extra=forms.EXTRA,
        texts=texts or forms.texts(forms.OWNER, {**values, "name": record.name}),
        wrong=wrong,
        message=message,
        members=shown_keys(sorted(members, key=lambda each: each.name.lower())),
        done="" if error else DONE.get(request.args.get("done", ""), ""),
        now=time.time(),
    )


def _changed(key: KeyRecord, owner_id: str, edit: Any, done: str, texts: Any) -> Response:
    try:
        record = services().owners.change(owner_id, edit, actor(key))
    except GatewayError as error:
        return _one(_find(owner_id), error, texts)
    if record is None:
        raise _no_owner()
    return to(url_for("console.owners_one", owner_id=owner_id, done=done))


def _find(owner_id: str) -> OwnerRecord:
    record = services().owners.read(owner_id)
    if record is None:
        raise _no_owner()
    return record


def _no_owner() -> NotFound:
    return NotFound("There is no such owner.")
