"""gateway/broker/body_room.py: large bodies wait, small ones never do."""

from __future__ import annotations

import gevent
import pytest

from gateway.broker.body_room import COUNTED_BYTES, BodyRoom
from gateway.errors import Overloaded

TOTAL = 10 * COUNTED_BYTES
LARGE = 3 * COUNTED_BYTES


@pytest.fixture
def room() -> BodyRoom:
    return BodyRoom(TOTAL, 0)


def test_large_bodies_are_held_up_to_the_total(room: BodyRoom) -> None:
    for request in range(3):
        room.hold(request, f"key {request}", LARGE)
    with pytest.raises(Overloaded) as refusal:
        room.hold(3, "key 3", LARGE)
    assert (refusal.value.retry_after, refusal.value.should_retry) == (5, True)


def test_small_bodies_are_not_counted(room: BodyRoom) -> None:
    for request in range(1000):
        room.hold(request, "one key", COUNTED_BYTES)
    room.hold(1000, "one key", LARGE)


def test_one_key_gets_half_of_the_room(room: BodyRoom) -> None:
    room.hold(1, "greedy", LARGE)
    with pytest.raises(Overloaded):
        room.hold(2, "greedy", LARGE)
    room.hold(3, "other", LARGE)


@pytest.mark.parametrize("size", [TOTAL, 5 * TOTAL])
def test_a_body_that_is_larger_than_its_share_fits_on_its_own(room: BodyRoom, size: int) -> None:
    room.hold(1, "key", size)


def test_a_request_waits_until_another_has_ended() -> None:
    room = BodyRoom(TOTAL)
    room.hold(1, "key", LARGE)
    waiting = gevent.spawn(room.hold, 2, "key", LARGE)
    gevent.sleep(0)
    assert not waiting.ready()
    room.drop(1)
    waiting.get(timeout=60)


def test_a_request_holds_what_its_body_turned_out_to_have(room: BodyRoom) -> None:
    """Of a chunked body, the size is known at its end."""
    room.hold(1, "key", LARGE)
    room.hold(1, "key", 100)
    room.hold(2, "key", LARGE)
    room.drop(2)
    room.drop(2)
    room.hold(3, "key", LARGE)
