"""OpenAI's dialect: what the contract cases cannot say."""

import json

import orjson
import pytest

from gateway.chat import ChatCall, fold
from gateway.errors import (
    ModelNotFound,
    UpstreamBadResponse,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamRejected,
)
from providers.errors import (
    MAX_MESSAGE,
    mask,
    rejection,
    rejection_inside,
    retry_after,
    seconds_until,
)
from providers.openai.chat import OpenAIWire

MESSAGES = [{"role": "user", "content": "Hi"}]


def whole(**more):
    return {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], **more}


def decode(*chunks, finish=True):
    decoder = OpenAIWire("http://x").decoder()
    results = [p for c in chunks for p in decoder.feed("message", json.dumps(c))]
    if finish:
        results += decoder.feed("message", "[DONE]")
    return results, decoder


def chunk(delta, **choice):
    return {"id": "x", "model": "m", "choices": [{"index": 0, "delta": delta, **choice}]}


def test_a_streamed_call_asks_for_a_stream_and_its_usage():
    call = ChatCall("m", {"messages": MESSAGES, "temperature": 1}, stream=True)
    request = OpenAIWire("https://host/v1/", "key", {"X-Team": "a"}).request(call)
    assert request.url == "https://host/v1/chat/completions"
    assert json.loads(request.body) == {
        "messages": MESSAGES,
        "temperature": 1,
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert request.headers == {
        "X-Team": "a",
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "inference-service",
        "Authorization": "Bearer key",
    }


def test_without_a_key_nothing_is_authorized():
    request = OpenAIWire("http://localhost:8080/v1").request(ChatCall("m", {"messages": MESSAGES}))
    assert "Authorization" not in request.headers


def test_nobody_learns_who_answered():
    body = {"id": "1", "created": 2, "model": "m", "object": "o", "x": 1, "y": None}
    response = OpenAIWire("http://x").response(whole(**body))
    assert response.keys() == {"choices", "x"}


@pytest.mark.parametrize(
    ("usage", "passed"),
    [
        (None, None),
        ({}, None),
        ({"prompt_tokens": 1}, None),
        ({"prompt_tokens": None, "completion_tokens": 2, "total_tokens": 3}, None),
        ("many", None),
        (
            {"prompt_tokens": 1, "completion_tokens": 2},
            {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        ),
    ],
)
def test_usage_is_whole_or_not_there(usage, passed):
    answer = OpenAIWire("http://x").response(whole(usage=usage))
    assert answer.get("usage") == passed


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": None},
        {"choices": []},
        {"choices": [1]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": "Hi"}]},
        {"choices": [{"finish_reason": "stop"}]},
    ],
)
def test_an_answer_without_choices_is_none(body):
    with pytest.raises(UpstreamBadResponse):
        OpenAIWire("http://x").response(body)


def test_an_unfinished_answer_is_not_a_short_one():
    choice = {"message": {"content": "Hal"}, "finish_reason": "error"}
    with pytest.raises(UpstreamFailed):
        OpenAIWire("http://x").response({"choices": [choice]})
    choice = {"message": {"content": ""}, "error": {"code": 503, "message": "busy"}}
    with pytest.raises(UpstreamOverloaded):
        OpenAIWire("http://x").response({"choices": [choice]})


def test_a_stream_is_finished_when_all_its_choices_are():
    def half(index, reason):
        return {"choices": [{"index": index, "delta": {"content": "a"}, "finish_reason": reason}]}

    _, decoder = decode(half(0, "stop"), finish=False)
    assert decoder.finished and not decoder.ended
    _, decoder = decode(half(0, "stop"), half(1, None), finish=False)
    assert not decoder.finished
    _, decoder = decode(half(0, "stop"), half(1, None), half(1, "length"), finish=False)
    assert decoder.finished


def test_an_end_marker_without_a_finish_reason_ends_no_answer():
    _, decoder = decode(chunk({"content": "a"}))
    assert decoder.ended and not decoder.finished


def test_what_comes_after_the_end_is_kept_but_ends_nothing_again():
    results, decoder = decode(
        chunk({"content": "a"}, finish_reason="stop"),
        {"choices": [{"index": 1, "delta": {"content": "b"}}]},
        chunk({"content": "!"}, finish_reason="stop"),
        finish=False,
    )
    assert not decoder.finished
    assert [c["finish_reason"] for p in results for c in p["choices"]] == ["stop", None, None]
    assert fold(results)["choices"][0]["message"]["content"] == "a!"


def test_tool_calls_without_an_index_are_counted():
    results, _ = decode(
        chunk({"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{"}}]}),
        chunk({"tool_calls": [{"function": {"arguments": "}"}}]}),
        chunk({"tool_calls": [{"id": "b", "function": {"name": "g", "arguments": "{}"}}]}),
        chunk({}, finish_reason="tool_calls"),
    )
    calls = fold(results)["choices"][0]["message"]["tool_calls"]
    assert [(c["id"], c["type"], c["function"]["arguments"]) for c in calls] == [
        ("a", "function", "{}"),
        ("b", "function", "{}"),
    ]


@pytest.mark.parametrize(
    ("delta", "shown"),
    [
        ({"reasoning": "Hm."}, {"reasoning_content": "Hm."}),
        ({"reasoning": None, "content": "a"}, {"content": "a"}),
        ({"reasoning": "Hm.", "reasoning_content": None}, {"reasoning_content": "Hm."}),
        ({"reasoning": "Hm.", "reasoning_content": "Hm."}, {"reasoning_content": "Hm."}),
        ({"reasoning": {"text": "Hm."}}, {"reasoning": {"text": "Hm."}}),
    ],
)
def test_thinking_has_one_name(delta, shown):
    results, _ = decode(chunk(dict(delta)))
    assert results[0]["choices"][0]["delta"] == {"role": "assistant", **shown}
    answer = OpenAIWire("http://x").response({"choices": [{"message": dict(delta)}]})
    message = answer["choices"][0]["message"]
    assert {key: message.get(key) for key in shown} == shown
    assert ("reasoning" in message) is ("reasoning" in shown)


def test_half_an_emoji_loses_nothing_else():
    decoder = OpenAIWire("http://x").decoder()
    (result,) = decoder.feed("message", r'{"choices":[{"delta":{"content":"a\ud83d"}}]}')
    assert result["choices"][0]["delta"]["content"] == "a\ufffd"
    (result,) = decoder.feed("message", r'{"choices":[{"delta":{"content":"\ude00\ud83d\ude00"}}]}')
    assert result["choices"][0]["delta"]["content"] == "\ufffd\U0001f600"


@pytest.mark.parametrize(
    "data", ["", "nonsense", "[]", "1", "null", "{}", '{"id": 1}', ": OPENROUTER PROCESSING"]
)
def test_an_event_that_says_nothing_is_skipped(data):
    assert list(OpenAIWire("http://x").decoder().feed("message", data)) == []


def test_a_filter_result_ahead_of_the_text_passes():
    results, _ = decode({"choices": [], "prompt_filter_results": [1], "usage": None}, finish=False)
    assert results == [{"choices": [], "prompt_filter_results": [1]}]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("key sk-proj-abc_123-x is bad", "key *** is bad"),
        ("Authorization: Bearer abc.def", "***"),
        ("{'x-api-key': 'abc.def'}", "{'***'}"),
        ("header bearer abc.def, gone", "header ***, gone"),
        ("the secret hunter22 is out", "the secret *** is out"),
        ("a risk-averse task-master", "a risk-averse task-master"),
    ],
)
def test_secrets_are_masked(text, masked):
    assert mask(text, ("hunter22", "")) == masked


def test_a_long_message_is_cut():
    body = json.dumps({"error": {"message": "x" * 9999, "code": 7, "param": ["a"]}}).encode()
    error = OpenAIWire("http://x").error(400, body, {})
    assert len(error.message) == MAX_MESSAGE
    assert (error.code, error.param) == (None, None)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": 7}', b"\xff", b'{"error":{}}'])
def test_a_refusal_without_words_has_ours(body):
    error = OpenAIWire("http://x").error(422, body, {})
    assert (type(error), error.status) == (UpstreamRejected, 422)
    assert error.message == UpstreamRejected.message


def test_a_bare_404_is_a_wrong_address_and_not_a_model():
    assert type(OpenAIWire("http://x").error(404, b"<html>", {})) is UpstreamBadResponse


@pytest.mark.parametrize("body", [{"error": "bad"}, {"detail": "bad"}, {"message": "bad"}])
def test_words_are_found_wherever_they_are(body):
    assert OpenAIWire("http://x").error(400, json.dumps(body).encode(), {}).message == "bad"


@pytest.mark.parametrize("status", [100, 103, 201, 204, 301, 302, 307])
def test_neither_an_answer_nor_a_refusal(status):
    assert type(OpenAIWire("http://x").error(status, b"{}", {})) is UpstreamBadResponse


@pytest.mark.parametrize("status", [500, 502, 521, 599])
def test_any_other_server_error_failed(status):
    assert type(OpenAIWire("http://x").error(status, b"{}", {})) is UpstreamFailed


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after": "0"}, 1),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "999999"}, 3600),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9),
    ],
)
def test_retry_after_is_a_sensible_number_or_nothing(headers, seconds):
    assert retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40),
        ("Thu, 01 Jan 1970 00:01:40", 40),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("soon", None),
        ("", None),
        ("7", None),
    ],
)
def test_a_date_is_so_many_seconds_away(date, seconds):
    assert seconds_until(date, 60.0) == seconds


GONE = [
    (400, {"error": {"message": "gone", "code": "model_decommissioned"}}),
    (400, {"error": {"message": "gone", "code": "model_not_available"}}),
    (400, {"object": "error", "message": "gone", "type": "invalid_model", "code": "1500"}),
    (404, {"error": {"message": "gone", "code": "NOT_FOUND"}}),
    (404, [{"error": {"message": "gone", "code": 404, "status": "NOT_FOUND"}}]),
    (410, {"error": {"message": "gone"}}),
]


@pytest.mark.parametrize(("status", "body"), GONE, ids=range(len(GONE)))
def test_a_model_that_is_gone_is_not_found_however_a_provider_says_so(status, body):
    error = OpenAIWire("http://x").error(status, json.dumps(body).encode(), {})
    assert (type(error), error.status, error.code) == (ModelNotFound, 404, "model_not_found")
    assert error.message == "gone"


def test_a_model_that_is_gone_inside_of_a_stream_is_not_found():
    data = json.dumps({"error": {"message": "gone", "code": "model_decommissioned"}})
    with pytest.raises(ModelNotFound):
        OpenAIWire("http://x").decoder().feed("message", data)


def test_a_page_that_is_gone_is_no_model():
    assert type(OpenAIWire("http://x").error(410, b"<html>", {})) is UpstreamBadResponse


SHAPES = [
    ({"content": "a", "thinking_blocks": "x"}, {"content": "a"}),
    ({"content": "a", "thinking_blocks": [{"type": "thinking"}]}, {"content": "a"}),
    ({"content": "a", "annotations": [None]}, {"content": "a"}),
    ({"content": "a", "reasoning_content": 5}, {"content": "a"}),
    ({"content": "a", "tool_calls": [None]}, {"content": "a"}),
    (
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                {"type": "text", "text": "Yes"},
                {"type": "text", "text": "."},
            ]
        },
        {"content": "Yes.", "reasoning_content": "Hm."},
    ),
]


@pytest.mark.parametrize(("fields", "expected"), SHAPES)
def test_what_is_not_of_its_form_is_left_out_whole_and_streamed(fields, expected):
    body = {"choices": [{"index": 0, "message": fields, "finish_reason": "stop"}]}
    message = OpenAIWire("http://x").response(json.loads(json.dumps(body)))["choices"][0]["message"]
    assert message == {"role": "assistant", "refusal": None, **expected}
    chunk = {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}
    (result,) = OpenAIWire("http://x").decoder().feed("message", json.dumps(chunk))
    assert result["choices"][0]["delta"] == {"role": "assistant", **expected}


@pytest.mark.parametrize(
    "fields",
    [
        {"content": 5},
        {"tool_calls": "x"},
        {"tool_calls": [{"function": "f"}]},
        {"tool_calls": ["f"]},
        {"tool_calls": [{"function": {"name": 5}}]},
        {"tool_calls": [{"id": "a", "function": {"arguments": "{}"}}]},
        {"function_call": "f"},
    ],
)
def test_an_answer_that_would_lack_its_text_or_its_tools_is_an_error(fields):
    with pytest.raises(UpstreamBadResponse):
        OpenAIWire("http://x").response({"choices": [{"message": dict(fields)}]})
    with pytest.raises(UpstreamBadResponse):
        data = json.dumps({"choices": [{"index": 0, "delta": fields, "finish_reason": "stop"}]})
        OpenAIWire("http://x").decoder().feed("message", data)


def test_details_of_usage_that_count_nothing_are_left_out():
    usage = {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": "x", "audio_tokens": 0},
        "completion_tokens_details": "none",
    }
    expected = OpenAIWire("http://x").response(whole(usage=usage))["usage"]
    assert expected["prompt_tokens_details"] == {"audio_tokens": 0}
    assert expected["completion_tokens_details"] == {}


@pytest.mark.parametrize(
    "date",
    [
        "Mon, 16 Nov 2009 13:32:02 +999999999999999999999",
        "1 Jan 2020 99999999999999999999:1:1 GMT",
    ],
)
def test_a_date_that_no_clock_can_tell_is_none(date):
    assert seconds_until(date, 60.0) is None


# Of vLLM, DeepSeek and OpenRouter; llama.cpp; Gemini; Mistral; xAI; Anthropic; OpenAI's Responses
@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("This model's maximum context length is 8192 tokens. However, you requested 9000", 400),
        ("the request exceeds the available context size, try increasing it", 400),
        ("The input token count (11) exceeds the maximum number of tokens allowed (10).", None),
        ("Prompt contains 40 tokens, too large for model with 32 maximum context length", "3051"),
        ("This model's maximum prompt length is 131072 but the request contains 140000", None),
        ("prompt is too long: 210000 tokens > 200000 maximum", None),
        ("Your input exceeds the context window of this model.", "invalid_request_error"),
    ],
)
def test_a_call_that_is_too_long_is_known_by_its_provider_s_words(message, code):
    body = {"error": {"message": message, "type": "BadRequestError", "code": code}}
    assert rejection(400, orjson.dumps(body), {}).code == "context_length_exceeded"


def test_an_error_inside_an_answer_is_not_asked_for_again_at_its_route():
    error = rejection_inside({"type": "overloaded_error", "message": "Overloaded"})
    assert (error.status, error.retryable, error.should_retry) == (503, False, False)
