"""Keys: the list, one key, and everything that operators do to it. The caller's own key."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from flask import Response, g, request, url_for

from api.console import forms
from api.console.page import console, done, page, see_other
from api.console.session import operators, signed_in
from api.http.auth import actor
from api.keys import acts, schema
from api.keys.shown import shown_keys
from api.services import services
from gateway.account.api_keys import KeyRecord, public_id
from gateway.errors import GatewayError, NotFound

ROWS = 100  # of a page
GRACE = {"0": "none", "3600": "1 hour", "86400": "1 day", "604800": "7 days"}
DONE = {
    "changed": "The key has been changed. Its next call keeps to the new limits.",
    "disabled": "The key has been disabled. Its running calls end within 5 seconds.",
    "enabled": "The key has been enabled.",
    "revoked": "The key has been revoked. Its running calls end within 5 seconds.",
    "extra": "The extra budget has been set.",
}


@console.get("/console/key")
@signed_in
def own_key(key: KeyRecord) -> Response:
    """The caller's own key: its limits, what it has used, and what is left."""
    return page("key.html", shown=shown_keys([key])[0], own=True, done="")


@console.get("/console/keys")
@operators
def keys(key: KeyRecord) -> Response:
    """A page of the keys that are not revoked, by name."""
    search = request.args.get("search", "").strip().lower()
    owner = request.args.get("owner", "")
    records = sorted(
        (
            each
            for each in services().keys.all()
            if not each.revoked
            and (not owner or each.owner == owner)
            and (search in each.name.lower() or search in each.public_id.lower())
        ),
        key=lambda each: (each.name.lower(), each.public_id),
    )
    start = min(request.args.get("start", 0, int), len(records))
    start = max(0, start - start % ROWS)
    return page(
        "keys.html",
        rows=shown_keys(records[start : start + ROWS]),
        total=len(records),
        start=start,
        size=ROWS,
        search=search,
        owner=owner,
        done=done(DONE),
        now=time.time(),
    )


@console.get("/console/keys/new")
@operators
def keys_new(key: KeyRecord) -> Response:
    """The form of a new key."""
    return _new({"owner": request.args.get("owner", "")}, None)


@console.post("/console/keys/new")
@operators
def keys_create(key: KeyRecord) -> Response:
    """Create the key of the form, and show its secret, which is shown nowhere else."""
    texts = forms.KEY.entered()
    try:
        data = forms.KEY.data(texts, {})
        if request.form.get("operator"):
            data["operator"] = True
        created = acts.create_key(data, actor(key))
    except GatewayError as error:
        return _new(texts, error)
    return page(
        "key_secret.html",
        secret=created.key,
        webhook=created.webhook_secret,
        id=public_id(created.key),
        name=texts["name"],
    )


@console.get("/console/keys/<key_id>")
@operators
def keys_one(key: KeyRecord, key_id: str) -> Response:
    """One key with the forms that change it."""
    return _one(_find(key_id))


@console.post("/console/keys/<key_id>")
@operators
def keys_change(key: KeyRecord, key_id: str) -> Response:
    """Set what the form changes; a new webhook's secret is shown, here and nowhere else."""

    def change(record: KeyRecord) -> dict[str, Any]:
        return forms.KEY.changes(shown_keys([record])[0])

    return _changed(key, key_id, change, "changed", forms.KEY.entered())


@console.post("/console/keys/<key_id>/extra")
@operators
def keys_extra(key: KeyRecord, key_id: str) -> Response:
    """Add to the budget of the current window."""
    return _changed(key, key_id, forms.extra, "extra")


@console.post("/console/keys/<key_id>/switch")
@operators
def keys_switch(key: KeyRecord, key_id: str) -> Response:
    """Disable the key, or enable it again."""
    data, done = forms.switch()
    return _changed(key, key_id, lambda _: data, done)


@console.post("/console/keys/<key_id>/rotate")
@operators
def keys_rotate(key: KeyRecord, key_id: str) -> Response:
    """Give the key a new secret, and show it; it is shown nowhere else."""
    grace = request.form.get("grace", "")
    seconds = int(grace) if grace in GRACE else schema.GRACE_SECONDS
    rotation = services().keys.rotate(key_id, seconds, actor(key))
    if rotation is None:
        raise _no_key()
    record = rotation.record
    return page(
        "key_secret.html",
        secret=rotation.key,
        webhook=None,
        id=record.public_id,
        name=record.name,
        grace=GRACE[str(seconds)] if seconds else "",
    )


@console.post("/console/keys/<key_id>/revoke")
@operators
def keys_revoke(key: KeyRecord, key_id: str) -> Response:
    """Refuse the key from now on."""
    if not services().keys.revoke(key_id, actor(key)):
        raise _no_key()
    return see_other(url_for("console.keys", done="revoked"))


def _new(texts: Mapping[str, str], error: GatewayError | None) -> Response:
    status = error.status if error else 200
    return page("key_new.html", status, **forms.KEY.values(texts, error), owners=owner_ids())


def _one(record: KeyRecord, error: GatewayError | None = None, texts: Any = None) -> Response:
    values = shown_keys([record])[0]
    return page(
        "key.html",
        error.status if error else 200,
        **forms.KEY.values(
            texts or forms.KEY.texts(values), error, forms.KEY.shown() if texts else None
        ),
        shown=values,
        own=False,
        extra=forms.EXTRA_FIELDS,
        owners=owner_ids(),
        graces=GRACE,
        default_grace=str(schema.GRACE_SECONDS),
        done="" if error else done(DONE),
    )


def _changed(
    key: KeyRecord,
    key_id: str,
    change: Callable[[KeyRecord], Mapping[str, Any]],
    done: str,
    texts: Mapping[str, str] | None = None,
) -> Response:
    """Change a key by the JSON that `change(record)` returns, and show it again."""
    try:
        record, webhook = acts.change_key(key_id, change, actor(key))
    except GatewayError as error:
        return _one(_find(key_id), error, texts)
    if record is None:
        raise _no_key()
    if webhook is not None:
        return page("key_secret.html", secret="", webhook=webhook, id=key_id, name=record.name)
    return see_other(url_for("console.keys_one", key_id=key_id, done=done))


def owner_ids() -> list[str]:
    """The ids of all owners."""
    if "owners" not in g:
        g.owners = sorted(each.id for each in services().owners.all())
    ids: list[str] = g.owners
    return ids


def _find(key_id: str) -> KeyRecord:
    record = services().keys.get(key_id)
    if record is None or record.revoked:
        raise _no_key()
    return record


def _no_key() -> NotFound:
    return NotFound("There is no such key, or it has been revoked.")
