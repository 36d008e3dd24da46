"""Estimates of tokens where no provider has counted them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson

CHARACTERS_PER_TOKEN = 4  # of English text; in a prompt, bytes of UTF-8 count for others
TOKENS_PER_SECOND = 50  # that a model writes, about: hosted ones write 30 to 150
# Texts of messages, parts and tool calls.
TEXTS = ("content", "text", "refusal", "reasoning_content", "arguments", "input")
CALLED = ("function", "custom")  # fields of tool calls with their text
BESIDE = ("tools", "functions", "response_format", "prediction")  # of a call, beside its messages

# Type of a part -> the field with its data, the characters of base64 that make a token, and the
# tokens of one whose data is elsewhere. About: an image of a million pixels has 765 tokens at
# OpenAI, 1,300 at Anthropic and 258 to 1,290 at Google; a page of PDF 2,000 and 50 to 150 kB; a
# second of sound 10 to 32, of video 263.
MEDIA: dict[str, tuple[str, float, int]] = {
    "image_url": ("url", math.inf, 1_000),
    "input_audio": ("data", 1_000, 1_000),
    "audio_url": ("url", 1_000, 1_000),
    "video_url": ("url", 1_000, 5_000),
    "file": ("file_data", 50, 5_000),
}


def prompt_tokens(params: Mapping[str, Any]) -> int:
    """Return the tokens of a call's prompt, its tools and its schema included, about.

    Text is counted by its length. Images, sound and files are not text: see MEDIA.
    """
    characters = 0
    for name in BESIDE:
        if value := params.get(name):
            characters += len(orjson.dumps(value))
    messages = params.get("messages")
    if messages is None:
        return math.ceil((characters + _input_length(params.get("input"))) / CHARACTERS_PER_TOKEN)
    media = 0
    for message in messages:
        content = message.get("content")
        if type(content) is str:
            characters += _size(content)
        elif content:
            for part in content:
                if type(text := part.get("text")) is str:
                    characters += _size(text)
                else:
                    media += _media_tokens(part)
                    characters += _length(part)
        if len(message) > 2:
            characters += _length(message, TEXTS[1:])
    return media + math.ceil(characters / CHARACTERS_PER_TOKEN)


def _size(text: str) -> int:
    """Return the bytes of a text: a Chinese character is about a token, and has three."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def _length(fields: Mapping[str, Any], texts: tuple[str, ...] = TEXTS) -> int:
    """Return the characters in a message, a part, or a tool call."""
    characters = 0
    for name in texts:
        if type(text := fields.get(name)) is str:
            characters += _size(text)
    if called := fields.get("function_call"):
        characters += _length(called)
    for call in fields.get("tool_calls") or ():
        for kind in CALLED:
            if called := call.get(kind):
                characters += _length(called)
    return characters


def _media_tokens(part: Mapping[str, Any]) -> int:
    kind = part.get("type")
    if type(kind) is not str or kind not in MEDIA:
        return 0
    field, per_token, elsewhere = MEDIA[kind]
    holder = part.get(kind)
    data = holder.get(field) if isinstance(holder, Mapping) else None
    if type(data) is not str or data.startswith("http") or per_token == math.inf:
        return elsewhere
    if data.startswith("data:text/"):
        per_token = CHARACTERS_PER_TOKEN * 4 / 3
    return math.ceil(len(data) / per_token)


def _input_length(value: Any) -> int:
    """Return the characters of an input of embeddings: texts, or tokens that are counted."""
    if isinstance(value, str):
        return _size(value)
    if not value:
        return 0
    if isinstance(value[0], int):
        return CHARACTERS_PER_TOKEN * len(value)
    return sum(map(_input_length, value))
