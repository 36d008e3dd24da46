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

# What Anthropic's API refuses otherwise, in its own words.
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


class ToolIds:
    """The ids of a conversation's tool calls as Anthropic takes them.

    Some providers use other characters than it knows, or the same ids again in each turn.
    """

    def __init__(self) -> None:
        self._given: set[str] = set()
        self._open: dict[str, str] = {}  # of the turn that waits for results: the caller's to ours

    def use(self, said: str, path: str) -> str:
        """The id of a new call; raises InvalidRequest for one that its turn has already."""
        if said in self._open:
            raise invalid(f"{path}.id", "another call of this turn has the same id")
        made, again = said, 0
        while made in self._given or not _ID.fullmatch(made):
            digest = hashlib.sha256(f"{again} {said}".encode()).hexdigest()
            made, again = f"call_{digest[:24]}", again + 1
        self._given.add(made)
        self._open[said] = made
        return made

    def answer(self, said: str, path: str) -> str:
        """The id that a result answers; raises InvalidRequest where no call waits for it."""
        made = self._open.pop(said, None)
        if made is None:
            raise invalid(
                f"{path}.tool_call_id", "answers no tool call of the assistant's turn before it"
            )
        return made

    def check_answered(self, path: str) -> None:
        """Raises InvalidRequest where a call of the last turn has no result."""
        if self._open:
            raise invalid(f"{path}.tool_calls", "not every tool call is followed by its result")


def tool_use(call: Mapping[str, Any], path: str, ids: ToolIds) -> Block:
    """An assistant's call of a tool; raises InvalidRequest."""
    if call.get("type", "function") != "function":
        raise unsupported(f"{path}.type", "must be 'function'")
    function = call["function"]
    if not _NAME.fullmatch(function["name"]):
        raise invalid(f"{path}.function.name", f"expected to match '^{_NAME.pattern}$'")
    said = arguments(function.get("arguments") or "{}")
    if said is None:
        raise invalid(f"{path}.function.arguments", "expected a JSON object")
    ident = ids.use(call["id"], path)
    return {"type": "tool_use", "id": ident, "name": function["name"], "input": said}


def tools(asked: Iterable[Mapping[str, Any]]) -> list[Block]:
    """The declared tools; raises InvalidRequest."""
    made: dict[str, Block] = {}
    for i, said in enumerate(asked):
        tool = _tool(said, f"tools[{i}]")
        if tool["name"] in made:
            raise invalid(f"tools[{i}].function.name", "another tool has the same name")
        made[tool["name"]] = tool
    return list(made.values())


def used_tools(turns: Iterable[Mapping[str, Any]]) -> list[Block]:
    """The tools that a conversation has used, for a request that declares none.

    Anthropic wants tools wherever some were used; nothing is known of these but their names.
    """
    names = {
        block["name"]: None
        for turn in turns
        for block in turn["content"]
        if block["type"] == "tool_use"
    }
    return [{"name": name, "input_schema": {"type": "object"}} for name in names]


def tool_choice(asked: Mapping[str, Any], declared: Iterable[Block]) -> Block | None:
    """How tools are to be chosen, None where the caller has not said; raises InvalidRequest."""
    choice = asked.get("tool_choice")
    single = asked.get("parallel_tool_calls") is False
    if choice is None and not single:
        return None
    if isinstance(choice, Mapping):
        if choice.get("type") != "function":
            raise unsupported("tool_choice.type", "must be 'function'")
        name = choice["function"]["name"]
        if all(tool["name"] != name for tool in declared):
            raise invalid("tool_choice.function.name", "no tool of this name is declared")
        made: Block = {"type": "tool", "name": name}
    else:
        made = {"type": CHOICES[choice or "auto"]}
    if single and made["type"] != "none":
        made["disable_parallel_tool_use"] = True
    return made


def is_forced(choice: Mapping[str, Any] | None) -> bool:
    """Whether the model must use a tool."""
    return choice is not None and choice["type"] in ("any", "tool")


def _tool(tool: Mapping[str, Any], path: str) -> Block:
    if tool.get("type") != "function":
        raise unsupported(f"{path}.type", "must be 'function'")
    function = tool["function"]
    schema = {"type": "object", **(function.get("parameters") or {"properties": {}})}
    where = f"{path}.function.parameters"
    if schema["type"] != "object":
        raise unsupported(f"{where}.type", "must be 'object'")
    made: Block = {"name": function["name"], "input_schema": schema}
    if function.get("description"):
        made["description"] = function["description"]
    if function.get("strict"):
        made["strict"] = True
        made["input_schema"] = binding_schema(schema, where)
    return marked(made, tool)
