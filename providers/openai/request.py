"""A chat call as the body of a request to OpenAI, or to a compatible upstream."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.chat import EXTENSIONS, ChatCall, Chunk
from providers.base import ORDINARY, WireOptions
from providers.openai.signatures import details_in, split_id

IMAGE_ONLY = "(an image, which follows)"
SYSTEM_ROLES = frozenset({"system", "developer"})
ID_LENGTH = 9  # characters of an id that is made up: Mistral takes no others
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Keywords that say what an object may hold, without `properties`.
_COMPOSED = frozenset({"$ref", "anyOf", "oneOf", "allOf", "not", "if", "enum", "const"})
_ONLY_IN_RESPONSES = frozenset({"annotations"})  # of messages, which clients send back whole


def request_body(call: ChatCall, options: WireOptions = ORDINARY) -> Chunk:
    """Return the body: the call as an upstream with these options takes it.

    A streamed call also asks for the usage.
    """
    without = EXTENSIONS.difference(options.accepts)
    body = {**call.parameters, "model": call.model}
    if "messages" in body:
        messages = _with_signatures(body["messages"], options)
        if options.system_first:
            messages = _with_system_first(messages)
        body["messages"] = _messages(messages, without)
        if options.plain_text:
            body["messages"] = list(map(_with_plain_text, body["messages"]))
    if body.get("tools"):
        body["tools"] = [_tool(tool, without) for tool in body["tools"]]
    with_usage = "stream_options" not in body  # the catalogue sets None where they are refused
    body.pop("stream_options", None)
    if call.stream:
        body["stream"] = True
        if with_usage:
            body["stream_options"] = {"include_usage": True}
    return body


def _with_signatures(
    messages: Iterable[Mapping[str, Any]], options: WireOptions
) -> list[Mapping[str, Any]]:
    """Return the messages with what the upstream wants back, and ids that it takes."""
    pattern = re.compile(options.tool_call_ids or ".*", re.DOTALL)
    result = []
    for message in messages:
        if message.get("tool_calls"):
            calls = [_signed_call(call, pattern, options) for call in message["tool_calls"]]
            message = {**message, "tool_calls": calls}
        if message.get("tool_call_id"):
            message = {**message, "tool_call_id": _id(message["tool_call_id"], pattern)}
        if message.get("thinking_blocks") and not message.get("reasoning_details"):
            if details := details_in(message["thinking_blocks"]):
                message = {**message, "reasoning_details": details}
        result.append(message)
    return result


def _signed_call(call: Mapping[str, Any], pattern: re.Pattern[str], options: WireOptions) -> Chunk:
    own, extra_content = split_id(call["id"])
    signed = {**call, "id": _id(call["id"], pattern)}
    if extra_content is not None:
        signed.setdefault("extra_content", extra_content)
    if "extra_content" not in options.accepts:
        signed.pop("extra_content", None)
    return signed


def _id(ident: str, pattern: re.Pattern[str]) -> str:
    """Return the id, or a hash of it where the upstream does not take it.

    The same id always has the same hash, so the next turn begins as this one.
    """
    own, _ = split_id(ident)
    if pattern.fullmatch(own):
        return own
    number = int.from_bytes(hashlib.sha256(own.encode()).digest())
    characters = []
    for _ in range(ID_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        characters.append(_ALPHABET[digit])
    return "".join(characters)


def _with_system_first(messages: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the messages with one system message, at the beginning.

    Later ones become text of the user in place: chat templates refuse them elsewhere.
    """
    result: list[Mapping[str, Any]] = []
    for message in messages:
        if message["role"] not in SYSTEM_ROLES:
            result.append(message)
        elif not result:
            result.append({**message, "role": "system"})
        elif result[-1]["role"] in ("system", "user", "tool"):
            # In place: a prefix that has been cached stays as it is.
            result[-1] = {**result[-1], "content": _joined(result[-1], message)}
        else:
            result.append({"role": "user", "content": message.get("content")})
    return result


def _joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> str | list[Chunk]:
    """Return the contents of two messages as one."""
    contents = [message.get("content") or "" for message in (first, second)]
    if all(isinstance(content, str) for content in contents):
        return "\n\n".join(filter(None, contents))
    parts: list[Chunk] = []
    for content in contents:
        parts += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return parts


def _messages(messages: Iterable[Mapping[str, Any]], without: frozenset[str]) -> list[Chunk]:
    """Return the messages; images in results of tools move to a message of the user after them.

    OpenAI takes only text in results of tools.
    """
    result: list[Chunk] = []
    images: list[Chunk] = []
    for message in messages:
        if images and message["role"] != "tool":
            result.append({"role": "user", "content": images})
            images = []
        plain = _message(message, without)
        if message["role"] == "tool" and isinstance(plain["content"], list):
            plain["content"], others = _tool_content(plain["content"])
            if others:
                name = f"Images of the result of {message['tool_call_id']}:"
                images += [{"type": "text", "text": name}, *others]
        result.append(plain)
    if images:
        result.append({"role": "user", "content": images})
    return result


def _message(message: Mapping[str, Any], without: frozenset[str]) -> Chunk:
    """Return a message without extensions, empty lists of calls, and nulls.

    Clients send responses back whole, and strict upstreams refuse what they do not know. Content is
    always there, null only beside what stands in for it.
    """
    plain = {
        key: value
        for key, value in message.items()
        if value is not None and key not in without and key not in _ONLY_IN_RESPONSES
    }
    if not plain.get("tool_calls", True):
        del plain["tool_calls"]
    content = plain.get("content")
    if content and isinstance(content, list):
        plain["content"] = [_plain(part, without) for part in content]
    elif not content:
        instead = ("tool_calls", "function_call", "refusal", "audio")
        empty = content is not None or not any(name in plain for name in instead)
        plain["content"] = "" if empty else None
    return plain


def _with_plain_text(message: Chunk) -> Chunk:
    """Return a message with parts of nothing but text as one text."""
    parts = message.get("content")
    if not isinstance(parts, list) or any(part.keys() != {"type", "text"} for part in parts):
        return message
    return {**message, "content": "\n".join(part["text"] for part in parts)}


def _tool_content(parts: Iterable[Chunk]) -> tuple[list[Chunk] | str, list[Chunk]]:
    """Return the text of a tool's result, and its other content parts."""
    texts: list[Chunk] = []
    others: list[Chunk] = []
    for part in parts:
        (texts if part.get("type") == "text" else others).append(part)
    return texts or (IMAGE_ONLY if others else ""), others


def _tool(tool: Mapping[str, Any], without: frozenset[str]) -> Any:
    """Return a tool; a function without parameters says so in OpenAI's form."""
    plain = _plain(tool, without)
    function = plain.get("function")
    if isinstance(function, dict):
        schema = function.get("parameters") or {}
        if schema.get("type", "object") == "object" and not (schema.keys() & _COMPOSED):
            schema = {"type": "object", "properties": {}, **schema}
            function = {**function, "parameters": schema}
        plain["function"] = {key: value for key, value in function.items() if value is not None}
    return plain


def _plain(item: Mapping[str, Any], without: frozenset[str]) -> Any:
    return {key: value for key, value in item.items() if key not in without and value is not None}
