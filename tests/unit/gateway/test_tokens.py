"""gateway/tokens.py: what a prompt has, about, where no provider has counted it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.tokens import prompt_tokens


def asking(*parts: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(parts)}]}


TEXT = {"type": "text", "text": "x" * 4}


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9_999}},
            1_000,
        ),
        ({"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}, 1_000),
        ({"type": "input_audio", "input_audio": {"data": "A" * 4_000, "format": "wav"}}, 4),
        ({"type": "video_url", "video_url": {"url": "https://a.example/b.mp4"}}, 5_000),
        ({"type": "file", "file": {"file_data": "A" * 50_000, "filename": "a.pdf"}}, 1_000),
        ({"type": "file", "file": {"file_data": "data:text/plain;base64," + "A" * 1_577}}, 300),
        ({"type": "file", "file": {"file_id": "file-1"}}, 5_000),
        ({"type": "refusal", "refusal": "x" * 40}, 10),
        ({"type": "of_tomorrow", "data": "A" * 9_999}, 0),
    ],
)
def test_media_are_not_counted_as_text(part: dict[str, Any], tokens: int) -> None:
    assert prompt_tokens(asking(TEXT, part)) == tokens + 1
    assert prompt_tokens(asking(part, role="tool")) == tokens


def test_an_answer_that_is_sent_back_counts_with_its_thinking_and_its_calls() -> None:
    called = {"name": "f", "arguments": "x" * 36}
    message = {
        "role": "assistant",
        "content": "x" * 20,
        "reasoning_content": "x" * 20,
        "tool_calls": [
            {"id": "a", "type": "function", "function": called},
            {"id": "b", "type": "custom", "custom": {"name": "g", "input": "x" * 4}},
        ],
    }
    assert prompt_tokens({"messages": [message]}) == 20


def test_a_call_of_the_older_kind_counts() -> None:
    called = {"name": "f", "arguments": "x" * 40}
    message = {"role": "assistant", "content": None, "function_call": called}
    assert prompt_tokens({"messages": [message]}) == 10


def test_an_input_of_tokens_is_counted() -> None:
    assert prompt_tokens({"input": [7] * 300}) == 300
    assert prompt_tokens({"input": [[7] * 300, [8] * 20]}) == 320
    assert prompt_tokens({"input": ["x" * 8, "x" * 4]}) == 3
    assert prompt_tokens({"input": []}) == prompt_tokens({}) == 0


def test_what_stands_beside_the_messages_counts() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"title": "x" * 4_000}}}
    assert prompt_tokens({**asking(TEXT), "response_format": schema}) > 1_000
    prediction = {"type": "content", "content": "x" * 4_000}
    assert prompt_tokens({**asking(TEXT), "prediction": prediction}) > 1_000
    assert prompt_tokens({**asking(TEXT), "tools": [{"a": "x" * 4_000}], "functions": []}) > 1_000


@pytest.mark.parametrize(("text", "least"), [("你好" * 100, 150), ("😀" * 100, 100)])
def test_text_that_is_not_english_has_more_tokens(text: str, least: int) -> None:
    assert prompt_tokens({"messages": [{"role": "user", "content": text}]}) == least
    assert prompt_tokens(asking({"type": "text", "text": text})) == least
    assert prompt_tokens({"input": [text]}) == least
