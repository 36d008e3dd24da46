"""POST /messages: Anthropic's Messages API, for any model."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from flask import Response, g

from api import handler
from api.http.auth import keyed
from api.http.errors import ApiBlueprint
from api.messages import errors as messages_errors
from api.messages import schema as messages_schema
from api.messages.renderer import MessageRenderer
from api.messages.request import chat_request, own_name, without_refused
from gateway.account.api_keys import KeyRecord

messages = ApiBlueprint("messages", __name__, dialect=messages_errors.render)


@messages.post("/messages")
@keyed
def create(key: KeyRecord) -> Response:
    """Answer a message, whole or as server-sent events."""
    data = handler.read()
    route = handler.route_to(messages_schema.model_name(data))
    body = messages_schema.checked(data)
    provider = route.provider
    native = provider.wire == "anthropic"
    asked = chat_request(body, provider.extra_parameters, native, provider.keeps)
    parameters, dropped = without_refused(route.model.parameters, asked.parameters)
    asked = replace(asked, parameters=parameters, ignored=[*asked.ignored, *dropped])
    response = handler.respond(key, route, asked, partial(MessageRenderer, request_id=g.request_id))
    if ignored := response.headers.get("X-Ignored-Parameters"):
        names = dict.fromkeys(map(own_name, ignored.split(", ")))
        response.headers["X-Ignored-Parameters"] = ", ".join(names)
    response.headers["request-id"] = g.request_id
    return response
