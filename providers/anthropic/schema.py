"""JSON schemas in the subset of JSON Schema that Anthropic enforces.

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
# Keywords that are copied.
KEPT = frozenset("type enum const description title default required $ref".split())
# Keywords that hold schemas: one, a list, or some by name.
ONE = frozenset({"items"})
LISTS = {"anyOf": "anyOf", "oneOf": "anyOf", "allOf": "allOf"}
NAMED = frozenset({"properties", "$defs", "definitions"})
# Keywords that have no effect on the response.
SILENT = frozenset({"$schema", "$id", "$comment"})

# Keywords that Anthropic takes with some values only -> whether it takes this value.
SOMETIMES: dict[str, Callable[[Any], bool]] = {
    "format": lambda value: isinstance(value, str) and value in FORMATS,
    "minItems": lambda value: value in (0, 1),
    "additionalProperties": lambda value: value is False,
}


def binding_schema(schema: Any, path: str) -> Any:
    """Return the schema with the rules that Anthropic enforces; a description holds the others.

    Objects in the response have no properties but those that the schema names. Raises
    InvalidRequest for an object of which it names none, because it would always be empty.
    """
    if not isinstance(schema, Mapping):
        return schema  # true and false are schemas too: Anthropic decides
    result: dict[str, Any] = {}
    unenforced: dict[str, Any] = {}
    for key, value in schema.items():
        if key in KEPT or (key in SOMETIMES and SOMETIMES[key](value)):
            result[key] = value
        elif key in ONE:
            result[key] = binding_schema(value, path)
        elif key in LISTS and isinstance(value, list):
            result[LISTS[key]] = [binding_schema(each, path) for each in value]
        elif key in NAMED and isinstance(value, Mapping):
            result[key] = {name: binding_schema(each, path) for name, each in value.items()}
        elif key not in SILENT:
            unenforced[key] = value
    if _is_object(schema):
        _close(schema, result, unenforced, path)
    if unenforced:
        rules = orjson.dumps(unenforced).decode()
        text = schema.get("description")
        result["description"] = f"{text}\n\n{rules}" if isinstance(text, str) else rules
    return result


def _is_object(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind)


def _close(
    schema: Mapping[str, Any], result: dict[str, Any], unenforced: dict[str, Any], path: str
) -> None:
    unenforced.pop("additionalProperties", None)
    more = schema.get("additionalProperties")
    unnamed = "properties" not in schema if more is None else more is not False
    if unnamed and not schema.get("properties"):
        raise unsupported(path, "does not support objects without named properties")
    result["additionalProperties"] = False
