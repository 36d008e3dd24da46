"""What a call has used that was stopped before its provider had told: an estimate.

Providers count at the end of an answer, and a connection that is closed before never hears it. What
had been read and written until then was used all the same.
"""

from __future__ import annotations

import math
from typing import Any

import orjson

from gateway.chat import CALLED, Chunk

CHARACTERS_A_TOKEN = 4  # of English text; other languages need fewer
# Of a message: its text. Pictures, sound and files are not in the estimate, which is thus too low.
TEXTS = ("content", "text", "refusal", "reasoning_content", "arguments", "input")
SAID = ("content", "reasoning_content", "refusal")


class Written:
    """What a stream has said so far; `counted` is the provider's usage, once that is known."""

    __slots__ = ("characters", "counted", "parts")

    def __init__(self) -> None:
        self.counted: dict[str, Any] | None = None
        self.characters = 0
        self.parts = 0

    def add(self, parts: list[Chunk]) -> None:
        """Take note of parts that are sent."""
        for part in parts:
            self.counted = part.get("usage") or self.counted
            for choice in part["choices"]:
                delta = choice.get("delta")
                if delta:
                    self.parts += 1
                    self.characters += _said(delta)

    def used(self, body: bytes) -> dict[str, Any]:
        """The call's usage as far as it has come: the provider's count, or an estimate.

        An estimate has `"estimated": True` beside OpenAI's three counts. `body` is the JSON of the
        call's parameters.
        """
        if self.counted is not None:
            return self.counted
        # Hardly a provider sends less than a token at a time.
        written = max(self.parts, math.ceil(self.characters / CHARACTERS_A_TOKEN))
        prompt = math.ceil(_asked(orjson.loads(body)) / CHARACTERS_A_TOKEN)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written if self.characters else 0,
            "total_tokens": prompt + (written if self.characters else 0),
            "estimated": True,
        }


def _said(delta: Chunk) -> int:
    text = delta.get("content")
    if text and len(delta) == 1:  # nearly always
        return len(text)
    characters = sum(len(delta.get(name) or "") for name in SAID)
    for call in delta.get("tool_calls") or ():
        for kind, what in CALLED.items():
            characters += len((call.get(kind) or {}).get(what) or "")
    return characters


def _asked(parameters: dict[str, Any]) -> int:
    """Characters of text in a prompt, its tools included."""
    tools = parameters.get("tools") or parameters.get("functions")
    prompt = parameters.get("messages") or parameters.get("input")
    return _text(prompt) + (len(orjson.dumps(tools)) if tools else 0)


def _text(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, int):  # embeddings may be asked for with tokens
        return CHARACTERS_A_TOKEN
    if isinstance(value, list):
        return sum(map(_text, value))
    if isinstance(value, dict):
        inner = (value.get(name) for name in (*TEXTS, "tool_calls", *CALLED))
        return sum(map(_text, inner))
    return 0
