"""Puts what clients send back of earlier responses into the form of OpenAI's requests.

Clients return messages as they have got or stored them: with fields of responses, arguments as
objects, and parts of other providers. The wires leave out nulls and what is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from api.chat.messages_schema import RESULT_PARTS

Message = dict[str, Any]

TEXT_PARTS = ("text", "refusal")


def normal(messages: list[Message], ignored: list[str]) -> list[Message]:
    """The messages of a checked request; those of users and of the system are not changed.

    The types of parts that are left out are added to `ignored`.
    """
    result = []
    for message in messages:
        if message["role"] == "assistant":
            message = _assistant(message, ignored)
        elif message["role"] == "tool":
            message = _result(message, ignored)
        result.append(message)
    return result


def _assistant(message: Message, ignored: list[str]) -> Message:
    copy = dict(message)
    if calls := copy.get("tool_calls"):
        copy["tool_calls"] = list(map(_call, calls))
    if function := copy.get("function_call"):
        copy["function_call"] = _function(function)
    if audio := copy.get("audio"):
        copy["audio"] = {"id": audio["id"]}
    if isinstance(content := copy.get("content"), list):
        copy["content"] = _parts(content, TEXT_PARTS, ignored)
    return copy


def _result(message: Message, ignored: list[str]) -> Message:
    content = message["content"]
    if isinstance(content, list):
        content = _parts(content, RESULT_PARTS, ignored)
    return {**message, "content": content or ""}


def _parts(parts: list[Any], supported: tuple[str, ...], ignored: list[str]) -> list[Any]:
    if all(part["type"] in supported for part in parts):
        return parts
    ignored += (f"messages.{part['type']}" for part in parts if part["type"] not in supported)
    return [part for part in parts if part["type"] in supported]


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    copy = {name: value for name, value in call.items() if name != "index" and value is not None}
    copy.setdefault("type", "function")
    if copy["type"] == "function":
        copy["function"] = _function(copy["function"])
    return copy


def _function(function: Mapping[str, Any]) -> dict[str, Any]:
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        return dict(function)
    return {**function, "arguments": orjson.dumps(arguments or {}).decode()}
