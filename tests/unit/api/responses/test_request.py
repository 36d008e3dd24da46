"""A request to the Responses API becomes the chat request that asks for the same."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.chat import request as chat_validation
from api.responses.reasoning import sealed, unsealed
from api.responses.request import chat_request, keeps_reasoning
from gateway.errors import InvalidRequest

PNG = "data:image/png;base64,iVBORw0KGgo="
PDF = "data:application/pdf;base64,JVBERi0="
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
HIDDEN = {"type": "redacted_thinking", "data": "eHh4"}
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}


def asked(**fields):
    return chat_request({"model": "m", "input": "hi", **fields})


def conversation(*items, **fields):
    return asked(input=list(items), **fields).parameters["messages"]


def call(call_id="c1", **more):
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}", **more}


def called(call_id="c1"):
    return {"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}}


def output(call_id="c1", said="42"):
    return {"type": "function_call_output", "call_id": call_id, "output": said}


def reasoning(text="", blocks=()):
    summary = [{"type": "summary_text", "text": text}] if text else []
    item = {"type": "reasoning", "id": "rs_1", "summary": summary}
    return {**item, "encrypted_content": sealed(list(blocks))} if blocks else item


def said(text):
    parts = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": parts}


def test_a_string_is_what_the_user_says():
    request = asked(instructions="Be brief.", stream=True)
    assert request.parameters == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hi"},
        ]
    }
    assert (request.model, request.stream, request.ignored) == ("m", True, [])


PARAMETERS = [
    ({"max_output_tokens": 9}, {"max_completion_tokens": 9}),
    ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
    ({"user": "u", "safety_identifier": "s"}, {"user": "u", "safety_identifier": "s"}),
    ({"prompt_cache_key": "k", "service_tier": "flex"},
     {"prompt_cache_key": "k", "service_tier": "flex"}),
    ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
    ({"reasoning": {"effort": None}}, {}),
    ({"text": {"verbosity": "low"}}, {"verbosity": "low"}),
    ({"text": {"format": {"type": "text"}}}, {}),
    ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
    ({"text": {"format": {"type": "json_schema", "name": "w", "schema": WEATHER, "strict": True}}},
     {"response_format": {"type": "json_schema",
                          "json_schema": {"name": "w", "schema": WEATHER, "strict": True}}}),
    ({"include": ["message.output_text.logprobs"], "top_logprobs": 2},
     {"logprobs": True, "top_logprobs": 2}),
    ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
    ({"metadata": {"a": "b"}, "store": True, "truncation": "disabled", "background": False}, {}),
    ({"temperature": None, "tools": None, "text": None, "previous_response_id": None}, {}),
    ({"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "parameters"), PARAMETERS)
def test_parameters_get_the_names_of_chat(fields, parameters):
    made = asked(**fields).parameters
    del made["messages"]
    assert made == parameters


TOOL = {"type": "function", "name": "f", "description": "d", "parameters": WEATHER, "strict": True}
NESTED = {"type": "function", "function": {k: TOOL[k] for k in TOOL if k != "type"}}
CHOICES = [
    ("required", "required"),
    ({"type": "function", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
    ({"type": "custom", "name": "f"}, {"type": "custom", "custom": {"name": "f"}}),
    ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
     {"type": "allowed_tools", "allowed_tools": {
         "mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]}}),
]  # fmt: skip


@pytest.mark.parametrize(("choice", "chosen"), CHOICES)
def test_tools_are_nested_and_chosen_as_in_chat(choice, chosen):
    made = asked(tools=[TOOL], tool_choice=choice, parallel_tool_calls=False).parameters
    assert made["tools"] == [NESTED]
    assert made["tool_choice"] == chosen
    assert made["parallel_tool_calls"] is False


def test_what_a_tool_leaves_open_is_left_open():
    made = asked(tools=[{"type": "function", "name": "f", "parameters": None, "strict": None}])
    assert made.parameters["tools"] == [{"type": "function", "function": {"name": "f"}}]


def test_a_custom_tool_keeps_its_grammar():
    grammar = {"syntax": "lark", "definition": "start: 'x'"}
    tools = [
        {"type": "custom", "name": "a", "format": {"type": "grammar", **grammar}},
        {"type": "custom", "name": "b", "format": {"type": "text"}},
    ]
    assert [tool["custom"] for tool in asked(tools=tools).parameters["tools"]] == [
        {"name": "a", "format": {"type": "grammar", "grammar": grammar}},
        {"name": "b", "format": {"type": "text"}},
    ]


def test_content_keeps_its_order_and_gets_the_types_of_chat():
    content = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": PNG, "detail": "original"},
        {"type": "input_image", "image_url": "https://example.com/x.png"},
        {"type": "input_file", "filename": "a.pdf", "file_data": PDF},
    ]
    (message,) = conversation({"role": "user", "content": content})
    assert message["content"] == [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": PNG, "detail": "high"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}},
    ]


def test_a_single_text_is_a_string():
    items = [
        {"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        said("Hello!"),
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ]
    assert conversation(*items) == [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ]


def test_one_answer_of_several_items_is_one_message():
    items = [reasoning("Hm.", [THOUGHT, HIDDEN]), said("Let me see."), call("a"), call("b")]
    outputs = [output("b"), output("a", [{"type": "input_image", "image_url": PNG}])]
    assert conversation({"role": "user", "content": "hi"}, *items, *outputs, said("Done.")) == [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "reasoning_content": "Hm.",
            "thinking_blocks": [THOUGHT, HIDDEN],
            "content": "Let me see.",
            "tool_calls": [called("a"), called("b")],
        },
        {"role": "tool", "tool_call_id": "b", "content": "42"},
        {
            "role": "tool",
            "tool_call_id": "a",
            "content": [{"type": "image_url", "image_url": {"url": PNG}}],
        },
        {"role": "assistant", "content": "Done."},
    ]


def test_two_answers_are_two_messages():
    assert conversation(said("a"), reasoning("Hm."), said("b"), said("c")) == [
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "reasoning_content": "Hm.", "content": "b"},
        {"role": "assistant", "content": "c"},
    ]


def test_nothing_comes_between_a_call_and_its_output():
    items = [call("a"), said("One"), reasoning("Hm."), said("two"), call("b"), output("a")]
    (first, tool) = conversation(*items)
    parts = [{"type": "text", "text": "One"}, {"type": "text", "text": "two"}]
    assert first["content"] == parts
    assert first["tool_calls"] == [called("a"), called("b")]
    assert tool["role"] == "tool"


def test_calls_of_several_turns_are_several_messages():
    messages = conversation(call("a"), output("a"), call("b"), output("b"))
    assert [message["role"] for message in messages] == ["assistant", "tool"] * 2
    assert messages[0] == {"role": "assistant", "content": None, "tool_calls": [called("a")]}


def test_a_custom_call_and_its_output_go_back():
    made = {"type": "custom_tool_call", "call_id": "c", "name": "sh", "input": "ls"}
    items = [made, {"type": "custom_tool_call_output", "call_id": "c", "output": "x"}]
    assert conversation(*items) == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "sh", "input": "ls"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "x"},
    ]


def test_reasoning_that_nothing_came_of_is_left_out():
    assert conversation(reasoning("Hm."), {"role": "user", "content": "hi"}) == [
        {"role": "user", "content": "hi"}
    ]


def test_reasoning_of_another_service_is_left_out():
    foreign = {"type": "reasoning", "summary": [], "encrypted_content": "gAAAAABo"}
    assert conversation(foreign, said("x")) == [{"role": "assistant", "content": "x"}]


def test_an_output_without_content_is_empty():
    assert conversation(call(), output(said=[]))[1]["content"] == ""


REFUSED = [
    ({"conversation": {"id": "conv_1"}}, "conversation"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
    ({"input": [output()]}, "input[0].call_id"),
    ({"input": [output(), call()]}, "input[0].call_id"),
    ({"input": [reasoning("Hm.")]}, "input"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
     "input[0].content[0].file_id"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
     "input[0].content[0].image_url"),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
     "input[0].content[0].file_id"),
    ({"input": [{"role": "user", "content": [
        {"type": "input_file", "file_url": "http://169.254.169.254/"}]}]},
     "input[0].content[0].file_url"),
    ({"input": [{"role": "user", "content": [
        {"type": "input_file", "file_url": "https://a.example/b.pdf"}]}]},
     "input[0].content[0].file_url"),
    ({"input": [call(), output(said=[
        {"type": "input_file", "file_url": "https://a.example/b.pdf"}])]},
     "input[1].output[0].file_url"),
    ({"tool_choice": {"name": "f"}}, "tool_choice.type"),
    ({"input": [call(), output(said=[{"type": "input_file"}])]}, "input[1].output[0].file_data"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param"), REFUSED)
def test_what_this_service_cannot_do_is_refused_by_name(fields, param):
    with pytest.raises(InvalidRequest) as caught:
        asked(**fields)
    assert caught.value.param == param
    assert param in caught.value.message


def test_what_changes_nothing_is_named():
    reasoning = {"effort": "low", "context": "all_turns"}
    request = asked(truncation="auto", max_tool_calls=3, top_logprobs=2, reasoning=reasoning, foo=1)
    names = ["max_tool_calls", "foo", "reasoning.context", "truncation", "top_logprobs"]
    assert request.ignored == names


def test_a_provider_s_own_parameters_go_through():
    data = {"model": "m", "input": "hi", "top_k": 5, "reasoning": {"effort": "low"}}
    request = chat_request(data, ("top_k", "reasoning"))
    assert request.parameters["top_k"] == 5
    assert "reasoning" not in request.parameters
    assert request.ignored == []


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({}, True),
        ({"store": True}, True),
        ({"store": False}, False),
        ({"store": False, "include": ["reasoning.encrypted_content"]}, True),
    ],
)
def test_the_client_keeps_reasoning_unless_it_wants_none_of_it(fields, kept):
    assert keeps_reasoning(fields) is kept


# What a client hands back as reasoning

TEXT = st.text(max_size=5)
BLOCKS = st.lists(
    st.builds(lambda t, s: {"type": "thinking", "thinking": t, "signature": s}, TEXT, TEXT)
    | st.builds(lambda d: {"type": "redacted_thinking", "data": d}, TEXT)
)


@settings(deadline=None)
@given(BLOCKS)
def test_sealed_blocks_come_back_as_they_were(blocks):
    assert unsealed(sealed(blocks)) == blocks


def test_only_what_belongs_to_a_block_comes_back():
    assert unsealed(sealed([{**THOUGHT, "cache_control": {"type": "ephemeral"}}])) == [THOUGHT]


DAMAGED = [
    "thinking.1.%%%",
    "thinking.1.é",
    "thinking.1.abc",
    sealed([]) + "AAAA",
    sealed({"type": "thinking"}),
    sealed([7]),
    sealed([{"type": "text", "text": "x"}]),
    sealed([{"type": []}]),
    sealed([{**THOUGHT, "signature": 7}]),
    sealed([THOUGHT] * 20_000),  # more than a request may hold
]


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_reasoning_is_left_out_and_named(text):
    item = {"type": "reasoning", "summary": [], "encrypted_content": text}
    request = asked(input=[item, said("x")])
    assert request.parameters["messages"] == [{"role": "assistant", "content": "x"}]
    assert request.ignored == ["input.encrypted_content"]


# Whatever is taken, chat's own rules hold for what comes of it

ITEMS = st.sampled_from(
    [
        {"role": "user", "content": "hi"},
        {"role": "system", "content": "Be brief."},
        said("Hello!"),
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        reasoning("Hm."),
        reasoning("", [HIDDEN]),
        call("a"),
        call("b"),
        output("a"),
        output("b"),
    ]
)


@settings(deadline=None)
@given(st.lists(ITEMS, min_size=1, max_size=8))
def test_what_comes_of_a_conversation_keeps_the_rules_of_chat(items):
    try:
        messages = conversation(*items)
    except InvalidRequest as error:
        assert error.param.startswith("input")
        return
    chat_validation.chat_request({"model": "m", "messages": messages})
    spoken = [item for item in items if item.get("role") == "assistant"]
    texts = [m for m in messages if m["role"] == "assistant" and m["content"]]
    assert bool(texts) == bool(spoken)
    calls = [c["id"] for m in messages for c in m.get("tool_calls") or ()]
    assert calls == [i["call_id"] for i in items if i.get("type") == "function_call"]


def test_a_file_by_its_address_goes_to_a_provider_that_takes_it():
    part = {"type": "input_file", "file_url": "https://a.example/b.pdf"}
    data = {"model": "m", "input": [{"role": "user", "content": [part]}]}
    (message,) = chat_request(data, accepts=["file_url"]).parameters["messages"]
    assert message["content"] == [
        {"type": "file", "file": {"file_data": "https://a.example/b.pdf"}}
    ]


CHAT_TOOL = {"type": "function", "function": {"name": "f"}}
HI = [{"role": "user", "content": "hi"}]
ELSEWHERE = [
    ({"messages": HI}, "/chat/completions"),
    ({"input": "hi", "tools": [CHAT_TOOL]}, "/chat/completions"),
    ({"messages": HI, "system": "Be brief.", "max_tokens": 9}, "/messages"),
    ({"messages": HI, "tools": [{"name": "f", "input_schema": {}}]}, "/messages"),
]


@pytest.mark.parametrize(("data", "path"), ELSEWHERE)
def test_a_request_of_another_api_names_its_endpoint(data, path):
    with pytest.raises(InvalidRequest) as caught:
        chat_request({"model": "m", **data})
    assert caught.value.message.endswith(f": send it to {path}.")
