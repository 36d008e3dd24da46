"""The record of a call as JSON."""

import dataclasses

import orjson
import pytest

from gateway.account.records import Record

CALL = Record(
    id="chatcmpl-1",
    key_id="abcdefghijkl",
    created_ms=1_796_000_000_000,
    settled_ms=1_796_000_001_500,
    usage={"input": 10, "output": 5},
    cost_nano=12_345,
    prices={"version": "1", "input": "0.15"},
    attempts=({"provider_name": "openai", "status": 500},),
)


def test_a_record_is_read_as_it_was_written():
    assert Record.decode(CALL.encode()) == CALL


def test_fields_at_their_default_take_no_room():
    assert "error_code" not in orjson.loads(CALL.encode())


def test_fields_of_a_newer_release_are_left_out():
    newer = {**orjson.loads(CALL.encode()), "invented": 1}
    assert Record.decode(orjson.dumps(newer)) == CALL


@pytest.mark.parametrize("data", [b"[]", b"{", b'{"id": "1"}'])
def test_what_is_no_record_is_a_value_error(data):
    with pytest.raises(ValueError):
        Record.decode(data)


STUB = {
    "id": "c1",
    "key_id": "k1",
    "owner": "team",
    "model": "openai/gpt-4o",
    "created_ms": 1_000,
    "prompt_tokens": 100,
    "prompt_nano": 250_000,
    "output_nano_per_token": 10_000.5,
}


def test_a_record_says_what_redis_knew_when_it_was_settled():
    known = {"queued_ms": 7, "reserved_usd": 500, "reserved_tokens": 60, "settled_ms": 4_000}
    record = Record.from_entry({b"r": CALL.encode(), b"q": orjson.dumps(known)})
    assert (record.queued_ms, record.reserved_nano, record.reserved_tokens) == (7, 500, 60)
    assert (record.settled_ms, record.cost_nano) == (4_000, CALL.cost_nano)
    assert Record.from_entry({b"r": CALL.encode(), b"q": b"{}"}).usage == CALL.usage


def test_a_stub_is_the_record_of_a_call_that_no_process_has_ended():
    stub = orjson.dumps({**STUB, "status": "cancelled"})
    record = Record.from_entry({b"r": stub, b"q": b'{"settled_ms":3000}'})
    assert (record.id, record.owner, record.status) == ("c1", "team", "cancelled")
    assert (record.latency_ms, record.cost_nano, record.usage_source) == (2_000, 0, "none")


@pytest.mark.parametrize(
    "entry",
    [{}, {b"r": b"[]"}, {b"r": b"{", b"q": b"{}"}, {b"r": b"{}", b"q": b"5"}, {b"r": b"{}"}],
)
def test_what_is_no_entry_is_a_value_error(entry):
    with pytest.raises(ValueError):
        Record.from_entry(entry)


@pytest.mark.parametrize(
    ("fields", "model"),
    [
        ({}, "any/made-up"),
        ({"status": "failed"}, "any/*"),
        ({"status": "cancelled", "usage_source": "estimated"}, "any/*"),
        ({"status": "failed", "usage_source": "provider"}, "any/made-up"),
        ({"status": "failed", "family": ""}, "any/made-up"),  # a model of the catalogue
    ],
)
def test_a_name_that_no_provider_has_answered_counts_for_its_family(fields, model):
    record = dataclasses.replace(CALL, **{"model": "any/made-up", "family": "any/*", **fields})
    assert record.summed_model == model
