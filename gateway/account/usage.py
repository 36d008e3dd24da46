"""What a call has used, in one form for all providers.

Providers count the same tokens in different places: cached ones inside the prompt (OpenAI) or
beside it (Anthropic), thinking inside the completion or beside it (xAI). The wires bring most of it
into OpenAI's form; `normal` does the rest, so that no token is priced twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

MAX_TOKENS = 10**9  # of a call, in any count: more would not fit into the counters of Redis


class Usage(NamedTuple):
    """Tokens of a call. The first five are disjoint and add up to `tokens`.

    `input` is what was read uncached, `cache_write` what was written to a cache of 5 minutes or of
    no stated TTL. `reasoning`, `output_audio` and `output_image` are parts of `output`,
    `input_audio` and `input_image` parts of `input`, `cache_read_audio` is a part of `cache_read`.
    (A tuple, because each call makes one: a frozen dataclass takes three times as long.)
    """

    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    input_audio: int = 0
    cache_read_audio: int = 0
    output_audio: int = 0
    input_image: int = 0
    output_image: int = 0

    @property
    def prompt(self) -> int:
        """All tokens of the prompt, cached or not."""
        return self.input + self.cache_read + self.cache_write + self.cache_write_1h

    @property
    def tokens(self) -> int:
        """All tokens of the call: what limits count."""
        return self.prompt + self.output

    def plus(self, other: Usage) -> Usage:
        """Return the sum of both."""
        return Usage(*map(int.__add__, self, other))

    def to_dict(self) -> dict[str, int]:
        """Return the counts that are not 0."""
        return {name: count for name, count in zip(NAMES, self, strict=True) if count}

    @staticmethod
    def from_dict(counts: Mapping[str, int]) -> Usage:
        """Return the usage of which `to_dict` made these counts. Unknown names are ignored."""
        return Usage(**{name: counts[name] for name in NAMES if name in counts})


NAMES = Usage._fields
PROMPT = ("input", "cache_read", "cache_write", "cache_write_1h")
STANDARD = frozenset(
    {"prompt_tokens", "completion_tokens", "total_tokens"}
    | {"prompt_tokens_details", "completion_tokens_details"}
)
READ = (
    "cached_tokens",  # Moonshot, Together
    "prompt_cache_hit_tokens",  # DeepSeek
    "cache_read_input_tokens",  # Anthropic's, through other gateways
)
NONE = Usage()


def normal(usage: Mapping[str, Any] | None) -> Usage:
    """Return the normal form of a usage in OpenAI's form, as the wires and estimates have it.

    Counts that are missing, or are no counts, are 0.
    """
    if not usage:
        return NONE
    prompt, output = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    of_prompt = usage.get("prompt_tokens_details")
    of_output = usage.get("completion_tokens_details")
    more = not usage.keys() <= STANDARD  # names that only some providers have
    if not (of_prompt or of_output or more):
        return Usage(prompt, 0, 0, 0, output)

    counts = of_prompt if type(of_prompt) is dict else {}
    read, written, hour = _count(counts, "cached_tokens"), _count(counts, "cache_write_tokens"), 0
    audio, image = _count(counts, "audio_tokens"), _count(counts, "image_tokens")
    by_ttl = counts.get("cache_creation")
    if more:
        read = read or next((count for name in READ if (count := _count(usage, name))), 0)
        written = written or _count(usage, "cache_creation_input_tokens")
        by_ttl = by_ttl or usage.get("cache_creation")
    if type(by_ttl) is dict:
        hour = _count(by_ttl, "ephemeral_1h_input_tokens")
        written = max(written, hour + _count(by_ttl, "ephemeral_5m_input_tokens"))
    # More than the whole cannot be a part of it: such a provider counts it beside the prompt.
    uncached = prompt - read - written if read + written <= prompt else prompt
    # Nobody says how much of the audio was cached: what does not fit into the rest.
    cached_audio = min(max(audio - uncached, 0), read)
    input_audio = min(audio - cached_audio, uncached)
    input_image = min(image, uncached - input_audio)

    counts = of_output if type(of_output) is dict else {}
    reasoning = _count(counts, "reasoning_tokens")
    if more:
        reasoning = reasoning or _count(usage, "reasoning_tokens")
    if reasoning > output:
        output += reasoning
    output_audio = min(_count(counts, "audio_tokens"), output - reasoning)
    output_image = min(_count(counts, "image_tokens"), output - reasoning - output_audio)
    return Usage(
        uncached,
        read,
        written - hour,
        hour,
        output,
        reasoning,
        input_audio,
        cached_audio,
        output_audio,
        input_image,
        output_image,
    )


def _count(counts: Mapping[str, Any], name: str) -> int:
    count = counts.get(name, 0)
    return count if type(count) is int and 0 < count <= MAX_TOKENS else 0
