"""The playground: one or two models side by side, called as any client calls them."""

from __future__ import annotations

import time
from typing import Any

from flask import Response, g, request

from api.chat.view import complete
from api.console.page import console, page
from api.console.session import signed_in, valid_record
from api.services import services
from gateway.account.api_keys import KeyRecord
from gateway.errors import InvalidRequest

API = "/inference/v1"


@console.get("/console/playground")
@signed_in
def playground(key: KeyRecord) -> Response:
    """The form; its script makes the calls."""
    payers = _payers() if key.operator else []
    models = _models(key)
    requested = request.args.getlist("model")[:2]
    return page(
        "playground.html",
        models=models,
        chosen=requested or [row["id"] for row in models[:1]],
        payers=payers,
        api=API,
    )


@console.post("/console/playground/call")
@signed_in
def call(key: KeyRecord) -> Response:
    """A chat completion for the body, as a call of the key that is signed in.

    An operator key calls no model: an operator names the key that pays, with `key` in the query.
    """
    if not key.operator:
        return complete(key)
    payer = valid_record(request.args.get("key", ""))
    if payer is None or payer.operator:
        raise InvalidRequest("Choose a key for the call: it pays.", param="key")
    g.public_id = payer.public_id
    return complete(payer)


def _payers() -> list[KeyRecord]:
    """The keys that may call models, by name."""
    now = time.time()
    records = (each for each in services().keys.all() if each.valid(now) and not each.operator)
    return sorted(records, key=lambda each: (each.name.lower(), each.public_id))


def _models(key: KeyRecord) -> list[dict[str, Any]]:
    """The chat models that the key may use and whose provider is configured."""
    catalogue = services().catalogue
    return [
        {"id": row.id, "provider": row.provider, "context": row.context_length}
        for row in catalogue.listed()
        if row.kind == "chat" and catalogue.available(row) and key.allows(row.id)
    ]
