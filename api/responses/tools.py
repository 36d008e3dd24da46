"""The tools of a Responses request as chat has them, and the names under which their calls return.

Chat has functions and custom tools in one list. Responses has namespaces of tools too, tools inside
the conversation, and tools that OpenAI runs itself. Sources: OpenAI's API reference, and requests
of Codex CLI 0.171.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from gateway.errors import InvalidRequest

Data = Mapping[str, Any]
Tool = dict[str, Any]

CALLABLE = ("function", "custom")
BRINGS_TOOLS = ("additional_tools", "tool_search_output")  # types of input items
DEFAULT_NAMESPACE = "functions"  # OpenAI's models know tools without a namespace under this one
HASH = 8


class Tools:
    """The tools of one request; `ignored` holds the types of those that are not called here."""

    def __init__(self, request: Data) -> None:
        self.ignored: list[str] = []
        self._declared: list[tuple[Data, str]] = []  # each with the name that the provider gets
        # (namespace, name) -> the name that the provider gets; "" is no namespace.
        self._sent: dict[tuple[str, str], str] = {}
        self._own: dict[str, tuple[str, str]] = {}  # name of a call -> (namespace, name)
        flat = list(_flattened(request))
        for namespace, tool in flat:
            if not namespace:
                self._add(namespace, tool)
        for namespace, tool in flat:
            if namespace:
                self._add(namespace, tool)
        self._add_short_names()

    @cached_property
    def chat(self) -> list[Tool]:
        """The tools in chat's terms."""
        return [_chat_tool(tool, name) for tool, name in self._declared]

    def sent_name(self, name: str, namespace: str | None = None) -> str:
        """The name that the provider gets for a tool of the request or of an earlier one."""
        if not namespace and ("", name) not in self._sent:
            namespace, name = self._own.get(name, ("", name))
        return self._sent.get((namespace or "", name)) or _flat_name(namespace or "", name)

    def own_name(self, name: str) -> tuple[str, str]:
        """The namespace ("": none) and the name of the tool that a model has called."""
        return self._own.get(name, ("", name))

    def choice(self, choice: Any) -> Any:
        """`tool_choice` in chat's terms; raises InvalidRequest if it forces what is left out."""
        if isinstance(choice, str):
            if choice == "required" and not self.chat:
                raise _forced("tool_choice", self.ignored[0] if self.ignored else "required")
            return choice
        if choice["type"] != "allowed_tools":
            return self._chosen(choice, "tool_choice")
        mode, tools = choice["mode"], []
        for i, tool in enumerate(choice["tools"]):
            if tool["type"] in CALLABLE:
                tools.append(self._chosen(tool, f"tool_choice.tools[{i}]"))
            else:
                self._ignore(tool["type"])
        if not tools and mode == "required":
            raise _forced("tool_choice.tools", choice["tools"][0]["type"])
        allowed = {"mode": mode, "tools": tools}
        return {"type": "allowed_tools", "allowed_tools": allowed} if tools else "none"

    def _add(self, namespace: str, tool: Data) -> None:
        kind: str = tool["type"]
        if kind not in CALLABLE:
            self._ignore(kind)
            return
        key = (namespace, tool["name"])
        if key in self._sent:  # a search brings the same tool again
            return
        name = _flat_name(*key)
        if name in self._own:
            name = _hashed(name, key)
        self._sent[key] = name
        self._own[name] = key
        self._declared.append((tool, name))

    def _add_short_names(self) -> None:
        """Models call a tool by its name alone, or by both names with a dot between them, too."""
        short: dict[str, list[tuple[str, str]]] = {}
        for namespace, name in self._sent:
            if namespace:
                short.setdefault(name, []).append((namespace, name))
                self._own.setdefault(f"{namespace}.{name}", (namespace, name))
        for name, keys in short.items():
            if len(keys) == 1:
                self._own.setdefault(name, keys[0])

    def _chosen(self, choice: Data, path: str) -> Tool:
        kind = choice["type"]
        if kind not in CALLABLE:
            raise _forced(path, kind)
        name = self.sent_name(choice["name"], choice.get("namespace"))
        return {"type": kind, kind: {"name": name}}

    def _ignore(self, kind: str) -> None:
        self.ignored.append(kind)


def tool_items(items: str | list[Data]) -> list[Data]:
    """The items of an input that bring tools."""
    if isinstance(items, str):
        return []
    return [item for item in items if item.get("type") in BRINGS_TOOLS]


def _flattened(request: Data) -> Iterator[tuple[str, Data]]:
    """Every tool of the request and of its input items, with its namespace ("": none)."""
    yield from _with_namespaces(request.get("tools") or ())
    for item in tool_items(request["input"]):
        yield from _with_namespaces(item["tools"])


def _with_namespaces(tools: Iterable[Data]) -> Iterator[tuple[str, Data]]:
    for tool in tools:
        if tool["type"] == "namespace":
            yield from ((tool["name"], inner) for inner in tool["tools"])
        else:
            yield "", tool


def _flat_name(namespace: str, name: str) -> str:
    """One name for both. It may be one that providers refuse: see workers/tool_names.py."""
    between = "" if namespace.endswith("_") else "__"
    return name if namespace in ("", DEFAULT_NAMESPACE) else f"{namespace}{between}{name}"


def _hashed(name: str, key: tuple[str, str]) -> str:
    digest = hashlib.sha256("\0".join(key).encode("utf-8", "replace")).hexdigest()[:HASH]
    return f"{name}_{digest}"


def _chat_tool(tool: Data, name: str) -> Tool:
    if tool["type"] == "function":
        function = {"name": name, **present(tool, "description", "parameters", "strict")}
        if "parameters" in function:
            function["parameters"] = _without_encrypted(function["parameters"])
        return {"type": "function", "function": function}
    custom = {"name": name, **present(tool, "description", "format")}
    grammar = tool.get("format")
    if grammar and grammar["type"] == "grammar":
        rules = present(grammar, "syntax", "definition")
        custom["format"] = {"type": "grammar", "grammar": rules}
    return {"type": "custom", "custom": custom}


def _without_encrypted(schema: Any, names: bool = False) -> Any:
    """The schema without `"encrypted": true`, with which Codex CLI marks texts of its agents.

    Only OpenAI's Responses API encrypts them; some providers reject unknown keys. `names`: the keys
    are names of properties.
    """
    if isinstance(schema, list):
        return [_without_encrypted(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_encrypted(value, names=key == "properties" and not names)
        for key, value in schema.items()
        if names or key != "encrypted" or value is not True
    }


def _forced(path: str, kind: str) -> InvalidRequest:
    return InvalidRequest(
        f"Unsupported value: '{path}' forces a tool of type '{kind[:64]}', which this service does"
        " not run. It supports tools of the types 'function' and 'custom'.",
        param=path,
        code="unsupported_value",
    )


def present(value: Data, *names: str) -> dict[str, Any]:
    """The fields with these names that are there and not null."""
    return {name: value[name] for name in names if value.get(name) is not None}
