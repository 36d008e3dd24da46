"""gateway/queue/protocol.py: what goes in at one end of Redis comes out at the other."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalogue.file import ModelRow
from gateway.catalogue.target import Target
from gateway.errors import KINDS, GatewayError, UpstreamThrottled
from gateway.queue.protocol import (
    CHUNKS,
    OUTCOME,
    PROTOCOL,
    CallSpec,
    Event,
    Outcome,
    ProtocolError,
    decode_head,
    encode_head,
)

text = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]))
word = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1)
whole = st.integers(0, 2**53)
targets = st.builds(
    Target,
    model=text,
    provider=word,
    upstream_model=text,
    only_if_gone=st.booleans(),
)
specs = st.builds(
    CallSpec,
    call_id=word,
    web=word,
    stream=st.booleans(),
    targets=st.lists(targets, min_size=1, max_size=3).map(tuple),
    kind=st.sampled_from(["chat", "embeddings"]),
    optional=st.lists(word).map(tuple),
    key=st.just("") | word,
    cost=st.booleans(),
)
outcomes = st.builds(
    Outcome,
    last=whole,
    answer=st.binary(),
    route=text,
    timings=st.dictionaries(text, whole),
    dropped=st.lists(word),
)
events = st.builds(
    Event,
    call_id=word,
    claim=word,
    number=whole,
    kind=st.sampled_from([CHUNKS, OUTCOME]),
    payload=st.binary(),
)
ROW = ModelRow("openai/gpt-4o", "openai", max_output_tokens=16_384)
TARGET = Target("openai/gpt-4o", "openai", "gpt-4o", row=ROW)
PLAN = CallSpec("call", "web-1", True, (TARGET,))
OUTCOME_WITH_ALL = Outcome(
    last=7,
    error=UpstreamThrottled("slow down", retry_after=2.5),
    answer=b'{"choices":[]}\n\n',
    route="openai/gpt-4o",
    timings={"queued": 3},
)


@given(specs, st.binary())
def test_a_plan_and_its_body_come_out_as_they_went_in(spec, body):
    assert CallSpec.decode(spec.encode(body)) == (spec, body)


def test_what_the_record_needs_travels_with_the_call():
    account = {"owner": "team", "request_id": "req_1", "prompt_tokens": 9, "created_ms": 1}
    spec = replace(PLAN, account=account, cache={"name": "a" * 64, "seconds": 60})
    spec = replace(spec, trace={"traceparent": "00-1-2-01"})
    assert CallSpec.decode(spec.encode(b"{}")) == (spec, b"{}")
    for name in ("account", "cache", "trace"):
        with pytest.raises(ProtocolError):
            CallSpec.decode(head(PLAN.encode(b""), **{name: []}) + b"\n{}")


@given(outcomes)
def test_an_outcome_comes_out_as_it_went_in(outcome):
    assert Outcome.decode(outcome.encode()) == outcome


@given(events)
def test_an_event_comes_out_as_it_went_in(event):
    assert Event.decode(event.encode()) == event


@given(targets, st.lists(word), st.binary())
def test_a_stream_may_say_first_that_another_target_answers(target, dropped, lines):
    chunks = b"{" + lines
    head = encode_head(target.route, dropped, chunks)
    assert decode_head(head) == (target.route, dropped, chunks)
    assert decode_head(chunks) == ("", [], chunks)


@given(events, outcomes)
def test_an_outcome_may_be_appended_to_an_event_without_a_payload(event, outcome):
    decoded = Event.decode(replace(event, payload=b"").encode() + outcome.encode())
    assert Outcome.decode(decoded.payload) == outcome


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_an_outcome_carries_any_error(kind):
    sent = kind("text with\nlines", param="n", retry_after=1.5)
    received = Outcome.decode(Outcome(last=3, error=sent).encode()).error
    assert type(received) is kind
    assert received.to_dict() == sent.to_dict()
    assert set(received.envelope()["error"]) == {"message", "type", "param", "code"}


def test_an_outcome_with_everything_comes_out_whole():
    received = Outcome.decode(OUTCOME_WITH_ALL.encode())
    assert received.error.to_dict() == OUTCOME_WITH_ALL.error.to_dict()
    for name in ("last", "answer", "route", "timings"):
        assert getattr(received, name) == getattr(OUTCOME_WITH_ALL, name)


def test_a_body_with_lines_stays_whole():
    body = b'{"a":\n\n1}\n'
    assert CallSpec.decode(PLAN.encode(body))[1] == body


def head(value, **changes):
    fields = {**orjson.loads(value.partition(b"\n")[0]), **changes}
    return orjson.dumps({name: field for name, field in fields.items() if field != "absent"})


FOREIGN = [
    b"", b"\n", b"null", b"[]", b"{}", b"5", b'"v"', b"\xff\xfe", b"\x80\x05pickle", b"{" * 5_000,
    b'{"v":1', orjson.dumps({"v": PROTOCOL + 1}), orjson.dumps({"v": None}),
]  # fmt: skip


@pytest.mark.parametrize("value", FOREIGN, ids=repr)
@pytest.mark.parametrize("decode", [CallSpec.decode, Outcome.decode], ids=["spec", "outcome"])
def test_foreign_bytes_are_a_protocol_error(decode, value):
    if decode is Outcome.decode and value == b"":
        value = b"\n"
    with pytest.raises(ProtocolError):
        decode(value)


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2}, {"v": "absent"}, {"call_id": "absent"}, {"targets": "absent"},
        {"targets": []}, {"targets": 5}, {"targets": [5]}, {"targets": [{"model": "m"}]},
        {"targets": None}, {"targets": [{"colour": "red"}]}, {"targets": ["model"]},
        {"targets": [{"model": 5, "provider": "p", "upstream_model": "m"}]},
        {"optional": 5},
    ],
)  # fmt: skip
def test_a_plan_of_another_version_is_a_protocol_error(changes):
    with pytest.raises(ProtocolError):
        CallSpec.decode(head(PLAN.encode(b""), **changes) + b"\n{}")


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2}, {"error": "text"}, {"error": [1]}, {"error": 5}, {"error": {"kind": []}},
    ],
)  # fmt: skip
def test_a_damaged_outcome_is_a_protocol_error(changes):
    with pytest.raises(ProtocolError):
        Outcome.decode(head(OUTCOME_WITH_ALL.encode(), **changes) + b"\n")


def test_what_a_later_release_adds_to_plans_and_outcomes_is_let_by():
    sent = orjson.loads(PLAN.encode(b"").partition(b"\n")[0])["targets"]
    targets = [{**target, "colour": "red", "row": 5} for target in sent]
    later = head(PLAN.encode(b"{}"), colour="red", targets=targets)
    assert CallSpec.decode(later + b"\n{}") == (PLAN, b"{}")
    error = {**OUTCOME_WITH_ALL.error.to_dict(), "colour": "red"}
    later = head(OUTCOME_WITH_ALL.encode(), colour="red", error=error)
    received = Outcome.decode(later + b"\n" + OUTCOME_WITH_ALL.answer)
    assert received.encode() == OUTCOME_WITH_ALL.encode()


@pytest.mark.parametrize(
    "value", [b"", b"\n", b"call", b"call 1\n", b"call x p\n", b"call 1 p q\n", b"\xff 1 p\n"]
)
def test_foreign_events_are_a_protocol_error(value):
    with pytest.raises(ProtocolError):
        Event.decode(value)


@given(st.binary())
def test_no_bytes_raise_anything_else(value):
    for decode in (CallSpec.decode, Outcome.decode, Event.decode):
        try:
            decode(value)
        except ProtocolError:
            pass


@given(st.dictionaries(st.sampled_from(["v", "last", "error", "answer", "route"]), st.recursive(
    st.none() | st.booleans() | whole | st.text("ab"), lambda inner: st.lists(inner), max_leaves=3
)))  # fmt: skip
def test_no_head_of_an_outcome_raises_anything_else(fields):
    try:
        outcome = Outcome.decode(orjson.dumps({**fields, "v": PROTOCOL}) + b"\nanswer")
    except ProtocolError:
        return
    assert outcome.error is None or isinstance(outcome.error, GatewayError)
