"""/responses: OpenAI's Responses API for any chat model."""

from __future__ import annotations

from functools import partial

from flask import Response, request
from flask.sansio.blueprints import BlueprintSetupState
from werkzeug.routing import BaseConverter

from api import handler
from api import logged as logged_calls
from api.chat import request as chat_request
from api.http.auth import keyed
from api.http.body import request_json
from api.http.errors import ApiBlueprint
from api.http.json import json_response, page_of
from api.responses import errors as responses_errors
from api.responses import request as responses_request
from api.responses import stored
from api.responses.renderer import CountRenderer, ResponseRenderer
from api.responses.tools import tool_items
from api.schemas import query as read
from gateway.account.api_keys import KeyRecord
from gateway.errors import InvalidRequest, NotFound

JSON = "application/json"
MAX_EVENTS = 10**9
IGNORED = ("include", "include_obfuscation")  # parameters without effect

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
    data = request_json()
    target = handler.resolve(chat_request.model_name(data))
    row = target.row
    checked = responses_request.chat_request(
        data, row.extra_parameters, row.accepts, partial(stored.conversation, key)
    )
    data["input"] = tool_items(data["input"])  # the renderer needs no others
    renderer = partial(ResponseRenderer, request=data)
    return handler.respond(key, target, checked, renderer)


@responses.post("/responses/input_tokens")
@keyed
def count_input_tokens(key: KeyRecord) -> Response:
    """Count the tokens of an input: Anthropic does for its models, others are estimated."""
    data = request_json()
    target = handler.resolve(chat_request.model_name(data))
    row = target.row
    checked = responses_request.chat_request(
        data, row.extra_parameters, row.accepts, partial(stored.conversation, key)
    )
    return handler.count_tokens(key, target, checked, partial(CountRenderer))


@responses.get("/responses/<response_id:response_id>")
@keyed
def get(key: KeyRecord, response_id: str) -> Response:
    """A response that is kept, or the events of one that is streamed."""
    read.refuse_unknown(request.args, ("stream", "starting_after", *IGNORED))
    logged = stored.find(key, response_id)
    if read.choice(request.args, "stream", ("true", "false")) != "true":
        return json_response(stored.response_of(logged))
    if not (logged.stream and stored.in_background(logged)):
        raise InvalidRequest(
            "This response cannot be streamed: it was not created with 'background' and 'stream'.",
            param="stream",
        )
    after = read.number(request.args, "starting_after", -1, MAX_EVENTS, least=0)
    return logged_calls.stream(logged, after, at_once=True)


@responses.delete("/responses/<response_id:response_id>")
@keyed
def delete(key: KeyRecord, response_id: str) -> Response:
    """Forget a response that is kept."""
    stored.delete(stored.find(key, response_id))
    return json_response({"id": response_id, "object": "response", "deleted": True})


@responses.post("/responses/<response_id:response_id>/cancel")
@keyed
def cancel(key: KeyRecord, response_id: str) -> Response:
    """Stop a background response, and return it. One that has ended stays as it is."""
    logged = stored.find(key, response_id)
    if not stored.in_background(logged):
        raise InvalidRequest("Only responses with 'background' can be cancelled.")
    stored.cancel(logged)
    return json_response(stored.response_of(logged))


@responses.get("/responses/<response_id:response_id>/input_items")
@keyed
def list_input_items(key: KeyRecord, response_id: str) -> Response:
    """A page of the items that a response was created from."""
    read.refuse_unknown(request.args, ("after", "limit", "order", "include"))
    items = stored.input_items(stored.find(key, response_id))
    if read.choice(request.args, "order", ("asc", "desc")) != "asc":
        items.reverse()
    if (after := read.text(request.args, "after", read.ID)) is not None:
        position = next((n for n, item in enumerate(items) if item["id"] == after), None)
        if position is None:
            raise NotFound(f"Item with id '{after}' not found.", param="after")
        items = items[position + 1 :]
    page = items[: read.number(request.args, "limit", 20, 100)]
    return json_response(page_of(page, len(items) > len(page)))
