"""A chat call as the body of a request to OpenAI, or to a compatible upstream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.chat import EXTENSIONS, ChatCall, Chunk
from providers.base import ORDINARY, WireOptions

IMAGE_ONLY = "(an image, which follows)"


def request_body(call: ChatCall, options: WireOptions = ORDINARY) -> Chunk:
    """Return the body: the call without the extensions that the upstream does not take.

    A streamed call also asks for the usage.
    """
    without = EXTENSIONS.difference(options.accepts)
    body = {**call.parameters, "model": call.model}
    if "messages" in body:
        body["messages"] = _messages(body["messages"], without)
    if body.get("tools"):
        body["tools"] = [_plain(tool, without) for tool in body["tools"]]
    if call.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return body


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
        if message["role"] == "tool" and not isinstance(message.get("content"), str):
            plain["content"], others = _tool_content(plain.get("content") or ())
            if others:
                name = f"Images of the result of {message['tool_call_id']}:"
                images += [{"type": "text", "text": name}, *others]
        result.append(plain)
    if images:
        result.append({"role": "user", "content": images})
    return result


def _message(message: Mapping[str, Any], without: frozenset[str]) -> Chunk:
    plain: Chunk = _plain(message, without)
    if isinstance(plain.get("content"), list):
        plain["content"] = [_plain(part, without) for part in plain["content"]]
    if plain.keys() == {"role"} or plain == {"role": "assistant", "content": None}:
        plain["content"] = ""  # it held nothing but thinking
    return plain


def _tool_content(parts: Iterable[Chunk]) -> tuple[list[Chunk] | str, list[Chunk]]:
    """Return the text of a tool's result, and its other content parts."""
    texts: list[Chunk] = []
    others: list[Chunk] = []
    for part in parts:
        (texts if part.get("type") == "text" else others).append(part)
    return texts or (IMAGE_ONLY if others else ""), others


def _plain(item: Mapping[str, Any], without: frozenset[str]) -> Any:
    if without.isdisjoint(item):
        return dict(item)
    return {key: value for key, value in item.items() if key not in without}
