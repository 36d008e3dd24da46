"""gateway/queue/lease.py: a key that lives while its process does, on a real Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest
from redis import Redis
from redis.exceptions import ConnectionError, TimeoutError

from gateway.queue import clients, keys, lease
from gateway.queue.lease import (
    CONNECTION_LOOKS,
    GAP_SECONDS,
    LAPSE_SECONDS,
    RENEW_SECONDS,
    STEADY_SECONDS,
    Lease,
    LeaseState,
    LostProcesses,
    leases,
    live_workers,
)
from gateway.settings import Settings
from gateway.stalls import Stalls
from local.redis_server import RedisServer
from tests.support.fakes import Clock

PROCESS = "web-1"
KEY = keys.lease(PROCESS)
PATIENCE = 10.0


class Answers:
    """A client that takes every renewal and tells its own time, or raises `error`."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.now = (1_700_000_000, 250_000)
        self.connection = 7
        self.renewals: list[bytes] = []

    def pipeline(self, transaction: bool) -> Answers:
        return self

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def set(self, name: str, value: bytes, px: int) -> None:
        self.renewals.append(value)

    def time(self) -> None:
        pass

    def client_id(self) -> None:
        pass

    def execute(self) -> list[Any]:
        if self.error is not None:
            raise self.error
        return [True, self.now, self.connection]


@pytest.fixture
def held(settings: Settings, redis: Redis) -> Iterator[Lease]:
    stalls = Stalls()
    stalls.start()
    made = Lease(lambda: clients.commands(settings, 1), PROCESS, stalls=stalls)
    yield made
    made.release()
    stalls.stop()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(lease, "time", made)
    return made


def busily(condition: Callable[[], bool]) -> bool:
    """Whether this becomes true while the event loop gets no turn."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if condition():
            return True
    return False


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether this becomes true while the event loop turns."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if condition():
            return True
        gevent.sleep(0.01)
    return False


def renewed(redis: Redis) -> Callable[[], bool]:
    """A condition: the key's life was made longer since this was called."""
    lowest = redis.pttl(KEY)

    def longer() -> bool:
        nonlocal lowest
        left = redis.pttl(KEY)
        if left > lowest:
            return True
        lowest = left
        return False

    return longer


def test_a_started_process_has_its_lease_for_ten_seconds(redis: Redis, held: Lease) -> None:
    assert not redis.exists(KEY)
    held.start()
    assert 9_000 < redis.pttl(KEY) <= 10_000


def test_a_lease_names_the_connection_that_renews_it(redis: Redis, held: Lease) -> None:
    held.slots = 5
    held.start()

    def open_now() -> bool:
        value = redis.get(KEY)
        lease = LeaseState.decode(value)  # type: ignore[arg-type]
        return lease.slots == 5 and str(lease.connection) in {
            client["id"] for client in redis.client_list()
        }

    assert eventually(open_now)
    redis.client_kill_filter(_type="normal", skipme=True)
    assert eventually(open_now)


def test_a_new_connection_is_written_at_once(idle: Lease, clock: Clock) -> None:
    client = Answers()
    idle.renew(client)  # type: ignore[arg-type]
    assert client.renewals == [b"0 0", b"0 7"]
    idle.renew(client)  # type: ignore[arg-type]
    assert client.renewals == [b"0 0", b"0 7", b"0 7"]


def test_the_lease_is_renewed_while_the_event_loop_is_busy(
    redis: Redis, held: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    held.start()
    for _ in range(3):
        assert busily(renewed(redis))


def test_a_process_whose_event_loop_has_stopped_is_dead_until_it_turns_again(
    redis: Redis, held: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.02)
    monkeypatch.setattr(lease, "LOOP_SECONDS", 0.3)
    monkeypatch.setattr(keys, "LEASE_MS", 300)
    held.start()
    assert eventually(renewed(redis))
    assert busily(lambda: not redis.exists(KEY))
    assert eventually(lambda: bool(redis.exists(KEY)))


def test_a_process_that_is_of_no_use_gives_its_lease_up_until_it_is(
    redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.02)
    monkeypatch.setattr(keys, "LEASE_MS", 300)
    useful = True
    made = Lease(lambda: clients.commands(settings, 1), PROCESS, useful=lambda: useful)
    made.start()
    assert eventually(renewed(redis))
    useful = False
    assert eventually(lambda: not redis.exists(KEY))
    useful = True
    assert eventually(lambda: bool(redis.exists(KEY)))
    made.release()


def test_a_lease_that_redis_has_lost_is_there_again_soon(
    redis: Redis, held: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    held.start()
    redis.flushall()
    assert eventually(lambda: bool(redis.exists(KEY)))


def test_a_released_lease_is_gone_and_stays_gone(
    redis: Redis, held: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    held.start()
    assert held.release(), "nobody is left to renew it"
    assert not redis.exists(KEY)


def test_releasing_twice_or_what_was_never_taken_changes_nothing(held: Lease) -> None:
    held.release()
    held.start()
    held.release()
    held.release()


def test_a_process_that_starts_without_redis_gets_its_lease_once_redis_is_there(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    with RedisServer(tmp_path, persistent=False) as server:
        theirs = replace(settings, redis_url=server.url)
        server.stop()
        made = Lease(lambda: clients.commands(theirs, 1), PROCESS)
        made.start()
        assert not made.steady()
        server.start()
        with Redis.from_url(server.url, protocol=2) as redis:
            assert eventually(lambda: bool(redis.exists(KEY)))
            made.release()
            assert not redis.exists(KEY)


def test_a_release_does_not_wait_for_a_redis_that_is_away(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    with RedisServer(tmp_path, persistent=False) as server:
        theirs = replace(settings, redis_url=server.url)
        made = Lease(lambda: clients.commands(theirs, 1), PROCESS)
        made.start()
        server.stop()
        assert made.release()


# steady


def renew(held: Lease, clock: Clock, client: Any, seconds: float) -> None:
    """Renewals at their usual distance until `seconds` have passed."""
    end = clock.now + seconds
    while clock.now < end:
        clock.now += RENEW_SECONDS
        held.renew(client)


@pytest.fixture
def idle(clock: Clock) -> Lease:
    return Lease(lambda: pytest.fail("no connection is needed"), PROCESS)


def test_a_process_that_never_renewed_is_not_steady(idle: Lease, clock: Clock) -> None:
    assert not idle.steady()
    clock.now += 100
    assert not idle.steady()


def test_a_process_that_stood_still_has_no_lease_until_it_renews_it(
    idle: Lease, clock: Clock
) -> None:
    answers: Any = Answers()
    assert not idle.lapsed()  # it has never had one
    idle.renew(answers)
    clock.now += LAPSE_SECONDS
    assert not idle.lapsed()
    clock.now += 0.1
    assert idle.lapsed()
    idle.renew(answers)
    assert not idle.lapsed()


def test_a_process_is_steady_once_it_has_renewed_for_four_seconds(
    idle: Lease, clock: Clock
) -> None:
    assert STEADY_SECONDS >= 4
    client = Answers()
    idle.renew(client)  # type: ignore[arg-type]
    renew(idle, clock, client, STEADY_SECONDS - RENEW_SECONDS)
    assert not idle.steady()
    renew(idle, clock, client, RENEW_SECONDS)
    assert idle.steady()


@pytest.mark.parametrize("error", [ConnectionError(), TimeoutError()])
def test_one_failed_renewal_makes_all_that_was_before_worthless(
    idle: Lease, clock: Clock, error: Exception
) -> None:
    client = Answers()
    renew(idle, clock, client, 60)
    assert idle.steady()
    client.error = error
    renew(idle, clock, client, RENEW_SECONDS)
    assert not idle.steady()
    client.error = None
    renew(idle, clock, client, STEADY_SECONDS)
    assert not idle.steady()
    renew(idle, clock, client, RENEW_SECONDS)
    assert idle.steady()


def test_renewals_that_have_ceased_are_not_steady(idle: Lease, clock: Clock) -> None:
    renew(idle, clock, Answers(), 60)
    clock.now += 3 * RENEW_SECONDS - 0.01
    assert idle.steady()
    clock.now += 0.02
    assert not idle.steady()


def test_a_process_that_stood_still_begins_the_count_anew(idle: Lease, clock: Clock) -> None:
    client = Answers()
    renew(idle, clock, client, 60)
    clock.now += GAP_SECONDS
    renew(idle, clock, client, RENEW_SECONDS)
    assert not idle.steady()
    renew(idle, clock, client, STEADY_SECONDS)
    assert idle.steady()


# Redis' clock


def test_the_time_of_a_redis_that_never_answered_is_not_known(idle: Lease, clock: Clock) -> None:
    client = Answers()
    client.error = ConnectionError()
    assert idle.redis_time(1) == 0
    renew(idle, clock, client, RENEW_SECONDS)
    assert idle.redis_time(1) == 0


def test_the_time_of_redis_goes_on_between_renewals(idle: Lease, clock: Clock) -> None:
    clock.now = 5_000.0  # of a clock that began with the machine
    idle.renew(Answers())  # type: ignore[arg-type]
    assert idle.redis_time(0) == pytest.approx(1_700_000_000.25, abs=0.001)
    clock.now += 0.4
    assert idle.redis_time(1.5) == pytest.approx(1_700_000_002.15, abs=0.001)


def test_a_clock_that_was_set_is_followed(idle: Lease, clock: Clock) -> None:
    client = Answers()
    idle.renew(client)  # type: ignore[arg-type]
    client.now = (1_600_000_000, 0)
    idle.renew(client)  # type: ignore[arg-type]
    assert idle.redis_time(0) == pytest.approx(1_600_000_000, abs=0.001)


def test_the_time_of_a_real_redis_is_known_from_the_start(redis: Redis, held: Lease) -> None:
    held.start()
    seconds, microseconds = redis.time()
    assert abs(held.redis_time(0) - seconds - microseconds / 1e6) < 1


# lost processes


class FakeLease:
    """The own lease of a process that looks at others."""

    def __init__(self) -> None:
        self.is_steady = True
        self.connection = 0

    def steady(self) -> bool:
        return self.is_steady


@pytest.fixture
def own() -> FakeLease:
    return FakeLease()


@pytest.fixture
def lost(redis: Redis, own: FakeLease) -> LostProcesses:
    redis.set(keys.lease("alive"), 1)
    return LostProcesses(redis, own)  # type: ignore[arg-type]


def test_a_process_without_a_lease_at_two_looks_running_is_lost(lost: LostProcesses) -> None:
    assert lost.look(["alive", "dead"]) == set()
    assert lost.look(["alive", "dead"]) == {"dead"}
    assert lost.look(["alive", "dead"]) == {"dead"}


def test_a_process_that_had_its_lease_in_between_is_not_lost(
    redis: Redis, lost: LostProcesses
) -> None:
    for _ in range(3):
        assert lost.look(["late"]) == set()
        redis.set(keys.lease("late"), 1)
        assert lost.look(["late"]) == set()
        redis.delete(keys.lease("late"))


def test_nobody_is_lost_before_the_own_renewals_are_steady(
    lost: LostProcesses, own: FakeLease
) -> None:
    own.is_steady = False
    for _ in range(5):
        assert lost.look(["dead"]) == set()
    own.is_steady = True
    assert lost.look(["dead"]) == {"dead"}


@pytest.fixture
def closed(redis: Redis, own: FakeLease) -> int:
    """The id of a connection that a process had, and that Redis has no more."""
    own.connection = redis.client_id()
    with Redis.from_url(redis_url_of(redis), protocol=2, single_connection_client=True) as theirs:
        return int(theirs.client_id())


def redis_url_of(redis: Redis) -> str:
    return f"unix://{redis.connection_pool.connection_kwargs['path']}"


def test_a_process_whose_connection_was_closed_is_lost_before_its_lease_ends(
    redis: Redis, lost: LostProcesses, closed: int
) -> None:
    redis.set(keys.lease("killed"), LeaseState(1, closed).encode())
    looks = [lost.look(["alive", "killed"]) for _ in range(CONNECTION_LOOKS + 1)]
    assert looks == [set()] * CONNECTION_LOOKS + [{"killed"}], "the first look learns the name"


def test_a_process_that_opens_another_connection_is_not_lost(
    redis: Redis, lost: LostProcesses, closed: int, own: FakeLease
) -> None:
    redis.set(keys.lease("alive"), LeaseState(1, closed).encode())
    for _ in range(CONNECTION_LOOKS):
        assert lost.look(["alive"]) == set()
    redis.set(keys.lease("alive"), LeaseState(1, own.connection).encode())
    for _ in range(CONNECTION_LOOKS + 2):
        assert lost.look(["alive"]) == set()


def test_a_stopped_process_keeps_its_connection_and_is_not_lost(
    redis: Redis, lost: LostProcesses, own: FakeLease
) -> None:
    own.connection = redis.client_id()
    redis.set(keys.lease("stopped"), LeaseState(1, own.connection).encode())
    for _ in range(CONNECTION_LOOKS + 5):
        assert lost.look(["stopped"]) == set()


def test_a_redis_that_does_not_list_connections_says_nothing_of_them(
    redis: Redis, lost: LostProcesses, closed: int, own: FakeLease
) -> None:
    own.connection = closed  # as behind a proxy, whose ids are its own
    redis.set(keys.lease("killed"), LeaseState(1, closed).encode())
    for _ in range(CONNECTION_LOOKS + 2):
        assert lost.look(["killed"]) == set()


def test_a_process_that_is_asked_about_for_the_first_time_is_not_lost(lost: LostProcesses) -> None:
    lost.look(["dead"])
    assert lost.look(["dead", "new"]) == {"dead"}


def test_a_look_that_failed_does_not_count(
    redis: Redis, own: FakeLease, settings: Settings
) -> None:
    away = clients.commands(replace(settings, redis_url="unix:///nowhere/redis.sock"), 1)
    lost = LostProcesses(away, own)  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(ConnectionError):
            lost.look(["dead"])


def test_redis_is_not_asked_about_nobody(own: FakeLease, settings: Settings) -> None:
    away = clients.commands(replace(settings, redis_url="unix:///nowhere/redis.sock"), 1)
    assert LostProcesses(away, own).look([]) == set()  # type: ignore[arg-type]


# who lives


def test_a_process_lives_while_it_holds_its_lease(redis: Redis) -> None:
    redis.set(keys.lease("worker-2"), LeaseState(7, 12).encode())
    names = ["worker-1", "worker-2", "worker-3"]
    assert leases(redis, names) == ({"worker-2": LeaseState(7, 12)}, set())


def test_connections_are_listed_that_redis_still_has(redis: Redis) -> None:
    own = redis.client_id()
    assert leases(redis, ["nobody"], [own, 999_999_999]) == ({}, {own})


def test_a_redis_that_lists_no_connections_has_none(redis: Redis, settings: Settings) -> None:
    redis.set(keys.lease("worker-1"), 1)
    rules = ("on", "nopass", "~*", "+@all", "-client|list")
    redis.execute_command("ACL", "SETUSER", "limited", *rules)
    with Redis.from_url(settings.redis_url, protocol=2, username="limited", password="x") as client:
        held = leases(client, ["worker-1"], [client.client_id()])
    redis.execute_command("ACL", "DELUSER", "limited")
    assert held == ({"worker-1": LeaseState(1)}, set())


def test_only_registered_workers_with_a_lease_are_live(redis: Redis) -> None:
    assert live_workers(redis) == {}
    for name in ("worker-1", "worker-2", "worker-3"):
        redis.sadd(keys.RQ_WORKERS, keys.rq_worker(name))
    assert live_workers(redis) == {}
    for name in ("worker-1", "worker-3", "web-1"):
        redis.set(keys.lease(name), 1)
    assert set(live_workers(redis)) == {"worker-1", "worker-3"}


def test_a_lease_says_how_many_calls_its_worker_takes(redis: Redis) -> None:
    for name, slots in (("worker-1", 1_000), ("worker-2", 0), ("worker-3", 20)):
        redis.sadd(keys.RQ_WORKERS, keys.rq_worker(name))
        redis.set(keys.lease(name), LeaseState(slots, 5).encode())
    redis.sadd(keys.RQ_WORKERS, keys.rq_worker("dead"))
    redis.sadd(keys.RQ_WORKERS, keys.rq_worker("odd"))
    redis.set(keys.lease("odd"), "what?")
    assert sorted(each.slots for each in live_workers(redis).values()) == [0, 0, 20, 1_000]
