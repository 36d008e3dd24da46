"""Requests to the Responses API: what is wrong with one, in OpenAI's words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.responses.schema import RESPONSES_REQUEST
from api.schemas.check import check as check_shape
from api.schemas.errors import invalid_request
from gateway.errors import InvalidRequest


def check(data):
    check_shape(RESPONSES_REQUEST, data, invalid_request)


WRONG = [
    ({"input": 3}, "input", "invalid_type"),
    ({"input": []}, "input", "empty_array"),
    ({"input": [3]}, "input[0]", "invalid_type"),
    ({"input": [{}]}, "input[0].role", "missing_required_parameter"),
    ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role", "invalid_value"),
    ({"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter"),
    ({"input": [{"type": 1}]}, "input[0].type", "invalid_type"),
    ({"input": [{"id": "msg_1"}]}, "input[0]", "invalid_value"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]", "invalid_value"),
    ({"tools": [{"type": 7}]}, "tools[0].type", "invalid_type"),
    ({"tools": [{"name": "f"}]}, "tools[0].type", "missing_required_parameter"),
    ({"tools": [{"type": "namespace", "name": "n"}]}, "tools[0].tools",
     "missing_required_parameter"),
    ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "function"}]}]},
     "tools[0].tools[0].name", "missing_required_parameter"),
    ({"input": [{"type": "additional_tools", "tools": [{"type": "function", "name": ""}]}]},
     "input[0].tools[0].name", "invalid_value"),
    ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": 7}]},
     "input[0].arguments", "invalid_type"),
    ({"tools": [{"type": "function", "name": ""}]}, "tools[0].name", "invalid_value"),
    ({"tools": [{"type": "custom", "name": "a", "format": {"type": "grammar"}}]},
     "tools[0].format.syntax", "missing_required_parameter"),
    ({"tool_choice": "any"}, "tool_choice", "invalid_value"),
    ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name",
     "missing_required_parameter"),
    ({"max_output_tokens": 0}, "max_output_tokens", "integer_below_min_value"),
    ({"temperature": 3}, "temperature", "decimal_above_max_value"),
    ({"top_logprobs": 21}, "top_logprobs", "integer_above_max_value"),
    ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "invalid_value"),
    ({"metadata": {"a": 1}}, "metadata", "invalid_value"),
    ({"truncation": "some"}, "truncation", "invalid_value"),
    ({"stream": "yes"}, "stream", "invalid_type"),
]  # fmt: skip
PARTS = [
    ("user", {"type": 7}, "type"),
    ("user", {"type": "input_text"}, "text"),
    ("user", {"type": "video_url", "video_url": {"url": "http://10.0.0.1/v.mp4"}}, "video_url.url"),
    ("user", {"type": "input_audio", "audio_url": "data:text/plain;base64,AA"}, "audio_url"),
    ("user", {"type": "input_image", "image_url": "http://127.0.0.1/x.png"}, "image_url"),
    ("user", {"type": "input_image", "image_url": "file:///etc/passwd"}, "image_url"),
]


def refusal(**fields):
    with pytest.raises(InvalidRequest) as caught:
        check({"model": "m", "input": "hi", **fields})
    return caught.value


@pytest.mark.parametrize(("fields", "param", "code"), WRONG)
def test_what_is_wrong_is_named_by_its_path(fields, param, code):
    error = refusal(**fields)
    assert (error.param, error.code) == (param, code)
    assert param in error.message or code in ("invalid_value", "invalid_type")


@pytest.mark.parametrize(("role", "part", "field"), PARTS)
def test_a_wrong_part_of_a_message_is_named_by_its_path(role, part, field):
    error = refusal(input=[{"role": "user", "content": "hi"}, {"role": role, "content": [part]}])
    assert error.param == f"input[1].content[0].{field}"


def test_input_is_wanted():
    with pytest.raises(InvalidRequest) as caught:
        check({"model": "m"})
    assert caught.value.message == "Missing required parameter: 'input'."


def test_a_reference_is_told_from_a_message_without_a_type():
    check({"model": "m", "input": [{"id": "msg_1", "role": "user", "content": "hi"}]})
    assert "send the item itself" in refusal(input=[{"id": "msg_1", "type": None}]).message


def test_what_the_service_gave_out_is_taken_back():
    annotations = {"annotations": [], "logprobs": []}
    said = {"type": "output_text", "text": "x", **annotations}
    items = [
        {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]},
        {"id": "m", "type": "message", "status": "completed", "role": "assistant",
         "content": [said]},
        {"id": "fc", "type": "function_call", "status": "completed", "call_id": "c", "name": "f",
         "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": []},
    ]  # fmt: skip
    check({"model": "m", "input": items})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
KEYS = ["type", "role", "content", "id", "call_id", "output", "summary", "name", "arguments"]
VALUES = JSON | st.sampled_from(["message", "function_call", "reasoning", "user", "assistant"])


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES), max_size=3) | JSON)
def test_whatever_the_input_it_is_taken_or_refused_with_its_path(value):
    try:
        check({"model": "m", "input": value})
    except InvalidRequest as error:
        assert error.param.startswith("input")
