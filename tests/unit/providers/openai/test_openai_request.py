"""What of our own vocabulary each OpenAI-compatible upstream gets."""

import json
import re

import pytest

from gateway.catalogue.catalogue import Catalogue
from gateway.chat import ChatCall, fold
from gateway.settings import Settings
from providers.base import WireOptions
from providers.openai.chat import OpenAIWire

CACHE = {"type": "ephemeral"}
THOUGHT = [{"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}]
PROVIDERS = Catalogue.load(Settings()).providers
MESSAGES = [
    {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": CACHE}]},
    {
        "role": "assistant",
        "content": "Hello",
        "reasoning_content": "Hm.",
        "thinking_blocks": THOUGHT,
    },
    {"role": "user", "content": "Go on."},
]


def options(provider):
    row = PROVIDERS[provider]
    return WireOptions(
        row.accepts, row.system_first, row.tool_call_ids, row.stream_above, row.plain_text
    )


def sent(provider="openai", messages=MESSAGES, **parameters):
    call = ChatCall("m", {"messages": messages, **parameters})
    return json.loads(OpenAIWire("http://x", options=options(provider)).request(call).body)


@pytest.mark.parametrize(
    ("provider", "thinking", "cache"),
    [
        ("openai", False, False),
        ("groq", False, False),
        ("mistral", False, False),
        ("deepseek", True, False),
        ("openrouter", True, True),
        ("vllm", True, False),
    ],
)
def test_an_upstream_gets_the_extensions_that_it_keeps(provider, thinking, cache):
    user, assistant, _ = sent(provider)["messages"]
    assert ("reasoning_content" in assistant) is thinking
    assert ("cache_control" in user["content"][0]) is cache
    assert "thinking_blocks" not in assistant
    assert assistant["content"] == "Hello"
    assert user["content"] == "Hi" or user["content"][0]["text"] == "Hi"


def test_the_call_itself_is_not_changed():
    messages = [
        *MESSAGES,
        {
            "role": "tool",
            "tool_call_id": "a",
            "is_error": True,
            "content": [{"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}],
        },
    ]
    tools = [{"type": "function", "function": {"name": "f"}, "cache_control": CACHE}]
    before = json.dumps([messages, tools])
    body = sent("openai", messages, tools=tools)
    assert json.dumps([messages, tools]) == before
    parameters = {"type": "object", "properties": {}}
    assert body["tools"] == [
        {"type": "function", "function": {"name": "f", "parameters": parameters}}
    ]
    assert [message["role"] for message in body["messages"][-2:]] == ["tool", "user"]


def test_a_tool_without_text_still_answers():
    result = {"role": "tool", "tool_call_id": "a", "content": []}
    assert sent(messages=[result])["messages"] == [{**result, "content": ""}]


USER = {"role": "user", "content": "Hi"}
VLLM_ID = "chatcmpl-tool-0123456789abcdef0123456789abcdef"
OPENAI_ID = "call_PTLP8xhu3uwZk4l3nlnrrJha"


def called(*idents, **more):
    """A turn that calls tools, and their results."""
    function = {"name": "f", "arguments": "{}"}
    calls = [{"id": ident, "type": "function", "function": function, **more} for ident in idents]
    results = [{"role": "tool", "tool_call_id": ident, "content": "1"} for ident in idents]
    return [USER, {"role": "assistant", "content": None, "tool_calls": calls}, *results]


def ids(messages):
    """The ids of calls, and those of results."""
    calls = [call["id"] for each in messages for call in each.get("tool_calls") or ()]
    return calls, [each["tool_call_id"] for each in messages if each["role"] == "tool"]


@pytest.mark.parametrize(
    ("provider", "ident", "kept"),
    [
        ("openai", OPENAI_ID, True),
        ("openai", VLLM_ID, False),
        ("openai", "functions.Read:0", True),
        ("mistral", OPENAI_ID, False),
        ("mistral", "Abc123xyZ", True),
        ("mistral", "functions.Read:0", False),
        ("vllm", "functions.Read:0", True),
        ("fireworks", VLLM_ID, True),
    ],
)
def test_an_upstream_gets_ids_that_it_takes(provider, ident, kept):
    calls, results = ids(sent(provider, called(ident, f"{ident}2"))["messages"])
    assert calls == results
    assert len(set(calls)) == 2
    assert (calls[0] == ident) is kept
    pattern = PROVIDERS[provider].tool_call_ids or ".*"
    assert all(re.fullmatch(pattern, each) for each in calls) or kept


def test_the_next_turn_has_the_same_ids():
    first = ids(sent("mistral", called(OPENAI_ID))["messages"])
    turns = [*called(OPENAI_ID), {"role": "assistant", "content": "1"}, *called("Abc123xyZ")]
    assert [each[:1] for each in ids(sent("mistral", turns)["messages"])] == list(first)


SIGNATURE = {"google": {"thought_signature": "c2ln+/=="}}


def test_geminis_signature_comes_back_in_the_id_of_the_call():
    wire = OpenAIWire("http://x", options=options("gemini"))
    call = {"index": 0, "id": "c1", "type": "function", "extra_content": SIGNATURE}
    call["function"] = {"name": "f", "arguments": "{}"}
    choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}
    (streamed,) = wire.decoder().feed("message", json.dumps({"choices": [choice]}))
    whole = wire.response({"choices": [{"message": {"tool_calls": [dict(call)]}}]})
    for delta in (streamed["choices"][0]["delta"], whole["choices"][0]["message"]):
        (answered,) = delta["tool_calls"]
        assert answered["extra_content"] == SIGNATURE
        assert re.fullmatch("[a-zA-Z0-9_-]+", answered["id"])
        assert re.fullmatch(".{1,40}", "c1")
        # As clients of /messages and /responses send it back: the id, and nothing beside it.
        messages = called(answered["id"])
        again = sent("gemini", messages)["messages"]
        assert ids(again) == (["c1"], ["c1"])
        assert again[1]["tool_calls"][0]["extra_content"] == SIGNATURE
        for other in ("openai", "mistral", "vllm"):
            others = sent(other, messages)["messages"]
            assert "extra_content" not in others[1]["tool_calls"][0]
            assert ids(others)[0] == ids(others)[1]
            assert "__thought__" not in ids(others)[0][0]


def test_an_id_that_only_looks_signed_is_an_id():
    assert ids(sent("gemini", called("a__thought__!"))["messages"])[0] == ["a"]
    messages = sent("gemini", called("a__thought__W10"))["messages"]
    assert "extra_content" not in messages[1]["tool_calls"][0]


DETAILS = [{"type": "reasoning.encrypted", "data": "abc=", "id": "c1", "index": 0}]


def test_openrouters_reasoning_comes_back_in_a_block_of_thinking():
    wire = OpenAIWire("http://x", options=options("openrouter"))
    deltas = [{"reasoning_details": DETAILS}, {"content": "Hi"}, {"reasoning_details": DETAILS}]
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices[-1]["finish_reason"] = "stop"
    decoder = wire.decoder()
    chunks = [c for each in choices for c in decoder.feed("m", json.dumps({"choices": [each]}))]
    message = {"content": "Hi", "reasoning_details": [*DETAILS, *DETAILS]}
    whole = wire.response({"choices": [{"message": message}]})
    for answer in (fold(chunks), whole):
        answered = answer["choices"][0]["message"]
        assert answered["reasoning_details"] == [*DETAILS, *DETAILS]
        replayed = {key: answered[key] for key in ("role", "content", "thinking_blocks")}
        assert {block["type"] for block in replayed["thinking_blocks"]} == {"redacted_thinking"}
        again = sent("openrouter", [USER, replayed, USER])["messages"][1]
        assert again["reasoning_details"] == [*DETAILS, *DETAILS]
        assert "thinking_blocks" not in again
        assert sent("groq", [USER, replayed, USER])["messages"][1] == {
            "role": "assistant",
            "content": "Hi",
        }


def test_system_messages_stand_first_where_templates_want_it():
    messages = [
        {"role": "system", "content": "a"},
        {"role": "developer", "content": [{"type": "text", "text": "b"}]},
        USER,
        {"role": "system", "content": "c"},
        *called("Abc123xyZ"),
        {"role": "system", "content": "d"},
        {"role": "assistant", "content": "e"},
        {"role": "developer", "content": "f"},
    ]
    first, user, _, _, result, assistant, last = sent("mistral", messages)["messages"]
    assert first == {"role": "system", "content": "a\nb"}
    assert user == {"role": "user", "content": "Hi\n\nc"}
    assert (result["role"], result["content"]) == ("tool", "1\n\nd")
    assert assistant["content"] == "e"
    assert last == {"role": "user", "content": "f"}
    assert [each["role"] for each in sent("openai", messages)["messages"]][:2] == [
        "system",
        "developer",
    ]


def test_later_system_messages_leave_the_beginning_as_it_is():
    turn = [{"role": "system", "content": "a"}, USER, {"role": "system", "content": "b"}]
    turn += called("Abc123xyZ")[1:]
    later = [*turn, {"role": "assistant", "content": "c"}, USER, {"role": "system", "content": "d"}]
    before, after = (sent("mistral", each)["messages"] for each in (turn, later))
    assert after[: len(before)] == before


EMPTY = {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (None, EMPTY),
        ({}, EMPTY),
        ({"type": "object"}, EMPTY),
        (
            {"type": "object", "additionalProperties": False, "$schema": "x"},
            {**EMPTY, "additionalProperties": False, "$schema": "x"},
        ),
        ({"properties": {"a": {}}}, {"type": "object", "properties": {"a": {}}}),
        ({"$ref": "#/a"}, {"$ref": "#/a"}),
        ({"type": "object", "anyOf": [{}]}, {"type": "object", "anyOf": [{}]}),
        ({"type": "string"}, {"type": "string"}),
    ],
)
def test_a_function_has_properties(schema, expected):
    function = {"name": "f"} if schema is None else {"name": "f", "parameters": schema}
    (tool,) = sent(tools=[{"type": "function", "function": function}])["tools"]
    assert tool["function"]["parameters"] == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"tool_calls": called("a")[1]["tool_calls"]}, {"content": None}),
        ({"content": "Hi", "tool_calls": []}, {"content": "Hi"}),
        ({"content": "Hi", "tool_calls": None, "refusal": None, "audio": None}, {"content": "Hi"}),
        ({"content": "Hi", "annotations": []}, {"content": "Hi"}),
        ({"content": "Hi", "name": None}, {"content": "Hi"}),
        ({"refusal": "No."}, {"content": None, "refusal": "No."}),
        ({"thinking_blocks": THOUGHT}, {"content": ""}),
        ({"content": None}, {"content": ""}),
        ({"content": []}, {"content": ""}),
        ({"content": "", "function_call": None}, {"content": ""}),
    ],
)
def test_a_message_that_comes_back_is_one_that_strict_upstreams_take(message, expected):
    plain = sent(messages=[USER, {"role": "assistant", **message}, USER])["messages"][1]
    plain.pop("tool_calls", None) if message.get("tool_calls") else None
    assert plain == {"role": "assistant", **expected}


def test_text_is_a_string_where_an_upstream_takes_no_parts():
    parts = [{"type": "text", "text": "a", "cache_control": CACHE}, {"type": "text", "text": "b"}]
    system, user = ({"role": role, "content": parts} for role in ("system", "user"))
    plain = sent("groq", [system, user])["messages"]
    assert [each["content"] for each in plain] == ["a\nb", "a\nb"]
    parts_of_text = [{"type": "text", "text": text} for text in "ab"]
    assert sent(messages=[system])["messages"][0]["content"] == parts_of_text
    # A mark of the cache needs a part.
    assert sent("openrouter", [system])["messages"][0]["content"] == parts


def test_nulls_of_a_tool_are_left_out():
    function = {"name": "f", "description": None, "strict": None, "parameters": None}
    (tool,) = sent(tools=[{"type": "function", "function": function, "cache_control": None}])[
        "tools"
    ]
    assert tool == {"type": "function", "function": {"name": "f", "parameters": EMPTY}}


def test_an_upstream_that_refuses_stream_options_gets_none():
    call = ChatCall("m", {"messages": [USER], "stream_options": None}, stream=True)
    body = json.loads(OpenAIWire("http://x").request(call).body)
    assert body.keys() == {"messages", "model", "stream"}
