"""POST /embeddings."""

from __future__ import annotations

from functools import partial

from flask import Blueprint, Response

from api import calls
from api.auth import keyed
from api.dialects.embeddings_reply import Embeddings
from gateway import validation
from gateway.keys import KeyRecord
from gateway.validation_embeddings import MAX_ELEMENTS, embeddings_request

embeddings = Blueprint("embeddings", __name__)


@embeddings.post("/embeddings")
@keyed
def create(key: KeyRecord) -> Response:
    """Answer with the embeddings of one text or of many."""
    data = calls.read(MAX_ELEMENTS)
    route = calls.route_to(validation.model_name(data))
    asked = embeddings_request(data, route.provider.extra_parameters)
    as_numbers = asked.parameters.get("encoding_format") != "base64"
    make = partial(Embeddings, as_numbers=as_numbers)
    return calls.answer_whole(key, route, asked, make, kind="embeddings")
