"""POST /messages: Anthropic's Messages API, for any model."""

from __future__ import annotations

from functools import partial

from flask import Response, g, request

from api import handler
from api.http.auth import keyed
from api.http.errors import ApiBlueprint
from api.messages import errors as messages_errors
from api.messages import schema as messages_schema
from api.messages.renderer import MessageRenderer
from api.messages.request import chat_request
from gateway.account.api_keys import KeyRecord

messages = ApiBlueprint("messages", __name__, dialect=messages_errors.render)


@messages.post("/messages")
@keyed
def create(key: KeyRecord) -> Response:
    """Answer a message, whole or as server-sent events."""
    data = handler.read()
    target = handler.resolve(messages_schema.model_name(data))
    body = messages_schema.checked(data)
    row = target.row
    checked = chat_request(
        body,
        row.extra_parameters,
        row.accepts,
        betas=request.headers.get("anthropic-beta", ""),
        limit=row.max_output_tokens,
        alone=not row.fallbacks,
    )
    renderer = partial(MessageRenderer, request_id=g.request_id)
    response = handler.respond(key, target, checked, renderer, full_names=True)
    response.headers["request-id"] = g.request_id
    return response
