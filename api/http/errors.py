"""The only place that renders errors as HTTP, in the words of the API that was called."""

from __future__ import annotations

import logging
import math
import re

import orjson
from flask import Flask, Response, g, request
from redis.exceptions import RedisError
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from api.messages import errors as messages_errors
from gateway import errors
from gateway.errors import GatewayError
from gateway.logs import where

log = logging.getLogger(__name__)

LONGEST_RETRY_AFTER = 120  # seconds; OpenAI's clients give up at once above it
# By address and not by view: a wrong method or an unknown address below it reaches no view.
ANTHROPIC = re.compile(r"/v1/messages(/|$)")


def register(app: Flask) -> None:
    """Render all errors of the app: ours, Flask's own, and faults nobody foresaw."""
    app.register_error_handler(GatewayError, render)
    app.register_error_handler(HTTPException, _render_http)
    app.register_error_handler(RedisError, _render_redis)
    app.register_error_handler(Exception, _render_fault)


def render(error: GatewayError) -> Response:
    """The error's HTTP response."""
    # It would hold the request's frames, which hold the call, which holds the error: a knot that
    # only a collection unties.
    error.__traceback__ = None
    response = _anthropic(error) if ANTHROPIC.search(request.path) else _openai(error)
    response.headers.update(headers(error))
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _openai(error: GatewayError) -> Response:
    return Response(body(error), error.status, content_type="application/json")


def _anthropic(error: GatewayError) -> Response:
    request_id = g.get("request_id", "")
    told = messages_errors.body(error, request_id)
    response = Response(told, messages_errors.status(error), content_type="application/json")
    response.headers["request-id"] = request_id
    return response


def body(error: GatewayError) -> bytes:
    """The error in OpenAI's envelope, as JSON."""
    return orjson.dumps(error.envelope())


def headers(error: GatewayError) -> dict[str, str]:
    """What tells a client whether and when to try again."""
    found = {}
    if error.retry_after is not None:
        # Never 0: some clients then fire their retries within milliseconds.
        seconds = min(max(math.ceil(error.retry_after), 1), LONGEST_RETRY_AFTER)
        found["Retry-After"] = str(seconds)
    if error.should_retry is not None:
        found["x-should-retry"] = "true" if error.should_retry else "false"
    return found


def _render_http(error: HTTPException) -> Response:
    status = error.code or 500
    if status < 400 and error.response is None:
        return Response(error.get_response().get_data(), status, error.get_headers())
    kinds: dict[int, type[GatewayError]] = {
        404: errors.NotFound,
        405: errors.MethodNotAllowed,
        408: errors.BodyTimeout,
        413: errors.PayloadTooLarge,
        415: errors.UnsupportedMedia,
    }
    kind = kinds.get(status, errors.InvalidRequest if status < 500 else GatewayError)
    message = None
    if status == 404:
        message = f"Unknown request URL: {request.method} {request.path[:256]}."
    response = render(kind(message, status=status))
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def _render_redis(error: RedisError) -> Response:
    log.warning("Redis is away (%s)", type(error).__name__)
    return render(errors.QueueUnavailable(retry_after=2))


def _render_fault(error: Exception) -> Response:
    # The text of an unforeseen exception may quote the request: the log gets its kind and place.
    log.error("%s %s: %s at %s", request.method, request.path, type(error).__name__, where(error))
    return render(GatewayError())
