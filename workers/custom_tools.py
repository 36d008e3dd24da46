"""Custom tools, which take text, for models that only know functions.

A custom tool becomes a function with one string, and a call of it becomes a custom call again. So
callers see the same calls whichever model answers. Such models know no `allowed_tools` either: they
get the allowed tools only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from gateway.chat import Chunk, arguments

FIELD = "input"
OPENING = re.compile(r'\s*\{\s*"input"\s*:\s*"')
OPENING_CHARACTERS = 100  # more than any opening has
# The part of a JSON string that can be decoded: without its end, and without half an escape.
WHOLE = re.compile(
    r'(?:[^"\\]+|\\u[0-9a-fA-F]{4}|\\u(?=[0-9a-fA-F]{0,3}[^0-9a-fA-F])|\\[^u])*', re.DOTALL
)
HIGH_SURROGATE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\Z")
# A backslash that begins no escape of JSON. Models forget to double those of their own.
STRAY = re.compile(r"(\\(?:[\"\\/bfnrt]|u[0-9a-fA-F]{4}))|\\")
SURROGATE = re.compile("[\ud800-\udfff]")


class CustomTools:
    """The custom tools of one call as functions, and the way back for the model's calls.

    `params` are the call's parameters with functions only.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        tools = params.get("tools") or ()
        self._names = {_custom(tool)["name"] for tool in tools if tool.get("type") == "custom"}
        self._open: dict[tuple[int, int], CalledText] = {}
        self.params = dict(params)
        if "messages" in params:
            self.params["messages"] = list(map(_message, params["messages"]))
        choice = params.get("tool_choice")
        if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
            allowed = choice["allowed_tools"]
            tools = _allowed(tools, allowed["tools"])
            choice = allowed["mode"]
        if "tools" in params:
            self.params["tools"] = list(map(_tool, tools))
        if choice is not None:
            self.params["tool_choice"] = _choice(choice)

    def whole(self, response: Chunk) -> Chunk:
        """The response with custom calls; changes it in place."""
        for choice in response["choices"]:
            for call in choice["message"].get("tool_calls") or ():
                if (call.get("function") or {}).get("name") in self._names:
                    function = call.pop("function")
                    text = called_text(function.get("arguments") or "")
                    call |= {"type": "custom", "custom": {"name": function["name"], FIELD: text}}
        return response

    def streamed(self, chunks: list[Chunk]) -> list[Chunk]:
        """The chunks with custom calls; changes them in place."""
        if self._names:
            for chunk in chunks:
                for choice in chunk["choices"]:
                    self._choice(choice)
        return chunks

    def _choice(self, choice: Chunk) -> None:
        delta = choice.get("delta") or {}
        index = choice.get("index") or 0
        for call in delta.get("tool_calls") or ():
            self._delta(index, call)
        if choice.get("finish_reason"):
            rest = [
                {"index": key[1], "custom": {FIELD: text}}
                for key, called in self._open.items()
                if key[0] == index and (text := called.end())
            ]
            if rest:
                choice["delta"] = delta
                delta["tool_calls"] = [*(delta.get("tool_calls") or ()), *rest]

    def _delta(self, choice: int, call: Chunk) -> None:
        function = call.get("function")
        if not function:
            return
        key = (choice, call.get("index") or 0)
        name = function.get("name")
        if name in self._names and key not in self._open:
            self._open[key] = CalledText()
            call["type"] = "custom"
            custom = {"name": name}
        elif key in self._open:
            custom = {}
            call.pop("type", None)
        else:
            return
        del call["function"]
        call["custom"] = {**custom, FIELD: self._open[key].feed(function.get("arguments") or "")}


class CalledText:
    """The text of a custom call, from the arguments of a function that come in pieces."""

    def __init__(self) -> None:
        self._held: list[str] = []  # what is not decoded yet
        self._state = "opening"  # then "text", "ended"; or "held": of another form

    def feed(self, piece: str) -> str:
        """More of the arguments; returns the text that is certain by now."""
        if self._state == "ended":
            return ""
        self._held.append(piece)
        if self._state == "held":
            return ""
        if self._state == "opening":
            raw = "".join(self._held)
            opening = OPENING.match(raw)
            if opening is None:
                if len(raw) > OPENING_CHARACTERS:
                    self._state = "held"
                return ""
            self._state = "text"
            self._held = [raw[opening.end() :]]
        return self._decode()

    def end(self) -> str:
        """The rest of the text: the arguments have ended. Then, nothing is left."""
        state, raw = self._state, "".join(self._held)
        self._state, self._held = "ended", []
        if state in ("opening", "held"):
            return called_text(raw)
        return decoded(raw) if state == "text" else ""

    def _decode(self) -> str:
        raw = "".join(self._held)
        match = WHOLE.match(raw)
        body = match[0] if match else ""
        if raw[len(body) : len(body) + 1] == '"':
            self._state, self._held = "ended", []
            return decoded(body)
        if half := HIGH_SURROGATE.search(body):
            body = body[: half.start()]
        self._held = [raw[len(body) :]]
        return decoded(body)


def called_text(raw: str) -> str:
    """The text that a model passes to a custom tool, from the arguments of the function.

    A model may call the string otherwise, or send the text itself.
    """
    params = arguments(raw)
    if params is None:
        called = CalledText()
        return called.feed(raw) + called.end() if OPENING.match(raw) else raw
    if isinstance(params.get(FIELD), str):
        return clean(params[FIELD])
    texts = [value for value in params.values() if isinstance(value, str)]
    return clean(texts[0]) if len(texts) == len(params) == 1 else ("" if not params else raw)


def decoded(body: str) -> str:
    """The text of a JSON string without its quotes; unknown escapes stay as they are."""
    body = STRAY.sub(lambda match: match[1] or r"\\", body)
    try:
        # Not orjson, which refuses line breaks and lone surrogates.
        return clean(json.loads(f'"{body}"', strict=False))
    except ValueError:  # a quote too many
        return clean(body)


def clean(text: str) -> str:
    """The text without lone surrogates, which UTF-8 cannot have."""
    return SURROGATE.sub("\ufffd", text)


def _custom(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    custom: Mapping[str, Any] = tool["custom"]
    return custom


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    if tool.get("type") != "custom":
        return tool
    custom = _custom(tool)
    function = {
        "name": custom["name"],
        "description": _description(custom),
        "parameters": {
            "type": "object",
            "properties": {FIELD: {"type": "string", "description": "The whole input, as text."}},
            "required": [FIELD],
            "additionalProperties": False,
        },
    }
    rest = {name: value for name, value in tool.items() if name not in ("type", "custom")}
    return {"type": "function", "function": function, **rest}


def _description(custom: Mapping[str, Any]) -> str:
    """What the tool does, with the grammar that the model cannot be held to."""
    text = custom.get("description") or ""
    grammar = (custom.get("format") or {}).get("grammar")
    if isinstance(grammar, Mapping) and grammar.get("definition"):
        syntax = grammar.get("syntax") or "lark"
        text += f"\n\nThe input must match this {syntax} grammar:\n{grammar['definition']}"
    return text.strip() or f"Takes text in '{FIELD}'."


def _choice(choice: Any) -> Any:
    if not isinstance(choice, Mapping):
        return choice
    if choice.get("type") == "custom":
        return {"type": "function", "function": {"name": _custom(choice)["name"]}}
    return choice


def _allowed(
    tools: Iterable[Mapping[str, Any]], allowed: Iterable[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The tools that `tool_choice` allows; all of them if it names none of these."""
    names = {_name(tool) for tool in allowed}
    return [tool for tool in tools if _name(tool) in names] or list(tools)


def _name(tool: Mapping[str, Any]) -> Any:
    inner = tool.get(tool.get("type") or "")
    return inner.get("name") if isinstance(inner, Mapping) else None


def _message(message: Mapping[str, Any]) -> Mapping[str, Any]:
    calls = message.get("tool_calls") or ()
    if all(call.get("type") != "custom" for call in calls):
        return message
    return {**message, "tool_calls": list(map(_call, calls))}


def _call(call: Mapping[str, Any]) -> Mapping[str, Any]:
    if call.get("type") != "custom":
        return call
    custom = _custom(call)
    text = orjson.dumps({FIELD: custom.get("input") or ""}).decode()
    rest = {name: value for name, value in call.items() if name not in ("type", "custom")}
    return {**rest, "type": "function", "function": {"name": custom["name"], "arguments": text}}
