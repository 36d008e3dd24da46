"""The usage of calls: the provider's count, or an estimate.

Providers report usage at the end of a response, which a connection that is closed before never
receives. What was read and written until then was used all the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.account.usage import MAX_TOKENS
from gateway.chat import CALLED, Chunk
from gateway.tokens import CHARACTERS_PER_TOKEN, prompt_tokens

# OpenAI's counts. What else a provider adds to usage is its own business.
COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
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


def _counts(usage: Mapping[str, Any]) -> bool:
    """Return whether a usage counts anything: some providers send zeros at first, or always."""
    return bool(usage.get("prompt_tokens") or usage.get("completion_tokens"))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_TOKENS  # a bool is an int as well


def _drop_wrong_counts(details: dict[str, Any]) -> None:
    for name, value in list(details.items()):
        if name.endswith("_tokens") and value is not None and not _is_count(value):
            del details[name]


def last_count(chunks: list[Chunk]) -> dict[str, Any] | None:
    """Return the last usage in these chunks, None if there is none that can be right."""
    usages = (take_count(chunk) for chunk in reversed(chunks))
    return next((usage for usage in usages if usage and _counts(usage)), None)


class CallUsage:
    """What an attempt has used so far; `counted` is the provider's latest count, if there is one.

    `end` is the chunk, or the response, in which a choice ended last.
    """

    __slots__ = ("characters", "counted", "deltas", "early", "end")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.counted: dict[str, Any] | None = None
        self.early = False  # was the latest count made before the first text?
        self.characters = 0
        self.deltas = 0
        self.end: Chunk = {}

    def add(self, chunks: list[Chunk]) -> None:
        """Count chunks that are to be sent, and take wrong usage out of them."""
        for chunk in chunks:
            for choice in chunk["choices"]:
                if choice.get("finish_reason"):
                    self.end = chunk
                delta = choice.get("delta")
                if delta:
                    self.deltas += 1
                    self.characters += _delta_length(delta)
            if "usage" in chunk and (usage := take_count(chunk)) and _counts(usage):
                self.counted, self.early = usage, not self.characters

    def add_whole(self, response: Chunk) -> None:
        """Count a whole response, in place of the chunks that it was made of."""
        usage = take_count(response)
        self.counted = usage if usage and _counts(usage) else None
        self.deltas = self.characters = 0
        for choice in response.get("choices") or ():
            if choice.get("finish_reason"):
                self.end = response
            if message := choice.get("message"):
                self.deltas += 1
                self.characters += _delta_length(message)
        self.early = False

    def so_far(self, body: bytes, prompt_estimate: int = 0, unseen: int = 0) -> dict[str, Any]:
        """Return the provider's count, or an estimate: OpenAI's counts and `"estimated": True`.

        `body` is the JSON of the call's parameters. `prompt_estimate` is an earlier estimate of
        its tokens; 0: none was made. `unseen` is how many tokens were written that nobody has seen.
        """
        counted = self.counted or {}
        # A count before the first text, or one without a completion, is of the prompt alone.
        of_prompt = self.early or not counted.get("completion_tokens")
        if counted and not (self.characters and of_prompt):
            return counted
        # Hardly any provider sends less than a token at a time.
        written = max(self.deltas, math.ceil(self.characters / CHARACTERS_PER_TOKEN))
        written = written if self.characters else unseen
        prompt = counted.get("prompt_tokens") or prompt_estimate
        prompt = prompt or prompt_tokens(orjson.loads(body))
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
    characters = 0
    for name in DELTA_FIELDS:
        characters += len(delta.get(name) or "")
    for call in delta.get("tool_calls") or ():
        for kind, field in CALLED.items():
            characters += len((call.get(kind) or {}).get(field) or "")
    return characters
