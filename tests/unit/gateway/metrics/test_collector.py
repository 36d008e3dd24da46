"""The gauges that are read when Prometheus asks, and the form of it all."""

import subprocess

from gateway.errors import UpstreamFailed
from gateway.metrics import families
from gateway.metrics.collector import text
from gateway.metrics.records import RecordCounter
from gateway.queue import keys, scripts
from tests.support.programs import program
from workers.breaker import Breakers

STATES = ("queued", "parked", "paused", "scheduled", "running")


def value(samples, name, **labels):
    return samples[name, frozenset(labels.items())]


def test_the_queue_and_the_workers_are_read(redis, scrape):
    seconds, _ = redis.time()
    redis.rpush(keys.RQ_QUEUE, "call-1", "call-2")
    redis.zadd(keys.WAITING, {"call-1": 1, "call-2": 2})
    redis.zadd(keys.BATCHES_ACTIVE, {"batch_1": seconds - 50, "batch_2": seconds})
    redis.zadd(keys.WEBHOOKS, {"key1": (seconds - 20) * 1000, "key2": (seconds + 20) * 1000})
    redis.hset(keys.job("call-1"), "queued_ms", (seconds - 9) * 1000)
    redis.zadd(keys.RQ_DEFERRED, {"call-3": 1})
    redis.zadd(keys.RQ_STARTED, {"call-4": 1, "call-5": 1, "call-6": 1})
    redis.sadd(keys.RQ_WORKERS, "rq:worker:worker-1", "rq:worker:worker-2")
    redis.set(keys.lease("worker-1"), b"40 7")
    redis.set(keys.QUEUED_BYTES, 5_000)
    redis.xadd(keys.RECORDS, {"r": b"{}"})
    samples = scrape()
    states = {state: value(samples, "inference_queue_calls", state=state) for state in STATES}
    assert states == {"queued": 2, "parked": 1, "paused": 0, "scheduled": 0, "running": 3}
    assert value(samples, "inference_batches") == 2
    assert 50 <= value(samples, "inference_batch_oldest_seconds") < 60
    assert value(samples, "inference_webhook_keys") == 2
    assert 20 <= value(samples, "inference_webhook_lag_seconds") < 30
    assert 9 <= value(samples, "inference_queue_oldest_seconds") < 15
    assert value(samples, "inference_queue_bytes") == 5_000
    assert value(samples, "inference_processes", process="worker") == 1
    assert value(samples, "inference_slots") == 40
    assert value(samples, "inference_ledger_backlog_records") == 1
    assert value(samples, "inference_redis_memory_bytes") > 1e5


def test_a_breaker_is_shown_open_from_the_failure_that_opens_it(redis, scrape):
    breakers = Breakers(failures=5)
    breakers.share(lambda command: scripts.run(redis, command), redis)
    scrape_of = {"provider": "openai", "model": "openai/gpt-4o"}
    for _ in range(4):
        breakers.failed("openai/gpt-4o", UpstreamFailed())
    assert value(scrape(), "inference_breaker_open", **scrape_of) == 0
    breakers.failed("openai/gpt-4o", UpstreamFailed())
    breakers.failed("made-up/model", UpstreamFailed())
    samples = scrape()
    assert value(samples, "inference_breaker_open", **scrape_of) == 1
    assert value(samples, "inference_breaker_open", provider="other", model="other") == 0


def test_what_has_not_happened_yet_is_zero(scrape):
    samples = scrape()
    assert value(samples, "inference_cost_corrections_usd") == 0
    for process in ("web", "worker"):
        assert value(samples, "inference_stalled_seconds_total", process=process) == 0


def test_series_of_another_release_are_left_out(redis, append, scrape, labels):
    append(1)
    RecordCounter(redis, labels).catch_up()
    redis.hset(keys.METRICS, "inference_calls_total\tone label", 5)
    redis.hset(keys.METRICS, "inference_former_total\tone label", 5)
    names = [name for name, _ in scrape()]
    assert names.count("inference_calls_total") == 1
    assert "inference_former_total" not in names


def test_names_and_labels_keep_prometheus_rules() -> None:
    names = [family.name for family in families.ALL]
    assert len(names) == len(set(names))
    for family in families.ALL:
        assert family.name.endswith("_total") == (family.kind == "counter"), family.name
        assert family.help.endswith("."), family.name


def test_promtool_accepts_the_metrics(redis, append, labels):
    append(1)
    append(2, status="failed", error_code="upstream_failed", cache_hit=True, saved_nano=1)
    RecordCounter(redis, labels, by_key=True).catch_up()
    page = text(redis, labels, 5)
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=page, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
