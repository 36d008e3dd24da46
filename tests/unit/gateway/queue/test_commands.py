"""gateway/queue/commands.py: what the web side asks Redis, and what it makes of the replies.

What the scripts do is in test_lua_scripts.py.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis
from redis.exceptions import ConnectionError, OutOfMemoryError, ReadOnlyError, ResponseError
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import utcparse

from gateway.account.api_keys import KeyRecord, KeyStore
from gateway.broker import submitter
from gateway.catalogue.target import Target
from gateway.errors import (
    AuthenticationFailed,
    CallCancelled,
    GatewayError,
    KeyChanged,
    Overloaded,
    PayloadTooLarge,
    QueueUnavailable,
    ReplyLost,
    UpstreamFailed,
)
from gateway.queue import clients, commands, keys, scripts
from gateway.queue.clients import DedicatedConnection
from gateway.queue.commands import JobState
from gateway.queue.protocol import OUTCOME, CallSpec, Event, Outcome, outcome_event
from gateway.settings import Settings
from tests.support.fakes import admission
from workers import tasks
from workers.claims import Claims

WEB, WORKER = "web-1", "worker-1"
KEY_ID = "0123456789ab"
KEY = KeyRecord(KEY_ID, "tests", "hmac")


@pytest.fixture
def key(redis: Redis, settings: Settings) -> KeyRecord:
    store = KeyStore(redis, settings.key_pepper)
    return store.verify(store.create("tests"))


def spec() -> CallSpec:
    return CallSpec(uuid.uuid4().hex, WEB, False, (Target("demo/echo", "demo", "echo"),))


def submit(redis: Redis, settings: Settings, key: KeyRecord, log: str = "") -> str:
    the_spec = spec()
    if log:
        the_spec = replace(the_spec, call_id=log.rpartition(":")[2], web=log)
    command = commands.submit_command(settings, the_spec, b"{}", admission(key), 600)
    refusal = submitter.refusal(scripts.run(redis, command), key.public_id, float)
    if refusal is not None:
        raise refusal
    return the_spec.call_id


def start(redis: Redis) -> str:
    """A worker takes one call; its claim."""
    (claimed,) = Claims(redis, DedicatedConnection(redis), WORKER, lambda: 0.0).take(
        1, lambda: True
    )
    return claimed.claim


# submit


def test_what_was_queued_is_no_refusal() -> None:
    assert submitter.refusal([b"ok", b"{}"], KEY_ID, float) is None


@pytest.mark.parametrize(
    ("reply", "kind", "retry"),
    [
        ([b"disabled"], AuthenticationFailed, False),
        ([b"key"], KeyChanged, True),
        ([b"cancelled"], CallCancelled, False),
        ([b"calls", 7], Overloaded, True),
        ([b"bytes", 7], Overloaded, True),
        ([b"memory", 7], Overloaded, True),
        ([b"large", 7], PayloadTooLarge, False),
        ([b"late"], QueueUnavailable, True),
        (ReadOnlyError("CANARY"), QueueUnavailable, True),
        (OutOfMemoryError("CANARY"), QueueUnavailable, True),
        (ResponseError("CANARY"), QueueUnavailable, True),
    ],
)
def test_every_refusal_is_an_error_that_says_when_to_come_back(
    reply: object, kind: type[GatewayError], retry: bool, caplog: pytest.LogCaptureFixture
) -> None:
    error = submitter.refusal(reply, KEY_ID, float)
    assert type(error) is kind
    assert (error.retry_after is not None) is retry
    assert ("submit: refused" in caplog.text) is isinstance(reply, Exception)
    assert "CANARY" not in error.message + caplog.text


def test_every_refusal_of_the_script_is_known(caplog: pytest.LogCaptureFixture) -> None:
    text = scripts.SUBMIT.text.decode().partition("-- Returns")[2].partition(". 'limit' is")[0]
    told = text.replace("key's", "").split("'")[1::2]
    assert len(told) == 13
    for word in told:
        details = [b'{"reset_ms":1}'] if word == "limit" else [7]
        submitter.refusal([word.encode(), *details], KEY_ID, float)
    assert caplog.records == []


def test_a_refused_key_is_named_by_its_beginning_only() -> None:
    error = submitter.refusal([b"expired"], KEY_ID, float)
    assert error is not None
    assert "mk_inference_0123***" in error.message
    assert KEY_ID not in error.message
    assert KEY.hmac not in error.message


@pytest.mark.parametrize(("seconds", "reply"), [(-1, b"late"), (60, b"ok")])
def test_a_call_is_queued_while_somebody_waits_for_it(
    redis: Redis, settings: Settings, key: KeyRecord, seconds: float, reply: bytes
) -> None:
    expiry = redis.time()[0] + seconds
    command = commands.submit_command(settings, spec(), b"{}", admission(key), 600, expiry)
    assert scripts.run(redis, command)[0] == reply
    assert redis.llen(keys.RQ_QUEUE) == (reply == b"ok")


def test_a_life_of_fractions_of_a_second_is_a_life(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    the_spec = spec()
    command = commands.submit_command(settings, the_spec, b"{}", admission(key), 0.5004)
    assert scripts.run(redis, command)[0] == b"ok"
    left = redis.pttl(keys.call(the_spec.call_id))
    assert 59_000 < left <= 60_500
    assert redis.hget(keys.job(the_spec.call_id), "timeout") == b"1"


@pytest.mark.parametrize("kind", ["chat", "embeddings"])
def test_a_job_tells_its_kind(redis: Redis, settings: Settings, key: KeyRecord, kind: str) -> None:
    the_spec = replace(spec(), kind=kind)
    command = commands.submit_command(settings, the_spec, b"{}", admission(key), 600)
    assert scripts.run(redis, command)[0] == b"ok"
    job = Job.fetch(the_spec.call_id, connection=redis, serializer=JSONSerializer)
    assert job.description == kind


def test_the_name_of_the_task_is_that_of_a_function() -> None:
    module, _, name = commands.TASK.decode().rpartition(".")
    assert module == tasks.__name__
    assert callable(getattr(tasks, name))


def test_the_present_is_told_in_rqs_format() -> None:
    told = utcparse(commands.now_text())
    assert abs(datetime.now(UTC) - told.replace(tzinfo=UTC)) < timedelta(seconds=5)


# cancel


def test_cancelling_raises_what_redis_raises(settings: Settings) -> None:
    away = clients.commands(replace(settings, redis_url="unix:///nowhere/redis.sock"), 1)
    with pytest.raises(ConnectionError):
        commands.cancel(away, "a" * 32)


def test_cancelling_says_how_far_the_call_had_come(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = submit(redis, settings, key)
    claim = start(redis)
    assert commands.cancel(redis, call_id) == b"told"
    ending = commands.finish_commands(call_id, claim, WEB, WORKER, Outcome())
    assert commands.finish(redis, ending)
    assert commands.cancel(redis, call_id) == b"ended"
    assert commands.cancel(redis, submit(redis, settings, key)) == b"removed"
    assert commands.cancel(redis, "b" * 32) == b"marked"


# states and outcomes


def test_states_are_those_of_the_calls_asked_about_in_their_order(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    started = submit(redis, settings, key)
    claim = start(redis)
    queued = submit(redis, settings, key)
    assert commands.states(redis, [queued, "unknown", started]) == [
        JobState("queued"),
        JobState(),
        JobState("started", WORKER, claim),
    ]


def test_outcomes_are_those_of_the_calls_asked_about_in_their_order(redis: Redis) -> None:
    redis.set(keys.outcome("first"), Outcome(last=1, answer=b"one\ntwo").encode())
    redis.set(keys.outcome("bad"), b"\xff")
    redis.set(keys.outcome("last"), Outcome(error=UpstreamFailed("broken")).encode())
    first, nothing, bad, last = commands.outcomes(redis, ["first", "none", "bad", "last"])
    assert first == Outcome(last=1, answer=b"one\ntwo")
    assert nothing is None
    assert bad is not None
    assert isinstance(bad.error, ReplyLost)
    assert last is not None
    assert isinstance(last.error, UpstreamFailed)


def test_an_outcome_is_delivered_once_redis_has_been_told_so(redis: Redis) -> None:
    redis.hset(keys.job("running"), "status", "started")
    redis.hset(keys.job("written"), "status", "finished")
    redis.set(keys.outcome("written"), b"outcome")
    redis.hset(keys.job("taken"), "status", "finished")
    names = ["running", "written", "taken", "forgotten"]
    assert commands.delivered(redis, names) == [False, False, True, True]


def test_the_depth_is_that_of_the_queue(redis: Redis, settings: Settings, key: KeyRecord) -> None:
    assert commands.depth(redis) == 0
    submit(redis, settings, key)
    assert commands.depth(redis) == 1


# commands


def test_events_are_put_into_the_inbox_of_their_web_process(redis: Redis) -> None:
    scripts.run(redis, commands.emit_command("web-2", [b"one", b"two"]))
    entries = redis.xrange(keys.inbox("web-2"))
    assert [fields[b"e"] for _, fields in entries] == [b"one", b"two"]


@pytest.mark.parametrize(
    ("outcome", "registry", "status"),
    [
        (Outcome(last=2, answer=b"{}"), keys.RQ_FINISHED, "finished"),
        (Outcome(last=2, error=UpstreamFailed()), keys.RQ_FAILED, "failed"),
    ],
)
def test_the_end_of_a_call_is_its_next_event_and_its_record(
    redis: Redis,
    settings: Settings,
    key: KeyRecord,
    outcome: Outcome,
    registry: str,
    status: str,
) -> None:
    call_id = submit(redis, settings, key)
    claim = start(redis)
    ending = commands.finish_commands(call_id, claim, WEB, WORKER, outcome)
    assert commands.finish(redis, ending)
    *_, (_, fields) = redis.xrange(keys.inbox(WEB))
    event = Event.decode(fields[b"e"])
    assert (event.call_id, event.claim, event.number, event.kind) == (call_id, claim, 3, OUTCOME)
    assert event.payload == outcome.encode()
    assert redis.get(keys.outcome(call_id)) == outcome.encode()
    assert commands.states(redis, [call_id])[0].status == status
    assert redis.zrange(registry, 0, -1) == [call_id.encode()]
    assert not commands.finish(redis, ending)


def test_redis_holds_a_large_outcome_once(redis: Redis, settings: Settings, key: KeyRecord) -> None:
    call_id = submit(redis, settings, key)
    claim = start(redis)
    ending = commands.finish_commands(call_id, claim, WEB, WORKER, LARGE)
    assert commands.finish(redis, ending)
    [(_, fields)] = redis.xrange(keys.inbox(WEB))
    assert fields == {b"e": outcome_event(call_id).encode()}
    assert commands.outcomes(redis, [call_id]) == [LARGE]
    assert 0 < redis.ttl(keys.outcome(call_id)) <= keys.OUTCOME_SECONDS
    assert not redis.exists(keys.partial_outcome(call_id, claim))


LARGE = Outcome(answer=bytes(range(256)) * (5 * commands.PIECE_BYTES // 512))  # three pieces


def test_no_command_of_a_large_outcome_is_longer_than_a_piece(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = submit(redis, settings, key)
    for command in commands.finish_commands(call_id, start(redis), WEB, WORKER, LARGE):
        assert max(len(each) for each in command if isinstance(each, bytes)) <= commands.PIECE_BYTES
        assert commands.outcomes(redis, [call_id]) == [None], "none before the last"
        commands.finish(redis, [command])
    assert commands.outcomes(redis, [call_id]) == [LARGE]


def test_each_command_of_a_large_outcome_may_be_sent_twice(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = submit(redis, settings, key)
    ending = commands.finish_commands(call_id, start(redis), WEB, WORKER, LARGE)
    for command in ending:
        commands.finish(redis, [command])
        commands.finish(redis, [command])
    assert commands.outcomes(redis, [call_id]) == [LARGE]
    assert redis.xlen(keys.inbox(WEB)) == 1


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_large_outcome_of_which_redis_has_lost_a_piece_is_an_error(
    redis: Redis, settings: Settings, key: KeyRecord, missing: int
) -> None:
    call_id = submit(redis, settings, key)
    claim = start(redis)
    ending = commands.finish_commands(call_id, claim, WEB, WORKER, LARGE)
    del ending[missing]
    assert commands.finish(redis, ending)
    [outcome] = commands.outcomes(redis, [call_id])
    assert outcome is not None
    assert isinstance(outcome.error, ReplyLost)
    assert outcome.answer == b""


def test_a_large_outcome_that_does_not_stand_leaves_nothing(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = submit(redis, settings, key)
    claim = start(redis)
    assert commands.finish(
        redis, commands.finish_commands(call_id, claim, WEB, WORKER, Outcome(answer=b"{}"))
    )
    assert not commands.finish(redis, commands.finish_commands(call_id, claim, WEB, WORKER, LARGE))
    assert commands.outcomes(redis, [call_id]) == [Outcome(answer=b"{}")]
    assert not redis.exists(keys.partial_outcome(call_id, claim))


def test_redis_keeps_no_part_of_an_outcome_whose_worker_is_killed(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = submit(redis, settings, key)
    claim = start(redis)
    piece, *_ = commands.finish_commands(call_id, claim, WEB, WORKER, LARGE)
    commands.finish(redis, [piece])
    assert 0 < redis.ttl(keys.partial_outcome(call_id, claim)) <= keys.OUTCOME_SECONDS


def test_a_log_holds_its_outcome_whatever_its_size(
    redis: Redis, settings: Settings, key: KeyRecord
) -> None:
    call_id = submit(redis, settings, key)
    outcome = Outcome(answer=b"x" * commands.EVENT_BYTES)
    address = keys.log_address(call_id, 60)
    ending = commands.finish_commands(call_id, start(redis), address, WORKER, outcome)
    assert commands.finish(redis, ending)
    [(_, fields)] = redis.xrange(keys.log(call_id))
    assert Event.decode(fields[b"e"]).payload == outcome.encode()


def test_limits_are_those_of_the_settings(redis: Redis, settings: Settings, key: KeyRecord) -> None:
    submit(redis, settings, key)
    with pytest.raises(Overloaded):
        submit(redis, replace(settings, queue_limit=1), key)
    with pytest.raises(Overloaded):
        submit(redis, replace(settings, queue_bytes=10), key)
    submit(redis, settings, key)
