"""Tools, their choice and their use, in Anthropic's terms.

Custom tools and `allowed_tools` do not come here: workers/custom_tools.py makes functions of them.
Names are those that Anthropic takes: see workers/tool_names.py.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from gateway.chat import arguments
from gateway.errors import InvalidRequest
from providers.anthropic.blocks import Block, marked
from providers.anthropic.refusals import invalid, unsupported
from providers.anthropic.schema import binding_schema

CHOICES = {"auto": "auto", "required": "any", "none": "none"}

# Keywords that Anthropic refuses at the top of a tool's schema.
NOT_ON_TOP = ("anyOf", "oneOf", "allOf")

# The pattern in the message with which Anthropic refuses ids.
_ID = re.compile(r"[a-zA-Z0-9_-]{1,128}")  # longer ones hold other providers' signatures


class ToolIds:
    """The ids of a conversation's tool calls in a form that Anthropic takes.

    Some providers use characters that it refuses, or the same ids again in each turn.
    """

    def __init__(self) -> None:
        self._used: set[str] = set()
        # Calls without a result: the caller's id -> ours. Calls of one turn may share the caller's.
        self._open: dict[str, list[str]] = {}

    def use(self, call_id: str) -> str:
        """Return the id of a new call."""
        ident, again = call_id, 0
        while ident in self._used or not _ID.fullmatch(ident):
            digest = hashlib.sha256(f"{again} {call_id}".encode()).hexdigest()
            ident, again = f"call_{digest[:24]}", again + 1
        self._used.add(ident)
        self._open.setdefault(call_id, []).append(ident)
        return ident

    def result(self, call_id: str, path: str) -> str:
        """Return the id for the result of a call; raises InvalidRequest if no such call is open."""
        idents = self._open.get(call_id)
        if not idents:
            raise invalid(
                f"{path}.tool_call_id", "answers no tool call of the assistant's turn before it"
            )
        ident = idents.pop(0)
        if not idents:
            del self._open[call_id]
        return ident

    def check_answered(self, path: str) -> None:
        """Raise InvalidRequest if a call of the last turn has no result."""
        if self._open:
            raise invalid(f"{path}.tool_calls", "not every tool call is followed by its result")


def tool_use(call: Mapping[str, Any], path: str, ids: ToolIds) -> Block:
    """Return an assistant's tool call as a block; raises InvalidRequest.

    A model's call is taken back whatever it is: arguments that are no JSON object stand under a key
    of their own.
    """
    if call.get("type", "function") != "function":
        raise unsupported(f"{path}.type", "must be 'function'")
    function = call["function"]
    raw = function.get("arguments") or ""
    params = arguments(raw or "{}")
    params = {"invalid_json": raw} if params is None else params
    ident, name = ids.use(call["id"]), function["name"]
    return {"type": "tool_use", "id": ident, "name": name, "input": params}


def tools(params: Mapping[str, Any]) -> list[Block]:
    """Return the declared tools in Anthropic's terms, each name once; raises InvalidRequest."""
    result: dict[str, Block] = {}
    for i, each in enumerate(params.get("tools") or ()):
        tool = _tool(each, f"tools[{i}]")
        result.setdefault(tool["name"], tool)
    return list(result.values())


def used_tools(turns: Iterable[Mapping[str, Any]]) -> list[Block]:
    """Return the tools that a conversation has used, by name, for a request that declares none.

    Anthropic requires a declaration of every tool that was used.
    """
    names = {
        block["name"]: None
        for turn in turns
        for block in turn["content"]
        if block["type"] == "tool_use"
    }
    return [{"name": name, "input_schema": {"type": "object"}} for name in names]


def tool_choice(params: Mapping[str, Any], declared: Iterable[Block]) -> Block | None:
    """Return Anthropic's `tool_choice`, or None if the caller sets none; raises InvalidRequest."""
    choice = params.get("tool_choice")
    single = params.get("parallel_tool_calls") is False
    if choice is None and not single:
        return None
    if isinstance(choice, Mapping):
        if choice.get("type") != "function":
            raise unsupported("tool_choice.type", "must be 'function'")
        name = choice["function"]["name"]
        if all(tool["name"] != name for tool in declared):
            raise invalid("tool_choice.function.name", "no tool of this name is declared")
        result: Block = {"type": "tool", "name": name}
    else:
        result = {"type": CHOICES[choice or "auto"]}
    if single and result["type"] != "none":
        result["disable_parallel_tool_use"] = True
    return result


def is_forced(choice: Any) -> bool:
    """Return whether a caller's `tool_choice` demands the use of a tool."""
    return isinstance(choice, Mapping) or choice == "required"


def _tool(tool: Mapping[str, Any], path: str) -> Block:
    if tool.get("type") != "function":
        raise unsupported(f"{path}.type", "must be 'function'")
    function = tool["function"]
    schema = {"type": "object", **(function.get("parameters") or {"properties": {}})}
    path = f"{path}.function.parameters"
    if schema["type"] != "object":
        raise unsupported(f"{path}.type", "must be 'object'")
    rules = {key: schema.pop(key) for key in NOT_ON_TOP if key in schema}
    result: Block = {"name": function["name"], "input_schema": schema}
    description = function.get("description") or ""
    if rules:
        # Anthropic refuses these words there, so the model reads them.
        schema["properties"] = _properties(rules) | (schema.get("properties") or {})
        description = (
            f"{description}\n\nThe input must match: {orjson.dumps(rules).decode()}".strip()
        )
    if description:
        result["description"] = description
    if function.get("strict") and not rules:
        try:
            result["input_schema"] = binding_schema(schema, path)
            result["strict"] = True
        except InvalidRequest:
            pass  # a schema that cannot be enforced is still a schema
    return marked(result, tool)


def _properties(rules: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties of the schemas in these rules."""
    branches = (each for value in rules.values() if isinstance(value, list) for each in value)
    properties: dict[str, Any] = {}
    for branch in branches:
        inner = branch.get("properties") if isinstance(branch, Mapping) else None
        properties |= inner if isinstance(inner, dict) else {}
    return properties
