"""Streams of OpenAI-compatible upstreams in odd forms: an error or one right answer, never less."""

import json
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.chat import fold
from gateway.errors import (
    GatewayError,
    UpstreamAuth,
    UpstreamBadResponse,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTruncated,
)
from providers.openai.chat import OpenAIWire
from providers.openai.finish_reasons import FINISH_REASONS, finish_reason

WIRE = OpenAIWire("http://x")


def chunk(delta, reason=None):
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def answer_to(*events, wire=WIRE, done=True):
    """The whole answer that a stream of these events is."""
    decoder = wire.decoder()
    chunks = []
    for event in events:
        name, data = event if isinstance(event, tuple) else ("message", event)
        chunks += decoder.feed(name, data if isinstance(data, str) else json.dumps(data))
    if done:
        decoder.feed("message", "[DONE]")
    if not decoder.finished:
        raise UpstreamTruncated()
    return fold(chunks)


def message_of(*events):
    return answer_to(*events)["choices"][0]["message"]


def calls_of(*elements, reason="tool_calls"):
    """The calls of a stream: each argument is the `tool_calls` of one chunk."""
    chunks = [chunk({"tool_calls": element}) for element in elements]
    return message_of(*chunks, chunk({}, reason)).get("tool_calls", [])


def shown(calls):
    return [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls]


def element(index=None, ident=None, name=None, arguments=None):
    fields = {"index": index, "id": ident, "function": {"name": name, "arguments": arguments}}
    return {key: value for key, value in fields.items() if value is not None}


ROME, OSLO = '{"city": "Rome"}', '{"city": "Oslo"}'

# What upstreams stream -> the calls that it means.
ODD_CALLS = {
    "an index that is text": ([[element("0", "a", "f", ROME)]], [("a", "f", ROME)]),
    "indices from 1 on": (
        [[element(1, "a", "f", ROME)], [element(2, "b", "g", OSLO)]],
        [("a", "f", ROME), ("b", "g", OSLO)],
    ),
    "the index comes later": (
        [[element(None, "a", "f", '{"city"')], [element(0, None, None, ': "Rome"}')]],
        [("a", "f", ROME)],
    ),
    "the same tool twice at index 0": (
        [[element(0, "a", "f", ROME)], [element(0, "b", "f", OSLO)]],
        [("a", "f", ROME), ("b", "f", OSLO)],
    ),
    "arguments in pieces, all at index 0": (
        [
            [element(0, "a", "f", "")],
            [element(0, None, None, ROME[:4])],
            [element(0, None, None, ROME[4:])],
            [element(0, "b", "g", "")],
            [element(0, None, None, OSLO[:9])],
            [element(0, None, None, OSLO[9:])],
        ],
        [("a", "f", ROME), ("b", "g", OSLO)],
    ),
    "an object after an object, without id and name": (
        [[element(0, "a", "f", ROME)], [element(0, None, "", OSLO)]],
        [("a", "f", ROME), (None, "f", OSLO)],
    ),
    "neither ids nor indices": (
        [[element(None, None, "f", ROME)], [element(None, None, "g", OSLO)]],
        [(None, "f", ROME), (None, "g", OSLO)],
    ),
    "neither ids nor indices, in one chunk": (
        [[element(None, None, "f", ""), element(None, None, "g", "")]],
        [(None, "f", "{}"), (None, "g", "{}")],
    ),
    "an id that is empty": ([[element(0, "", "f", ROME)]], [(None, "f", ROME)]),
    "one id for two calls": (
        [[element(0, "a", "f", ROME)], [element(1, "a", "g", OSLO)]],
        [("a", "f", ROME), (None, "g", OSLO)],
    ),
    "a new id in each piece": (
        [[element(0, "a", "f", '{"city"')], [element(0, "b", None, ': "Rome"}')]],
        [("a", "f", ROME)],
    ),
    "a new id and the name in each piece": (
        [[element(0, "a", "f", '{"city"')], [element(0, "b", "f", ': "Rome"}')]],
        [("a", "f", ROME)],
    ),
    "a name in pieces": (
        [
            [element(0, "a", "get_", "")],
            [element(0, None, "weather")],
            [element(0, None, "", ROME)],
        ],
        [("a", "get_weather", ROME)],
    ),
    "a name that grows": (
        [[element(0, "a", "get_", "")], [element(0, "a", "get_weather", ROME)]],
        [("a", "get_weather", ROME)],
    ),
    "a name in each piece": (
        [[element(0, "a", "f", '{"city"')], [element(0, "a", "f", ': "Rome"}')]],
        [("a", "f", ROME)],
    ),
    "a name after the arguments": (
        [[element(0, "a", None, ROME)], [element(0, "a", "f", None)]],
        [("a", "f", ROME)],
    ),
    "an empty object, then the arguments": (
        [[element(0, "a", "f", "{}")], [element(0, None, None, ROME)]],
        [("a", "f", ROME)],
    ),
    "an empty object, then pieces": (
        [
            [element(0, "a", "f", {})],
            [element(0, None, None, ROME[:3])],
            [element(0, None, None, ROME[3:])],
        ],
        [("a", "f", ROME)],
    ),
    "the whole call again, without its id": (
        [[element(0, "a", "f", ROME)], [element(0, None, "f", ROME)]],
        [("a", "f", ROME)],
    ),
    "null beside a call": ([[None, element(0, "a", "f", ROME)]], [("a", "f", ROME)]),
    "an element that says nothing": ([[{}], [element(0, "a", "f", ROME)]], [("a", "f", ROME)]),
    "without a level for the function": (
        [[{"id": "a", "type": "function", "name": "f", "arguments": ROME}]],
        [("a", "f", ROME)],
    ),
    "parameters in place of arguments": (
        [[{"id": "a", "function": {"name": "f", "parameters": {"city": "Rome"}}}]],
        [("a", "f", '{"city":"Rome"}')],
    ),
    "two objects in one text": (
        [[element(0, "a", "f", ROME + " " + OSLO)]],
        [("a", "f", ROME), (None, "f", OSLO)],
    ),
    "one call in place of a list": ([element(0, "a", "f", ROME)], [("a", "f", ROME)]),
}


@pytest.mark.parametrize("form", ODD_CALLS)
@pytest.mark.parametrize("reason", ["tool_calls", "stop", "STOP", "function_call"])
def test_tool_calls_in_odd_forms_are_calls(form, reason):
    elements, expected = ODD_CALLS[form]
    calls = calls_of(*elements, reason=reason)
    assert [(name, text) for _, name, text in shown(calls)] == [row[1:] for row in expected]
    for call, (ident, _, _) in zip(calls, expected, strict=True):
        assert call["id"] == ident or (ident is None and call["id"].startswith("call_"))
        assert call["type"] == "function"
    assert len({call["id"] for call in calls}) == len(calls)


def test_every_call_begins_with_all_that_names_it_and_is_sent_without_a_break():
    decoder = WIRE.decoder()
    chunks = []
    for elements in (
        [element(0, "a", "f", ""), element(1, "b", "g", "")],
        [element(1, None, None, OSLO[:3])],
        [element(0, None, None, ROME[:3])],
        [element(0, None, None, ROME[3:]), element(1, None, None, OSLO[3:])],
    ):
        chunks += decoder.feed("message", json.dumps(chunk({"tool_calls": elements})))
    chunks += decoder.feed("message", json.dumps(chunk({}, "tool_calls")))
    deltas = [
        call
        for each in chunks
        for choice in each["choices"]
        for call in choice["delta"].get("tool_calls") or ()
    ]
    indices = [delta["index"] for delta in deltas]
    assert indices == sorted(indices)
    heads = [delta for delta in deltas if "id" in delta]
    assert [(head["id"], head["function"]["name"]) for head in heads] == [("a", "f"), ("b", "g")]
    assert shown(fold(chunks)["choices"][0]["message"]["tool_calls"]) == [
        ("a", "f", ROME),
        ("b", "g", OSLO),
    ]


def test_a_custom_tool_gets_its_text():
    custom = {"index": 0, "id": "a", "type": "custom", "custom": {"name": "patch", "input": "*** "}}
    rest = {"index": 0, "custom": {"input": "{Begin}"}}
    (call,) = calls_of([custom], [rest])
    assert call["custom"] == {"name": "patch", "input": "*** {Begin}"}


def test_a_call_that_continues_after_its_end_is_an_error():
    with pytest.raises(UpstreamBadResponse):
        calls_of(
            [element(0, "a", "f", ROME)],
            [element(1, "b", "g", OSLO)],
            [element(0, "a", None, "!")],
        )


def test_tool_calls_as_a_finish_without_a_call_is_a_stop():
    choice = answer_to(chunk({"content": "No."}, "tool_calls"))["choices"][0]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == ("stop", "tool_calls")


@st.composite
def split_calls(draw):
    """Calls, and the `tool_calls` of the chunks of a stream that sends them in an odd form."""
    values = st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
        ),
        max_leaves=4,
    )
    objects = st.dictionaries(st.text(max_size=3), values, max_size=3)
    calls = draw(
        st.lists(
            st.tuples(st.sampled_from(["f", "get_time", "g"]), objects), min_size=1, max_size=4
        )
    )
    with_ids, repeat_id, repeat_name, at_zero = (draw(st.booleans()) for _ in range(4))
    indices = draw(st.sampled_from(["right", "zero", "none"])) if with_ids else "right"
    whole_objects = draw(st.booleans())
    elements, expected = [], []
    for number, (name, value) in enumerate(calls):
        text = json.dumps(value)
        index = {"right": number, "zero": 0, "none": None}[indices]
        ident = f"id-{number}" if with_ids else None
        expected.append((name, value))
        if whole_objects:
            elements.append(element(index, ident, name, value if draw(st.booleans()) else text))
            continue
        cuts = sorted(draw(st.sets(st.integers(1, len(text)), max_size=4)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        if draw(st.booleans()):
            pieces.insert(0, "")
        for i, piece in enumerate(pieces):
            elements.append(
                element(
                    index,
                    ident if i == 0 or repeat_id else None,
                    name if i == 0 or (repeat_name and repeat_id) else None,
                    piece,
                )
            )
    groups, rest = [], elements
    while rest:
        size = draw(st.integers(1, 3))
        groups.append(rest[:size])
        rest = rest[size:]
    return expected, groups


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(split_calls())
def test_calls_in_any_odd_form_are_the_same_calls(case):
    expected, groups = case
    calls = calls_of(*groups)
    assert [
        (call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls
    ] == expected
    assert len({call["id"] for call in calls}) == len(calls)


# Objects in a 200 that report an error, whole or in a stream -> the error.
ERRORS = [
    ({"error": "boom"}, UpstreamFailed),
    ({"error": {"message": "boom", "code": 429}}, UpstreamThrottled),
    ({"error": {"message": "boom", "code": "429"}}, UpstreamThrottled),
    ({"error": {"message": "busy", "status": "UNAVAILABLE", "code": 503}}, UpstreamOverloaded),
    ({"error": {"type": "overloaded_error"}, "choices": [{"delta": {}}]}, UpstreamOverloaded),
    ({"object": "error", "message": "boom", "code": 400}, UpstreamRejected),
    (
        {"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}},
        UpstreamThrottled,
    ),
    ({"message": "boom", "type": "invalid_request_error"}, UpstreamRejected),
    ({"choices": [], "message": "boom", "type": "BadRequestError"}, UpstreamRejected),
    ({"choices": None, "error_type": "RateLimitError", "error_message": "x"}, UpstreamThrottled),
    ({"detail": "boom"}, UpstreamFailed),
    ({"detail": [{"loc": ["body"], "msg": "bad"}]}, UpstreamFailed),
    ({"errors": [{"message": "boom"}], "success": False, "result": {}}, UpstreamFailed),
    ({"error_code": 336000, "error_msg": "boom"}, UpstreamFailed),
    ({"code": "Throttling", "message": "boom", "request_id": "x"}, UpstreamThrottled),
    ({"code": "InvalidApiKey", "message": "x", "type": "authentication_error"}, UpstreamAuth),
    ({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "x"}}, UpstreamFailed),
    ({"error": {"message": "the prompt is too long"}}, UpstreamRejected),
    ({"error": "overloaded", "error_type": "overloaded"}, UpstreamOverloaded),
]


@pytest.mark.parametrize(("body", "kind"), ERRORS, ids=range(len(ERRORS)))
def test_an_error_in_a_200_is_an_error_in_any_form(body, kind):
    with pytest.raises(kind):
        WIRE.response(json.loads(json.dumps(body)))
    with pytest.raises(kind):
        answer_to(body)
    with pytest.raises(kind):
        answer_to(chunk({"content": "a"}), body, chunk({}, "stop"))
    with pytest.raises(kind):
        answer_to([body])


def test_an_event_that_is_named_an_error_is_one():
    for data in ({"message": "boom"}, "boom", '"boom"', "{}", "{broken"):
        with pytest.raises(UpstreamFailed):
            answer_to(("error", data))


@pytest.mark.parametrize(
    "event",
    [
        '{"choices":[{"index":0,"delta":{"content":"b"}',
        '"delta":{"content":"b"}}]}',
        'b"}}]}',
        '{"choices":[{"index":0,"delta":{"content":"b}}]}',
        '{"choices":7}',
        '{"choices":[null]}',
        '{"choices":["b"]}',
        '{"choices":[{"index":0,"delta":"b"}]}',
        '{"choices":[{"index":0,"delta":{"content":7}}]}',
    ],
)
def test_a_broken_event_is_an_error_and_no_hole(event):
    with pytest.raises(UpstreamBadResponse):
        answer_to(chunk({"content": "a"}), event, chunk({"content": "c"}, "stop"))


@pytest.mark.parametrize(
    "event", ["", "ping", ": OPENROUTER PROCESSING", "[]", "null", "7", "{}", '{"type":"ping"}']
)
def test_a_keep_alive_is_passed_over(event):
    assert message_of(chunk({"content": "a"}), event, chunk({}, "stop"))["content"] == "a"


@pytest.mark.parametrize(
    "events",
    [
        ["{}"],
        ['{"id": "x"}'],
        ['{"id": "x", "choices": []}'],
        ['{"id": "x", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 0}}'],
        ['{"id": "x", "choices": null}'],
        [": ping"],
        [],
    ],
)
def test_a_stream_without_a_choice_is_no_answer(events):
    with pytest.raises(UpstreamTruncated):
        answer_to(*events)


def test_events_without_a_blank_line_between_them_are_events():
    both = "\n".join(json.dumps(chunk({"content": text})) for text in "ab")
    assert message_of(both, chunk({}, "stop"))["content"] == "ab"
    assert message_of(f"data: {json.dumps(chunk({'content': 'a'}, 'stop'))}")["content"] == "a"
    assert message_of(f"{json.dumps(chunk({'content': 'a'}, 'stop'))}\n[DONE]")["content"] == "a"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (r"a\ud83db", "a\ufffdb"),
        (r"a\ude00b", "a\ufffdb"),
        (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (r"\ud83d\ude00\ude00", "\U0001f600\ufffd"),
        (r"\\ud83d \ud83d", "\\ud83d \ufffd"),
        (r"\\\ud83d", "\\\ufffd"),
    ],
)
def test_a_lone_surrogate_costs_one_character(content, expected):
    data = '{"choices":[{"index":0,"delta":{"content":"' + content + '"},"finish_reason":"stop"}]}'
    assert message_of(data)["content"] == expected


def test_numbers_that_are_none_cost_nothing_else():
    data = '{"choices":[{"delta":{"content":"a"},"logprobs":{"content":[{"logprob":-Infinity}]},'
    data += '"finish_reason":"stop"}]}'
    choice = answer_to(data)["choices"][0]
    assert choice["message"]["content"] == "a"
    assert choice["logprobs"] == {"content": [{"logprob": None}]}


REASONS = {
    "stop": "STOP eos eos_token EOS end_turn stop_sequence COMPLETE finished FinishReason.STOP",
    "length": "MAX_TOKENS max_tokens model_length max_output_tokens repetition"
    " repetition_truncation model_context_window_exceeded token_limit",
    "tool_calls": "tool_use TOOL_CALL tool_call tool-calls",
    "content_filter": "SAFETY safety refusal recitation RECITATION BLOCKLIST SPII"
    " PROHIBITED_CONTENT IMAGE_SAFETY sensitive guardrail_intervened content_filtered",
    "error": "error abort aborted cancelled canceled malformed_function_call"
    " MALFORMED_FUNCTION_CALL engine_overloaded network_error insufficient_system_resource"
    " UNEXPECTED_TOOL_CALL timeout failed ERROR_LIMIT USER_CANCEL interrupted incomplete",
}


@pytest.mark.parametrize(
    ("word", "reason"),
    [(word, reason) for reason, words in REASONS.items() for word in words.split()],
)
def test_a_finish_reason_is_one_of_openais_or_an_error(word, reason):
    choice = {"message": {"content": "a"}, "finish_reason": word}
    whole = {"choices": [choice]}
    events = (chunk({"content": "a"}), chunk({}, word))
    if reason == "error":
        for attempt in (lambda: WIRE.response(whole), lambda: answer_to(*events)):
            with pytest.raises(UpstreamFailed):
                attempt()
        return
    expected = "stop" if reason == "tool_calls" else reason  # there is no call
    for answer in (answer_to(*events), WIRE.response(whole)):
        (choice,) = answer["choices"]
        assert choice["finish_reason"] == expected
        assert choice["native_finish_reason"] == word


@given(st.text())
def test_every_finish_reason_is_one_of_those_that_clients_know(word):
    assert finish_reason(word) in (*FINISH_REASONS, "error", None)


@pytest.mark.parametrize(
    ("usage", "completion", "reasoning"),
    [
        ((32, 9, 135, {"reasoning_tokens": 94}), 103, 94),
        ((32, 9, 135, {}), 103, 94),
        ((32, 9, 135, None), 103, 94),
        ((32, 9, 135, {"reasoning_tokens": 0}), 103, 94),
        ((32, 103, 135, {"reasoning_tokens": 94}), 103, 94),
        ((32, 103, None, {"reasoning_tokens": 94}), 103, 94),
        ((32, 9, 0, {"reasoning_tokens": 4}), 9, 4),
        ((32, 9, 60, {"reasoning_tokens": 4}), 9, 4),
    ],
)
def test_thinking_is_counted_in_the_completion(usage, completion, reasoning):
    names = ("prompt_tokens", "completion_tokens", "total_tokens", "completion_tokens_details")
    fields = {name: value for name, value in zip(names, usage, strict=True) if value is not None}
    end = {**chunk({}, "stop"), "usage": fields}
    counted = answer_to(chunk({"content": "a"}), end)["usage"]
    assert counted["completion_tokens"] == completion
    assert counted["completion_tokens_details"]["reasoning_tokens"] == reasoning
    assert counted["total_tokens"] >= counted["prompt_tokens"] + completion


def test_usage_is_found_in_a_choice():
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": usage}]}
    answer = answer_to(chunk({"content": "a"}), end)
    assert answer["usage"] == usage
    assert "usage" not in answer["choices"][0]


def test_a_whole_message_at_the_end_does_not_double_the_text():
    end = chunk({}, "stop")
    end["choices"][0]["message"] = {"role": "assistant", "content": "ab"}
    assert message_of(chunk({"content": "a"}), chunk({"content": "b"}), end)["content"] == "ab"


def test_the_text_of_an_older_api_is_content():
    events = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in "ab"]
    events[-1]["choices"][0]["finish_reason"] = "stop"
    assert message_of(*events)["content"] == "ab"
    assert WIRE.response({"choices": [{"text": "ab"}]})["choices"][0]["message"]["content"] == "ab"


@given(st.binary(max_size=80))
def test_no_event_ends_in_anything_but_chunks_or_an_error_of_ours(data):
    text = data.decode("utf-8", "replace")
    for event in ("message", "error"):
        with suppress(GatewayError):
            list(WIRE.decoder().feed(event, text))


def test_the_usual_form_and_the_long_way_give_the_same():
    """A chunk of the usual form is decoded in a short way."""
    usual = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "a"}),
        chunk({}, "stop"),
    ]
    unusual = json.loads(json.dumps(usual))
    for event in unusual:
        event["choices"][0]["delta"]["refusal"] = None
    assert answer_to(*usual) == answer_to(*unusual)
