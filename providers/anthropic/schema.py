"""JSON schemas that bind Anthropic's models: the part of JSON Schema that its grammar knows.

Source: platform.claude.com/docs, "Structured outputs" (JSON Schema limitations), and what
Anthropic's own Python client makes of a schema; both read in November 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from providers.anthropic.refusals import unsupported

FORMATS = frozenset(
    "date-time time date duration email hostname uri ipv4 ipv6 uuid".split()  # of strings
)
# Keywords that are passed on as they are.
KEPT = frozenset("type enum const description title default required $ref".split())
# Keywords that hold schemas: one, a list, or some by name.
ONE = frozenset({"items"})
LISTS = {"anyOf": "anyOf", "oneOf": "anyOf", "allOf": "allOf"}
NAMED = frozenset({"properties", "$defs", "definitions"})
# Keywords that say nothing about the answer.
SILENT = frozenset({"$schema", "$id", "$comment"})

# Keywords that are known with some values only -> whether this is one.
SOMETIMES: dict[str, Callable[[Any], bool]] = {
    "format": lambda value: isinstance(value, str) and value in FORMATS,
    "minItems": lambda value: value in (0, 1),
    "additionalProperties": lambda value: value is False,
}


def binding_schema(schema: Any, path: str) -> Any:
    """The schema in the terms that Anthropic enforces; what it cannot is told in a description.

    The answer then keeps every rule of the caller's schema that Anthropic can enforce, and objects
    have no properties but those named. Raises InvalidRequest for an object whose properties have
    no names: it could never be filled.
    """
    if not isinstance(schema, Mapping):
        return schema  # true and false are schemas, too: Anthropic decides
    made: dict[str, Any] = {}
    untold: dict[str, Any] = {}
    for key, value in schema.items():
        if key in KEPT or (key in SOMETIMES and SOMETIMES[key](value)):
            made[key] = value
        elif key in ONE:
            made[key] = binding_schema(value, path)
        elif key in LISTS and isinstance(value, list):
            made[LISTS[key]] = [binding_schema(each, path) for each in value]
        elif key in NAMED and isinstance(value, Mapping):
            made[key] = {name: binding_schema(each, path) for name, each in value.items()}
        elif key not in SILENT:
            untold[key] = value
    if _is_object(schema):
        _close(schema, made, untold, path)
    if untold:
        rules = orjson.dumps(untold).decode()
        said = schema.get("description")
        made["description"] = f"{said}\n\n{rules}" if isinstance(said, str) else rules
    return made


def _is_object(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind)


def _close(
    schema: Mapping[str, Any], made: dict[str, Any], untold: dict[str, Any], path: str
) -> None:
    untold.pop("additionalProperties", None)
    more = schema.get("additionalProperties")
    unnamed = "properties" not in schema if more is None else more is not False
    if unnamed and not schema.get("properties"):
        raise unsupported(path, "does not support objects without named properties")
    made["additionalProperties"] = False
