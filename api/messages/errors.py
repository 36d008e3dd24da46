"""Errors in the format of Anthropic's API.

Source: platform.claude.com/docs/en/api/errors, read in November 2026.
"""

from __future__ import annotations

import orjson
from flask import Response, g

from gateway.errors import GatewayError

OVERLOADED = 529
TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    OVERLOADED: "overloaded_error",
}
NO_KEY = "x-api-key header is required"
# Claude Code compacts the conversation when an error has these words.
TOO_LONG = "prompt is too long"
# Codes that Anthropic's SDKs look for in `error.details`.
DETAILED = frozenset({"thread_unsupported_request"})


def status(error: GatewayError) -> int:
    """The HTTP status: an overloaded service has a status of its own at Anthropic."""
    return OVERLOADED if error.code == "server_is_overloaded" else error.status


def body(error: GatewayError, request_id: str) -> bytes:
    """Anthropic's error object as JSON."""
    number = status(error)
    kind = TYPES.get(number, "api_error" if number >= 500 else "invalid_request_error")
    # An authentication error without a code means that the request has no key at all.
    message = NO_KEY if number == 401 and error.code is None else error.message
    if error.code == "context_length_exceeded" and TOO_LONG not in message.lower():
        message = f"{TOO_LONG}: {message}"
    fields: dict[str, object] = {"type": kind, "message": message}
    if error.code in DETAILED:
        fields["details"] = {"error_code": error.code}
    return orjson.dumps({"type": "error", "error": fields, "request_id": request_id})


def render(error: GatewayError) -> Response:
    """The error as Anthropic's API sends it. Needs the context of a request."""
    request_id = g.get("request_id", "")
    response = Response(body(error, request_id), status(error), content_type="application/json")
    response.headers["request-id"] = request_id
    return response
