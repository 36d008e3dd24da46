"""What the records of calls add to the metrics, once each."""

import threading

import pytest

from gateway.metrics.records import BATCH, RecordCounter
from gateway.queue import keys
from tests.unit.gateway.metrics.conftest import RECORD, attempt

MODEL = {"provider": "openai", "model": "openai/gpt-4o"}
GEN_AI = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "openai",
    "gen_ai_request_model": "openai/gpt-4o",
}


@pytest.fixture
def counter(redis, labels):
    return RecordCounter(redis, labels)


def value(samples, name, **labels):
    return samples.get((name, frozenset(labels.items())))


def calls(samples, **labels):
    labels = {"operation": "chat", **MODEL, "status": "completed", "error_type": ""} | labels
    return value(samples, "inference_calls_total", **labels)


def test_a_call_is_counted_with_its_tokens_its_cost_and_its_times(counter, append, scrape):
    append(1)
    counter.catch_up()
    samples = scrape()
    assert calls(samples) == 1
    tokens = {"input": 100, "cache_read": 50, "output": 31}
    for kind, number in tokens.items():
        assert value(samples, "inference_tokens_total", **MODEL, type=kind) == number
    details = value(samples, "inference_token_details_total", **MODEL, type="reasoning")
    assert details == 20
    assert value(samples, "inference_cost_usd_total", **MODEL) == 0.001234567
    for name, seconds, labels in (
        ("gen_ai_server_request_duration_seconds", 1.0, GEN_AI | {"error_type": ""}),
        ("gen_ai_server_time_to_first_token_seconds", 0.32, GEN_AI),
        ("gen_ai_server_time_per_output_token_seconds", 0.02, GEN_AI),
        ("gen_ai_client_operation_duration_seconds", 0.9, GEN_AI | {"error_type": ""}),
        ("gen_ai_client_operation_time_to_first_chunk_seconds", 0.3, GEN_AI),
        ("inference_queue_wait_seconds", 0.02, {"priority": "standard"}),
        ("inference_overhead_seconds", 0.1, {"operation": "chat"}),
    ):
        assert value(samples, f"{name}_sum", **labels) == seconds, name
        assert value(samples, f"{name}_count", **labels) == 1, name
        assert value(samples, f"{name}_bucket", **labels, le="+Inf") == 1, name
    duration = "gen_ai_server_request_duration_seconds_bucket"
    assert value(samples, duration, **GEN_AI, error_type="", le="0.64") == 0
    assert value(samples, duration, **GEN_AI, error_type="", le="1.28") == 1


def test_a_value_on_the_bound_of_a_bucket_is_in_it(counter, append, scrape):
    append(1, latency_ms=640)
    counter.catch_up()
    name = "gen_ai_server_request_duration_seconds_bucket"
    assert value(scrape(), name, **GEN_AI, error_type="", le="0.64") == 1


def test_retries_fallbacks_and_skipped_models_are_counted_for_the_model_that_failed(
    counter, append, scrape
):
    tries = (
        attempt(code="upstream_failed"),
        attempt(code="upstream_failed"),
        attempt("claude-opus-5", code="circuit_open", milliseconds=0, provider="anthropic"),
        attempt("gpt-4o-mini"),
    )
    append(1, attempts=tries, model="openai/gpt-4o-mini")
    counter.catch_up()
    samples = scrape()
    assert value(samples, "inference_retries_total", **MODEL) == 1
    assert value(samples, "inference_fallbacks_total", **MODEL) == 1
    [skipped] = [
        dict(labels) for name, labels in samples if name == "inference_breaker_skips_total"
    ]
    assert skipped["provider"] == "anthropic"
    name = "gen_ai_client_operation_duration_seconds_count"
    assert value(samples, name, **GEN_AI, error_type="upstream_failed") == 2
    assert sum(number for (each, _), number in samples.items() if each == name) == 3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": "made-up/model"}, {"model": "other"}),
        ({"model": "made-up/model", "provider_name": "made-up"}, {"provider": "other"}),
        ({"model": "", "provider_name": ""}, {"model": "other", "provider": "none"}),
        ({"model": "openai/gpt-4o-2031-01-01"}, {"model": "openai/gpt-4o"}),
        ({"model": "openrouter/made-up"}, {"model": "openrouter/*"}),
        ({"kind": "made-up"}, {"operation": "other"}),
        ({"status": "made-up"}, {"status": "other"}),
        ({"status": "failed", "error_code": "made up by a provider"}, {"error_type": "other"}),
        ({"status": "failed", "error_code": "no_workers"}, {"error_type": "no_workers"}),
    ],
)
def test_no_name_that_somebody_makes_up_becomes_a_label(counter, append, scrape, changes, expected):
    append(1, **changes)
    counter.catch_up()
    [found] = [dict(each) for name, each in scrape() if name == "inference_calls_total"]
    assert found.items() >= expected.items()


def test_a_call_that_a_kept_response_answered_has_not_waited(counter, append, scrape):
    append(1, cache_hit=True, saved_nano=2_000_000_000, attempts=())
    counter.catch_up()
    samples = scrape()
    assert value(samples, "inference_cache_hits_total", **MODEL) == 1
    assert value(samples, "inference_saved_usd_total", **MODEL) == 2.0
    assert not [name for name, _ in samples if name.startswith("inference_queue_wait")]


def test_a_correction_is_no_call_and_no_counter_falls(counter, append, scrape):
    append(1)
    append(2, correction=True, cost_nano=-1_000_000_000)
    counter.catch_up()
    samples = scrape()
    assert calls(samples) == 1
    assert value(samples, "inference_cost_usd_total", **MODEL) == 0.001234567
    assert value(samples, "inference_cost_corrections_usd") == -1.0


def test_keys_are_labels_only_on_request(redis, labels, counter, append, scrape):
    append(1)
    counter.catch_up()
    assert not [labels for _, labels in scrape() if "key1" in dict(labels).values()]
    append(2)
    RecordCounter(redis, labels, by_key=True).catch_up()
    samples = scrape()
    assert value(samples, "inference_key_calls_total", key="key1", status="completed") == 1
    assert value(samples, "inference_key_tokens_total", key="key1", type="output") == 31
    assert value(samples, "inference_key_cost_usd_total", key="key1") == 0.001234567


@pytest.mark.parametrize(
    "entry",
    [
        b"{broken",
        b'{"id": "c", "key_id": "k", "settled_ms": 1, "attempts": [1]}',
        b'{"id": "c", "key_id": "k", "settled_ms": 1, "latency_ms": "1"}',
        b'{"id": "c", "key_id": "k", "settled_ms": 1, "cost_nano": 9223372036854775808}',
    ],
)
def test_what_is_no_record_stops_nothing(redis, counter, append, scrape, entry):
    append(1)
    redis.xadd(keys.RECORDS, {"r": entry})
    append(2)
    counter.catch_up()
    assert calls(scrape()) == 2


def test_each_record_counts_once_whoever_counts_it(redis, labels, counter, append, scrape):
    append(*range(BATCH + 10))
    counter.catch_up()
    RecordCounter(redis, labels).catch_up()
    counter.catch_up()
    append(1_000)
    RecordCounter(redis, labels).catch_up()
    append(1_001)
    counter.catch_up()
    assert calls(scrape()) == BATCH + 12


def test_counters_that_count_at_the_same_time_count_each_record_once(redis, labels, append, scrape):
    append(*range(60))
    start = threading.Barrier(3)

    def work():
        start.wait()
        counter = RecordCounter(redis, labels)
        for _ in range(20):
            counter.catch_up()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    append(*range(60, 200))
    for thread in threads:
        thread.join()
    RecordCounter(redis, labels).catch_up()
    assert calls(scrape()) == 200


def test_counting_begins_anew_in_a_redis_that_was_emptied(redis, counter, append, scrape):
    redis.xadd(keys.RECORDS, {"r": RECORD.encode()}, id="9999999999999-0")
    counter.catch_up()
    redis.flushall()  # the clock is behind
    append(3)
    counter.catch_up()
    assert calls(scrape()) == 1
