"""Models: prices, limits, shutdown dates, and the health of their routes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from flask import Response, request

from api.console.calls import RECEIPT
from api.console.page import console, done, page
from api.console.session import signed_in
from api.models.view import shown
from api.services import services
from gateway.account.api_keys import KeyRecord
from gateway.account.pricing import tiers_of
from gateway.catalogue.deprecation import NOTICE
from gateway.catalogue.file import ModelRow
from gateway.errors import ModelNotFound
from gateway.queue import breakers, steering
from gateway.queue.breakers import HEALTHY, Breaker

DONE = {
    "paused": "The model is paused. Calls that run go on; further ones wait.",
    "resumed": "The model takes calls again.",
}
PRICES = {price: label for label, _, _, price in RECEIPT}


@console.get("/console/models")
@signed_in
def models(key: KeyRecord) -> Response:
    """The models that the key may use; by default, those whose provider is configured."""
    catalogue = services().catalogue
    state, paused = _breakers(), _paused()
    search = request.args.get("search", "").strip().lower()
    everything = request.args.get("all") == "1"
    allowed = [row for row in catalogue.listed() if key.operator or key.allows(row.id)]
    rows = [
        row
        for row in allowed
        if search in row.id.lower() and (everything or catalogue.available(row))
    ]
    return page(
        "models.html",
        rows=[{**_listed(row, state), "paused": row.id in paused} for row in rows],
        hidden=sum(not catalogue.available(row) for row in allowed),
        search=search,
        everything=everything,
    )


@console.get("/console/models/<path:model_id>")
@signed_in
def models_one(key: KeyRecord, model_id: str) -> Response:
    """One model with all of its prices and routes."""
    catalogue = services().catalogue
    if not key.operator and not key.allows(model_id):
        raise ModelNotFound
    row = catalogue.find(model_id)
    state = _breakers()
    tiers = [
        (tier.above, {name: Decimal(value) for name, value in tier.units.items()})
        for tier in tiers_of(row, row.upstream_name(model_id))
    ]
    return page(
        "model.html",
        row=row,
        model_id=model_id,
        facts=shown(model_id, row, catalogue),
        available=catalogue.available(row),
        missing=catalogue.providers[row.provider].missing(services().settings),
        tiers=tiers,
        labels=PRICES,
        route=_route(row, model_id),
        breaker=state.get(_route(row, model_id)),
        aliases=[
            each.id
            for each in catalogue.listed()
            if each.id != model_id
            and _route(each, each.id) == _route(row, model_id)
            and (key.operator or key.allows(each.id))
        ],
        ending=_ending(row),
        paused=model_id in _paused(),
        done=done(DONE),
    )


def _listed(row: ModelRow, state: Mapping[str, Breaker]) -> dict[str, Any]:
    tiers = tiers_of(row, row.upstream_name(row.id))
    units = tiers[0].units if tiers else {}
    breaker = state.get(_route(row, row.id))
    return {
        "id": row.id,
        "kind": row.kind,
        "context": row.context_length,
        "output": row.max_output_tokens,
        "prompt": units.get("prompt"),
        "completion": units.get("completion"),
        "tiers": len(tiers) > 1,
        "billed": row.billed,
        "available": services().catalogue.available(row),
        "health": breaker.state if breaker else HEALTHY,
        "shutdown": row.shutdown_date,
        "ending": _ending(row),
    }


def _route(row: ModelRow, model_id: str) -> str:
    """What breakers call a model."""
    return f"{row.provider}/{row.upstream_name(model_id)}"


def _ending(row: ModelRow) -> bool:
    """Whether the model has ended or ends soon."""
    today: date = services().today()
    return row.shutdown_date is not None and row.shutdown_date - NOTICE <= today


def _paused() -> set[str]:
    """The models that are paused themselves."""
    names = (pause.name.partition(":") for pause in steering.pauses(services().broker.redis))
    return {id for kind, _, id in names if kind == "model"}


def _breakers() -> dict[str, Breaker]:
    return breakers.read(services().broker.redis, services().settings.breaker_failures)
