"""gateway/broker/broker.py: calls in and out of one web process, with a Redis that may be away."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from redis import Redis

from gateway.account.api_keys import KeyRecord, KeyStore
from gateway.broker import broker as module
from gateway.broker.backlog import UNKNOWN_SECONDS
from gateway.broker.broker import Broker
from gateway.catalogue.target import Target
from gateway.errors import (
    CallCancelled,
    GatewayError,
    KeyChanged,
    NoWorkers,
    Overloaded,
    QueueUnavailable,
    RateLimited,
    ReplyLost,
    ShuttingDown,
    WorkerStopped,
)
from gateway.queue import clients, commands, event_logs, keys, scripts
from gateway.queue.clients import DedicatedConnection
from gateway.queue.protocol import CHUNKS, CallSpec, Event, Outcome, outcome_event
from gateway.settings import Settings
from local.redis_server import RedisServer
from tests.support.fakes import admission
from workers.claims import Claims

WORKER = "worker-1"
PATIENCE = 10.0
Make = Callable[..., Broker]
AWAY = "unix:///nowhere/redis.sock"


@pytest.fixture
def make(redis: Redis, settings: Settings) -> Iterator[Make]:
    """A function that makes an broker of whose greenlets only the submitter runs: the others'
    blocking reads would stop the test's own."""
    made: list[Any] = []
    greenlets = []

    def make(**changes: Any) -> Broker:
        theirs = replace(settings, **changes)
        broker: Any = Broker(theirs, clients.commands(theirs, 4))
        broker.started = True
        made.append(broker)
        greenlets.append(gevent.spawn(broker.submitter.run))
        return broker

    yield make
    gevent.killall(greenlets)
    for broker in made:
        broker.submitter.close()
        broker.redis.connection_pool.disconnect()


@pytest.fixture
def broker(make: Make) -> Broker:
    return make()


@pytest.fixture
def key(redis: Redis, settings: Settings) -> KeyRecord:
    store = KeyStore(redis, settings.key_pepper)
    return store.verify(store.create("tests"))


def spec(broker: Broker) -> CallSpec:
    return CallSpec(uuid.uuid4().hex, broker.web, False, (Target("demo/echo", "demo", "echo"),))


def submit(broker: Broker, key: KeyRecord) -> Any:
    """The pending call of one more call, which is queued."""
    pending = broker.submit(spec(broker), b"{}", admission(key), 600)
    eventually(lambda: pending.submitted)
    return pending


def submit_unqueued(broker: Broker, key: KeyRecord) -> Any:
    """The pending call of one more call, whatever the queue says to it."""
    return broker.submit(spec(broker), b"{}", admission(key), 600)


def start(redis: Redis) -> str:
    """A worker takes one call; return its claim."""
    claims = Claims(redis, DedicatedConnection(redis), WORKER, lambda: 0.0)
    [claimed] = claims.take(1, lambda: True)
    return claimed.claim


def status(redis: Redis, call_id: str) -> str:
    return commands.states(redis, [call_id])[0].status


def told(redis: Redis) -> set[str]:
    """The calls that the worker was told to stop."""
    return {call_id.decode() for call_id in redis.smembers(keys.cancel(WORKER))}


def eventually(condition: Callable[[], bool]) -> None:
    with gevent.Timeout(PATIENCE):
        while not condition():
            gevent.sleep(0.01)


# submit


def test_a_submitted_call_is_queued_and_waited_for(
    redis: Redis, broker: Broker, key: KeyRecord
) -> None:
    pending = submit(broker, key)
    assert broker.pending_calls == {pending.call_id: pending}
    assert status(redis, pending.call_id) == "queued"
    assert pending.deadline == pending.since + 600
    assert pending.outcome is None


def test_a_call_is_waited_for_before_it_is_queued(
    redis: Redis, broker: Broker, key: KeyRecord
) -> None:
    pending = broker.submit(spec(broker), b"{}", admission(key), 600)
    assert broker.pending_calls == {pending.call_id: pending}
    assert not pending.submitted
    assert redis.llen(keys.RQ_QUEUE) == 0


def test_calls_of_one_moment_are_queued_in_their_order(
    redis: Redis, broker: Broker, key: KeyRecord
) -> None:
    pending_calls = [broker.submit(spec(broker), b"{}", admission(key), 600) for _ in range(20)]
    eventually(lambda: all(pending.submitted for pending in pending_calls))
    queued = [call_id.decode() for call_id in redis.lrange(keys.RQ_QUEUE, 0, -1)]
    assert queued == [pending.call_id for pending in pending_calls]


def test_a_call_whose_client_left_before_it_was_sent_is_never_queued(
    redis: Redis, broker: Broker, key: KeyRecord
) -> None:
    gone = broker.submit(spec(broker), b"{}", admission(key), 600)
    broker.leave(gone)
    other = submit(broker, key)
    assert redis.lrange(keys.RQ_QUEUE, 0, -1) == [other.call_id.encode()]


def test_what_a_client_that_has_left_did_not_take_is_held_no_more(
    broker: Broker, key: KeyRecord
) -> None:
    pending = submit(broker, key)
    pending.offer(Event(pending.call_id, "claim", 1, CHUNKS, b"x" * 100))
    assert broker.buffers.held >= 100
    broker.leave(pending)
    assert broker.buffers.held == 0


def test_a_full_process_refuses_until_a_call_leaves(
    redis: Redis, make: Make, key: KeyRecord
) -> None:
    broker = make(max_in_flight=2)
    first, _ = submit(broker, key), submit(broker, key)
    with pytest.raises(Overloaded) as refused:
        submit(broker, key)
    assert refused.value.retry_after == UNKNOWN_SECONDS
    assert redis.llen(keys.RQ_QUEUE) == 2
    broker.leave(first)
    submit(broker, key)


def test_a_key_that_floods_a_process_leaves_places_for_others(
    redis: Redis, make: Make, key: KeyRecord
) -> None:
    broker = make(max_in_flight=8)
    flood = [submit(broker, key) for _ in range(7)]
    with pytest.raises(Overloaded):
        submit(broker, key)
    other = submit_unqueued(broker, replace(key, public_id="other"))
    broker.abandon(other)
    broker.leave(other)
    for pending in flood:
        broker.leave(pending)
    assert broker.places.free == 8


def test_a_refused_caller_is_told_when_the_queue_will_have_been_worked_off(
    redis: Redis, make: Make, key: KeyRecord
) -> None:
    broker = make(queue_limit=6, max_in_flight=9)
    broker.backlog.slots = 2
    ended = submit(broker, key)
    ended.end(Outcome(timings={"work": 4_000}))
    broker.leave(ended)
    pending_calls = [submit(broker, key) for _ in range(5)]
    by_redis = broker.submit(spec(broker), b"{}", admission(key), 600)
    eventually(lambda: by_redis.outcome is not None)
    assert by_redis.outcome.error.retry_after == 12  # 6 calls of 4 s for 2 slots
    assert broker.backlog.wanted
    pending_calls += [submit_unqueued(broker, key) for _ in range(2)]
    with pytest.raises(Overloaded) as by_us:
        broker.submit(spec(broker), b"{}", admission(key), 600)
    assert by_us.value.retry_after == 12


@pytest.mark.parametrize(("room", "error"), [(1_000_000, RateLimited), (-1_000_000, Overloaded)])
def test_a_logged_call_that_finds_no_room_is_refused(
    redis: Redis, broker: Broker, key: KeyRecord, room: int, error: type[GatewayError]
) -> None:
    for number in range(20):
        before = keys.log_address(f"call{number}", 60)
        event_logs.store_logged_request(redis, key.public_id, before, b"x" * 100_000, 60)
    the_spec = spec(broker)
    logged = replace(the_spec, web=keys.log_address(the_spec.call_id, 60))
    # Far from the bounds, because what other tests have left may expire meanwhile.
    redis.config_set("maxmemory", 2 * (redis.info("memory")["used_memory"] + room))
    with pytest.raises(error):
        broker.submit(logged, b"{}", admission(key), 600, b"{}")
    assert broker.pending_calls == {}
    assert redis.llen(keys.RQ_QUEUE) == 0


def test_a_draining_process_refuses(redis: Redis, broker: Broker, key: KeyRecord) -> None:
    broker.drain()
    with pytest.raises(ShuttingDown) as refused:
        submit(broker, key)
    assert refused.value.retry_after
    assert refused.value.should_retry is True
    assert redis.llen(keys.RQ_QUEUE) == 0
    assert broker.pending_calls == {}


def test_a_call_that_redis_refuses_ends_with_the_reason_and_disturbs_no_other(
    redis: Redis, broker: Broker, key: KeyRecord, settings: Settings
) -> None:
    store = KeyStore(redis, settings.key_pepper)
    revoked = store.verify(store.create("revoked"))
    store.revoke(revoked.public_id)
    calls = [
        broker.submit(spec(broker), b"{}", admission(each), 600) for each in (key, revoked, key)
    ]
    eventually(lambda: calls[2].submitted)
    assert [pending.submitted for pending in calls] == [True, False, True]
    assert calls[1].outcome is not None
    assert isinstance(calls[1].outcome.error, KeyChanged)
    assert redis.llen(keys.RQ_QUEUE) == 2


# Redis away


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "IMPATIENT_SECONDS", 0.2)
    monkeypatch.setattr(module, "CANCEL_RETRY_SECONDS", 0.02)


def test_a_call_for_which_there_is_no_redis_may_be_sent_again(make: Make, key: KeyRecord) -> None:
    broker = make(redis_url=AWAY)
    pending = broker.submit(spec(broker), b"{}", admission(key), 600)
    assert pending.wait(PATIENCE)
    assert pending.outcome is not None
    error = pending.outcome.error
    assert isinstance(error, QueueUnavailable)
    assert error.retry_after
    assert error.should_retry is True


def test_a_call_that_a_silent_redis_took_is_cancelled_once_it_speaks_again(
    make: Make, key: KeyRecord, server: RedisServer, impatient: None
) -> None:
    broker = make(redis_url=server.url)
    assert server.process is not None
    with Redis.from_url(server.url, protocol=2) as redis:
        redis.hset(keys.key(key.public_id), mapping={"hmac": key.hmac, "version": key.version})
        submit(broker, key)  # so that the scripts are known
        server.process.send_signal(signal.SIGSTOP)
        try:
            pending = broker.submit(spec(broker), b"{}", admission(key), 600)
            assert pending.wait(PATIENCE)
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert pending.outcome is not None
        error = pending.outcome.error
        assert isinstance(error, QueueUnavailable)
        assert error.should_retry is False, "it may have been queued, and started"
        eventually(lambda: status(redis, pending.call_id) == "canceled")
        assert redis.llen(keys.RQ_QUEUE) == 1


def test_a_call_that_redis_may_have_taken_before_it_went_is_marked_once_it_is_back(
    make: Make, key: KeyRecord, server: RedisServer, impatient: None
) -> None:
    broker = make(redis_url=server.url)
    assert server.process is not None
    with Redis.from_url(server.url, protocol=2) as redis:
        redis.hset(keys.key(key.public_id), mapping={"hmac": key.hmac, "version": key.version})
        submit(broker, key)
        server.process.send_signal(signal.SIGSTOP)
        the_spec = spec(broker)
        pending = broker.submit(the_spec, b"{}", admission(key), 600)
        assert pending.wait(PATIENCE)
        server.process.kill()
        server.stop()
        server.start()
    with Redis.from_url(server.url, protocol=2) as redis:
        mark = keys.cancel(pending.call_id)
        eventually(lambda: bool(redis.exists(mark)))
        assert 0 < redis.ttl(mark) <= keys.CANCEL_SECONDS
        command = commands.submit_command(broker.settings, the_spec, b"{}", admission(key), 600)
        redis.hset(keys.key(key.public_id), mapping={"hmac": key.hmac, "version": key.version})
        assert scripts.run(redis, command) == [b"cancelled"], "should it arrive after all"


def test_a_connection_that_redis_has_closed_costs_no_call(
    redis: Redis, broker: Broker, key: KeyRecord
) -> None:
    for _ in range(3):
        redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert submit(broker, key).outcome is None
    assert redis.llen(keys.RQ_QUEUE) == 3


def test_a_cancellation_is_given_up_when_no_late_submit_can_come_any_more(
    make: Make, key: KeyRecord, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "CANCEL_SECONDS", 0.1)
    monkeypatch.setattr(module, "CANCEL_RETRY_SECONDS", 0.01)
    broker = make(redis_url=AWAY)
    broker.abandon(submit_unqueued(broker, key))
    eventually(lambda: "could not be cancelled" in caplog.text)


# events


def test_events_reach_the_call_that_they_are_of(broker: Broker, key: KeyRecord) -> None:
    first, second = submit(broker, key), submit(broker, key)
    broker.deliver(Event(first.call_id, "c", 1, CHUNKS, b"one"))
    broker.deliver(Event("unknown", "c", 1, CHUNKS, b"nobody's"))
    broker.deliver(Event(second.call_id, "c", 1, CHUNKS, b"two"))
    assert (first.parts(), second.parts()) == ([b"one"], [b"two"])


def test_a_call_with_a_hole_in_its_answer_is_stopped(
    redis: Redis, broker: Broker, key: KeyRecord
) -> None:
    pending = submit(broker, key)
    start(redis)
    broker.deliver(Event(pending.call_id, "c", 2, CHUNKS, b"{}"))
    assert isinstance(pending.outcome.error, ReplyLost)
    eventually(lambda: told(redis) == {pending.call_id})


# leaving


def test_a_queued_call_whose_caller_leaves_is_removed(
    redis: Redis, broker: Broker, key: KeyRecord
) -> None:
    pending = submit(broker, key)
    broker.leave(pending)
    assert broker.pending_calls == {}
    assert isinstance(pending.outcome.error, CallCancelled)
    eventually(lambda: status(redis, pending.call_id) == "canceled")
    assert redis.llen(keys.RQ_QUEUE) == 0


def test_a_started_call_whose_caller_leaves_is_stopped(
    redis: Redis, broker: Broker, key: KeyRecord
) -> None:
    pending = submit(broker, key)
    start(redis)
    broker.leave(pending)
    eventually(lambda: told(redis) == {pending.call_id})


def test_an_answered_call_is_left_without_a_word_to_its_worker(
    redis: Redis, broker: Broker, key: KeyRecord
) -> None:
    pending, other = submit(broker, key), submit(broker, key)
    start(redis)
    start(redis)
    pending.end(Outcome(answer=b"{}"))
    broker.leave(pending)
    broker.leave(other)  # whoever is told, is told in order
    eventually(lambda: bool(told(redis)))
    assert told(redis) == {other.call_id}
    assert broker.monitor.delivered == [pending.call_id]


def test_a_call_whose_client_has_gone_ends_and_is_stopped(
    redis: Redis, broker: Broker, key: KeyRecord
) -> None:
    pending = submit(broker, key)
    start(redis)
    broker.abandon(pending)
    assert pending.wait(0)
    assert isinstance(pending.outcome.error, CallCancelled)
    eventually(lambda: told(redis) == {pending.call_id})
    broker.leave(pending)
    assert broker.pending_calls == {}
    assert broker.monitor.delivered == []


def test_a_large_outcome_is_read_where_redis_keeps_it(
    redis: Redis, broker: Broker, key: KeyRecord
) -> None:
    pending = submit(broker, key)
    outcome = Outcome(answer=b"x" * commands.EVENT_BYTES)
    claim = start(redis)
    ending = commands.finish_commands(pending.call_id, claim, broker.web, WORKER, outcome)
    assert commands.finish(redis, ending)
    [(_, fields)] = redis.xrange(keys.inbox(broker.web))
    broker.deliver(Event.decode(fields[b"e"]))
    eventually(lambda: pending.outcome is not None)
    assert pending.outcome == outcome
    assert redis.exists(keys.outcome(pending.call_id)), "until it is rendered"
    broker.leave(pending)
    # Its worker may read the next large response.
    eventually(lambda: not redis.exists(keys.outcome(pending.call_id)))


@pytest.mark.parametrize("gone", ["before", "meanwhile"])
def test_a_large_outcome_whose_client_has_gone_is_removed(
    redis: Redis, broker: Broker, key: KeyRecord, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker would read no other large response until it had expired."""
    pending = submit(broker, key)
    ending = commands.finish_commands(
        pending.call_id, start(redis), broker.web, WORKER, Outcome(answer=b"x" * 2_000_000)
    )
    assert commands.finish(redis, ending)
    cancelled: list[str] = []
    monkeypatch.setattr(commands, "cancel", lambda redis, call_id: cancelled.append(call_id))
    if gone == "before":
        broker.abandon(pending)
    else:
        read = commands.outcomes

        def then_it_goes(*arguments: Any) -> list[Outcome | None]:
            found = read(*arguments)
            broker.abandon(pending)
            return found

        monkeypatch.setattr(commands, "outcomes", then_it_goes)
    broker.deliver(outcome_event(pending.call_id))
    eventually(lambda: not redis.exists(keys.outcome(pending.call_id)))
    eventually(lambda: cancelled == [pending.call_id])
    assert not broker.pending_calls


def test_a_client_that_goes_after_its_answer_changes_nothing(
    redis: Redis, broker: Broker, key: KeyRecord
) -> None:
    pending, other = submit(broker, key), submit(broker, key)
    start(redis)
    start(redis)
    pending.end(Outcome(answer=b"{}"))
    broker.abandon(pending)
    broker.abandon(other)
    eventually(lambda: bool(told(redis)))
    assert told(redis) == {other.call_id}
    assert pending.outcome == Outcome(answer=b"{}")


# the end


def test_at_the_end_queued_calls_may_be_sent_again_and_started_ones_not(
    redis: Redis, broker: Broker, key: KeyRecord
) -> None:
    started, queued, answered = (submit(broker, key) for _ in range(3))
    start(redis)
    answered.end(Outcome(answer=b"{}"))
    broker.end_all()
    assert isinstance(started.outcome.error, WorkerStopped)
    assert started.outcome.error.should_retry is False
    assert isinstance(queued.outcome.error, ShuttingDown)
    assert queued.outcome.error.should_retry is True
    assert queued.outcome.error.retry_after
    assert answered.outcome == Outcome(answer=b"{}")
    assert told(redis) == {started.call_id}
    assert redis.llen(keys.RQ_QUEUE) == 0


def test_at_the_end_no_call_is_promised_a_retry_that_redis_has_not_confirmed(
    make: Make, redis: Redis, broker: Broker, key: KeyRecord
) -> None:
    pending = submit(broker, key)
    broker.redis = make(redis_url=AWAY).redis
    broker.end_all()
    assert isinstance(pending.outcome.error, WorkerStopped)


# the life of the process


def test_an_exchange_starts_once_and_gives_up_its_lease_at_the_end(
    settings: Settings, key: KeyRecord
) -> None:
    done: list[str] = []
    broker: Any = Broker(settings, clients.commands(settings, 1))
    broker.lease = SimpleNamespace(
        start=lambda: done.append("lease"), release=lambda: done.append("released")
    )
    broker.submitter = SimpleNamespace(
        run=lambda: done.append("submitter"), put=lambda submission: done.append("call")
    )
    broker.reader = SimpleNamespace(run=lambda: done.append("reader"))
    broker.monitor = SimpleNamespace(
        run=lambda: done.append("monitor"),
        watch_deadlines=lambda: done.append("deadlines"),
        delivered=[],
        no_workers=False,
    )
    broker.close()
    assert done == []
    broker.lease.redis_time = lambda seconds: 0
    broker.submit(spec(broker), b"{}", admission(key), 600)
    broker.start()
    eventually(lambda: len(done) == 6)
    assert done == ["lease", "call", "submitter", "reader", "monitor", "deadlines"]
    broker.close()
    assert done[6:] == ["released"]


def test_every_web_process_has_a_name_of_its_own(make: Make) -> None:
    assert make().web != make().web


def test_a_call_is_refused_at_once_where_no_worker_has_lived_for_a_while(
    redis: Redis, make: Make, key: KeyRecord
) -> None:
    broker = make(no_workers_after=-1)  # any moment is too long
    with pytest.raises(NoWorkers) as caught:
        broker.submit(spec(broker), b"{}", admission(key), 600)
    assert caught.value.retry_after
    assert not broker.pending_calls
    redis.set(keys.lease(WORKER), 1)
    redis.sadd(keys.RQ_WORKERS, f"rq:worker:{WORKER}")
    assert submit(broker, key).outcome is None


def test_whether_workers_live_is_not_known_without_redis(make: Make) -> None:
    assert make(redis_url=AWAY).has_workers()
    assert not make().has_workers()
