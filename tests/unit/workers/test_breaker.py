"""workers/breaker.py and its script: when a route is left alone, and when it is tried again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError

from gateway import errors
from gateway.errors import (
    GatewayError,
    UpstreamError,
    UpstreamFailed,
    UpstreamRejected,
    UpstreamThrottled,
)
from gateway.queue import keys, scripts
from tests.support.fakes import Clock
from workers.breaker import MAX_KEYS, MAX_ROUTES, UNREAD_SECONDS, WINDOW_SECONDS, Breakers

ROUTE, OTHER = "acme/model-2", "acme/model-3"
MOST, COOLDOWN = 3, 10.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breakers(clock: Clock) -> Breakers:
    """One worker's, that shares nothing."""
    return Breakers(MOST, COOLDOWN, clock)


def fail(breakers: Breakers, times: int = MOST, route: str = ROUTE) -> None:
    for _ in range(times):
        breakers.failed(route, UpstreamFailed())


# One worker


def test_failures_in_a_row_open_the_breaker_of_their_route_alone(breakers: Breakers) -> None:
    fail(breakers, MOST - 1)
    assert not breakers.blocks(ROUTE)
    fail(breakers, 1)
    assert breakers.blocks(ROUTE)
    assert not breakers.blocks(OTHER)


def test_an_answer_in_between_begins_the_count_again(breakers: Breakers) -> None:
    fail(breakers, MOST - 1)
    breakers.answered(ROUTE)
    assert breakers.troubled == {}
    fail(breakers, MOST - 1)
    assert not breakers.blocks(ROUTE)


def test_failures_far_apart_are_not_in_a_row(breakers: Breakers, clock: Clock) -> None:
    fail(breakers, MOST - 1)
    clock.now += WINDOW_SECONDS + 1
    fail(breakers, MOST - 1)
    assert not breakers.blocks(ROUTE)


def test_after_the_cool_down_one_call_is_let_through(breakers: Breakers, clock: Clock) -> None:
    fail(breakers)
    clock.now += COOLDOWN - 0.1
    assert breakers.blocks(ROUTE)
    clock.now += 0.1
    assert [breakers.blocks(ROUTE) for _ in range(4)] == [False, True, True, True]


def test_a_probe_that_is_answered_closes_the_breaker(breakers: Breakers, clock: Clock) -> None:
    fail(breakers)
    clock.now += COOLDOWN
    assert not breakers.blocks(ROUTE)
    breakers.answered(ROUTE)
    assert not any(breakers.blocks(ROUTE) for _ in range(3))


def test_a_probe_that_fails_keeps_it_open_for_another_cool_down(
    breakers: Breakers, clock: Clock
) -> None:
    fail(breakers)
    clock.now += COOLDOWN
    assert not breakers.blocks(ROUTE)
    fail(breakers, 1)
    clock.now += COOLDOWN - 0.1
    assert breakers.blocks(ROUTE)
    clock.now += 0.1
    assert not breakers.blocks(ROUTE)


def test_a_probe_that_never_ends_does_not_keep_it_open(breakers: Breakers, clock: Clock) -> None:
    fail(breakers)
    for _ in range(3):
        clock.now += COOLDOWN
        assert not breakers.blocks(ROUTE)


def test_calls_that_were_on_their_way_do_not_put_the_probe_off(
    breakers: Breakers, clock: Clock
) -> None:
    fail(breakers)
    clock.now += COOLDOWN - 1
    fail(breakers)
    clock.now += 1
    assert not breakers.blocks(ROUTE)


def test_only_a_call_made_after_the_last_failure_begins_the_count_again(
    breakers: Breakers, clock: Clock
) -> None:
    fail(breakers, MOST - 1)
    clock.now += 2
    breakers.answered(ROUTE, age=2.1)
    assert breakers.troubled[ROUTE].failures == MOST - 1
    breakers.answered(ROUTE, age=1.9)
    assert breakers.troubled == {}


# Several keys


def fail_by(breakers: Breakers, key: str, times: int = MOST) -> None:
    for _ in range(times):
        breakers.failed(ROUTE, UpstreamFailed(), key=key)


def test_one_keys_failing_calls_alone_do_not_divert_the_others(breakers: Breakers) -> None:
    fail_by(breakers, "one", 100)
    assert breakers.blocks(ROUTE, "one")
    assert not breakers.blocks(ROUTE, "other")
    assert not breakers.is_open(ROUTE, "other")


def test_another_key_that_finds_the_same_leaves_the_route_alone_too(breakers: Breakers) -> None:
    fail_by(breakers, "one")
    fail_by(breakers, "other", MOST - 1)
    assert not breakers.blocks(ROUTE, "other")
    fail_by(breakers, "other", 1)
    assert breakers.blocks(ROUTE, "other")
    assert breakers.blocks(ROUTE, "third")  # of two keys that failed, the calls of one count


def test_the_failures_of_several_keys_add_up(breakers: Breakers) -> None:
    for key in ("one", "two", "three", "four"):
        fail_by(breakers, key, 1)
    assert breakers.blocks(ROUTE, "five")  # one key's do not count, three keys' do
    assert breakers.blocks(ROUTE, "one")


def test_an_old_call_without_a_key_counts_for_all(breakers: Breakers) -> None:
    fail_by(breakers, "")
    assert breakers.blocks(ROUTE, "one")
    assert breakers.blocks(ROUTE)


def test_an_answer_to_one_key_closes_the_breaker_for_the_other(breakers: Breakers) -> None:
    fail_by(breakers, "one")
    breakers.answered(ROUTE)
    assert not breakers.blocks(ROUTE, "one")


def test_so_many_keys_are_counted_and_the_rest_counts_for_all(breakers: Breakers) -> None:
    for number in range(MAX_KEYS + 5):
        breakers.failed(ROUTE, UpstreamFailed(), key=f"key{number}")
    record = breakers.troubled[ROUTE]
    assert (record.failures, len(record.by_key)) == (MAX_KEYS + 5, MAX_KEYS)


@pytest.mark.parametrize("kind", list(errors.kinds()))
def test_only_failures_of_the_route_count(breakers: Breakers, kind: type[GatewayError]) -> None:
    for _ in range(MOST):
        breakers.failed(ROUTE, kind())
    of_the_route = issubclass(kind, UpstreamError) and not issubclass(
        kind, UpstreamRejected | UpstreamThrottled
    )
    assert breakers.blocks(ROUTE) == of_the_route


def test_names_that_callers_make_up_are_not_all_kept(breakers: Breakers) -> None:
    for number in range(MAX_ROUTES + 10):
        breakers.failed(f"acme/{number}", UpstreamFailed())
    assert len(breakers.troubled) == MAX_ROUTES


# All workers, through Redis


class Worker:
    """A worker's breakers on a real Redis; what it writes arrives at once."""

    def __init__(self, redis: Redis) -> None:
        self.written: list[str] = []
        self.clock = Clock(time.monotonic())
        self.breakers = Breakers(MOST, COOLDOWN, self.clock)
        self._redis = redis
        self.breakers.share(self._put, redis)

    def _put(self, command: tuple[Any, ...]) -> None:
        self.written.append(command[4])
        scripts.run(self._redis, command)

    def look(self) -> None:
        rows = self._redis.hgetall(keys.BREAKERS)
        seconds, microseconds = self._redis.time()  # type: ignore[misc]
        self.breakers.learn(rows, seconds + microseconds / 1e6)  # type: ignore[arg-type]


@pytest.fixture
def two(redis: Redis) -> Iterator[tuple[Worker, Worker]]:
    yield Worker(redis), Worker(redis)


Two = tuple[Worker, Worker]


def end_cooldown(redis: Redis, route: str = ROUTE) -> None:
    """As if the cool-down were over, in Redis."""
    failures, last, _ = redis.hget(keys.BREAKERS, route).split(b" ")  # type: ignore[union-attr]
    redis.hset(keys.BREAKERS, route, b"%b %b 1" % (failures, last))


def test_what_one_worker_has_opened_the_other_leaves_alone(two: Two) -> None:
    one, other = two
    fail(one.breakers)
    assert not other.breakers.blocks(ROUTE)
    other.look()
    assert other.breakers.blocks(ROUTE)


def test_failures_of_different_workers_add_up(two: Two) -> None:
    one, other = two
    fail(one.breakers, 2)
    fail(other.breakers, 1)
    for worker in two:
        worker.look()
        assert worker.breakers.blocks(ROUTE)


def test_what_one_key_finds_at_one_worker_diverts_only_it_at_the_other(two: Two) -> None:
    one, other = two
    fail_by(one.breakers, "one")
    other.look()
    assert other.breakers.blocks(ROUTE, "one")
    assert not other.breakers.blocks(ROUTE, "other")
    fail_by(other.breakers, "other")
    one.look()
    assert one.breakers.blocks(ROUTE, "other")
    assert one.breakers.blocks(ROUTE, "third")


def test_a_probe_is_given_by_what_counts_for_its_key(redis: Redis, two: Two) -> None:
    one, other = two
    fail_by(one.breakers, "one")
    other.look()
    for worker in two:
        worker.clock.now += COOLDOWN + 1
    assert one.breakers.blocks(ROUTE, "one")  # Redis' cool-down lasts
    assert not other.breakers.blocks(ROUTE, "other")


def test_what_one_worker_closes_is_closed_for_the_other(two: Two) -> None:
    one, other = two
    fail(one.breakers)
    other.look()
    one.breakers.answered(ROUTE)
    other.clock.now += UNREAD_SECONDS
    other.look()
    assert other.breakers.troubled == {}


def test_of_all_workers_one_probes(redis: Redis, two: Two) -> None:
    fail(two[0].breakers)
    two[1].look()
    end_cooldown(redis)
    for worker in two:
        worker.clock.now += COOLDOWN + 1
    assert [worker.breakers.blocks(ROUTE) for worker in two] == [False, True]


def test_a_probe_is_not_given_before_redis_says_so(two: Two) -> None:
    one, _ = two
    fail(one.breakers)
    one.clock.now += COOLDOWN + 1  # this worker's clock is ahead
    assert one.breakers.blocks(ROUTE)


def test_an_own_failure_that_redis_does_not_show_yet_is_kept(redis: Redis, two: Two) -> None:
    one, _ = two
    fail(one.breakers)
    redis.delete(keys.BREAKERS)
    one.look()
    assert one.breakers.blocks(ROUTE)
    one.clock.now += UNREAD_SECONDS
    one.look()
    assert not one.breakers.blocks(ROUTE)


def test_only_failures_and_the_first_answer_after_them_are_written(two: Two) -> None:
    one, _ = two
    one.breakers.answered(ROUTE)
    assert one.written == []
    fail(one.breakers, 2)
    for _ in range(5):
        one.breakers.answered(ROUTE)
    assert one.written == ["failed", "failed", "answered"]


def test_an_outage_does_not_write_for_every_call(two: Two) -> None:
    one, _ = two
    fail(one.breakers, 100)
    assert one.written == ["failed"] * MOST


@pytest.mark.parametrize(
    "value",
    [b"", b"CANARY", b"1 2", b"1 2 x", b"\xff 1 2", b"9 2 3 x", b"9 2 3 a=b", b"9 2 3 a=1=2"],
)
def test_a_record_that_is_none_is_as_good_as_absent(redis: Redis, two: Two, value: bytes) -> None:
    redis.hset(keys.BREAKERS, ROUTE, value)
    one, _ = two
    one.look()
    assert not one.breakers.blocks(ROUTE)
    fail(one.breakers)
    one.look()
    assert one.breakers.blocks(ROUTE)


def test_without_redis_each_worker_goes_by_what_it_saw(clock: Clock) -> None:
    class Away:
        def execute_command(self, *command: Any) -> Any:
            raise ConnectionError

    breakers = Breakers(MOST, COOLDOWN, clock)
    breakers.share(lambda command: None, Away())  # type: ignore[arg-type]
    fail(breakers)
    assert breakers.blocks(ROUTE)
    clock.now += COOLDOWN
    assert [breakers.blocks(ROUTE) for _ in range(3)] == [False, True, True]


# The script


def run(
    redis: Redis,
    what: str,
    route: str = ROUTE,
    window: int = 30_000,
    most: int = 10,
    age: int = 0,
    key: str = "",
) -> int:
    args = [what, route, MOST, window, 10_000, most, 60, age, key, 2]
    return scripts.BREAKER(redis, [keys.BREAKERS], args)  # type: ignore[no-any-return]


def record(redis: Redis, route: str = ROUTE) -> list[int]:
    return [int(text) for text in redis.hget(keys.BREAKERS, route).split()]  # type: ignore[union-attr]


def test_the_script_counts_and_opens_for_the_cool_down(redis: Redis) -> None:
    run(redis, "failed")
    failures, last, opened = record(redis)
    assert (failures, opened) == (1, 0)
    assert abs(last - time.time() * 1000) < 60_000
    run(redis, "failed")
    run(redis, "failed")
    failures, last, opened = record(redis)
    assert (failures, opened) == (3, last + 10_000)
    assert run(redis, "probe") == 0


def test_the_script_counts_by_key(redis: Redis) -> None:
    for key in ("a", "b", "a", "c", "a"):
        run(redis, "failed", key=key)
    row = redis.hget(keys.BREAKERS, ROUTE)
    assert isinstance(row, bytes)
    failures, *_, one, two = row.split()
    assert failures == b"5"
    assert {one, two} == {b"a=3", b"b=1"}  # of a third key it counts the failures alone
    assert run(redis, "probe", key="a") == 0  # 5 without b's
    assert run(redis, "probe", key="b") == 1  # 5 without a's
    assert run(redis, "probe") == 0


def test_the_script_reads_the_rows_of_the_previous_release(redis: Redis) -> None:
    now = int(time.time() * 1000)
    redis.hset(keys.BREAKERS, ROUTE, f"{MOST} {now} {now + 9_000}")
    assert run(redis, "probe", key="a") == 0


def test_the_script_lets_one_probe_through(redis: Redis) -> None:
    for _ in range(MOST):
        run(redis, "failed")
    end_cooldown(redis)
    assert [run(redis, "probe") for _ in range(3)] == [1, 0, 0]


def test_the_script_lets_every_call_to_a_closed_route_through(redis: Redis) -> None:
    assert run(redis, "probe") == 1
    run(redis, "failed")
    assert [run(redis, "probe") for _ in range(3)] == [1, 1, 1]


def test_the_script_forgets_failures_that_are_not_in_a_row(redis: Redis) -> None:
    run(redis, "failed")
    redis.hset(keys.BREAKERS, ROUTE, "2 1000 0")
    run(redis, "failed")
    assert record(redis)[0] == 1


def test_the_script_closes(redis: Redis) -> None:
    run(redis, "failed")
    run(redis, "failed", OTHER)
    run(redis, "answered")
    assert redis.hkeys(keys.BREAKERS) == [OTHER.encode()]


def test_the_script_keeps_so_many_routes_and_no_more(redis: Redis) -> None:
    for number in range(5):
        run(redis, "failed", f"acme/{number}", most=3)
        assert redis.hexists(keys.BREAKERS, f"acme/{number}")
    assert redis.hlen(keys.BREAKERS) == 3


def test_the_script_makes_room_by_forgetting_the_oldest_that_is_not_open(redis: Redis) -> None:
    now = int(time.time() * 1000)
    redis.hset(keys.BREAKERS, "acme/open", f"{MOST} {now - 9_000} {now + 1_000}")
    redis.hset(keys.BREAKERS, "acme/older", f"1 {now - 8_000} 0")
    redis.hset(keys.BREAKERS, "acme/newer", f"1 {now - 7_000} 0")
    run(redis, "failed", "acme/new", most=3)
    assert set(redis.hkeys(keys.BREAKERS)) == {b"acme/newer", b"acme/new", b"acme/open"}


def test_an_answer_asked_for_before_the_last_failure_closes_nothing(redis: Redis) -> None:
    run(redis, "failed")
    run(redis, "answered", age=60_000)
    assert record(redis)[0] == 1
    run(redis, "answered")
    assert not redis.exists(keys.BREAKERS)


def test_a_time_in_the_future_blocks_no_longer_than_a_cool_down(redis: Redis) -> None:
    later = int(time.time() * 1000) + 3_600_000
    redis.hset(keys.BREAKERS, ROUTE, f"{MOST} {later} {later}")
    run(redis, "failed")
    failures, last, opened = record(redis)
    assert failures == MOST + 1
    assert opened <= last + 10_000


def test_the_hash_ends_by_itself(redis: Redis) -> None:
    run(redis, "failed")
    assert 0 < redis.ttl(keys.BREAKERS) <= 60  # type: ignore[operator]


def test_made_up_models_do_not_keep_a_real_breaker_from_opening() -> None:
    breakers = Breakers(MOST, 10.0, Clock())
    for number in range(MAX_ROUTES):
        breakers.failed(f"acme/made-up-{number}", UpstreamFailed())
    for _ in range(MOST):
        breakers.failed(ROUTE, UpstreamFailed())
    assert breakers.is_open(ROUTE)
    assert len(breakers.troubled) == MAX_ROUTES
    for number in range(MAX_ROUTES):
        breakers.failed(f"acme/more-{number}", UpstreamFailed())
    assert breakers.is_open(ROUTE)
