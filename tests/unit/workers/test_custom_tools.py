"""Custom tools for models that have functions only, and the calls of them on the way back."""

import copy
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.chat import fold
from workers.custom_tools import CalledText, CustomTools, called_text

PATCH = '*** Begin Patch\n*** Add File: a.txt\n+"é" \\ 😀\t/\n*** End Patch'
GRAMMAR = {"syntax": "lark", "definition": "start: /.+/s"}
APPLY = {
    "type": "custom",
    "custom": {
        "name": "apply_patch",
        "description": "Edit files.",
        "format": {"type": "grammar", "grammar": GRAMMAR},
    },
}
READ = {"type": "function", "function": {"name": "read", "parameters": {"type": "object"}}}


def functions(**params):
    messages = params.pop("messages", [{"role": "user", "content": "hi"}])
    return CustomTools({"messages": messages, **params})


def pieces_of(text, size):
    return [text[at : at + size] for at in range(0, len(text), size)]


def delta(index=0, call_id=None, name=None, **fields):
    call = {"index": index, **fields}
    if call_id:
        call |= {"id": call_id, "type": "function"}
    if name:
        call["function"] = {"name": name, "arguments": ""}
    return {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]}


def more(arguments, index=0):
    return delta(index, function={"arguments": arguments})


END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}


def test_a_custom_tool_becomes_a_function_with_one_required_string():
    tool, other = functions(tools=[APPLY, READ]).params["tools"]
    assert other == READ
    function = tool["function"]
    assert (tool["type"], function["name"]) == ("function", "apply_patch")
    assert function["parameters"]["required"] == ["input"]
    assert function["parameters"]["properties"]["input"]["type"] == "string"
    assert function["description"].startswith("Edit files.")
    assert "start: /.+/s" in function["description"]


def test_a_tool_keeps_its_cache_breakpoint():
    marked = {**APPLY, "cache_control": {"type": "ephemeral"}}
    (tool,) = functions(tools=[marked]).params["tools"]
    assert tool["cache_control"] == {"type": "ephemeral"}


@pytest.mark.parametrize("extra", [{}, {"format": {"type": "text"}}, {"format": None}])
def test_a_tool_without_description_and_grammar_has_a_description(extra):
    (tool,) = functions(tools=[{"type": "custom", "custom": {"name": "sh", **extra}}]).params[
        "tools"
    ]
    assert tool["function"]["description"]


CHOICES = [
    ("auto", "auto"),
    ({"type": "custom", "custom": {"name": "apply_patch"}},
     {"type": "function", "function": {"name": "apply_patch"}}),
    ({"type": "function", "function": {"name": "read"}},
     {"type": "function", "function": {"name": "read"}}),
]  # fmt: skip


@pytest.mark.parametrize(("choice", "chosen"), CHOICES)
def test_the_choice_of_a_custom_tool_is_that_of_its_function(choice, chosen):
    assert functions(tools=[APPLY], tool_choice=choice).params["tool_choice"] == chosen


def test_only_the_allowed_tools_are_offered():
    allowed = [{"type": "custom", "custom": {"name": "apply_patch"}}]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": allowed}}
    params = functions(tools=[READ, APPLY], tool_choice=choice).params
    assert [tool["function"]["name"] for tool in params["tools"]] == ["apply_patch"]
    assert params["tool_choice"] == "required"
    read = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [READ]}}
    params = functions(tools=[READ, APPLY], tool_choice=read).params
    assert (params["tools"], params["tool_choice"]) == ([READ], "auto")


def test_calls_in_the_history_have_the_text_as_their_argument():
    custom = {"id": "c", "type": "custom", "custom": {"name": "apply_patch", "input": PATCH}}
    function = {"id": "d", "type": "function", "function": {"name": "read", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [custom, function]}
    original = copy.deepcopy(message)
    (sent,) = functions(messages=[message]).params["messages"]
    assert sent["tool_calls"][1] == function
    call = sent["tool_calls"][0]
    assert (call["id"], call["type"]) == ("c", "function")
    assert json.loads(call["function"]["arguments"]) == {"input": PATCH}
    assert message == original


def test_a_whole_call_comes_back_with_its_text():
    arguments = json.dumps({"input": PATCH})
    called = {"id": "c", "type": "function"}
    custom = {**called, "function": {"name": "apply_patch", "arguments": arguments}}
    function = {**called, "function": {"name": "read", "arguments": "{}"}}
    response = {"choices": [{"message": {"tool_calls": [custom, function]}}]}
    (choice,) = functions(tools=[APPLY, READ]).whole(response)["choices"]
    assert choice["message"]["tool_calls"] == [
        {"id": "c", "type": "custom", "custom": {"name": "apply_patch", "input": PATCH}},
        function,
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_streamed_call_comes_back_with_its_text_in_pieces(size, ascii_only):
    custom = functions(tools=[APPLY, READ])
    arguments = json.dumps({"input": PATCH}, ensure_ascii=ascii_only)
    chunks = [delta(0, "c", "apply_patch"), *map(more, pieces_of(arguments, size))]
    chunks += [delta(1, "d", "read"), more("{}", 1), copy.deepcopy(END)]
    told = [chunk for each in chunks for chunk in custom.streamed([each])]
    first = told[0]["choices"][0]["delta"]["tool_calls"][0]
    assert first == {
        "index": 0,
        "id": "c",
        "type": "custom",
        "custom": {"name": "apply_patch", "input": ""},
    }
    message = fold(told)["choices"][0]["message"]
    assert message["tool_calls"] == [
        {"id": "c", "type": "custom", "custom": {"name": "apply_patch", "input": PATCH}},
        {"id": "d", "type": "function", "function": {"name": "read", "arguments": "{}"}},
    ]


def test_the_text_is_not_held_back_until_its_end():
    custom = functions(tools=[APPLY])
    chunks = [delta(0, "c", "apply_patch"), more('{"input": "*** Begin'), more(" Patch")]
    texts = [
        chunk["choices"][0]["delta"]["tool_calls"][0]["custom"]["input"]
        for each in chunks
        for chunk in custom.streamed([each])
    ]
    assert texts == ["", "*** Begin", " Patch"]


ODD = [
    ("*** Begin Patch", "*** Begin Patch"),  # the text itself
    ("x" * 300, "x" * 300),
    ('{"patch": "x"}', "x"),  # the string by another name
    ('{"a": 1, "input": "x"}', "x"),
    ('{"input": "x", "a": 1}', "x"),
    ('{"a": "x", "b": "y"}', '{"a": "x", "b": "y"}'),
    ('{"input": 7}', '{"input": 7}'),
    ("{}", ""),
    ("", ""),
    ('{"input": "cut sho', "cut sho"),
    ('{"input": "half \\u00', "half \\u00"),
    ('{"input": "a\nb\tc"}', "a\nb\tc"),  # control characters that JSON forbids
    ('{"input": "\\d+\\."}', "\\d+\\."),  # escapes that JSON does not have
    ('{"input": "\\uzz"}', "\\uzz"),
    ('{"input": "\\ud83d"}', "\ufffd"),
    ('{"input": "\\ud83dx"}', "\ufffdx"),
    ('{"input": "\\ude00\\ud83d\\ude00"}', "\ufffd😀"),
    ('{"input": ""}', ""),
]


@pytest.mark.parametrize(("arguments", "text"), ODD)
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_arguments_in_other_forms_become_the_text_that_they_mean(arguments, text, size):
    called = CalledText()
    streamed = "".join(map(called.feed, pieces_of(arguments, size))) + called.end()
    assert (streamed, called.end()) == (text, "")
    assert called_text(arguments) == text


def test_text_that_is_certain_only_at_the_end_comes_before_the_finish():
    custom = functions(tools=[APPLY])
    chunks = [delta(0, "c", "apply_patch"), more("raw"), copy.deepcopy(END)]
    last = [chunk for each in chunks for chunk in custom.streamed([each])][-1]["choices"][0]
    assert last["finish_reason"] == "tool_calls"
    assert last["delta"]["tool_calls"] == [{"index": 0, "custom": {"input": "raw"}}]


@settings(deadline=None)
@given(st.text(), st.integers(1, 5), st.booleans())
@example('\\"\\\\u', 1, True)
def test_any_text_comes_back_as_it_was(text, size, ascii_only):
    text = text.encode("utf-8", "replace").decode()
    arguments = json.dumps({"input": text}, ensure_ascii=ascii_only)
    called = CalledText()
    assert "".join(map(called.feed, pieces_of(arguments, size))) + called.end() == text


@settings(deadline=None)
@given(st.text(), st.integers(1, 5))
def test_whatever_a_model_sends_becomes_some_text(raw, size):
    called = CalledText()
    text = "".join(map(called.feed, pieces_of(raw, size))) + called.end()
    text.encode("utf-8")
