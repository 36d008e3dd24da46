"""api/chat/renderer.py: OpenAI's objects around a worker's parts."""

from __future__ import annotations

import json
import time

import orjson
import pytest

from api.chat.renderer import ChatRenderer
from api.http.sse import COMMENT, DONE
from gateway.errors import UpstreamFailed
from tests.support.fakes import ANSWER, CHOICE, LAST_PART, USAGE, USAGE_PART, part

OWN = {"id": "chatcmpl-abc", "created": 1_700_000_000, "model": "gpt-4o-mini"}


def objects(stream):
    """The JSON values of a stream's events, which must be framed exactly so."""
    assert stream.endswith(b"\n\n") or stream == b""
    events = stream.decode().split("\n\n")[:-1]
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    return [json.loads(event[6:]) for event in events if event != "data: [DONE]"]


def completion(include_usage=False):
    return ChatRenderer("abc", "gpt-4o-mini", include_usage, created=1_700_000_000)


def streamed(*payloads, include_usage=False):
    renderer = completion(include_usage)
    return b"".join(map(renderer.events, payloads)) + renderer.end()


def test_a_whole_answer_is_openai_s_object_with_identity_first():
    answer = completion().whole(ANSWER.answer)
    value = json.loads(answer)
    assert value == {**OWN, "object": "chat.completion", "choices": [CHOICE], "usage": USAGE}
    assert list(value) == ["id", "object", "created", "model", "choices", "usage"]


def test_every_chunk_has_one_id_and_one_time_of_creation():
    chunks = objects(streamed(part("a"), part("b"), LAST_PART, USAGE_PART))
    assert len(chunks) == 3
    for chunk in chunks:
        assert list(chunk) == ["id", "object", "created", "model", "choices"]
        assert chunk == {**OWN, "object": "chat.completion.chunk", "choices": chunk["choices"]}


def test_a_completion_made_now_is_as_old_as_its_call():
    before = int(time.time())
    created = json.loads(ChatRenderer("abc", "m").whole(ANSWER.answer))["created"]
    assert before <= created <= time.time()


def test_a_payload_of_several_lines_makes_as_many_events():
    stream = completion().events(b"\n".join([part("a"), part("b"), LAST_PART]))
    assert stream.count(b"data: ") == stream.count(b"\n\n") == 3
    assert [chunk["choices"][0]["delta"].get("content") for chunk in objects(stream)] == [
        "a", "b", None,
    ]  # fmt: skip


def test_usage_is_left_out_where_it_was_not_asked_for():
    stream = streamed(part("a"), USAGE_PART)
    assert b"usage" not in stream
    assert stream.endswith(b"\n\n" + DONE)


def test_usage_comes_in_a_chunk_of_its_own_at_the_end():
    chunks = objects(streamed(part("a"), LAST_PART, USAGE_PART, include_usage=True))
    assert [chunk["usage"] for chunk in chunks] == [None, None, USAGE]
    assert chunks[-1] == {
        **OWN, "object": "chat.completion.chunk", "choices": [], "usage": USAGE
    }  # fmt: skip


@pytest.mark.parametrize("include_usage", [False, True])
def test_usage_within_a_chunk_of_text_is_taken_out_of_it(include_usage):
    chunks = objects(streamed(part("a", usage=USAGE), include_usage=include_usage))
    assert chunks[0]["choices"][0]["delta"]["content"] == "a"
    assert chunks[0].get("usage") is None
    assert ("usage" in chunks[0]) == include_usage
    assert [chunk["usage"] for chunk in chunks[1:]] == ([USAGE] if include_usage else [])


def test_the_last_usage_wins():
    early = part("a", usage={**USAGE, "completion_tokens": 1})
    chunks = objects(streamed(early, USAGE_PART, part("b", usage=None), include_usage=True))
    assert chunks[-1]["usage"] == USAGE


def test_a_stream_whose_usage_nobody_told_says_null():
    assert objects(streamed(part("a"), include_usage=True))[-1]["usage"] is None


@pytest.mark.parametrize("content", ["usage", '"usage"', '{"usage": 1}', "line\nline", "\u2028é😀"])
@pytest.mark.parametrize("include_usage", [False, True])
def test_text_goes_through_whatever_it_says(content, include_usage):
    chunks = objects(streamed(part(content), include_usage=include_usage))
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": content}


def test_a_tool_may_be_called_usage():
    call = {"index": 0, "function": {"name": "usage", "arguments": '{"usage":'}}
    choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}
    chunks = objects(streamed(orjson.dumps({"choices": [choice]})))
    assert chunks[0]["choices"] == [choice]


def test_what_a_provider_adds_goes_through():
    line = part("a", system_fingerprint="fp", service_tier="default")
    (chunk,) = objects(streamed(line))
    assert (chunk["system_fingerprint"], chunk["service_tier"]) == ("fp", "default")


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_failure_is_an_event_with_the_envelope_and_the_end_marker(include_usage):
    renderer = completion(include_usage)
    renderer.events(part("a"))
    stream = renderer.error(UpstreamFailed())
    assert objects(stream) == [UpstreamFailed().envelope()]
    assert stream.endswith(b"\n\ndata: [DONE]\n\n")


def test_a_comment_is_no_event():
    assert COMMENT.startswith(b":")
    assert COMMENT.endswith(b"\n\n")
