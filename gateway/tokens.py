"""Estimates of tokens where no provider has counted them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson

CHARACTERS_PER_TOKEN = 4  # of English text; other languages need fewer
# Fields of messages with text. Pictures, sound and files are not estimated: the estimate is low.
PROMPT_FIELDS = ("content", "text", "refusal", "reasoning_content", "arguments", "input")
CALLED = ("function", "custom")  # fields of tool calls with their text


def prompt_tokens(params: Mapping[str, Any]) -> int:
    """The tokens of a call's prompt, its tools included, about."""
    tools = params.get("tools") or params.get("functions")
    prompt = params.get("messages") or params.get("input")
    characters = _text_length(prompt) + (len(orjson.dumps(tools)) if tools else 0)
    return math.ceil(characters / CHARACTERS_PER_TOKEN)


def _text_length(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, int):  # embeddings take tokens too
        return CHARACTERS_PER_TOKEN
    if isinstance(value, list):
        return sum(map(_text_length, value))
    if isinstance(value, dict):
        inner = (value.get(name) for name in (*PROMPT_FIELDS, "tool_calls", *CALLED))
        return sum(map(_text_length, inner))
    return 0
