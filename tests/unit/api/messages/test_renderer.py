"""Chat's answers as Anthropic's messages, whole and streamed."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.messages import errors as messages_errors
from api.messages.renderer import MessageRenderer
from gateway import errors
from gateway.chat import fold
from tests.support.messages_events import events, message

USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
COUNTED = {
    "input_tokens": 9,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 2,
}
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
REDACTED = {"type": "redacted_thinking", "data": "ZGF0YQ=="}


def reply():
    return MessageRenderer("abc", "gpt-4o", "req")


def part(finish=None, **fields):
    """A part with this delta; `finish` holds fields of its choice."""
    choice = {"index": 0, "delta": fields, "finish_reason": None, **(finish or {})}
    return {"choices": [choice]}


def call(index=0, ident=None, name=None, arguments=None):
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": ident, "type": "function", "function": function}


def started(*parts):
    """The usage in the first event of a stream of which the first payload has these parts."""
    renderer = MessageRenderer("abc", "gpt-4o", "req", prompt_tokens=7)
    first, *_ = events(renderer.events(b"\n".join(map(orjson.dumps, parts))))
    return first["message"]["usage"]


def test_a_stream_begins_with_the_provider_s_count_or_an_estimate():
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "prompt_tokens_details": {}}}
    assert started(usage, part(content="Hi"))["input_tokens"] == 9
    assert started(part(content="Hi"))["input_tokens"] == 7


def test_hidden_thinking_does_not_hide_what_was_shown():
    content = blocks(
        part(reasoning_content="hm"), part(thinking_blocks=[REDACTED]), part(content="so")
    )
    assert [block["type"] for block in content] == ["thinking", "redacted_thinking", "text"]


def test_a_stream_ends_with_the_provider_s_count():
    end = events(streamed(part(content="Hi"), {"choices": [], "usage": USAGE}))[-2]
    assert end["usage"] == COUNTED


def whole(*parts):
    return json.loads(reply().whole(orjson.dumps(fold(parts))))


def streamed(*parts):
    """The bytes of a stream, each part in an event of its own."""
    made = reply()
    sent = b"".join(made.events(orjson.dumps(each)) for each in parts)
    return sent + made.end()


def blocks(*parts):
    """The content of a stream, which has to be that of the whole answer."""
    content = message(events(streamed(*parts)))["content"]
    assert whole(*parts)["content"] == content
    return content


def text(words):
    return {"type": "text", "text": words}


def tool(ident, name="f", **given_input):
    return {"type": "tool_use", "id": ident, "name": name, "input": given_input}


def test_a_whole_message_has_all_that_anthropic_s_has():
    answer = {
        "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
    assert json.loads(reply().whole(orjson.dumps(answer))) == {
        "id": "msg_abc",
        "type": "message",
        "role": "assistant",
        "model": "gpt-4o",
        "content": [text("Hi")],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": COUNTED,
    }


def test_a_stream_is_told_event_by_event():
    usage = {"choices": [], "usage": USAGE}
    sent = streamed(part(content="Hel"), part(content="lo"), part({"finish_reason": "stop"}), usage)
    start, ping, *rest = events(sent)
    assert start["message"]["id"] == "msg_abc"
    assert ping == {"type": "ping"}
    assert rest == [
        {"type": "content_block_start", "index": 0, "content_block": text("")},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": COUNTED,
        },
        {"type": "message_stop"},
    ]


BLOCKS = {
    "nothing": ([part()], []),
    "text": ([part(role="assistant", content=""), part(content="Hi")], [text("Hi")]),
    "a refusal": ([part(refusal="No.")], [text("No.")]),
    "unsigned thinking": (
        [part(reasoning_content="h"), part(reasoning_content="m"), part(content="Hi")],
        [{"type": "thinking", "thinking": "hm", "signature": ""}, text("Hi")],
    ),
    "signed thinking": (
        [part(reasoning_content="hm"), part(thinking_blocks=[SIGNED]), part(content="Hi")],
        [SIGNED, text("Hi")],
    ),
    "two thoughts": (
        [
            part(reasoning_content="hm"),
            part(thinking_blocks=[SIGNED]),
            part(reasoning_content="hm"),
            part(thinking_blocks=[SIGNED, REDACTED]),
        ],
        [SIGNED, SIGNED, REDACTED],
    ),
    "thinking that is not shown": (
        [part(thinking_blocks=[{**SIGNED, "thinking": ""}])],
        [{**SIGNED, "thinking": ""}],
    ),
    "redacted thinking": ([part(thinking_blocks=[REDACTED])], [REDACTED]),
    "a tool": (
        [
            part(tool_calls=[call(0, "t1", "f", "")]),
            part(tool_calls=[call(arguments='{"a"')]),
            part(tool_calls=[call(arguments=":1}")]),
        ],
        [tool("t1", a=1)],
    ),
    "text and two tools": (
        [
            part(content="So"),
            part(tool_calls=[call(0, "t1", "f", "{}"), call(1, "t2", "g", '{"a":1}')]),
        ],
        [text("So"), tool("t1"), tool("t2", "g", a=1)],
    ),
    "a tool without arguments": ([part(tool_calls=[call(0, "t1", "f", "")])], [tool("t1")]),
    "a tool without an id": ([part(tool_calls=[call(0, None, "f", "{}")])], [tool("toolu_abc_0")]),
    "a tool whose name comes late": (
        [part(tool_calls=[call(0, "t1", None, "{")]), part(tool_calls=[call(0, None, "f", "}")])],
        [tool("t1")],
    ),
}


@pytest.mark.parametrize(("parts", "content"), BLOCKS.values(), ids=BLOCKS.keys())
def test_a_stream_has_the_blocks_of_the_whole_message(parts, content):
    assert blocks(*parts) == content


def test_only_the_first_choice_is_a_message():
    second = {"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}
    assert message(events(streamed(part(content="yes"), {"choices": [second]})))["content"] == [
        text("yes")
    ]


def test_what_is_said_between_calls_has_its_place():
    parts = [
        part(reasoning_content="a"),
        part(content="b"),
        part(tool_calls=[call(0, "t1", "f", "{}")]),
        part(content="c"),
        part(tool_calls=[call(1, "t2", "f", "{}")]),
    ]
    kinds = [block["type"] for block in message(events(streamed(*parts)))["content"]]
    assert kinds == ["thinking", "text", "tool_use", "text", "tool_use"]


def test_thinking_between_text_and_calls_keeps_its_place_in_a_whole_message():
    parts = [
        part(thinking_blocks=[SIGNED]),
        part(content="One. "),
        part(content="Two."),
        part(thinking_blocks=[REDACTED]),
        part(content="Three."),
        part(tool_calls=[call(0, "a", "f", "{}")]),
        part(thinking_blocks=[SIGNED, REDACTED]),
        part(tool_calls=[call(1, "b", "g", "{}")], finish={"finish_reason": "tool_calls"}),
    ]
    whole = fold(parts)
    content = json.loads(reply().whole(orjson.dumps(whole)))["content"]
    use = {"type": "tool_use", "input": {}}
    assert content == [
        SIGNED,
        {"type": "text", "text": "One. Two."},
        REDACTED,
        {"type": "text", "text": "Three."},
        {**use, "id": "a", "name": "f"},
        SIGNED,
        REDACTED,
        {**use, "id": "b", "name": "g"},
    ]


def test_arguments_that_are_no_object_are_kept_as_they_are():
    cut = part({"finish_reason": "length"}, tool_calls=[call(0, "t1", "f", '{"a": "b')])
    made = whole(cut)
    assert made["content"] == [tool("t1", invalid_json='{"a": "b')]
    assert made["stop_reason"] == "max_tokens"


STOPS = [
    ({"finish_reason": "stop"}, "end_turn", None),
    ({"finish_reason": "length"}, "max_tokens", None),
    ({"finish_reason": "tool_calls"}, "tool_use", None),
    ({"finish_reason": "function_call"}, "tool_use", None),
    ({"finish_reason": "content_filter"}, "refusal", None),
    ({"finish_reason": "odd"}, "end_turn", None),
    ({}, "end_turn", None),
    ({"finish_reason": "stop", "stop_sequence": "END"}, "stop_sequence", "END"),
    (
        {"finish_reason": "stop", "native_finish_reason": "stop_sequence", "stop_sequence": "\n"},
        "stop_sequence",
        "\n",
    ),
    ({"finish_reason": "stop", "native_finish_reason": "pause_turn"}, "pause_turn", None),
    (
        {"finish_reason": "length", "native_finish_reason": "model_context_window_exceeded"},
        "model_context_window_exceeded",
        None,
    ),
    ({"finish_reason": "length", "native_finish_reason": "MAX_TOKENS"}, "max_tokens", None),
]


@pytest.mark.parametrize(("finish", "reason", "sequence"), STOPS)
def test_why_a_message_ends_is_told_in_anthropic_s_words(finish, reason, sequence):
    parts = [part(content="Hi"), part(finish)]
    for made in (whole(*parts), message(events(streamed(*parts)))):
        assert (made["stop_reason"], made["stop_sequence"]) == (reason, sequence)


def test_a_forced_tool_is_a_use_of_a_tool_whatever_the_provider_calls_it():
    parts = [part({"finish_reason": "stop"}, tool_calls=[call(0, "t1", "f", "{}")])]
    for made in (whole(*parts), message(events(streamed(*parts)))):
        assert made["stop_reason"] == "tool_use"


def test_the_details_of_a_refusal_are_told():
    details = {"type": "refusal", "category": "bio", "explanation": None}
    parts = [part({"finish_reason": "content_filter", "stop_details": details})]
    for made in (whole(*parts), message(events(streamed(*parts)))):
        assert made["stop_details"] == details


USAGES = [
    (USAGE, COUNTED),
    ({}, {**COUNTED, "input_tokens": 0, "output_tokens": 0}),
    (
        {
            **USAGE,
            "prompt_tokens_details": {
                "cached_tokens": 4,
                "cache_write_tokens": 3,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 1,
                    "ephemeral_1h_input_tokens": 2,
                },
            },
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
        {
            "input_tokens": 2,
            "cache_creation_input_tokens": 3,
            "cache_read_input_tokens": 4,
            "output_tokens": 2,
            "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2},
            "output_tokens_details": {"thinking_tokens": 1},
        },
    ),
    (
        {**USAGE, "prompt_tokens_details": {"cached_tokens": None}},
        COUNTED,
    ),
]


@pytest.mark.parametrize(("counted", "told"), USAGES)
def test_usage_leaves_the_cache_out_of_the_input(counted, told):
    parts = [part(content="Hi"), {"choices": [], "usage": counted}]
    for made in (whole(*parts), message(events(streamed(*parts)))):
        assert made["usage"] == told


# Errors


def test_an_error_ends_a_stream():
    made = reply()
    sent = made.events(orjson.dumps(part(content="Hi"))) + made.error(errors.UpstreamTruncated())
    assert events(sent)[-1] == {
        "type": "error",
        "error": {"type": "api_error", "message": errors.UpstreamTruncated.message},
        "request_id": "req",
    }


@pytest.mark.parametrize(
    "parts",
    [
        [
            part(tool_calls=[call(0, "t1", "f", "{"), call(1, "t2", "f", "{}")]),
            part(tool_calls=[call(0, arguments="}")]),
            part(content="more"),
        ],
        [part(tool_calls=[call(0, "t1", None, "{}")])],
    ],
    ids=["mixed up", "unnamed"],
)
def test_what_cannot_be_said_in_blocks_is_an_error_and_nothing_follows_it(parts):
    told = events(streamed(*parts))
    assert [event["type"] for event in told].count("error") == 1
    assert told[-1]["type"] == "error"
    assert told[-1]["error"]["type"] == "api_error"


ERRORS = [
    (errors.InvalidRequest("x"), 400, "invalid_request_error"),
    (errors.AuthenticationFailed(), 401, "authentication_error"),
    (errors.UpstreamRejected(status=403), 403, "permission_error"),
    (errors.ModelNotFound(), 404, "not_found_error"),
    (errors.MethodNotAllowed(), 405, "invalid_request_error"),
    (errors.BodyTimeout(), 408, "invalid_request_error"),
    (errors.PayloadTooLarge(), 413, "request_too_large"),
    (errors.UnsupportedMedia(), 415, "invalid_request_error"),
    (errors.UpstreamThrottled(), 429, "rate_limit_error"),
    (errors.GatewayError(), 500, "api_error"),
    (errors.UpstreamFailed(), 502, "api_error"),
    (errors.QueueUnavailable(), 503, "api_error"),
    (errors.Overloaded(), 529, "overloaded_error"),
    (errors.UpstreamOverloaded(), 529, "overloaded_error"),
    (errors.UpstreamTimeout(), 504, "timeout_error"),
    (errors.DeadlineExceeded(), 504, "timeout_error"),
]


@pytest.mark.parametrize(("error", "status", "kind"), ERRORS)
def test_errors_have_anthropic_s_statuses_and_types(error, status, kind):
    assert messages_errors.status(error) == status
    assert json.loads(reply().whole_error(error)) == {
        "type": "error",
        "error": {"type": kind, "message": error.message},
        "request_id": "req",
    }


@pytest.mark.parametrize("kind", list(errors.kinds()))
def test_every_error_has_a_type_that_anthropic_has(kind):
    told = json.loads(messages_errors.body(kind(), "req"))["error"]["type"]
    known = {*messages_errors.TYPES.values(), "api_error", "invalid_request_error"}
    assert told in known


# A stream and a whole answer are the same message

pieces = st.lists(st.text(min_size=1, max_size=3), max_size=3)
objects = st.dictionaries(st.text(max_size=2), st.integers(0, 9), max_size=2)


@st.composite
def streams(draw):
    """The parts of an answer in the order in which providers send it."""
    parts = []
    for _ in range(draw(st.integers(0, 2))):
        said = draw(pieces)
        parts += [part(reasoning_content=piece) for piece in said]
        signed = {"type": "thinking", "thinking": "".join(said), "signature": "c2ln"}
        parts.append(part(thinking_blocks=[signed, *draw(st.sampled_from([[], [REDACTED]]))]))
    parts += [part(content=piece) for piece in draw(pieces)]
    for index in range(draw(st.integers(0, 2))):
        parts.append(part(tool_calls=[call(index, f"t{index}", "f", "")]))
        arguments = json.dumps(draw(objects))
        cut = draw(st.integers(0, len(arguments)))
        parts += [
            part(tool_calls=[call(index, arguments=a)]) for a in (arguments[:cut], arguments[cut:])
        ]
    parts.append(part({"finish_reason": draw(st.sampled_from(["stop", "length", "tool_calls"]))}))
    parts += draw(st.sampled_from([[], [{"choices": [], "usage": USAGE}]]))
    return parts


@given(streams(), st.data())
def test_a_stream_adds_up_to_the_whole_message(parts, data):
    made = reply()
    lines = [orjson.dumps(each) for each in parts]
    cut = data.draw(st.integers(1, len(lines)))
    payloads = [b"\n".join(lines[:cut]), b"\n".join(lines[cut:])]
    sent = b"".join(made.events(payload) for payload in payloads) + made.end()
    assert message(events(sent)) == whole(*parts)
