"""Anthropic's dialect: what the contract cases cannot say."""

import dataclasses
import json

import pytest

from api.chat.request import CHAT_PARAMETERS
from gateway.catalogue import parameters
from gateway.catalogue.catalogue import Catalogue
from gateway.chat import ChatCall, fold
from gateway.errors import (
    InvalidRequest,
    UpstreamBadResponse,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamRejected,
)
from gateway.settings import Settings
from providers.anthropic.wire import AnthropicTokenCounter, AnthropicWire

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
        ({"tools": [{"type": "mcp", "name": "x"}]}, "tools[0].type"),
        (
            {
                "tools": [{"type": "function", "function": {"name": "x"}}],
                "tool_choice": {"type": "mcp"},
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
        ({"type": "enabled", "budget_tokens": "4096"}, "thinking.budget_tokens"),
        ({"type": "enabled", "budget_tokens": True}, "thinking.budget_tokens"),
        ({"type": "enabled", "budget_tokens": 64000}, "thinking.budget_tokens"),
        ({"type": "adaptive", "display": "loud"}, "thinking.display"),
    ],
)
def test_thinking_that_no_schema_has_seen_is_checked(value, param):
    assert refused({"thinking": value}) == param


def test_thinking_without_a_budget_gets_one():
    assert body({"thinking": {"type": "enabled"}})["thinking"]["budget_tokens"] > 1024


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


def test_arguments_that_are_no_object_are_refused():
    function = {"name": "f", "parameters": {"type": "array"}}
    tool = {"type": "function", "function": function}
    assert refused({"tools": [tool]}) == "tools[0].function.parameters.type"


def declared(*functions):
    return body({"tools": [{"type": "function", "function": each} for each in functions]})["tools"]


def test_a_schema_that_anthropic_cannot_enforce_is_not_strict():
    schema = {"type": "object", "additionalProperties": {}}
    (tool,) = declared({"name": "f", "strict": True, "parameters": schema})
    assert tool == {"name": "f", "input_schema": schema}


@pytest.mark.parametrize("word", ["anyOf", "oneOf", "allOf"])
def test_alternatives_at_the_top_of_a_schema_become_words(word):
    branches = [{"properties": {"a": {"type": "string"}}}, {"required": ["b"]}]
    schema = {"type": "object", "properties": {"b": {}}, word: branches}
    (tool,) = declared({"name": "f", "description": "D.", "parameters": schema, "strict": True})
    properties = {"a": {"type": "string"}, "b": {}}
    assert tool["input_schema"] == {"type": "object", "properties": properties}
    assert (
        tool["description"]
        == f"D.\n\nThe input must match: {json.dumps({word: branches}, separators=(',', ':'))}"
    )


def test_two_tools_of_one_name_are_one():
    assert declared({"name": "f", "description": "first"}, {"name": "f"}) == [
        {
            "name": "f",
            "description": "first",
            "input_schema": {"type": "object", "properties": {}},
        }
    ]


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


def test_a_long_id_is_replaced_in_call_and_result():
    ident = "x" * 129
    call = {"id": ident, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": ident, "content": "x"}
    messages = [*HELLO, {"role": "assistant", "tool_calls": [call]}, result]
    _, calls, results = body({"messages": messages})["messages"]
    assert len(calls["content"][0]["id"]) < 64
    assert calls["content"][0]["id"] == results["content"][0]["tool_use_id"]


DEEP = '{"a":' * 300 + "1" + "}" * 300


@pytest.mark.parametrize(
    ("name", "arguments", "use"),
    [
        ("f", "", {"name": "f", "input": {}}),
        ("f", '{"a": 1', {"name": "f", "input": {"invalid_json": '{"a": 1'}}),
        ("f", "[1]", {"name": "f", "input": {"invalid_json": "[1]"}}),
        ("f", DEEP, {"name": "f", "input": {"invalid_json": DEEP}}),
    ],
)
def test_calls_of_other_models_are_taken_back_whatever_they_are(name, arguments, use):
    call = {"id": "a", "type": "function", "function": {"name": name, "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": "a", "content": "x"}
    messages = [*HELLO, {"role": "assistant", "tool_calls": [call]}, result]
    (block,) = body({"messages": messages})["messages"][1]["content"]
    assert block == {"type": "tool_use", "id": "a", **use}


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


def test_two_calls_of_one_turn_may_have_one_id():
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "a", "content": "x"}
    messages = [*HELLO, {"role": "assistant", "tool_calls": [call, call]}, result, result]
    _, calls, results = body({"messages": messages})["messages"]
    ids = [block["id"] for block in calls["content"]]
    assert len(set(ids)) == 2
    assert [block["tool_use_id"] for block in results["content"]] == ids
    assert refused({"messages": messages[:-1]}) == "messages[1].tool_calls"


def test_every_parameter_without_a_counterpart_is_named_to_the_caller():
    catalogue = Catalogue.load(Settings(variables={"ANTHROPIC_API_KEY": "k"}))
    table = catalogue.providers["anthropic"].parameters
    knobs = "seed logit_bias logprobs top_logprobs verbosity prediction store metadata".split()
    knobs += ["presence_penalty", "frequency_penalty", "prompt_cache_key", "prompt_cache_retention"]
    kept, dropped = parameters.apply(table, {"messages": HELLO, **dict.fromkeys(knobs, 1)})
    assert (kept, sorted(dropped)) == ({"messages": HELLO}, sorted(knobs))
    without_a_rule = set(CHAT_PARAMETERS).difference(table)
    assert without_a_rule == TRANSLATED.difference(table)


def system(words):
    return {"role": "system", "content": words}


def said(words, **more):
    return {"type": "text", "text": words, **more}


CALL = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
LOOP = [
    system("S"),
    *HELLO,
    system("env"),
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "t1", "content": "x"},
    system("<total_tokens>900</total_tokens>"),
]
NEXT = [
    {"role": "assistant", "content": "Done."},
    {"role": "user", "content": "More"},
    {"role": "developer", "content": "<total_tokens>800</total_tokens>"},
]


def turns(messages, system_turns):
    call = ChatCall("claude", {"messages": messages}, system_turns=system_turns)
    return json.loads(AnthropicWire("", "key").request(call).body)


@pytest.mark.parametrize("system_turns", [False, True])
@pytest.mark.parametrize("prompt", [[], [system("S")]])
def test_a_system_message_in_the_middle_changes_nothing_before_it(system_turns, prompt):
    before = turns([*prompt, *LOOP[1:]], system_turns)
    after = turns([*prompt, *LOOP[1:], *NEXT], system_turns)
    assert after.get("system") == before.get("system") == ("S" if prompt else None)
    assert after["messages"][: len(before["messages"])] == before["messages"]


def test_a_system_message_stays_in_place_where_the_model_takes_it():
    sent = turns([*LOOP, *NEXT], True)["messages"]
    assert [turn["role"] for turn in sent] == [
        *("user", "system", "assistant", "user", "system", "assistant", "user", "system")
    ]
    assert sent[1] == {"role": "system", "content": [said("env")]}


def test_a_system_message_is_text_of_the_user_s_turn_where_it_does_not():
    sent = turns([*LOOP, *NEXT], False)["messages"]
    assert [turn["role"] for turn in sent] == ["user", "assistant", "user", "assistant", "user"]
    assert sent[0]["content"] == [said("Hello"), said("env")]
    assert [block["type"] for block in sent[2]["content"]] == ["tool_result", "text"]


@pytest.mark.parametrize(
    ("messages", "roles", "last"),
    [
        ([*HELLO, system("a"), *HELLO], ["user"], ["Hello", "a", "Hello"]),
        ([*HELLO, NEXT[0], system("a")], ["user", "assistant", "user"], ["a"]),
        ([*HELLO, NEXT[0], system("a"), *HELLO], ["user", "assistant", "user"], ["a", "Hello"]),
        ([*HELLO, system("a"), system("b")], ["user", "system"], ["a", "b"]),
        ([*HELLO, system(" ")], ["user"], ["Hello"]),
    ],
)
def test_a_system_message_that_may_not_stand_there_is_text_of_the_user(messages, roles, last):
    sent = turns(messages, True)["messages"]
    assert [turn["role"] for turn in sent] == roles
    assert [block["text"] for block in sent[-1]["content"]] == last


@pytest.mark.parametrize("style", ["adaptive", "between_tools", "always"])
def test_a_begun_turn_is_followed_by_the_user_s_for_models_that_continue_none(style):
    messages = [*HELLO, {"role": "assistant", "content": "It is"}]
    call = ChatCall("claude", {"messages": messages, "reasoning_effort": "low"}, thinking=style)
    sent = json.loads(AnthropicWire("", "key").request(call).body)["messages"]
    assert [turn["role"] for turn in sent] == ["user", "assistant", "user"]


# Betas and what they unlock


def request(parameters, headers=None, style=None, url=""):
    call = ChatCall("claude", {"messages": HELLO, **parameters}, max_output_tokens=64000)
    call = dataclasses.replace(call, thinking=style)
    sent = AnthropicWire(url, "key", headers).request(call)
    return sent.headers, json.loads(sent.body), call.ignored


@pytest.mark.parametrize(
    ("own", "betas", "header"),
    [
        ({}, ["a-1", "b-2"], "a-1,b-2"),
        ({"Anthropic-Beta": "o-1, a-1"}, ["a-1", "b-2"], "o-1,a-1,b-2"),
        ({}, ["a\r\nx-api-key: y", "a b", 5, "", "é", "x" * 65, "fine"], "fine"),
        ({}, "a-1", None),
        ({}, [], None),
    ],
)
def test_betas_are_a_header_of_clean_names(own, betas, header):
    headers, sent, _ = request({"betas": betas}, own)
    lowered = {name.lower(): value for name, value in headers.items()}
    assert lowered.get("anthropic-beta") == header
    assert lowered["x-api-key"] == "key"
    assert "betas" not in sent


MARK = {"type": "ephemeral", "ttl": "1h", "scope": "global", "evict": True}


@pytest.mark.parametrize("scoped", [False, True])
def test_the_scope_of_a_cache_mark_needs_its_beta(scoped):
    parts = [said("x", cache_control=MARK)]
    tool = {"type": "function", "function": {"name": "f"}, "cache_control": MARK}
    messages = [{"role": role, "content": parts} for role in ("system", "user")]
    betas = ["prompt-caching-scope-2026-01-05"] if scoped else ["other"]
    _, sent, _ = request({"messages": messages, "tools": [tool], "betas": betas})
    mark = {"type": "ephemeral", "ttl": "1h"} | ({"scope": "global"} if scoped else {})
    blocks = [*sent["tools"], *sent["system"], *sent["messages"][0]["content"]]
    assert [block["cache_control"] for block in blocks] == [mark] * 3


def test_the_mark_of_an_empty_text_moves_to_the_part_before_it():
    parts = [said("x"), said(" ", cache_control={"type": "ephemeral"})]
    sent = body({"messages": [{"role": "user", "content": parts}]})
    assert sent["messages"][0]["content"] == [said("x", cache_control={"type": "ephemeral"})]


CLEAR = {"type": "clear_tool_uses_20250919"}


@pytest.mark.parametrize(
    ("betas", "edits", "kept", "ignored"),
    [
        (["context-management-2025-06-27"], [CLEAR], [CLEAR], []),
        (["context-management-2025-06-27"], [CLEAR, {"type": "compact"}], [CLEAR], [1]),
        (["context-management-2025-06-27"], "x", None, [1]),
        ([], [CLEAR], None, [1]),
    ],
)
def test_context_edits_need_their_beta(betas, edits, kept, ignored):
    _, sent, names = request({"betas": betas, "context_management": {"edits": edits}})
    assert sent.get("context_management") == (kept and {"edits": kept})
    assert names == (["context_management"] if ignored else [])


@pytest.mark.parametrize(
    ("style", "parameters", "thinking"),
    [
        ("budget", {"type": "adaptive"}, {"type": "enabled", "budget_tokens": 16384}),
        ("budget", {"type": "disabled"}, {"type": "disabled"}),
        ("budget", {"type": "between_tools"}, None),
        ("adaptive", {"type": "enabled", "budget_tokens": 2000}, {"type": "adaptive"}),
        ("adaptive", {"type": "between_tools"}, {"type": "disabled"}),
        ("between_tools", {"type": "disabled"}, {"type": "between_tools"}),
        ("always", {"type": "disabled"}, None),
        ("always", {"type": "adaptive", "display": "omitted"}, None),
    ],
)
def test_thinking_is_said_in_the_terms_of_the_model(style, parameters, thinking):
    _, sent, _ = request({"thinking": parameters, "max_tokens": 50_000}, style=style)
    if parameters.get("display"):
        thinking = parameters
    assert sent.get("thinking") == thinking


@pytest.mark.parametrize("effort", ["xhigh", "max"])
def test_a_model_that_thinks_between_tools_only_takes_no_more_than_high_effort(effort):
    parameters = {"thinking": {"type": "disabled"}, "output_config": {"effort": effort}}
    _, sent, _ = request(parameters, style="between_tools")
    assert sent["output_config"] == {"effort": "high"}


@pytest.mark.parametrize("style", ["budget", "adaptive"])
@pytest.mark.parametrize(
    "thinks", [{"thinking": {"type": "adaptive"}}, {"reasoning_effort": "high"}]
)
def test_thinking_makes_way_for_a_forced_tool(thinks, style):
    tools = [{"type": "function", "function": {"name": "f"}}]
    params = {"tools": tools, "tool_choice": "required", **thinks}
    _, sent, ignored = request(params, style=style)
    assert sent["tool_choice"] == {"type": "any"}
    assert "thinking" not in sent
    assert ignored == list(thinks)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("required", "Respond with a call of one of the tools."),
        ({"type": "function", "function": {"name": "f"}}, "Respond with a call of the tool `f`."),
    ],
)
def test_a_tool_that_cannot_be_forced_is_asked_for(choice, words):
    tool = {"type": "function", "function": {"name": "f"}}
    _, sent, ignored = request({"tools": [tool], "tool_choice": choice}, style="always")
    assert sent["tool_choice"] == {"type": "auto"}
    assert sent["messages"][-1]["content"] == [said("Hello"), said(words)]
    assert ignored == ["tool_choice"]


# JSON


def events(*texts, stop="end_turn"):
    for text in texts:
        yield {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": text},
        }
    yield {"type": "message_delta", "delta": {"stop_reason": stop}}
    yield {"type": "message_stop"}


def decode(parameters, sent):
    decoder = AnthropicWire().decoder(ChatCall("claude", {"messages": HELLO, **parameters}))
    return fold(chunk for each in sent for chunk in decoder.feed("", json.dumps(each)))


JSON = {"response_format": {"type": "json_object"}}
OPEN = {"type": "object", "additionalProperties": {"type": "string"}}
FREE = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": OPEN}}}
VALUE = '{"a": "b } \\" {", "c": [{"d": 1}, "]"]}'


@pytest.mark.parametrize("parameters", [JSON, FREE])
@pytest.mark.parametrize(
    ("before", "after"),
    [("", ""), ("```json\n", "\n```"), ("Here it is:\n", "\nAnything else {}?"), ("```", "```\n")],
)
def test_only_the_json_of_a_response_is_passed_on(parameters, before, after):
    text = before + VALUE + after
    for size in (1, 3, len(text)):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        answer = decode(parameters, events(*pieces))
        assert answer["choices"][0]["message"]["content"] == VALUE


@pytest.mark.parametrize("text", ["I cannot do that.", '{"a": 1', "{a: 1}", "", "[1]"])
def test_a_response_that_is_not_json_is_an_error(text):
    with pytest.raises(UpstreamRejected, match="is not a JSON object"):
        decode(JSON, events(text))


def test_json_that_is_cut_short_or_refused_is_not_checked():
    answer = decode(JSON, events('{"a": "b', stop="max_tokens"))
    assert answer["choices"][0]["message"]["content"] == '{"a": "b'
    assert answer["choices"][0]["finish_reason"] == "length"
    assert decode(JSON, events("No.", stop="refusal"))["choices"][0]["finish_reason"]


def test_text_is_left_alone_where_no_json_is_wanted():
    assert decode({}, events("a {", "}b"))["choices"][0]["message"]["content"] == "a {}b"


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
    (usage,) = decoder.feed("message_start", json.dumps(start))
    assert usage["choices"] == []
    delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}}
    (chunk,) = decoder.feed("content_block_delta", json.dumps(delta))
    assert chunk["choices"][0]["delta"] == {"role": "assistant", "content": "Hi"}


@pytest.mark.parametrize(
    ("usage", "prompt"),
    [
        ({"input_tokens": 9, "output_tokens": 1}, 9),
        ({"input_tokens": 9, "cache_read_input_tokens": 4}, 13),
        ({"input_tokens": 0, "cache_creation_input_tokens": 4}, 4),
        ({"input_tokens": 0, "output_tokens": 0}, None),
        ({}, None),
    ],
)
def test_the_prompt_is_counted_from_the_beginning(usage, prompt):
    start = {"type": "message_start", "message": {"usage": usage}}
    chunks = list(AnthropicWire().decoder().feed("message_start", json.dumps(start)))
    assert [chunk["usage"]["prompt_tokens"] for chunk in chunks] == ([prompt] if prompt else [])


# Counting


def test_a_count_is_of_the_prompt_as_a_call_would_send_it():
    tool = {"type": "function", "function": {"name": "f"}}
    parameters = {"messages": LOOP, "tools": [tool], "user": "u", "betas": ["b-1"], "stop": "x"}
    call = ChatCall("claude", {**parameters, "max_tokens": 2**31 - 1, "temperature": 0.5})
    sent = AnthropicTokenCounter("", "key").request(call)
    assert sent.url == "https://api.anthropic.com/v1/messages/count_tokens"
    assert sent.headers["anthropic-beta"] == "b-1"
    counted = json.loads(sent.body)
    assert counted.keys() == {"model", "messages", "system", "tools"}
    assert counted.items() <= body({**parameters, "max_tokens": 5}).items()


def test_a_response_without_a_count_is_an_error():
    counter = AnthropicTokenCounter("http://x/v1", "key")
    assert counter.response({"input_tokens": 7}) == {"input_tokens": 7}
    for wrong in ({}, {"input_tokens": "7"}, {"input_tokens": True}):
        with pytest.raises(UpstreamBadResponse):
            counter.response(wrong)
    with pytest.raises(UpstreamOverloaded):
        counter.response({"error": {"type": "overloaded_error", "message": "x"}})


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
