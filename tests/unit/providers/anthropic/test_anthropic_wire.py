"""Anthropic's dialect: what the contract cases cannot say."""

import json

import pytest

from api.chat.request import CHAT_PARAMETERS
from gateway.catalogue import parameters
from gateway.catalogue.catalogue import Catalogue
from gateway.chat import ChatCall
from gateway.errors import InvalidRequest, UpstreamFailed, UpstreamOverloaded
from gateway.settings import Settings
from providers.anthropic.wire import AnthropicWire

HELLO = [{"role": "user", "content": "Hello"}]
# OpenAI's parameters that no rule of the provider leaves out or refuses: the wire says them all.
TRANSLATED = set(
    "messages top_p max_tokens max_completion_tokens stop tools tool_choice parallel_tool_calls"
    " response_format reasoning_effort service_tier modalities user safety_identifier".split()
)


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
        "User-Agent": "inference-service",
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


def refused(parameters, thinking=None):
    call = ChatCall("claude", {"messages": HELLO, **parameters}, False, 64000, thinking)
    with pytest.raises(InvalidRequest) as caught:
        AnthropicWire("", "key").request(call)
    return caught.value.param


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ("high", "thinking.type"),
        ({}, "thinking.type"),
        ({"type": "deep"}, "thinking.type"),
        ({"type": ["enabled"]}, "thinking.type"),
        ({"type": "enabled"}, "thinking.budget_tokens"),
        ({"type": "enabled", "budget_tokens": "4096"}, "thinking.budget_tokens"),
        ({"type": "enabled", "budget_tokens": True}, "thinking.budget_tokens"),
        ({"type": "enabled", "budget_tokens": 64000}, "thinking.budget_tokens"),
        ({"type": "adaptive", "display": "loud"}, "thinking.display"),
    ],
)
def test_thinking_that_no_schema_has_seen_is_checked(value, param):
    assert refused({"thinking": value}) == param


@pytest.mark.parametrize("top_k", [-1, 1.5, "5", True])
def test_top_k_that_no_schema_has_seen_is_checked(top_k):
    assert refused({"top_k": top_k}) == "top_k"


def test_only_what_is_known_of_thinking_is_sent():
    value = {"type": "enabled", "budget_tokens": 2000, "budget": 7}
    sent = body({"thinking": value})
    assert sent["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    assert sent["max_tokens"] == 8192 + 2000


@pytest.mark.parametrize(
    ("effort", "limit", "budget", "max_tokens"),
    [
        ("minimal", None, 1024, 9216),
        ("medium", None, 4096, 12288),
        ("high", 64000, 16384, 24576),
        ("max", 64000, 32768, 40960),
        ("max", 8192, 6553, 8192),
    ],
)
def test_an_effort_is_a_budget_beside_the_answers_own_tokens(effort, limit, budget, max_tokens):
    sent = body({"reasoning_effort": effort}, limit)
    assert sent["thinking"] == {"type": "enabled", "budget_tokens": budget}
    assert sent["max_tokens"] == max_tokens


def test_a_long_name_of_a_user_is_hashed_and_a_short_one_is_not():
    assert body({"user": "u" * 256})["metadata"]["user_id"] == "u" * 256
    long, other = (body({"user": u})["metadata"]["user_id"] for u in ("u" * 257, "v" * 257))
    assert (len(long), long == other) == (64, False)


@pytest.mark.parametrize(
    ("function", "param"),
    [
        ({"name": "f", "parameters": {"type": "array"}}, "tools[0].function.parameters.type"),
        (
            {"name": "f", "strict": True, "parameters": {"additionalProperties": {}}},
            "tools[0].function.parameters",
        ),
    ],
)
def test_arguments_that_are_no_object_with_names_are_refused(function, param):
    assert refused({"tools": [{"type": "function", "function": function}]}) == param


def test_two_tools_of_one_name_are_refused():
    tool = {"type": "function", "function": {"name": "f"}}
    assert refused({"tools": [tool, tool]}) == "tools[1].function.name"


@pytest.mark.parametrize(
    "data",
    [
        "data:text/plain;base64,/w==",
        "data:text/plain;base64,????",
        "data:text/plain;base64,IA==",
        "data:text/html;base64,SGk=",
        "SGk=",
        "http://a.example/b.pdf",
    ],
)
def test_files_that_are_neither_text_nor_pdf_are_refused(data):
    part = {"type": "file", "file": {"file_data": data}}
    messages = [{"role": "user", "content": [part]}]
    assert refused({"messages": messages}) == "messages[0].content[0].file.file_data"


def test_a_tools_name_that_nobody_could_have_declared_is_refused():
    call = {"id": "a", "type": "function", "function": {"name": "a.b", "arguments": "{}"}}
    messages = [*HELLO, {"role": "assistant", "tool_calls": [call]}]
    assert refused({"messages": messages}) == "messages[1].tool_calls[0].function.name"


def test_arguments_that_could_not_be_written_are_refused():
    call = {"id": "a", "type": "function", "function": {"name": "f"}}
    call["function"]["arguments"] = '{"a":' * 300 + "1" + "}" * 300
    messages = [*HELLO, {"role": "assistant", "tool_calls": [call]}]
    assert refused({"messages": messages}) == "messages[1].tool_calls[0].function.arguments"


def test_results_of_many_messages_stand_in_their_order_before_what_else_is_said():
    calls = [
        {"id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        for n in range(4)
    ]
    messages = [*HELLO, {"role": "assistant", "tool_calls": calls}]
    for n in range(4):
        messages.append({"role": "tool", "tool_call_id": f"c{n}", "content": "x"})
        messages.append({"role": "user", "content": f"u{n}"})
    content = body({"messages": messages})["messages"][-1]["content"]
    assert [b.get("tool_use_id") or b["text"] for b in content] == [
        *("c0", "c1", "c2", "c3"),
        *("u0", "u1", "u2", "u3"),
    ]


def test_one_turn_cannot_make_two_calls_of_one_id():
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [*HELLO, {"role": "assistant", "tool_calls": [call, call]}]
    assert refused({"messages": messages}) == "messages[1].tool_calls[1].id"


def test_every_parameter_without_a_counterpart_is_named_to_the_caller():
    catalogue = Catalogue.load(Settings(variables={"ANTHROPIC_API_KEY": "k"}))
    table = catalogue.providers["anthropic"].parameters
    knobs = "seed logit_bias logprobs top_logprobs verbosity prediction store metadata".split()
    knobs += ["presence_penalty", "frequency_penalty", "prompt_cache_key", "prompt_cache_retention"]
    kept, dropped = parameters.apply(table, {"messages": HELLO, **dict.fromkeys(knobs, 1)})
    assert (kept, sorted(dropped)) == ({"messages": HELLO}, sorted(knobs))
    without_a_rule = set(CHAT_PARAMETERS).difference(table)
    assert without_a_rule == TRANSLATED.difference(table)


def test_thinking_is_shown_as_it_comes_and_told_whole_at_its_end():
    decoder = AnthropicWire().decoder()
    deltas = []
    for event in (
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking"}},
        {"type": "content_block_delta", "index": 0, "delta": thought(thinking="Hm")},
        {"type": "content_block_delta", "index": 0, "delta": thought(thinking=".")},
        {"type": "content_block_delta", "index": 0, "delta": thought(signature="c2ln")},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_delta", "index": 0, "delta": thought(thinking="late")},
    ):
        for chunk in decoder.feed(event["type"], json.dumps(event)):
            deltas.append(chunk["choices"][0]["delta"])
    assert deltas == [
        {"role": "assistant", "reasoning_content": "Hm"},
        {"reasoning_content": "."},
        {"thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}]},
    ]


def thought(**delta):
    (kind,) = delta
    return {"type": f"{kind}_delta", **delta}


@pytest.mark.parametrize(
    "event",
    [
        {"type": "message_delta", "delta": {"stop_reason": ["end_turn"]}, "usage": {"a": None}},
        {"type": "message_delta", "usage": {"service_tier": {}, "output_tokens_details": 7}},
        {"type": "message_delta", "delta": None, "usage": None},
    ],
)
def test_an_end_of_another_form_is_still_an_end(event):
    decoder = AnthropicWire().decoder()
    assert list(decoder.feed("message_delta", json.dumps(event))) == []
    (chunk,) = decoder.feed("message_stop", '{"type":"message_stop"}')
    assert chunk["choices"][0]["finish_reason"] == "stop"


def test_the_role_comes_with_the_first_words_and_not_before():
    decoder = AnthropicWire().decoder()
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 1}}}
    assert list(decoder.feed("message_start", json.dumps(start))) == []
    delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}}
    (chunk,) = decoder.feed("content_block_delta", json.dumps(delta))
    assert chunk["choices"][0]["delta"] == {"role": "assistant", "content": "Hi"}


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
            for chunk in decoder.feed(event["type"], json.dumps(event)):
                indices += [c["index"] for c in chunk["choices"][0]["delta"]["tool_calls"]]
    assert indices == [0, 0, 1, 1]


def test_an_answer_without_words_still_has_a_role_and_an_end():
    decoder = AnthropicWire().decoder()
    (chunk,) = decoder.feed("message_stop", '{"type":"message_stop"}')
    assert chunk["choices"] == [
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


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ("high", "output_config"),
        ({"effort": "minimal"}, "output_config.effort"),
        ({"effort": []}, "output_config.effort"),
        ({"format": {}}, "output_config.format"),
    ],
)
def test_an_effort_that_no_schema_has_seen_is_checked(value, param):
    with pytest.raises(InvalidRequest) as refusal:
        body({"output_config": value})
    assert refusal.value.param == param


ODD = [
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": 5}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 5}},
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "tool_use", "id": "a", "name": 5, "input": {}},
    },
]


@pytest.mark.parametrize("event", ODD)
def test_what_is_not_of_its_form_says_nothing(event):
    assert list(AnthropicWire().decoder().feed("", json.dumps(event))) == []


def test_thinking_of_another_form_is_told_empty():
    decoder = AnthropicWire().decoder()
    block = {"type": "thinking", "thinking": 5, "signature": []}
    for event in (
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta"}},
    ):
        assert list(decoder.feed("", json.dumps(event))) == []
    (chunk,) = decoder.feed("", json.dumps({"type": "content_block_stop", "index": 0}))
    thought_block = {"type": "thinking", "thinking": "", "signature": ""}
    assert chunk["choices"][0]["delta"]["thinking_blocks"] == [thought_block]
