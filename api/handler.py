"""From a checked request to its response: what all APIs of the service share."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from typing import Any

import orjson
from flask import Request, Response, after_this_request, g, request
from redis.exceptions import RedisError
from werkzeug.datastructures import Headers

from api import idempotency
from api import logged as logged_calls
from api.http import tracing
from api.http.body import read_json
from api.http.line import Line, the_line
from api.http.links import link
from api.http.schedule import schedule
from api.rendering import LoggedCall, Rendering, numbered
from api.reply import Renderer, Reply
from api.services import services
from gateway import strict_json
from gateway.account import cache
from gateway.account.api_keys import KeyRecord
from gateway.account.pricing import Estimate, estimate
from gateway.broker.pending_call import PendingCall
from gateway.catalogue import deprecation
from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.target import Target
from gateway.errors import GatewayError, InvalidRequest, KeyChanged, ModelNotAllowed, Overloaded
from gateway.queue import commands, keys
from gateway.queue.protocol import AdmissionRequest, CallSpec
from gateway.settings import Settings

LINE_SECONDS = 3_600.0  # that a line of a batch may wait and run, if a call may not do so longer
RETRY_SECONDS = 5  # where too many bodies of a key are on their way
IGNORED_NAMES = 20
MAX_WAIT_SECONDS = 60.0  # for an asynchronous call; longer, and a proxy might give up
RETRY = "X-Retry-On-Worker-Loss"
WAIT = re.compile(r"wait\s*=\s*(\d{1,4})", re.ASCII)
USER_AGENT_LENGTH = 200  # characters of it that a record keeps
# gunicorn answers 500 to a header with bytes that it refuses: only names like this go into one.
IGNORED_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A chat request that keeps OpenAI's rules.

    `parameters` holds what the caller sent, `messages` included, in the caller's order and without
    nulls; not `model`, `models`, `stream` and `stream_options`, which have attributes of their own.
    `models` are the caller's fallbacks; None: it names none. `ignored` names the fields that are
    unknown, as the caller wrote them: clean them before they go into a header or a log. `optional`
    names parameters that are left out where a model refuses them. `own_names` maps a parameter to
    the name that the caller's API has for it. With `background` the caller does not wait: the
    response is 202, and the call goes on. `stored` is what the API needs, besides the result, to
    show the response later; it is kept for RESULT_HOURS.
    """

    model: str
    stream: bool
    include_usage: bool
    parameters: dict[str, Any]
    ignored: list[str]
    models: tuple[str, ...] | None = None
    optional: tuple[str, ...] = ()
    own_names: Mapping[str, str] = field(default_factory=dict)
    include_cost: bool = False
    background: bool = False
    stored: dict[str, Any] | None = None


def read(max_elements: int = strict_json.MAX_ELEMENTS) -> Any:
    """The JSON of the request's body.

    Raises what `read_json` does, and Overloaded if the key is sending too many bodies at once.
    """
    installed, key, environ = services(), g.public_id, request.environ
    settings, readers = installed.settings, installed.readers

    def hold(size: int) -> None:
        installed.bodies.hold(id(environ), key, size)

    if not readers.take(key):
        raise Overloaded(retry_after=RETRY_SECONDS)
    try:
        limit, timeout = settings.max_body_bytes, settings.body_timeout
        return read_json(environ, limit, timeout, hold, max_elements)
    finally:
        readers.give_back(key)


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
    key: KeyRecord,
    target: Target,
    checked: CheckedRequest,
    make: partial[Any],
    kind: str = "chat",
    full_names: bool = False,
) -> Response:
    """Queue a call of this kind (see CallSpec), wait for its result and return the HTTP response.

    `make` is the class of the call's renderer, with its options: see Rendering. The model in the
    response is the provider's name for the model that answers; with `full_names`, it is the name in
    the request, or the id of the substitute that answers. Raises a GatewayError where the call
    fails before anything of the response was sent, where no target can take it, and where the key
    may not use the model. The parameters of an unstreamed call are dropped once it is queued: keep
    no other reference to them.
    """
    try:
        return _respond(key, target, checked, make, kind, full_names)
    except (KeyChanged, ModelNotAllowed) as error:
        # This process may have read the key's record before its last change.
        current = _current(key)
        if isinstance(error, ModelNotAllowed) and current.version == key.version:
            raise
    return _respond(current, target, checked, make, kind, full_names)


def _current(key: KeyRecord) -> KeyRecord:
    """The record of the key as it is now."""
    store = services().keys
    return store.refresh(key) if the_line() is None else store.valid(key.public_id)


def _respond(
    key: KeyRecord,
    target: Target,
    checked: CheckedRequest,
    make: partial[Any],
    kind: str,
    full_names: bool,
) -> Response:
    installed, line = services(), the_line()
    current: Request = request._get_current_object()  # type: ignore[attr-defined]
    settings, broker, catalogue = installed.settings, installed.broker, installed.catalogue
    headers = current.headers
    counts = kind == "count_tokens"
    target.require("chat" if counts else kind)
    require_allowed(key, target, checked.model)
    # Refuses early, and names what the first target is not sent. The worker fits the parameters to
    # the target that it calls.
    dropped = target.fit(checked.parameters, target, checked.optional)[1]
    if counts:  # another model counts otherwise
        catalogue.require_configured(target)
    targets = (target,) if counts else _targets(catalogue, key, target, checked, kind)
    total = target.row.timeouts.total or settings.total_timeout
    heartbeat = settings.sync_heartbeat
    if line is not None:
        # It may wait behind all other calls, and needs the status of its response.
        total, heartbeat = max(total, LINE_SECONDS), 0
    # A stream that is kept goes out as soon as the call is queued, and can be left.
    at_once = checked.background and checked.stream and checked.stored is not None
    wait = None if counts or at_once else _async_wait(headers, checked)
    kept = wait is not None or checked.stored is not None
    delay, budget = schedule(
        headers, total, checked.stream or kept, time.time(), wait is None and not at_once
    )
    admission = _admission(key, targets, checked.parameters, kind, delay, headers, line)
    call_id = os.urandom(16).hex()
    resumable = (_flag(headers, "X-Resumable") or at_once) and checked.stream
    idempotency_key = "" if counts else idempotency.name_of(headers)
    log_seconds = _log_seconds(settings, resumable, kept, bool(idempotency_key))
    spec = CallSpec(
        call_id,
        keys.log_address(call_id, log_seconds) if log_seconds else broker.web,
        checked.stream,
        targets,
        kind,
        checked.optional,
        key.public_id,
        _account(key, checked.model, admission, headers, line),
        checked.include_cost,
        trace=tracing.carried(),
    )
    if checked.background and checked.stored is not None:
        spec.account["response_id"] = f"resp_{call_id}"  # its end is an event for webhooks
    body = orjson.dumps(checked.parameters)
    if not (counts or delay) and (seconds := _cache_seconds(key, headers)):
        spec = replace(spec, cache=_cache(key, spec, body, seconds))
    names = {each.route: each.model if full_names else each.upstream_model for each in targets[1:]}
    names[""] = checked.model if full_names else target.upstream_model
    created, tokens = spec.account["created_ms"] // 1000, admission.prompt_tokens
    rendering = Rendering(call_id, make, names, created, tokens)
    call = LoggedCall(
        rendering, spec.web, key.public_id, checked.stream, checked.stored or {}, g.request_id
    )
    claim, twin = None, None
    if idempotency_key:
        claim, twin = idempotency.claim(
            idempotency_key, call, _depends_on(checked, make), body, budget
        )
        if twin is not None:
            _current(key)  # no submit refuses a key that was just revoked
    pending: PendingCall | None = None
    try:
        if twin is None:
            stored = call.encode() if log_seconds and claim is None else b""
            pending = broker.submit(spec, body, admission, budget, stored)
        else:
            pending, rendering = logged_calls.follow(twin), twin.rendering
        g.call = pending
        del body  # it may have 20 MB, and the call may run for minutes
        if not checked.stream:
            pending.when_accepted(checked.parameters.clear)
        if wait is not None and not _ended_within(pending, wait, checked.stream):
            broker.leave(pending)
            return _accepted(rendering, checked)
        make_renderer: Callable[[str], Renderer] = rendering.renderer
        if resumable:
            make_renderer = numbered(make_renderer, rendering.call_id)
        reply = Reply(broker, pending, make_renderer, current.environ)
        if checked.stream:
            response = reply.streamed(at_once)
        else:
            response = reply.whole(heartbeat)
    except GatewayError as error:
        if pending is None or not pending.submitted:
            _forget(call, claim, error)
        if twin is not None and pending is not None and pending.outcome is not None:
            error.headers[idempotency.REPLAYED] = "true"
        raise
    if twin is not None:
        response.headers[idempotency.REPLAYED] = "true"
    pending.until_admitted()
    substitute = _substitute(targets, reply.route)
    dropped = reply.dropped if substitute else [*dropped, *reply.dropped]
    if substitute is not None:
        text = deprecation.substitution(target.model, substitute.model, substitute.only_if_gone)
        _warn(text, response)
    _name_ignored(response, checked, dropped)
    return response


def _forget(call: LoggedCall, claim: idempotency.Claim | None, error: GatewayError) -> None:
    """Keep nothing of a call that the queue has refused."""
    if claim is not None:
        claim.release(error)
    elif keys.is_log(call.address):
        with suppress(RedisError):
            commands.delete_log(services().broker.redis, call.key, call.rendering.call_id)


def _flag(headers: Headers, name: str, default: bool = False) -> bool:
    """Whether a header is "true"; raises InvalidRequest for what is neither that nor "false"."""
    value = headers.get(name, "true" if default else "false").strip().lower()
    if value not in ("true", "false"):
        raise InvalidRequest(
            f"Invalid {name} header: expected 'true' or 'false'.", param=name, code="invalid_value"
        )
    return value == "true"


def _async_wait(headers: Headers, checked: CheckedRequest) -> float | None:
    """Seconds after which the response is 202, if the caller comes back for it; None: it waits.

    RFC 7240: a preference that cannot be read is ignored.
    """
    preferences = [each.strip().lower() for each in headers.get("Prefer", "").split(",")]
    if not checked.background and "respond-async" not in preferences:
        return None
    match = next(filter(None, map(WAIT.fullmatch, preferences)), None)
    return min(float(match[1]), MAX_WAIT_SECONDS) if match else 0.0


def _log_seconds(settings: Settings, resumable: bool, kept: bool, idempotent: bool) -> int:
    """How long the log of a call is kept after its end; 0: it has none."""
    return max(
        settings.stream_replay_seconds if resumable else 0,
        settings.result_hours * 3600 if kept else 0,
        keys.IDEMPOTENT_SECONDS if idempotent else 0,
    )


def _depends_on(checked: CheckedRequest, make: partial[Any]) -> list[Any]:
    """What the response depends on besides the parameters: requests that differ here differ."""
    options = {name: value for name, value in make.keywords.items() if name != "request_id"}
    return [
        *(make.func.__name__, options, checked.model, checked.models, checked.stream),
        *(checked.optional, checked.include_cost, checked.background, checked.stored),
    ]


def _ended_within(pending: PendingCall, seconds: float, stream: bool) -> bool:
    """Wait until a call is queued, and so long for its end; return whether it has ended.

    A stream that is queued is not waited for.
    """
    pending.until_accepted()
    if not stream and pending.outcome is None and seconds:
        pending.wait(seconds)
    return pending.outcome is not None


def _accepted(rendering: Rendering, checked: CheckedRequest) -> Response:
    """202: the call goes on, and this is where its response will be. An API may answer its own."""
    if checked.background and checked.stored is not None:
        return Response(rendering.renderer().queued(), content_type="application/json")
    call_id = rendering.call_id
    location = link("usage.get_generation", generation_id=call_id)
    body = {"data": {"id": call_id, "status": "queued", "location": location}}
    response = Response(orjson.dumps(body), 202, content_type="application/json")
    response.headers["Location"] = location
    response.headers["Preference-Applied"] = "respond-async"
    return response


def require_allowed(key: KeyRecord, target: Target, name: str) -> None:
    """Raises ModelNotAllowed if the key may not use the model that a request calls `name`."""
    if not key.allows(target.model, name):
        raise ModelNotAllowed(
            f"This API key does not have access to the model `{name}`.", param="model"
        )


def _admission(
    key: KeyRecord,
    targets: tuple[Target, ...],
    params: Mapping[str, Any],
    kind: str,
    delay: float,
    headers: Headers,
    line: Line | None,
) -> AdmissionRequest:
    """What the call asks of the limits of its key: the most that any of its targets may need."""
    need = _most([estimate(target, params, kind) for target in targets])
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
        _waits(headers),
        delay,
        _flag(headers, RETRY, key.retry_on_worker_loss or line is not None),
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


def _account(
    key: KeyRecord, model: str, admission: AdmissionRequest, headers: Headers, line: Line | None
) -> dict[str, Any]:
    """What the record of the call needs of the request: see CallSpec."""
    account = {
        "owner": key.owner,
        "request_id": g.request_id,
        "user_agent": headers.get("User-Agent", "")[:USER_AGENT_LENGTH],
        "priority": key.priority if line is None else "batch",
        "model": model,
        "created_ms": int(time.time() * 1000),
        "prompt_tokens": admission.prompt_tokens,
        "output_tokens": admission.output_tokens,
    }
    if line is not None:
        account["batch_id"] = line.batch_id
    return account


def _cache_seconds(key: KeyRecord, headers: Headers) -> int:
    """How long the response may be kept for identical calls; 0: not at all."""
    seconds = cache.seconds(headers.get(cache.HEADER), key.cache_seconds)
    return seconds if seconds and services().settings.cache_bytes else 0


def _cache(key: KeyRecord, spec: CallSpec, body: bytes, seconds: int) -> dict[str, Any]:
    """The `cache` of a CallSpec with this body."""
    pepper = services().settings.key_pepper
    scope = key.public_id
    if key.owner and services().shared_caches.shares(key.owner):
        scope = keys.owner_scope(key.owner)
    rest = (spec.kind, spec.stream, spec.targets[0].route, spec.optional, spec.cost)
    return {"name": cache.name(pepper, scope, rest, body), "seconds": seconds}


def _waits(headers: Headers) -> bool:
    """Whether the call waits while its key has too many in flight; raises InvalidRequest."""
    value = headers.get("X-Queue", "wait").strip().lower()
    if value not in ("wait", "refuse"):
        raise InvalidRequest(
            "Invalid X-Queue header: expected 'wait' or 'refuse'.",
            param="X-Queue",
            code="invalid_value",
        )
    return value == "wait"


def _name_ignored(response: Response, checked: CheckedRequest, dropped: list[str]) -> None:
    own_names = (checked.own_names.get(name, name) for name in dropped)
    names = dict.fromkeys((*checked.ignored, *own_names))
    printable = [name for name in names if IGNORED_NAME.fullmatch(name)]
    if printable:
        response.headers["X-Ignored-Parameters"] = ", ".join(printable[:IGNORED_NAMES])


def _targets(
    catalogue: Catalogue, key: KeyRecord, target: Target, checked: CheckedRequest, kind: str
) -> tuple[Target, ...]:
    """The targets that may answer, in order: the model, its successors, its fallbacks.

    Those that the key may not use are left out. Raises ProviderNotConfigured where none of the rest
    can, and ModelNotFound for a fallback of the caller's that does not exist.
    """
    named = catalogue.fallbacks(target, checked.models)
    fallbacks = [each for each in named if key.allows(each.model)]
    if not fallbacks:
        catalogue.require_configured(target)
    # Vectors of two models are not in one space: only a chat goes on to a successor.
    successors = (
        catalogue.successors(target, checked.parameters, checked.optional) if kind == "chat" else ()
    )
    allowed = [each for each in successors if key.allows(each.model)]
    routes = {fallback.route for fallback in fallbacks}
    targets: dict[str, Target] = {}
    for each in (target, *(each for each in allowed if each.route not in routes), *fallbacks):
        # A route under two names would be called twice, and who answered would be ambiguous.
        targets.setdefault(each.route, each)
    return tuple(targets.values())


def _substitute(targets: tuple[Target, ...], route: str) -> Target | None:
    """The target that answered, where it is not the first one."""
    return next((target for target in targets[1:] if target.route == route), None)


def _warn(text: str, response: Response, shutdown: date | None = None) -> Response:
    response.headers.add("Warning", deprecation.warning(text))
    if shutdown is not None:
        for name, value in deprecation.headers(shutdown).items():
            response.headers.add(name, value)
    return response
