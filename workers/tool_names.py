"""Names of tools that a target does not take, as names that it takes, and the way back.

Clients build names from those of servers and tools, so that they get long, or hold dots and spaces.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from gateway.chat import CALLED, Chunk

# What OpenAI takes, and so nearly everybody. Sources: the patterns in the messages with which
# OpenAI and Anthropic refuse names.
SHORT = re.compile(r"[a-zA-Z0-9_-]{1,64}")
LONG = re.compile(r"[a-zA-Z0-9_-]{1,128}")
MAX_NAME = 64  # characters of a name that is made up
DIGEST = 8
NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9_-]")
# Parameters, fields of messages, and fields of these that hold names of tools.
HOLDERS = frozenset({"tools", "functions", "tool_choice", "function_call"})
CALLS = frozenset({"tool_calls", "function_call"})
INSIDE = frozenset({*CALLED, "allowed_tools", "tools"})
# Whether the JSON of a call may hold a name that is not SHORT.
has_odd_names = re.compile(rb'"name":"(?![a-zA-Z0-9_-]{1,64}")').search


class ToolNames:
    """The names of the tools of one call. `params` are the call's parameters with other names.

    `long`: the target takes names of 128 characters.
    """

    def __init__(self, params: Mapping[str, Any], long: bool = False) -> None:
        self._pattern = LONG if long else SHORT
        self._own: dict[str, str] = {}  # name that the target gets -> the caller's
        self.params = dict(params)
        for key in HOLDERS & params.keys():
            self.params[key] = self._sent(params[key])
        if "messages" in params:
            self.params["messages"] = list(map(self._message, params["messages"]))

    def whole(self, response: Chunk) -> Chunk:
        """The response with the caller's names; changes it in place."""
        for choice in response["choices"]:
            self._restore(choice["message"])
        return response

    def streamed(self, chunks: list[Chunk]) -> list[Chunk]:
        """The chunks with the caller's names; changes them in place."""
        if self._own:
            for chunk in chunks:
                for choice in chunk["choices"]:
                    self._restore(choice.get("delta") or {})
        return chunks

    def _restore(self, message: Chunk) -> None:
        called = [call.get(kind) for call in message.get("tool_calls") or () for kind in CALLED]
        for each in filter(None, (*called, message.get("function_call"))):
            if each.get("name") in self._own:
                each["name"] = self._own[each["name"]]

    def _message(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        changed = {key: self._sent(message[key]) for key in CALLS & message.keys()}
        return {**message, **changed} if changed else message

    def _sent(self, value: Any) -> Any:
        """A value with tools, calls or choices in it, with the names that the target takes."""
        if isinstance(value, list):
            return [self._sent(each) for each in value]
        if not isinstance(value, Mapping):
            return value
        copy = {**value, **{key: self._sent(value[key]) for key in INSIDE & value.keys()}}
        if isinstance(copy.get("name"), str):
            copy["name"] = self._name(copy["name"])
        return copy

    def _name(self, name: str) -> str:
        if self._pattern.fullmatch(name):
            return name
        digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:DIGEST]
        sent = f"{NOT_IN_NAME.sub('_', name)[: MAX_NAME - DIGEST - 1]}_{digest}"
        self._own[sent] = name
        return sent
