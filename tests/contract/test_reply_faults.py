"""A fault of this service while it tells an answer: an error, never a reply that breaks off."""

from __future__ import annotations

import dataclasses
import json

import pytest

from gateway.queue.protocol import Outcome
from tests.support.fakes import SILENCE, FakeBroker, part

BASE = "/inference/v1"
ENDPOINTS = {
    "/messages": {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]},
    "/responses": {"input": "hi"},
}
SECRET = "what the model said"
# No wire of ours makes such a part, as far as we know.
ODD = json.dumps({"choices": [{"index": 0, "delta": {"content": SECRET, "tool_calls": "x"}}]})
ODD_ANSWER = json.dumps({"choices": [{"index": 0, "message": {"tool_calls": SECRET}}]})


@pytest.fixture
def ask(make_client, settings, auth):
    """A function that calls an endpoint, plays a script to the call, and returns the reply."""

    def post(endpoint, *script, **fields):
        client = make_client(dataclasses.replace(settings, sync_heartbeat=1), FakeBroker(*script))
        body = {"model": "openai/gpt-4o", **ENDPOINTS[endpoint], **fields}
        answer = client.post(f"{BASE}{endpoint}", json=body, headers=auth, buffered=True)
        return answer.get_data(as_text=True)

    return post


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_stream_ends_with_an_error(ask, caplog, endpoint):
    text = ask(endpoint, part("Hel"), ODD.encode(), Outcome(last=2), stream=True)
    assert "event: error\n" in text
    assert not {"event: message_stop", "event: response.completed"} & set(text.splitlines())
    assert "had an error while processing your request" in text
    assert "at " in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_reply_that_began_with_blanks_ends_with_an_error(ask, caplog, endpoint):
    text = ask(endpoint, SILENCE, Outcome(answer=ODD_ANSWER.encode()))
    assert text.startswith(" ")
    assert "had an error" in json.loads(text)["error"]["message"]
    assert SECRET not in caplog.text
