"""/responses: OpenAI's Responses API for any chat model. Nothing is stored."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from flask import Response
from flask.sansio.blueprints import BlueprintSetupState
from werkzeug.routing import BaseConverter

from api import handler
from api.chat import request as chat_request
from api.http.auth import keyed
from api.http.errors import ApiBlueprint
from api.responses import errors as responses_errors
from api.responses import request as responses_request
from api.responses.renderer import CountRenderer, ResponseRenderer, count_of
from api.responses.tools import tool_items
from gateway import tokens
from gateway.account.api_keys import KeyRecord
from gateway.catalogue.file import MESSAGES_API
from gateway.errors import NotFound

JSON = "application/json"

responses = ApiBlueprint("responses", __name__, dialect=responses_errors.render)


class ResponseId(BaseConverter):
    """The id of a response in a path: no other address below /responses."""

    regex = r"(?!input_tokens\Z)[^/]+"


@responses.record
def _add_converter(state: BlueprintSetupState) -> None:
    state.app.url_map.converters["response_id"] = ResponseId


@responses.post("/responses")
@keyed
def create(key: KeyRecord) -> Response:
    """Answer a response, whole or as server-sent events."""
    data = handler.read()
    target = handler.resolve(chat_request.model_name(data))
    row = target.row
    checked = responses_request.chat_request(data, row.extra_parameters, row.accepts)
    data["input"] = tool_items(data["input"])  # the renderer needs no others
    renderer = partial(ResponseRenderer, request=data)
    return handler.respond(key, target, checked, renderer, full_names=True)


@responses.post("/responses/input_tokens")
@keyed
def count_input_tokens(key: KeyRecord) -> Response:
    """Count the tokens of an input: Anthropic does for its models, others are estimated."""
    data = handler.read()
    target = handler.resolve(chat_request.model_name(data))
    handler.require_allowed(key, target, chat_request.model_name(data))
    row = target.row
    checked = responses_request.chat_request(data, row.extra_parameters, row.accepts)
    checked = replace(checked, stream=False)
    del data
    if MESSAGES_API in row.accepts:
        return handler.respond(key, target, checked, partial(CountRenderer), kind="count_tokens")
    target.require("chat")
    response = Response(count_of(tokens.prompt_tokens(checked.parameters)), mimetype=JSON)
    response.headers["X-Token-Count"] = "estimate"
    return response


@responses.get("/responses/<response_id:response_id>")
@responses.delete("/responses/<response_id:response_id>")
@keyed
def get(key: KeyRecord, response_id: str) -> Response:
    """Always raises NotFound: no response is stored."""
    raise NotFound(
        f"Response with id '{response_id[:64]}' not found: this service is stateless and stores no"
        " responses.",
        param="response_id",
        code="response_not_found",
    )
