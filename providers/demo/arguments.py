"""Arguments that fit a tool's schema: made up, and the same each time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

MAX_DEPTH = 8  # levels of a schema, which may refer to itself
MAX_ITEMS = 16  # of a list, whatever its schema demands

# Format of a string -> one that has it.
FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "hostname": "example.com",
}


def sample(schema: Any) -> Any:
    """A value that fits a JSON schema, if that uses the common keywords only."""
    return _value(schema, schema, MAX_DEPTH, "value")


def _value(schema: Any, root: Any, depth: int, name: str) -> Any:
    schema = _resolved(schema, root)
    if not isinstance(schema, Mapping):
        return name
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if isinstance(schema.get(key), list) and schema[key]:
            return schema[key][0]
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list) and schema[key] and depth:
            branch = _resolved(schema[key][0], root)
            return _value(_joined([schema, branch], without=key), root, depth - 1, name)
    if isinstance(schema.get("allOf"), list) and depth:
        parts = [schema, *(_resolved(part, root) for part in schema["allOf"])]
        return _value(_joined(parts, without="allOf"), root, depth - 1, name)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" or (kind is None and "properties" in schema):
        return _object(schema, root, depth)
    if kind == "array":
        count = min(max(_number(schema, "minItems", 0), 1), MAX_ITEMS) if depth else 0
        return [_value(schema.get("items"), root, depth - 1, name)] * int(count)
    if kind in ("integer", "number"):
        return _in_range(schema)
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    return _text(schema, name)


def _object(schema: Mapping[str, Any], root: Any, depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    required = schema.get("required")
    required = [n for n in (required if isinstance(required, list) else ()) if isinstance(n, str)]
    names = dict.fromkeys((*properties, *required)) if depth > MAX_DEPTH - 2 else required
    if not depth:
        names = {}
    return {name: _value(properties.get(name, {}), root, depth - 1, name) for name in names}


def _in_range(schema: Mapping[str, Any]) -> Any:
    low = _number(schema, "minimum", _number(schema, "exclusiveMinimum", 0) + 1)
    high = _number(schema, "maximum", _number(schema, "exclusiveMaximum", low + 2) - 1)
    step = _number(schema, "multipleOf", 0)
    value = min(low, high) if low > 1 or high < 1 else 1
    return -(-value // step) * step if step > 0 else value


def _text(schema: Mapping[str, Any], name: str) -> str:
    text = FORMATS.get(str(schema.get("format")), name)
    text += "x" * min(int(_number(schema, "minLength", 0)) - len(text), 1000)
    return text[: int(max(_number(schema, "maxLength", len(text)), 0))]


def _number(schema: Mapping[str, Any], key: str, default: float) -> Any:
    value = schema.get(key)
    return value if type(value) in (int, float) else default


def _joined(schemas: Iterable[Any], without: str) -> dict[str, Any]:
    """One schema with the properties of all."""
    joined: dict[str, Any] = {}
    for schema in schemas:
        if isinstance(schema, Mapping):
            properties = {**joined.get("properties", {}), **_mapping(schema.get("properties"))}
            required = [*joined.get("required", []), *_list(schema.get("required"))]
            joined |= {key: value for key, value in schema.items() if key != without}
            joined |= {"properties": properties} if properties else {}
            joined |= {"required": required} if required else {}
    return joined


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _resolved(schema: Any, root: Any) -> Any:
    """The schema that a reference names, within the same document."""
    for _ in range(MAX_DEPTH):
        ref = schema.get("$ref") if isinstance(schema, Mapping) else None
        if not isinstance(ref, str) or not ref.startswith("#"):
            return schema
        target = root
        for step in filter(None, ref[1:].split("/")):
            target = _mapping(target).get(step.replace("~1", "/").replace("~0", "~"))
        schema = target
    return {}
