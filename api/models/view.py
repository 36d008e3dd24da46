"""GET /models and /models/{id}: OpenAI's list, with the fields that OpenRouter adds."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from api.chat import request as chat_request
from api.embeddings import schema as embeddings_schema
from api.http.auth import reader
from api.http.json import json_response
from api.services import services
from gateway.account.api_keys import KeyRecord
from gateway.account.pricing import tiers_of
from gateway.catalogue import parameters as rules
from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.file import ModelRow
from gateway.errors import ModelNotFound

models = Blueprint("models", __name__)

# Kind of a model -> its parameters besides the input itself.
PARAMETERS_BY_KIND = {
    "chat": chat_request.CHAT_PARAMETERS - {"messages"},
    "embeddings": embeddings_schema.EMBEDDINGS_PARAMETERS - {"input"},
}


@models.get("/models", strict_slashes=False)
@reader
def list_models(key: KeyRecord) -> Response:
    """List the models of the catalogue that have a name of their own and that the key may use."""
    catalogue = services().catalogue
    rows = [shown(row.id, row, catalogue) for row in catalogue.listed() if key.allows(row.id)]
    return json_response({"object": "list", "data": rows})


@models.get("/models/<path:model_id>")
@reader
def get_model(key: KeyRecord, model_id: str) -> Response:
    """Return one model; raises ModelNotFound, for one that the key may not use as well."""
    catalogue = services().catalogue
    requested, model_id = model_id, catalogue.full_name(model_id)
    if not key.allows(model_id, requested):
        raise ModelNotFound
    return json_response(shown(model_id, catalogue.find(model_id), catalogue))


def shown(model_id: str, row: ModelRow, catalogue: Catalogue) -> dict[str, Any]:
    """OpenAI's model object. `available` says whether its provider is configured.

    `pricing` is in USD for one token, as strings; its `tiers` hold for larger prompts. Unknown
    values are absent.
    """
    facts: dict[str, Any] = {
        "id": model_id,
        "object": "model",
        "created": 0,
        "owned_by": row.provider,
        "available": catalogue.available(row),
        "kind": row.kind,
    }
    if row.context_length is not None:
        facts["context_length"] = row.context_length
    if row.max_output_tokens is not None:
        facts["max_output_tokens"] = row.max_output_tokens
    if row.shutdown_date is not None:
        facts["shutdown_date"] = row.shutdown_date.isoformat()
        facts["successor"] = row.successor
    if tiers := tiers_of(row, row.upstream_name(model_id)):
        facts["pricing"] = dict(tiers[0].record["units"])
        if more := [{"above": each.above, **each.record["units"]} for each in tiers[1:]]:
            facts["pricing"]["tiers"] = more
    if supported := _supported(row, catalogue):
        facts["supported_parameters"] = supported
    return facts


def _supported(row: ModelRow, catalogue: Catalogue) -> list[str]:
    """The names of the parameters that this model supports, sorted."""
    provider = catalogue.providers[row.provider]
    if provider.demo:  # it ignores all parameters
        return []
    names = PARAMETERS_BY_KIND[row.kind].union(provider.extra_parameters)
    return sorted(name for name in names if rules.taken(row.parameters, name))
