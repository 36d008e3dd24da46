"""lua/look.lua and lua/store.lua: who makes a call, and what is kept within which bounds."""

from __future__ import annotations

import pytest
from redis import Redis

from gateway.queue import commands, keys, scripts

NAME = "a" * 64
MOST = 1_000


def look(redis: Redis, call_id: str, name: str = NAME) -> tuple[bytes, bytes]:
    return commands.look_for_response(redis, name, call_id, 600)


def store(redis: Redis, name: str, size: int, seconds: int = 60, most: int = MOST) -> int:
    result: int = scripts.run(
        redis, commands.store_command(name, name[:1].encode() * size, seconds, most)
    )
    return result


def job(redis: Redis, call_id: str, status: str) -> None:
    redis.hset(keys.job(call_id), "status", status)


def kept(redis: Redis) -> list[str]:
    prefix = keys.cached("")
    return sorted(key.decode().removeprefix(prefix) for key in redis.keys(f"{prefix}*"))


# Look


def test_the_first_call_runs_and_is_told_the_same_again(redis: Redis) -> None:
    assert look(redis, "one") == (b"first", b"")
    assert look(redis, "one") == (b"first", b"")


@pytest.mark.parametrize("status", ["queued", "deferred", "started"])
def test_the_others_wait_while_it_waits_or_runs(redis: Redis, status: str) -> None:
    look(redis, "one")
    assert look(redis, "two") == (b"wait", b"")  # it is on its way into the queue
    job(redis, "one", status)
    assert look(redis, "two") == (b"wait", b"")
    assert look(redis, "three", "b" * 64) == (b"first", b"")


def test_nobody_waits_for_a_call_that_is_paused(redis: Redis) -> None:
    """Keys of an owner may share responses, and each can be paused by itself."""
    look(redis, "one")
    job(redis, "one", "deferred")
    redis.hset(keys.job("one"), "aside", "key:another")
    assert look(redis, "two") == (b"first", b"")
    assert look(redis, "three") == (b"wait", b"")


@pytest.mark.parametrize("status", ["finished", "failed"])
def test_each_runs_by_itself_if_the_first_has_left_nothing(redis: Redis, status: str) -> None:
    look(redis, "one")
    job(redis, "one", status)
    assert look(redis, "two") == (b"run", b"")
    assert look(redis, "three") == (b"first", b"")  # it came later


def test_the_next_takes_the_place_of_a_call_that_was_given_up(redis: Redis) -> None:
    look(redis, "one")
    job(redis, "one", "canceled")
    assert look(redis, "two") == (b"first", b"")
    assert look(redis, "three") == (b"wait", b"")


def test_the_next_takes_the_place_of_a_call_that_never_came_into_the_queue(redis: Redis) -> None:
    long_ago = int(redis.time()[0]) - commands.SUBMIT_SECONDS - 1  # type: ignore[index]
    redis.set(keys.first_call(NAME), f"one {long_ago}")
    assert look(redis, "two") == (b"first", b"")


def test_the_place_of_the_first_expires_with_it(redis: Redis) -> None:
    look(redis, "one")
    assert 600 < redis.ttl(keys.first_call(NAME)) <= 600 + keys.GRACE_SECONDS


def test_a_kept_response_is_found_by_all(redis: Redis) -> None:
    look(redis, "one")
    store(redis, NAME, 5)
    assert look(redis, "one") == look(redis, "two") == (b"hit", b"aaaaa")


def test_somebody_else_s_value_is_no_response(redis: Redis) -> None:
    redis.hset(keys.cached(NAME), "a", "b")
    assert look(redis, "one") == (b"first", b"")


# Store


def test_a_response_lives_as_long_as_it_may(redis: Redis) -> None:
    assert store(redis, NAME, 10, seconds=60) == 1
    assert 55 < redis.ttl(keys.cached(NAME)) <= 60
    assert redis.get(keys.CACHED_BYTES) == b"10"
    for name in (keys.CACHED, keys.CACHED_BYTES):
        assert 0 < redis.ttl(name) <= keys.CACHED_SECONDS


def test_those_that_expire_next_make_room(redis: Redis) -> None:
    store(redis, "a", 400, seconds=60)
    store(redis, "b", 400, seconds=30)
    store(redis, "c", 300, seconds=90)
    assert kept(redis) == ["a", "c"]
    assert redis.get(keys.CACHED_BYTES) == b"700"
    store(redis, "d", 1_000)
    assert kept(redis) == ["d"]
    assert redis.get(keys.CACHED_BYTES) == b"1000"


def test_what_never_fits_is_not_kept_and_moves_nothing_out(redis: Redis) -> None:
    store(redis, "a", 400)
    assert store(redis, "b", 1_001) == 0
    assert kept(redis) == ["a"]


def test_a_response_that_is_kept_again_counts_once(redis: Redis) -> None:
    for size in (400, 600, 600):
        store(redis, "a", size)
    assert redis.get(keys.CACHED_BYTES) == b"600"
    assert redis.zcard(keys.CACHED) == 1


def test_what_has_expired_counts_no_longer(redis: Redis) -> None:
    store(redis, "a", 900)
    redis.delete(keys.cached("a"))
    redis.zadd(keys.CACHED, {"900:a": 1})
    store(redis, "b", 500)
    assert redis.get(keys.CACHED_BYTES) == b"500"
    assert redis.zrange(keys.CACHED, 0, -1) == [b"500:b"]


def test_a_count_that_was_lost_begins_anew(redis: Redis) -> None:
    store(redis, "a", 900)
    redis.delete(keys.CACHED)
    assert store(redis, "b", 500) == 1
    assert redis.get(keys.CACHED_BYTES) == b"500"


def test_nothing_is_kept_while_redis_is_nearly_full(redis: Redis) -> None:
    used = int(redis.info("memory")["used_memory"])  # type: ignore[index]
    redis.config_set("maxmemory", used)
    assert store(redis, "a", 10) == 0
    assert kept(redis) == []
