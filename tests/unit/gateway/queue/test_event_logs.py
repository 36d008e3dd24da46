"""gateway/queue/event_logs.py: how much the logs of calls hold, on a real Redis."""

from __future__ import annotations

import uuid

import pytest
from redis import Redis

from gateway.errors import Overloaded
from gateway.queue import commands, event_logs, keys, scripts
from gateway.queue.protocol import Outcome
from gateway.settings import Settings
from tests.support.admission import WORKER, Calls

KEY_ID = "0123456789ab"
MEGABYTE = 1_000_000


@pytest.fixture
def calls(redis: Redis, settings: Settings) -> Calls:
    calls = Calls(redis, settings)
    calls.key(KEY_ID)
    return calls


def test_logs_leave_half_of_redis_to_calls_whose_clients_wait(redis: Redis, calls: Calls) -> None:
    address = keys.log_address("call", 60)
    event_logs.store_logged_request(redis, KEY_ID, address, b"before", 60)
    assert event_logs.remember(redis, KEY_ID, "name", b"call print", address, b"first", 60) is None
    used = redis.info("memory")["used_memory"]
    redis.config_set("maxmemory", int(used / 0.6))
    with pytest.raises(event_logs.LogsFull) as full:
        event_logs.store_logged_request(redis, KEY_ID, address, b"later", 60)
    assert full.value.bytes < 0
    with pytest.raises(event_logs.LogsFull):
        event_logs.remember(redis, KEY_ID, "another", b"other print", address, b"later", 60)
    # What is there is still found, and other calls are taken.
    noted = event_logs.remember(redis, KEY_ID, "name", b"other print", address, b"later", 60)
    call_id = calls.submit(KEY_ID)
    assert noted == b"call print"
    assert calls.replies[call_id][0] == b"ok"
    assert event_logs.logged_request(redis, "call") == b"first"


def log_room(redis: Redis, size: int) -> None:
    """Leave so many bytes for logs."""
    redis.config_set("maxmemory", 2 * (redis.info("memory")["used_memory"] + size))


def store(redis: Redis, size: int, key_id: str = KEY_ID, call_id: str = "") -> str:
    """Store a logged call with so many bytes; return its id."""
    call_id = call_id or uuid.uuid4().hex
    address = keys.log_address(call_id, 600)
    event_logs.store_logged_request(redis, key_id, address, b"x" * size, 60)
    return call_id


def store_until_full(redis: Redis, size: int, key_id: str = KEY_ID) -> int:
    """Store calls of this size until the key may store no more; return how many it could."""
    for number in range(1_000):
        try:
            store(redis, size, key_id)
        except event_logs.LogsFull:
            return number
    raise AssertionError("there is no bound")


def test_the_logs_of_a_key_leave_room_for_those_of_others(redis: Redis) -> None:
    log_room(redis, 12 * MEGABYTE)
    counts = [store_until_full(redis, MEGABYTE, name) for name in ("first", "second", "third")]
    # Each gets half of what is left, Redis' own overhead included.
    assert 4 <= counts[0] <= 6
    assert 2 <= counts[1] <= 3
    assert 1 <= counts[2] <= 2
    assert store(redis, 1_000, "fourth")


def test_the_error_of_full_logs_says_when_the_first_expires(redis: Redis) -> None:
    for _ in range(10):
        store(redis, MEGABYTE // 10)
    log_room(redis, MEGABYTE // 2)
    with pytest.raises(event_logs.LogsFull) as full:
        store(redis, 1_000)
    assert 300_000 < full.value.bytes < 700_000
    assert 700_000 < full.value.reset_ms <= 720_000  # 60 s of the call, 600 of the log, a grace


def test_deleted_and_refused_logs_make_room(redis: Redis) -> None:
    log_room(redis, 6 * MEGABYTE)
    calls = [store(redis, MEGABYTE) for _ in range(2)]
    store_until_full(redis, MEGABYTE)
    event_logs.delete_log(redis, KEY_ID, calls[0])
    assert store(redis, MEGABYTE)
    event_logs.refuse_logged(redis, KEY_ID, keys.log_address(calls[1], 600), b"", Overloaded())
    assert store(redis, MEGABYTE)
    with pytest.raises(event_logs.LogsFull):
        store(redis, MEGABYTE)


def test_expired_logs_make_room(redis: Redis) -> None:
    log_room(redis, 6 * MEGABYTE)
    count = store_until_full(redis, MEGABYTE)
    for call_id in redis.zrange(keys.logs(KEY_ID), 0, -1):
        redis.zadd(keys.logs(KEY_ID), {call_id: 1})
        redis.delete(keys.logged_request(call_id.decode()))
    assert store_until_full(redis, MEGABYTE) == count


@pytest.mark.parametrize("ended", [False, True])
def test_what_a_log_has_grown_to_counts(redis: Redis, calls: Calls, ended: bool) -> None:
    call_id = store(redis, 1_000)
    web = keys.log_address(call_id, 600)
    calls.submit(KEY_ID, call_id, web=web)
    assert calls.claim() == [call_id]
    if ended:
        outcome = Outcome(answer=b"x" * MEGABYTE)
        [command] = commands.finish_commands(call_id, "c1", web, WORKER, outcome)
        assert calls.run(command)
    else:
        scripts.run(redis, commands.emit_command(web, [b"x" * MEGABYTE]))
    log_room(redis, MEGABYTE // 2)
    with pytest.raises(event_logs.LogsFull):
        store(redis, 1_000)
    assert store(redis, 1_000, "another")
    growing = redis.lrange(keys.growing_logs(KEY_ID), 0, -1)
    assert growing == ([] if ended else [call_id.encode()])


def test_what_counts_logs_expires_with_them(redis: Redis) -> None:
    store(redis, 1_000)
    names = (
        keys.logs(KEY_ID),
        keys.log_sizes(KEY_ID),
        keys.growing_logs(KEY_ID),
    )
    assert [600 < redis.ttl(name) <= 720 for name in names] == [True] * 3


def test_a_key_that_finds_no_room_for_its_first_log_leaves_nothing(redis: Redis) -> None:
    redis.config_set("maxmemory", redis.info("memory")["used_memory"])
    with pytest.raises(event_logs.LogsFull):
        store(redis, 1_000)
    assert redis.keys("*gw:log*") == []


def test_of_a_refused_call_only_the_error_stays(redis: Redis) -> None:
    address = keys.log_address("call", 86_400)
    event_logs.remember(redis, KEY_ID, "name", b"call print", address, b"with 20 MB of input", 60)
    event_logs.refuse_logged(redis, KEY_ID, address, b"without", Overloaded())
    assert event_logs.logged_request(redis, "call") == b"without"
    assert 0 < redis.ttl(keys.logged_request("call")) <= keys.REFUSED_SECONDS
    ended = event_logs.logged_outcome(redis, "call")
    assert ended is not None and isinstance(ended[0].error, Overloaded)
