"""workers/usage.py: what a call has used that was stopped before its provider told."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.account.usage import MAX_TOKENS
from gateway.chat import Chunk
from tests.support.fakes import USAGE
from workers.usage import CallUsage, take_count

ASKED = {"messages": [{"role": "user", "content": "x" * 40}]}


def delta(**fields: Any) -> Chunk:
    return {"choices": [{"index": 0, "delta": fields}]}


def used(*parts: Chunk, asked: dict[str, Any] = ASKED) -> dict[str, Any]:
    usage = CallUsage()
    for part in parts:
        usage.add([part])
    return usage.so_far(orjson.dumps(asked))


def test_what_the_provider_counted_is_what_was_used() -> None:
    counted = {"choices": [], "usage": USAGE}
    assert used(delta(content="a" * 400), counted, delta(content="b")) == USAGE


def test_a_count_of_the_prompt_alone_is_completed_by_an_estimate() -> None:
    prompt = {"prompt_tokens": 500, "completion_tokens": 1, "total_tokens": 501}
    counted = {"choices": [], "usage": prompt}
    assert used(counted, delta(content="a" * 40)) == {
        "prompt_tokens": 500,
        "completion_tokens": 10,
        "total_tokens": 510,
        "estimated": True,
    }
    assert used(counted, delta(content="a"), {"choices": [], "usage": USAGE}) == USAGE


@pytest.mark.parametrize("prompt", [0, 500])
def test_a_count_without_a_completion_is_completed_by_an_estimate(prompt: int) -> None:
    usage = {"prompt_tokens": prompt, "completion_tokens": 0, "total_tokens": prompt}
    counted = {**delta(content="a" * 40), "usage": usage}
    assert used(counted) == {
        "prompt_tokens": prompt or 10,
        "completion_tokens": 10,
        "total_tokens": 10 + (prompt or 10),
        "estimated": True,
    }


def test_without_a_count_four_characters_are_a_token() -> None:
    assert used(delta(content="a" * 20), delta(content="b" * 21)) == {
        "prompt_tokens": 10,
        "completion_tokens": 11,
        "total_tokens": 21,
        "estimated": True,
    }


def test_a_part_is_a_token_at_least() -> None:
    assert used(*[delta(content="字")] * 7)["completion_tokens"] == 7


def test_before_the_first_text_only_the_prompt_was_used() -> None:
    for opening in ([], [delta(role="assistant", content="")], [delta(role="assistant")]):
        assert used(*opening)["completion_tokens"] == 0
        assert used(*opening)["total_tokens"] == 10


@pytest.mark.parametrize(
    "fields",
    [
        {"content": "abcdefgh", "role": "assistant"},
        {"content": None, "refusal": "abcdefgh"},
        {"reasoning_content": "abcdefgh"},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "abcdefgh"}}]},
        {"tool_calls": [{"index": 0, "custom": {"name": "f", "input": "abcdefgh"}}]},
    ],
)
def test_everything_that_a_model_writes_counts(fields: dict[str, Any]) -> None:
    assert used(delta(**fields))["completion_tokens"] == 2


def test_a_choice_without_a_delta_or_with_empty_fields_counts_nothing() -> None:
    empty = {"tool_calls": [{"index": 0, "function": None}, {"index": 1}], "content": None}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}, {"index": 1}]}
    assert used(delta(**empty), last)["completion_tokens"] == 0


def test_the_text_of_the_whole_conversation_and_its_tools_are_the_prompt() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "y" * 40}}
    tools = [{"type": "function", "function": {"name": "f"}}]
    asked = {
        "messages": [
            {"role": "system", "content": "x" * 40},
            {"role": "user", "content": [{"type": "text", "text": "x" * 40}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "x" * 40},
        ],
        "tools": tools,
    }
    assert used(asked=asked)["prompt_tokens"] == 40 + -(-len(orjson.dumps(tools)) // 4)


@pytest.mark.parametrize("given", ["x" * 8, ["x" * 4, "x" * 4], [[1, 2, 3]]])
def test_the_input_of_embeddings_is_their_prompt(given: Any) -> None:
    expected = 3 if given == [[1, 2, 3]] else 2
    assert used(asked={"input": given})["prompt_tokens"] == expected


@pytest.mark.parametrize("wrong", [-1, True, None, "5", 1.5, [], MAX_TOKENS + 1])
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens", "total_tokens"])
def test_usage_that_is_negative_or_no_number_is_taken_out(name: str, wrong: Any) -> None:
    chunk = {"choices": [], "usage": {**USAGE, name: wrong}}
    assert take_count(chunk) is None
    assert chunk == {"choices": []}


@pytest.mark.parametrize("wrong", ["many", [1], 5, True])
def test_usage_that_is_no_object_is_taken_out(wrong: Any) -> None:
    chunk = {"choices": [], "usage": wrong}
    assert take_count(chunk) is None
    assert chunk == {"choices": []}


def test_of_the_details_only_wrong_counts_are_taken_out() -> None:
    details = {"cached_tokens": -5, "audio_tokens": None, "text_tokens": 3, "ratio": -0.5}
    usage = {**USAGE, "prompt_tokens_details": details, "cost": 0.25, "is_byok": False}
    assert take_count({"usage": usage}) == {
        **USAGE,
        "prompt_tokens_details": {"audio_tokens": None, "text_tokens": 3, "ratio": -0.5},
        "cost": 0.25,
        "is_byok": False,
    }


def test_a_wrong_count_does_not_replace_one_that_came_before() -> None:
    wrong = {"choices": [], "usage": {**USAGE, "total_tokens": -1}}
    assert used({"choices": [], "usage": USAGE}, wrong) == USAGE
