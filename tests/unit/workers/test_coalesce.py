"""workers/coalesce.py: few streams are read at once, many of them together."""

from __future__ import annotations

import gevent
import pytest

from workers import coalesce
from workers.coalesce import Coalescer


def paused(streams: int) -> tuple[Coalescer, list[int]]:
    """A coalescer with so many streams, and those of three whose pause is over."""
    coalescer, over = Coalescer(), []
    for _ in range(streams):
        coalescer.__enter__()

    def pause(number: int) -> None:
        coalescer.pause()
        over.append(number)

    for number in range(3):
        gevent.spawn(pause, number)
    gevent.sleep(0)
    return coalescer, over


def test_a_few_streams_are_not_kept_waiting():
    _, over = paused(coalesce.MAX_UNCOALESCED)
    assert over == [0, 1, 2]


def test_many_streams_wait_for_the_same_tick(monkeypatch):
    monkeypatch.setattr(coalesce, "TICK_SECONDS", 60)
    coalescer, over = paused(coalesce.MAX_UNCOALESCED + 1)
    assert over == []
    coalescer.tick()
    gevent.sleep(0)
    gevent.sleep(0)
    assert over == [0, 1, 2]


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_tick_ends_by_itself_and_another_can_follow(monkeypatch, rounds):
    monkeypatch.setattr(coalesce, "TICK_SECONDS", 0.001)
    coalescer, _ = paused(coalesce.MAX_UNCOALESCED + 1)
    for _ in range(rounds):
        pausing = gevent.spawn(coalescer.pause)
        pausing.get(timeout=10)


def test_streams_that_have_ended_do_not_count():
    coalescer = Coalescer()
    with pytest.raises(LookupError), coalescer:
        assert coalescer.streams == 1
        raise LookupError
    assert coalescer.streams == 0
