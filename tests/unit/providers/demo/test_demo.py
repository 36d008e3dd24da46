"""The demo models do what their names say, the same each time."""

from itertools import chain

import pytest

from gateway.chat import ChatCall, fold
from gateway.errors import ModelNotFound, UpstreamFailed, UpstreamThrottled, UpstreamTruncated
from providers.demo.provider import DemoProvider

TOOLS = [{"type": "function", "function": {"name": "get_weather"}}]


def call(model, *messages, **more):
    return ChatCall(model, {"messages": messages or [user("Hello  there,\nyou")], **more})


def user(content):
    return {"role": "user", "content": content}


def test_echo_says_the_last_words_word_by_word():
    parts = list(DemoProvider().stream(call("echo")))
    words = [p["choices"][0]["delta"].get("content") for p in chain.from_iterable(parts[:-1])]
    assert words == ["Hello  ", "there,\n", "you"]
    answer = DemoProvider().complete(call("echo"))
    assert answer == fold(chain.from_iterable(parts))
    assert answer["choices"][0]["message"]["content"] == "Hello  there,\nyou"
    assert answer["usage"] == {"prompt_tokens": 4, "completion_tokens": 4, "total_tokens": 8}


def test_echo_says_a_long_text_in_few_pieces():
    text = "é\u2028 😀" * 100_000
    parts = list(DemoProvider().stream(call("echo", user(text))))
    assert len(parts) <= 1001
    assert fold(chain.from_iterable(parts))["choices"][0]["message"]["content"] == text


def test_echo_reads_parts_and_speaks_to_those_who_say_nothing():
    parts = user([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}])
    text = DemoProvider().complete(call("echo", parts))["choices"][0]["message"]["content"]
    assert text == "a"
    silent = DemoProvider().complete(call("echo", {"role": "system", "content": "x"}))
    assert silent["choices"][0]["message"]["content"]


def test_slow_waits_before_each_word():
    waits = []
    answer = DemoProvider(sleep=waits.append).complete(call("slow"))
    words = answer["choices"][0]["message"]["content"].split()
    assert waits == [0.5] * len(words)
    assert 9 <= sum(waits) <= 11


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("error", UpstreamFailed),
        ("throttled", UpstreamThrottled),
        ("cut", UpstreamTruncated),
        ("else", ModelNotFound),
    ],
)
def test_each_failure_is_raised_both_ways(model, error):
    with pytest.raises(error):
        DemoProvider().complete(call(model))
    with pytest.raises(error) as caught:
        list(DemoProvider().stream(call(model)))
    assert caught.value.retry_after == (2 if model == "throttled" else None)


def test_cut_says_something_first():
    stream = DemoProvider().stream(call("cut"))
    assert next(stream)[0]["choices"][0]["delta"]["content"]


def test_tool_calls_the_weather():
    answer = DemoProvider().complete(call("tool", tools=TOOLS))
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (tool_call,) = choice["message"]["tool_calls"]
    assert tool_call["function"] == {
        "name": "get_weather",
        "arguments": '{"city": "Paris", "unit": "celsius"}',
    }


def test_tool_without_tools_echoes_and_with_a_result_answers():
    plain = DemoProvider().complete(call("tool", user("Hi")))
    assert plain["choices"][0]["message"]["content"] == "Hi"
    result = {"role": "tool", "tool_call_id": "call_demo_0", "content": "Sunny"}
    answer = DemoProvider().complete(call("tool", user("Hi"), result, tools=TOOLS))
    assert "Sunny" in answer["choices"][0]["message"]["content"]
