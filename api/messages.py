"""POST /messages: Anthropic's Messages API, for any model."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from flask import Blueprint, Response, g

from api import calls
from api.auth import keyed
from api.dialects.messages_reply import MessageReply
from api.dialects.messages_request import chat_request, own_name, without_refused
from gateway import validation_anthropic
from gateway.keys import KeyRecord

messages = Blueprint("messages", __name__)


@messages.post("/messages")
@keyed
def create(key: KeyRecord) -> Response:
    """Answer a message, whole or as server-sent events."""
    data = calls.read()
    route = calls.route_to(validation_anthropic.model_name(data))
    body = validation_anthropic.checked(data)
    provider = route.provider
    native = provider.wire == "anthropic"
    asked = chat_request(body, provider.extra_parameters, native, provider.keeps)
    parameters, dropped = without_refused(route.model.parameters, asked.parameters)
    asked = replace(asked, parameters=parameters, ignored=[*asked.ignored, *dropped])
    response = calls.answer(key, route, asked, partial(MessageReply, request_id=g.request_id))
    if ignored := response.headers.get("X-Ignored-Parameters"):
        names = dict.fromkeys(map(own_name, ignored.split(", ")))
        response.headers["X-Ignored-Parameters"] = ", ".join(names)
    response.headers["request-id"] = g.request_id
    return response
