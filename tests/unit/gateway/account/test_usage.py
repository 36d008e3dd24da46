"""gateway/account/usage.py: each provider's usage in one form, in which nothing counts twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.account.usage import Usage, normal

OPENAI = {"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140}


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ({}, Usage(input=100, output=40)),
        # OpenAI: cached tokens and cache writes are parts of the prompt, thinking of the output.
        (
            {
                "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 30},
            },
            Usage(input=40, cache_read=60, output=40, reasoning=30),
        ),
        (
            {"prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 30}},
            Usage(input=50, cache_read=20, cache_write=30, output=40),
        ),
        # Anthropic, as the wire has it: 20 were read, 30 written, 10 of them for an hour.
        (
            {
                "prompt_tokens_details": {
                    "cached_tokens": 20,
                    "cache_write_tokens": 30,
                    "cache_creation": {
                        "ephemeral_5m_input_tokens": 20,
                        "ephemeral_1h_input_tokens": 10,
                    },
                }
            },
            Usage(input=50, cache_read=20, cache_write=20, cache_write_1h=10, output=40),
        ),
        # Anthropic through other gateways: its own names beside OpenAI's. 100 exclude the 400.
        (
            {"cache_read_input_tokens": 400, "cache_creation_input_tokens": 50},
            Usage(input=100, cache_read=400, cache_write=50, output=40),
        ),
        (
            {"cache_read_input_tokens": 40, "prompt_tokens_details": {"cached_tokens": 40}},
            Usage(input=60, cache_read=40, output=40),
        ),
        # DeepSeek
        (
            {"prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36},
            Usage(input=36, cache_read=64, output=40),
        ),
        # Moonshot
        ({"cached_tokens": 10}, Usage(input=90, cache_read=10, output=40)),
        # Thinking that is more than the output cannot be a part of it (xAI without a right total).
        (
            {"completion_tokens_details": {"reasoning_tokens": 90}},
            Usage(input=100, output=130, reasoning=90),
        ),
        # Audio, of which 5 tokens do not fit into what was not cached.
        (
            {
                "prompt_tokens_details": {"cached_tokens": 80, "audio_tokens": 25},
                "completion_tokens_details": {"audio_tokens": 30, "reasoning_tokens": 5},
            },
            Usage(
                input=20,
                cache_read=80,
                output=40,
                reasoning=5,
                input_audio=20,
                cache_read_audio=5,
                output_audio=30,
            ),
        ),
        (
            {
                "prompt_tokens_details": {"image_tokens": 70},
                "completion_tokens_details": {"image_tokens": 40},
            },
            Usage(input=100, output=40, input_image=70, output_image=40),
        ),
        # What is null or no count is 0.
        (
            {
                "prompt_tokens_details": None,
                "completion_tokens_details": {"reasoning_tokens": None, "audio_tokens": "1"},
                "cached_tokens": -4,
                "queue_time": 0.5,
            },
            Usage(input=100, output=40),
        ),
    ],
)
def test_the_conventions_of_each_provider_have_one_form(details, expected):
    assert normal({**OPENAI, **details}) == expected


def test_an_estimate_and_an_embedding_are_in_the_same_form():
    estimate = {**OPENAI, "estimated": True}
    assert normal(estimate) == Usage(input=100, output=40)
    assert normal({"prompt_tokens": 8, "total_tokens": 8}) == Usage(input=8)
    assert normal(None) == normal({}) == Usage()


COUNTS = st.integers(0, 1_000)


@given(
    st.fixed_dictionaries(
        {"prompt_tokens": COUNTS, "completion_tokens": COUNTS},
        optional={
            "cached_tokens": COUNTS,
            "cache_read_input_tokens": COUNTS,
            "reasoning_tokens": COUNTS,
            "prompt_tokens_details": st.dictionaries(
                st.sampled_from(
                    ["cached_tokens", "cache_write_tokens", "audio_tokens", "image_tokens"]
                ),
                COUNTS,
            ),
            "completion_tokens_details": st.dictionaries(
                st.sampled_from(["reasoning_tokens", "audio_tokens", "image_tokens"]), COUNTS
            ),
        },
    )
)
def test_whatever_a_provider_counts_no_part_is_larger_than_its_whole(usage):
    found = normal(usage)
    assert min(found.to_dict().values(), default=0) >= 0
    assert found.input_audio + found.input_image <= found.input
    assert found.cache_read_audio <= found.cache_read
    assert found.reasoning + found.output_audio + found.output_image <= found.output
    assert found.prompt >= usage["prompt_tokens"]


def test_a_usage_is_written_without_zeros_and_read_again():
    usage = Usage(input=5, output=7, reasoning=3)
    assert usage.to_dict() == {"input": 5, "output": 7, "reasoning": 3}
    assert Usage.from_dict({**usage.to_dict(), "of a later release": 1}) == usage


def test_usages_add_up():
    assert Usage(1, 2, 3, 4, 5).plus(Usage(10, output=50)) == Usage(11, 2, 3, 4, 55)
    assert (Usage(1, 2, 3, 4, 5).prompt, Usage(1, 2, 3, 4, 5).tokens) == (10, 15)
