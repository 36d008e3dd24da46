"""workers/coalesce.py: few streams are read at once, many of them together."""

from __future__ import annotations

import gevent
import pytest

from workers import coalesce
from workers.coalesce import Coalescer


def paused(streams: int) -> tuple[Coalescer, list[int]]:
    """A pace with so many streams, and those of three whose pause is over."""
    made, over = Coalescer(), []
    for _ in range(streams):
        made.__enter__()

    def pause(number: int) -> None:
        made.pause()
        over.append(number)

    for number in range(3):
        gevent.spawn(pause, number)
    gevent.sleep(0)
    return made, over


def test_a_few_streams_are_not_kept_waiting():
    _, over = paused(coalesce.FEW)
    assert over == [0, 1, 2]


def test_many_streams_wait_for_the_same_tick(monkeypatch):
    monkeypatch.setattr(coalesce, "LONGEST_SECONDS", 60)
    monkeypatch.setattr(coalesce, "SECONDS_A_STREAM", 1)
    made, over = paused(coalesce.FEW + 1)
    assert over == []
    made._end_tick(made._tick)
    gevent.sleep(0)
    gevent.sleep(0)
    assert over == [0, 1, 2]


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_tick_ends_by_itself_and_another_can_follow(monkeypatch, rounds):
    monkeypatch.setattr(coalesce, "LONGEST_SECONDS", 0.001)
    made, _ = paused(coalesce.FEW + 1)
    for _ in range(rounds):
        pausing = gevent.spawn(made.pause)
        pausing.get(timeout=10)
    assert made._tick is None


def test_streams_that_have_ended_do_not_count():
    made = Coalescer()
    with pytest.raises(LookupError), made:
        assert made.streams == 1
        raise LookupError
    assert made.streams == 0
