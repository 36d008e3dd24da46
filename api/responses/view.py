"""POST /responses: OpenAI's Responses API for any chat model. Nothing is stored."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import orjson
from flask import Blueprint, Response

from api import handler
from api.chat import request as chat_request
from api.http import errors
from api.http.auth import keyed
from api.responses import request as responses_request
from api.responses import response as response_object
from api.responses.stream import ResponseEvents
from gateway.account.api_keys import KeyRecord
from gateway.errors import GatewayError, NotFound

responses = Blueprint("responses", __name__)


@responses.post("/responses")
@keyed
def create(key: KeyRecord) -> Response:
    """Answer a response, whole or as server-sent events."""
    data = handler.read()
    route = handler.route_to(chat_request.model_name(data))
    asked = responses_request.chat_request(
        data, route.provider.extra_parameters, route.provider.keeps
    )
    try:
        response = handler.answer(key, route, asked, partial(ResponseRenderer, asked=data))
    except GatewayError as error:
        raise response_object.in_own_words(error) from None
    if ignored := response.headers.get("X-Ignored-Parameters"):
        names = ignored.split(", ")
        own = [n if n in asked.ignored else response_object.own_name(n) for n in names]
        response.headers["X-Ignored-Parameters"] = ", ".join(own)
    return response


@responses.get("/responses/<response_id>")
@keyed
def get(key: KeyRecord, response_id: str) -> Response:
    """Always raises NotFound: an answer is given once."""
    raise NotFound(
        f"Response with id '{response_id[:64]}' not found: this service is stateless and stores no"
        " responses.",
        param="response_id",
        code="response_not_found",
    )


class ResponseRenderer:
    """Renders one response; `asked` is the checked request as the caller wrote it."""

    def __init__(self, call_id: str, model: str, asked: dict[str, Any]) -> None:
        self._response = ResponseEvents(call_id, model, asked)
        self._begun = False

    def whole(self, answer: bytes) -> bytes:
        """An unstreamed response."""
        return orjson.dumps(self._response.whole(orjson.loads(answer)))

    def whole_error(self, error: GatewayError) -> bytes:
        """The error's envelope."""
        return errors.body(response_object.in_own_words(error))

    def events(self, payload: bytes) -> bytes:
        """The events of one payload: a line of JSON for each part."""
        parts = (orjson.loads(line) for line in payload.split(b"\n") if line)
        return self._begin() + b"".join(_framed(self._response.of(part)) for part in parts)

    def end(self) -> bytes:
        """The last events; OpenAI sends no end marker here."""
        return self._begin() + _framed(self._response.ended())

    def error(self, error: GatewayError) -> bytes:
        """The last events of a response that failed after it began."""
        return self._begin() + _framed(self._response.failed(error))

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return _framed(self._response.begun())


def _framed(events: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(
        b"event: " + event["type"].encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n"
        for event in events
    )
