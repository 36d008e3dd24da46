"""The usage of calls: the provider's count, or an estimate.

Providers report usage at the end of a response, which a connection that is closed before never
receives. What was read and written until then was used all the same.
"""

from __future__ import annotations

import math
from typing import Any

import orjson

from gateway.chat import CALLED, Chunk
from gateway.tokens import CHARACTERS_PER_TOKEN, prompt_tokens

# OpenAI's counts. What else a provider adds to usage is its own business.
COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
MAX_COUNT = 2**53  # larger integers lose digits in many JSON readers
DELTA_FIELDS = ("content", "reasoning_content", "refusal")


def take_count(chunk: Chunk) -> dict[str, Any] | None:
    """Return the usage of a chunk, None if there is none that can be right.

    A usage whose counts are negative or no numbers is taken out of the chunk; of its details, only
    those that are.
    """
    usage = chunk.get("usage")
    if not usage:
        return None
    if type(usage) is dict and all(_is_count(usage[name]) for name in COUNTS if name in usage):
        for details in usage.values():
            if type(details) is dict:
                _drop_wrong_counts(details)
        return usage
    del chunk["usage"]
    return None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_COUNT  # a bool is an int as well


def _drop_wrong_counts(details: dict[str, Any]) -> None:
    for name, value in list(details.items()):
        if name.endswith("_tokens") and value is not None and not _is_count(value):
            del details[name]


class StreamUsage:
    """The usage of a stream so far; `counted` is the provider's latest count, if there is one."""

    __slots__ = ("characters", "counted", "deltas", "deltas_counted")

    def __init__(self) -> None:
        self.counted: dict[str, Any] | None = None
        self.deltas_counted = 0  # deltas that came before the latest count
        self.characters = 0
        self.deltas = 0

    def add(self, chunks: list[Chunk]) -> None:
        """Count chunks that are to be sent, and take wrong usage out of them."""
        for chunk in chunks:
            if "usage" in chunk and (usage := take_count(chunk)):
                self.counted, self.deltas_counted = usage, self.deltas
            for choice in chunk["choices"]:
                delta = choice.get("delta")
                if delta:
                    self.deltas += 1
                    self.characters += _delta_length(delta)

    def so_far(self, body: bytes) -> dict[str, Any]:
        """Return the provider's count, or an estimate: OpenAI's counts and `"estimated": True`.

        `body` is the JSON of the call's parameters.
        """
        if self.counted is not None and (self.deltas_counted or not self.deltas):
            return self.counted
        # Hardly any provider sends less than a token at a time.
        written = max(self.deltas, math.ceil(self.characters / CHARACTERS_PER_TOKEN))
        written = written if self.characters else 0
        # A count before the first delta is of the prompt alone.
        counted = self.counted or {}
        prompt = counted.get("prompt_tokens") or prompt_tokens(orjson.loads(body))
        return {
            **counted,
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            "estimated": True,
        }


def _delta_length(delta: Chunk) -> int:
    text = delta.get("content")
    if text and len(delta) == 1:  # nearly always
        return len(text)
    characters = sum(len(delta.get(name) or "") for name in DELTA_FIELDS)
    for call in delta.get("tool_calls") or ():
        for kind, field in CALLED.items():
            characters += len((call.get(kind) or {}).get(field) or "")
    return characters
