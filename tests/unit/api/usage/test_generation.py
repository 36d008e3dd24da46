"""A record as OpenRouter's generation object."""

from __future__ import annotations

from api.usage.generation import generation, iso_time
from gateway.account.pricing import usd
from gateway.account.records import Record

CALL = Record(
    id="c1",
    key_id="abcdefghijkl",
    created_ms=1_796_000_000_000,
    settled_ms=1_796_000_001_500,
    latency_ms=1_500,
    usage={"input": 10, "cache_read": 4, "cache_write": 2, "cache_write_1h": 1, "output": 5},
    usage_source="provider",
    cost_nano=12_345,
    attempts=({"provider_name": "openai", "model": "m", "status": 500, "code": "x"},),
)


def test_prompt_tokens_are_all_that_were_read_or_written():
    shown = generation(CALL)
    assert shown["tokens_prompt"] == shown["native_tokens_prompt"] == 17
    assert shown["tokens_completion"] == 5
    assert (shown["native_tokens_cached"], shown["native_tokens_cache_write"]) == (4, 3)


def test_money_is_in_usd_and_times_are_iso_8601():
    shown = generation(CALL)
    assert shown["total_cost"] == shown["usage"] == 0.000012345
    assert shown["created_at"] == "2026-11-30T00:53:20.000Z"
    assert shown["settled_at"] == "2026-11-30T00:53:21.500Z"


def test_an_attempt_says_why_it_failed():
    (attempt,) = generation(CALL)["provider_responses"]
    assert attempt == {
        "provider_name": "openai",
        "model": "m",
        "status": 500,
        "latency": None,
        "error": "x",
    }


def test_a_call_that_runs_has_no_tokens_and_no_cost():
    shown = generation(Record(id="c1", key_id="k", created_ms=1, settled_ms=0, status="running"))
    assert (shown["tokens_prompt"], shown["total_cost"], shown["latency"]) == (None, None, None)
    assert shown["settled_at"] is None


def test_a_failed_call_without_usage_cost_nothing():
    shown = generation(Record(id="c1", key_id="k", created_ms=1, settled_ms=2, status="failed"))
    assert (shown["tokens_prompt"], shown["total_cost"]) == (None, 0.0)


def test_no_amount_loses_a_billionth_of_a_dollar():
    for nano in (1, 12_345, 10**9 + 1, -1_500_000_001, 2**52 + 1):
        assert round(usd(nano) * 1e9) == nano


def test_no_time_is_none():
    assert iso_time(0) is None
