"""Made-up arguments of demo/tool fit the tool's schema."""

import json

import pytest

from gateway.chat import ChatCall
from providers.demo.arguments import sample
from providers.demo.provider import DemoProvider

# Optional properties are left out below the second level.
NODE = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "required": ["next"]}
SCHEMAS = [
    ({"type": "object"}, {}),
    ({}, "value"),
    (True, "value"),
    ({"type": "object", "properties": {"path": {"type": "string"}}}, {"path": "path"}),
    ({"properties": {"n": {"type": "integer"}}, "required": ["n", "m"]}, {"n": 1, "m": "m"}),
    ({"type": "integer", "minimum": 5}, 5),
    ({"type": "integer", "exclusiveMinimum": 5}, 6),
    ({"type": "number", "maximum": -3}, -3),
    ({"type": "integer", "minimum": 5, "multipleOf": 4}, 8),
    ({"type": "boolean"}, True),
    ({"type": "null"}, None),
    ({"type": ["string", "null"]}, "value"),
    ({"enum": ["b", "a"]}, "b"),
    ({"const": 7}, 7),
    ({"type": "string", "default": "d"}, "d"),
    ({"type": "string", "format": "date"}, "2026-01-31"),
    ({"type": "string", "minLength": 8}, "valuexxx"),
    ({"type": "string", "maxLength": 3}, "val"),
    ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [True, True]),
    ({"type": "array", "items": {"enum": [1]}}, [1]),
    ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
    (
        {"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}]},
        {"a": 1, "b": 2},
    ),
    (
        {
            "type": "object",
            "properties": {"at": {"$ref": "#/$defs/point"}},
            "$defs": {
                "point": {
                    "type": "object",
                    "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
                    "required": ["x"],
                }
            },
        },
        {"at": {"x": 1, "y": 1}},
    ),
    ({"$ref": "#/nowhere"}, "value"),
    ({"type": 5, "properties": 5, "required": 5}, "value"),
]


@pytest.mark.parametrize(("schema", "value"), SCHEMAS)
def test_a_value_fits_its_schema(schema, value):
    assert sample(schema) == value


def test_a_schema_that_refers_to_itself_ends():
    assert sample({**NODE, "$defs": {"node": NODE}})["next"]["next"]


def ask(tools, **parameters):
    messages = [{"role": "user", "content": "Go"}]
    call = ChatCall("tool", {"messages": messages, "tools": tools, **parameters})
    return DemoProvider().complete(call)["choices"][0]["message"]


def function(name, **properties):
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def test_the_tool_is_called_with_arguments_that_fit():
    (call,) = ask([function("read", path={"type": "string"}, lines={"type": "integer"})])[
        "tool_calls"
    ]
    assert json.loads(call["function"]["arguments"]) == {"path": "path", "lines": 1}


def test_the_chosen_tool_is_called():
    tools = [function("a"), function("b")]
    choice = {"type": "function", "function": {"name": "b"}}
    (call,) = ask(tools, tool_choice=choice)["tool_calls"]
    assert call["function"] == {"name": "b", "arguments": "{}"}
    assert ask(tools, tool_choice="none")["content"] == "Go"


def test_a_weather_tool_of_another_form_gets_arguments_that_fit():
    (call,) = ask([function("get_weather", location={"type": "string"})])["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"location": "location"}


def test_a_custom_tool_gets_plain_text():
    (call,) = ask([{"type": "custom", "custom": {"name": "note"}}])["tool_calls"]
    assert call["custom"] == {"name": "note", "input": "some input in plain text"}
