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
# Other providers also send `native_finish_reason`, with values of their own.
NATIVE = frozenset(
    {"end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal"}
    | {"model_context_window_exceeded"}
)


def message(identity: Data, answer: Data) -> dict[str, Any]:
    """The message object; `identity` is its `id` and `model`.

    `answer` is a chat completion (see gateway/chat.py), of which the first choice is used.
    """
    choice = answer["choices"][0] if answer.get("choices") else {}
    blocks = list(_content(choice.get("message") or {}, identity["id"]))
    return {
        **empty(identity),
        "content": blocks,
        **stop(choice, any(block["type"] == "tool_use" for block in blocks)),
        "usage": usage(answer.get("usage") or {}),
    }


def empty(identity: Data) -> dict[str, Any]:
    """A message without content, as the first event of a stream has it."""
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
    """Why the message ended: `stop_reason`, `stop_sequence` and, if present, `stop_details`.

    Many providers send "stop" after a forced tool call; Anthropic's clients run tools only after
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


def usage(chat_usage: Data) -> dict[str, Any]:
    """Anthropic's usage, whose `input_tokens` exclude cached tokens.

    Counts that the provider does not report are 0: the API has no other value for them.
    """
    prompt = chat_usage.get("prompt_tokens_details") or {}
    read = prompt.get("cached_tokens") or 0
    written = prompt.get("cache_write_tokens") or 0
    result: dict[str, Any] = {
        "input_tokens": max((chat_usage.get("prompt_tokens") or 0) - read - written, 0),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": chat_usage.get("completion_tokens") or 0,
    }
    if isinstance(prompt.get("cache_creation"), dict):
        result["cache_creation"] = prompt["cache_creation"]
    completion = chat_usage.get("completion_tokens_details") or {}
    if completion.get("reasoning_tokens") is not None:
        result["output_tokens_details"] = {"thinking_tokens": completion["reasoning_tokens"]}
    return result


def tool_use(ident: str | None, name: str, message_id: str, index: int) -> Block:
    """A tool_use block without input. A call without an id, as some servers send it, gets one."""
    ident = ident or f"toolu_{message_id.removeprefix('msg_')}_{index}"
    return {"type": "tool_use", "id": ident, "name": name, "input": {}}


def thinking(text: str = "") -> Block:
    """A thinking block without a signature, which only Anthropic provides."""
    return {"type": "thinking", "thinking": text, "signature": ""}


def _content(chat_message: Data, message_id: str) -> Iterator[Block]:
    thoughts = chat_message.get("thinking_blocks") or ()
    text = chat_message.get("reasoning_content")
    if text and all(block["type"] != "thinking" for block in thoughts):
        yield thinking(text)
    text, calls = chat_message.get("content") or "", chat_message.get("tool_calls") or ()
    uses = [_tool_use(call, message_id, index) for index, call in enumerate(calls)]
    length, count = 0, 0  # of text and calls so far
    for block in thoughts:
        place = block.get("after") or (length, count)
        yield from _text(text[length : place[0]])
        yield from uses[count : place[1]]
        length, count = place
        yield {name: value for name, value in block.items() if name != "after"}
    yield from _text(text[length:])
    yield from _text(chat_message.get("refusal"))
    yield from uses[count:]


def _text(text: str | None) -> Iterator[Block]:
    if text:
        yield {"type": "text", "text": text}


def _tool_use(call: Data, message_id: str, index: int) -> Block:
    function = call.get("function") or {}
    block = tool_use(call.get("id"), function.get("name") or "", message_id, index)
    return {**block, "input": _input(function.get("arguments") or "{}")}


def _input(text: str) -> dict[str, Any]:
    """A call's arguments as an object.

    Text that is no object (cut short, or malformed) is kept under a key of its own: the tool will
    refuse it, which is better than a run without arguments.
    """
    value = arguments(text)
    return {"invalid_json": text} if value is None else value
