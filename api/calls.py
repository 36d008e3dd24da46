"""From a checked request to its answer: what every door of the service does the same way."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable
from typing import Any

import orjson
from flask import Response, current_app, request
from werkzeug.datastructures import Headers

from api.body import read_json
from api.exchange import Exchange
from api.reply import Renderer, Reply
from gateway import policy
from gateway.catalogue import Catalogue, Route
from gateway.channel import Plan
from gateway.keys import KeyRecord
from gateway.settings import Settings
from gateway.validation import ChatRequest

IGNORED_NAMES = 20
# gunicorn answers 500 to a header with bytes that it refuses: only names like this go into one.
IGNORED_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)


def read() -> Any:
    """The JSON of the request's body; raises what `read_json` does."""
    settings: Settings = current_app.extensions["settings"]
    return read_json(request.environ, settings.max_body_bytes, settings.body_timeout)


def route_to(model: str) -> Route:
    """Where calls for this model go; raises ModelNotFound and ProviderNotConfigured."""
    catalogue: Catalogue = current_app.extensions["catalogue"]
    return catalogue.route(model)


def answer(
    key: KeyRecord, route: Route, asked: ChatRequest, make: Callable[[str, str], Renderer]
) -> Response:
    """Queue a chat call, wait for it and answer as the renderer says.

    `make(call_id, model)` makes the renderer. Raises a GatewayError where the call fails before
    anything of its answer was sent.
    """
    settings: Settings = current_app.extensions["settings"]
    exchange: Exchange = current_app.extensions["exchange"]
    parameters, dropped = policy.apply(route.model.parameters, asked.parameters)
    plan = Plan(
        call_id=uuid.uuid4().hex,
        web=exchange.web,
        stream=asked.stream,
        model=asked.model,
        provider=route.provider.name,
        upstream_model=route.upstream_model,
        max_output_tokens=route.model.output,
    )
    budget = _budget(request.headers, settings.total_deadline, asked.stream)
    waiter = exchange.submit(plan, orjson.dumps(parameters), key, budget)
    reply = Reply(exchange, waiter, make(plan.call_id, plan.upstream_model), request.environ)
    response = reply.streamed() if asked.stream else reply.whole(settings.sync_heartbeat)
    ignored = [name for name in (*asked.ignored, *dropped) if IGNORED_NAME.fullmatch(name)]
    if ignored:
        response.headers["X-Ignored-Parameters"] = ", ".join(ignored[:IGNORED_NAMES])
    return response


def _budget(headers: Headers, longest: float, stream: bool) -> float:
    """Seconds the call may live: the service's deadline, or less where the client waits less.

    `x-stainless-read-timeout` is what OpenAI's clients send. It is the longest silence they bear:
    for an unstreamed answer that is the whole wait, for a stream it is not.
    """
    names = ("X-Request-Timeout",) if stream else ("X-Request-Timeout", "x-stainless-read-timeout")
    for name in names:
        try:
            seconds = float(headers.get(name, ""))
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds > 0:
            return min(seconds, longest)
    return longest
