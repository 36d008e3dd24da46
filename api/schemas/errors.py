"""OpenAI's messages for invalid requests: the only table of their codes and texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from gateway.errors import InvalidRequest

# First character of the tags of union members, which pydantic puts among the keys of a path.
TAG = "="

MAX_ECHO = 64  # characters of a caller's value that a message may repeat

# Type of error -> code and message. Types with a dot are this service's, the others pydantic's.
ERRORS: dict[str, tuple[str, str]] = {
    "missing": ("missing_required_parameter", "Missing required parameter: '{path}'."),
    "extra_forbidden": ("unknown_parameter", "Unknown parameter: '{path}'."),
    "wrong.type": (
        "invalid_type",
        "Invalid type for '{path}': expected {expected}, but got {got} instead.",
    ),
    "wrong.choice": ("invalid_value", "Invalid value: '{value}'. Supported values are: {choices}."),
    "wrong.value": ("invalid_value", "Invalid '{path}': {reason}."),
    "wrong.image_url": ("invalid_image_url", "Invalid '{path}': {reason}."),
    "less_than_equal": (
        "{sort}_above_max_value",
        "Invalid '{path}': {sort} above maximum value."
        " Expected a value <= {le}, but got {value} instead.",
    ),
    "greater_than_equal": (
        "{sort}_below_min_value",
        "Invalid '{path}': {sort} below minimum value."
        " Expected a value >= {ge}, but got {value} instead.",
    ),
    "too_short": (
        "empty_array",
        "Invalid '{path}': empty array."
        " Expected an array with minimum length {min_length}, but got an empty array instead.",
    ),
    "too_long": (
        "array_above_max_length",
        "Invalid '{path}': array too long. Expected an array with maximum length {max_length},"
        " but got an array with length {length} instead.",
    ),
    "string_too_long": (
        "string_above_max_length",
        "Invalid '{path}': string too long. Expected a string with maximum length {max_length},"
        " but got a string with length {length} instead.",
    ),
    "string_pattern_mismatch": (
        "invalid_value",
        "Invalid '{path}': string does not match pattern."
        " Expected a string that matches the pattern '{pattern}'.",
    ),
}
OTHER_ERROR = ("invalid_value", "Invalid value for '{path}'.")

# Pydantic's error for a wrong type -> the expected type.
JSON_TYPES = {
    "string_type": "a string",
    "int_type": "an integer",
    "float_type": "a decimal",
    "bool_type": "a boolean",
    "list_type": "an array",
    "dict_type": "an object",
}

# Looked up by class, since True is an int to isinstance.
JSON_NAMES: dict[type, str] = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    str: "a string",
    list: "an array",
    dict: "an object",
}


def json_name(value: Any) -> str:
    """JSON's name for the type of a value, with its article."""
    return JSON_NAMES.get(type(value), "an unknown value")


def invalid(kind: str, path: str, value: Any = None, **facts: Any) -> InvalidRequest:
    """The error of this type at this path; `facts` are the other values that its message names."""
    code, message = ERRORS.get(kind, OTHER_ERROR)
    names = {key: _number(fact) for key, fact in facts.items()}
    names |= {"path": path, "got": json_name(value), "value": _echo(value)}
    if isinstance(value, (str, list, dict)):
        names["length"] = len(value)
    bound = facts.get("le", facts.get("ge"))
    names["sort"] = "decimal" if isinstance(bound, float) else "integer"
    return InvalidRequest(message.format_map(names), param=path, code=code.format_map(names))


def invalid_request(problem: ValidationError) -> InvalidRequest:
    """The first of pydantic's errors, as the error for the caller."""
    first = problem.errors(include_url=False)[0]
    loc, value = first["loc"], first["input"]
    kind: str = first["type"]
    facts: Mapping[str, Any] = first.get("ctx", {})
    if kind == "wrong.member":
        loc, value, kind, facts = _wrong_member(loc, value, facts)
    if kind == "literal_error":
        kind, facts = _wrong_choice(value, facts["expected"].replace(" or ", ", "))
    if kind in JSON_TYPES:
        kind, facts = "wrong.type", {"expected": JSON_TYPES[kind]}
    return invalid(kind, _path(loc), value, **facts)


def _wrong_member(
    loc: tuple[int | str, ...], value: Any, facts: Mapping[str, Any]
) -> tuple[tuple[int | str, ...], Any, str, Mapping[str, Any]]:
    """Why no member of a union matches: the key that selects it is missing or has a wrong value."""
    if not isinstance(value, dict):
        return loc, value, "dict_type", {}
    key = facts["key"]
    if key not in value:
        return (*loc, key), None, "missing", {}
    return (*loc, key), value[key], *_wrong_choice(value[key], facts["expected"])


def _wrong_choice(value: Any, expected: str) -> tuple[str, Mapping[str, Any]]:
    choices = _listed(expected.split(", "))
    if isinstance(value, str):
        return "wrong.choice", {"choices": choices}
    return "wrong.type", {"expected": f"one of {choices}"}


def _listed(names: list[str]) -> str:
    """`'a'`, `'a' and 'b'`, `'a', 'b', and 'c'`."""
    if len(names) < 3:
        return " and ".join(names)
    return f"{', '.join(names[:-1])}, and {names[-1]}"


def _path(loc: tuple[int | str, ...]) -> str:
    steps = [
        f"[{step}]" if isinstance(step, int) else f".{step}"
        for step in loc
        if isinstance(step, int) or not step.startswith(TAG)
    ]
    return "".join(steps).removeprefix(".")


def _echo(value: Any) -> str:
    """A scalar for a message: short and on one line. Other values are not repeated."""
    if not isinstance(value, (str, int, float)):
        return ""
    text = value if isinstance(value, str) else str(_number(value))
    return "".join(char for char in text[:MAX_ECHO] if char.isprintable())


def _number(value: Any) -> Any:
    """A whole number without decimals: 2, not 2.0."""
    small = isinstance(value, float) and abs(value) < 1e15
    return int(value) if small and value.is_integer() else value
