"""The figures of the last minute."""

import pytest

from gateway.metrics.live import snapshot
from gateway.metrics.records import RecordCounter


@pytest.fixture
def now_ms(redis):
    seconds, _ = redis.time()
    return seconds * 1000


def test_a_service_without_calls_has_figures_too(redis):
    figures = snapshot(redis)
    assert (figures["calls"], figures["error_rate"], figures["duration"]) == (0, 0.0, None)
    assert (figures["models"], len(figures["series"])) == ([], 13)
    assert 60 <= figures["seconds"] <= 65


def test_figures_are_of_the_last_minute(redis, labels, append, now_ms):
    append(*range(1, 99), settled_ms=now_ms - 6_000, latency_ms=400)
    append(99, 100, settled_ms=now_ms, latency_ms=8_000, status="failed", model="made-up")
    append(101, settled_ms=now_ms - 70_000)
    RecordCounter(redis, labels).catch_up()
    figures = snapshot(redis)
    assert (figures["calls"], figures["completed"], figures["failed"]) == (100, 98, 2)
    assert figures["error_rate"] == 0.02
    assert figures["calls_per_second"] == 100 / figures["seconds"]
    assert figures["output_tokens_per_second"] == 3_100 / figures["seconds"]
    assert figures["cost_usd"] == pytest.approx(0.1234567)
    assert figures["duration"]["p50"] == pytest.approx(0.4, rel=0.1)
    assert figures["duration"]["p99"] == pytest.approx(8.0, rel=0.1)
    assert [(each["model"], each["calls"], each["failed"]) for each in figures["models"]] == [
        ("openai/gpt-4o", 98, 0),
        ("other", 2, 2),
    ]
    assert sum(each["calls"] for each in figures["series"]) == 100
