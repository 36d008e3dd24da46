"""Tools, their choice and their use, in Anthropic's terms."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from gateway.chat import CALLED, arguments
from gateway.errors import InvalidRequest
from providers.anthropic.blocks import Block, marked
from providers.anthropic.refusals import invalid, unsupported
from providers.anthropic.schema import binding_schema

CHOICES = {"auto": "auto", "required": "any", "none": "none"}

RAW_INPUT = "input"  # the parameter that holds the text for a custom tool
# Keywords that Anthropic refuses at the top of a tool's schema.
NOT_ON_TOP = ("anyOf", "oneOf", "allOf")

# The patterns in the messages with which Anthropic refuses ids and names.
_ID = re.compile(r"[a-zA-Z0-9_-]{1,128}")  # longer ones hold other providers' signatures
_NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9_-]")
MAX_NAME = 128  # characters


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

    A model's call is taken back whatever it is: names get the characters that Anthropic takes, and
    arguments that are no JSON object stand under a key of their own.
    """
    kind = call.get("type", "function")
    if kind not in CALLED:
        raise unsupported(f"{path}.type", "must be 'function' or 'custom'")
    called = call[kind]
    raw = called.get(CALLED[kind]) or ""
    params = {RAW_INPUT: raw} if kind == "custom" else arguments(raw or "{}")
    name = _NOT_IN_NAME.sub("_", called["name"])[:MAX_NAME] or "_"
    params = {"invalid_json": raw} if params is None else params
    return {"type": "tool_use", "id": ids.use(call["id"]), "name": name, "input": params}


def tools(params: Mapping[str, Any]) -> list[Block]:
    """Return the declared tools in Anthropic's terms, each name once; raises InvalidRequest.

    Where `tool_choice` allows some tools only, the others are left out.
    """
    result: dict[str, Block] = {}
    for i, each in enumerate(params.get("tools") or ()):
        tool = _tool(each, f"tools[{i}]")
        result.setdefault(tool["name"], tool)
    allowed = _allowed(params.get("tool_choice"))
    if allowed is None:
        return list(result.values())
    names = {_name(each) for each in allowed.get("tools") or ()}
    return [tool for name, tool in result.items() if name in names]


def custom_tools(params: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the tools whose input is raw text."""
    declared = (each for each in params.get("tools") or () if each.get("type") == "custom")
    return frozenset(filter(None, map(_name, declared)))


def _name(tool: Mapping[str, Any]) -> str | None:
    """Return the name of a tool, however it is declared or chosen."""
    inner = tool.get(tool.get("type") or "")
    name = inner.get("name") if isinstance(inner, Mapping) else tool.get("name")
    return name if isinstance(name, str) else None


def _allowed(choice: Any) -> Mapping[str, Any] | None:
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        allowed: Mapping[str, Any] = choice["allowed_tools"]
        return allowed
    return None


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
    if (allowed := _allowed(choice)) is not None:
        choice = allowed.get("mode")
    if isinstance(choice, Mapping):
        kind = choice.get("type")
        if kind not in CALLED:
            raise unsupported("tool_choice.type", "must be 'function' or 'custom'")
        name = choice[kind]["name"]
        if all(tool["name"] != name for tool in declared):
            raise invalid(f"tool_choice.{kind}.name", "no tool of this name is declared")
        result: Block = {"type": "tool", "name": name}
    else:
        result = {"type": CHOICES[choice or "auto"]}
    if single and result["type"] != "none":
        result["disable_parallel_tool_use"] = True
    return result


def is_forced(choice: Any) -> bool:
    """Return whether a caller's `tool_choice` demands the use of a tool."""
    if (allowed := _allowed(choice)) is not None:
        choice = allowed.get("mode")
    return isinstance(choice, Mapping) or choice == "required"


def _tool(tool: Mapping[str, Any], path: str) -> Block:
    kind = tool.get("type")
    if kind == "custom":
        return marked(_custom(tool["custom"]), tool)
    if kind != "function":
        raise unsupported(f"{path}.type", "must be 'function' or 'custom'")
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


def _custom(tool: Mapping[str, Any]) -> Block:
    """Return a tool with a raw input as a function with that text as its only parameter."""
    description = tool.get("description") or ""
    grammar = (tool.get("format") or {}).get("grammar") or tool.get("format") or {}
    if grammar.get("definition"):
        syntax = grammar.get("syntax") or ""
        rule = f"The input must match this {syntax} grammar:\n{grammar['definition']}"
        description = f"{description}\n\n{rule}".strip()
    result: Block = {
        "name": tool["name"],
        "input_schema": {
            "type": "object",
            "properties": {RAW_INPUT: {"type": "string"}},
            "required": [RAW_INPUT],
        },
    }
    return {**result, "description": description} if description else result
