"""POST /chat/completions."""

from __future__ import annotations

from functools import partial

from flask import Blueprint, Response

from api import calls
from api.auth import keyed
from api.completion import Completion
from gateway import validation
from gateway.keys import KeyRecord

chat = Blueprint("chat", __name__)


@chat.post("/chat/completions")
@keyed
def create(key: KeyRecord) -> Response:
    """Answer a chat completion, whole or as server-sent events."""
    data = calls.read()
    route = calls.route_to(validation.model_name(data))
    asked = validation.chat_request(data, route.provider.extra_parameters)
    return calls.answer(key, route, asked, partial(Completion, include_usage=asked.include_usage))
