"""Each script on a real Redis: called once, twice, late, and after Redis was emptied."""

from __future__ import annotations

import errno
import io
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from gateway.account.api_keys import KeyRecord, KeyStore
from gateway.broker import submitter
from gateway.catalogue.target import Target
from gateway.errors import (
    CallCancelled,
    KeyChanged,
    Overloaded,
    PayloadTooLarge,
    QueueUnavailable,
    RateLimited,
    WorkerLost,
)
from gateway.queue import commands, keys, scripts
from gateway.queue.clients import DedicatedConnection
from gateway.queue.protocol import CallSpec, Event, Outcome
from gateway.settings import Settings
from tests.support.fakes import admission
from workers.claims import Claims

WEB, WORKER = "web-1", "worker-1"


@pytest.fixture
def key(redis: Redis, settings: Settings) -> Iterator[KeyRecord]:
    store = KeyStore(redis, settings.key_pepper)
    yield store.verify(store.create("tests"))


@pytest.fixture(autouse=True)
def live_web(redis: Redis) -> None:
    redis.set(keys.lease(WEB), 1, px=60_000)


def spec(call_id: str | None = None) -> CallSpec:
    return CallSpec(call_id or uuid.uuid4().hex, WEB, False, (Target("demo/echo", "demo", "echo"),))


def submit(
    redis: Redis,
    settings: Settings,
    key: KeyRecord,
    the_spec: CallSpec | None = None,
    **options: Any,
) -> str:
    the_spec = the_spec or spec()
    body = options.pop("body", b'{"messages":[]}')
    budget, expiry = options.pop("budget", 600), options.pop("expiry", 0)
    hit = options.pop("hit", b"")
    command = commands.submit_command(settings, the_spec, body, admission(key), budget, expiry, hit)
    refusal = submitter.refusal(
        scripts.run(redis, command), key.public_id, options.pop("seconds", float)
    )
    if refusal is not None:
        raise refusal
    return the_spec.call_id


def claim(
    redis: Redis, claim_id: str = "c1", slots: int = 10, again: bool = False, judge: bool = True
) -> list[Any]:
    claims = Claims(
        redis, DedicatedConnection(redis), WORKER, lambda: time.time() + 60 if judge else 0
    )
    reply = scripts.run(redis, claims.command(claim_id, slots, again=again))
    return [tuple(reply[i : i + 5]) for i in range(0, len(reply), 5)]


def finish(redis: Redis, call_id: str, outcome: Outcome, claim_id: str = "c1") -> bool:
    return commands.finish(redis, commands.finish_commands(call_id, claim_id, WEB, WORKER, outcome))


def job(redis: Redis, call_id: str) -> Job:
    return Job.fetch(call_id, connection=redis, serializer=JSONSerializer)


# submit


def test_a_script_that_is_used_for_the_first_time_needs_no_file_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without its script, the response of a call would be lost after its provider was paid."""

    def none_left(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(io, "open", none_left)
    monkeypatch.setattr(keys, "PREFIX", "never used before:")
    assert all(script.text and script.sha for script in scripts.ALL)


def test_a_submitted_call_is_a_job_that_rq_can_read(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = submit(redis, settings, key)
    fetched = job(redis, call_id)
    assert fetched.get_status() == JobStatus.QUEUED
    assert fetched.origin == "infer"
    assert (fetched.func_name, fetched.args, fetched.kwargs) == ("workers.tasks.run", [call_id], {})
    assert fetched.timeout == 600
    assert fetched.enqueued_at is not None
    assert redis.lrange(keys.RQ_QUEUE, 0, -1) == [call_id.encode()]
    assert redis.smembers("rq:queues") == {b"rq:queue:infer"}


def test_nothing_of_the_request_is_in_the_job_record(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = submit(redis, settings, key, body=b'{"messages":"CANARY"}')
    assert b"CANARY" not in b"".join(redis.hgetall(keys.job(call_id)).values())


def test_submitting_twice_queues_once(redis: Redis, settings: Settings, key: KeyRecord) -> None:
    the_spec = spec()
    submit(redis, settings, key, the_spec)
    submit(redis, settings, key, the_spec)
    assert redis.llen(keys.RQ_QUEUE) == 1
    assert redis.llen(keys.BELL) == 1


def test_every_key_of_a_submitted_call_has_an_end(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    submit(redis, settings, key)
    lasting = {name for name in redis.keys() if redis.ttl(name) == -1}
    assert lasting == {
        b"gw:queue",
        b"rq:queue:infer",
        b"rq:queues",
        keys.key(key.public_id).encode(),
        keys.AUDIT.encode(),
    }


def test_a_body_lives_until_the_deadline_and_a_minute(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = submit(redis, settings, key, budget=100)
    assert 155 <= redis.ttl(keys.call(call_id)) <= 160
    assert 86_400 < redis.ttl(keys.job(call_id)) <= 86_500, "its record is still to be written"


def test_a_revoked_key_is_refused_though_the_caller_remembers_it(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    KeyStore(redis, settings.key_pepper).revoke(key.public_id)
    with pytest.raises(KeyChanged):
        submit(redis, settings, key)
    assert redis.llen(keys.RQ_QUEUE) == 0


def test_a_key_whose_secret_was_changed_is_refused(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    with pytest.raises(KeyChanged):
        submit(redis, settings, replace(key, hmac="0" * 64))


def test_a_call_given_up_before_it_came_is_refused(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    the_spec = spec()
    assert commands.cancel(redis, the_spec.call_id) == b"marked"
    with pytest.raises(CallCancelled):
        submit(redis, settings, key, the_spec)
    assert not redis.exists(keys.job(the_spec.call_id))


def test_a_submit_that_nobody_waits_for_any_more_is_refused(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    seconds, _ = redis.time()
    with pytest.raises(QueueUnavailable):
        submit(redis, settings, key, expiry=seconds - 1)
    assert redis.llen(keys.RQ_QUEUE) == 0
    submit(redis, settings, key, expiry=seconds + 10)
    assert redis.llen(keys.RQ_QUEUE) == 1


def test_a_short_lived_call_does_not_shorten_what_all_share(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    submit(redis, settings, key, budget=600)
    submit(redis, settings, key, budget=0.001)
    assert redis.ttl(keys.BELL) > 3600
    assert redis.ttl(keys.QUEUED_BYTES) > 3600


def test_a_lost_counter_never_goes_below_nothing(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = submit(redis, settings, key)
    submit(redis, settings, key)
    redis.delete(keys.QUEUED_BYTES)
    commands.cancel(redis, call_id)
    claim(redis, slots=1)
    assert not redis.exists(keys.QUEUED_BYTES)


def test_a_full_queue_refuses_with_the_time_to_wait(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    full = replace(settings, queue_limit=2)
    submit(redis, full, key)
    submit(redis, full, key)
    with pytest.raises(Overloaded) as refusal:
        submit(redis, full, key, seconds=lambda depth: depth * 10.0)
    assert refusal.value.retry_after == 20


def submit_until_full(redis: Redis, settings: Settings, key: KeyRecord, **options: Any) -> int:
    """Submit calls of a key until one is refused; return how many were queued."""
    for number in range(1_000):
        try:
            submit(redis, settings, key, **options)
        except Overloaded:
            return number
    raise AssertionError("there is no bound")


@pytest.mark.parametrize("weight", [1, 3])
def test_a_key_leaves_room_in_the_queue_for_others(
    redis: Redis, settings: Settings, key: KeyRecord, weight: int
) -> None:
    store = KeyStore(redis, settings.key_pepper)
    store.change(key.public_id, lambda record: {"weight": weight})
    key = store.refresh(key)
    other = store.verify(store.create("other"))
    full = replace(settings, queue_limit=80)
    assert submit_until_full(redis, full, key) == 71
    assert submit_until_full(redis, full, other) == 8
    claim(redis, slots=20)
    assert submit_until_full(redis, full, other) > 8


def test_a_key_leaves_room_for_the_bodies_of_others(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    store = KeyStore(redis, settings.key_pepper)
    other = store.verify(store.create("other"))
    tight = replace(settings, queue_bytes=1_000_000)
    body = b"x" * 20_000
    first = submit_until_full(redis, tight, key, body=body)
    assert 40 <= first <= 44
    assert submit_until_full(redis, tight, other, body=body) >= 3


def test_calls_that_wait_outside_the_queue_count_as_those_of_their_key(
    redis: Redis, settings: Settings
) -> None:
    store = KeyStore(redis, settings.key_pepper)
    parking, other = (store.verify(store.create("a", max_in_flight=limit)) for limit in (1, None))
    full = replace(settings, queue_limit=80)
    assert submit_until_full(redis, full, parking) == 71
    assert submit_until_full(redis, full, other) == 8


def test_too_many_waiting_bytes_refuse_and_are_free_again_once_claimed(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    tight = replace(settings, queue_bytes=3_000)
    submit(redis, tight, key, body=b"x" * 2_000)
    with pytest.raises(Overloaded) as refusal:
        submit(redis, tight, key, body=b"x" * 2_000, seconds=lambda depth: depth * 10.0)
    assert refusal.value.retry_after == 10
    claim(redis)
    submit(redis, tight, key, body=b"x" * 2_000)


def test_waiting_bytes_are_free_again_once_the_call_is_cancelled(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    tight = replace(settings, queue_bytes=3_000)
    submit(redis, tight, key, body=b"x" * 100)
    big = submit(redis, tight, key, body=b"x" * 2_000)
    commands.cancel(redis, big)
    submit(redis, tight, key, body=b"x" * 2_000)


def test_a_body_is_not_counted_twice_while_redis_looks_at_it(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    redis.config_set("maxmemory", 20_000_000)
    submit(redis, settings, key, body=b"x" * 7_900_000)
    with pytest.raises(Overloaded):  # with the first one, which waits
        submit(redis, settings, key, body=b"x" * 7_900_000)
    with pytest.raises(PayloadTooLarge, match="less than 8000000 bytes fit"):
        submit(redis, settings, key, body=b"x" * 8_000_000)


def test_a_redis_over_four_fifths_of_its_memory_takes_no_more(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    used = redis.info("memory")["used_memory"]
    redis.config_set("maxmemory", int(used / 0.85))
    with pytest.raises(Overloaded) as refusal:
        submit(redis, settings, key)
    assert refusal.value.retry_after == submitter.MEMORY_SECONDS
    with pytest.raises(Overloaded) as refusal:
        submit(redis, settings, key, seconds=lambda depth: 30.0 + depth)
    assert refusal.value.retry_after == 30


def test_a_call_that_a_kept_response_answers_is_settled_once_and_never_queued(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    hit = spec()
    for _ in range(2):
        submit(redis, settings, key, hit, hit=b'{"cache_hit":true}')
    entries: Any = redis.xrange(keys.RECORDS)
    assert [fields[b"r"] for _, fields in entries] == [b'{"cache_hit":true}']
    assert redis.llen(keys.RQ_QUEUE) == redis.exists(keys.call(hit.call_id)) == 0
    assert commands.states(redis, [hit.call_id])[0].status == "finished"
    assert 0 < redis.ttl(keys.job(hit.call_id)) <= keys.JOB_SECONDS


def test_a_kept_response_counts_as_a_request_and_as_nothing_else(
    redis: Redis, settings: Settings
) -> None:
    store = KeyStore(redis, settings.key_pepper)
    limits = {"rpm": 2, "tpm": 10, "max_in_flight": 1, "limit": 10, "limit_unit": "tokens"}
    key = store.verify(store.create("tests", **limits))
    hits = [spec() for _ in range(2)]
    for hit in (*hits, hits[0]):  # the last is sent again
        submit(redis, settings, key, hit, hit=b"{}")
    with pytest.raises(RateLimited) as refusal:
        submit(redis, settings, key, hit=b"{}")
    assert refusal.value.headers["x-limit-name"] == "requests_per_minute"
    used = redis.hmget(keys.spend(key.public_id), "requests", "tokens", "usd")
    assert used == [b"2", b"0", b"0"]
    assert redis.zcard(keys.flight(key.public_id)) == 0
    assert redis.xlen(keys.RECORDS) == 2


def test_a_full_queue_lets_kept_responses_through(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    full = replace(settings, queue_limit=0)
    submit(redis, full, key, hit=b"{}")
    with pytest.raises(Overloaded):
        submit(redis, full, key)


def test_a_revoked_key_gets_no_kept_response(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    KeyStore(redis, settings.key_pepper).revoke(key.public_id)
    with pytest.raises(KeyChanged):
        submit(redis, settings, key, hit=b"{}")
    assert redis.xlen(keys.RECORDS) == 0


def test_a_forgotten_script_is_loaded_again(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    submit(redis, settings, key)
    redis.script_flush()
    submit(redis, settings, key)
    assert redis.llen(keys.RQ_QUEUE) == 2


def test_a_bell_that_nobody_answers_stays_small(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    for _ in range(70):
        submit(redis, settings, key)
    assert redis.llen(keys.BELL) == 64


# claim


def test_a_claim_starts_the_oldest_calls_first(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    ids = [submit(redis, settings, key) for _ in range(3)]
    taken = claim(redis, slots=2)
    assert [row[0].decode() for row in taken] == ids[:2]
    assert [row[1] for row in taken] == [WEB.encode()] * 2
    assert all(590_000 < row[2] <= 600_000 for row in taken)
    assert CallSpec.decode(taken[0][3])[0].call_id == ids[0]
    fetched = job(redis, ids[0])
    assert fetched.get_status() == JobStatus.STARTED
    assert fetched.worker_name == WORKER
    assert fetched.started_at is not None
    assert redis.exists(keys.BELL), "somebody has to come back for the third"


def test_a_claim_leaves_bell_and_bytes_to_those_that_wait(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    submit(redis, settings, key)
    size = int(redis.get(keys.QUEUED_BYTES) or 0)
    for _ in range(3):
        submit(redis, settings, key)
    redis.delete(keys.BELL)
    claim(redis, slots=2)
    assert redis.ttl(keys.BELL) > 3600
    assert int(redis.get(keys.QUEUED_BYTES) or 0) == 2 * size > 0


def test_the_bell_is_silent_when_nothing_is_left(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    submit(redis, settings, key)
    claim(redis)
    assert not redis.exists(keys.BELL)
    assert not redis.exists(keys.QUEUED_BYTES)


def test_a_claim_asked_again_returns_its_batch_and_nothing_new(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    ids = {submit(redis, settings, key) for _ in range(3)}
    first = claim(redis, "c1")
    submit(redis, settings, key)
    again = claim(redis, "c1", again=True)
    assert {row[0].decode() for row in again} == ids
    assert {row[3] for row in again} == {row[3] for row in first}


def test_a_claim_that_arrives_after_its_own_repetition_takes_nothing(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    submit(redis, settings, key)
    assert claim(redis, "c1", again=True) == []
    assert claim(redis, "c1") == []
    assert len(claim(redis, "c2")) == 1


def test_an_id_pushed_twice_is_started_once(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = submit(redis, settings, key)
    redis.rpush(keys.RQ_QUEUE, call_id)
    assert len(claim(redis)) == 1
    assert claim(redis, "c2") == []


def test_an_id_without_a_job_is_dropped(redis: Redis) -> None:
    redis.rpush(keys.RQ_QUEUE, "nobody", "knows")
    assert claim(redis) == []
    assert redis.llen(keys.RQ_QUEUE) == 0


def test_a_call_whose_web_process_is_dead_is_dropped(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = submit(redis, settings, key)
    redis.delete(keys.lease(WEB))
    assert claim(redis) == []
    assert job(redis, call_id).get_status() == JobStatus.CANCELED
    assert not redis.exists(keys.call(call_id))


def test_a_missing_lease_means_nothing_while_the_worker_may_not_judge(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    submit(redis, settings, key)
    redis.delete(keys.lease(WEB))
    assert len(claim(redis, judge=False)) == 1


def test_a_call_without_a_body_is_handed_out_as_lost(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = submit(redis, settings, key)
    redis.delete(keys.call(call_id))
    assert claim(redis)[0][3] is None


def test_a_call_past_its_deadline_is_handed_out_without_time(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = submit(redis, settings, key)
    redis.hset(keys.job(call_id), "deadline_ms", int(time.time() * 1000) - 5)
    assert claim(redis)[0][2] < 0


def test_a_started_call_stays_in_rqs_registry_until_a_minute_past_its_deadline(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = submit(redis, settings, key, budget=100)
    claim(redis)
    score = redis.zscore(keys.RQ_STARTED, f"{call_id}:c1")
    assert 155 <= score - time.time() <= 161


# emit


def test_events_arrive_in_order_and_the_inbox_has_an_end(redis: Redis) -> None:
    events = [Event("a" * 32, "c1", number, b"p", b"{}").encode() for number in (1, 2, 3)]
    scripts.run(redis, commands.emit_command(WEB, events))
    scripts.run(redis, commands.emit_command(WEB, events))  # a repetition: the numbers tell
    entries = redis.xrange(keys.inbox(WEB))
    assert [Event.decode(fields[b"e"]).number for _, fields in entries] == [1, 2, 3, 1, 2, 3]
    assert 0 < redis.ttl(keys.inbox(WEB)) <= 120


def test_nothing_unread_is_trimmed_and_the_reply_is_how_full_the_inbox_is(redis: Redis) -> None:
    percents = [
        scripts.run(redis, commands.emit_command(WEB, [b"x"] * (keys.INBOX_EVENTS // 4)))
        for _ in range(6)
    ]
    assert percents == [25, 50, 75, 100, 125, 150]
    assert redis.xlen(keys.inbox(WEB)) == keys.INBOX_EVENTS // 4 * 6
    assert scripts.run(redis, commands.emit_command(WEB, [])) == 150, "it only asks"
    redis.delete(keys.inbox(WEB))
    assert scripts.run(redis, commands.emit_command(WEB, [])) == 0


def test_few_large_events_fill_an_inbox_too(redis: Redis) -> None:
    events = [b"x" * (keys.INBOX_BYTES // 40)] * 20
    percent = scripts.run(redis, commands.emit_command(WEB, events))
    assert 50 <= percent < 75


def test_events_are_taken_while_redis_is_full(redis: Redis) -> None:
    redis.config_set("maxmemory", 1)
    scripts.run(redis, commands.emit_command(WEB, [b"x"]))
    assert redis.xlen(keys.inbox(WEB)) == 1


# finish


def started(redis: Redis, settings: Settings, key: KeyRecord) -> str:
    call_id = submit(redis, settings, key)
    claim(redis)
    return call_id


def test_a_finished_call_leaves_outcome_event_and_truthful_records(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = started(redis, settings, key)
    assert finish(redis, call_id, Outcome(last=0, answer=b'{"choices":[]}'))
    (outcome,) = commands.outcomes(redis, [call_id])
    assert outcome is not None
    assert outcome.answer == b'{"choices":[]}'
    ((_, fields),) = redis.xrange(keys.inbox(WEB))
    event = Event.decode(fields[b"e"])
    assert (event.call_id, event.number) == (call_id, 1)
    assert Outcome.decode(event.payload).answer == outcome.answer
    assert job(redis, call_id).get_status() == JobStatus.FINISHED
    assert redis.zcard(keys.RQ_STARTED) == 0
    assert redis.zrange(keys.RQ_FINISHED, 0, -1) == [call_id.encode()]
    assert 0 < redis.ttl(keys.job(call_id)) <= 10
    assert 0 < redis.ttl(keys.outcome(call_id)) <= 120


def test_finishing_twice_counts_once(redis: Redis, settings: Settings, key: KeyRecord) -> None:
    call_id = started(redis, settings, key)
    assert finish(redis, call_id, Outcome())
    assert not finish(redis, call_id, Outcome())
    assert redis.xlen(keys.inbox(WEB)) == 1
    assert redis.hget(keys.spend(key.public_id), "requests") == b"1"


def test_a_late_result_is_fenced_off_by_the_loss_that_came_first(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = started(redis, settings, key)
    assert finish(redis, call_id, Outcome(error=WorkerLost()))
    redis.unlink(keys.outcome(call_id))  # delivered
    assert not finish(redis, call_id, Outcome(answer=b"{}"))
    assert job(redis, call_id).get_status() == JobStatus.FAILED
    assert redis.zrange(keys.RQ_FAILED, 0, -1) == [call_id.encode()]


def test_the_result_of_another_claim_is_fenced_off(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = started(redis, settings, key)
    assert not finish(redis, call_id, Outcome(answer=b"{}"), claim_id="other")


def test_a_result_is_delivered_though_redis_was_emptied(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = started(redis, settings, key)
    redis.flushall()
    assert finish(redis, call_id, Outcome(answer=b"{}"))
    assert redis.xlen(keys.inbox(WEB)) == 1
    assert redis.zcard(keys.RQ_FINISHED) == 0
    assert not redis.exists(keys.job(call_id))


# cancel


def test_a_queued_call_is_removed(redis: Redis, settings: Settings, key: KeyRecord) -> None:
    call_id = submit(redis, settings, key)
    assert commands.cancel(redis, call_id) == b"removed"
    assert redis.llen(keys.RQ_QUEUE) == 0
    assert job(redis, call_id).get_status() == JobStatus.CANCELED
    assert not redis.exists(keys.call(call_id))
    assert claim(redis) == []


def test_cancelling_twice_is_like_once(redis: Redis, settings: Settings, key: KeyRecord) -> None:
    call_id = submit(redis, settings, key)
    submit(redis, settings, key)
    commands.cancel(redis, call_id)
    assert commands.cancel(redis, call_id) == b"ended"
    assert redis.llen(keys.RQ_QUEUE) == 1


def test_a_started_call_is_named_to_its_worker(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = started(redis, settings, key)
    assert commands.cancel(redis, call_id) == b"told"
    assert redis.smembers(keys.cancel(WORKER)) == {call_id.encode()}
    assert 0 < redis.ttl(keys.cancel(WORKER)) <= 60


def test_cancelling_an_ended_call_changes_nothing(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = started(redis, settings, key)
    finish(redis, call_id, Outcome(answer=b"{}"))
    assert commands.cancel(redis, call_id) == b"ended"
    assert job(redis, call_id).get_status() == JobStatus.FINISHED


def test_scripts_are_for_a_redis_that_knows_flags(redis: Redis) -> None:
    for script in scripts.ALL:
        assert script.text.startswith(b"#!lua flags=allow-oom\n")


def test_foreign_ids_in_the_queue_lose_none_of_ours(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    redis.set(keys.job("string"), "not a job")
    redis.hset(keys.job("foreign"), mapping={"status": "queued", "data": "pickle"})
    redis.rpush(keys.RQ_QUEUE, "string", "foreign")
    ours = submit(redis, settings, key)
    odd = submit(redis, settings, key)
    redis.delete(keys.call(odd))
    redis.lpush(keys.call(odd), "not a string")
    taken = claim(redis)
    assert [row[0].decode() for row in taken] == [ours, odd]
    assert taken[1][3] is None
    assert redis.hget(keys.job("foreign"), "status") == b"failed"
