"""Checks the types of a response's fields, so that code after it can rely on them."""

from __future__ import annotations

from typing import Any

from gateway.chat import Chunk
from gateway.errors import UpstreamBadResponse
from providers.openai.tool_calls import text_of

# Field of a message or delta -> its type. A field of another type is left out, or is an error if it
# is in NEEDED.
MESSAGE: dict[str, type] = {
    "content": str,
    "refusal": str,
    "reasoning_content": str,
    "thinking_blocks": list,
    "reasoning_details": list,
    "tool_calls": list,
    "function_call": dict,
    "annotations": list,
    "audio": dict,
}
NEEDED = frozenset({"content", "tool_calls", "function_call"})
CHOICE: dict[str, type] = {
    "logprobs": dict,
    "native_finish_reason": str,
    "stop_sequence": str,
    "stop_details": dict,
}
DETAILS = ("prompt_tokens_details", "completion_tokens_details")
THOUGHTS = {"thinking": "thinking", "redacted_thinking": "data"}  # type of block -> its text


def shape_message(message: Chunk) -> None:
    """Remove the fields of a message or delta that have an undocumented form, in place.

    Tool calls are only brought into a list: see tool_calls.py. Raises UpstreamBadResponse if text
    or tool calls have such a form: the response would lack them.
    """
    for key in _wrong(message, MESSAGE):
        if key == "content" and isinstance(message[key], list):
            _join(message)
        elif key == "tool_calls" and isinstance(message[key], dict):
            message[key] = [message[key]]
        elif key in NEEDED:
            raise UpstreamBadResponse()
        else:
            del message[key]
    if function := message.get("function_call"):
        if not isinstance(function.get("name"), (str, type(None))):
            raise UpstreamBadResponse()
        function["arguments"] = text_of(function.get("arguments"))
    for key, fits in (("thinking_blocks", _is_thought), ("annotations", _is_annotation)):
        if key in message and not all(map(fits, message[key] or ())):
            del message[key]


def shape_choice(choice: Chunk) -> None:
    """Remove the fields of a choice that have an undocumented form, in place."""
    for key in _wrong(choice, CHOICE):
        del choice[key]
    logprobs = choice.get("logprobs")
    if logprobs and not all(_is_tokens(name, tokens) for name, tokens in logprobs.items()):
        choice["logprobs"] = None


def shape_usage(usage: Chunk) -> None:
    """Remove details of usage that are not counts, in place."""
    for name in DETAILS:
        if usage.get(name) is not None:
            counts = usage[name] if isinstance(usage[name], dict) else {}
            usage[name] = {key: count for key, count in counts.items() if _is_count(key, count)}


def _wrong(fields: Chunk, types: dict[str, type]) -> list[str]:
    return [
        key
        for key, value in fields.items()
        if value is not None and key in types and type(value) is not types[key]
    ]


def _join(message: Chunk) -> None:
    """Join content that comes in parts, thinking among them, as Mistral's reasoning models send."""
    texts: dict[str, list[str]] = {"text": [], "thinking": []}
    for part in message["content"]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts["text"].append(part["text"])
        elif kind == "thinking" and isinstance(part.get("thinking"), (str, list)):
            texts["thinking"] += _thinking(part["thinking"])
    message["content"] = "".join(texts["text"])
    if texts["thinking"] and not message.get("reasoning_content"):
        message["reasoning_content"] = "".join(texts["thinking"])


def _thinking(content: str | list[Any]) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [each["text"] for each in content if isinstance(each, dict) and "text" in each]


def _is_thought(block: Any) -> bool:
    words = THOUGHTS.get(str(block.get("type"))) if isinstance(block, dict) else None
    return words is not None and isinstance(block.get(words), str)


def _is_annotation(note: Any) -> bool:
    return isinstance(note, dict) and isinstance(note.get("type"), str)


def _is_count(name: str, count: Any) -> bool:
    # `cache_creation` alone is an object: see gateway/chat.py.
    return type(count) in ((dict,) if name == "cache_creation" else (int, type(None)))


def _is_tokens(name: str, tokens: Any) -> bool:
    # Older servers add lists of their own to OpenAI's two.
    of_objects = name in ("content", "refusal")
    if tokens is None or not isinstance(tokens, list):
        return tokens is None
    return not of_objects or all(isinstance(token, dict) for token in tokens)
