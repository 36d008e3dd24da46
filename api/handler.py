"""From a checked request to its response: what all APIs of the service share."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Any

import orjson
from flask import Request, Response, after_this_request, g, request
from redis.exceptions import RedisError

from api import idempotency
from api import logged as logged_calls
from api.call_request import CallOptions, CheckedRequest, call_options
from api.http import tracing
from api.http.json import json_response
from api.http.line import Line, the_line
from api.http.links import link
from api.rendering import LoggedCall, Rendering, numbered
from api.reply import Renderer, Reply
from api.services import Services, services
from gateway import tokens
from gateway.account import cache
from gateway.account.api_keys import KeyRecord
from gateway.account.pricing import Estimate, estimate
from gateway.broker.pending_call import PendingCall
from gateway.catalogue import deprecation
from gateway.catalogue.file import MESSAGES_API
from gateway.catalogue.target import Target
from gateway.errors import GatewayError, KeyChanged, ModelNotAllowed
from gateway.queue import event_logs, keys
from gateway.queue.protocol import AdmissionRequest, CallSpec

IGNORED_NAMES = 20
USER_AGENT_LENGTH = 200  # characters of it that a record keeps
# gunicorn answers 500 to a header with bytes that it refuses: only names like this go into one.
IGNORED_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)


@dataclass(slots=True)
class Incoming:
    """A checked request, with what is read from Flask's context once: each look takes time.

    `target` is what the request names, and `make` the class of the call's renderer, with its
    options: see Rendering.
    """

    key: KeyRecord
    target: Target
    checked: CheckedRequest
    make: partial[Any]
    services: Services
    request: Request
    line: Line | None


@dataclass(slots=True)
class Submitted:
    """A call that was submitted, or the first one with its Idempotency-Key, which is `replayed`."""

    pending: PendingCall
    call: LoggedCall
    claim: idempotency.Claim | None = None
    replayed: bool = False


def resolve(model: str) -> Target:
    """The target that a request names; raises ModelNotFound.

    Its provider need not be configured: `respond` checks that, since a fallback may take the call.
    Whatever the response will be, it warns if the model's shutdown is near.
    """
    installed = services()
    target = installed.catalogue.resolve(model)
    row = target.row
    notice = row.shutdown_date and deprecation.notice(target.model, row, installed.today())
    if notice:
        after_this_request(partial(_warn, notice, shutdown=row.shutdown_date))
    return target


def respond(
    key: KeyRecord, target: Target, checked: CheckedRequest, make: partial[Any]
) -> Response:
    """Queue a call, wait for its result and return the HTTP response.

    `make` is the class of the call's renderer, with its options: see Rendering. Raises a
    GatewayError where the call fails before anything of the response was sent, where no target can
    take it, and where the key may not use the model. The parameters of an unstreamed call are
    dropped once it is queued: keep no other reference to them.
    """
    incoming = _incoming(key, target, checked, make)
    try:
        return _respond(incoming)
    except KeyChanged:  # this process has read the key's record before its last change
        current = _current_key(incoming)
    return _respond(replace(incoming, key=current))


def count_tokens(
    key: KeyRecord, target: Target, checked: CheckedRequest, make: partial[Any]
) -> Response:
    """Count the tokens of a prompt: Anthropic does for its models, others are estimated.

    `make` is the class of a renderer of counts, with its options. Raises what `respond` does.
    """
    checked = replace(checked, stream=False, background=False, stored=None, kind="count_tokens")
    if MESSAGES_API in target.row.accepts:
        return respond(key, target, checked, make)
    _require_allowed(_incoming(key, target, checked, make))
    target.require("chat")
    count = orjson.dumps({"input_tokens": tokens.prompt_tokens(checked.parameters)})
    response = Response(make("", "").whole(count), content_type="application/json")
    response.headers["X-Token-Count"] = "estimate"
    return response


def _incoming(
    key: KeyRecord, target: Target, checked: CheckedRequest, make: partial[Any]
) -> Incoming:
    current: Request = request._get_current_object()  # type: ignore[attr-defined]
    return Incoming(key, target, checked, make, services(), current, the_line())


def _current_key(incoming: Incoming) -> KeyRecord:
    """The record of the key as it is now."""
    store, key = incoming.services.keys, incoming.key
    return store.refresh(key) if incoming.line is None else store.valid(key.public_id)


def _respond(incoming: Incoming) -> Response:
    target, checked, broker = incoming.target, incoming.checked, incoming.services.broker
    settings = incoming.services.settings
    targets, dropped = _check(incoming)
    total = target.row.timeouts.total or settings.total_timeout
    is_line, headers = incoming.line is not None, incoming.request.headers
    options = call_options(headers, checked, incoming.key, settings, total, is_line)
    submitted = _submit(incoming, targets, options)
    pending, rendering = submitted.pending, submitted.call.rendering
    g.call = pending
    try:
        if not checked.stream:
            pending.when_accepted(checked.parameters.clear)
        if options.wait is not None and not _has_response(pending, options.wait, checked):
            broker.leave(pending)
            g.accepted = True
            return _accepted(rendering, checked)
        make_renderer: Callable[[str], Renderer] = rendering.renderer
        if options.resumable:
            make_renderer = numbered(make_renderer, rendering.call_id)
        reply = Reply(broker, pending, make_renderer, incoming.request.environ)
        if checked.stream:
            response = reply.streamed(options.at_once)
        else:
            response = reply.whole(options.heartbeat)
    except GatewayError as error:
        pending.until_admitted()
        if not pending.submitted:
            _forget(submitted.call, submitted.claim, error)
        if submitted.replayed and pending.outcome is not None:
            error.headers[idempotency.REPLAYED] = "true"
        raise
    if submitted.replayed:
        response.headers[idempotency.REPLAYED] = "true"
    pending.until_admitted()
    substitute = next((each for each in targets[1:] if each.route == reply.route), None)
    if substitute is not None:
        text = deprecation.substitution(target.model, substitute.model, substitute.only_if_gone)
        _warn(text, response)
        dropped = []
    _name_ignored(response, checked, [*dropped, *reply.dropped])
    return response


def _check(incoming: Incoming) -> tuple[tuple[Target, ...], list[str]]:
    """The targets that may answer, and the parameters that are not sent to the first one.

    Raises a GatewayError if the key may not use the model, or no target can take the call.
    """
    target, checked = incoming.target, incoming.checked
    counts = checked.kind == "count_tokens"
    target.require("chat" if counts else checked.kind)
    _require_allowed(incoming)
    # Refuses early. The worker fits the parameters to the target that it calls.
    dropped = target.fit(checked.parameters, target, checked.optional)[1]
    if not counts:
        return _targets(incoming), dropped
    incoming.services.catalogue.require_configured(target)  # another model counts otherwise
    return (target,), dropped


def _submit(incoming: Incoming, targets: tuple[Target, ...], options: CallOptions) -> Submitted:
    """Queue a call, unless the first one with its Idempotency-Key is followed instead.

    The body, which may have 20 MB, lives no longer than this function: the call may run for
    minutes.
    """
    checked, make, public_id = incoming.checked, incoming.make, incoming.key.public_id
    body = orjson.dumps(checked.parameters)
    admission = _admission(incoming, targets, options)
    spec = _spec(incoming, targets, options, admission, body)
    rendering, stored = _rendering(spec, checked, make), checked.stored or {}
    call = LoggedCall(rendering, spec.web, public_id, checked.stream, stored, g.request_id)
    claim = None
    if options.idempotency_key:
        request_values = _depends_on(checked, make)
        claim, first = idempotency.claim(
            options.idempotency_key, call, request_values, body, options.budget
        )
        if first is not None:
            _current_key(incoming)  # no submit refuses a key that was just revoked
            return Submitted(logged_calls.follow(first), first, replayed=True)
    logged = call.encode() if options.log_seconds and claim is None else b""
    broker = incoming.services.broker
    try:
        pending = broker.submit(spec, body, admission, options.budget, logged)
    except GatewayError as error:
        _forget(call, claim, error)
        raise
    return Submitted(pending, call, claim)


def _spec(
    incoming: Incoming,
    targets: tuple[Target, ...],
    options: CallOptions,
    admission: AdmissionRequest,
    body: bytes,
) -> CallSpec:
    checked, log_seconds = incoming.checked, options.log_seconds
    # Ordered by time as UUIDv7 is, so that a database appends to its index of ids.
    call_id = f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"
    account = _account(incoming, admission)
    if checked.background and checked.stored is not None:
        account["response_id"] = f"resp_{call_id}"  # its end is an event for webhooks
    cacheable = not (checked.kind == "count_tokens" or options.delay)
    return CallSpec(
        call_id,
        keys.log_address(call_id, log_seconds) if log_seconds else incoming.services.broker.web,
        checked.stream,
        targets,
        checked.kind,
        checked.optional,
        incoming.key.public_id,
        account,
        checked.include_cost,
        _cache(incoming, body) if cacheable else {},
        tracing.carried(),
    )


def _rendering(spec: CallSpec, checked: CheckedRequest, make: partial[Any]) -> Rendering:
    """How the call is rendered, by the name of the model that answers.

    That is the provider's name, or where the API shows `full_names` the name in the request, or the
    id of the substitute.
    """
    full_names = make.func.full_names  # type: ignore[attr-defined]
    first, *others = spec.targets
    names = {each.route: each.model if full_names else each.upstream_model for each in others}
    names[""] = checked.model if full_names else first.upstream_model
    created, prompt_tokens = spec.account["created_ms"] // 1000, spec.account["prompt_tokens"]
    return Rendering(spec.call_id, make, names, created, prompt_tokens)


def _forget(call: LoggedCall, claim: idempotency.Claim | None, error: GatewayError) -> None:
    """Keep nothing of a call that the queue has refused."""
    if claim is not None:
        claim.release(error)
    elif keys.is_log(call.address):
        with suppress(RedisError):
            event_logs.delete_log(services().broker.redis, call.key, call.rendering.call_id)


def _depends_on(checked: CheckedRequest, make: partial[Any]) -> list[Any]:
    """What the response depends on besides the parameters: requests that differ here differ."""
    options = {name: value for name, value in make.keywords.items() if name != "request_id"}
    return [
        *(make.func.__name__, options, checked.model, checked.models, checked.stream),
        *(checked.optional, checked.include_cost, checked.background, checked.stored),
    ]


def _has_response(pending: PendingCall, seconds: float, checked: CheckedRequest) -> bool:
    """Wait until a call is queued, and so long for its end; return whether to respond with that.

    A stream that is queued is not waited for. The error of a background call that was queued is
    where its client looks for the response.
    """
    pending.until_accepted()
    if not checked.stream and pending.outcome is None and seconds:
        pending.wait(seconds)
    if pending.outcome is not None and pending.outcome.error is not None:
        return not (checked.background and pending.submitted)
    return pending.outcome is not None


def _accepted(rendering: Rendering, checked: CheckedRequest) -> Response:
    """202: the call goes on, and this is where its response will be. An API may answer its own."""
    if checked.background and checked.stored is not None:
        return Response(rendering.renderer().queued(), content_type="application/json")
    call_id = rendering.call_id
    location = link("usage.get_generation", generation_id=call_id)
    body = {"data": {"id": call_id, "status": "queued", "location": location}}
    response = json_response(body, 202)
    response.headers["Location"] = location
    response.headers["Preference-Applied"] = "respond-async"
    return response


def _require_allowed(incoming: Incoming) -> None:
    """Raises ModelNotAllowed if the key may not use the model.

    This process may have an old record of the key, so a refusal reads the present one first. An old
    record that allows too much makes the submit raise KeyChanged.
    """
    model, name = incoming.target.model, incoming.checked.model
    if not incoming.key.allows(model, name) and not _current_key(incoming).allows(model, name):
        raise ModelNotAllowed(
            f"This API key does not have access to the model `{name}`.", param="model"
        )


def _admission(
    incoming: Incoming, targets: tuple[Target, ...], options: CallOptions
) -> AdmissionRequest:
    """What the call asks of the limits of its key: the most that any of its targets may need."""
    key, checked = incoming.key, incoming.checked
    need = _most([estimate(target, checked.parameters, checked.kind) for target in targets])
    return AdmissionRequest(
        key.public_id,
        key.hmac,
        key.version,
        key.owner,
        need.prompt_tokens,
        need.prompt_nano,
        need.output_tokens,
        need.output_nano_per_token,
        need.max_output_tokens,
        options.parks,
        options.delay,
        options.retry,
    )


def _most(estimates: list[Estimate]) -> Estimate:
    """The most of each; no maximum of output where that of any is unknown."""
    if len(estimates) == 1:
        return estimates[0]
    bounded = all(each.max_output_tokens for each in estimates)
    return Estimate(
        prompt_tokens=max(each.prompt_tokens for each in estimates),
        prompt_nano=max(each.prompt_nano for each in estimates),
        output_tokens=max(each.output_tokens for each in estimates),
        output_nano_per_token=max(each.output_nano_per_token for each in estimates),
        max_output_tokens=max(each.max_output_tokens for each in estimates) if bounded else 0,
    )


def _account(incoming: Incoming, admission: AdmissionRequest) -> dict[str, Any]:
    """What the record of the call needs of the request: see CallSpec."""
    key, line = incoming.key, incoming.line
    account = {
        "owner": key.owner,
        "request_id": g.request_id,
        "user_agent": incoming.request.headers.get("User-Agent", "")[:USER_AGENT_LENGTH],
        "priority": key.priority if line is None else "batch",
        "model": incoming.checked.model,
        "created_ms": int(time.time() * 1000),
        "prompt_tokens": admission.prompt_tokens,
        "output_tokens": admission.output_tokens,
    }
    if line is not None:
        account["batch_id"] = line.batch_id
    return account


def _cache(incoming: Incoming, body: bytes) -> dict[str, Any]:
    """The `cache` of a CallSpec with this body; empty if the response may not be kept."""
    key, checked, settings = incoming.key, incoming.checked, incoming.services.settings
    seconds = cache.seconds(incoming.request.headers.get(cache.HEADER), key.cache_seconds)
    if not (seconds and settings.cache_bytes):
        return {}
    scope = key.public_id
    if key.owner and incoming.services.shared_caches.shares(key.owner):
        scope = keys.owner_scope(key.owner)
    route = incoming.target.route
    rest = (checked.kind, checked.stream, route, checked.optional, checked.include_cost)
    return {"name": cache.name(settings.key_pepper, scope, rest, body), "seconds": seconds}


def _name_ignored(response: Response, checked: CheckedRequest, dropped: list[str]) -> None:
    own_names = (checked.own_names.get(name, name) for name in dropped)
    names = dict.fromkeys((*checked.ignored, *own_names))
    printable = [name for name in names if IGNORED_NAME.fullmatch(name)]
    if printable:
        response.headers["X-Ignored-Parameters"] = ", ".join(printable[:IGNORED_NAMES])


def _targets(incoming: Incoming) -> tuple[Target, ...]:
    """The targets that may answer, in order: the model, its successors, its fallbacks.

    Those that the key may not use are left out. Raises ProviderNotConfigured where none of the rest
    can, and ModelNotFound for a fallback of the caller's that does not exist.
    """
    key, target, checked = incoming.key, incoming.target, incoming.checked
    catalogue = incoming.services.catalogue
    named = catalogue.fallbacks(target, checked.models)
    fallbacks = [each for each in named if key.allows(each.model)]
    if not fallbacks:
        catalogue.require_configured(target)
    # Vectors of two models are not in one space: only a chat goes on to a successor.
    is_chat = checked.kind == "chat"
    successors = (
        catalogue.successors(target, checked.parameters, checked.optional) if is_chat else ()
    )
    allowed = [each for each in successors if key.allows(each.model)]
    routes = {fallback.route for fallback in fallbacks}
    targets: dict[str, Target] = {}
    for each in (target, *(each for each in allowed if each.route not in routes), *fallbacks):
        # A route under two names would be called twice, and who answered would be ambiguous.
        targets.setdefault(each.route, each)
    return tuple(targets.values())


def _warn(text: str, response: Response, shutdown: date | None = None) -> Response:
    response.headers.add("Warning", deprecation.warning(text))
    if shutdown is not None:
        for name, value in deprecation.headers(shutdown).items():
            response.headers.add(name, value)
    return response
