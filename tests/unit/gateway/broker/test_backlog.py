"""How long refused callers are told to wait."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis

from gateway.broker.backlog import LATELY, LEAST_SECONDS, MOST_SECONDS, UNKNOWN_SECONDS, Backlog
from gateway.queue import keys
from gateway.queue.protocol import Outcome


def worked(seconds: float) -> Outcome:
    return Outcome(timings={"work": int(seconds * 1000)})


def backlog(slots: int, *seconds: float) -> Backlog:
    """One that knows of so many slots, and of calls that took so long."""
    made = Backlog()
    made.slots = slots
    for each in seconds:
        made.ended(worked(each))
    return made


def worker(redis: Redis, name: str, slots: int) -> None:
    redis.sadd(keys.RQ_WORKERS, keys.rq_worker(name))
    redis.set(keys.lease(name), slots)


@pytest.mark.parametrize(
    ("depth", "told"), [(0, LEAST_SECONDS), (1, LEAST_SECONDS), (100, 20.0), (9_999, MOST_SECONDS)]
)
def test_the_wait_is_depth_times_mean_by_slots_from_1_to_120_seconds(
    depth: int, told: float
) -> None:
    assert backlog(10, 1.0, 3.0).seconds(depth) == told


def test_before_anything_is_known_the_wait_is_a_constant() -> None:
    assert Backlog().seconds(500) == UNKNOWN_SECONDS
    assert backlog(10).seconds(500) == UNKNOWN_SECONDS
    assert backlog(0, 2.0).seconds(500) == UNKNOWN_SECONDS


def test_the_mean_forgets_what_was_long_ago() -> None:
    made = backlog(1, *[50.0] * LATELY, *[1.0] * 10 * LATELY)
    assert made.seconds(10) == pytest.approx(10.0, abs=0.1)


def test_a_single_slow_call_does_not_make_the_mean() -> None:
    made = backlog(1, *[1.0] * LATELY, 101.0)
    assert made.seconds(10) == pytest.approx(20.0, abs=0.1)


def test_an_outcome_that_no_worker_timed_says_nothing() -> None:
    made = backlog(1, 4.0)
    made.ended(Outcome())
    assert made.seconds(10) == 40


def test_a_depth_that_came_with_a_refusal_is_remembered_for_refusals_without() -> None:
    made = backlog(1, 4.0)
    made.seconds(10)
    assert made.seconds() == 40


def test_a_look_takes_the_depth_and_the_slots_of_all_live_workers(redis: Redis) -> None:
    made = backlog(0, 10.0)
    worker(redis, "worker-1", 20)
    worker(redis, "worker-2", 5)
    redis.sadd(keys.RQ_WORKERS, keys.rq_worker("dead"))
    redis.rpush(keys.RQ_QUEUE, *range(50))
    made.look(redis)
    assert made.seconds() == 20  # 50 calls of 10 s for 25 slots


def test_when_all_workers_have_gone_their_slots_are_remembered(redis: Redis) -> None:
    made = backlog(25, 10.0)
    made.look(redis)
    worker(redis, "worker-1", 0)  # one that stops
    made.look(redis)
    assert made.seconds(50) == 20


def test_redis_is_looked_at_only_after_the_backlog_was_used(redis: Redis) -> None:
    made: Any = backlog(1, 1.0)
    assert not made.wanted
    made.seconds(1)
    assert made.wanted
    made.look(redis)
    assert not made.wanted
