"""GET /models and /models/{id}, in OpenAI's list shape."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Blueprint, Response, current_app

from api.auth import keyed
from gateway.catalogue import Catalogue, ModelRow
from gateway.keys import KeyRecord

models = Blueprint("models", __name__)


@models.get("/models")
@keyed
def list_models(key: KeyRecord) -> Response:
    """Every model of the catalogue that has a name of its own."""
    catalogue: Catalogue = current_app.extensions["catalogue"]
    rows = [shown(row.id, row, catalogue) for row in catalogue.listed()]
    return _json({"object": "list", "data": rows})


@models.get("/models/<path:model_id>")
@keyed
def get_model(key: KeyRecord, model_id: str) -> Response:
    """One model; raises ModelNotFound."""
    catalogue: Catalogue = current_app.extensions["catalogue"]
    return _json(shown(model_id, catalogue.find(model_id), catalogue))


def shown(model_id: str, row: ModelRow, catalogue: Catalogue) -> dict[str, Any]:
    """OpenAI's model object. `available` tells whether its provider is configured here."""
    facts: dict[str, Any] = {
        "id": model_id,
        "object": "model",
        "created": 0,
        "owned_by": row.provider,
        "available": catalogue.available(row),
    }
    if row.context is not None:
        facts["context_length"] = row.context
    if row.output is not None:
        facts["max_output_tokens"] = row.output
    if row.shutdown is not None:
        facts["shutdown_date"] = row.shutdown.isoformat()
        facts["successor"] = row.successor
    return facts


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), content_type="application/json")
