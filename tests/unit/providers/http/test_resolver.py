"""providers/http/resolver.py: a name that does not resolve delays nobody else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import gevent
import pytest

from providers.http.resolver import FAILED_SECONDS, KEEP_SECONDS, STALE_SECONDS, Resolver
from tests.support.fakes import Clock

PATIENCE = 30  # seconds


class Names:
    """What a system's resolver knows. A name in `blocked` is looked up when its event is set."""

    def __init__(self) -> None:
        self.addresses = {"good": ["192.0.2.1", "192.0.2.2"]}
        self.blocked: dict[str, threading.Event] = {}
        self.lookups: list[str] = []

    def __call__(self, host: str) -> list[str]:
        self.lookups.append(host)
        if host in self.blocked:
            assert self.blocked[host].wait(PATIENCE)
        if host not in self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return self.addresses[host]


@pytest.fixture
def names() -> Iterator[Names]:
    made = Names()
    yield made
    for event in made.blocked.values():
        event.set()


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def resolver(names: Names, clock: Clock) -> Resolver:
    return Resolver(names, clock)


def test_all_addresses_are_kept_for_a_while(resolver: Resolver, names: Names, clock: Clock) -> None:
    for _ in range(3):
        assert resolver.addresses("good", PATIENCE) == ["192.0.2.1", "192.0.2.2"]
    assert names.lookups == ["good"]
    clock.now += KEEP_SECONDS
    resolver.addresses("good", PATIENCE)
    assert names.lookups == ["good"] * 2


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "[::1]"])
def test_an_address_needs_no_lookup(resolver: Resolver, names: Names, address: str) -> None:
    assert resolver.addresses(address, PATIENCE) == [address]
    assert names.lookups == []


def test_a_name_that_does_not_exist_is_not_looked_up_for_every_call(
    resolver: Resolver, names: Names, clock: Clock
) -> None:
    for _ in range(3):
        with pytest.raises(socket.gaierror) as raised:
            resolver.addresses("bad", PATIENCE)
        assert raised.value.errno == socket.EAI_NONAME
    assert names.lookups == ["bad"]
    clock.now += FAILED_SECONDS
    names.addresses["bad"] = ["192.0.2.9"]
    assert resolver.addresses("bad", PATIENCE) == ["192.0.2.9"]


def test_what_cannot_be_a_name_is_not_resolved(clock: Clock) -> None:
    resolver = Resolver(clock=clock)
    with pytest.raises(socket.gaierror):
        resolver.addresses("a" * 64 + ".example", PATIENCE)


def test_a_blocked_name_takes_one_lookup_and_delays_no_other(
    resolver: Resolver, names: Names
) -> None:
    names.blocked["slow"] = threading.Event()
    names.addresses["slow"] = ["192.0.2.3"]
    waiting = [gevent.spawn(resolver.addresses, "slow", PATIENCE) for _ in range(60)]
    gevent.sleep(0)
    for number in range(20):
        names.addresses[f"good-{number}"] = ["192.0.2.1"]
        assert resolver.addresses(f"good-{number}", PATIENCE) == ["192.0.2.1"]
    assert names.lookups.count("slow") == 1
    assert not any(each.ready() for each in waiting)
    names.blocked["slow"].set()
    gevent.joinall(waiting, timeout=PATIENCE, raise_error=True)
    assert [each.value for each in waiting] == [["192.0.2.3"]] * 60
    assert names.lookups.count("slow") == 1


def test_a_call_waits_for_a_blocked_name_as_long_as_it_may(
    resolver: Resolver, names: Names
) -> None:
    names.blocked["slow"] = threading.Event()
    for _ in range(2):
        with pytest.raises(socket.gaierror) as raised:
            resolver.addresses("slow", 0.01)
        assert raised.value.errno == socket.EAI_AGAIN
    assert names.lookups == ["slow"]


def test_known_addresses_are_used_while_the_resolver_fails(
    resolver: Resolver, names: Names, clock: Clock
) -> None:
    addresses = resolver.addresses("good", PATIENCE)
    names.addresses.clear()
    clock.now += KEEP_SECONDS
    assert resolver.addresses("good", PATIENCE) == addresses
    clock.now += STALE_SECONDS
    with pytest.raises(socket.gaierror):
        resolver.addresses("good", PATIENCE)


def test_an_address_that_was_reached_comes_first(resolver: Resolver) -> None:
    resolver.addresses("good", PATIENCE)
    resolver.prefer("good", "192.0.2.2")
    resolver.prefer("good", "192.0.2.7")  # of an earlier lookup
    assert resolver.addresses("good", PATIENCE) == ["192.0.2.2", "192.0.2.1"]


def test_addresses_that_cannot_be_reached_are_looked_up_again_soon(
    resolver: Resolver, names: Names, clock: Clock
) -> None:
    resolver.addresses("good", PATIENCE)
    resolver.doubt("good")
    resolver.addresses("good", PATIENCE)
    assert names.lookups == ["good"]
    clock.now += FAILED_SECONDS
    resolver.addresses("good", PATIENCE)
    assert names.lookups == ["good"] * 2


def test_a_lookup_that_failed_by_our_fault_is_repeated_at_once(
    resolver: Resolver, names: Names
) -> None:
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            resolver.addresses("bad", PATIENCE)
        resolver.forget("bad")
    assert names.lookups == ["bad"] * 2
