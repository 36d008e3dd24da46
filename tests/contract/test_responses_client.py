"""What the official client keeps between two calls, with a fake broker behind the app."""

from __future__ import annotations

import orjson
import pytest
from openai import OpenAI

from gateway.queue.protocol import Outcome
from tests.support.fakes import FakeBroker

THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
HIDDEN = {"type": "redacted_thinking", "data": "eHh4"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "name": "f", "parameters": {}, "strict": False}
DELTAS = (
    {"role": "assistant", "content": ""},
    {"reasoning_content": "H"},
    {"reasoning_content": "m."},
    {"thinking_blocks": [THOUGHT]},
    {"thinking_blocks": [HIDDEN]},
    {"content": "Wait."},
    {"tool_calls": [{"index": 0, **CALL, "function": {"name": "f", "arguments": ""}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
)


def choice(key, said, finish_reason=None):
    return orjson.dumps({"choices": [{"index": 0, key: said, "finish_reason": finish_reason}]})


WHOLE = {
    "role": "assistant",
    "content": "Wait.",
    "reasoning_content": "Hm.",
    "thinking_blocks": [THOUGHT, HIDDEN],
    "tool_calls": [CALL],
}
SCRIPT = {
    False: (Outcome(answer=choice("message", WHOLE, "tool_calls")),),
    True: (
        *(choice("delta", delta) for delta in DELTAS),
        choice("delta", {}, "tool_calls"),
        Outcome(last=len(DELTAS) + 1),
    ),
}


@pytest.fixture
def call(make_client, connect, settings, key):
    """A function that makes a client whose calls are answered by this script."""

    def make(*script):
        broker = FakeBroker(*script)
        return connect(OpenAI, make_client(settings, broker).application, api_key=key), broker

    return make


def ask(client, items, streamed, **fields):
    fields = {"model": "openai/gpt-4o-mini", "input": items, "tools": [TOOL], **fields}
    if not streamed:
        return client.responses.create(**fields)
    with client.responses.stream(**fields) as stream:
        return stream.get_final_response()


@pytest.mark.parametrize("streamed", [False, True])
def test_thinking_survives_a_loop_of_tools(call, streamed):
    client, _ = call(*SCRIPT[streamed])
    items = [{"role": "user", "content": "hi"}]
    kept = {"store": False, "include": ["reasoning.encrypted_content"]}
    first = ask(client, items, streamed, **kept)
    assert [item.type for item in first.output] == ["reasoning", "message", "function_call"]
    assert first.output[0].summary[0].text == "Hm."
    result = {"type": "function_call_output", "call_id": "call_1", "output": "42"}
    client, broker = call()
    # As agents do it: whatever came, sent back as JSON.
    sent_back = [item.model_dump(exclude_none=True) for item in first.output]
    ask(client, [*items, *sent_back, result], False, **kept)
    assert broker.calls[0].body["messages"] == [
        {"role": "user", "content": "hi"},
        WHOLE,
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    ]


@pytest.mark.parametrize("streamed", [False, True])
def test_thinking_is_kept_from_who_does_not_ask_for_it(call, streamed):
    client, _ = call(*SCRIPT[streamed])
    first = ask(client, "hi", streamed, store=False)
    assert first.output[0].encrypted_content is None
    assert first.output[0].summary[0].text == "Hm."
