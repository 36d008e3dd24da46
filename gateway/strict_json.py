"""Reads a request body as JSON: the only place where bytes from a caller are parsed."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.errors import InvalidRequest

MAX_DEPTH = 64  # containers within each other
MAX_ELEMENTS = 50_000  # keys of objects and elements of arrays, in the whole body: the usual limit
CONTAINERS = frozenset({dict, list})


def loads(body: bytes, max_elements: int = MAX_ELEMENTS) -> Any:
    """The value of a JSON document; of duplicate keys the last one wins.

    Integers outside -2^63 to 2^64-1 arrive as floats: whoever wants an integer must look.

    Raises InvalidRequest: `invalid_json` for anything but one strict UTF-8 JSON text (no byte order
    mark, lone surrogate, NaN, or number too large for a double), `json_too_deep`, `json_too_large`.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        refusal = _invalid(error.msg, error.lineno, error.colno)
    else:
        _check_limits(value, max_elements)
        return value
    # Not inside `except`: the decoder's error holds the whole body, which must not reach a log.
    raise refusal


def _invalid(reason: str, line: int, column: int) -> InvalidRequest:
    message = f"We could not parse the JSON body of your request: {reason}"
    return InvalidRequest(f"{message} (line {line}, column {column}).", code="invalid_json")


def _check_limits(value: Any, max_elements: int) -> None:
    """Walk the containers level by level, never by recursion: callers choose the depth.

    Cheaper than counting brackets first: that costs time by the byte, and images have many.
    """
    level = [value] if type(value) in CONTAINERS else []
    depth = elements = 0
    while level:
        depth += 1
        elements += sum(map(len, level))
        if depth > MAX_DEPTH:
            raise InvalidRequest(
                f"The JSON body is nested too deeply: at most {MAX_DEPTH} levels are allowed.",
                code="json_too_deep",
            )
        if elements > max_elements:
            raise InvalidRequest(
                f"The JSON body has too many keys and array elements: at most {max_elements:,}"
                " are allowed.",
                code="json_too_large",
            )
        level = [
            child
            for container in level
            for child in (container.values() if type(container) is dict else container)
            if type(child) in CONTAINERS
        ]
