"""Tools of the Responses API: namespaces, tools in the conversation, and tools that are not run."""

import pytest

from api.responses.request import chat_request
from api.responses.stream import ResponseEvents
from api.responses.tools import Tools
from gateway.errors import InvalidRequest
from tests.support.fakes import Clock

SCHEMA = {"type": "object", "properties": {}}


def function(name, **more):
    return {"type": "function", "name": name, "parameters": SCHEMA, **more}


def namespace(name, *tools):
    return {"type": "namespace", "name": name, "description": "", "tools": list(tools)}


def custom(name):
    return {"type": "custom", "name": name}


def request(*tools, **fields):
    return chat_request({"model": "m", "input": "hi", "tools": list(tools), **fields})


def names(checked):
    return [tool[tool["type"]]["name"] for tool in checked.parameters.get("tools", ())]


def calls(call_name, *tools, kind="function", **fields):
    """The items of a response whose model has called this name."""
    data = {"model": "m", "input": "hi", "tools": list(tools), **fields}
    events = ResponseEvents("abc", "gpt", data, Clock())
    field = "arguments" if kind == "function" else "input"
    call = {"index": 0, "id": "c", "type": kind, kind: {"name": call_name, field: "{}"}}
    choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}
    told = [*events.begun(), *events.chunk({"choices": [choice]}), *events.ended()]
    added = [event["item"] for event in told if event["type"].endswith("output_item.added")]
    done = [event["item"] for event in told if event["type"].endswith("output_item.done")]
    assert [item.get("namespace") for item in added] == [item.get("namespace") for item in done]
    assert done == told[-1]["response"]["output"]
    return done


DOCS = namespace("mcp__docs__", function("search"), function("open"))
CODEX = namespace("functions", custom("exec"), function("wait"))


def test_tools_of_a_namespace_become_functions_with_both_names():
    checked = request(function("search"), DOCS, namespace("clock", function("sleep")))
    assert names(checked) == ["search", "mcp__docs__search", "mcp__docs__open", "clock__sleep"]
    assert checked.ignored == []


def test_openai_s_own_namespace_is_left_out_of_the_names():
    assert names(request(CODEX)) == ["exec", "wait"]
    assert names(request(function("wait"), CODEX))[:2] == ["wait", "exec"]
    assert len(set(names(request(function("wait"), CODEX)))) == 3


@pytest.mark.parametrize("name", ["mcp__docs__search", "search", "mcp__docs__.search"])
def test_a_call_comes_back_with_its_namespace(name):
    (item,) = calls(name, DOCS)
    assert (item["type"], item["name"], item["namespace"]) == (
        "function_call", "search", "mcp__docs__",
    )  # fmt: skip


def test_a_call_of_a_custom_tool_comes_back_with_its_namespace():
    (item,) = calls("exec", CODEX, kind="custom")
    assert (item["type"], item["name"], item["namespace"]) == (
        "custom_tool_call", "exec", "functions",
    )  # fmt: skip


def test_a_name_of_two_namespaces_or_of_a_function_is_not_guessed():
    other = namespace("web", function("search"))
    assert "namespace" not in calls("search", DOCS, other)[0]
    assert "namespace" not in calls("search", function("search"), DOCS)[0]
    assert "namespace" not in calls("unheard_of", DOCS)[0]


@pytest.mark.parametrize("declared", [[DOCS], []])
def test_a_call_in_the_history_has_the_name_that_the_provider_knows(declared):
    call = {
        "type": "function_call",
        "call_id": "c",
        "name": "search",
        "namespace": "mcp__docs__",
        "arguments": "{}",
    }
    output = {"type": "function_call_output", "call_id": "c", "output": "x"}
    messages = request(*declared, input=[call, output]).parameters["messages"]
    assert messages[0]["tool_calls"][0]["function"]["name"] == "mcp__docs__search"


def test_a_call_in_the_history_may_lack_its_namespace():
    call = {"type": "custom_tool_call", "call_id": "c", "name": "sleep", "input": "x"}
    clock = namespace("clock", custom("sleep"))
    messages = request(clock, input=[call]).parameters["messages"]
    assert messages[0]["tool_calls"][0]["custom"]["name"] == "clock__sleep"


HOSTED = [
    {"type": "web_search", "external_web_access": False},
    {"type": "web_search_preview"},
    {"type": "tool_search", "execution": "client"},
    {"type": "image_generation"},
    {"type": "local_shell"},
    {"type": "file_search", "vector_store_ids": ["vs_1"]},
    {"type": "mcp", "server_label": "x", "server_url": "https://x.example"},
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {"type": "computer_use_preview"},
    {"type": "shell"},
    {"type": "apply_patch"},
    {"type": "a_tool_of_tomorrow"},
]


@pytest.mark.parametrize("tool", HOSTED, ids=lambda tool: tool["type"])
def test_a_tool_that_is_not_run_here_is_left_out_and_named(tool):
    checked = request(function("f"), tool, tool_choice="auto", parallel_tool_calls=True)
    assert names(checked) == ["f"]
    assert checked.ignored == [f"tools.{tool['type']}"]
    alone = request(tool, tool_choice="auto", parallel_tool_calls=True)
    assert alone.parameters.keys() == {"messages"}
    inner = request(namespace("n", function("f"), tool))
    assert (names(inner), inner.ignored) == (["n__f"], [f"tools.{tool['type']}"])


FORCED = [
    ({"type": "web_search"}, "tool_choice"),
    ({"type": "mcp", "server_label": "x"}, "tool_choice"),
    ("required", "tool_choice"),
    ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]},
     "tool_choice.tools"),
]  # fmt: skip


@pytest.mark.parametrize(("choice", "param"), FORCED)
def test_a_tool_that_is_not_run_here_cannot_be_forced(choice, param):
    with pytest.raises(InvalidRequest) as caught:
        request({"type": "web_search"}, tool_choice=choice)
    assert caught.value.param == param
    assert "'web_search'" in caught.value.message or "'mcp'" in caught.value.message


def test_allowed_tools_are_those_that_can_be_called():
    allowed = [
        {"type": "web_search"},
        {"type": "function", "name": "search", "namespace": "mcp__docs__"},
    ]
    choice = {"type": "allowed_tools", "mode": "auto", "tools": allowed}
    checked = request(DOCS, {"type": "web_search"}, tool_choice=choice)
    assert checked.parameters["tool_choice"]["allowed_tools"]["tools"] == [
        {"type": "function", "function": {"name": "mcp__docs__search"}}
    ]
    none = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}]}
    assert request(DOCS, tool_choice=none).parameters["tool_choice"] == "none"


def test_a_tool_of_a_namespace_can_be_forced():
    choice = {"type": "function", "name": "search", "namespace": "mcp__docs__"}
    chosen = {"type": "function", "function": {"name": "mcp__docs__search"}}
    assert request(DOCS, tool_choice=choice).parameters["tool_choice"] == chosen
    bare = {"type": "function", "name": "search"}
    assert request(DOCS, tool_choice=bare).parameters["tool_choice"] == chosen


BRINGING = [
    {"type": "additional_tools", "role": "developer", "tools": [CODEX]},
    {
        "type": "tool_search_output",
        "call_id": "c1",
        "execution": "client",
        "status": "completed",
        "tools": [CODEX],
    },
]


@pytest.mark.parametrize("item", BRINGING, ids=lambda item: item["type"])
def test_tools_in_the_conversation_are_tools_of_the_request(item):
    items = [item, {"type": "message", "role": "user", "content": "hi"}]
    checked = chat_request({"model": "m", "input": items, "tool_choice": "auto"})
    assert names(checked) == ["exec", "wait"]
    assert checked.parameters["messages"] == [{"role": "user", "content": "hi"}]
    assert checked.ignored == []
    (call,) = calls("exec", kind="custom", input=items)
    assert call["namespace"] == "functions"


def test_a_tool_that_comes_twice_is_one():
    item = {"type": "additional_tools", "tools": [DOCS, function("f")]}
    items = [item, {"role": "user", "content": "hi"}, item]
    assert names(request(DOCS, input=items)) == ["f", "mcp__docs__search", "mcp__docs__open"]


def test_marks_of_encrypted_texts_are_left_out_of_schemas():
    properties = {
        "message": {"type": "string", "encrypted": True},
        "encrypted": {"type": "boolean"},
        "properties": {"type": "object", "properties": {"encrypted": True}},
    }
    tool = function("send", parameters={"type": "object", "properties": properties})
    (sent,) = request(tool).parameters["tools"]
    assert sent["function"]["parameters"]["properties"] == {
        "message": {"type": "string"},
        "encrypted": {"type": "boolean"},
        "properties": {"type": "object", "properties": {"encrypted": True}},
    }


def test_tools_of_a_text_are_those_of_the_request():
    tools = Tools({"input": "hi", "tools": [DOCS]})
    assert tools.own_name(tools.sent_name("open", "mcp__docs__")) == ("mcp__docs__", "open")
