"""gateway/stalls.py: a clock that stands still while its process does."""

from __future__ import annotations

import time

import gevent
import pytest

from gateway import stalls
from gateway.stalls import GAP_SECONDS, Stalls
from tests.support.fakes import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stalls, "time", clock)
    return clock


def test_a_process_that_does_not_look_for_stalls_has_none(clock: Clock) -> None:
    watch = Stalls()
    clock.now += 100
    assert watch.seconds() == 0
    assert watch.awake() == clock.now
    assert watch.silence() == 0


def test_a_stall_counts_while_it_lasts_and_after_it(clock: Clock) -> None:
    watch = Stalls()
    watch.tick()
    began = watch.awake()
    clock.now += 8
    assert watch.seconds() == pytest.approx(8 - GAP_SECONDS)
    assert watch.silence() == 8
    watch.tick()
    assert watch.seconds() == pytest.approx(8 - GAP_SECONDS)
    assert watch.awake() - began == pytest.approx(GAP_SECONDS)


def test_ticks_that_come_in_time_are_no_stall(clock: Clock) -> None:
    watch = Stalls()
    for _ in range(100):
        watch.tick()
        clock.now += GAP_SECONDS
    assert watch.seconds() == pytest.approx(0, abs=1e-6)


def test_a_busy_event_loop_is_noticed() -> None:
    watch = Stalls()
    watch.start()
    gevent.sleep(0)
    began = watch.awake()
    time.sleep(1.0)  # the event loop gets no turn
    assert watch.awake() - began < 0.5
    watch.stop()
    assert watch.silence() == 0


def test_large_works_take_turns_and_others_run_between() -> None:
    turns: list[str] = []

    def work(name: str) -> None:
        for _ in range(3):
            stalls.give_turn()
            turns.append(name)

    gevent.joinall([gevent.spawn(work, name) for name in "ABC"], timeout=10)
    assert turns == list("ABC" * 3)


def test_small_work_waits_for_no_turn() -> None:
    with stalls._TURNS, gevent.Timeout(10):
        stalls.give_turn(stalls.LARGE_BYTES - 1)
