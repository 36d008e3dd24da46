"""The worker's own rules, without its loop: registration, cancels, deadlines, repeated claims."""

from __future__ import annotations

import dataclasses
import inspect
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gevent
import pytest
from redis import Redis
from redis.exceptions import ConnectionError
from rq.version import VERSION
from rq.worker import BaseWorker
from rq.worker import Worker as RqWorker
from rq.worker_registration import clean_worker_registry

from gateway.account.records import Record
from gateway.catalogue.target import Target
from gateway.errors import CallCancelled, StopCall, UpstreamFailed, WorkerStopped
from gateway.queue import clients, commands, keys, owner, steering
from gateway.queue.protocol import CallSpec, Outcome
from gateway.settings import Settings
from tests.support.admission import KEY, Calls
from workers import large_bodies
from workers import worker as module
from workers.bill import Bill
from workers.claims import Claimed
from workers.outbox import Sender
from workers.worker import CANCEL_LOOKS, CallWorker, Running


class FakeRunner:
    """Answers every call, or runs until it is stopped."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.bodies: list[bytes] = []
        self.hang = False

    def run(
        self, claimed: Claimed, spec: CallSpec, body: bytes, sender: Sender, bill: Bill
    ) -> Outcome:
        self.ran.append(claimed.call_id)
        self.bodies.append(body)
        if self.hang:
            gevent.get_hub().switch()
        bill.add(spec.targets[0], {"prompt_tokens": 3, "completion_tokens": 4})
        return Outcome(answer=b'{"choices":[]}')


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


@pytest.fixture
def worker(redis: Redis, settings: Settings, runner: FakeRunner) -> Iterator[CallWorker]:
    made = CallWorker(settings, runner)  # type: ignore[arg-type]
    made.outbox.start()
    yield made
    made.pool.kill()
    made.outbox.close(0)
    made.claims.interrupt()
    made.connection.connection_pool.disconnect()


def claimed(budget: float = 60) -> Claimed:
    call_id = uuid.uuid4().hex
    spec = CallSpec(call_id, "web-1", False, (Target("demo/echo", "demo", "echo"),))
    return Claimed(call_id, "web-1", "claim", budget, spec.encode(b"{}"))


def records(worker: CallWorker) -> list[Record]:
    entries = worker.connection.xrange(keys.RECORDS)
    return [Record.from_entry(entry) for _, entry in entries]


def run(worker: CallWorker, call: Claimed) -> Outcome:
    running = worker.running[call.call_id] = Running(call)
    running.greenlet = worker.pool.spawn(worker.run_call, running)
    return outcome(worker, call)


def outcome(worker: CallWorker, call: Claimed) -> Outcome:
    with gevent.Timeout(10):
        worker.pool.join()
        assert worker.outbox.settled(10)
    (found,) = commands.outcomes(worker.connection, [call.call_id])
    assert found is not None
    return found


# what it takes from RQ

SEAMS = [
    (BaseWorker.register_birth, "(self)"),
    (BaseWorker.register_death, "(self)"),
    (BaseWorker.heartbeat, "(self, timeout, pipeline)"),
    (BaseWorker.set_state, "(self, state, pipeline)"),
    (clean_worker_registry, "(queue)"),
]


@pytest.mark.parametrize(("seam", "parameters"), SEAMS)
def test_the_seam_is_where_the_installed_rq_has_it(seam: Any, parameters: str) -> None:
    names = ", ".join(inspect.signature(seam).parameters)
    assert f"({names})" == parameters, f"RQ {VERSION} moved {seam.__qualname__}: see worker.py"


def test_nothing_else_of_rqs_worker_is_overridden() -> None:
    """A new method of RQ with the name of one of ours would otherwise go unnoticed."""
    ours = {name for name in vars(CallWorker) if not name.startswith("__")}
    assert {name for name in ours if hasattr(BaseWorker, name)} == {"work", "connection_timeout"}


def test_rq_leaves_the_waiting_times_of_the_pool_alone(worker: CallWorker) -> None:
    kept = worker.connection.connection_pool.connection_kwargs["socket_timeout"]
    moved = f"RQ {VERSION} no longer asks BaseWorker.connection_timeout: see worker.py"
    assert kept == clients.IMPATIENT_SECONDS, moved


def test_the_module_names_the_installed_version_of_rq() -> None:
    assert module.__doc__ is not None
    assert f"RQ {VERSION}" in module.__doc__, "read the list of seams again"


# registration and calls


def test_a_second_try_to_register_finds_its_own_record_and_goes_on(
    redis: Redis, worker: CallWorker
) -> None:
    worker.register_birth()  # and the reply was lost
    worker.register()
    assert redis.smembers(keys.RQ_WORKERS) == {worker.key.encode()}
    assert redis.hget(worker.key, "state") == b"idle"


def test_a_call_is_run_and_its_outcome_written(worker: CallWorker, runner: FakeRunner) -> None:
    call = claimed()
    assert run(worker, call).answer == b'{"choices":[]}'
    assert runner.ran == [call.call_id]
    assert worker.running == {}
    (record,) = records(worker)
    assert (record.id, record.status, record.worker) == (call.call_id, "completed", worker.name)
    assert record.usage == {"input": 3, "output": 4}


def test_a_call_past_its_deadline_is_not_begun(worker: CallWorker, runner: FakeRunner) -> None:
    error = run(worker, claimed(budget=-1)).error
    assert error is not None
    assert error.code == "deadline_exceeded"
    assert runner.ran == []
    (record,) = records(worker)
    assert (record.status, record.error_code, record.usage) == ("failed", error.code, {})


def test_a_call_is_ended_at_its_deadline(worker: CallWorker, runner: FakeRunner) -> None:
    runner.hang = True
    error = run(worker, claimed(budget=0.05)).error
    assert error is not None
    assert error.code == "deadline_exceeded"


def test_a_call_without_a_body_is_lost(worker: CallWorker, runner: FakeRunner) -> None:
    call = Claimed(uuid.uuid4().hex, "web-1", "claim", 60, None)
    error = run(worker, call).error
    assert error is not None
    assert error.code == "job_lost"
    assert runner.ran == []


def test_a_call_whose_run_breaks_has_an_outcome(
    worker: CallWorker, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> Outcome:
        raise OSError("no descriptors")

    monkeypatch.setattr(runner, "run", fail)
    error = run(worker, claimed()).error
    assert error is not None
    assert (error.status, error.should_retry) == (500, False)
    assert worker.running == {}


def test_a_running_call_is_stopped_and_forgotten(
    redis: Redis, worker: CallWorker, runner: FakeRunner
) -> None:
    runner.hang = True
    call = claimed()
    running = worker.running[call.call_id] = Running(call)
    running.greenlet = worker.pool.spawn(worker.run_call, running)
    gevent.sleep(0)
    redis.sadd(keys.cancel(worker.name), call.call_id)
    worker.stop_cancelled_calls()
    error = outcome(worker, call).error
    assert error is not None
    assert error.code == "client_closed_request"
    assert redis.smembers(keys.cancel(worker.name)) == set()


def test_a_call_cancelled_before_its_claim_was_read_is_not_begun(
    redis: Redis, worker: CallWorker, runner: FakeRunner
) -> None:
    call = claimed()
    redis.sadd(keys.cancel(worker.name), call.call_id)
    worker.stop_cancelled_calls()
    error = run(worker, call).error
    assert error is not None
    assert error.code == "client_closed_request"
    assert runner.ran == []
    (record,) = records(worker)
    assert (record.status, record.cancelled) == ("cancelled", True)


def test_a_running_call_is_announced_to_a_redis_that_lost_it(
    redis: Redis, worker: CallWorker, runner: FakeRunner
) -> None:
    runner.hang = True
    call = claimed()
    running = worker.running[call.call_id] = Running(call)
    running.greenlet = worker.pool.spawn(worker.run_call, running)
    gevent.sleep(0)
    redis.delete(keys.job(call.call_id))
    for call_id in (call.call_id, "b" * 32):
        redis.sadd(keys.cancel(worker.name), call_id + commands.UNKNOWN)
    worker.stop_cancelled_calls()
    assert worker.outbox.settled(5)
    known, ended = commands.states(redis, [call.call_id, "b" * 32])
    assert (known.status, known.worker, known.claim) == ("started", worker.name, call.claim)
    assert ended.status == ""
    assert redis.smembers(keys.cancel(worker.name)) == set()
    assert call.call_id in worker.running
    redis.sadd(keys.cancel(worker.name), call.call_id)
    worker.stop_cancelled_calls()
    assert outcome(worker, call).error is not None


def test_a_running_call_that_an_operator_cancels_says_so(
    redis: Redis, worker: CallWorker, runner: FakeRunner
) -> None:
    runner.hang = True
    call = claimed()
    running = worker.running[call.call_id] = Running(call)
    running.greenlet = worker.pool.spawn(worker.run_call, running)
    gevent.sleep(0)
    redis.sadd(keys.cancel(worker.name), call.call_id + commands.BY_OPERATOR)
    worker.stop_cancelled_calls()
    error = outcome(worker, call).error
    assert error is not None
    assert error.code == "cancelled_by_operator"
    assert redis.smembers(keys.cancel(worker.name)) == set()


def test_a_drained_worker_takes_no_calls_and_says_when_it_no_longer_does(
    redis: Redis, worker: CallWorker, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.001)
    monkeypatch.setattr(worker.claims, "take", lambda slots, give_up: [claimed()])
    worker.renew_records()
    worker.lease.renew(redis)
    worker.take_calls()
    assert len(runner.ran) == 1

    def state() -> tuple[bool, bool]:
        (shown,) = steering.workers(redis)
        assert (shown.name, shown.slots) == (worker.name, worker.pool.size)
        return shown.draining, shown.drains

    assert state() == (False, False)
    assert steering.drain(redis, worker.name, "boss", {})
    worker.renew_records()
    assert state() == (True, False)  # a claim may still be on its way
    worker.take_calls()
    worker.renew_records()
    assert (state(), len(runner.ran), worker.lease.slots) == ((True, True), 1, 0)
    assert steering.drain(redis, worker.name, "boss", {}, draining=False)
    worker.renew_records()
    worker.take_calls()
    assert (state(), len(runner.ran)) == ((False, False), 2)
    assert worker.lease.slots == worker.pool.size
    assert not steering.drain(redis, "nobody", "boss", {})
    assert redis.xlen(keys.AUDIT) == 2


def test_a_cancel_of_a_call_that_never_comes_is_dropped_after_a_while(
    redis: Redis, worker: CallWorker
) -> None:
    redis.sadd(keys.cancel(worker.name), "nobody")
    for _ in range(CANCEL_LOOKS):
        worker.stop_cancelled_calls()
    assert redis.scard(keys.cancel(worker.name)) == 1
    worker.stop_cancelled_calls()
    assert worker.outbox.settled(10)
    assert redis.scard(keys.cancel(worker.name)) == 0


def test_a_call_that_runs_is_not_begun_a_second_time(
    worker: CallWorker, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.hang = True
    call = claimed()
    monkeypatch.setattr(worker.claims, "take", lambda slots, give_up: [call])
    worker.take_calls()
    worker.take_calls()
    gevent.sleep(0)
    assert runner.ran == [call.call_id]


@pytest.mark.parametrize(("part", "trouble"), [("outbox", "failing"), ("lease", "lapsed")])
def test_a_worker_whose_answers_are_not_accepted_or_that_stood_still_takes_no_calls(
    worker: CallWorker,
    runner: FakeRunner,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    trouble: str,
) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.001)
    monkeypatch.setattr(worker.claims, "take", lambda slots, give_up: [claimed()])
    monkeypatch.setattr(getattr(worker, part), trouble, lambda: True)
    worker.take_calls()
    assert worker.running == {}
    monkeypatch.setattr(getattr(worker, part), trouble, lambda: False)
    worker.take_calls()
    assert len(runner.ran) == 1


def test_a_running_call_that_is_handed_out_again_ends_at_once(
    redis: Redis, worker: CallWorker, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.hang = True
    call = claimed()
    again = replace(call, claim="another")
    batches = iter([[call], [again]])
    monkeypatch.setattr(worker.claims, "take", lambda slots, give_up: next(batches))
    job = {"status": "started", "claim": "another"}  # as the second claim leaves it
    redis.hset(keys.job(call.call_id), mapping=job)
    redis.zadd(keys.RQ_STARTED, {f"{call.call_id}:another": 9_999_999_999})
    worker.take_calls()
    worker.take_calls()
    error = outcome(worker, call).error
    assert error is not None
    assert error.code == "reply_lost"
    assert runner.ran == [call.call_id]
    assert worker.running == {}
    assert redis.zcard(keys.RQ_STARTED) == 0
    (record,) = records(worker)  # the first claim's outcome is refused
    assert (record.id, record.error_code) == (call.call_id, "reply_lost")


def test_the_body_of_a_call_that_may_run_again_stays_until_its_end(
    redis: Redis, settings: Settings, worker: CallWorker, runner: FakeRunner
) -> None:
    calls = Calls(redis, settings, int(time.time() * 1000))
    calls.key()
    runner.hang = True
    stays, goes = calls.submit(retry=True), calls.submit()
    worker.take_calls()
    worker.outbox.wake()
    assert worker.outbox.settled(10)
    assert redis.exists(keys.call(stays), keys.call(goes)) == 1
    for call_id in (stays, goes):
        worker.running[call_id].greenlet.kill(StopCall(CallCancelled()), block=False)
    worker.pool.join()
    assert worker.outbox.settled(10)
    assert redis.exists(keys.call(stays), keys.call(goes)) == 0


def large_call(body: bytes = b"", **fields: Any) -> tuple[Claimed, bytes]:
    """A call whose body is still to be read, and what Redis holds of it."""
    call = claimed()
    payload = (call.payload or b"") + body
    return replace(call, payload=None, large=len(payload), **fields), payload


@pytest.mark.parametrize("retry", [False, True])
def test_a_large_body_is_read_by_the_call_itself(
    monkeypatch: pytest.MonkeyPatch,
    redis: Redis,
    worker: CallWorker,
    runner: FakeRunner,
    retry: bool,
) -> None:
    monkeypatch.setattr(large_bodies, "PIECE_BYTES", 7)
    call, payload = large_call(b" " * 100, admission={"retry": True} if retry else {})
    name = keys.call(call.call_id)
    redis.set(name, payload)
    runner.hang = True
    running = worker.running[call.call_id] = Running(call)
    running.greenlet = worker.pool.spawn(worker.run_call, running)
    with gevent.Timeout(10):
        while not runner.ran:
            gevent.sleep(0)
    assert runner.bodies == [b"{}" + b" " * 100]
    worker.outbox.wake()
    assert worker.outbox.settled(10)
    assert redis.exists(name) == retry


def test_a_large_body_is_waited_for_while_redis_is_away(
    monkeypatch: pytest.MonkeyPatch, worker: CallWorker
) -> None:
    monkeypatch.setattr(large_bodies, "RETRY_SECONDS", 0.001)
    call, payload = large_call()
    replies: list[Any] = [ConnectionError("away"), payload]

    def getrange(name: str, begin: int, end: int) -> bytes:
        assert (name, begin) == (keys.call(call.call_id), 0)
        reply = replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        piece: bytes = reply
        return piece

    monkeypatch.setattr(worker.connection, "getrange", getrange)
    assert run(worker, call).error is None


@pytest.mark.parametrize("left", ["nothing", "a piece", "another type"])
def test_a_large_body_that_is_lost_ends_its_call(
    redis: Redis, worker: CallWorker, runner: FakeRunner, left: str
) -> None:
    call, payload = large_call()
    if left == "a piece":
        redis.set(keys.call(call.call_id), payload[:-1])
    if left == "another type":
        redis.lpush(keys.call(call.call_id), 1)
    error = run(worker, call).error
    assert error is not None and error.code == "job_lost"
    assert runner.ran == []


def test_a_call_cancelled_while_it_waits_for_its_body_is_recorded_as_cancelled(
    redis: Redis, settings: Settings, worker: CallWorker, runner: FakeRunner
) -> None:
    calls = Calls(redis, settings, int(time.time() * 1000))
    calls.key()
    call_id = calls.submit(body=b"x" * 300_000)
    with worker._large._reading:
        worker.take_calls()
        worker.running[call_id].greenlet.kill(StopCall(CallCancelled()), block=False)
        worker.pool.join()
    assert worker.outbox.settled(10)
    (record,) = records(worker)
    assert (record.id, record.status, record.cancelled) == (call_id, "cancelled", True)
    assert runner.ran == []


def test_large_bodies_stay_in_the_queue_until_they_can_be_read(
    redis: Redis, settings: Settings, worker: CallWorker
) -> None:
    calls = Calls(redis, settings, int(time.time() * 1000))
    calls.key()
    for _ in range(large_bodies.MOST_UNREAD + 2):
        calls.submit(body=b"x" * 1_200_000)
    with worker._large._reading:
        for _ in range(large_bodies.MOST_UNREAD + 1):
            worker.take_calls()
        assert len(worker.running) == large_bodies.MOST_UNREAD
    with gevent.Timeout(10):
        while redis.zcard(keys.WAITING) or worker.running:
            worker.take_calls()


def test_the_latency_of_a_second_run_includes_the_lost_one(worker: CallWorker) -> None:
    call = replace(claimed(), admission={"queued_ms": 100, "lost_ms": 1_500})
    assert run(worker, call).error is None
    (record,) = records(worker)
    assert record.latency_ms >= 1_600


def test_a_worker_that_claims_a_call_that_it_still_runs_runs_it_again(
    redis: Redis, worker: CallWorker, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood still and was taken for lost."""
    runner.hang = True
    call = replace(claimed(), admission={"retry": True})
    again = replace(call, claim="second", admission={"lost_ms": 9_000})
    batches = iter([[call], [again]])
    monkeypatch.setattr(worker.claims, "take", lambda slots, give_up: next(batches))
    redis.hset(keys.job(call.call_id), mapping={"status": "started", "claim": "second"})
    worker.take_calls()
    runner.hang = False
    worker.take_calls()
    assert outcome(worker, call).error is None
    assert runner.ran == [call.call_id, call.call_id]
    assert worker.running == {}
    assert len(records(worker)) == 1


def test_a_first_run_that_ends_by_itself_meanwhile_does_not_stop_the_second(
    redis: Redis, worker: CallWorker, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.hang = True
    call = replace(claimed(), admission={"retry": True})
    again = replace(call, claim="second", admission={"lost_ms": 9_000})

    def take(slots: int, give_up: Any) -> list[Claimed]:
        if not runner.ran:
            return [call]
        runner.hang = False
        goes_on = worker.running[call.call_id].greenlet.switch
        gevent.get_hub().loop.run_callback(goes_on)
        return [again]

    monkeypatch.setattr(worker.claims, "take", take)
    redis.hset(keys.job(call.call_id), mapping={"status": "started", "claim": "second"})
    worker.take_calls()
    worker.take_calls()
    assert outcome(worker, call).error is None
    assert runner.ran == [call.call_id, call.call_id]
    assert worker.running == {}


def test_a_worker_that_stops_gives_back_a_call_that_may_run_again(
    redis: Redis, settings: Settings, worker: CallWorker, runner: FakeRunner
) -> None:
    calls = Calls(redis, settings, int(time.time() * 1000))
    calls.key()
    runner.hang = True
    call_id = calls.submit(retry=True)
    worker.take_calls()
    worker.running[call_id].greenlet.kill(StopCall(WorkerStopped()), block=False)
    worker.pool.join()
    assert worker.outbox.settled(10)
    assert commands.states(redis, [call_id])[0].status == "queued"
    assert records(worker) == []


def test_the_calls_of_a_web_process_without_a_lease_are_stopped_at_the_second_look(
    redis: Redis, worker: CallWorker, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.hang = True
    call = claimed()
    running = worker.running[call.call_id] = Running(call)
    running.greenlet = worker.pool.spawn(worker.run_call, running)
    gevent.sleep(0)
    monkeypatch.setattr(worker.lease, "steady", lambda: False)
    for _ in range(3):
        worker.stop_calls_of_lost_webs()
    gevent.sleep(0)
    assert call.call_id in worker.running, "Redis may have been away: nobody is judged"
    monkeypatch.setattr(worker.lease, "steady", lambda: True)
    worker.stop_calls_of_lost_webs()
    error = outcome(worker, call).error
    assert error is not None
    assert error.code == "web_lost"


def test_a_tick_queues_calls_that_wait_for_what_has_expired(
    redis: Redis, settings: Settings, worker: CallWorker
) -> None:
    waiting = Calls(redis, settings, int(time.time() * 1000))
    waiting.key(max_in_flight=1)
    first, second = waiting.submit(), waiting.submit()
    redis.zadd(keys.flight(KEY), {first: 1})  # it expired long ago
    worker.watch_calls()
    assert waiting.status(second) == "queued"


def test_records_are_renewed_and_registries_trimmed(redis: Redis, worker: CallWorker) -> None:
    worker.register()
    redis.zadd(keys.RQ_FINISHED, {"old": 1, "new": 9_999_999_999})
    redis.delete(worker.key)  # Redis was emptied
    worker.renew_records()
    assert redis.zrange(keys.RQ_FINISHED, 0, -1) == [b"new"]
    assert redis.hget(worker.key, "state") == b"idle"
    assert 0 < redis.ttl(worker.key) <= 80


def test_a_redis_that_was_emptied_learns_again_whose_the_names_are(
    redis: Redis, settings: Settings, worker: CallWorker
) -> None:
    worker.renew_records()
    assert redis.exists(worker.key)
    assert redis.get(keys.OWNER) == owner.fingerprint(settings.key_pepper)


def test_what_other_workers_know_of_routes_is_learned(redis: Redis, worker: CallWorker) -> None:
    redis.hset(keys.BREAKERS, "acme/model", "9 1 99999999999999")
    worker.learn_breakers()
    assert not worker.breakers.is_open("acme/model")  # in what time is it written? not known yet
    worker.lease.renew(worker.connection)  # reads Redis' clock
    worker.learn_breakers()
    assert worker.breakers.is_open("acme/model")


def test_a_foreign_value_teaches_nothing_and_stops_nobody(redis: Redis, worker: CallWorker) -> None:
    worker.lease.renew(worker.connection)  # reads Redis' clock
    for _ in range(5):
        worker.breakers.failed("acme/model", UpstreamFailed())
    assert worker.outbox.settled(10)
    redis.set(keys.BREAKERS, "not a hash")
    worker.learn_breakers()
    assert worker.breakers.is_open("acme/model")


def test_failures_are_written_through_the_outbox(redis: Redis, worker: CallWorker) -> None:
    worker.breakers.failed("acme/model", UpstreamFailed())
    assert worker.outbox.settled(10)
    assert redis.hkeys(keys.BREAKERS) == [b"acme/model"]
    worker.breakers.answered("acme/model")
    assert worker.outbox.settled(10)
    assert redis.hkeys(keys.BREAKERS) == []


def test_what_it_has_done_is_in_rqs_record(
    redis: Redis, worker: CallWorker, runner: FakeRunner
) -> None:
    worker.register()
    run(worker, dataclasses.replace(claimed(), claimed_at=time.monotonic() - 1.5))
    run(worker, claimed(budget=0))
    worker.renew_records()
    found = RqWorker.find_by_key(worker.key, connection=redis)
    assert (found.successful_job_count, found.failed_job_count) == (1, 1)
    assert found.total_working_time >= 1.5
