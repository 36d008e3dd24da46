"""workers/leftovers.py: what killed processes leave behind."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
from redis import Redis

from gateway.account.api_keys import KeyStore
from gateway.account.records import Record
from gateway.catalogue.target import Target
from gateway.errors import WorkerLost
from gateway.queue import commands, keys, scripts
from gateway.queue.clients import DedicatedConnection
from gateway.queue.protocol import CallSpec
from gateway.settings import Settings
from tests.support.fakes import admission
from workers.claims import Claims
from workers.leftovers import Leftovers


class SteadyLease:
    connection = 0

    @staticmethod
    def steady() -> bool:
        return True


def start_call(
    redis: Redis, settings: Settings, worker: str, logged: bool = False, **request: int
) -> str:
    """Have `worker` claim one call, and read its body no further."""
    store = KeyStore(redis, settings.key_pepper)
    key = store.verify(store.create("tests"))
    call_id = uuid.uuid4().hex
    address = keys.log_address(call_id, 60) if logged else "web-1"
    spec = CallSpec(call_id, address, False, (Target("demo/echo", "demo", "echo"),))
    command = commands.submit_command(
        settings, spec, b"{}", replace(admission(key), **request), 600
    )
    assert scripts.run(redis, command)[0] == b"ok"
    claims = Claims(redis, DedicatedConnection(redis), worker, lambda: 0.0)
    (claimed,) = claims.take(1, lambda: True)
    return claimed.call_id


@pytest.fixture
def leftovers(redis: Redis) -> Leftovers:
    return Leftovers(redis, SteadyLease())  # type: ignore[arg-type]


def test_a_call_of_a_killed_worker_leaves_nothing_for_long(
    redis: Redis, settings: Settings, leftovers: Leftovers
) -> None:
    call_id = start_call(redis, settings, "killed")
    assert (leftovers.sweep(), leftovers.sweep(), leftovers.sweep()) == (0, 1, 0)
    assert redis.zcard(keys.RQ_STARTED) == 0
    assert not redis.exists(keys.call(call_id))
    (outcome,) = commands.outcomes(redis, [call_id])
    assert outcome is not None
    assert isinstance(outcome.error, WorkerLost)
    lasting = [
        name for name in redis.keys() if not 0 <= redis.ttl(name) <= 120  # seconds
    ]  # fmt: skip
    assert not [name for name in lasting if call_id.encode() in name]
    assert keys.inbox("web-1").encode() not in lasting


def test_a_lost_call_is_recorded_with_an_estimate_of_its_prompt(
    redis: Redis, settings: Settings, leftovers: Leftovers
) -> None:
    call_id = start_call(redis, settings, "killed", prompt_tokens=40, prompt_nano=600)
    for _ in range(3):
        leftovers.sweep()
    ((_, fields),) = redis.xrange(keys.RECORDS)
    record = Record.decode(fields[b"r"])
    assert (record.id, record.status, record.error_code) == (call_id, "lost", "worker_lost")
    assert (record.usage, record.usage_source) == ({"input": 40, "output": 0}, "estimated")
    assert (record.cost_nano, record.worker) == (600, "killed")


def test_a_call_that_nobody_ended_long_after_its_deadline_is_lost_whoever_lives(
    redis: Redis, settings: Settings, leftovers: Leftovers
) -> None:
    call_id = start_call(redis, settings, "alive")
    redis.set(keys.lease("alive"), 1)
    ((member, _),) = redis.zrange(keys.RQ_STARTED, 0, -1, withscores=True)
    redis.zadd(keys.RQ_STARTED, {member: 1, "gone:claim": 1})
    assert leftovers.sweep() == 1
    assert redis.zcard(keys.RQ_STARTED) == 0
    ((_, fields),) = redis.xrange(keys.RECORDS)
    assert Record.decode(fields[b"r"]).id == call_id


def test_a_call_of_a_worker_that_lives_is_left_alone(
    redis: Redis, settings: Settings, leftovers: Leftovers
) -> None:
    call_id = start_call(redis, settings, "alive")
    redis.set(keys.lease("alive"), 1)
    assert [leftovers.sweep() for _ in range(3)] == [0, 0, 0]
    assert redis.exists(keys.call(call_id))


def test_an_entry_without_a_job_is_left_to_its_score(redis: Redis, leftovers: Leftovers) -> None:
    redis.zadd(keys.RQ_STARTED, {"gone:claim": 9e9})
    assert [leftovers.sweep() for _ in range(3)] == [0, 0, 0]


def test_a_logged_call_that_may_runs_once_more(
    redis: Redis, settings: Settings, leftovers: Leftovers
) -> None:
    call_id = start_call(redis, settings, "killed", logged=True, retry=True)
    assert [leftovers.sweep() for _ in range(3)] == [0, 0, 0]
    assert commands.states(redis, [call_id])[0].status == "queued"
    assert redis.zcard(keys.RQ_STARTED) == 0
    claims = Claims(redis, DedicatedConnection(redis), "killed", lambda: 0.0)
    claims.take(1, lambda: True)
    assert [leftovers.sweep() for _ in range(3)] == [0, 1, 0]


def test_a_call_that_somebody_waits_for_is_left_to_who_knows_what_has_come(
    redis: Redis, settings: Settings, leftovers: Leftovers
) -> None:
    call_id = start_call(redis, settings, "killed", retry=True)
    assert [leftovers.sweep() for _ in range(2)] == [0, 1]
    assert commands.states(redis, [call_id])[0].status == "failed"
