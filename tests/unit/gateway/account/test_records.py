"""The record of a call as JSON."""

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
