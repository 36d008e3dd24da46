"""What each provider reports of its usage, from its own words to 1e-9 USD, worked out by hand.

Prices are in USD for a million tokens, so that a token at 1 USD costs 1,000 nano. The text of a
usage is as the provider's documentation has it, or as a bug report of a gateway quotes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from gateway.account.pricing import price, prices_of
from gateway.account.usage import Usage, normal
from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.file import ModelRow
from gateway.chat import Chunk, fold
from gateway.settings import Settings
from providers.http.sse import EventSplitter
from tests.support import cases
from workers.usage import CallUsage

CATALOGUE = Catalogue.load(Settings())
OPENAI, ANTHROPIC = (cases.http_providers()[name].wire for name in ("openai", "anthropic"))

GOLDEN: dict[str, tuple[str, dict[str, Any], Usage, int]] = {
    # 0.1 and 0.5 USD, cached 0.01, cache writes 0.125.
    # 1,000 of 10,000 uncached: 100,000; 6,000 read: 60,000; 3,000 written: 375,000;
    # 500 of output, 400 of them thinking: 250,000
    "OpenAI: cache reads, cache writes and thinking are parts": (
        "openai/gpt-6-luna",
        {
            "prompt_tokens": 10_000,
            "completion_tokens": 500,
            "total_tokens": 10_500,
            "prompt_tokens_details": {
                "cached_tokens": 6_000,
                "cache_write_tokens": 3_000,
                "audio_tokens": 0,
            },
            "completion_tokens_details": {
                "reasoning_tokens": 400,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        Usage(input=1_000, cache_read=6_000, cache_write=3_000, output=500, reasoning=400),
        785_000,
    ),
    # Above 272,000: 0.2, 0.75 and 0.02 USD. 100,001: 20,000,200; 172,000: 3,440,000; 10: 7,500
    "OpenAI: a prompt above the tier, most of it cached": (
        "openai/gpt-6-luna",
        {
            "prompt_tokens": 272_001,
            "completion_tokens": 10,
            "total_tokens": 272_011,
            "prompt_tokens_details": {"cached_tokens": 172_000},
        },
        Usage(input=100_001, cache_read=172_000, output=10),
        23_447_700,
    ),
    # At 272,000: 0.1, 0.5 and 0.01 USD. 100,000: 10,000,000; 172,000: 1,720,000; 10: 5,000
    "OpenAI: a prompt of the tier's own size": (
        "openai/gpt-6-luna",
        {
            "prompt_tokens": 272_000,
            "completion_tokens": 10,
            "total_tokens": 272_010,
            "prompt_tokens_details": {"cached_tokens": 172_000},
        },
        Usage(input=100_000, cache_read=172_000, output=10),
        11_725_000,
    ),
    # 0.135 and 0.55 USD, cached 0.035. 36: 4,860; 64: 2,240; 5: 2,750
    "DeepSeek: hits and misses add up to the prompt": (
        "deepseek/deepseek-chat",
        {
            "prompt_tokens": 100,
            "completion_tokens": 5,
            "total_tokens": 105,
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 36,
            "prompt_tokens_details": {"cached_tokens": 64},
        },
        Usage(input=36, cache_read=64, output=5),
        9_850,
    ),
    # 3 and 15 USD, cached 0.75. 30: 90,000; 2: 1,500; 9 + 94 = 103: 1,545,000
    "xAI: thinking stands beside the completion": (
        "xai/grok-4",
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "prompt_tokens_details": {
                "text_tokens": 32,
                "audio_tokens": 0,
                "image_tokens": 0,
                "cached_tokens": 2,
            },
            "completion_tokens_details": {"reasoning_tokens": 94, "audio_tokens": 0},
            "num_sources_used": 0,
        },
        Usage(input=30, cache_read=2, output=103, reasoning=94),
        1_636_500,
    ),
    # 1.25 and 10 USD. 20: 25,000; 7 + 53 = 60: 600,000
    "Gemini: thinking is in the total alone": (
        "gemini/gemini-2.5-pro",
        {"prompt_tokens": 20, "completion_tokens": 7, "total_tokens": 80},
        Usage(input=20, output=60, reasoning=53),
        625_000,
    ),
    # 0.3 and 2.5 USD, audio 1. 10 of text: 3,000; 250 of audio: 250,000; 4: 10,000
    "Gemini: audio in the prompt": (
        "gemini/gemini-2.5-flash",
        {
            "prompt_tokens": 260,
            "completion_tokens": 4,
            "total_tokens": 264,
            "prompt_tokens_details": {"audio_tokens": 250},
        },
        Usage(input=260, input_audio=250, output=4),
        263_000,
    ),
    # 0.3 and 2.5 USD, images 30. 8: 2,400; 2 of text: 5,000; 1,290 of an image: 38,700,000
    "Gemini: an image in the response": (
        "gemini/gemini-2.5-flash-image",
        {
            "prompt_tokens": 8,
            "completion_tokens": 1_292,
            "total_tokens": 1_300,
            "completion_tokens_details": {"image_tokens": 1_290},
        },
        Usage(input=8, output=1_292, output_image=1_290),
        38_707_400,
    ),
    # 0.57 and 2.3 USD, no price of cached tokens: as others. 100: 57,000; 10: 23,000
    "Moonshot's models at OpenRouter: cached tokens beside the details": (
        "openrouter/moonshotai/kimi-k2",
        {
            "prompt_tokens": 100,
            "completion_tokens": 10,
            "total_tokens": 110,
            "cached_tokens": 40,
            "cost": 0.00008,
        },
        Usage(input=60, cache_read=40, output=10),
        80_000,
    ),
    # 0.15 and 0.6 USD, cached 0.075. 20: 3,000; 12: 900; 6: 3,600
    "Groq: times stand among the counts": (
        "groq/openai/gpt-oss-120b",
        {
            "queue_time": 0.05,
            "prompt_tokens": 32,
            "prompt_time": 0.001,
            "completion_tokens": 6,
            "completion_time": 0.01,
            "total_tokens": 38,
            "total_time": 0.011,
            "prompt_tokens_details": {"cached_tokens": 12},
            "completion_tokens_details": {"reasoning_tokens": 4},
        },
        Usage(input=20, cache_read=12, output=6, reasoning=4),
        7_500,
    ),
}


def row_of(model: str) -> tuple[ModelRow, str]:
    target = CATALOGUE.resolve(model)
    return target.row, target.upstream_model


def nano(model: str, usage: Usage) -> int:
    row, upstream = row_of(model)
    return price(usage, prices_of(row, upstream, usage.prompt))


def decoded(wire: Any, stream: bytes) -> Iterator[Chunk]:
    splitter, decoder = EventSplitter(), wire.decoder()
    for event, data in (*splitter.feed(stream), *splitter.close()):
        yield from decoder.feed(event, data)


def of_stream(wire: Any, stream: bytes) -> dict[str, Any]:
    usage = CallUsage()
    for chunk in decoded(wire, stream):
        usage.add([chunk])
    return usage.so_far(b'{"messages":[]}')


def of_whole(response: Chunk) -> dict[str, Any]:
    usage = CallUsage()
    usage.add_whole(response)
    return usage.so_far(b'{"messages":[]}')


def sse(*events: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % orjson.dumps(event) for event in events)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_token_is_priced_once_whole_and_streamed(name: str) -> None:
    model, usage, expected, cost = GOLDEN[name]
    message = {"role": "assistant", "content": "Hi"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    whole = OPENAI.response(
        {"id": "1", "choices": [choice], "usage": orjson.loads(orjson.dumps(usage))}
    )
    found = normal(of_whole(whole))
    assert (found, nano(model, found)) == (expected, cost)

    streams = [
        # The usage in a chunk of its own, as OpenAI sends it ...
        sse(
            {"id": "1", "choices": [{"index": 0, "delta": message, "finish_reason": None}]},
            {"id": "1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"id": "1", "choices": [], "usage": usage},
        ),
        # ... and in the last chunk, and zeros in the first, as others do.
        sse(
            {
                "id": "1",
                "choices": [{"index": 0, "delta": message, "finish_reason": None}],
                "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
            },
            {
                "id": "1",
                "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
                "usage": usage,
            },
        ),
    ]
    for stream in streams:
        assert normal(of_stream(OPENAI, stream)) == expected


def anthropic(start: dict[str, Any], end: dict[str, Any] | None) -> bytes:
    """A message of three deltas; without `end`, it breaks off after them."""
    text = {"type": "text_delta", "text": "abcd"}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "msg_1", "usage": start}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *[{"type": "content_block_delta", "index": 0, "delta": text}] * 3,
    ]
    if end is not None:
        events += [
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": end},
            {"type": "message_stop"},
        ]
    return sse(*events)


# Claude Sonnet 4.5: 3 and 15 USD; cache reads 0.3, writes 3.75 (5 minutes) and 6 (an hour); above
# 200,000 tokens twice as much, and 22.5 for output.
CACHED = {
    "input_tokens": 20,
    "cache_read_input_tokens": 1_000,
    "cache_creation_input_tokens": 300,
    "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
    "output_tokens": 1,
    "service_tier": "standard",
}


@pytest.mark.parametrize(
    ("start", "end", "expected", "cost"),
    [
        # 20 * 3,000 + 50 * 15,000
        (
            {"input_tokens": 20, "output_tokens": 1},
            {"output_tokens": 50},
            Usage(20, output=50),
            810_000,
        ),
        # 20 * 3,000 + 1,000 * 300 + 200 * 3,750 + 100 * 6,000 + 50 * 15,000; the counts of the end
        # are those of the whole message, not of what came since the start
        (
            CACHED,
            {**CACHED, "output_tokens": 50},
            Usage(20, 1_000, 200, 100, 50),
            60_000 + 300_000 + 750_000 + 600_000 + 750_000,
        ),
        # Without the split by TTL all writes are of 5 minutes: 300 * 3,750
        (
            {"input_tokens": 20, "cache_creation_input_tokens": 300, "output_tokens": 1},
            {"output_tokens": 50},
            Usage(20, 0, 300, 0, 50),
            60_000 + 1_125_000 + 750_000,
        ),
        # Thinking is a part of the output, at its price: 50 * 15,000
        (
            {"input_tokens": 20, "output_tokens": 1},
            {"output_tokens": 50, "output_tokens_details": {"thinking_tokens": 30}},
            Usage(20, output=50, reasoning=30),
            810_000,
        ),
        # Above the tier by its cached tokens: 1 * 6,000 + 200,000 * 600 + 2 * 22,500
        (
            {"input_tokens": 1, "cache_read_input_tokens": 200_000, "output_tokens": 1},
            {"output_tokens": 2},
            Usage(1, 200_000, output=2),
            120_051_000,
        ),
    ],
)
def test_anthropic_counts_what_is_cached_beside_the_rest(
    start: dict[str, Any], end: dict[str, Any], expected: Usage, cost: int
) -> None:
    stream = anthropic(start, end)
    found = normal(of_stream(ANTHROPIC, stream))
    assert (found, nano("anthropic/claude-sonnet-4-5", found)) == (expected, cost)
    assert normal(of_whole(fold(decoded(ANTHROPIC, stream)))) == expected


def test_an_estimate_keeps_what_the_provider_counted_of_the_prompt_and_is_marked() -> None:
    usage = of_stream(ANTHROPIC, anthropic(CACHED, None))
    assert usage["estimated"] is True
    # 12 characters in three deltas are 3 tokens, at 15,000 nano
    found = normal(usage)
    assert found == Usage(20, 1_000, 200, 100, 3)
    assert (
        nano("anthropic/claude-sonnet-4-5", found) == 60_000 + 300_000 + 750_000 + 600_000 + 45_000
    )


def test_a_gateway_that_speaks_both_dialects_is_not_charged_twice() -> None:
    """LiteLLM's usage of Claude: OpenAI's counts, which include Anthropic's beside them."""
    usage = {
        "prompt_tokens": 1_320,
        "completion_tokens": 50,
        "total_tokens": 1_370,
        "prompt_tokens_details": {"cached_tokens": 1_000, "cache_creation_tokens": 300},
        "cache_creation_input_tokens": 300,
        "cache_read_input_tokens": 1_000,
    }
    assert normal(usage) == Usage(20, 1_000, 300, 0, 50)
