"""gateway/broker/line.py: nobody waits for more than one large submission."""

from __future__ import annotations

from gateway.broker.line import LARGE_BYTES, Line


def line(*large: str) -> Line[str]:
    result: Line[str] = Line()
    for name in large:
        result.put(name, LARGE_BYTES + 1)
    return result


def test_small_ones_are_sent_together_and_in_order() -> None:
    waiting = line()
    for name in "abc":
        waiting.put(name, LARGE_BYTES)
    assert waiting.take() == ["a", "b", "c"]
    assert (waiting.take(), bool(waiting)) == ([], False)


def test_large_ones_are_sent_one_at_a_time() -> None:
    waiting = line("A", "B")
    assert [waiting.take(), waiting.take(), waiting.take()] == [["A"], ["B"], []]


def test_small_ones_go_before_large_ones_that_came_earlier() -> None:
    waiting = line("A", "B")
    waiting.put("a", 1)
    assert waiting.take() == ["a"]


def test_large_ones_have_their_turn_however_many_small_ones_come() -> None:
    waiting, batches = line("A", "B"), []
    for n in range(4):
        waiting.put(f"{n}", 1)
        batches.append(waiting.take())
    assert batches == [["0"], ["A"], ["1", "2"], ["B"]]
    assert waiting
