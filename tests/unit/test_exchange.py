"""api/exchange.py: calls in and out of one web process, with a Redis that may be away."""

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

from api import exchange as module
from api.backlog import UNKNOWN_SECONDS
from api.exchange import Exchange
from gateway import connections, dispatch, keyspace, scripts
from gateway.channel import PARTS, Event, Outcome, Plan, Target
from gateway.errors import (
    AuthenticationFailed,
    CallCancelled,
    Overloaded,
    QueueUnavailable,
    ReplyLost,
    ShuttingDown,
    WorkerStopped,
)
from gateway.keys import KeyRecord, KeyStore
from gateway.settings import Settings
from local.redis_server import RedisServer
from workers.claims import Claims

WORKER = "worker-1"
PATIENCE = 10.0
Make = Callable[..., Exchange]
AWAY = "unix:///nowhere/redis.sock"


@pytest.fixture
def make(redis: Redis, settings: Settings) -> Iterator[Make]:
    """A function that makes an exchange of whose greenlets only the submitter runs: the others'
    blocking reads would stop the test's own."""
    made: list[Any] = []
    greenlets = []

    def make(**changes: Any) -> Exchange:
        theirs = replace(settings, **changes)
        exchange: Any = Exchange(theirs, connections.commands(theirs, 4))
        exchange._started = True
        made.append(exchange)
        greenlets.append(gevent.spawn(exchange._submitter.run))
        return exchange

    yield make
    gevent.killall(greenlets)
    for exchange in made:
        exchange._submitter._disconnect(broken=True)
        exchange._submitter._redis.connection_pool.disconnect()
        exchange.redis.connection_pool.disconnect()


@pytest.fixture
def exchange(make: Make) -> Exchange:
    return make()


@pytest.fixture
def key(redis: Redis, settings: Settings) -> KeyRecord:
    store = KeyStore(redis, settings.key_pepper)
    return store.verify(store.create("tests"))


def plan(exchange: Exchange) -> Plan:
    return Plan(uuid.uuid4().hex, exchange.web, False, (Target("demo/echo", "demo", "echo"),))


def submit(exchange: Exchange, key: KeyRecord) -> Any:
    """The waiter of one more call, which is queued."""
    waiter = exchange.submit(plan(exchange), b"{}", key, 600)
    eventually(lambda: waiter.submitted)
    return waiter


def submit_unqueued(exchange: Exchange, key: KeyRecord) -> Any:
    """The waiter of one more call, whatever the queue says to it."""
    return exchange.submit(plan(exchange), b"{}", key, 600)


def start(redis: Redis) -> None:
    """A worker takes one call."""
    assert len(Claims(redis, redis, WORKER, lambda: 0.0).take(1, lambda: True)) == 1


def status(redis: Redis, call_id: str) -> str:
    return dispatch.states(redis, [call_id])[0].status


def told(redis: Redis) -> set[str]:
    """The calls that the worker was told to stop."""
    return {call_id.decode() for call_id in redis.smembers(keyspace.cancel(WORKER))}


def eventually(condition: Callable[[], bool]) -> None:
    with gevent.Timeout(PATIENCE):
        while not condition():
            gevent.sleep(0.01)


# submit


def test_a_submitted_call_is_queued_and_waited_for(
    redis: Redis, exchange: Exchange, key: KeyRecord
) -> None:
    waiter = submit(exchange, key)
    assert exchange.waiters == {waiter.call_id: waiter}
    assert status(redis, waiter.call_id) == "queued"
    assert waiter.deadline == waiter.since + 600
    assert waiter.outcome is None


def test_a_call_is_waited_for_before_it_is_queued(
    redis: Redis, exchange: Exchange, key: KeyRecord
) -> None:
    waiter = exchange.submit(plan(exchange), b"{}", key, 600)
    assert exchange.waiters == {waiter.call_id: waiter}
    assert not waiter.submitted
    assert redis.llen(keyspace.RQ_QUEUE) == 0


def test_calls_of_one_moment_are_queued_in_their_order(
    redis: Redis, exchange: Exchange, key: KeyRecord
) -> None:
    waiters = [exchange.submit(plan(exchange), b"{}", key, 600) for _ in range(20)]
    eventually(lambda: all(waiter.submitted for waiter in waiters))
    queued = [call_id.decode() for call_id in redis.lrange(keyspace.RQ_QUEUE, 0, -1)]
    assert queued == [waiter.call_id for waiter in waiters]


def test_a_call_whose_client_left_before_it_was_sent_is_never_queued(
    redis: Redis, exchange: Exchange, key: KeyRecord
) -> None:
    gone = exchange.submit(plan(exchange), b"{}", key, 600)
    exchange.leave(gone)
    other = submit(exchange, key)
    assert redis.lrange(keyspace.RQ_QUEUE, 0, -1) == [other.call_id.encode()]


def test_what_a_client_that_has_left_did_not_take_is_held_no_more(
    exchange: Exchange, key: KeyRecord
) -> None:
    waiter = submit(exchange, key)
    waiter.offer(Event(waiter.call_id, "claim", 1, PARTS, b"x" * 100))
    assert exchange.buffers.held == 100
    exchange.leave(waiter)
    assert exchange.buffers.held == 0


def test_a_full_process_refuses_until_a_call_leaves(
    redis: Redis, make: Make, key: KeyRecord
) -> None:
    exchange = make(max_in_flight=2)
    first, _ = submit(exchange, key), submit(exchange, key)
    with pytest.raises(Overloaded) as refused:
        submit(exchange, key)
    assert refused.value.retry_after == UNKNOWN_SECONDS
    assert redis.llen(keyspace.RQ_QUEUE) == 2
    exchange.leave(first)
    submit(exchange, key)


def test_a_refused_caller_is_told_when_the_queue_will_have_been_worked_off(
    redis: Redis, make: Make, key: KeyRecord
) -> None:
    exchange = make(queue_limit=6, max_in_flight=8)
    exchange.backlog.slots = 2
    ended = submit(exchange, key)
    ended.end(Outcome(timings={"work": 4_000}))
    exchange.leave(ended)
    waiters = [submit(exchange, key) for _ in range(5)]
    by_redis = exchange.submit(plan(exchange), b"{}", key, 600)
    eventually(lambda: by_redis.outcome is not None)
    assert by_redis.outcome.error.retry_after == 12  # 6 calls of 4 s for 2 slots
    assert exchange.backlog.wanted
    waiters += [submit_unqueued(exchange, key) for _ in range(2)]
    with pytest.raises(Overloaded) as by_us:
        exchange.submit(plan(exchange), b"{}", key, 600)
    assert by_us.value.retry_after == 12


def test_a_draining_process_refuses(redis: Redis, exchange: Exchange, key: KeyRecord) -> None:
    exchange.drain()
    with pytest.raises(ShuttingDown) as refused:
        submit(exchange, key)
    assert refused.value.retry_after
    assert refused.value.should_retry is True
    assert redis.llen(keyspace.RQ_QUEUE) == 0
    assert exchange.waiters == {}


def test_a_call_that_redis_refuses_ends_with_the_reason_and_disturbs_no_other(
    redis: Redis, exchange: Exchange, key: KeyRecord, settings: Settings
) -> None:
    store = KeyStore(redis, settings.key_pepper)
    revoked = store.verify(store.create("revoked"))
    store.revoke(revoked.public_id)
    calls = [exchange.submit(plan(exchange), b"{}", each, 600) for each in (key, revoked, key)]
    eventually(lambda: calls[2].submitted)
    assert [waiter.submitted for waiter in calls] == [True, False, True]
    assert calls[1].outcome is not None
    assert isinstance(calls[1].outcome.error, AuthenticationFailed)
    assert redis.llen(keyspace.RQ_QUEUE) == 2


# Redis away


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IMPATIENT_SECONDS", 0.2)
    monkeypatch.setattr(module, "CANCEL_RETRY_SECONDS", 0.02)


def test_a_call_for_which_there_is_no_redis_may_be_sent_again(make: Make, key: KeyRecord) -> None:
    exchange = make(redis_url=AWAY)
    waiter = exchange.submit(plan(exchange), b"{}", key, 600)
    assert waiter.wait(PATIENCE)
    assert waiter.outcome is not None
    error = waiter.outcome.error
    assert isinstance(error, QueueUnavailable)
    assert error.retry_after
    assert error.should_retry is True


def test_a_call_that_a_silent_redis_took_is_cancelled_once_it_speaks_again(
    make: Make, key: KeyRecord, server: RedisServer, impatient: None
) -> None:
    exchange = make(redis_url=server.url)
    assert server.process is not None
    with Redis.from_url(server.url, protocol=2) as redis:
        redis.hset(keyspace.key(key.public_id), mapping={"hmac": key.hmac})
        submit(exchange, key)  # so that the scripts are known
        server.process.send_signal(signal.SIGSTOP)
        try:
            waiter = exchange.submit(plan(exchange), b"{}", key, 600)
            assert waiter.wait(PATIENCE)
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert waiter.outcome is not None
        error = waiter.outcome.error
        assert isinstance(error, QueueUnavailable)
        assert error.should_retry is False, "it may have been queued, and started"
        eventually(lambda: status(redis, waiter.call_id) == "canceled")
        assert redis.llen(keyspace.RQ_QUEUE) == 1


def test_a_call_that_redis_may_have_taken_before_it_went_is_marked_once_it_is_back(
    make: Make, key: KeyRecord, server: RedisServer, impatient: None
) -> None:
    exchange = make(redis_url=server.url)
    assert server.process is not None
    with Redis.from_url(server.url, protocol=2) as redis:
        redis.hset(keyspace.key(key.public_id), mapping={"hmac": key.hmac})
        submit(exchange, key)
        server.process.send_signal(signal.SIGSTOP)
        the_plan = plan(exchange)
        waiter = exchange.submit(the_plan, b"{}", key, 600)
        assert waiter.wait(PATIENCE)
        server.process.kill()
        server.stop()
        server.start()
    with Redis.from_url(server.url, protocol=2) as redis:
        mark = keyspace.cancel(waiter.call_id)
        eventually(lambda: bool(redis.exists(mark)))
        assert 0 < redis.ttl(mark) <= keyspace.CANCEL_SECONDS
        command = dispatch.submit_command(exchange.settings, the_plan, b"{}", key, 600)
        redis.hset(keyspace.key(key.public_id), mapping={"hmac": key.hmac})
        assert scripts.run(redis, command) == b"cancelled", "should it arrive after all"


def test_a_connection_that_redis_has_closed_costs_no_call(
    redis: Redis, exchange: Exchange, key: KeyRecord
) -> None:
    for _ in range(3):
        redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert submit(exchange, key).outcome is None
    assert redis.llen(keyspace.RQ_QUEUE) == 3


def test_a_cancellation_is_given_up_when_no_late_submit_can_come_any_more(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyspace, "CANCEL_SECONDS", 0.1)
    monkeypatch.setattr(module, "CANCEL_RETRY_SECONDS", 0.01)
    exchange = make(redis_url=AWAY)
    with gevent.Timeout(PATIENCE):
        exchange._cancel_until_done("a" * 32)
    assert "could not be cancelled" in caplog.text


# events


def test_events_reach_the_call_that_they_are_of(exchange: Exchange, key: KeyRecord) -> None:
    first, second = submit(exchange, key), submit(exchange, key)
    exchange._on_event(Event(first.call_id, "c", 1, PARTS, b"one"))
    exchange._on_event(Event("unknown", "c", 1, PARTS, b"nobody's"))
    exchange._on_event(Event(second.call_id, "c", 1, PARTS, b"two"))
    assert (first.parts(), second.parts()) == ([b"one"], [b"two"])


def test_a_call_with_a_hole_in_its_answer_is_stopped(
    redis: Redis, exchange: Exchange, key: KeyRecord
) -> None:
    waiter = submit(exchange, key)
    start(redis)
    exchange._on_event(Event(waiter.call_id, "c", 2, PARTS, b"{}"))
    assert isinstance(waiter.outcome.error, ReplyLost)
    eventually(lambda: told(redis) == {waiter.call_id})


# leaving


def test_a_queued_call_whose_caller_leaves_is_removed(
    redis: Redis, exchange: Exchange, key: KeyRecord
) -> None:
    waiter = submit(exchange, key)
    exchange.leave(waiter)
    assert exchange.waiters == {}
    assert isinstance(waiter.outcome.error, CallCancelled)
    eventually(lambda: status(redis, waiter.call_id) == "canceled")
    assert redis.llen(keyspace.RQ_QUEUE) == 0


def test_a_started_call_whose_caller_leaves_is_stopped(
    redis: Redis, exchange: Exchange, key: KeyRecord
) -> None:
    waiter = submit(exchange, key)
    start(redis)
    exchange.leave(waiter)
    eventually(lambda: told(redis) == {waiter.call_id})


def test_an_answered_call_is_left_without_a_word_to_its_worker(
    redis: Redis, exchange: Exchange, key: KeyRecord
) -> None:
    waiter, other = submit(exchange, key), submit(exchange, key)
    start(redis)
    start(redis)
    waiter.end(Outcome(answer=b"{}"))
    exchange.leave(waiter)
    exchange.leave(other)  # whoever is told, is told in order
    eventually(lambda: bool(told(redis)))
    assert told(redis) == {other.call_id}
    assert exchange._monitor.delivered == [waiter.call_id]


def test_a_call_whose_client_has_gone_ends_and_is_stopped(
    redis: Redis, exchange: Exchange, key: KeyRecord
) -> None:
    waiter = submit(exchange, key)
    start(redis)
    exchange.abandon(waiter)
    assert waiter.wait(0)
    assert isinstance(waiter.outcome.error, CallCancelled)
    eventually(lambda: told(redis) == {waiter.call_id})
    exchange.leave(waiter)
    assert exchange.waiters == {}
    assert exchange._monitor.delivered == []  # its outcome tells what it has used


def test_a_client_that_goes_after_its_answer_changes_nothing(
    redis: Redis, exchange: Exchange, key: KeyRecord
) -> None:
    waiter, other = submit(exchange, key), submit(exchange, key)
    start(redis)
    start(redis)
    waiter.end(Outcome(answer=b"{}"))
    exchange.abandon(waiter)
    exchange.abandon(other)
    eventually(lambda: bool(told(redis)))
    assert told(redis) == {other.call_id}
    assert waiter.outcome == Outcome(answer=b"{}")


# the end


def test_at_the_end_queued_calls_may_be_sent_again_and_started_ones_not(
    redis: Redis, exchange: Exchange, key: KeyRecord
) -> None:
    started, queued, answered = (submit(exchange, key) for _ in range(3))
    start(redis)
    answered.end(Outcome(answer=b"{}"))
    exchange.end_all()
    assert isinstance(started.outcome.error, WorkerStopped)
    assert started.outcome.error.should_retry is False
    assert isinstance(queued.outcome.error, ShuttingDown)
    assert queued.outcome.error.should_retry is True
    assert queued.outcome.error.retry_after
    assert answered.outcome == Outcome(answer=b"{}")
    assert told(redis) == {started.call_id}
    assert redis.llen(keyspace.RQ_QUEUE) == 0


def test_at_the_end_no_call_is_promised_a_retry_that_redis_has_not_confirmed(
    make: Make, redis: Redis, exchange: Exchange, key: KeyRecord
) -> None:
    waiter = submit(exchange, key)
    exchange.redis = make(redis_url=AWAY).redis
    exchange.end_all()
    assert isinstance(waiter.outcome.error, WorkerStopped)


# the life of the process


def test_an_exchange_starts_once_and_gives_up_its_lease_at_the_end(
    settings: Settings, key: KeyRecord
) -> None:
    done: list[str] = []
    exchange: Any = Exchange(settings, connections.commands(settings, 1))
    exchange._lease = SimpleNamespace(
        start=lambda: done.append("lease"), release=lambda: done.append("released")
    )
    exchange._submitter = SimpleNamespace(
        run=lambda: done.append("submitter"), put=lambda submission: done.append("call")
    )
    exchange._reader = SimpleNamespace(run=lambda: done.append("reader"))
    exchange._monitor = SimpleNamespace(run=lambda: done.append("monitor"), delivered=[])
    exchange.close()
    assert done == []
    exchange._lease.redis_time = lambda seconds: 0
    exchange.submit(plan(exchange), b"{}", key, 600)
    exchange.start()
    eventually(lambda: len(done) == 5)
    assert done == ["lease", "call", "submitter", "reader", "monitor"]
    exchange.close()
    assert done[5:] == ["released"]


def test_every_web_process_has_a_name_of_its_own(make: Make) -> None:
    assert make().web != make().web
