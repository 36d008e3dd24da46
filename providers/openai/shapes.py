"""What the fields of an answer must be, whoever is compatible with OpenAI: nobody after relies on
less, so a sloppy upstream breaks no stream in the middle of it."""

from __future__ import annotations

from typing import Any

from gateway.chat import CALLED, Chunk
from gateway.errors import UpstreamBadResponse

# Field of a message or delta -> its type. What is of another type is left out, but for NEEDED.
SAID: dict[str, type] = {
    "content": str,
    "refusal": str,
    "reasoning_content": str,
    "thinking_blocks": list,
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


def shape_said(said: Chunk) -> None:
    """Leave out what is not of its documented form, in place.

    Raises UpstreamBadResponse where text or tool calls are not: the answer would lack them.
    """
    for key in _wrong(said, SAID):
        if key == "content" and isinstance(said[key], list):
            _join(said)
        elif key in NEEDED:
            raise UpstreamBadResponse()
        else:
            del said[key]
    if calls := said.get("tool_calls"):
        said["tool_calls"] = [call for call in calls if isinstance(call, dict)]
        for call in said["tool_calls"]:
            _check_call(call)
    for key, fits in (("thinking_blocks", _is_thought), ("annotations", _is_annotation)):
        if key in said and not all(map(fits, said[key] or ())):
            del said[key]


def shape_choice(choice: Chunk) -> None:
    """The same for what stands beside a message or delta."""
    for key in _wrong(choice, CHOICE):
        del choice[key]
    logprobs = choice.get("logprobs")
    if logprobs and not all(_is_tokens(name, tokens) for name, tokens in logprobs.items()):
        choice["logprobs"] = None


def shape_usage(usage: Chunk) -> None:
    """Leave out details that count nothing, in place."""
    for name in DETAILS:
        if usage.get(name) is not None:
            told = usage[name] if isinstance(usage[name], dict) else {}
            usage[name] = {key: count for key, count in told.items() if _is_count(key, count)}


def _wrong(said: Chunk, kinds: dict[str, type]) -> list[str]:
    return [
        key
        for key, value in said.items()
        if value is not None and key in kinds and type(value) is not kinds[key]
    ]


def _join(said: Chunk) -> None:
    """Text in parts, as Mistral's reasoning models tell it, their thinking among it."""
    texts: dict[str, list[str]] = {"text": [], "thinking": []}
    for part in said["content"]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts["text"].append(part["text"])
        elif kind == "thinking" and isinstance(part.get("thinking"), (str, list)):
            texts["thinking"] += _thinking(part["thinking"])
    said["content"] = "".join(texts["text"])
    if texts["thinking"] and not said.get("reasoning_content"):
        said["reasoning_content"] = "".join(texts["thinking"])


def _thinking(told: Any) -> list[str]:
    if isinstance(told, str):
        return [told]
    return [each["text"] for each in told if isinstance(each, dict) and "text" in each]


def _check_call(call: Chunk) -> None:
    for kind, words in CALLED.items():
        called = call.get(kind)
        if called is None:
            continue
        if not isinstance(called, dict):
            raise UpstreamBadResponse()
        for name in ("name", words):
            if not isinstance(called.get(name), (str, type(None))):
                raise UpstreamBadResponse()


def _is_thought(block: Any) -> bool:
    words = THOUGHTS.get(str(block.get("type"))) if isinstance(block, dict) else None
    return words is not None and isinstance(block.get(words), str)


def _is_annotation(note: Any) -> bool:
    return isinstance(note, dict) and isinstance(note.get("type"), str)


def _is_count(name: str, count: Any) -> bool:
    # Only a cache is counted in parts: see gateway/chat.py.
    return type(count) in ((dict,) if name == "cache_creation" else (int, type(None)))


def _is_tokens(name: str, tokens: Any) -> bool:
    # Older servers have lists of their own beside OpenAI's two.
    of_objects = name in ("content", "refusal")
    if tokens is None or not isinstance(tokens, list):
        return tokens is None
    return not of_objects or all(isinstance(token, dict) for token in tokens)
