"""Keys: the list, one key, and everything that operators do to it. The caller's own key."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response, g, redirect, request, url_for

from api.console import forms
from api.console.page import console, page
from api.console.session import operators, signed_in
from api.http.auth import actor
from api.keys import schema
from api.keys.shown import shown_key, webhook_secret
from api.services import services
from gateway.account import counters
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
    return page("key.html", shown=shown([key])[0], own=True, done="")


@console.get("/console/keys")
@operators
def keys(key: KeyRecord) -> Response:
    """A page of the keys that are not revoked, by name."""
    search = request.args.get("search", "").strip().lower()
    owner = request.args.get("owner", "")
    found = sorted(
        (
            each
            for each in services().keys.all()
            if not each.revoked
            and (not owner or each.owner == owner)
            and (search in each.name.lower() or search in each.public_id.lower())
        ),
        key=lambda each: (each.name.lower(), each.public_id),
    )
    start = min(request.args.get("start", 0, int), len(found))
    start = max(0, start - start % ROWS)
    return page(
        "keys.html",
        rows=shown(found[start : start + ROWS]),
        total=len(found),
        start=start,
        size=ROWS,
        search=search,
        owner=owner,
        done=DONE.get(request.args.get("done", ""), ""),
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
    texts = forms.entered(forms.KEY)
    try:
        data = forms.data(forms.KEY, texts, {})
        if request.form.get("operator"):
            data["operator"] = True
        schema.checked_fields(schema.NEW_KEY, data)
        hosts = services().settings.webhook_hosts
        values = schema.to_record(data, KeyRecord("", "", ""), time.time(), hosts)
        secret = services().keys.create(by=actor(key), **values)
    except GatewayError as error:
        return _new(texts, error)
    id = public_id(secret)
    webhook = _webhook_secret(services().keys.get(id), "")
    return page("key_secret.html", secret=secret, webhook=webhook, id=id, name=texts["name"])


@console.get("/console/keys/<key_id>")
@operators
def keys_one(key: KeyRecord, key_id: str) -> Response:
    """One key with the forms that change it."""
    return _one(_find(key_id))


@console.post("/console/keys/<key_id>")
@operators
def keys_change(key: KeyRecord, key_id: str) -> Response:
    """Set what the form changes; a new webhook's secret is shown, here and nowhere else."""
    texts = forms.entered(forms.KEY)
    now, hosts = time.time(), services().settings.webhook_hosts
    nonce = ""

    def edit(record: KeyRecord) -> Mapping[str, Any]:
        nonlocal nonce
        nonce = record.webhook_nonce
        before = forms.texts(forms.KEY, shown([record])[0])
        data = forms.data(forms.KEY, texts, before)
        schema.checked_fields(schema.KEY_CHANGE, data)
        return schema.to_record(data, record, now, hosts)

    response = _changed(key, key_id, edit, "changed", texts)
    record = services().keys.get(key_id) if response.status_code == 303 else None
    webhook = _webhook_secret(record, nonce)
    if record is None or webhook is None:
        return response
    return page("key_secret.html", secret="", webhook=webhook, id=key_id, name=record.name)


@console.post("/console/keys/<key_id>/extra")
@operators
def keys_extra(key: KeyRecord, key_id: str) -> Response:
    """Add to the budget of the current window."""
    sections = (forms.Section("", forms.EXTRA),)
    texts = forms.entered(sections)

    def edit(record: KeyRecord) -> Mapping[str, Any]:
        data = forms.data(sections, texts, {})
        data.setdefault("limit_extra", None)
        schema.checked_fields(schema.KEY_CHANGE, data)
        return schema.to_record(data, record, time.time())

    return _changed(key, key_id, edit, "extra", None)


@console.post("/console/keys/<key_id>/switch")
@operators
def keys_switch(key: KeyRecord, key_id: str) -> Response:
    """Disable the key, or enable it again."""
    disabled = request.form.get("disabled") == "1"
    done = "disabled" if disabled else "enabled"
    return _changed(key, key_id, lambda record: {"disabled": disabled}, done, None)


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
    return to(url_for("console.keys", done="revoked"))


def shown(records: Sequence[KeyRecord]) -> list[dict[str, Any]]:
    """Keys as JSON shows them, with what they have used."""
    used = counters.read(services().broker.redis, [each.public_id for each in records])
    return [shown_key(*pair, time.time()) for pair in zip(records, used, strict=True)]


def to(address: str) -> Response:
    """A redirect after a change."""
    response = redirect(address, 303)
    return Response(response.get_data(), 303, response.headers)


def _webhook_secret(record: KeyRecord | None, nonce: str) -> str | None:
    """The secret of the record's webhook, if it has changed since this nonce."""
    return webhook_secret(record, nonce, services().settings.key_pepper)


def _new(texts: Mapping[str, str], error: GatewayError | None) -> Response:
    wrong, message = forms.problem(forms.KEY, error) if error else ("", "")
    return page(
        "key_new.html",
        error.status if error else 200,
        sections=forms.KEY,
        texts=texts,
        wrong=wrong,
        message=message,
        owners=owner_ids(),
    )


def _one(record: KeyRecord, error: GatewayError | None = None, texts: Any = None) -> Response:
    values = shown([record])[0]
    wrong, message = forms.problem(forms.KEY, error) if error else ("", "")
    return page(
        "key.html",
        error.status if error else 200,
        shown=values,
        own=False,
        sections=forms.KEY,
        extra=forms.EXTRA,
        texts=texts or forms.texts(forms.KEY, values),
        wrong=wrong,
        message=message,
        owners=owner_ids(),
        graces=GRACE,
        default_grace=str(schema.GRACE_SECONDS),
        done="" if error else DONE.get(request.args.get("done", ""), ""),
    )


def _changed(key: KeyRecord, key_id: str, edit: Any, done: str, texts: Any) -> Response:
    try:
        record = services().keys.change(key_id, edit, actor(key))
    except GatewayError as error:
        return _one(_find(key_id), error, texts)
    if record is None:
        raise _no_key()
    return to(url_for("console.keys_one", key_id=key_id, done=done))


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
