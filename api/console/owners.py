"""Owners: teams or customers, with limits for all of their keys together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from flask import Response, url_for

from api.console import forms
from api.console.page import console, done, page, see_other
from api.console.session import operators
from api.http.auth import actor
from api.keys import acts
from api.keys.shown import shown_keys, shown_owners
from api.services import services
from gateway.account import owners as owner_records
from gateway.account.api_keys import KeyRecord
from gateway.account.owners import OwnerRecord
from gateway.errors import GatewayError, InvalidRequest, NotFound

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
    return page("owners.html", rows=shown_owners(records), done=done(DONE))


@console.get("/console/owners/new")
@operators
def owners_new(key: KeyRecord) -> Response:
    """The form of a new owner."""
    return _new({}, None)


@console.post("/console/owners/new")
@operators
def owners_create(key: KeyRecord) -> Response:
    """Create the owner of the form."""
    texts = forms.NEW_OWNER.entered()
    try:
        data = forms.NEW_OWNER.data(texts, {})
        acts.create_owner(data, actor(key))
    except GatewayError as error:
        return _new(texts, error)
    return see_other(url_for("console.owners_one", owner_id=data["id"], done="created"))


@console.get("/console/owners/<owner_id>")
@operators
def owners_one(key: KeyRecord, owner_id: str) -> Response:
    """One owner with its keys, and the forms that change it."""
    return _one(_find(owner_id))


@console.post("/console/owners/<owner_id>")
@operators
def owners_change(key: KeyRecord, owner_id: str) -> Response:
    """Set what the form changes."""

    def change(record: OwnerRecord) -> dict[str, Any]:
        return forms.OWNER.changes(shown_owners([record])[0])

    return _changed(key, owner_id, change, "changed", forms.OWNER.entered())


@console.post("/console/owners/<owner_id>/extra")
@operators
def owners_extra(key: KeyRecord, owner_id: str) -> Response:
    """Add to the budget of the current window."""
    return _changed(key, owner_id, forms.extra, "extra")


@console.post("/console/owners/<owner_id>/switch")
@operators
def owners_switch(key: KeyRecord, owner_id: str) -> Response:
    """Disable the owner with all of its keys, or enable it again."""
    data, done = forms.switch()
    return _changed(key, owner_id, lambda _: data, done)


@console.post("/console/owners/<owner_id>/delete")
@operators
def owners_delete(key: KeyRecord, owner_id: str) -> Response:
    """Delete an owner that has no keys."""
    try:
        owner_records.delete(services().broker.redis, services().keys.all(), owner_id, actor(key))
    except InvalidRequest as error:
        return _one(_find(owner_id), error)
    return see_other(url_for("console.owners", done="deleted"))


def _new(texts: Mapping[str, str], error: GatewayError | None) -> Response:
    status = error.status if error else 200
    return page("owner_new.html", status, **forms.NEW_OWNER.values(texts, error))


def _one(record: OwnerRecord, error: GatewayError | None = None, texts: Any = None) -> Response:
    values = shown_owners([record])[0]
    members = [
        each for each in services().keys.all() if each.owner == record.id and not each.revoked
    ]
    return page(
        "owner.html",
        error.status if error else 200,
        **forms.OWNER.values(
            texts or forms.OWNER.texts({**values, "name": record.name}),
            error,
            forms.OWNER.shown() if texts else None,
        ),
        shown=values,
        extra=forms.EXTRA_FIELDS,
        members=shown_keys(sorted(members, key=lambda each: each.name.lower())),
        done="" if error else done(DONE),
        now=time.time(),
    )


def _changed(
    key: KeyRecord,
    owner_id: str,
    change: Callable[[OwnerRecord], Mapping[str, Any]],
    done: str,
    texts: Mapping[str, str] | None = None,
) -> Response:
    """Change an owner by the JSON that `change(record)` returns, and show it again."""
    try:
        record = acts.change_owner(owner_id, change, actor(key))
    except GatewayError as error:
        return _one(_find(owner_id), error, texts)
    if record is None:
        raise _no_owner()
    return see_other(url_for("console.owners_one", owner_id=owner_id, done=done))


def _find(owner_id: str) -> OwnerRecord:
    record = services().owners.read(owner_id)
    if record is None:
        raise _no_owner()
    return record


def _no_owner() -> NotFound:
    return NotFound("There is no such owner.")
