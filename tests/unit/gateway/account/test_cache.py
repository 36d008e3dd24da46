"""gateway/account/cache.py: what is kept, for how long, and under which name."""

from __future__ import annotations

import pytest

from gateway.account.cache import DEFAULT_SECONDS, MAX_SECONDS, Entry, name, seconds, without_cost
from gateway.errors import InvalidRequest

PEPPER = "p" * 40
REST = ("chat", False, "openai/model", ())


@pytest.mark.parametrize(
    ("header", "default", "expected"),
    [
        (None, None, 0),
        (None, 60, 60),
        (None, 10_000_000, MAX_SECONDS),
        ("on", None, DEFAULT_SECONDS),
        ("on", 60, 60),
        ("ON; ttl=7", 60, 7),
        ("on,ttl=7", None, 7),
        ("on; ttl=999999999", None, MAX_SECONDS),
        ("on; ttl=0", 60, 0),
        ("off", 60, 0),
    ],
)
def test_the_header_replaces_the_default_of_the_key(
    header: str | None, default: int | None, expected: int
) -> None:
    assert seconds(header, default) == expected


@pytest.mark.parametrize("header", ["", "yes", "on; ttl=-1", "on; ttl=1.5", "on; max=3", "onoff"])
def test_another_value_is_refused(header: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        seconds(header, None)
    assert refusal.value.param == "X-Cache"


def test_the_same_request_has_the_same_name_and_every_other_another() -> None:
    body = b'{"messages":[]}'
    names = {
        name(PEPPER, "key", REST, body),
        name("q" * 40, "key", REST, body),
        name(PEPPER, "other", REST, body),
        name(PEPPER, "key", ("chat", True, "openai/model", ()), body),
        name(PEPPER, "key", ("chat", False, "openai/other", ()), body),
        name(PEPPER, "key", ("embeddings", False, "openai/model", ()), body),
        name(PEPPER, "key", ("chat", False, "openai/model", ("seed",)), body),
        name(PEPPER, "key", REST, body + b" "),
    }
    assert len(names) == 8
    assert name(PEPPER, "key", REST, body) in names
    assert all(len(each) == 64 for each in names)


def test_an_entry_survives_its_way_through_redis() -> None:
    entry = Entry(b'{"choices":[]}\n{"usage":null}', 12_345, ["seed"])
    assert Entry.decode(entry.encode()) == entry


@pytest.mark.parametrize(
    "value", [b"", b"no JSON\nx", b"[]\nx", b"{}\nx", b'{"v":2,"nano":0,"dropped":[]}\nx']
)
def test_what_another_release_has_kept_is_nothing(value: bytes) -> None:
    assert Entry.decode(value) is None


def test_a_response_that_is_used_again_cost_nothing() -> None:
    head = b"#openai/model\tseed\n"
    text = b'{"choices":[{"delta":{"content":"\\"cost\\":1"}}]}'
    usage = b'{"choices":[],"usage":{"total_tokens":3,"cost":%b}}'
    paid = usage % b'0.25,"cost_details":{"upstream_inference_cost":0.2}'
    assert without_cost(head + text + b"\n" + paid) == head + text + b"\n" + usage % b"0"
