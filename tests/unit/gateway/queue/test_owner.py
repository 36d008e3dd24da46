"""gateway/queue/owner.py, and the prefix of all names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from gateway.queue import keys, owner
from gateway.settings import ConfigurationError

OURS, THEIRS = "o" * 40, "t" * 40


@pytest.fixture
def prefix() -> Iterator[str]:
    keys.use_prefix("staging:")
    yield "staging:"
    keys.use_prefix("")


def run_somebody(redis: Redis) -> None:
    redis.set(keys.lease("web-1"), 0)


def test_names_are_taken_once_and_for_all_processes_of_a_service(redis: Redis) -> None:
    owner.check(redis, OURS)
    owner.take(redis, OURS)
    run_somebody(redis)
    owner.take(redis, OURS)
    owner.check(redis, OURS)


@pytest.mark.parametrize("ask", [owner.check, owner.take], ids=["check", "take"])
def test_another_service_that_runs_is_found(redis: Redis, ask) -> None:
    owner.take(redis, THEIRS)
    run_somebody(redis)
    with pytest.raises(ConfigurationError, match=r"^REDIS_PREFIX must "):
        ask(redis, OURS)
    owner.check(redis, THEIRS)


def test_names_of_a_service_that_has_ended_are_taken_over(redis: Redis) -> None:
    """After a change of the pepper, for instance."""
    owner.take(redis, THEIRS)
    owner.check(redis, OURS)
    owner.take(redis, OURS)
    run_somebody(redis)
    with pytest.raises(ConfigurationError):
        owner.check(redis, THEIRS)


def test_a_prefix_keeps_two_services_apart(redis: Redis, prefix: str) -> None:
    run_somebody(redis)
    owner.take(redis, OURS)
    keys.use_prefix("")
    owner.take(redis, THEIRS)


def test_redis_does_not_learn_the_pepper(redis: Redis) -> None:
    owner.take(redis, OURS)
    assert OURS.encode() not in redis.get(keys.OWNER)


def test_every_name_of_the_service_has_the_prefix(prefix: str) -> None:
    for name, value in vars(keys).items():
        if name.isupper() and isinstance(value, str) and name not in ("RQ_QUEUES", "RQ_SUSPENDED"):
            assert prefix in value, name
    made = {keys.key, keys.call, keys.outcome, keys.cancel, keys.claim, keys.inbox, keys.lease}
    made |= {keys.owner_record, keys.spend, keys.held, keys.flight, keys.parked, keys.rate}
    assert all(make("x").startswith(prefix) for make in made)


@pytest.mark.parametrize("ask", [owner.check, owner.take], ids=["check", "take"])
def test_processes_with_the_old_pepper_are_this_service_s(redis: Redis, ask) -> None:
    owner.take(redis, THEIRS)
    run_somebody(redis)
    ask(redis, OURS, THEIRS)
    owner.take(redis, OURS, THEIRS)
    owner.check(redis, THEIRS, OURS)
    with pytest.raises(ConfigurationError):
        owner.check(redis, THEIRS)
