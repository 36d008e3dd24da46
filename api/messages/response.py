"""A chat completion as the message object of Anthropic's Messages API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from gateway.chat import arguments

Data: TypeAlias = Mapping[str, Any]
Block: TypeAlias = dict[str, Any]

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
# Some compatible providers tell reasons of their own in `native_finish_reason`.
NATIVE = frozenset(
    {"end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal"}
    | {"model_context_window_exceeded"}
)


def message(identity: Data, answer: Data) -> dict[str, Any]:
    """The whole message; `identity` is its `id` and `model`.

    `answer` is a chat completion as gateway.chat has it. A message has one choice: the first.
    """
    choice = answer["choices"][0] if answer.get("choices") else {}
    said = choice.get("message") or {}
    blocks = list(_content(said, identity["id"]))
    return {
        **empty(identity),
        "content": blocks,
        **stop(choice, any(block["type"] == "tool_use" for block in blocks)),
        "usage": usage(answer.get("usage") or {}),
    }


def empty(identity: Data) -> dict[str, Any]:
    """A message of which nothing is known yet, as a stream begins with."""
    return {
        "id": identity["id"],
        "type": "message",
        "role": "assistant",
        "model": identity["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage({}),
    }


def stop(choice: Data, uses_tools: bool) -> dict[str, Any]:
    """Why the message ended: `stop_reason`, `stop_sequence` and, where told, `stop_details`.

    Many providers say "stop" where a tool was forced; Anthropic's clients run tools only after
    "tool_use".
    """
    reason = choice.get("native_finish_reason")
    matched = choice.get("stop_sequence")
    if reason not in NATIVE:
        reason = STOP_REASONS.get(choice.get("finish_reason") or "", "end_turn")
        if reason == "end_turn" and (uses_tools or matched is not None):
            reason = "tool_use" if uses_tools else "stop_sequence"
    ended: dict[str, Any] = {"stop_reason": reason, "stop_sequence": matched}
    if choice.get("stop_details"):
        ended["stop_details"] = choice["stop_details"]
    return ended


def usage(counted: Data) -> dict[str, Any]:
    """Anthropic's usage, whose `input_tokens` leave those of the cache out.

    0 stands where the provider has not counted: the API has no other word for it.
    """
    prompt = counted.get("prompt_tokens_details") or {}
    read = prompt.get("cached_tokens") or 0
    written = prompt.get("cache_write_tokens") or 0
    told: dict[str, Any] = {
        "input_tokens": max((counted.get("prompt_tokens") or 0) - read - written, 0),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": counted.get("completion_tokens") or 0,
    }
    if isinstance(prompt.get("cache_creation"), dict):
        told["cache_creation"] = prompt["cache_creation"]
    completion = counted.get("completion_tokens_details") or {}
    if completion.get("reasoning_tokens") is not None:
        told["output_tokens_details"] = {"thinking_tokens": completion["reasoning_tokens"]}
    return told


def tool_use(ident: str | None, name: str, message_id: str, index: int) -> Block:
    """The beginning of a tool_use block; some servers give calls no id."""
    ident = ident or f"toolu_{message_id.removeprefix('msg_')}_{index}"
    return {"type": "tool_use", "id": ident, "name": name, "input": {}}


def thinking(text: str = "") -> Block:
    """A thinking block that nobody has signed: not every provider signs."""
    return {"type": "thinking", "thinking": text, "signature": ""}


def _content(said: Data, message_id: str) -> Iterator[Block]:
    if said.get("thinking_blocks"):
        yield from said["thinking_blocks"]
    elif said.get("reasoning_content"):
        yield thinking(said["reasoning_content"])
    for text in (said.get("content"), said.get("refusal")):
        if text:
            yield {"type": "text", "text": text}
    for index, call in enumerate(said.get("tool_calls") or ()):
        function = call.get("function") or {}
        block = tool_use(call.get("id"), function.get("name") or "", message_id, index)
        yield {**block, "input": _input(function.get("arguments") or "{}")}


def _input(said: str) -> dict[str, Any]:
    """A call's arguments, an object. What is none (cut short, or made badly) is kept as it is:
    the tool will refuse it, which is better than being run without its arguments.
    """
    value = arguments(said)
    return {"invalid_json": said} if value is None else value
