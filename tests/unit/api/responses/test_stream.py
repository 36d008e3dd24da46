"""A chat answer becomes a response, whole and as events."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.responses.reasoning import unsealed
from api.responses.stream import ResponseEvents
from gateway.chat import fold
from gateway.errors import UpstreamRejected, UpstreamThrottled, UpstreamTruncated
from tests.support.fakes import Clock

THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 5,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 3},
}


def part(finish_reason=None, logprobs=None, **delta):
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
    return {"choices": [choice]}


def tool(index, call_id=None, name=None, arguments=""):
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    call = {"index": index, "function": function}
    return {**call, "id": call_id, "type": "function"} if call_id else call


def maker(**fields):
    return ResponseEvents("abc", "gpt", {"model": "m", "input": "hi", **fields}, Clock())


def streamed(*parts, **fields):
    """All events of a stream, from copies of its parts."""
    events = maker(**fields)
    sent = events.begun()
    for each in copy.deepcopy(parts):
        sent += events.chunk(each)
    return sent + events.ended()


def last(*parts, **fields):
    return streamed(*parts, **fields)[-1]["response"]


def kinds(events):
    return [event["type"].removeprefix("response.") for event in events]


def test_text_is_told_in_openai_s_order():
    end = part("stop")
    sent = streamed(
        part(role="assistant", content=""), part(content="Hel"), part(content="lo"), end
    )
    assert kinds(sent) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in sent] == list(range(len(sent)))
    text = {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}
    assert sent[3]["part"] == {**text, "text": ""}
    assert sent[4] == {
        "type": "response.output_text.delta",
        "item_id": "msg_abc_0",
        "output_index": 0,
        "content_index": 0,
        "delta": "Hel",
        "logprobs": [],
        "sequence_number": 4,
    }
    assert sent[6]["text"] == "Hello"
    assert sent[7]["part"] == text
    item = {"id": "msg_abc_0", "type": "message", "status": "completed", "role": "assistant"}
    assert sent[2]["item"] == {**item, "status": "in_progress", "content": []}
    assert sent[8]["item"] == {**item, "content": [text]}
    assert sent[9]["response"]["output"] == [sent[8]["item"]]
    assert sent[9]["response"]["completed_at"] == 1_700_000_000


def test_a_response_begins_in_progress_and_empty():
    for event in maker().begun():
        response = event["response"]
        assert (response["status"], response["output"], response["usage"]) == (
            "in_progress", [], None,
        )  # fmt: skip


def test_reasoning_is_a_summary_that_ends_where_the_text_begins():
    sent = streamed(
        part(role="assistant", reasoning_content="H"),
        part(reasoning_content="m."),
        part(thinking_blocks=[THOUGHT]),
        part(content="Yes", finish_reason="stop"),
    )
    assert kinds(sent)[2:11] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
    ]
    assert sent[3]["part"] == {"type": "summary_text", "text": ""}
    assert sent[6]["text"] == sent[7]["part"]["text"] == "Hm."
    item = sent[8]["item"]
    assert (item["id"], item["summary"]) == ("rs_abc_0", [{"type": "summary_text", "text": "Hm."}])
    assert unsealed(item["encrypted_content"]) == [THOUGHT]


def test_reasoning_is_not_given_to_who_wants_none_of_it():
    thinking = part(reasoning_content="Hm.", thinking_blocks=[THOUGHT])
    (item, _) = last(thinking, part(content="Yes", finish_reason="stop"), store=False)["output"]
    assert "encrypted_content" not in item
    assert item["summary"]


def test_hidden_reasoning_has_no_summary():
    block = {"type": "redacted_thinking", "data": "eHh4"}
    sent = streamed(part(thinking_blocks=[block]), part("stop", content="Yes"))
    assert kinds(sent)[2:4] == ["output_item.added", "output_item.done"]
    assert sent[3]["item"]["summary"] == []
    assert unsealed(sent[3]["item"]["encrypted_content"]) == [block]


def test_tool_calls_are_told_with_their_name_and_then_their_arguments():
    sent = streamed(
        part(content="Let me see."),
        part(tool_calls=[tool(0, "call_1", "f")]),
        part(tool_calls=[tool(0, arguments='{"a"')]),
        part(tool_calls=[tool(0, arguments=":1}"), tool(1, "call_2", "g", "{}")]),
        part("tool_calls"),
    )
    assert kinds(sent)[5:] == [
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    item = {"type": "function_call", "status": "in_progress", "name": "f", "call_id": "call_1"}
    assert sent[8]["item"] == {**item, "id": "fc_abc_1", "arguments": ""}
    assert sent[8]["output_index"] == 1
    assert sent[13]["arguments"] == '{"a":1}'
    assert sent[14]["item"] == {
        **item, "id": "fc_abc_1", "status": "completed", "arguments": '{"a":1}'
    }  # fmt: skip


def test_arguments_that_come_mixed_end_up_with_their_calls():
    calls = [tool(0, "a", "f", "1"), tool(1, "b", "g", "2"), tool(0, arguments="3")]
    response = last(*(part(tool_calls=[call]) for call in calls), part("tool_calls"))
    assert [item["arguments"] for item in response["output"]] == ["13", "2"]


def test_a_call_is_told_once_its_name_is_known():
    late = {"index": 0, "function": {"name": "f", "arguments": "}"}}
    sent = streamed(part(tool_calls=[tool(0, arguments="{")]), part("stop", tool_calls=[late]))
    assert kinds(sent)[2:4] == ["output_item.added", "function_call_arguments.delta"]
    assert (sent[2]["item"]["name"], sent[2]["item"]["arguments"]) == ("f", "")
    assert (sent[3]["delta"], sent[5]["item"]["arguments"]) == ("{}", "{}")
    assert sent[5]["item"]["call_id"] == "call_abc_0"


def test_a_custom_call_has_events_of_its_own():
    call = {"index": 0, "id": "c", "type": "custom", "custom": {"name": "sh", "input": "ls"}}
    sent = streamed(part("tool_calls", tool_calls=[call]))
    assert kinds(sent)[2:6] == [
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
    ]
    item = sent[5]["item"]
    assert (item["type"], item["input"], item["call_id"]) == ("custom_tool_call", "ls", "c")


def test_a_refusal_is_a_part_of_its_own():
    sent = streamed(part(content="Well"), part(refusal="I can"), part("stop", refusal="not"))
    assert kinds(sent)[5:9] == [
        "output_text.done",
        "content_part.done",
        "content_part.added",
        "refusal.delta",
    ]
    assert sent[8]["content_index"] == 1
    (message,) = sent[-1]["response"]["output"]
    assert message["content"][1] == {"type": "refusal", "refusal": "I cannot"}


def test_log_probabilities_come_with_the_text_and_have_bytes():
    top = {"token": "é", "logprob": -1.0, "bytes": [195, 169]}
    logprobs = {
        "content": [{"token": "é", "logprob": -1.0, "top_logprobs": [top]}],
        "refusal": None,
    }
    sent = streamed(part(content="é", logprobs=logprobs), part("stop", content="!"))
    expected = [{"token": "é", "logprob": -1.0, "top_logprobs": [top], "bytes": [195, 169]}]
    assert [sent[4]["logprobs"], sent[5]["logprobs"], sent[6]["logprobs"]] == [
        expected, [], expected,
    ]  # fmt: skip
    assert sent[-1]["response"]["output"][0]["content"][0]["logprobs"] == expected


def test_sources_are_told_flat():
    facts = {"url": "https://example.com", "title": "t", "start_index": 0, "end_index": 3}
    source = {"type": "url_citation", "url_citation": facts}
    sent = streamed(part(content="See"), part("stop", annotations=[source]))
    flat = {"type": "url_citation", **facts}
    assert (sent[5]["type"], sent[5]["annotation"], sent[5]["annotation_index"]) == (
        "response.output_text.annotation.added", flat, 0,
    )  # fmt: skip
    assert sent[-1]["response"]["output"][0]["content"][0]["annotations"] == [flat]


@pytest.mark.parametrize(
    ("finish_reason", "status", "why"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        (None, "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_the_finish_reason_decides_the_status(finish_reason, status, why):
    sent = streamed(part(reasoning_content="Hm"), part(content="x"), part(finish_reason))
    response = sent[-1]["response"]
    assert sent[-1]["type"] == f"response.{status}"
    assert (response["status"], response["incomplete_details"]) == (status, why)
    assert response["output"][1]["status"] == status
    assert (response["completed_at"] is None) == (status == "incomplete")


def test_only_the_last_item_of_an_incomplete_response_is_incomplete():
    calls = [tool(0, "a", "f", "{}"), tool(1, "b", "g", "{")]
    response = last(part(content="x"), part("length", tool_calls=calls))
    assert [item["status"] for item in response["output"]] == [
        "completed", "completed", "incomplete",
    ]  # fmt: skip


def test_an_answer_that_says_nothing_is_an_empty_message():
    for parts in ([part("stop", content="")], [part(reasoning_content="Hm"), part("stop")]):
        message = last(*parts)["output"][-1]
        assert message["content"][0]["text"] == ""
    assert last(part("length", content=""))["output"] == []


def test_usage_and_service_tier_are_taken_from_wherever_they_come():
    response = last(part("stop", content="x"), {"choices": [], "usage": USAGE, "service_tier": "t"})
    assert response["service_tier"] == "t"
    assert response["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 14,
    }


def test_the_response_repeats_what_was_asked():
    tools = [{"type": "function", "name": "f"}]
    fields = {"instructions": "Be brief.", "temperature": 0.0, "tools": tools, "top_p": None}
    fields |= {"tool_choice": "required", "parallel_tool_calls": False, "metadata": {"a": "b"}}
    fields |= {"text": {"verbosity": "low"}, "reasoning": {"effort": "low"}, "store": True}
    fields |= {"background": True, "previous_response_id": "resp_1"}
    response = last(part("stop", content="x"), **fields)
    assert {name: response[name] for name in fields} == {
        **fields,
        "tools": [{**tools[0], "description": None, "parameters": None, "strict": None}],
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "reasoning": {"effort": "low", "summary": None},
    }
    assert (response["id"], response["object"], response["model"]) == (
        "resp_abc", "response", "gpt",
    )  # fmt: skip


def test_what_was_not_asked_has_its_default():
    response = last(part("stop", content="x"))
    assert response["tool_choice"] == "auto"
    assert response["parallel_tool_calls"] is True
    assert (response["tools"], response["metadata"]) == ([], {})
    assert response["error"] is None


def failed(error, *parts):
    events = maker()
    events.begun()
    for each in parts:
        events.chunk(each)
    return events.failed(error)


def test_a_failure_is_told_twice_and_shows_what_there_was():
    begun = [part(reasoning_content="Hm"), part(content="Hel")]
    error, end = failed(UpstreamTruncated("cut"), *begun)
    assert error["type"] == "error"
    assert error["error"] == UpstreamTruncated("cut").envelope()["error"]
    assert (error["code"], error["message"]) == ("upstream_truncated", "cut")
    assert end["type"] == "response.failed"
    assert end["sequence_number"] == error["sequence_number"] + 1
    response = end["response"]
    assert (response["status"], response["error"]) == (
        "failed", {"code": "server_error", "message": "cut"},
    )  # fmt: skip
    thought, message = response["output"]
    assert thought["summary"][0]["text"] == "Hm"
    assert (message["status"], message["content"][0]["text"]) == ("incomplete", "Hel")


@pytest.mark.parametrize(
    ("error", "code"),
    [(UpstreamThrottled(), "rate_limit_exceeded"), (UpstreamRejected(), "invalid_prompt")],
)
def test_a_failed_response_has_one_of_openai_s_codes(error, code):
    assert failed(error)[1]["response"]["error"]["code"] == code


# The law: a stream's last response is that of the unstreamed answer

TEXT = st.text(min_size=1, max_size=4)
THOUGHTS = st.builds(lambda t: {"reasoning_content": t}, TEXT) | st.just(
    {"thinking_blocks": [THOUGHT]}
)
WORDS = st.builds(lambda t: {"content": t}, st.text(max_size=4))
REFUSALS = st.builds(lambda t: {"refusal": t}, TEXT)
REASONS = st.sampled_from(["stop", "length", "tool_calls", "content_filter"])


@st.composite
def calls_of_tools(draw):
    """Deltas of some calls, whose beginnings come in order and whose pieces may be mixed."""
    deltas = []
    begun = 0
    for _ in range(draw(st.integers(0, 6))):
        index = draw(st.integers(0, begun))
        piece = draw(st.text(max_size=3))
        if index == begun:
            begun += 1
            deltas.append({"tool_calls": [tool(index, f"call_{index}", "f", piece)]})
        else:
            deltas.append({"tool_calls": [tool(index, arguments=piece)]})
    return deltas


@st.composite
def orderly_parts(draw):
    """A stream that reasons, speaks, refuses and calls tools, in this order, if it does."""
    deltas = [{"role": "assistant", "content": ""}]
    for kind in (THOUGHTS, WORDS, REFUSALS):
        deltas += draw(st.lists(kind, max_size=3))
    parts = [part(**delta) for delta in deltas + draw(calls_of_tools())]
    parts.append(part(draw(REASONS)))
    return [*parts, {"choices": [], "usage": USAGE}] if draw(st.booleans()) else parts


@settings(deadline=None)
@given(orderly_parts())
def test_the_stream_s_last_response_is_the_unstreamed_one(parts):
    assert last(*parts) == maker().whole(fold(copy.deepcopy(parts)))


def summary(response):
    """All that a response says, whatever items it is in."""
    output = response["output"]
    thoughts = [item for item in output if item["type"] == "reasoning"]
    blocks = [unsealed(item.get("encrypted_content", "")) for item in thoughts]
    content = [p for item in output if item["type"] == "message" for p in item["content"]]
    calls = [item for item in output if item["type"] == "function_call"]
    return {
        "thoughts": "".join(s["text"] for item in thoughts for s in item["summary"]),
        "blocks": sum(blocks, []),
        "text": "".join(p.get("text", "") for p in content),
        "refusal": "".join(p.get("refusal", "") for p in content),
        "calls": [(c["call_id"], c["name"], c["arguments"]) for c in calls],
        "status": (response["status"], response["incomplete_details"], response["usage"]),
    }


@settings(deadline=None)
@given(orderly_parts(), st.randoms())
def test_out_of_order_too_nothing_is_lost_or_told_twice(parts, random):
    texts = [p for p in parts if p["choices"] and "tool_calls" not in p["choices"][0]["delta"]]
    calls = [p for p in parts if p["choices"] and "tool_calls" in p["choices"][0]["delta"]]
    mixed = []
    random.shuffle(texts)
    while texts or calls:
        mixed.append(random.choice([each for each in (texts, calls) if each]).pop(0))
    whole = maker().whole(fold(copy.deepcopy(mixed)))
    assert summary(last(*mixed)) == summary(whole)


def rebuilt(events):
    """The output that a client puts together from the events of its items."""
    items = {}
    for event in events:
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert event["output_index"] == len(items)
            items[event["output_index"]] = copy.deepcopy(event["item"])
        elif kind == "content_part.added":
            content = items[event["output_index"]]["content"]
            assert event["content_index"] == len(content)
            content.append(copy.deepcopy(event["part"]))
        elif kind == "reasoning_summary_part.added":
            items[event["output_index"]]["summary"].append(copy.deepcopy(event["part"]))
        elif kind == "output_text.delta":
            items[event["output_index"]]["content"][event["content_index"]]["text"] += event[
                "delta"
            ]
        elif kind == "refusal.delta":
            part = items[event["output_index"]]["content"][event["content_index"]]
            part["refusal"] += event["delta"]
        elif kind == "reasoning_summary_text.delta":
            items[event["output_index"]]["summary"][0]["text"] += event["delta"]
        elif kind == "function_call_arguments.delta":
            items[event["output_index"]]["arguments"] += event["delta"]
        elif kind == "output_item.done":
            done = {k: v for k, v in event["item"].items() if k != "encrypted_content"}
            built = items[event["output_index"]]
            assert {**built, "status": 0} == {**done, "status": 0}
            items[event["output_index"]] = event["item"]
    return [items[index] for index in sorted(items)]


@settings(deadline=None)
@given(orderly_parts(), st.randoms())
def test_the_deltas_add_up_to_the_items_and_the_items_to_the_response(parts, random):
    if random.random() < 0.5:
        parts = [p for p in parts if p["choices"] and "tool_calls" not in p["choices"][0]["delta"]]
        random.shuffle(parts)
    sent = streamed(*parts)
    assert rebuilt(sent) == sent[-1]["response"]["output"]
    assert [event["sequence_number"] for event in sent] == list(range(len(sent)))
