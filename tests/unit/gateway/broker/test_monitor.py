"""gateway/broker/monitor.py: calls made by hand, and what a real Redis says of them."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import gevent
import orjson
import pytest
from redis import Redis
from redis.exceptions import ConnectionError, ReadOnlyError, RedisError

from gateway.account.api_keys import KeyRecord, KeyStore
from gateway.account.records import Record
from gateway.broker import monitor
from gateway.broker.backlog import Backlog
from gateway.broker.inbox import BEGINNING
from gateway.broker.monitor import (
    BEHIND_SECONDS,
    NO_WORKERS_RETRY_SECONDS,
    OVERDUE_SECONDS,
    Monitor,
)
from gateway.broker.pending_call import PendingCall
from gateway.catalogue.target import Target
from gateway.errors import (
    AuthenticationFailed,
    DeadlineExceeded,
    GatewayError,
    JobLost,
    NoWorkers,
    ReplyLost,
    UpstreamFailed,
    WorkerLost,
)
from gateway.queue import clients, commands, event_logs, keys, scripts
from gateway.queue.clients import DedicatedConnection
from gateway.queue.commands import JobState
from gateway.queue.lease import CONNECTION_LOOKS, LeaseState
from gateway.queue.protocol import CHUNKS, CallSpec, Event, Outcome
from gateway.settings import Settings
from tests.support.fakes import Clock, admission
from workers.claims import Claims

WEB, WORKER, OTHER = "web-1", "worker-1", "worker-2"


@dataclass
class FakeLease:
    is_steady: bool = True
    connection: int = 0

    def steady(self) -> bool:
        return self.is_steady


@dataclass
class FakeReader:
    last: bytes = BEGINNING
    caught_up: float = math.inf


@dataclass
class World:
    """One web process without its greenlets: a monitor, its pending calls, and Redis."""

    redis: Redis
    settings: Settings
    key: KeyRecord
    lease: FakeLease = field(default_factory=FakeLease)
    reader: FakeReader = field(default_factory=FakeReader)
    pending_calls: dict[str, PendingCall] = field(default_factory=dict)
    backlog: Backlog = field(default_factory=Backlog)
    stopped: list[PendingCall] = field(default_factory=list)  # calls that workers are to stop

    def monitor(self, redis: Any = None, clock: Any = time.monotonic, **changes: Any) -> Monitor:
        settings = replace(self.settings, **changes)
        lease: Any = self.lease
        reader: Any = self.reader
        return Monitor(
            redis or self.redis,
            WEB,
            lease,
            self.pending_calls,
            reader,
            settings,
            self.backlog,
            clock,
        )

    def pending(self, budget: float = 600) -> PendingCall:
        """One that waits for a call of which Redis knows nothing."""
        pending = PendingCall(uuid.uuid4().hex, budget, self.stopped.append)
        pending.submitted = True
        self.pending_calls[pending.call_id] = pending
        return pending

    def queued(self, retry: bool = False, logged: bool = False) -> PendingCall:
        pending = self.pending()
        pending.retry, pending.logged = retry and not logged, logged
        pending.address = keys.log_address(pending.call_id, 60) if logged else WEB
        target = Target("demo/echo", "demo", "echo")
        spec = CallSpec(pending.call_id, pending.address, False, (target,))
        request = replace(admission(self.key), retry=retry)
        command = commands.submit_command(self.settings, spec, b"{}", request, 600)
        assert scripts.run(self.redis, command)[0] == b"ok"
        return pending

    def started(self, worker: str = WORKER, **how: bool) -> PendingCall:
        """One whose call a worker runs, which only Redis knows."""
        pending = self.queued(**how)
        bell = DedicatedConnection(self.redis)
        (self.claimed,) = Claims(self.redis, bell, worker, lambda: 0.0).take(1, lambda: True)
        assert self.claimed.call_id == pending.call_id
        return pending

    def running(self, worker: str = WORKER, **how: bool) -> PendingCall:
        """One whose call is known to be run by this worker."""
        pending = self.started(worker, **how)
        pending.started(worker, self.claimed.claim)
        return pending

    def finish(self, pending: PendingCall, outcome: Outcome, worker: str = WORKER) -> bool:
        """What the worker writes at the end of a call."""
        claim = commands.states(self.redis, [pending.call_id])[0].claim or self.claimed.claim
        ending = commands.finish_commands(pending.call_id, claim, WEB, worker, outcome)
        return commands.finish(self.redis, ending)

    def lives(self, *workers: str) -> None:
        for worker in workers:
            self.redis.set(keys.lease(worker), 1)
            self.redis.sadd(keys.RQ_WORKERS, f"rq:worker:{worker}")


@pytest.fixture
def world(redis: Redis, settings: Settings) -> Iterator[World]:
    store = KeyStore(redis, settings.key_pepper)
    yield World(redis, settings, store.verify(store.create("tests")))


def error_of(pending: PendingCall) -> type[GatewayError] | None:
    """The kind of error that a call has ended with."""
    if pending.outcome is None or pending.outcome.error is None:
        return None
    return type(pending.outcome.error)


def raising(error: Exception) -> Any:
    def fail(*args: Any) -> Any:
        raise error

    return fail


def parts(world: World, pending: PendingCall, count: int) -> None:
    """The first `count` events of the call that was claimed last."""
    for number in range(1, count + 1):
        pending.offer(Event(pending.call_id, world.claimed.claim, number, CHUNKS, b"{}"))


# who runs a call, and who waits for a nudge


def older(pending: PendingCall) -> PendingCall:
    """The same call, submitted a tick ago."""
    pending.since -= monitor.TICK_SECONDS
    return pending


def test_a_call_that_takes_longer_than_a_tick_is_asked_about(world: World) -> None:
    pending = older(world.started())
    world.monitor().find_workers()
    assert (pending.worker, pending.claim) == (WORKER, world.claimed.claim)


def test_a_call_that_waits_in_the_queue_is_asked_about_again(world: World) -> None:
    pending = older(world.queued())
    watching = world.monitor()
    watching.find_workers()
    assert (pending.worker, pending.outcome) == ("", None)
    Claims(world.redis, DedicatedConnection(world.redis), WORKER, lambda: 0.0).take(1, lambda: True)
    watching.find_workers()
    assert pending.worker == WORKER


def test_redis_is_not_asked_about_quick_calls_and_known_ones(world: World) -> None:
    world.started()
    older(world.running())
    older(world.started()).fail(JobLost())
    away = clients.commands(replace(world.settings, redis_url="unix:///nowhere/redis.sock"), 1)
    world.monitor(redis=away).find_workers()


def test_a_call_that_nobody_knows_is_left_to_the_sweep(world: World) -> None:
    pending = older(world.pending())
    world.monitor().find_workers()
    assert pending.outcome is None


def test_a_silent_stream_is_nudged_when_it_asked_to_be(world: World) -> None:
    due, later = world.pending(), world.pending()
    waits = [gevent.spawn(due.wait_nudged, 0), gevent.spawn(later.wait_nudged, 60)]
    gevent.sleep(0)
    world.monitor().check_deadlines()
    assert waits[0].get(timeout=10) is False
    assert not waits[1].ready()
    waits[1].kill()


# the sweep: what Redis says of the calls


def test_an_outcome_that_no_event_brought_is_found(world: World) -> None:
    pending = world.started()
    assert world.finish(pending, Outcome(answer=b'{"choices":[]}'))
    world.monitor().sweep()
    assert pending.outcome == Outcome(answer=b'{"choices":[]}')


def test_an_error_that_no_event_brought_is_found(world: World) -> None:
    pending = world.started()
    world.finish(pending, Outcome(last=5, error=UpstreamFailed("it broke")))
    world.monitor().sweep()
    assert error_of(pending) is UpstreamFailed
    assert pending.outcome is not None
    assert pending.outcome.error is not None
    assert pending.outcome.error.message == "it broke"


def test_the_outcome_of_a_stream_that_has_all_its_events_is_found(world: World) -> None:
    pending = world.started()
    parts(world, pending, 3)
    world.finish(pending, Outcome(last=3))
    world.monitor().sweep()
    assert pending.outcome == Outcome(last=3)
    assert len(pending.parts()) == 3


def test_calls_that_wait_or_run_are_left_alone(world: World) -> None:
    queued, started = world.started(), world.queued()
    world.lives(WORKER)
    watch = world.monitor()
    for _ in range(3):
        watch.sweep()
        watch.end_lost_calls()
    assert (queued.outcome, started.outcome) == (None, None)


def test_the_sweep_learns_who_runs_a_call(world: World) -> None:
    pending = world.started()
    world.monitor().sweep()
    assert (pending.worker, pending.claim) == (WORKER, world.claimed.claim)


def test_a_call_that_is_not_submitted_yet_is_left_alone(world: World) -> None:
    pending = world.pending()
    pending.submitted = False
    world.monitor().sweep()
    assert pending.outcome is None


def test_more_calls_than_one_round_trip_asks_about_are_swept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "SWEEP_BATCH", 2)
    pending_calls = [world.started() for _ in range(5)]
    for number, pending in enumerate(pending_calls):
        world.finish(pending, Outcome(answer=b"%d" % number))
    world.monitor().sweep()
    answers = [pending.outcome.answer for pending in pending_calls if pending.outcome]
    assert answers == [b"0", b"1", b"2", b"3", b"4"]


def test_events_that_miss_the_outcome_have_until_the_next_sweep_to_come(world: World) -> None:
    pending = world.started()
    parts(world, pending, 1)
    world.finish(pending, Outcome(last=3))
    watch = world.monitor()
    watch.sweep()
    assert pending.outcome is None
    watch.sweep()
    assert error_of(pending) is ReplyLost


def test_events_are_not_missed_while_the_inbox_cannot_be_read(world: World) -> None:
    pending = world.started()
    parts(world, pending, 1)
    world.finish(pending, Outcome(last=3))
    world.reader.caught_up = time.monotonic()  # it has not read on since
    watch = world.monitor()
    for _ in range(3):
        watch.sweep()
    assert pending.outcome is None
    world.reader.caught_up = time.monotonic()
    watch.sweep()
    assert error_of(pending) is ReplyLost


def test_events_that_come_between_two_sweeps_complete_the_answer(world: World) -> None:
    pending = world.started()
    parts(world, pending, 1)
    world.finish(pending, Outcome(last=3))
    watch = world.monitor()
    watch.sweep()
    parts(world, pending, 3)
    watch.sweep()
    assert pending.outcome == Outcome(last=3)
    assert len(pending.parts()) == 3


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"CANARY",
        b"\xff\xfe",
        b"{}\n",
        b'{"v":2}\n',
        b'{"v":2,"last":1}\n',
        b'{"v":1,"error":{"kind":[]}}\n',
        b'{"v":1,"error":7}\n',
    ],
)
def test_an_outcome_that_cannot_be_read_disturbs_no_other(world: World, garbage: bytes) -> None:
    good, bad, late = world.started(), world.started(), world.started()
    for pending in (good, bad, late):
        world.finish(pending, Outcome(answer=b"{}"))
    world.redis.set(keys.outcome(bad.call_id), garbage)
    world.monitor().sweep()
    assert error_of(bad) is ReplyLost
    assert good.outcome == late.outcome == Outcome(answer=b"{}")


@pytest.mark.parametrize("outcome", [Outcome(), Outcome(error=UpstreamFailed())])
@pytest.mark.parametrize("known", [True, False])
def test_a_call_that_ended_and_left_no_outcome_is_a_lost_reply(
    world: World, outcome: Outcome, known: bool
) -> None:
    pending = world.running() if known else world.started()
    world.finish(pending, outcome)
    world.redis.delete(keys.outcome(pending.call_id))
    world.monitor().sweep()
    assert error_of(pending) is ReplyLost


def test_a_call_that_redis_does_not_know_is_lost(world: World) -> None:
    pending = world.queued()
    world.redis.flushall()
    world.monitor().sweep()
    assert error_of(pending) is JobLost
    assert pending.outcome is not None
    assert pending.outcome.error is not None
    assert pending.outcome.error.should_retry is False


def test_a_call_whose_worker_lives_survives_that_redis_was_emptied(world: World) -> None:
    pending = world.started()
    watch = world.monitor()
    watch.sweep()
    world.redis.flushall()
    world.lives(WORKER)
    for _ in range(3):
        watch.sweep()
        watch.end_lost_calls()
    assert pending.outcome is None
    assert world.finish(pending, Outcome(answer=b"{}"))
    watch.sweep()
    assert pending.outcome == Outcome(answer=b"{}")


def test_a_call_that_redis_lost_and_its_worker_does_not_run_ends(world: World) -> None:
    pending, clock = world.running(), Clock()
    world.redis.flushall()
    world.lives(WORKER)
    watch = world.monitor(clock=clock)
    watch.sweep()
    asked = {(pending.call_id + commands.UNKNOWN).encode()}
    assert world.redis.smembers(keys.cancel(WORKER)) == asked
    clock.now += 4
    watch.sweep()
    assert pending.outcome is None  # its worker has its time
    clock.now += 2
    watch.sweep()
    assert error_of(pending) is JobLost


def test_a_call_that_redis_lost_goes_on_once_its_worker_has_announced_it(world: World) -> None:
    pending, clock = world.running(), Clock()
    world.redis.flushall()
    world.lives(WORKER)
    watch = world.monitor(clock=clock)
    watch.sweep()
    command = commands.announce_command(pending.call_id, pending.claim, WORKER, WEB, 60)
    for _ in range(2):  # the second finds the job and leaves it
        scripts.run(world.redis, command)
    clock.now += 60
    watch.sweep()
    assert pending.outcome is None
    assert world.finish(pending, Outcome(answer=b"{}"))
    watch.sweep()
    assert pending.outcome == Outcome(answer=b"{}")


def test_a_call_whose_worker_died_after_redis_was_emptied_ends(world: World) -> None:
    pending = world.running()
    world.redis.flushall()
    watch = world.monitor()
    watch.sweep()
    watch.end_lost_calls()
    assert pending.outcome is None
    watch.end_lost_calls()
    assert error_of(pending) is WorkerLost


def test_a_call_that_was_dropped_from_the_queue_may_be_sent_again(world: World) -> None:
    pending = world.queued()
    world.redis.delete(keys.lease(WEB))
    assert (
        Claims(
            world.redis, DedicatedConnection(world.redis), WORKER, lambda: time.time() + 60
        ).take(1, lambda: True)
        == []
    )
    world.monitor().sweep()
    assert error_of(pending) is JobLost
    assert pending.outcome is not None
    assert pending.outcome.error is not None
    assert pending.outcome.error.should_retry is True


def test_a_stream_whose_events_still_come_is_not_given_up(world: World) -> None:
    pending = world.started()
    world.finish(pending, Outcome(last=5))
    watch = world.monitor()
    for number in range(1, 6):
        watch.sweep()
        assert pending.outcome is None
        parts(world, pending, number)
    watch.sweep()
    assert pending.outcome == Outcome(last=5)


def test_a_call_that_a_second_claim_runs_ends_with_a_lost_reply(world: World) -> None:
    pending = world.running()
    world.redis.hset(keys.job(pending.call_id), "claim", "another")
    world.monitor().sweep()
    assert error_of(pending) is ReplyLost


# workers that are lost


def test_a_call_of_a_lost_worker_ends_and_a_late_result_is_fenced_off(world: World) -> None:
    pending = world.started()
    watch = world.monitor()
    watch.sweep()
    watch.end_lost_calls()
    assert pending.outcome is None, "one absence is none"
    watch.end_lost_calls()
    assert error_of(pending) is WorkerLost
    world.redis.unlink(keys.outcome(pending.call_id))  # delivered
    assert not world.finish(pending, Outcome(answer=b"late"))


def test_a_lost_call_is_settled_with_what_the_web_process_has_passed_on(world: World) -> None:
    pending, watch = world.running(), world.monitor()
    prices = {"prompt_tokens": 9, "prompt_nano": 90, "output_nano_per_token": 10.0}
    pending.estimate = prices
    text = b"x" * 400
    chunk = b'{"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}' % text
    pending.offer(Event(pending.call_id, pending.claim, 1, CHUNKS, chunk + b"\n" + chunk))
    for _ in range(2):
        watch.end_lost_calls()
    ((_, fields),) = world.redis.xrange(keys.RECORDS)
    record = Record.decode(fields[b"r"])
    assert (record.status, record.error_code) == ("lost", "worker_lost")
    assert record.usage_source == "estimated"
    assert record.usage["input"] == 9
    assert 190 <= record.usage["output"] <= 210, "400 characters are about 100 tokens"
    assert record.cost_nano == 90 + 10 * record.usage["output"]


def test_a_lost_call_costs_its_prompt_where_only_a_follower_waits_for_it(world: World) -> None:
    pending, watch = world.running(logged=True), world.monitor()
    name = keys.job(pending.call_id)
    stub = orjson.loads(world.redis.hget(name, "stub") or b"")  # type: ignore[arg-type]
    world.redis.hset(name, "stub", orjson.dumps(stub | {"prompt_tokens": 9, "prompt_nano": 90}))
    assert not pending.estimate, "it was submitted by another request"
    for _ in range(2):
        watch.end_lost_calls()
    ((_, fields),) = world.redis.xrange(keys.RECORDS)
    record = Record.decode(fields[b"r"])
    assert (record.status, record.usage["input"], record.cost_nano) == ("lost", 9, 90)


def test_a_call_that_waits_for_room_of_its_key_is_no_lost_call(world: World) -> None:
    world.redis.hset(keys.key(world.key.public_id), "max_in_flight", 1)
    world.lives(WORKER)
    world.started()
    pending, watch = world.queued(), world.monitor()
    pending.since -= 60
    for _ in range(2):
        watch.find_workers()
        watch.sweep()
    assert commands.states(world.redis, [pending.call_id])[0].status == "deferred"
    assert pending.outcome is None


def test_only_calls_of_the_lost_worker_end(world: World) -> None:
    world.lives(OTHER)
    lost, kept, queued = world.running(), world.running(OTHER), world.queued()
    watch = world.monitor()
    watch.end_lost_calls()
    watch.end_lost_calls()
    assert error_of(lost) is WorkerLost
    assert (kept.outcome, queued.outcome) == (None, None)
    assert world.finish(kept, Outcome(), OTHER)


def test_a_lost_worker_costs_no_part_that_came(world: World) -> None:
    pending = world.running()
    parts(world, pending, 2)
    watch = world.monitor()
    watch.end_lost_calls()
    watch.end_lost_calls()
    assert pending.outcome is not None
    assert pending.outcome.last == 2
    assert len(pending.parts()) == 2


@pytest.mark.parametrize("logged", [False, True])
def test_a_call_that_may_runs_once_more_when_its_worker_is_lost(world: World, logged: bool) -> None:
    pending, watch = world.running(retry=True, logged=logged), world.monitor()
    for _ in range(3):
        watch.end_lost_calls()
    assert (pending.outcome, pending.worker, pending.claim) == (None, "", "")
    assert commands.states(world.redis, [pending.call_id])[0].status == "queued"
    world.lives(OTHER)
    bell = DedicatedConnection(world.redis)
    (world.claimed,) = Claims(world.redis, bell, OTHER, lambda: 0.0).take(1, lambda: True)
    watch.sweep()
    assert (pending.worker, pending.claim) == (OTHER, world.claimed.claim)
    parts(world, pending, 1)
    assert pending.received == 1


def test_a_call_whose_second_worker_is_lost_too_ends(world: World) -> None:
    pending, watch = world.running(retry=True), world.monitor()
    for _ in range(2):
        watch.end_lost_calls()
    bell = DedicatedConnection(world.redis)
    Claims(world.redis, bell, OTHER, lambda: 0.0).take(1, lambda: True)
    watch.sweep()
    for _ in range(2):
        watch.end_lost_calls()
    assert error_of(pending) is WorkerLost


def test_a_call_of_which_something_has_come_does_not_run_again(world: World) -> None:
    pending, watch = world.running(retry=True), world.monitor()
    parts(world, pending, 1)
    for _ in range(2):
        watch.end_lost_calls()
    assert error_of(pending) is WorkerLost


def test_no_call_runs_again_while_its_response_may_lie_in_the_inbox(world: World) -> None:
    pending, watch = world.running(retry=True), world.monitor()
    world.reader.caught_up = time.monotonic() - BEHIND_SECONDS
    for _ in range(3):
        watch.end_lost_calls()
    assert pending.outcome is None
    assert commands.states(world.redis, [pending.call_id])[0].status == "started"
    world.reader.caught_up = math.inf
    watch.end_lost_calls()
    assert commands.states(world.redis, [pending.call_id])[0].status == "queued"


def test_who_follows_the_same_log_elsewhere_learns_of_the_second_run(world: World) -> None:
    pending = world.running(retry=True, logged=True)
    claim = pending.claim
    assert commands.retry(world.redis, pending.call_id, claim, pending.address)  # another process
    watch = world.monitor()
    for _ in range(2):
        watch.end_lost_calls()
    assert (pending.outcome, pending.lost_claim) == (None, claim)


def test_a_call_that_waits_to_run_again_has_the_time_of_a_new_one_for_a_worker(
    world: World,
) -> None:
    pending, watch = world.running(retry=True), world.monitor(no_workers_after=20)
    pending.since -= 60
    for _ in range(2):
        watch.end_lost_calls()
    watch.sweep()
    assert pending.outcome is None
    pending.since -= 60
    watch.sweep()
    assert error_of(pending) is NoWorkers


def test_the_log_of_a_call_that_no_worker_runs_again_says_that_nobody_should_repeat_it(
    world: World,
) -> None:
    pending = world.running(retry=True, logged=True)
    watch = world.monitor(no_workers_after=20)
    for _ in range(2):
        watch.end_lost_calls()
    pending.since -= 60
    watch.sweep()
    ended = event_logs.logged_outcome(world.redis, pending.call_id)
    assert ended is not None and ended[0].error is not None
    assert (type(ended[0].error), ended[0].error.should_retry) == (NoWorkers, False)


@pytest.mark.parametrize("failure", [ReadOnlyError, ConnectionError])
def test_a_redis_that_is_read_only_ends_a_lost_call_and_one_that_is_away_is_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch, failure: type[RedisError]
) -> None:
    pending, watch = world.running(retry=True), world.monitor()
    watch.end_lost_calls()
    with monkeypatch.context() as patch:
        patch.setattr(commands, "retry", raising(failure()))
        watch.end_lost_calls()
    assert error_of(pending) is (WorkerLost if failure is ReadOnlyError else None)
    watch.end_lost_calls()
    status = commands.states(world.redis, [pending.call_id])[0].status
    assert status == ("failed" if failure is ReadOnlyError else "queued")


def test_a_worker_that_is_back_in_between_is_not_lost(world: World) -> None:
    pending = world.running()
    watch = world.monitor()
    for _ in range(3):
        watch.end_lost_calls()
        world.lives(WORKER)
        watch.end_lost_calls()
        world.redis.delete(keys.lease(WORKER))
    assert pending.outcome is None


def test_nobody_is_lost_while_this_process_itself_was_cut_off(world: World) -> None:
    pending = world.running()
    world.lease.is_steady = False
    watch = world.monitor()
    for _ in range(5):
        watch.end_lost_calls()
    assert pending.outcome is None
    assert commands.states(world.redis, [pending.call_id])[0].status == "started"


def test_a_worker_that_finished_before_it_died_has_answered(world: World) -> None:
    pending = world.running()
    world.finish(pending, Outcome(answer=b"{}"))
    watch = world.monitor()
    watch.end_lost_calls()
    watch.end_lost_calls()
    assert pending.outcome is None
    watch.sweep()
    assert pending.outcome == Outcome(answer=b"{}")


def test_a_loss_ends_every_call_though_redis_takes_no_record_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def read_only(redis: Redis, command: Any) -> bool:
        raise ReadOnlyError

    pending_calls = [world.running(), world.running()]
    watch = world.monitor()
    watch.end_lost_calls()
    monkeypatch.setattr(commands, "finish", read_only)
    watch.end_lost_calls()
    assert [error_of(pending) for pending in pending_calls] == [WorkerLost, WorkerLost]
    assert "ReadOnlyError" in caplog.text


# keys that are revoked


def test_the_calls_of_a_revoked_key_end_and_their_workers_stop_them(world: World) -> None:
    revoked, kept, queued = world.running(), world.running(), world.queued()
    store = KeyStore(world.redis, world.settings.key_pepper)
    other = store.verify(store.create("other"))
    for pending in (revoked, queued):
        pending.key = world.key.public_id
    kept.key = other.public_id
    watch = world.monitor()
    watch.end_calls_of_revoked_keys()
    assert revoked.outcome is None
    store.revoke(world.key.public_id)
    watch.end_calls_of_revoked_keys()
    assert [error_of(pending) for pending in (revoked, queued, kept)] == [
        AuthenticationFailed,
        AuthenticationFailed,
        None,
    ]
    assert world.stopped == [revoked, queued]


def test_a_redis_that_lost_its_keys_revokes_none(world: World) -> None:
    pending = world.running()
    pending.key = world.key.public_id
    world.redis.flushall()
    world.monitor().end_calls_of_revoked_keys()
    assert pending.outcome is None


# nobody to take a call


def wait_longer(pending: PendingCall, seconds: float) -> None:
    pending.since -= seconds


def test_a_call_that_nobody_can_take_ends_after_the_limit(world: World) -> None:
    pending = world.queued()
    watch = world.monitor(no_workers_after=30)
    wait_longer(pending, 29)
    watch.sweep()
    assert pending.outcome is None
    wait_longer(pending, 2)
    watch.sweep()
    assert error_of(pending) is NoWorkers
    assert pending.outcome is not None
    assert pending.outcome.error is not None
    assert pending.outcome.error.retry_after == NO_WORKERS_RETRY_SECONDS
    assert world.redis.llen(keys.RQ_QUEUE) == 0


def test_those_whom_nobody_took_come_back_when_the_queue_would_have_been_worked_off(
    world: World,
) -> None:
    pending_calls = [world.queued() for _ in range(10)]
    world.backlog.slots = 2  # of the workers that were there
    world.backlog.ended(Outcome(timings={"work": 3_000}))
    for pending in pending_calls:
        wait_longer(pending, 31)
    world.monitor(no_workers_after=30).sweep()
    told = {
        pending.outcome and pending.outcome.error and pending.outcome.error.retry_after
        for pending in pending_calls
    }
    assert told == {15.0}


def test_calls_that_have_to_wait_make_the_monitor_look_at_the_backlog(world: World) -> None:
    monitor = world.monitor()
    world.running()
    monitor.sweep()
    assert not world.backlog.wanted
    world.queued()
    monitor.sweep()
    assert world.backlog.wanted


def test_nobody_says_that_no_worker_lives_while_its_own_lease_is_not_steady(world: World) -> None:
    pending = world.queued()
    wait_longer(pending, 31)
    world.lease.is_steady = False
    watch = world.monitor(no_workers_after=30)
    watch.sweep()
    assert pending.outcome is None
    world.lease.is_steady = True
    watch.sweep()
    assert error_of(pending) is NoWorkers


def test_a_worker_whose_connection_was_closed_takes_no_queued_call(world: World) -> None:
    pending = world.queued()
    wait_longer(pending, 31)
    world.redis.sadd(keys.RQ_WORKERS, "rq:worker:killed")
    world.redis.set(keys.lease("killed"), LeaseState(10, 999_999_999).encode())
    world.lease.connection = world.redis.client_id()
    watch = world.monitor(no_workers_after=30)
    for _ in range(CONNECTION_LOOKS + 1):
        watch.find_workers()
        watch.end_lost_calls()
    assert pending.outcome is None
    watch.find_workers()
    assert error_of(pending) is NoWorkers


def test_a_call_waits_on_while_any_worker_lives(world: World) -> None:
    pending = world.queued()
    wait_longer(pending, 500)
    world.lives(WORKER)
    world.redis.sadd(keys.RQ_WORKERS, "rq:worker:dead")
    world.monitor(no_workers_after=30).sweep()
    assert pending.outcome is None
    assert world.redis.llen(keys.RQ_QUEUE) == 1


def test_a_registered_worker_without_a_lease_takes_nothing(world: World) -> None:
    pending = world.queued()
    wait_longer(pending, 31)
    world.redis.sadd(keys.RQ_WORKERS, "rq:worker:dead")
    world.monitor(no_workers_after=30).sweep()
    assert error_of(pending) is NoWorkers


def test_a_call_that_was_taken_in_the_last_moment_runs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending = world.queued()
    wait_longer(pending, 31)

    def take(redis: Redis) -> dict[str, object]:
        Claims(redis, DedicatedConnection(redis), WORKER, lambda: 0.0).take(1, lambda: True)
        return {}

    monkeypatch.setattr(monitor, "live_workers", take)
    world.monitor(no_workers_after=30).sweep()
    assert pending.outcome is None


# calls past their deadline


def eventually(condition: Any) -> None:
    with gevent.Timeout(10):
        while not condition():
            gevent.sleep(0.01)


def test_an_overdue_call_ends_and_its_worker_is_told(world: World) -> None:
    pending, other = world.running(), world.running()
    pending.deadline = time.monotonic() - 0.1
    clock = Clock()
    watch = world.monitor(clock=clock)
    watch.check_deadlines()
    clock.now += OVERDUE_SECONDS
    watch.check_deadlines()
    assert pending.outcome is None, "the worker has the first word"
    clock.now += 0.1
    watch.check_deadlines()
    assert error_of(pending) is DeadlineExceeded
    told = keys.cancel(WORKER)
    eventually(lambda: world.redis.smembers(told) == {pending.call_id.encode()})
    assert other.outcome is None


def test_a_process_that_stood_still_looks_again_before_it_ends_an_overdue_call(
    world: World,
) -> None:
    pending = world.running()
    pending.deadline = time.monotonic() - 100  # it stood still for so long
    world.monitor(clock=Clock()).check_deadlines()
    assert pending.outcome is None, "its answer may lie in the socket"


def test_an_overdue_call_that_has_its_answer_keeps_it(world: World) -> None:
    pending = world.running()
    pending.end(Outcome(answer=b"{}"))
    pending.deadline = time.monotonic() - 100
    world.monitor().check_deadlines()
    assert pending.outcome == Outcome(answer=b"{}")


# tidying


def test_what_was_read_and_delivered_is_removed(world: World) -> None:
    inbox, redis = keys.inbox(WEB), world.redis
    ids = [redis.xadd(inbox, {"e": b"x"}) for _ in range(5)]
    redis.set(keys.outcome("delivered"), b"x")
    redis.set(keys.outcome("waiting"), b"x")
    world.reader.last = ids[2]
    watch = world.monitor()
    watch.delivered += ["delivered", "unknown"]
    watch.tidy()
    assert [entry_id for entry_id, _ in redis.xrange(inbox)] == ids[3:]
    assert 0 < redis.ttl(inbox) <= keys.INBOX_SECONDS
    assert not redis.exists(keys.outcome("delivered"))
    assert redis.exists(keys.outcome("waiting"))
    assert watch.delivered == []


def test_nothing_is_trimmed_before_anything_was_read(world: World) -> None:
    inbox = keys.inbox(WEB)
    world.redis.xadd(inbox, {"e": b"x"})
    world.monitor().tidy()
    assert world.redis.xlen(inbox) == 1


def test_where_there_is_nothing_to_tidy_redis_is_not_asked(world: World) -> None:
    away = clients.commands(replace(world.settings, redis_url="unix:///nowhere/redis.sock"), 1)
    world.monitor(away).tidy()


def test_what_could_not_be_removed_is_removed_later(world: World) -> None:
    world.redis.set(keys.outcome("delivered"), b"x")
    away = clients.commands(replace(world.settings, redis_url="unix:///nowhere/redis.sock"), 1)
    redis = SimpleNamespace(pipeline=away.pipeline)
    watch = world.monitor(redis)
    watch.delivered.append("delivered")
    with pytest.raises(ConnectionError):
        watch.tidy()
    assert watch.delivered == ["delivered"]
    redis.pipeline = world.redis.pipeline
    watch.tidy()
    assert not world.redis.exists(keys.outcome("delivered"))


# the loop


class Enough(BaseException):
    """Ends the loop, which lets no Exception end it."""


def run_for(watch: Monitor, ticks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    def sleep(seconds: float) -> None:
        nonlocal count
        count += 1
        if count > ticks:
            raise Enough

    with monkeypatch.context() as patch, pytest.raises(Enough):
        patch.setattr(monitor.gevent, "sleep", sleep)
        watch.run()


def test_the_loop_finds_what_was_lost_within_four_seconds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, lost = world.started(), world.running()
    world.finish(found, Outcome(answer=b"{}"))
    ticks = int(2 / monitor.TICK_SECONDS)
    run_for(world.monitor(), ticks, monkeypatch)
    assert found.outcome == Outcome(answer=b"{}")
    assert error_of(lost) is WorkerLost


@pytest.mark.parametrize("fault", [ConnectionError(), ValueError("unforeseen")])
def test_the_loop_outlives_every_failure(
    world: World, fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending = world.started()
    world.finish(pending, Outcome(answer=b"{}"))
    faults = iter([fault] * 2)
    states = commands.states

    def troubled(redis: Redis, call_ids: Any) -> list[JobState]:
        for each in faults:
            raise each
        return states(redis, call_ids)

    monkeypatch.setattr(commands, "states", troubled)
    run_for(world.monitor(), 12, monkeypatch)
    assert pending.outcome == Outcome(answer=b"{}")


def test_deadlines_hold_while_redis_is_away(world: World) -> None:
    pending = world.running()
    pending.deadline = time.monotonic() - 0.1
    clock = Clock()
    pending.overdue_since = clock.now - OVERDUE_SECONDS - 0.1
    away = clients.commands(replace(world.settings, redis_url="unix:///nowhere/redis.sock"), 1)
    watching = gevent.spawn(world.monitor(away, clock).watch_deadlines)
    assert pending.wait(10)
    watching.kill()
    assert error_of(pending) is DeadlineExceeded


def test_workers_are_missed_when_none_was_seen_for_a_while(world: World) -> None:
    watch = world.monitor(no_workers_after=30)
    assert not watch.no_workers
    patient = world.monitor(no_workers_after=-1)  # any moment is too long
    assert patient.no_workers
    patient.look_for_workers()
    assert patient.no_workers


def test_a_worker_that_is_seen_is_not_missed(world: World) -> None:
    watch = world.monitor(no_workers_after=30)
    world.lives(WORKER)
    watch.look_for_workers()
    assert not watch.no_workers


def test_a_redis_that_is_away_says_nothing_about_workers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=1_000.0)
    watch = world.monitor(clock=lambda: clock.now, no_workers_after=30)

    def away(redis: Redis) -> int:
        raise RedisError

    monkeypatch.setattr(monitor, "live_workers", away)
    clock.now += 31
    assert watch.no_workers
    with pytest.raises(RedisError):
        watch.look_for_workers()
    assert not watch.no_workers
