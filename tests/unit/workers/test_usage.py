"""workers/usage.py: what a call has used that was stopped before its provider told."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.chat import Chunk
from tests.support.fakes import USAGE
from workers.usage import StreamUsage

ASKED = {"messages": [{"role": "user", "content": "x" * 40}]}


def delta(**fields: Any) -> Chunk:
    return {"choices": [{"index": 0, "delta": fields}]}


def used(*parts: Chunk, asked: dict[str, Any] = ASKED) -> dict[str, Any]:
    usage = StreamUsage()
    for part in parts:
        usage.add([part])
    return usage.so_far(orjson.dumps(asked))


def test_what_the_provider_counted_is_what_was_used() -> None:
    counted = {"choices": [], "usage": USAGE}
    assert used(delta(content="a" * 400), counted, delta(content="b")) == USAGE


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


def test_pictures_and_sound_are_not_counted_as_text() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4_000}},
        {"type": "input_audio", "input_audio": {"data": "A" * 4_000, "format": "wav"}},
        {"type": "text", "text": "x" * 4},
    ]
    asked = {"messages": [{"role": "user", "content": parts}]}
    assert used(asked=asked)["prompt_tokens"] == 1


@pytest.mark.parametrize("given", ["x" * 8, ["x" * 4, "x" * 4], [[1, 2, 3]]])
def test_the_input_of_embeddings_is_their_prompt(given: Any) -> None:
    expected = 3 if given == [[1, 2, 3]] else 2
    assert used(asked={"input": given})["prompt_tokens"] == expected
