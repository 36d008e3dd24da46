"""POST /chat/completions."""

from __future__ import annotations

from functools import partial

from flask import Blueprint, Response

from api import handler
from api.chat import request as chat_request
from api.chat.renderer import ChatRenderer
from api.http.auth import keyed
from api.http.body import request_json
from gateway.account.api_keys import KeyRecord

chat = Blueprint("chat", __name__)


@chat.post("/chat/completions")
@keyed
def create(key: KeyRecord) -> Response:
    """Create a chat completion, whole or as server-sent events."""
    return complete(key)


def complete(key: KeyRecord) -> Response:
    """The response to the chat request in the body, as a call of this key.

    Raises a GatewayError, as `handler.respond` does.
    """
    data = request_json()
    target = handler.resolve(chat_request.model_name(data))
    checked = chat_request.chat_request(data, target.row.extra_parameters)
    del data
    renderer = partial(ChatRenderer, include_usage=checked.include_usage)
    return handler.respond(key, target, checked, renderer)
