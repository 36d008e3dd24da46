"""What a chat request may say, and how it is refused. Rows are those of the bad-input table."""

import copy
import string
import traceback

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from api.chat.request import CHAT_PARAMETERS, CHAT_REQUEST, OWN_FIELDS, chat_request, model_name
from api.schemas.errors import ERRORS, JSON_TYPES, invalid_request
from api.schemas.urls import MAX_DATA_URL, is_image_url
from gateway import strict_json
from gateway.errors import GatewayError, InvalidRequest

PIXEL = "data:image/png;base64,iVBORw0KGgo="
USER = {"role": "user", "content": "hi"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "1", "tool_call_id": "call_1"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def body(*messages, **fields):
    return {"model": "m", "messages": list(messages or [USER]), **fields}


def without(key):
    return {name: value for name, value in body().items() if name != key}


def part(**fields):
    return body({"role": "user", "content": [fields]})


def image(url):
    return part(type="image_url", image_url={"url": url})


def tool(name):
    return body(tools=[{"type": "function", "function": {"name": name}}])


def refusal(data):
    """The refusal of this request as it arrives, that is, after a trip through JSON."""
    with pytest.raises(InvalidRequest) as caught:
        chat_request(strict_json.loads(orjson.dumps(data)))
    return caught.value


MISSING, TYPE, VALUE = "missing_required_parameter", "invalid_type", "invalid_value"
HIGH, LOW = "integer_above_max_value", "integer_below_min_value"
LONG = "array_above_max_length"
CONTENT, PART = "messages[0].content", "messages[0].content[0]"
URL = f"{PART}.image_url.url"
NAME, SECOND, ANSWERED = "messages[0].name", "messages[1].content", "messages[1].tool_call_id"

BAD = {
    "41 array": ([], TYPE, None),
    "41 string": ("x", TYPE, None),
    "41 null": (None, TYPE, None),
    "41 number": (1, TYPE, None),
    "43 no model": (without("model"), MISSING, "model"),
    "43 no messages": (without("messages"), MISSING, "messages"),
    "43 nothing": ({}, MISSING, "model"),
    "44 model null": (body(model=None), TYPE, "model"),
    "44 model integer": (body(model=1), TYPE, "model"),
    "44 model empty": (body(model=""), VALUE, "model"),
    "44 model of 257": (body(model="m" * 257), VALUE, "model"),
    "44 model of 1 MB": (body(model="m" * 1_000_000), VALUE, "model"),
    "44 model with newline": (body(model="m\n"), VALUE, "model"),
    "44 model with NUL": (body(model="m\0"), VALUE, "model"),
    "46 messages null": (body(messages=None), TYPE, "messages"),
    "46 messages string": (body(messages="hi"), TYPE, "messages"),
    "46 messages object": (body(messages=USER), TYPE, "messages"),
    "46 no message": (body(messages=[]), "empty_array", "messages"),
    "46 2049 messages": (body(messages=[USER] * 2049), LONG, "messages"),
    "47 message string": (body("hi"), TYPE, "messages[0]"),
    "47 message null": (body(USER, None), TYPE, "messages[1]"),
    "47 role missing": (body({"content": "hi"}), MISSING, "messages[0].role"),
    "47 role null": (body({"role": None, "content": "hi"}), TYPE, "messages[0].role"),
    "47 role list": (body({"role": ["user"], "content": "hi"}), TYPE, "messages[0].role"),
    "47 role unknown": (body({"role": "foo", "content": "hi"}), VALUE, "messages[0].role"),
    "47 role tagged": (body({"role": "=user", "content": "hi"}), VALUE, "messages[0].role"),
    "47 name too long": (body({**USER, "name": "n" * 65}), "string_above_max_length", NAME),
    "48 no content": (body({"role": "user"}), MISSING, CONTENT),
    "48 content null": (body({"role": "user", "content": None}), TYPE, CONTENT),
    "48 content null for system": (body({"role": "system", "content": None}), TYPE, CONTENT),
    "48 content integer": (body({"role": "user", "content": 1}), TYPE, CONTENT),
    "48 content object": (body({"role": "user", "content": {}}), TYPE, CONTENT),
    "48 content empty": (body({"role": "user", "content": []}), "empty_array", CONTENT),
    "48 nested array": (body({"role": "user", "content": [["hi"]]}), TYPE, PART),
    "48 part type missing": (part(text="hi"), MISSING, f"{PART}.type"),
    "48 part type unknown": (part(type="video"), VALUE, f"{PART}.type"),
    "48 part text missing": (part(type="text"), MISSING, f"{PART}.text"),
    "48 part text null": (part(type="text", text=None), TYPE, f"{PART}.text"),
    "48 image for system": (
        body({"role": "system", "content": [{"type": "image_url"}]}),
        VALUE,
        f"{PART}.type",
    ),
    "49 file": (image("file:///etc/passwd"), "invalid_image_url", URL),
    "49 gopher": (image("gopher://a.example/1"), "invalid_image_url", URL),
    "49 link-local": (image("http://169.254.169.254/"), "invalid_image_url", URL),
    "49 backslash": (image("http://a\\@b"), "invalid_image_url", URL),
    "49 image as a string": (part(type="image_url", image_url=PIXEL), TYPE, f"{PART}.image_url"),
    "49 detail": (
        part(type="image_url", image_url={"url": PIXEL, "detail": "huge"}),
        VALUE,
        f"{PART}.image_url.detail",
    ),
    "50 answer to nothing": (
        body(USER, {"role": "tool", "content": "1", "tool_call_id": "call_1"}),
        VALUE,
        ANSWERED,
    ),
    "50 answer to another": (
        body(CALLING, {"role": "tool", "content": "1", "tool_call_id": "call_2"}),
        VALUE,
        ANSWERED,
    ),
    "50 answer before the call": (
        body({"role": "tool", "content": "1", "tool_call_id": "call_1"}, CALLING),
        VALUE,
        "messages[0].tool_call_id",
    ),
    "48 audio format": (
        part(type="input_audio", input_audio={"data": "", "format": "a/b"}),
        VALUE,
        f"{PART}.input_audio.format",
    ),
    "48 video of an inner network": (
        part(type="video_url", video_url={"url": "http://10.0.0.1/v.mp4"}),
        VALUE,
        f"{PART}.video_url.url",
    ),
    "48 audio that is text": (
        part(type="audio_url", audio_url={"url": "data:text/plain;base64,AA"}),
        VALUE,
        f"{PART}.audio_url.url",
    ),
    "50 arguments array": (
        body(
            {
                "role": "assistant",
                "tool_calls": [{**CALL, "function": {"name": "f", "arguments": []}}],
            }
        ),
        TYPE,
        "messages[0].tool_calls[0].function.arguments",
    ),
    "51 tool type": (body(tools=[{"type": 1}]), TYPE, "tools[0].type"),
    "51 nothing to call": (
        body(tools=[{"type": "magic"}], tool_choice="required"),
        VALUE,
        "tool_choice",
    ),
    "image of a tool": (
        body(
            CALLING,
            {**RESULT, "content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]},
        ),
        "invalid_image_url",
        "messages[1].content[0].image_url.url",
    ),
    "50 no id": (body(CALLING, {"role": "tool", "content": "1"}), MISSING, ANSWERED),
    "50 call without id": (
        body({"role": "assistant", "tool_calls": [{"type": "function", "function": {}}]}),
        MISSING,
        "messages[0].tool_calls[0].id",
    ),
    "51 name empty": (tool(""), VALUE, "tools[0].function.name"),
    "51 name of 257": (tool("f" * 257), "string_above_max_length", "tools[0].function.name"),
    "51 second name": (body(tools=[TOOL, tool("")["tools"][0]]), VALUE, "tools[1].function.name"),
    "51 schema string": (
        body(tools=[{"type": "function", "function": {"name": "f", "parameters": "{}"}}]),
        TYPE,
        "tools[0].function.parameters",
    ),
    "51 129 tools": (body(tools=[TOOL] * 129), LONG, "tools"),
    "51 tool choice word": (body(tool_choice="maybe"), VALUE, "tool_choice"),
    "51 tool choice type": (body(tool_choice={"type": "x"}), VALUE, "tool_choice.type"),
    "51 tool choice integer": (body(tool_choice=1), TYPE, "tool_choice"),
    "51 legacy function name": (body(functions=[{"name": ""}]), VALUE, "functions[0].name"),
    "51 legacy choice": (body(function_call={}), MISSING, "function_call.name"),
    "52 string": (body(temperature="1"), TYPE, "temperature"),
    "52 true": (body(temperature=True), TYPE, "temperature"),
    "52 -0.1": (body(temperature=-0.1), "decimal_below_min_value", "temperature"),
    "52 2.1": (body(temperature=2.1), "decimal_above_max_value", "temperature"),
    "52 1e308": (body(temperature=1e308), "decimal_above_max_value", "temperature"),
    "52 top_p": (body(top_p=1.1), "decimal_above_max_value", "top_p"),
    "52 penalty": (body(presence_penalty=-3), "decimal_below_min_value", "presence_penalty"),
    "53 0": (body(max_tokens=0), LOW, "max_tokens"),
    "53 -1": (body(max_tokens=-1), LOW, "max_tokens"),
    "53 1.5": (body(max_tokens=1.5), TYPE, "max_tokens"),
    "53 1.0": (body(max_tokens=1.0), TYPE, "max_tokens"),
    "53 2^31": (body(max_tokens=2**31), HIGH, "max_tokens"),
    "53 2^64": (body(max_tokens=2.0**64), HIGH, "max_tokens"),
    "53 string": (body(max_tokens="5"), TYPE, "max_tokens"),
    "53 completion": (body(max_completion_tokens=0), LOW, "max_completion_tokens"),
    "54 0": (body(n=0), LOW, "n"),
    "54 129": (body(n=129), HIGH, "n"),
    "54 true": (body(n=True), TYPE, "n"),
    "54 top_logprobs": (body(top_logprobs=21), HIGH, "top_logprobs"),
    "55 5 stops": (body(stop=["a"] * 5), LONG, "stop"),
    "55 integers": (body(stop=[1]), TYPE, "stop[0]"),
    "55 null inside": (body(stop=["a", None]), TYPE, "stop[1]"),
    "55 object": (body(stop={}), TYPE, "stop"),
    "56 string": (body(stream="true"), TYPE, "stream"),
    "56 1": (body(stream=1), TYPE, "stream"),
    "57 no stream": (body(stream_options={"include_usage": True}), VALUE, "stream_options"),
    "57 stream false": (body(stream_options={}, stream=False), VALUE, "stream_options"),
    "57 array": (body(stream_options=[], stream=True), TYPE, "stream_options"),
    "usage array": (body(usage=[]), TYPE, "usage"),
    "usage number": (body(usage={"include": 1}), TYPE, "usage.include"),
    "57 wrong inside": (
        body(stream_options={"include_usage": 1}, stream=True),
        TYPE,
        "stream_options.include_usage",
    ),
    "58 unknown": (body(response_format={"type": "xml"}), VALUE, "response_format.type"),
    "58 string": (body(response_format="json"), TYPE, "response_format"),
    "58 json_schema missing": (
        body(response_format={"type": "json_schema"}),
        MISSING,
        "response_format.json_schema",
    ),
    "58 schema missing": (
        body(response_format={"type": "json_schema", "json_schema": {"name": "a"}}),
        MISSING,
        "response_format.json_schema.schema",
    ),
    "59 301 keys": (body(logit_bias={str(key): 1 for key in range(301)}), VALUE, "logit_bias"),
    "59 101": (body(logit_bias={"1": 101}), VALUE, "logit_bias"),
    "59 -101": (body(logit_bias={"1": -101}), VALUE, "logit_bias"),
    "59 true": (body(logit_bias={"1": True}), VALUE, "logit_bias"),
    "59 array": (body(logit_bias=[]), TYPE, "logit_bias"),
    "60 2^63": (body(seed=2**63), HIGH, "seed"),
    "60 2^64": (body(seed=2.0**64), HIGH, "seed"),
    "60 -2^64": (body(seed=-(2.0**64)), LOW, "seed"),
    "60 -2^63-1, as the parser has it": (body(seed=-(2.0**63)), LOW, "seed"),
    "60 1e300": (body(seed=1e300), HIGH, "seed"),
    "62 17 keys": (body(metadata={str(key): "" for key in range(17)}), VALUE, "metadata"),
    "62 nested": (body(metadata={"a": {"b": "c"}}), VALUE, "metadata"),
    "62 long key": (body(metadata={"k" * 65: ""}), VALUE, "metadata"),
    "62 long value": (body(metadata={"k": "v" * 513}), VALUE, "metadata"),
    "62 string": (body(metadata="a"), TYPE, "metadata"),
    "63 user of 10 KB": (body(user="u" * 10_240), "string_above_max_length", "user"),
    "63 user integer": (body(user=1), TYPE, "user"),
    "cache type": (
        part(type="text", text="x", cache_control={"type": "eternal"}),
        VALUE,
        f"{PART}.cache_control.type",
    ),
    "cache ttl": (
        part(
            type="image_url",
            image_url={"url": PIXEL},
            cache_control={"type": "ephemeral", "ttl": "2h"},
        ),
        VALUE,
        f"{PART}.cache_control.ttl",
    ),
    "cache of a file": (part(type="file", file={}, cache_control=1), TYPE, f"{PART}.cache_control"),
    "cache of a tool": (
        body(tools=[{**TOOL, "cache_control": {}}]),
        MISSING,
        "tools[0].cache_control.type",
    ),
    "cache of a result": (
        body(CALLING, {**RESULT, "cache_control": []}),
        TYPE,
        "messages[1].cache_control",
    ),
    "result's error": (body(CALLING, {**RESULT, "is_error": "no"}), TYPE, "messages[1].is_error"),
    "reasoning": (body({**CALLING, "reasoning_content": 1}), TYPE, "messages[0].reasoning_content"),
    "thought of no kind": (
        body({**CALLING, "thinking_blocks": [{"type": "dream"}]}),
        VALUE,
        "messages[0].thinking_blocks[0].type",
    ),
    "thought without text": (
        body({**CALLING, "thinking_blocks": [{"type": "thinking", "signature": "x"}]}),
        MISSING,
        "messages[0].thinking_blocks[0].thinking",
    ),
    "hidden thought without data": (
        body({**CALLING, "thinking_blocks": [{"type": "redacted_thinking"}]}),
        MISSING,
        "messages[0].thinking_blocks[0].data",
    ),
    "effort": (body(reasoning_effort="huge"), VALUE, "reasoning_effort"),
    "verbosity": (body(verbosity=1), TYPE, "verbosity"),
    "service tier": (body(service_tier="gold"), VALUE, "service_tier"),
    "modality": (body(modalities=["text", "smell"]), VALUE, "modalities[1]"),
    "audio": (body(audio={"voice": "alloy"}), MISSING, "audio.format"),
    "prediction": (body(prediction={"type": "content"}), MISSING, "prediction.content"),
    "retention": (body(prompt_cache_retention="1h"), VALUE, "prompt_cache_retention"),
    "search size": (
        body(web_search_options={"search_context_size": "xl"}),
        VALUE,
        "web_search_options.search_context_size",
    ),
}


@pytest.mark.parametrize(("data", "code", "param"), BAD.values(), ids=BAD.keys())
def test_a_wrong_request_is_refused_with_its_code_and_path(data, code, param):
    error = refusal(data)
    assert (error.status, error.type) == (400, "invalid_request_error")
    assert (error.code, error.param) == (code, param)
    assert "{" not in error.message.replace("{1,64}", "")


MESSAGES_TOLD = {
    "Missing required parameter: 'messages'.": without("messages"),
    "Invalid type for 'temperature': expected a decimal, but got a string instead.": body(
        temperature="1"
    ),
    "Invalid type for 'user': expected a string, but got an integer instead.": body(user=1),
    "Invalid type for 'n': expected an integer, but got a boolean instead.": body(n=True),
    "Invalid type for 'messages': expected an array, but got null instead.": body(messages=None),
    "Invalid type for 'messages[0].content': expected one of a string or array of objects,"
    " but got null instead.": body({"role": "user", "content": None}),
    "Invalid 'temperature': decimal above maximum value."
    " Expected a value <= 2, but got 200 instead.": body(temperature=200),
    "Invalid 'presence_penalty': decimal below minimum value."
    " Expected a value >= -2, but got -2.5 instead.": body(presence_penalty=-2.5),
    "Invalid 'max_tokens': integer below minimum value."
    " Expected a value >= 1, but got 0 instead.": body(max_tokens=0),
    "Invalid 'seed': integer above maximum value."
    " Expected a value <= 9223372036854775807, but got 18446744073709551616 instead.": body(
        seed=2.0**64
    ),
    "Invalid value: 'foo'. Supported values are:"
    " 'system', 'developer', 'user', 'assistant', and 'tool'.": body({"role": "foo"}),
    "Invalid value: 'x'. Supported values are: 'low', 'medium', and 'high'.": body(verbosity="x"),
    "Invalid value: 'x'. Supported values are: 'text' and 'audio'.": body(modalities=["x"]),
    "Invalid value: 'image_url'. Supported values are: 'text'.": body(
        {"role": "system", "content": [{"type": "image_url"}]}
    ),
    "Invalid 'messages': empty array."
    " Expected an array with minimum length 1, but got an empty array instead.": body(messages=[]),
    "Invalid 'stop': array too long. Expected an array with maximum length 4,"
    " but got an array with length 5 instead.": body(stop=["a"] * 5),
    "Invalid 'user': string too long. Expected a string with maximum length 512,"
    " but got a string with length 513 instead.": body(user="u" * 513),
    "Invalid 'response_format.json_schema.name': string does not match pattern."
    " Expected a string that matches the pattern '^[A-Za-z0-9_-]{1,64}$'.": body(
        response_format={"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}
    ),
    "Invalid type for the request body: expected an object, but got an array instead.": [],
}


@pytest.mark.parametrize(("message", "data"), MESSAGES_TOLD.items())
def test_errors_are_told_in_these_words(message, data):
    assert refusal(data).message == message


def test_the_first_thing_wrong_is_the_only_one_told():
    error = refusal(body({"role": "foo"}, {"role": "bar"}, temperature=9, n=0))
    assert error.param == "messages[0].role"


def test_a_message_repeats_little_of_a_value_and_on_one_line():
    error = refusal(body(service_tier="line\n\r\x1b[31m" + "s" * 10_000))
    echoed = error.message.split("'")[1]
    assert echoed.startswith("line[31m")
    assert len(echoed) <= 64
    assert error.message.isprintable()


def test_neither_error_nor_traceback_keeps_what_the_caller_said():
    error = refusal(body({"role": "user", "content": ["my secret"]}, temperature="my secret"))
    assert "secret" not in error.message
    assert "secret" not in "".join(traceback.format_exception(error))
    assert error.__context__ is None


def test_braces_in_a_value_are_no_template():
    assert refusal(body(verbosity="{path}{x}")).message.startswith("Invalid value: '{path}{x}'.")


def test_a_kind_of_error_the_table_lacks_is_an_invalid_value():
    class Odd(BaseModel):
        value: int = Field(multiple_of=5)

    with pytest.raises(ValidationError) as caught:
        Odd(value=3)
    error = invalid_request(caught.value)
    assert (error.code, error.param, error.message) == (
        "invalid_value",
        "value",
        "Invalid value for 'value'.",
    )


def test_every_wrong_type_has_its_words_in_the_one_table():
    assert not JSON_TYPES.keys() & ERRORS.keys()


FULL = {
    "model": "openai/gpt-4o",
    "models": ["anthropic/claude-sonnet-4-5"],
    "messages": [
        {"role": "system", "content": "Be brief.", "name": "boss"},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "\0 é 😀 ‮ \u2028", "cache_control": {"type": "ephemeral"}},
                {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://a.example/b.png?c=d"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {"type": "file", "file": {"file_id": "file-1", "filename": None}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "audio": None,
            "function_call": None,
            "annotations": [],
            "tool_calls": [
                CALL,
                {"id": "call_2", "type": "custom", "custom": {"name": "g", "input": "x"}},
            ],
        },
        {"role": "tool", "content": "", "tool_call_id": "call_1", "is_error": True},
        {"role": "tool", "content": [{"type": "text", "text": "2"}], "tool_call_id": "call_2"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "assistant", "content": ""},
        {"role": "assistant", "refusal": "no"},
        {"role": "assistant", "audio": {"id": "audio_1"}},
        {
            "role": "assistant",
            "reasoning_content": "Hm.",
            "thinking_blocks": [
                {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
                {"type": "thinking", "thinking": "Of another provider.", "signature": None},
                {"type": "redacted_thinking", "data": "ZGF0YQ=="},
            ],
        },
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": None},
    ],
    "temperature": 2,
    "top_p": 0,
    "n": 128,
    "max_tokens": 2**31 - 1,
    "max_completion_tokens": 1,
    "stop": ["a", "b", "c", ""],
    "stream": True,
    "background": True,
    "stream_options": {"include_usage": True, "include_obfuscation": None},
    "usage": {"include": True},
    "presence_penalty": -2,
    "frequency_penalty": 2.0,
    "logit_bias": {"50256": -100, "1": 0.5},
    "logprobs": True,
    "top_logprobs": 0,
    "seed": -(2**63),
    "user": "u" * 512,
    "metadata": {"k" * 64: "v" * 512},
    "tools": [
        {**TOOL, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "function", "function": {"name": "a-Z_9", "strict": None, "description": "d"}},
        {"type": "custom", "custom": {"name": "g", "format": {"type": "text"}}},
    ],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "parallel_tool_calls": False,
    "functions": [{"name": "f", "parameters": {}}],
    "function_call": {"name": "f"},
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "a", "schema": {"$ref": "#"}, "strict": True},
    },
    "reasoning_effort": "low",
    "verbosity": "low",
    "service_tier": "auto",
    "store": False,
    "modalities": ["text", "audio"],
    "audio": {"voice": {"id": "v"}, "format": "mp3"},
    "prediction": {"type": "content", "content": [{"type": "text", "text": "x"}]},
    "prompt_cache_key": "k",
    "safety_identifier": "s",
    "web_search_options": {
        "search_context_size": "low",
        "user_location": {"type": "approximate", "approximate": {"city": "Oslo"}},
    },
    "prompt_cache_retention": "24h",
}


def test_the_full_request_holds_every_parameter_there_is():
    assert FULL.keys() == CHAT_PARAMETERS | OWN_FIELDS


def test_all_parameters_are_returned_as_the_very_objects_that_came():
    request = chat_request(FULL)
    assert (request.model, request.stream, request.include_usage) == ("openai/gpt-4o", True, True)
    assert list(request.parameters) == [name for name in FULL if name not in OWN_FIELDS]
    assert all(
        value is FULL[name] for name, value in request.parameters.items() if name != "messages"
    )
    assert request.ignored == []


def test_a_request_is_not_changed_by_being_checked():
    before = copy.deepcopy(FULL)
    chat_request(FULL)
    assert before == FULL


GOOD = {
    "stop string": body(stop="a"),
    "stop empty": body(stop=[]),
    "tool choice word": body(tool_choice="required"),
    "allowed tools": body(
        tool_choice={"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOL]}}
    ),
    "custom tool choice": body(tool_choice={"type": "custom", "custom": {"name": "g"}}),
    "text format": body(response_format={"type": "text"}),
    "object format": body(response_format={"type": "json_object"}),
    "voice by name": body(audio={"voice": "alloy", "format": "wav"}),
    "largest seed": body(seed=2**63 - 1),
    "300 biases": body(logit_bias={str(key): 1 for key in range(300)}),
    "128 tools": body(tools=[TOOL] * 128),
    "2048 messages": body(messages=[USER] * 2048),
    "a line of 1M characters": body({"role": "user", "content": "x" * 1_000_000}),
    "one answer, two calls": body(
        CALLING, {"role": "tool", "content": "1", "tool_call_id": "call_1"}, USER
    ),
    "model of 256": body(model="m" * 256),
    "model with accents": body(model="é/模型"),
}


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD.keys())
def test_a_right_request_is_taken(data):
    arrived = strict_json.loads(orjson.dumps(data))
    request = chat_request(arrived)
    assert {"model": request.model, **request.parameters} == data


def test_null_is_no_parameter():
    nulls = dict.fromkeys((CHAT_PARAMETERS | OWN_FIELDS) - {"model", "messages"})
    request = chat_request(body(**nulls))
    assert list(request.parameters) == ["messages"]
    assert (request.stream, request.include_usage, request.ignored) == (False, False, [])


@pytest.mark.parametrize(
    ("usage", "cost"),
    [({"include": True}, True), ({"include": False}, False), ({}, False), (None, False)],
)
def test_the_cost_is_in_the_usage_of_the_response_if_the_request_includes_it(usage, cost):
    request = chat_request(body(stream=True, usage=usage))
    assert (request.include_cost, request.include_usage) == (cost, cost)
    assert "usage" not in request.parameters
    assert request.ignored == []


@pytest.mark.parametrize(
    ("options", "include_usage"),
    [
        (None, False),
        ({}, False),
        ({"include_usage": None}, False),
        ({"include_usage": False}, False),
        ({"include_usage": True}, True),
    ],
)
def test_usage_is_included_only_on_demand(options, include_usage):
    request = chat_request(body(stream=True, stream_options=options))
    assert request.include_usage is include_usage
    assert "stream_options" not in request.parameters


def test_unknown_fields_are_ignored_and_named_in_order():
    """Row 61."""
    unknown = ["zeta", "__proto__", "__class__", "api_base", "base_url", "api_key", "headers"]
    request = chat_request({**dict.fromkeys(unknown, "x"), **body(frobnicate=["a"], alpha=None)})
    assert request.ignored == [*unknown, "frobnicate", "alpha"]
    assert list(request.parameters) == ["messages"]


def test_extra_fields_of_the_provider_are_kept_as_they_came():
    plugins = [{"id": "web"}]
    request = chat_request(body(plugins=plugins, top_k=None, other=1), extra={"plugins", "top_k"})
    assert request.parameters["plugins"] is plugins
    assert "top_k" not in request.parameters
    assert request.ignored == ["other"]


def test_extra_cannot_make_a_parameter_of_what_is_none():
    request = chat_request(body(stream=True), extra=OWN_FIELDS)
    assert list(request.parameters) == ["messages"]


def test_the_model_is_named_before_anything_else_is_checked():
    assert model_name({"model": "m", "messages": 5}) == "m"


GOOD_URLS = [
    "https://a.example",
    "HTTPS://A.example:8443/b%20c?d=e#f",
    "http://8.8.8.8/a.png",
    "https://[2606:4700:4700::1111]/a.png",
    "https://[::ffff:8.8.8.8]/a.png",
    "https://bücher.example/é.png",
    "https://3.example.com/a",
    "https://local.example.com/internal",
    "https://internal.example./a",
    PIXEL,
    "DATA:image/svg+xml;charset=utf-8;BASE64,PHN2Zz4=",
]
BAD_URLS = [
    "",
    "a.png",
    "//a.example/b",
    "https:a.example",
    "https://",
    "http:///a",
    "http://:80/",
    "http://a.example:99999/",
    "http://a.example:x/",
    "http://a.example:0/",
    "file:///etc/passwd",
    "gopher://a.example",
    "ftp://a.example/a.png",
    "javascript:alert(1)",
    "http://a\\@b",
    "http:\\\\a.example",
    "http://a.example\\.b.example/",
    "http://user@a.example/",
    "http://user:pass@a.example/",
    "http://a.example/b\r\nc",
    " http://a.example/",
    "http://a.example/b c",
    "http://a.example/\0",
    "http://localhost",
    "http://LOCALHOST.:80/",
    "http://a.localhost/",
    "http://redis:6379/",
    "http://metadata/",
    "http://ip6-localhost/",
    "http://metadata.google.internal/",
    "http://host.docker.internal:2375/",
    "http://kubernetes.default.svc/",
    "http://kubernetes.default.svc.cluster.local/",
    "http://printer.local/",
    "http://router.LAN/",
    "http://a.localdomain./",
    "http://a.home.arpa/",
    "http://a。internal/",
    "http://127.0.0.1/",
    "http://10.0.0.1/",
    "http://192.168.1.1/",
    "http://172.16.0.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data",
    "http://0.0.0.0/",
    "http://224.0.0.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://127.0.0.1./",
    "http://１２７.０.０.１/",
    "http://127。0。0。1/",
    "http://%31%32%37.0.0.1/",
    "http://%6cocalhost/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b:1::808:808]/",
    "http://[2002:7f00:1::]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fd00::1]/",
    "http://[fec0::1]/",
    "http://[::1",
    "https://a.example/" + "b" * 9_000,
    "data:text/html;base64,AAAA",
    "data:image/png,AAAA",
    "data:image/png;base64,",
    "data:image/png;base64,é",
    "data:image/png;base64,AAAé",
    "data:image/;base64,AAAA",
    "data:,",
]


@pytest.mark.parametrize("url", GOOD_URLS)
def test_public_addresses_and_inline_images_are_image_urls(url):
    assert is_image_url(url)
    chat_request(image(url))


@pytest.mark.parametrize("url", BAD_URLS)
def test_other_addresses_are_no_image_urls(url):
    assert not is_image_url(url)
    assert refusal(image(url)).code == "invalid_image_url"


def test_an_inline_image_over_50_mb_is_refused():
    """Row 49."""
    longest = PIXEL + "A" * (MAX_DATA_URL - len(PIXEL))
    assert is_image_url(longest)
    assert not is_image_url(longest + "A")


def test_the_shapes_make_an_openapi_document():
    schema = CHAT_REQUEST.json_schema()
    assert schema["properties"].keys() == CHAT_PARAMETERS | OWN_FIELDS
    assert schema["required"] == ["model", "messages"]
    model = schema["properties"]["model"]
    assert (model["minLength"], model["maxLength"]) == (1, 256)


def places(value, path=()):
    """The path of everything in a JSON value."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    changed = copy.copy(value)
    changed[path[0]] = replaced(value[path[0]], path[1:], new)
    return changed


names = st.sampled_from(["role", "type", "content", "text", "=user", "=text", "name", "{path}"])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | names
scalars |= st.text(string.printable, max_size=80) | st.text(max_size=10)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4)
)
PLACES = [path for path in places(FULL) if path]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), anything), min_size=1, max_size=3))
def test_a_mutated_request_is_taken_or_refused_and_never_breaks(mutations):
    data = FULL
    for path, new in mutations:
        try:
            data = replaced(data, path, new)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier mutation took this place away
    try:
        request = chat_request(data)
    except GatewayError as error:
        assert error.status == 400
        assert error.code
        assert len(error.message) < 500
        assert "=" not in (error.param or "").replace("==", "")
    else:
        shaped = ("messages", "tools", "response_format")
        assert all(
            value is data[name] for name, value in request.parameters.items() if name not in shaped
        )


@settings(max_examples=200, deadline=None)
@given(anything)
def test_no_value_whatever_breaks_the_check(value):
    try:
        chat_request(value)
        raise AssertionError("taken")
    except InvalidRequest as error:
        assert error.code


# models: whom to ask should the first one fail


@pytest.mark.parametrize("models", [[], ["a/b"], ["m", "a/b", "c/d", "e/f", "g/h"]])
def test_fallbacks_are_kept_apart_from_the_parameters(models):
    asked = chat_request(body(models=models))
    assert asked.models == tuple(models)
    assert "models" not in asked.parameters
    assert asked.ignored == []


def test_no_word_about_fallbacks_is_not_an_empty_list():
    assert chat_request(body()).models is None
    assert chat_request(body(models=None)).models is None


@pytest.mark.parametrize(
    ("models", "param", "code"),
    [
        (["m"] * 6, "models", LONG),
        ("a/b", "models", TYPE),
        ({"a/b": 1}, "models", TYPE),
        ([1], "models[0]", TYPE),
        ([None], "models[0]", TYPE),
        (["a/b", "c\n"], "models[1]", VALUE),
    ],
)
def test_fallbacks_that_are_none_are_refused(models, param, code):
    error = refusal(body(models=models))
    assert (error.param, error.code) == (param, code)


@pytest.mark.parametrize("name", ["", "m" * 257])
def test_a_fallback_s_name_has_a_length(name):
    assert refusal(body(models=[name])).param == "models[0]"
