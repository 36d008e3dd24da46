"""Tools, their choice and their use, in Anthropic's terms."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.chat import arguments
from providers.anthropic.blocks import Block, marked
from providers.anthropic.refusals import invalid, unsupported
from providers.anthropic.schema import binding_schema

CHOICES = {"auto": "auto", "required": "any", "none": "none"}

# The patterns in the messages with which Anthropic refuses ids and names.
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


class ToolIds:
    """The ids of a conversation's tool calls in a form that Anthropic takes.

    Some providers use characters that it refuses, or the same ids again in each turn.
    """

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._open: dict[str, str] = {}  # calls without a result: the caller's id -> ours

    def use(self, call_id: str, path: str) -> str:
        """Return the id of a new call; raises InvalidRequest if its turn has that id already."""
        if call_id in self._open:
            raise invalid(f"{path}.id", "another call of this turn has the same id")
        ident, again = call_id, 0
        while ident in self._used or not _ID.fullmatch(ident):
            digest = hashlib.sha256(f"{again} {call_id}".encode()).hexdigest()
            ident, again = f"call_{digest[:24]}", again + 1
        self._used.add(ident)
        self._open[call_id] = ident
        return ident

    def result(self, call_id: str, path: str) -> str:
        """Return the id for the result of a call; raises InvalidRequest if no such call is open."""
        ident = self._open.pop(call_id, None)
        if ident is None:
            raise invalid(
                f"{path}.tool_call_id", "answers no tool call of the assistant's turn before it"
            )
        return ident

    def check_answered(self, path: str) -> None:
        """Raise InvalidRequest if a call of the last turn has no result."""
        if self._open:
            raise invalid(f"{path}.tool_calls", "not every tool call is followed by its result")


def tool_use(call: Mapping[str, Any], path: str, ids: ToolIds) -> Block:
    """Return an assistant's tool call as a block; raises InvalidRequest."""
    if call.get("type", "function") != "function":
        raise unsupported(f"{path}.type", "must be 'function'")
    function = call["function"]
    if not _NAME.fullmatch(function["name"]):
        raise invalid(f"{path}.function.name", f"expected to match '^{_NAME.pattern}$'")
    params = arguments(function.get("arguments") or "{}")
    if params is None:
        raise invalid(f"{path}.function.arguments", "expected a JSON object")
    ident = ids.use(call["id"], path)
    return {"type": "tool_use", "id": ident, "name": function["name"], "input": params}


def tools(declared: Iterable[Mapping[str, Any]]) -> list[Block]:
    """Return the declared tools in Anthropic's terms; raises InvalidRequest."""
    result: dict[str, Block] = {}
    for i, each in enumerate(declared):
        tool = _tool(each, f"tools[{i}]")
        if tool["name"] in result:
            raise invalid(f"tools[{i}].function.name", "another tool has the same name")
        result[tool["name"]] = tool
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


def is_forced(choice: Mapping[str, Any] | None) -> bool:
    """Return whether the model must use a tool."""
    return choice is not None and choice["type"] in ("any", "tool")


def _tool(tool: Mapping[str, Any], path: str) -> Block:
    if tool.get("type") != "function":
        raise unsupported(f"{path}.type", "must be 'function'")
    function = tool["function"]
    schema = {"type": "object", **(function.get("parameters") or {"properties": {}})}
    path = f"{path}.function.parameters"
    if schema["type"] != "object":
        raise unsupported(f"{path}.type", "must be 'object'")
    result: Block = {"name": function["name"], "input_schema": schema}
    if function.get("description"):
        result["description"] = function["description"]
    if function.get("strict"):
        result["strict"] = True
        result["input_schema"] = binding_schema(schema, path)
    return marked(result, tool)
