"""Checks a request against its schema: the only place that handles pydantic's errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gateway.errors import GatewayError


def check(
    adapter: TypeAdapter[Any], data: Any, to_error: Callable[[ValidationError], GatewayError]
) -> None:
    """Raise `to_error(problem)` unless the data has the adapter's shape. Values are not coerced."""
    try:
        adapter.validate_python(data, strict=True)
    except ValidationError as problem:
        error = to_error(problem)
    else:
        return
    # Not inside `except`: pydantic's error, which holds the caller's values, would become the
    # context of this one and reach the log with it.
    raise error
