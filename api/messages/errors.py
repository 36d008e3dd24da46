"""Errors as Anthropic's API tells them.

Source: platform.claude.com/docs/en/api/errors, read in November 2026.
"""

from __future__ import annotations

import orjson

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


def status(error: GatewayError) -> int:
    """The HTTP status: Anthropic has one of its own for what is overloaded."""
    return OVERLOADED if error.code == "server_is_overloaded" else error.status


def body(error: GatewayError, request_id: str) -> bytes:
    """Anthropic's error object as JSON."""
    number = status(error)
    kind = TYPES.get(number, "api_error" if number >= 500 else "invalid_request_error")
    # Only where there is no key at all does this error lack a code.
    message = NO_KEY if number == 401 and error.code is None else error.message
    return orjson.dumps(
        {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
    )
