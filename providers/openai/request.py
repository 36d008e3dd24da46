"""A chat call as the body that OpenAI, and what is compatible with it, takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.chat import EXTENSIONS, ChatCall, Chunk

IMAGE_ONLY = "(an image, which follows)"


def request_body(call: ChatCall, without: frozenset[str] = EXTENSIONS) -> Chunk:
    """The call as it is, without these extensions, plus what asks for a stream and its usage."""
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
    """OpenAI's tools answer in text only: a user shows the images of their results afterwards."""
    made: list[Chunk] = []
    shown: list[Chunk] = []
    for message in messages:
        if shown and message["role"] != "tool":
            made.append({"role": "user", "content": shown})
            shown = []
        plain = _message(message, without)
        if message["role"] == "tool" and not isinstance(message.get("content"), str):
            plain["content"], images = _result(plain.get("content") or ())
            if images:
                name = f"Images of the result of {message['tool_call_id']}:"
                shown += [{"type": "text", "text": name}, *images]
        made.append(plain)
    if shown:
        made.append({"role": "user", "content": shown})
    return made


def _message(message: Mapping[str, Any], without: frozenset[str]) -> Chunk:
    plain: Chunk = _plain(message, without)
    if isinstance(plain.get("content"), list):
        plain["content"] = [_plain(part, without) for part in plain["content"]]
    if plain.keys() == {"role"} or plain == {"role": "assistant", "content": None}:
        plain["content"] = ""  # all that it said was thinking
    return plain


def _result(parts: Iterable[Chunk]) -> tuple[list[Chunk] | str, list[Chunk]]:
    """The text of a tool's result, and what of it is none."""
    told: list[Chunk] = []
    images: list[Chunk] = []
    for part in parts:
        (told if part.get("type") == "text" else images).append(part)
    return told or (IMAGE_ONLY if images else ""), images


def _plain(said: Mapping[str, Any], without: frozenset[str]) -> Any:
    if without.isdisjoint(said):
        return dict(said)
    return {key: value for key, value in said.items() if key not in without}
