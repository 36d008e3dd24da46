"""workers/claims.py on a real Redis whose replies are lost, and on one that is away."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError, NoScriptError, TimeoutError

from gateway.account.api_keys import KeyRecord, KeyStore
from gateway.catalogue.target import Target
from gateway.errors import JobLost
from gateway.queue import clients, commands, keys, scripts
from gateway.queue.clients import DedicatedConnection
from gateway.queue.protocol import CallSpec
from gateway.settings import Settings
from tests.support.fakes import admission
from workers import claims
from workers.claims import Claims, _claimed, opened

WEB, WORKER = "web-1", "worker-1"
BODY = b'{"messages":[]}'
SPEC = CallSpec("call-1", WEB, False, (Target("demo/echo", "demo", "echo"),))
BELLS: list[Any] = []


class Lossy:
    """A Redis that loses the replies to the first claims: before it gets them, or after it has run
    them. It is a client for short commands and the connection of the bell in one."""

    def __init__(self, redis: Redis, *errors: Exception, after: bool) -> None:
        self.claims: list[tuple[Any, ...]] = []
        self._redis, self._errors, self._after = redis, list(errors), after
        self._bell = DedicatedConnection(redis)

    def execute_command(self, *command: Any) -> Any:
        if command[0] != "EVALSHA":
            return self._redis.execute_command(*command)
        return self.lose(command, lambda: self._redis.execute_command(*command))

    def round_trip(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        def run() -> list[Any]:
            replies = self._bell.round_trip(commands)
            if isinstance(replies[-1], NoScriptError):
                replies[-1] = scripts.run(self._redis, commands[-1])
            return replies

        replies: list[Any] = self.lose(commands[-1], run)
        return replies

    def lose(self, command: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        reply = run() if self._after or not self._errors else None
        self.claims.append(command)
        if self._errors:
            raise self._errors.pop(0)
        return reply


@pytest.fixture(autouse=True)
def bells() -> Iterator[None]:
    """Closes connections: tracebacks may keep them until garbage is collected in another test."""
    yield
    while BELLS:
        BELLS.pop().disconnect()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RETRY_SECONDS", 0)
    monkeypatch.setattr(clients, "BLOCK_SECONDS", 0.01)


@pytest.fixture
def submit(redis: Redis, settings: Settings) -> Iterator[Callable[[], str]]:
    """A function that queues one more call and returns its id."""
    store = KeyStore(redis, settings.key_pepper)
    key: KeyRecord = store.verify(store.create("tests"))

    def submit(body: bytes = BODY) -> str:
        spec = CallSpec(uuid.uuid4().hex, WEB, False, (Target("demo/echo", "demo", "echo"),))
        command = commands.submit_command(settings, spec, body, admission(key), 600)
        assert scripts.run(redis, command)[0] == b"ok"
        return spec.call_id

    yield submit


def claims_of(redis: Any, judge: bool = False) -> Claims:
    def judge_until() -> float:
        return time.time() + 60 if judge else 0.0

    if isinstance(redis, Lossy):
        bell: Any = redis
    else:
        bell = DedicatedConnection(redis)
        BELLS.append(bell)
    return Claims(redis, bell, WORKER, judge_until)


def never() -> bool:
    return False


def always() -> bool:
    return True


def take(redis: Any, slots: int = 10) -> list[str]:
    return [claimed.call_id for claimed in claims_of(redis).take(slots, never)]


def test_waiting_calls_are_started_for_this_worker(redis: Redis, submit: Callable[[], str]) -> None:
    ids = [submit() for _ in range(3)]
    taken = claims_of(redis).take(10, never)
    assert [claimed.call_id for claimed in taken] == ids
    for claimed in taken:
        assert claimed.web == WEB
        assert 590 < claimed.budget <= 600
        assert claimed.payload is not None
        spec, body = CallSpec.decode(claimed.payload)
        assert (spec.call_id, body) == (claimed.call_id, BODY)
    assert len({claimed.claim for claimed in taken}) == 1
    states = commands.states(redis, ids)
    assert {(state.status, state.worker, state.claim) for state in states} == {
        ("started", WORKER, taken[0].claim)
    }


def test_a_worker_takes_no_more_than_it_has_slots_for(
    redis: Redis, submit: Callable[[], str]
) -> None:
    ids = [submit() for _ in range(5)]
    assert [take(redis, 2), take(redis, 2), take(redis, 2), take(redis, 2)] == [
        ids[:2],
        ids[2:4],
        ids[4:],
        [],
    ]


def test_a_worker_with_many_slots_takes_a_batch_at_a_time(
    redis: Redis, submit: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "BATCH", 2)
    ids = [submit() for _ in range(3)]
    assert take(redis, 1000) == ids[:2]


def test_calls_with_large_bodies_are_taken_one_at_a_time(
    redis: Redis, submit: Callable[..., str]
) -> None:
    large = b'"%b"' % (b"x" * 2_000_000)
    ids = [submit(), submit(large), submit(large), submit()]
    assert [take(redis), take(redis), take(redis)] == [ids[:2], ids[2:3], ids[3:]]


@pytest.mark.parametrize("again", [False, True])
def test_a_large_body_is_left_to_be_read_apart(
    redis: Redis, submit: Callable[..., str], again: bool
) -> None:
    large, small = submit(b'"%b"' % (b"x" * 256_000)), submit()
    claims = claims_of(redis)
    taken = {each.call_id: each for each in claims.take(10, never)}
    if again:
        claim = taken[small].claim
        reply = scripts.run(redis, claims.command(claim, 0, again=True))
        taken = {each.call_id: each for each in _claimed(reply, claim)}
    assert (taken[large].large, taken[large].payload) == (redis.strlen(keys.call(large)), None)
    assert (taken[small].large, taken[small].payload is None) == (0, False)


def test_a_call_whose_body_is_lost_is_taken_without_one(
    redis: Redis, submit: Callable[[], str]
) -> None:
    redis.delete(keys.call(submit()))
    (claimed,) = claims_of(redis).take(10, never)
    assert claimed.payload is None


@pytest.mark.parametrize("judge", [False, True])
def test_calls_of_a_web_process_without_a_lease_are_dropped_only_by_who_may_judge(
    redis: Redis, submit: Callable[[], str], judge: bool
) -> None:
    call_id = submit()
    taken = claims_of(redis, judge).take(10, never)
    assert [claimed.call_id for claimed in taken] == ([] if judge else [call_id])


def test_a_claim_that_redis_runs_late_drops_nobodys_calls(
    redis: Redis, submit: Callable[[], str]
) -> None:
    call_id = submit()
    late = Claims(redis, DedicatedConnection(redis), WORKER, lambda: time.time() - 0.1)
    assert [claimed.call_id for claimed in late.take(10, never)] == [call_id]


def test_a_call_has_not_started_before_it_was_made(
    redis: Redis, submit: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims.commands, "now_text", lambda: "2000-01-01T00:00:00.000000Z")
    early = claims_of(redis)
    command = early.command("c1", 10)
    monkeypatch.undo()
    call_id = submit()
    scripts.run(redis, command)
    created, started = redis.hmget(keys.job(call_id), "created_at", "started_at")
    assert started == created


losses = pytest.mark.parametrize(
    "errors",
    [
        [ConnectionError()],
        [TimeoutError()],
        [TimeoutError(), ConnectionError(), ConnectionError()],
    ],
    ids=["reset", "silence", "thrice"],
)


@losses
def test_a_batch_whose_reply_is_lost_is_taken_exactly_once(
    redis: Redis, submit: Callable[[], str], errors: list[Exception]
) -> None:
    ids = [submit() for _ in range(3)]
    lossy = Lossy(redis, *errors, after=True)
    taken = claims_of(lossy).take(10, never)
    assert sorted(claimed.call_id for claimed in taken) == sorted(ids)
    assert all(claimed.payload is not None for claimed in taken)
    assert {state.claim for state in commands.states(redis, ids)} == {taken[0].claim}
    assert take(redis) == []
    assert len(lossy.claims) == len(errors) + 1


def test_calls_that_came_after_the_lost_reply_are_left_to_the_next_claim(
    redis: Redis, submit: Callable[[], str]
) -> None:
    first, second = submit(), submit()
    lossy = Lossy(redis, ConnectionError(), after=True)
    assert take(lossy, 1) == [first]
    assert take(redis) == [second]


@losses
def test_a_claim_that_never_arrived_takes_nothing_and_loses_nothing(
    redis: Redis, submit: Callable[[], str], errors: list[Exception]
) -> None:
    ids = [submit() for _ in range(3)]
    lossy = Lossy(redis, *errors, after=False)
    claim = claims_of(lossy)
    assert claim.take(10, never) == []
    assert [claimed.call_id for claimed in claim.take(10, never)] == ids


def test_a_claim_that_arrives_after_it_was_given_up_for_lost_takes_nothing(
    redis: Redis, submit: Callable[[], str]
) -> None:
    call_id = submit()
    lossy = Lossy(redis, ConnectionError(), after=False)
    assert take(lossy) == []
    assert redis.execute_command(*lossy.claims[0]) == []
    assert take(redis) == [call_id]


def test_a_worker_that_stops_asks_once_what_it_took(
    redis: Redis, submit: Callable[[], str]
) -> None:
    submit()
    lossy = Lossy(redis, *(ConnectionError() for _ in range(5)), after=False)
    assert claims_of(lossy).take(10, always) == []
    assert len(lossy.claims) == 2


def test_a_worker_that_does_not_stop_asks_until_redis_is_back(redis: Redis) -> None:
    lossy = Lossy(redis, *(ConnectionError() for _ in range(100)), after=False)
    answers = iter([False] * 20 + [True])
    assert claims_of(lossy).take(10, lambda: next(answers)) == []
    assert len(lossy.claims) == 21
    assert len({command[6 + 2] for command in lossy.claims}) == 1, "one claim, asked again"


def test_a_worker_that_stops_keeps_what_a_claim_brings(
    redis: Redis, submit: Callable[[], str]
) -> None:
    call_id = submit()
    taken = claims_of(redis).take(10, always)
    assert [claimed.call_id for claimed in taken] == [call_id]


def test_a_refused_claim_is_logged_and_takes_nothing(
    redis: Redis, submit: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    redis.set(keys.RQ_QUEUE, "not a list")
    assert take(redis) == []
    assert caplog.text.count("refused") == 1
    redis.delete(keys.RQ_QUEUE)
    call_id = submit()
    assert take(redis) == [call_id]


def test_a_refusal_after_a_lost_reply_does_not_lose_the_batch(
    redis: Redis, submit: Callable[[], str]
) -> None:
    call_id = submit()

    class Troubled(Lossy):
        def execute_command(self, *command: Any) -> Any:
            if (
                len(self.claims) == 1
            ):  # for one moment something else stands in the registry's place
                self._redis.rename(keys.RQ_STARTED, "aside")
                self._redis.set(keys.RQ_STARTED, "not a sorted set")
                try:
                    self.claims.append(command)
                    return self._redis.execute_command(*command)
                finally:
                    self._redis.rename("aside", keys.RQ_STARTED)
            return super().execute_command(*command)

    troubled = Troubled(redis, ConnectionError(), after=True)
    assert take(troubled) == [call_id]
    assert len(troubled.claims) == 3


def test_scripts_that_redis_forgot_are_loaded(redis: Redis, submit: Callable[[], str]) -> None:
    call_id = submit()
    redis.script_flush()
    assert take(redis) == [call_id]


# the bell


def wait_for_a_waiting_client(redis: Redis) -> None:
    while not redis.info("clients")["blocked_clients"]:
        pass


def test_a_bell_that_rang_before_is_heard_at_once(
    redis: Redis, submit: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "BLOCK_SECONDS", 60)  # the test's client gives up before
    call_id = submit()
    assert take(redis) == [call_id]
    assert not redis.exists(keys.BELL)


def test_a_call_that_comes_while_a_worker_waits_is_taken_without_asking_again(
    settings: Settings, redis: Redis, submit: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "BLOCK_SECONDS", 3)
    bell = DedicatedConnection(clients.blocking(settings))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(Claims(redis, bell, WORKER, lambda: 0.0).take, 10, never)
        wait_for_a_waiting_client(redis)
        reads = redis.info("stats")["total_reads_processed"]
        call_id = submit()
        (claimed,) = waiting.result(timeout=10)
    assert claimed.call_id == call_id
    # The test's own: two INFOs, and a submit.
    assert redis.info("stats")["total_reads_processed"] - reads <= 2
    bell.disconnect()


def test_a_bell_that_does_not_ring_is_not_waited_for_for_ever(
    redis: Redis, submit: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    call_id = submit()
    redis.delete(keys.BELL)
    assert take(redis) == [call_id], "a lost bell delays a call, no more"
    assert caplog.records == []


def test_a_worker_that_is_told_to_stop_does_not_wait_for_the_bell(
    settings: Settings, redis: Redis, submit: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "BLOCK_SECONDS", 60)
    bell = DedicatedConnection(clients.blocking(settings))
    claim = Claims(redis, bell, WORKER, lambda: 0.0)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(claim.take, 10, always)
        wait_for_a_waiting_client(redis)
        claim.interrupt()
        assert waiting.result(timeout=10) == []
    call_id = submit()
    assert take(redis) == [call_id], "the claim that was broken off takes nothing later"
    bell.disconnect()


def test_a_bell_whose_redis_is_away_is_told_and_asked_again_elsewhere(
    settings: Settings, redis: Redis, submit: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    submit()
    away = clients.blocking(replace(settings, redis_url="unix:///nowhere/redis.sock"))
    assert Claims(redis, DedicatedConnection(away), WORKER, lambda: 0.0).take(10, never) == []
    assert "Redis is away" in caplog.text


def test_a_claimed_call_opens_into_its_spec_and_body() -> None:
    assert opened(SPEC.encode(BODY), SPEC.call_id) == (SPEC, BODY)


@pytest.mark.parametrize(
    "payload",
    [
        None,
        b"",
        b"CANARY",
        b"\xff\x00\n{}",
        b"[]\n{}",
        b"{}\n{}",
        b'{"v":1}\n{}',
        b'{"v":1,"CANARY":1}\n{}',
        SPEC.encode(BODY).replace(b'"v":1', b'"v":2', 1),
    ],
)
def test_a_record_that_is_not_one_of_ours_is_a_lost_call(
    payload: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(JobLost):
        opened(payload, SPEC.call_id)
    assert "CANARY" not in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * (payload is not None)
