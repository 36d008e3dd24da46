"""What bounds the ledger that Redis keeps."""

import dataclasses
import time

from gateway.account.ledger import open_ledger
from gateway.queue import keys
from tests.unit.gateway.account.test_ledger import record


def seconds_ago(redis, seconds):
    return redis.time()[0] - seconds


def test_records_and_sums_of_buckets_expire(settings, redis):
    ledger = open_ledger(dataclasses.replace(settings, record_days=3), redis)
    now = seconds_ago(redis, 0)
    ledger.write([record(1, now)])
    assert 0 < redis.ttl(keys.ledger_record("call-0001")) <= 3 * 86_400
    for width, kept in keys.USAGE_SECONDS.items():
        start = now - now % width if width else 0
        ttl = redis.ttl(keys.ledger_usage(width, start))
        assert 0 < ttl <= kept if kept else ttl == -1


def test_the_oldest_of_too_many_records_go_and_the_sums_stay(settings, redis, monkeypatch):
    monkeypatch.setattr(keys, "LEDGER_RECORDS", 5)
    ledger = open_ledger(settings, redis)
    now = seconds_ago(redis, 100)
    ledger.write([record(number, now + number) for number in range(8)])
    assert [each.id for each in ledger.generations().records][-1] == "call-0003"
    assert ledger.generation("call-0002") is None
    assert ledger.totals("key1", now).all_time.requests == 8


def test_records_that_expired_are_in_no_page(settings, redis):
    ledger = open_ledger(settings, redis)
    now = seconds_ago(redis, 0)
    ledger.write([record(1, now), record(2, now)])
    redis.delete(keys.ledger_record("call-0001"))
    assert [each.id for each in ledger.generations().records] == ["call-0002"]


def test_a_script_that_redis_forgot_is_loaded_again(settings, redis):
    ledger = open_ledger(settings, redis)
    redis.script_flush()
    ledger.write([record(1, int(time.time()))])
    assert ledger.generation("call-0001") is not None


def test_the_ledger_is_as_far_behind_as_the_oldest_record_that_waits(settings, redis):
    ledger = open_ledger(settings, redis)
    assert ledger.health().backlog == 0 and not ledger.health().degraded
    now = redis.time()[0] * 1000
    redis.xadd(keys.RECORDS, {"r": b"{}"}, id=f"{now - 60_000}-0")
    redis.xadd(keys.RECORDS, {"r": b"{}"})
    health = ledger.health()
    assert health.backlog == 2 and 59 < health.lag_seconds < 600
    assert health.degraded


def test_what_lasts_for_ever_does_not_grow_with_the_models_of_a_key(settings, redis):
    ledger = open_ledger(settings, redis)
    now = seconds_ago(redis, 0)
    ledger.write([record(number, now, model=f"fake/{number}") for number in range(50)])
    fields = redis.hlen(keys.ledger_usage(0, 0))
    ledger.write([record(50, now, model="fake/50")])
    assert redis.hlen(keys.ledger_usage(0, 0)) == fields
    assert ledger.totals("key1", now).all_time.requests == 51
