"""Anthropic's requests in chat's terms, and from there to Anthropic again."""

from __future__ import annotations

import copy
import json
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from api.messages.request import chat_request, is_strict
from api.messages.schema import checked
from gateway.chat import ChatCall
from gateway.errors import InvalidRequest
from providers.anthropic.request import request_body

CACHE = {"type": "ephemeral"}
USER = {"role": "user", "content": "hi"}
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjQ="}
TEXT = {"type": "text", "media_type": "text/plain", "data": "words"}
USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": "é"}}
CALL = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":"é"}'}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
STRICT = {**SCHEMA, "required": ["a"], "additionalProperties": False}
TOOL = {"name": "f", "input_schema": SCHEMA}
ALL = ("thinking", "output_config", "top_k")


def request(**fields):
    return {"model": "m", "max_tokens": 5000, "messages": [USER], **fields}


def converted(extra=(), native=False, **fields):
    accepts = ["file_url", "messages_api"] if native else ["file_url"]
    return chat_request(checked(request(**fields)), extra, accepts)


def document(source, **fields):
    return {"type": "document", "source": source, **fields}


def text(words, **fields):
    return {"type": "text", "text": words, **fields}


def file(name, url):
    return {"type": "file", "file": {"filename": name, "file_data": url}}


PARAMETERS = [
    ({}, {}),
    ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
    ({"stop_sequences": ["a", "b"]}, {"stop": ["a", "b"]}),
    ({"metadata": {"user_id": "u"}}, {"user": "u"}),
    ({"metadata": {}}, {}),
    ({"tools": []}, {}),
    ({"tool_choice": {"type": "any"}}, {}),
    ({"output_config": {"effort": "high"}}, {"reasoning_effort": "high"}),
]
CHOICES = [
    ({"type": "auto"}, {"tool_choice": "auto"}),
    ({"type": "any"}, {"tool_choice": "required"}),
    ({"type": "none"}, {"tool_choice": "none"}),
    (
        {"type": "tool", "name": "f"},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
    ),
    (
        {"type": "auto", "disable_parallel_tool_use": True},
        {"tool_choice": "auto", "parallel_tool_calls": False},
    ),
]


@pytest.mark.parametrize(("fields", "expected"), PARAMETERS)
def test_parameters_get_chat_s_names(fields, expected):
    call = converted(**fields)
    assert call.parameters == {"messages": [USER], "max_tokens": 5000, **expected}
    assert call.ignored == []


@pytest.mark.parametrize("user", ["u" * 65, '{"device": "d"}', "zoë"])
def test_a_user_whose_name_others_refuse_is_told_by_a_hash(user):
    hashed = converted(metadata={"user_id": user}).parameters["user"]
    assert re.fullmatch("[0-9a-f]{64}", hashed)
    assert hashed == converted(metadata={"user_id": user}).parameters["user"]
    assert hashed != converted(metadata={"user_id": f"{user}."}).parameters["user"]
    assert converted(native=True, metadata={"user_id": user}).parameters["user"] == user


def test_model_and_stream_are_no_parameters():
    call = converted(stream=True)
    assert (call.model, call.stream) == ("m", True)
    assert not call.parameters.keys() & {"model", "stream"}


@pytest.mark.parametrize(("choice", "expected"), CHOICES)
def test_tools_and_their_choice(choice, expected):
    tool = {"name": "f", "description": "d", "input_schema": SCHEMA, "cache_control": CACHE}
    call = converted(tools=[tool, {**tool, "type": "custom", "strict": True}], tool_choice=choice)
    function = {"name": "f", "parameters": SCHEMA, "description": "d"}
    assert call.parameters["tools"] == [
        {"type": "function", "function": function, "cache_control": CACHE},
        {"type": "function", "function": {**function, "strict": True}, "cache_control": CACHE},
    ]
    assert {k: call.parameters[k] for k in expected} == expected
    assert ("parallel_tool_calls" in call.parameters) == ("parallel_tool_calls" in expected)


@pytest.mark.parametrize("name", ["output_config", "output_format"])
@pytest.mark.parametrize(("schema", "strict"), [(SCHEMA, False), (STRICT, True)])
def test_a_schema_of_the_answer_is_asked_for(name, schema, strict):
    expected = {"type": "json_schema", "schema": schema}
    call = converted(**{name: {"format": expected} if name == "output_config" else expected})
    assert call.parameters["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": strict},
    }


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (STRICT, True),
        ({"type": "object"}, False),
        ({**STRICT, "required": []}, False),
        ({"type": "array", "items": STRICT}, True),
        ({"type": "array", "items": SCHEMA}, False),
        ({**STRICT, "properties": {"a": {"anyOf": [STRICT, SCHEMA]}}}, False),
        ({"$defs": {"x": SCHEMA}, "$ref": "#/$defs/x"}, False),
        ({"type": "string"}, True),
        ({**STRICT, "required": [["a"]]}, False),
        ({**STRICT, "required": 5}, False),
        ({**STRICT, "required": "a"}, False),
    ],
)
def test_only_a_closed_schema_is_promised(schema, strict):
    assert is_strict(schema) is strict


@pytest.mark.parametrize(
    ("extra", "native", "sent", "ignored"),
    [
        (ALL, True, {"thinking": {"type": "enabled", "budget_tokens": 2000}, "top_k": 5}, []),
        (("thinking",), False, {"thinking": {"type": "enabled"}}, ["top_k"]),
        ((), False, {}, ["thinking", "top_k"]),
    ],
)
def test_what_a_provider_has_no_parameter_for_is_named(extra, native, sent, ignored):
    thinking = {"type": "enabled", "budget_tokens": 2000}
    call = converted(extra, native, thinking=thinking, top_k=5)
    assert call.parameters == {"messages": [USER], "max_tokens": 5000, **sent}
    assert call.ignored == ignored


@pytest.mark.parametrize(("tier", "sent"), [("auto", "auto"), ("standard_only", "default")])
def test_a_service_tier_is_for_anthropic_alone(tier, sent):
    assert converted(native=True, service_tier=tier).parameters["service_tier"] == sent
    elsewhere = converted(service_tier=tier)
    assert "service_tier" not in elsewhere.parameters
    assert elsewhere.ignored == ["service_tier"]


def test_what_nobody_can_be_told_is_named_once():
    use = {**USE, "cache_control": CACHE}
    result = {"type": "tool_result", "tool_use_id": "t1"}
    turns = [
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result, document(TEXT, citations={"enabled": True})]},
    ]
    tool = {"name": "f", "input_schema": {}, "input_examples": [{}]}
    call = converted(messages=turns, tools=[tool, tool], speed="fast", context_management=None)
    assert call.ignored == ["speed", "tools.input_examples", "cache_control", "citations"]


MESSAGES = [
    ({"system": "s"}, [{"role": "system", "content": "s"}, USER]),
    ({"system": ""}, [USER]),
    ({"system": []}, [USER]),
    (
        {"system": [text("s", cache_control=CACHE)]},
        [{"role": "system", "content": [text("s", cache_control=CACHE)]}, USER],
    ),
    (
        {"cache_control": CACHE},
        [{"role": "user", "content": [text("hi", cache_control=CACHE)]}],
    ),
]


@pytest.mark.parametrize(("fields", "expected"), MESSAGES)
def test_the_system_prompt_is_the_first_message(fields, expected):
    assert converted(**fields).parameters["messages"] == expected


# Blocks of a user's turn -> what chat says, to Anthropic and to others where that differs.
WEB = {"type": "url", "url": "https://a.example/b.pdf"}
USER_PARTS = [
    ([text("a"), text("b", cache_control=CACHE)], None, None),
    (
        [{"type": "image", "source": PNG, "cache_control": CACHE}],
        [
            {
                "type": "image_url",
                "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="},
                "cache_control": CACHE,
            }
        ],
        None,
    ),
    (
        [{"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}}],
        [{"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}],
        None,
    ),
    (
        [document(PDF)],
        [file("", "data:application/pdf;base64,JVBERi0xLjQ=")],
        [file("document.pdf", "data:application/pdf;base64,JVBERi0xLjQ=")],
    ),
    (
        [document(WEB, title="T", cache_control=CACHE)],
        [{**file("T", "https://a.example/b.pdf"), "cache_control": CACHE}],
        None,
    ),
    (
        [document(PDF, title="T", context="C", cache_control=CACHE)],
        [
            text("C"),
            {**file("T", "data:application/pdf;base64,JVBERi0xLjQ="), "cache_control": CACHE},
        ],
        None,
    ),
    (
        [document(TEXT, title="T")],
        [file("T", "data:text/plain;base64,d29yZHM=")],
        [text("T"), text("words")],
    ),
    ([document({"type": "content", "content": "words"})], [text("words")], None),
    (
        [document({"type": "content", "content": [text("a"), {"type": "image", "source": PNG}]})],
        [
            text("a"),
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        ],
        None,
    ),
    ([], "", None),
]


@pytest.mark.parametrize(("blocks", "expected", "elsewhere"), USER_PARTS)
def test_what_a_user_says_is_said_in_chat_s_parts(blocks, expected, elsewhere):
    turns = [{"role": "user", "content": blocks}]
    for native, parts in ((True, expected), (False, elsewhere or expected)):
        messages = converted(native=native, messages=turns).parameters["messages"]
        assert messages == [{"role": "user", "content": blocks if parts is None else parts}]


SEARCH = {
    "type": "search_result",
    "source": "https://a.example",
    "title": "Title",
    "content": [text("found")],
}
OTHERS = [
    ({"type": "tool_reference", "tool_name": "WebSearch"}, "The tool `WebSearch` is available."),
    (
        {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "Read"}},
        "The tool `Read` is available from here on.",
    ),
    (
        {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "Read"}},
        "The tool `Read` is no longer available.",
    ),
    (SEARCH, "Title\nhttps://a.example\nfound"),
    (
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}},
        '[web_search: {"query":"x"}]',
    ),
    (
        {
            "type": "web_search_tool_result",
            "tool_use_id": "s1",
            "content": [{"type": "web_search_result", "url": "u", "encrypted_content": "e"}],
        },
        "u",
    ),
    ({"type": "compaction", "content": "So far."}, "So far."),
    ({"type": "of a later year", "text": "new"}, "new"),
    ({"type": "mcp_tool_result", "content": [text("a"), text("b")]}, "a\nb"),
    ({"type": "container_upload", "file_id": "f"}, None),
    ({"type": "tool_reference"}, None),
]


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(("block", "words"), OTHERS)
def test_blocks_that_only_anthropic_can_serve_become_text(block, words, native):
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [block]}
    turns = [
        USER,
        {"role": "system", "content": [text("s"), block]},
        {"role": "assistant", "content": [text("a"), block, USE]},
        {"role": "user", "content": [result]},
        {"role": "user", "content": [text("u"), block]},
    ]
    call = converted(native=native, messages=turns)
    system, assistant, tool, user = call.parameters["messages"][1:]
    more = [text(words)] if words else []
    assert system["content"] == [text("s"), *more]
    assert assistant["content"] == [text("a"), *more]
    assert tool["content"] == (more or "")
    assert user["content"] == [text("u"), *more]
    assert call.ignored == ([] if words else [block["type"]])
    only = converted(native=native, messages=[USER, {"role": "system", "content": [block]}])
    assert len(only.parameters["messages"]) == (2 if words else 1)


def test_what_a_system_message_asks_for_beside_its_text_is_named():
    turn = {"role": "system", "output_config": {"effort": "low"}}
    assert converted(messages=[USER, turn]).ignored == ["messages.output_config"]


@pytest.mark.parametrize("thought", [[], [{"type": "thinking", "thinking": "t", "signature": ""}]])
def test_a_turn_that_only_calls_tools_has_a_content_of_null(thought):
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "x"}
    turns = [USER, {"role": "assistant", "content": [*thought, USE]}, {**USER, "content": [result]}]
    message = converted(messages=turns).parameters["messages"][1]
    assert message["content"] is None
    assert message["tool_calls"] == [CALL]


LINE = "x-anthropic-billing-header: cc_version=2.1.177.01c; cc_entrypoint=cli; cch=36ee5;"


@pytest.mark.parametrize(
    ("system", "content"),
    [
        ([text(LINE), text("You are.")], [text("You are.")]),
        ([text(f"{LINE}\nYou are.", cache_control=CACHE)], [text("You are.", cache_control=CACHE)]),
        (f"{LINE}\n\nYou are.", "You are."),
        (LINE, None),
        ([text(LINE)], None),
        (f"You are. {LINE}", f"You are. {LINE}"),
    ],
)
def test_the_line_for_anthropic_s_accounts_reaches_anthropic_alone(system, content):
    def system_sent(**options):
        body = checked(request(system=system))
        messages = chat_request(body, **options).parameters["messages"]
        return messages[0]["content"] if len(messages) == 2 else None

    assert system_sent() == system_sent(accepts=["messages_api"], alone=False) == content
    assert system_sent(accepts=["messages_api"]) == system


@pytest.mark.parametrize(
    "schema", [{}, {"type": "object"}, {"type": "object", "additionalProperties": False}]
)
def test_a_tool_without_parameters_has_properties_all_the_same(schema):
    (tool,) = converted(tools=[{"name": "f", "input_schema": schema}]).parameters["tools"]
    assert tool["function"]["parameters"] == {"type": "object", **schema, "properties": {}}


@pytest.mark.parametrize(
    ("control", "mark"),
    [
        ({"type": "ephemeral", "ttl": "1h", "evict": True}, {"type": "ephemeral", "ttl": "1h"}),
        ({"type": "ephemeral", "ttl": "2h"}, {"type": "ephemeral"}),
        ({"type": "ephemeral", "scope": "global"}, {"type": "ephemeral"}),
        ({"type": "persistent"}, None),
    ],
)
def test_cache_marks_keep_the_fields_that_are_documented(control, mark):
    call = converted(
        system=[text("s", cache_control=control)],
        tools=[{**TOOL, "cache_control": control}],
        cache_control=control,
    )
    system, user = call.parameters["messages"]
    marked = [system["content"][0], call.parameters["tools"][0]]
    marked += user["content"] if mark else []
    assert [part.get("cache_control") for part in marked] == [mark] * len(marked)


def test_the_scope_of_a_cache_mark_is_for_anthropic_alone():
    control = {"type": "ephemeral", "scope": "global"}
    call = converted(native=True, system=[text("s", cache_control=control)])
    assert call.parameters["messages"][0]["content"] == [text("s", cache_control=control)]


def test_results_come_before_what_else_is_said():
    results = [
        {"type": "tool_result", "tool_use_id": "t1", "content": "one", "cache_control": CACHE},
        {
            "type": "tool_result",
            "tool_use_id": "t2",
            "content": [text("two"), {"type": "image", "source": PNG}],
            "is_error": True,
        },
        {"type": "tool_result", "tool_use_id": "t3"},
    ]
    uses = [{**USE, "id": f"t{i}"} for i in (1, 2, 3)]
    turns = [
        {"role": "assistant", "content": [text("I look."), *uses]},
        {"role": "user", "content": [text("and"), *results]},
    ]
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    assert converted(messages=turns).parameters["messages"] == [
        {
            "role": "assistant",
            "content": [text("I look.")],
            "tool_calls": [{**CALL, "id": f"t{i}"} for i in (1, 2, 3)],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "one", "cache_control": CACHE},
        {
            "role": "tool",
            "tool_call_id": "t2",
            "content": [text("two"), image],
            "is_error": True,
        },
        {"role": "tool", "tool_call_id": "t3", "content": ""},
        {"role": "user", "content": [text("and")]},
    ]


@pytest.mark.parametrize(
    ("thoughts", "fields"),
    [
        (
            [
                {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "ZGF0YQ=="},
            ],
            {
                "thinking_blocks": [
                    {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                    {"type": "redacted_thinking", "data": "ZGF0YQ=="},
                ]
            },
        ),
        ([{"type": "thinking", "thinking": "hm", "signature": ""}], {"reasoning_content": "hm"}),
    ],
)
def test_thinking_is_replayed(thoughts, fields):
    turns = [USER, {"role": "assistant", "content": [*thoughts, text("so")]}, USER]
    messages = converted(messages=turns).parameters["messages"]
    assert messages[1] == {"role": "assistant", "content": [text("so")], **fields}


def test_thinking_of_another_provider_is_replayed_beside_its_hidden_blocks():
    thought = {"type": "thinking", "thinking": "hm", "signature": ""}
    hidden = {"type": "redacted_thinking", "data": "reasoning_details:x"}
    turns = [USER, {"role": "assistant", "content": [thought, hidden, text("so")]}, USER]
    message = converted(messages=turns).parameters["messages"][1]
    assert message["reasoning_content"] == "hm"
    assert message["thinking_blocks"] == [hidden]


def test_thinking_between_other_blocks_goes_back_to_anthropic_where_it_was():
    first, second = ({"type": "thinking", "thinking": t, "signature": "c2ln"} for t in "ab")
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [text("x")]}
    content = [first, text("I look."), second, USE]
    turns = [
        {"role": "user", "content": [text("hi")]},
        {"role": "assistant", "content": content},
        {"role": "user", "content": [result]},
    ]
    parameters = converted(native=True, messages=turns).parameters
    assert request_body(ChatCall("claude", parameters))["messages"] == turns


def test_what_tunes_a_response_may_be_left_out_by_a_model_that_refuses_it():
    call = converted(temperature=0.2, output_config={"effort": "low"}, tools=[TOOL])
    assert call.optional == ("temperature", "reasoning_effort")
    assert call.own_names["reasoning_effort"] == "output_config.effort"


# From Anthropic's terms to chat's and back

words = st.text("abc é\u2028\n", min_size=1, max_size=8).filter(str.strip)
texts = st.builds(text, words)
images = st.sampled_from(
    [
        {"type": "image", "source": PNG},
        {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}},
    ]
)
documents = st.builds(document, st.sampled_from([PDF, TEXT]), title=words.map(str.strip))
user_blocks = texts | images | documents
thoughts = st.lists(
    st.builds(lambda text: {"type": "thinking", "thinking": text, "signature": "c2ln"}, words)
    | st.just({"type": "redacted_thinking", "data": "ZGF0YQ=="}),
    max_size=2,
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def conversations(draw):
    """Turns that Anthropic takes, each one a list of blocks, the user's first and last."""
    turns = []
    count = 0
    waiting = []
    for _ in range(draw(st.integers(0, 2))):
        turns.append(("user", [*waiting, *draw(st.lists(user_blocks, min_size=1, max_size=2))]))
        blocks = draw(thoughts) + draw(st.lists(texts, min_size=1, max_size=2))
        uses = []
        for _ in range(draw(st.integers(0, 2))):
            count += 1
            given = draw(st.dictionaries(words, values, max_size=2))
            uses.append({"type": "tool_use", "id": f"t{count}", "name": "f", "input": given})
        turns.append(("assistant", blocks + uses))
        waiting = [draw(results(use["id"])) for use in uses]
    turns.append(("user", [*waiting, *draw(st.lists(user_blocks, min_size=1, max_size=2))]))
    return [{"role": role, "content": blocks} for role, blocks in turns]


@st.composite
def results(draw, ident):
    result = {"type": "tool_result", "tool_use_id": ident}
    if content := draw(st.lists(texts | images, max_size=2)):
        result["content"] = content
    if draw(st.booleans()):
        result["is_error"] = True
    if draw(st.integers(0, 5)) == 5:
        result["cache_control"] = CACHE
    return result


@given(conversations(), words)
def test_a_conversation_reaches_anthropic_as_it_was(turns, system):
    body = request(messages=turns, system=system)
    given_body = copy.deepcopy(body)
    parameters = converted(ALL, native=True, **body).parameters
    assert body == given_body
    assume(json.dumps(turns).count('"cache_control"') <= 4)  # Anthropic takes no more
    sent = request_body(ChatCall("m", json.loads(json.dumps(parameters)), stream=True))
    assert sent["messages"] == turns
    assert sent["system"] == system


FULL = {
    "temperature": 0.5,
    "stop_sequences": ["END"],
    "metadata": {"user_id": "u"},
    "tools": [
        {
            "name": "f",
            "description": "d",
            "input_schema": SCHEMA,
            "cache_control": {"type": "ephemeral", "ttl": "1h"},
        }
    ],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "output_config": {"format": {"type": "json_schema", "schema": STRICT}},
    "top_k": 7,
}


@pytest.mark.parametrize(
    "fields",
    [
        FULL,
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"service_tier": "auto"},
        {"service_tier": "standard_only"},
        {"system": [text("s", cache_control=CACHE)]},
    ],
)
def test_parameters_reach_anthropic_as_they_were(fields):
    body = request(messages=[{"role": "user", "content": [text("hi")]}], **fields)
    parameters = converted(ALL, native=True, **body).parameters
    sent = request_body(ChatCall("m", parameters, stream=True))
    assert sent == {**body, "stream": True}


@pytest.mark.parametrize("inside", [False, True])
def test_a_document_by_its_address_is_refused_where_the_provider_takes_none(inside):
    block, path = document(WEB), "messages.0.content.0.source.url"
    turns = [{"role": "user", "content": [block]}]
    if inside:
        use = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
        result = {"type": "tool_result", "tool_use_id": "a", "content": [text("Here:"), block]}
        turns = [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
        path = "messages.1.content.0.content.1.source.url"
    with pytest.raises(InvalidRequest) as refusal:
        chat_request(checked(request(messages=turns)))
    assert refusal.value.param == path
    assert refusal.value.message.startswith(f"{path}: ")


def test_an_effort_alone_makes_no_model_of_anthropic_think():
    call = converted(["output_config"], native=True, output_config={"effort": "low"})
    assert call.parameters["output_config"] == {"effort": "low"}
    assert "reasoning_effort" not in call.parameters
