"""Anthropic's Messages API, for any model: POST /messages and POST /messages/count_tokens."""

from __future__ import annotations

from functools import partial
from typing import Any

from flask import Response, g, request

from api import handler
from api.call_request import CheckedRequest
from api.http.auth import keyed
from api.http.body import request_json
from api.http.errors import ApiBlueprint
from api.http.limits import anthropic_headers
from api.messages import errors as messages_errors
from api.messages import schema as messages_schema
from api.messages.renderer import CountRenderer, MessageRenderer
from api.messages.request import chat_request
from api.schemas.fields import MAX_TOKENS
from gateway.account.api_keys import KeyRecord
from gateway.catalogue.target import Target

messages = ApiBlueprint("messages", __name__, dialect=messages_errors.render)


@messages.after_request
def add_limits(response: Response) -> Response:
    """Add Anthropic's headers of rate limits to the response of a call."""
    if (call := g.get("call")) is not None:
        response.headers.update(anthropic_headers(call.admission))
    return response


@messages.post("/messages")
@keyed
def create(key: KeyRecord) -> Response:
    """Answer a message, whole or as server-sent events."""
    data = request_json()
    target = handler.resolve(messages_schema.model_name(data))
    checked = _chat_request(messages_schema.checked(data), target)
    del data
    renderer = partial(MessageRenderer, request_id=g.request_id)
    response = handler.respond(key, target, checked, renderer)
    response.headers["request-id"] = g.request_id
    return response


@messages.post("/messages/count_tokens")
@keyed
def count_tokens(key: KeyRecord) -> Response:
    """Count the tokens of a prompt: Anthropic does for its models, others are estimated."""
    data = request_json()
    target = handler.resolve(messages_schema.model_name(data))
    body = messages_schema.checked({"max_tokens": MAX_TOKENS, **data})
    renderer = partial(CountRenderer, request_id=g.request_id)
    response = handler.count_tokens(key, target, _chat_request(body, target), renderer)
    response.headers["request-id"] = g.request_id
    return response


def _chat_request(body: dict[str, Any], target: Target) -> CheckedRequest:
    row = target.row
    return chat_request(
        body,
        row.extra_parameters,
        row.accepts,
        betas=request.headers.get("anthropic-beta", ""),
        limit=row.max_output_tokens,
        alone=not row.fallbacks,
    )
