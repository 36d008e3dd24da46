"""gateway/broker/places.py: the share of one API key in the places of a process."""

from __future__ import annotations

import pytest

from gateway.broker.places import Places

TOTAL = 1_500


def fill(places: Places, key: str) -> int:
    """Take all places that a key gets; return how many."""
    count = 0
    while places.take(key):
        count += 1
    return count


def test_a_lone_key_gets_seven_of_eight_places() -> None:
    assert fill(Places(8), "flood") == 7
    assert fill(Places(TOTAL), "flood") == 1_313


@pytest.mark.parametrize("total", [1, 2, 3])
def test_a_small_process_can_be_filled_by_one_key(total: int) -> None:
    assert fill(Places(total), "flood") == total


def test_a_key_that_comes_later_finds_places() -> None:
    places = Places(TOTAL)
    flood = fill(places, "flood")
    assert fill(places, "late") >= 160
    assert not places.take("flood")
    for _ in range(flood // 2):
        places.give_back("flood")
    assert places.take("late")


def test_keys_that_take_turns_get_the_same_share() -> None:
    places = Places(TOTAL)
    held = {"one": 0, "two": 0, "three": 0}
    for _ in range(TOTAL):
        for key in held:
            held[key] += places.take(key)
    assert max(held.values()) - min(held.values()) <= 1
    assert places.free == TOTAL - sum(held.values()) > 0


def test_all_places_are_free_after_all_calls_have_left() -> None:
    places = Places(TOTAL)
    for key in ("one", "two"):
        for _ in range(fill(places, key)):
            places.give_back(key)
    assert places.free == TOTAL
    assert fill(places, "three") == 1_313
