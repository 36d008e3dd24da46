"""Names of tools that a target does not take, and the calls of them on the way back."""

import copy
import re

import pytest

from workers.tool_names import ToolNames, has_odd_names

LONG = "mcp__a_server_with_quite_a_long_name__a_tool_with_an_even_longer_name_than_that"
ODD = "files.read (all)"
USER = {"role": "user", "content": "hi"}


def tool(name, kind="function"):
    return {"type": kind, kind: {"name": name, "description": "Does it."}}


def called(name):
    call = {
        "id": "c",
        "type": "function",
        "function": {"name": name, "arguments": '{"name":"a b"}'},
    }
    return {"role": "assistant", "content": None, "tool_calls": [call]}


@pytest.mark.parametrize("name", [LONG, ODD, "日本", "a" * 65])
def test_a_name_has_the_same_other_name_wherever_it_stands(name):
    params = {
        "messages": [USER, called(name), {"role": "tool", "tool_call_id": "c", "content": "x"}],
        "tools": [tool(name), tool("read"), tool(name, "custom")],
        "functions": [{"name": name}],
        "function_call": {"name": name},
        "tool_choice": {"type": "function", "function": {"name": name}},
    }
    original = copy.deepcopy(params)
    sent = ToolNames(params).params
    first = sent["tools"][0]["function"]["name"]
    assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", first)
    assert sent["tools"][1] == tool("read")
    assert sent["tools"][2]["custom"]["name"] == first
    assert sent["functions"] == [{"name": first}]
    assert sent["function_call"] == {"name": first}
    assert sent["tool_choice"]["function"]["name"] == first
    call = sent["messages"][1]["tool_calls"][0]
    assert call["function"] == {"name": first, "arguments": '{"name":"a b"}'}
    assert params == original
    assert ToolNames(params).params == sent  # in the next turn too


def test_allowed_tools_are_named_as_the_tools_are():
    allowed = {"mode": "auto", "tools": [{"type": "function", "name": ODD}, tool(LONG)]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    sent = ToolNames({"tools": [tool(ODD), tool(LONG)], "tool_choice": choice}).params
    names = [each["function"]["name"] for each in sent["tools"]]
    flat, nested = sent["tool_choice"]["allowed_tools"]["tools"]
    assert [flat["name"], nested["function"]["name"]] == names


def test_a_target_that_takes_long_names_gets_them():
    names = ToolNames({"tools": [tool(LONG), tool("a" * 129), tool(ODD)]}, long=True)
    first, second, third = (each["function"]["name"] for each in names.params["tools"])
    assert first == LONG
    assert len(second) <= 64
    assert third != ODD


def test_calls_come_back_under_the_callers_names():
    names = ToolNames({"tools": [tool(ODD), tool("read")]})
    sent = names.params["tools"][0]["function"]["name"]
    message = called(sent)
    message["tool_calls"].append({"id": "d", "function": {"name": "read", "arguments": "{}"}})
    whole = names.whole({"choices": [{"index": 0, "message": message}]})
    calls = whole["choices"][0]["message"]["tool_calls"]
    assert [call["function"]["name"] for call in calls] == [ODD, "read"]
    custom = {"index": 0, "id": "c", "type": "custom", "custom": {"name": sent, "input": ""}}
    chunks = [
        {"choices": [{"index": 0, "delta": {"tool_calls": [custom]}}]},
        {
            "choices": [
                {"index": 0, "delta": {"tool_calls": [{"index": 0, "custom": {"input": "x"}}]}}
            ]
        },
        {"choices": [{"index": 0, "delta": {"function_call": {"name": sent, "arguments": ""}}}]},
        {"choices": [], "usage": {}},
    ]
    first, second, third, _ = names.streamed(chunks)
    assert first["choices"][0]["delta"]["tool_calls"][0]["custom"]["name"] == ODD
    assert second["choices"][0]["delta"]["tool_calls"][0]["custom"] == {"input": "x"}
    assert third["choices"][0]["delta"]["function_call"]["name"] == ODD


@pytest.mark.parametrize(
    ("body", "odd"),
    [
        (b'{"tools":[{"function":{"name":"read_it-1"}}]}', False),
        (b'{"tools":[{"function":{"name":"read it"}}]}', True),
        (b'{"tools":[{"function":{"name":"' + b"a" * 65 + b'"}}]}', True),
        (b'{"messages":[{"content":"{\\"name\\":\\"a b\\"}"}]}', False),
    ],
)
def test_calls_without_such_names_are_told_by_their_json(body, odd):
    assert bool(has_odd_names(body)) is odd
