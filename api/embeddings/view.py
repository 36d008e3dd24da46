"""POST /embeddings."""

from __future__ import annotations

from functools import partial

from flask import Blueprint, Response

from api import handler
from api.chat import request as chat_request
from api.embeddings.renderer import EmbeddingsRenderer
from api.embeddings.schema import MAX_ELEMENTS, embeddings_request
from api.http.auth import keyed
from api.http.body import request_json
from gateway.account.api_keys import KeyRecord

embeddings = Blueprint("embeddings", __name__)


@embeddings.post("/embeddings")
@keyed
def create(key: KeyRecord) -> Response:
    """Create the embeddings of one or more texts."""
    data = request_json(MAX_ELEMENTS)
    target = handler.resolve(chat_request.model_name(data))
    checked = embeddings_request(data, target.row.extra_parameters)
    del data
    as_numbers = checked.parameters.get("encoding_format") != "base64"
    make = partial(EmbeddingsRenderer, as_numbers=as_numbers)
    return handler.respond(key, target, checked, make)
