"""What the previous release wrote to Redis is still read: in a deploy both releases run at once.

The files hold the bytes. Before a release that changes gateway/queue/protocol.py, write them anew.
"""

from __future__ import annotations

from pathlib import Path

from gateway.errors import UpstreamThrottled
from gateway.queue.protocol import CallSpec, Event, Outcome, decode_head

FOLDER = Path(__file__).with_name("previous_release")
CALL_ID = "c" * 32
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
CHUNK = b'{"choices":[{"index":0,"delta":{"content":"a"}}]}'


def stored(name: str) -> bytes:
    return FOLDER.joinpath(name).read_bytes()


def test_a_job_of_the_previous_release_is_read() -> None:
    spec, body = CallSpec.decode(stored("job"))
    assert (spec.call_id, spec.web, spec.stream, spec.kind) == (CALL_ID, "web-1", True, "chat")
    assert [(each.model, each.route, each.only_if_gone) for each in spec.targets] == [
        ("openai/gpt-4o-mini", "openai/gpt-4o-mini", False),
        ("openai/gpt-6-luna", "openai/gpt-6-luna", True),
        ("groq/llama", "groq/llama", False),
    ]
    assert body == b'{"messages":[{"role":"user","content":"hi\\n"}],"temperature":0.5}'


def test_a_response_of_the_previous_release_is_read() -> None:
    outcome = Outcome.decode(stored("outcome_answer"))
    assert (outcome.error, outcome.route) == (None, "openai/gpt-4o-mini")
    assert outcome.last == 0
    assert b'"Hello!"' in outcome.answer


def test_an_error_of_the_previous_release_is_read() -> None:
    outcome = Outcome.decode(stored("outcome_error"))
    assert isinstance(outcome.error, UpstreamThrottled)
    assert (outcome.error.message, outcome.error.retry_after) == ("Slow down.", 2.5)
    assert outcome.last == 2


def test_the_end_of_a_fallback_s_stream_of_the_previous_release_is_read() -> None:
    outcome = Outcome.decode(stored("outcome_fallback"))
    assert (outcome.error, outcome.route) == (None, "groq/llama")


def test_the_beginnings_of_streams_of_the_previous_release_are_read() -> None:
    first, other = (Event.decode(stored(name)) for name in ("event_first_target", "event_fallback"))
    assert (first.call_id, first.claim, first.number) == (CALL_ID, "claim-1", 1)
    assert decode_head(first.payload) == ("", [], CHUNK)
    assert decode_head(other.payload) == ("groq/llama", [], CHUNK)
