"""Errors for calls that Anthropic cannot answer: in OpenAI's words, naming the path."""

from __future__ import annotations

from gateway.errors import InvalidRequest


def unsupported(path: str, what: str) -> InvalidRequest:
    """Return the error for a value that this provider does not take."""
    return InvalidRequest(
        f"Unsupported value: '{path}' {what} with this model.", param=path, code="unsupported_value"
    )


def unsupported_parameter(name: str) -> InvalidRequest:
    """Return the error for a parameter that this provider does not have."""
    return InvalidRequest(
        f"Unsupported parameter: '{name}' is not supported with this model.",
        param=name,
        code="unsupported_parameter",
    )


def invalid(path: str, reason: str) -> InvalidRequest:
    """Return the error for a value that is wrong for every provider."""
    return InvalidRequest(f"Invalid '{path}': {reason}.", param=path, code="invalid_value")
