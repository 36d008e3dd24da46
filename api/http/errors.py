"""The only place that renders errors as HTTP, in the format of the API that was called."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import orjson
from flask import Blueprint, Flask, Response, current_app, g, request
from redis.exceptions import RedisError
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from gateway import errors
from gateway.account.ledger import LedgerUnavailable
from gateway.errors import GatewayError
from gateway.files.storage import StorageUnavailable
from gateway.logs import log_fault

log = logging.getLogger(__name__)

RETRY_SECONDS = 5  # where the account or the storage of files does not answer
LONGEST_RETRY_AFTER = 120  # seconds; OpenAI's clients give up at once above it

KINDS: dict[int, type[GatewayError]] = {
    405: errors.MethodNotAllowed,
    408: errors.BodyTimeout,
    413: errors.PayloadTooLarge,
    415: errors.UnsupportedMedia,
}


def body(error: GatewayError) -> bytes:
    """The error in OpenAI's envelope, as JSON; with its `request_id` if it has one.

    OpenAI's SDKs keep unknown fields of an error, and show them in the text of the exception.
    """
    return orjson.dumps(error.envelope())


def openai(error: GatewayError) -> Response:
    """The error as OpenAI's APIs send it."""
    return Response(body(error), error.status, content_type="application/json")


Dialect: TypeAlias = Callable[[GatewayError], Response]


class ApiBlueprint(Blueprint):
    """A blueprint that renders its errors in a dialect of its own.

    The dialect also applies to requests that reach none of its views: a method that its addresses
    do not take, and an unknown address below them.
    """

    def __init__(self, name: str, import_name: str, dialect: Dialect, **options: Any) -> None:
        super().__init__(name, import_name, **options)
        self.dialect = dialect


def register(app: Flask) -> None:
    """Render all errors of the app: ours, Flask's own, and unforeseen exceptions."""
    app.register_error_handler(GatewayError, render)
    app.register_error_handler(HTTPException, render_http)
    app.register_error_handler(RedisError, _render_redis)
    app.register_error_handler(LedgerUnavailable, _render_ledger)
    app.register_error_handler(StorageUnavailable, _render_storage)
    app.register_error_handler(Exception, _render_fault)


def render(error: GatewayError) -> Response:
    """The error's HTTP response, in the dialect of the API that was called."""
    # The traceback holds the request's frames, which hold the call, which holds the error: a cycle
    # that only a garbage collection frees.
    error.__traceback__ = None
    error.request_id = g.get("request_id", "")
    g.error = error
    response = _dialect()(error)
    response.headers.update(headers(error))
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def headers(error: GatewayError) -> dict[str, str]:
    """The headers that say whether and when a client should retry.

    A client that should not retry is not told when it may.
    """
    values = dict(error.headers)
    if error.retry_after is not None and error.should_retry is not False:
        # Never 0: some clients then send their retries within milliseconds.
        seconds = min(max(math.ceil(error.retry_after), 1), LONGEST_RETRY_AFTER)
        values["Retry-After"] = str(seconds)
    if error.should_retry is not None:
        values["x-should-retry"] = "true" if error.should_retry else "false"
    return values


def _dialect() -> Dialect:
    name = request.blueprint or _blueprint_above(request.path)
    blueprint = current_app.blueprints.get(name or "")
    return blueprint.dialect if isinstance(blueprint, ApiBlueprint) else openai


def _blueprint_above(path: str) -> str | None:
    """The blueprint that serves this address or one above it, whatever the methods.

    The last two segments of its own address decide ("/v1/messages"), so a wrong base URL before
    them does not change the dialect.
    """
    for rule in current_app.url_map.iter_rules():
        tail = "/".join(rule.rule.rsplit("/", 2)[1:])
        if f"/{tail}/" in f"{path}/":
            return str(rule.endpoint).rpartition(".")[0]
    return None


def render_http(error: HTTPException) -> Response:
    """The HTTP response for an exception of Flask's, in the dialect of the API that was called."""
    status = error.code or 500
    if status < 400 and error.response is None:
        return Response(error.get_response().get_data(), status, error.get_headers())
    kind = KINDS.get(status, errors.InvalidRequest if status < 500 else GatewayError)
    response = render(kind(status=status))
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def _render_redis(error: RedisError) -> Response:
    log.warning("Redis is away (%s)", type(error).__name__)
    return render(errors.QueueUnavailable(retry_after=2))


def _render_ledger(_: LedgerUnavailable) -> Response:
    return render(account_unavailable("The database of the account does not answer."))


def account_unavailable(message: str) -> errors.Unavailable:
    """The error of a request that needs the account, which does not answer or is behind."""
    return errors.Unavailable(message, code="account_unavailable", retry_after=RETRY_SECONDS)


def _render_storage(error: StorageUnavailable) -> Response:
    log.warning("storage of files: %s", error)
    message = "The storage of files does not answer. Try again in a moment."
    return render(errors.Unavailable(message, code="files_unavailable", retry_after=RETRY_SECONDS))


def _render_fault(error: Exception) -> Response:
    log_fault(log, error, "%s %s", request.method, request.path)
    return render(GatewayError())
