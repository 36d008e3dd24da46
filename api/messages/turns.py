"""Converts the turns of an Anthropic Messages request to chat messages."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import orjson

from api.messages.others import text_of, without_billing

Data: TypeAlias = Mapping[str, Any]
Part: TypeAlias = dict[str, Any]
Message: TypeAlias = dict[str, Any]

THINKING = frozenset({"thinking", "redacted_thinking"})
NO_TEXT = THINKING | {"tool_use"}
TTLS = ("5m", "1h")
CACHEABLE = frozenset({"text", "image_url", "file"})  # parts that can have a cache breakpoint


def chat_messages(body: Data, native: bool, alone: bool = True) -> list[Message]:
    """The system prompt and all turns of a checked request, as chat messages.

    `native`: they are for a provider with Anthropic's API. A plain text document then stays a
    document, which other providers do not support. `alone`: no other provider may get them, so
    that lines for Anthropic's accounts stay.
    """
    messages: list[Message] = []
    system = body.get("system") or ""
    if system and not (native and alone):
        system = without_billing(system)
    if content := _content(system, native):
        messages.append({"role": "system", "content": content})
    for turn in body["messages"]:
        messages += TURN_MAKERS[turn["role"]](turn.get("content") or "", native)
    if control := cache_mark(body, native):
        _set_last_breakpoint(messages[-1], control)
    return messages


def _system(content: Any, native: bool) -> list[Message]:
    parts = _content(content, native)
    return [{"role": "system", "content": parts}] if parts else []


def _user(content: Any, native: bool) -> list[Message]:
    """A tool message for each result, then the other blocks: in chat, results come first."""
    if isinstance(content, str):
        return [{"role": "user", "content": content}]
    results = [block for block in content if block["type"] == "tool_result"]
    others = [block for block in content if block["type"] != "tool_result"]
    messages = [_result(block, native) for block in results]
    if others or not results:
        messages.append({"role": "user", "content": _content(others, native)})
    return messages


def _result(block: Data, native: bool) -> Message:
    message: Message = {
        "role": "tool",
        "tool_call_id": block["tool_use_id"],
        "content": _content(block.get("content") or "", native),
    }
    if block.get("is_error"):
        message["is_error"] = True
    return _with_cache_control(message, block, native)


def _assistant(content: Any, native: bool) -> list[Message]:
    if isinstance(content, str):
        return [{"role": "assistant", "content": content}]
    if native:
        # Anthropic wants its thinking back where it was: in chat, it comes first in a message.
        return [_assistant_message(blocks, native) for blocks in _by_thinking(content)]
    return [_assistant_message(content, native)]


def _by_thinking(content: list[Data]) -> list[list[Data]]:
    """The blocks of a turn in parts, each of which begins with its thinking."""
    parts: list[list[Data]] = [[]]
    for block in content:
        if block["type"] in THINKING and any(each["type"] not in THINKING for each in parts[-1]):
            parts.append([])
        parts[-1].append(block)
    return parts


def _assistant_message(content: list[Data], native: bool) -> Message:
    thoughts = [block for block in content if block["type"] in THINKING]
    calls = [_call(block) for block in content if block["type"] == "tool_use"]
    texts = [block for block in content if block["type"] not in NO_TEXT]
    # Some servers want the field even where it is null.
    message: Message = {"role": "assistant", "content": _content(texts, native) or None}
    if not calls:
        message["content"] = message["content"] or ""
    if signed := [each for each in thoughts if each.get("signature") or each.get("data")]:
        message["thinking_blocks"] = [_thought(thought) for thought in signed]
    # Unsigned thinking comes from another provider, which may need its own text back.
    unsigned = [each for each in thoughts if not each.get("signature")]
    if text := "".join(thought.get("thinking") or "" for thought in unsigned):
        message["reasoning_content"] = text
    if calls:
        message["tool_calls"] = calls
    return message


def _thought(block: Data) -> Part:
    if block["type"] == "redacted_thinking":
        return {"type": "redacted_thinking", "data": block["data"]}
    thinking = block.get("thinking") or ""
    return {"type": "thinking", "thinking": thinking, "signature": block["signature"]}


def _call(block: Data) -> Part:
    arguments = orjson.dumps(block.get("input") or {}).decode()
    function = {"name": block["name"], "arguments": arguments}
    return {"id": block["id"], "type": "function", "function": function}


TURN_MAKERS: dict[str, Callable[[Any, bool], list[Message]]] = {
    "user": _user,
    "assistant": _assistant,
    "system": _system,
}


def _content(content: Any, native: bool) -> str | list[Part]:
    """Text, or parts. No parts become an empty text, since chat has no empty array."""
    if isinstance(content, str):
        return content
    return [part for block in content for part in _parts(block, native)] or ""


def _parts(block: Data, native: bool) -> list[Part]:
    parts = list(PART_MAKERS.get(block["type"], _other)(block, native))
    if parts and parts[-1]["type"] in CACHEABLE:
        _with_cache_control(parts[-1], block, native)
    return parts


def _text(block: Data, native: bool) -> Iterator[Part]:
    yield {"type": "text", "text": block["text"]}


def _other(block: Data, native: bool) -> Iterator[Part]:
    if text := text_of(block):
        yield {"type": "text", "text": text}


def _image(block: Data, native: bool) -> Iterator[Part]:
    source = block["source"]
    url = source["url"] if source["type"] == "url" else _data_url(source)
    yield {"type": "image_url", "image_url": {"url": url}}


def _document(block: Data, native: bool) -> Iterator[Part]:
    """A file or its text, with title and context as Anthropic passes them to its models."""
    source, title = block["source"], block.get("title")
    # OpenAI-compatible providers require a name; Anthropic shows it to the model.
    unnamed = "" if native else "document.pdf"
    if context := block.get("context"):
        yield {"type": "text", "text": context}
    if source["type"] == "base64":
        yield _file(title or unnamed, _data_url(source))
    elif source["type"] == "url":
        yield _file(title or unnamed, source["url"])
    elif native and source["type"] == "text" and source["data"].strip():
        data = base64.b64encode(source["data"].encode()).decode()
        yield _file(title or "", _data_url({"media_type": "text/plain", "data": data}))
    else:
        if title:
            yield {"type": "text", "text": title}
        yield from _text_parts(source, native)


def _text_parts(source: Data, native: bool) -> Iterable[Part]:
    content = source["data"] if source["type"] == "text" else source["content"]
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [part for block in content for part in _parts(block, native)]


PART_MAKERS: dict[str, Callable[[Data, bool], Iterator[Part]]] = {
    "text": _text,
    "image": _image,
    "document": _document,
}


def _file(name: str, data: str) -> Part:
    return {"type": "file", "file": {"filename": name, "file_data": data}}


def _data_url(source: Data) -> str:
    return f"data:{source['media_type']};base64,{source['data']}"


def _with_cache_control(part: Part, block: Data, native: bool) -> Part:
    if control := cache_mark(block, native):
        part["cache_control"] = control
    return part


def cache_mark(block: Data, native: bool) -> Part | None:
    """The block's cache breakpoint with the fields that Anthropic documents; None if it has none.

    `scope` is for Anthropic alone, which takes it with a beta only.
    """
    control = block.get("cache_control") or {}
    if control.get("type") != "ephemeral":
        return None
    mark: Part = {"type": "ephemeral"}
    if control.get("ttl") in TTLS:
        mark["ttl"] = control["ttl"]
    if native and isinstance(control.get("scope"), str):
        mark["scope"] = control["scope"]
    return mark


def _set_last_breakpoint(message: Message, control: Data) -> None:
    """Set a cache breakpoint at the end of the conversation, if chat has a place for it there."""
    if message["role"] == "tool":
        message["cache_control"] = control
        return
    content = message.get("content")
    if isinstance(content, str) and content:
        message["content"] = content = [{"type": "text", "text": content}]
    if content:
        content[-1]["cache_control"] = control
