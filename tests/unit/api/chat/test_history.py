"""What clients send back of earlier chat completions, and what they send beyond OpenAI's API."""

import pytest

from api.chat.request import chat_request
from gateway.errors import InvalidRequest

PNG = "data:image/png;base64,iVBORw0KGgo="
USER = {"role": "user", "content": "hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TOOL = {"type": "function", "function": {"name": "f"}}


def request(*messages, **fields):
    return chat_request({"model": "m", "messages": list(messages) or [USER], **fields})


def sent(message):
    return request(USER, message).parameters["messages"][1]


def result(content):
    message = {"role": "tool", "tool_call_id": "c1", "content": content}
    return request(CALLING, message).parameters["messages"][1]["content"]


def test_audio_is_named_by_its_id():
    audio = {"id": "a", "data": "AAAA", "expires_at": 1, "transcript": "x"}
    assert sent({"role": "assistant", "content": "Hello!", "audio": audio})["audio"] == {"id": "a"}


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ({"arguments": {"a": 1}}, '{"a":1}'),
        ({"arguments": None}, "{}"),
        ({}, "{}"),
        ({"arguments": ""}, ""),
        ({"arguments": '{"a": 1}'}, '{"a": 1}'),
    ],
)
def test_arguments_in_any_form_become_json(function, arguments):
    call = {"id": "c1", "index": 0, "function": {"name": "f", **function}}
    (returned,) = sent({"role": "assistant", "tool_calls": [call]})["tool_calls"]
    assert returned == {
        "id": "c1",
        "type": "function",
        "function": {"name": "f", "arguments": arguments},
    }
    legacy = {"role": "assistant", "function_call": {"name": "f", **function}}
    assert sent(legacy)["function_call"] == {"name": "f", "arguments": arguments}


def test_fields_of_providers_stay_on_a_call():
    extra = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    message = {"role": "assistant", "content": None, "tool_calls": [{**CALL, **extra}]}
    assert sent(message)["tool_calls"][0]["extra_content"] == extra["extra_content"]


def test_parts_of_an_answer_that_no_request_has_are_left_out_and_named():
    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
        {"type": "text", "text": "Yes."},
        {"type": "image_url", "image_url": {"url": PNG}},
    ]
    checked = request(USER, {"role": "assistant", "content": content})
    assert checked.parameters["messages"][1]["content"] == [{"type": "text", "text": "Yes."}]
    assert checked.ignored == ["messages.thinking", "messages.image_url"]
    assert sent({"role": "assistant", "content": content[:1]})["content"] == []


RESULTS = [
    [{"type": "text", "text": "done"}, {"type": "image_url", "image_url": {"url": PNG}}],
    [{"type": "image_url", "image_url": {"url": PNG}}],
    [{"type": "file", "file": {"file_data": "data:application/pdf;base64,AA"}}],
    [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}],
    [{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}],
]


@pytest.mark.parametrize("content", RESULTS, ids=lambda parts: parts[-1]["type"])
def test_a_tool_may_return_images_files_audio_and_video(content):
    assert result(content) == content


@pytest.mark.parametrize("content", [None, "", []])
def test_a_tool_may_return_nothing(content):
    assert result(content) == ""


def test_a_part_of_a_result_that_is_unknown_is_left_out_and_named():
    content = [{"type": "resource", "uri": "x"}, {"type": "text", "text": "x"}]
    message = {"role": "tool", "tool_call_id": "c1", "content": content}
    checked = request(CALLING, message)
    assert checked.parameters["messages"][1]["content"] == [{"type": "text", "text": "x"}]
    assert checked.ignored == ["messages.resource"]


MEDIA = [
    {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
    {"type": "video_url", "video_url": {"url": "https://example.com/v.mp4"}},
    {"type": "audio_url", "audio_url": {"url": "https://example.com/a.ogg"}},
    {"type": "audio_url", "audio_url": {"url": "data:audio/ogg;codecs=opus;base64,AAAA"}},
    {"type": "input_audio", "input_audio": {"data": "AA", "format": "flac"}},
    {"type": "input_audio", "input_audio": {"data": "AA", "format": "ogg"}},
]


@pytest.mark.parametrize("part", MEDIA)
def test_audio_and_video_are_passed_on(part):
    message = {"role": "user", "content": [part, {"type": "text", "text": "what is it?"}]}
    assert request(message).parameters["messages"] == [message]


@pytest.mark.parametrize(
    "tool", [{"type": "web_search"}, {"type": "builtin_function", "function": {"name": "$web"}}]
)
def test_a_tool_of_an_unknown_type_is_left_out_and_named(tool):
    checked = request(tools=[TOOL, tool], tool_choice="required")
    assert checked.parameters["tools"] == [TOOL]
    assert checked.parameters["tool_choice"] == "required"
    assert checked.ignored == [f"tools.{tool['type']}"]


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({}, {"name": "response"}),
        ({"name": "a", "strict": True}, {"name": "a", "strict": True}),
        ({"name": "a b", "strict": None}, {"name": "response"}),
    ],
)
def test_a_schema_may_stand_in_the_format_itself(value, named):
    checked = request(response_format={"type": "json_schema", "schema": SCHEMA, **value})
    assert checked.parameters["response_format"] == {
        "type": "json_schema",
        "json_schema": {**named, "schema": SCHEMA},
    }


ELSEWHERE = [
    ({"input": "hi"}, "/responses"),
    ({"input": [{"role": "user", "content": "hi"}]}, "/responses"),
    ({"messages": [USER], "tools": [{"type": "function", "name": "f"}]}, "/responses"),
    ({"messages": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]},
     "/responses"),
    ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}]},
     "/messages"),
    ({"messages": [USER], "tools": [{"name": "f", "input_schema": {}}]}, "/messages"),
    ({"messages": [{"role": "user", "content": [
        {"type": "image", "source": {"type": "base64"}}]}]}, "/messages"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "path"), ELSEWHERE)
def test_a_request_of_another_api_names_its_endpoint(data, path):
    with pytest.raises(InvalidRequest) as caught:
        chat_request({"model": "m", **data})
    assert caught.value.message.endswith(f": send it to {path}.")
    assert caught.value.param


@pytest.mark.parametrize("data", [{}, {"prompt": "hi"}, {"messages": []}, {"messages": "hi"}])
def test_a_request_of_no_other_api_names_none(data):
    with pytest.raises(InvalidRequest) as caught:
        chat_request({"model": "m", **data})
    assert "send it to" not in caught.value.message
