"""Anthropic's dialect: what the contract cases cannot say."""

import json

import pytest

from gateway.chat import ChatCall
from gateway.errors import InvalidRequest, UpstreamFailed, UpstreamOverloaded
from providers.anthropic import AnthropicWire

HELLO = [{"role": "user", "content": "Hello"}]


def body(parameters, limit=None):
    call = ChatCall("claude", {"messages": HELLO, **parameters}, max_output_tokens=limit)
    return json.loads(AnthropicWire("", "key").request(call).body)


@pytest.mark.parametrize(
    "base_url", ["", "https://api.anthropic.com", "https://api.anthropic.com/v1/"]
)
def test_the_address_is_found(base_url):
    request = AnthropicWire(base_url, "key").request(ChatCall("claude", {"messages": HELLO}))
    assert request.url == "https://api.anthropic.com/v1/messages"


def test_key_and_version_are_headers():
    wire = AnthropicWire("", "key", {"anthropic-beta": "x"})
    assert wire.request(ChatCall("claude", {"messages": HELLO})).headers == {
        "x-api-key": "key",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "x",
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
    }


@pytest.mark.parametrize(
    ("parameters", "limit", "sent"),
    [
        ({}, None, 8192),
        ({}, 64000, 8192),
        ({}, 4096, 4096),
        ({"max_tokens": 100}, 4096, 100),
        ({"max_completion_tokens": 9000}, 4096, 4096),
        ({"max_completion_tokens": 9000, "max_tokens": 5}, None, 9000),
        ({"max_tokens": None}, None, 8192),
    ],
)
def test_there_is_always_a_limit_within_the_models(parameters, limit, sent):
    assert body(parameters, limit)["max_tokens"] == sent


def test_knobs_that_anthropic_lacks_are_left_out():
    knobs = {"seed": 1, "logprobs": True, "logit_bias": {}, "presence_penalty": 1, "n": 1}
    assert body(knobs) == body({})


def test_the_call_itself_is_not_changed():
    messages = [*HELLO, {"role": "assistant", "content": [{"type": "text", "text": "Yes "}]}]
    before = json.dumps(messages)
    body({"messages": messages})
    assert json.dumps(messages) == before


@pytest.mark.parametrize(
    "messages",
    [[], [{"role": "user", "content": " "}], [{"role": "system", "content": ""}]],
)
def test_a_conversation_without_words_is_refused(messages):
    with pytest.raises(InvalidRequest) as caught:
        body({"messages": messages})
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"functions": []}, "functions"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        (
            {
                "tools": [{"type": "function", "function": {"name": "x"}}],
                "tool_choice": {"type": "allowed_tools"},
            },
            "tool_choice.type",
        ),
    ],
)
def test_features_that_anthropic_lacks_are_refused_by_name(parameters, param):
    with pytest.raises(InvalidRequest) as caught:
        body(parameters)
    assert caught.value.param == param


def test_the_role_comes_with_the_first_words_and_not_before():
    decoder = AnthropicWire().decoder()
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 1}}}
    assert list(decoder.feed("message_start", json.dumps(start))) == []
    delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}}
    (part,) = decoder.feed("content_block_delta", json.dumps(delta))
    assert part["choices"][0]["delta"] == {"role": "assistant", "content": "Hi"}


def test_tool_calls_are_counted_and_blocks_of_text_are_not():
    decoder = AnthropicWire().decoder()
    indices = []
    for block in (1, 3):
        use = {"type": "tool_use", "id": f"toolu_{block}", "name": "f", "input": {}}
        for event in (
            {"type": "content_block_start", "index": block - 1, "content_block": {"type": "text"}},
            {"type": "content_block_start", "index": block, "content_block": use},
            {"type": "content_block_stop", "index": block},
        ):
            for part in decoder.feed(event["type"], json.dumps(event)):
                indices += [c["index"] for c in part["choices"][0]["delta"]["tool_calls"]]
    assert indices == [0, 0, 1, 1]


def test_an_answer_without_words_still_has_a_role_and_an_end():
    decoder = AnthropicWire().decoder()
    (part,) = decoder.feed("message_stop", '{"type":"message_stop"}')
    assert part["choices"] == [
        {"index": 0, "delta": {"role": "assistant"}, "finish_reason": "stop"}
    ]
    assert decoder.finished and decoder.ended


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ('{"type":"error","error":{"type":"overloaded_error"}}', UpstreamOverloaded),
        ('{"type":"error"}', UpstreamFailed),
        ('{"type":"error","error":{"type":"new_error"}}', UpstreamFailed),
        ("nonsense", UpstreamFailed),
    ],
)
def test_an_error_event_is_raised_whatever_is_in_it(data, error):
    with pytest.raises(error):
        list(AnthropicWire().decoder().feed("error", data))
