"""From a checked request to its answer: what every door of the service does the same way."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

import orjson
from flask import Response, after_this_request, request
from werkzeug.datastructures import Headers

from api.http.body import read_json
from api.reply import Renderer, Reply
from api.services import services
from gateway import strict_json
from gateway.account.api_keys import KeyRecord
from gateway.catalogue import deprecation
from gateway.catalogue.catalogue import Catalogue, Route
from gateway.queue.protocol import CallSpec, Target

IGNORED_NAMES = 20
# gunicorn answers 500 to a header with bytes that it refuses: only names like this go into one.
IGNORED_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A chat request that keeps OpenAI's rules.

    `parameters` holds what the caller sent, `messages` among it, in the caller's order and without
    nulls; not `model`, `models`, `stream` and `stream_options`, which are said by the other
    attributes. `models` are to be asked should `model` fail; None: the caller says nothing of it.
    `ignored` names the fields nobody knows, as the caller wrote them: clean them before they go
    into a header or a log.
    """

    model: str
    stream: bool
    include_usage: bool
    parameters: dict[str, Any]
    ignored: list[str]
    models: tuple[str, ...] | None = None


def read(max_elements: int = strict_json.MAX_ELEMENTS) -> Any:
    """The JSON of the request's body; raises what `read_json` does."""
    settings = services().settings
    return read_json(request.environ, settings.max_body_bytes, settings.body_timeout, max_elements)


def route_to(model: str) -> Route:
    """Where calls for this model go; raises ModelNotFound.

    Whether its provider is configured is for `answer` to ask, which knows who else may be asked.
    Whatever the answer to this request will be, it warns of the model's end where that is near.
    """
    route = services().catalogue.place(model)
    notice = route.model.shutdown and deprecation.notice(
        route.name, route.model, services().today()
    )
    if notice:
        after_this_request(partial(_warn, notice, shutdown=route.model.shutdown))
    return route


def respond(
    key: KeyRecord,
    route: Route,
    asked: CheckedRequest,
    make: Callable[[str, str], Renderer],
    kind: str = "chat",
) -> Response:
    """Queue a call of this kind (see CallSpec), wait for its result and return the HTTP response.

    `make(call_id, model)` returns the call's renderer. Raises a GatewayError where the call fails
    before anything of the response was sent, and where no target can be asked.
    """
    settings, broker, catalogue = services().settings, services().broker, services().catalogue
    route.require(kind)
    # For its refusals and the names; the worker does it again, for the target that it asks.
    _, dropped = catalogue.fit(route.name, asked.parameters, route.name)
    targets = _targets(catalogue, route, asked, kind)
    spec = CallSpec(uuid.uuid4().hex, broker.web, asked.stream, targets, kind)
    longest = route.model.timeouts.get("total", settings.total_timeout)
    budget = _budget(request.headers, longest, asked.stream)
    pending = broker.submit(spec, orjson.dumps(asked.parameters), key, budget)
    reply = Reply(broker, pending, partial(make, spec.call_id), spec.targets[0], request.environ)
    response = reply.streamed() if asked.stream else reply.whole(settings.sync_heartbeat)
    answered = _substitute(spec, reply.route)
    if answered is not None:
        text = deprecation.substitution(route.name, answered.model, answered.only_if_gone)
        _warn(text, response)
        _, dropped = catalogue.fit(answered.model, asked.parameters, route.name)
    ignored = [name for name in (*asked.ignored, *dropped) if IGNORED_NAME.fullmatch(name)]
    if ignored:
        response.headers["X-Ignored-Parameters"] = ", ".join(ignored[:IGNORED_NAMES])
    return response


def _targets(
    catalogue: Catalogue, route: Route, asked: CheckedRequest, kind: str
) -> tuple[Target, ...]:
    """Who may answer, in order: the model, its successors, its fallbacks.

    Raises ProviderNotConfigured where nobody can, and ModelNotFound for what the caller has named.
    """
    fallbacks = catalogue.fallbacks(route, asked.models)
    if not fallbacks:
        catalogue.require_configured(route)
    # Vectors of two models are not in one space: only a chat goes on to a successor.
    heirs = catalogue.successors(route, asked.parameters) if kind == "chat" else ()
    others = [*map(_target, fallbacks)]
    named = {other.route for other in others}
    successors = (_target(heir, only_if_gone=True) for heir in heirs)
    kept: dict[str, Target] = {}
    for target in (_target(route), *(s for s in successors if s.route not in named), *others):
        # A route under two names would be asked twice, and who answered would be ambiguous.
        kept.setdefault(target.route, target)
    return tuple(kept.values())


def _target(route: Route, only_if_gone: bool = False) -> Target:
    return Target(
        route.name, route.provider.name, route.upstream_model, route.model.output, only_if_gone
    )


def _substitute(spec: CallSpec, route: str) -> Target | None:
    """The target that has answered, where it is not the first one."""
    return next((target for target in spec.targets[1:] if target.route == route), None)


def _warn(text: str, response: Response, shutdown: date | None = None) -> Response:
    response.headers.add("Warning", deprecation.warning(text))
    if shutdown is not None:
        response.headers.update(deprecation.headers(shutdown))
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
