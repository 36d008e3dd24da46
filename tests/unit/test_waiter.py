"""api/waiter.py: one call's events, in order, until its outcome."""

from __future__ import annotations

import time

import gevent
import pytest

from api.waiter import (
    BUFFER_BYTES,
    BUFFER_EVENTS,
    FAIR_BYTES,
    SHARED_BYTES,
    TAKE_BYTES,
    Buffers,
    Waiter,
)
from gateway.channel import OUTCOME, PARTS, Event, Outcome
from gateway.errors import CallCancelled, ReplyLost, SlowReader, WorkerLost


@pytest.fixture
def overflown():
    return []


@pytest.fixture
def waiter(overflown):
    return Waiter("call", 60, overflown.append)


def parts(number, payload=b"x"):
    return Event("call", "claim", number, PARTS, payload)


def ending(number, outcome):
    return Event("call", "claim", number, OUTCOME, outcome.encode())


def test_events_come_out_in_order_and_once(waiter):
    waiter.offer(parts(1, b"a"))
    waiter.offer(parts(2, b"b"))
    assert waiter.parts() == [b"a", b"b"]
    waiter.offer(parts(3, b"c"))
    assert waiter.parts() == [b"c"]
    assert waiter.parts() == []
    assert (waiter.received, waiter.outcome) == (3, None)


def test_a_wait_ends_with_what_has_come(waiter):
    assert not waiter.wait(0)
    waiter.offer(parts(1))
    assert waiter.wait(0)
    waiter.parts()
    assert not waiter.wait(0)
    waiter.offer(ending(2, Outcome(last=1)))
    assert waiter.wait(0)
    waiter.parts()
    assert waiter.wait(0)


def test_the_outcome_ends_the_call_after_its_parts(waiter):
    waiter.offer(parts(1, b"a"))
    waiter.offer(ending(2, Outcome(last=1, answer=b"{}")))
    assert waiter.parts() == [b"a"]
    assert waiter.outcome == Outcome(last=1, answer=b"{}")


@pytest.mark.parametrize("numbers", [(1, 1), (1, 2, 1), (1, 2, 2, 3, 3), (1, 2, 3, 2, 1)])
def test_an_event_seen_before_is_dropped(waiter, numbers):
    for number in numbers:
        waiter.offer(parts(number, b"%d" % number))
    assert waiter.parts() == [b"%d" % number for number in range(1, max(numbers) + 1)]
    assert waiter.outcome is None


@pytest.mark.parametrize("numbers", [(2,), (1, 3), (1, 2, 5)])
def test_a_gap_is_an_error_and_no_hole_in_the_text(waiter, numbers):
    for number in numbers:
        waiter.offer(parts(number))
    assert isinstance(waiter.outcome.error, ReplyLost)
    assert len(waiter.parts()) == len(numbers) - 1


def test_an_outcome_after_a_gap_is_a_lost_reply(waiter):
    waiter.offer(parts(1))
    waiter.offer(ending(3, Outcome(last=2, answer=b"{}")))
    assert type(waiter.outcome.error) is ReplyLost


def test_an_outcome_that_counts_otherwise_is_a_lost_reply(waiter):
    waiter.offer(parts(1))
    waiter.offer(ending(2, Outcome(last=5, answer=b"{}")))
    assert type(waiter.outcome.error) is ReplyLost


def test_an_outcome_that_cannot_be_read_is_a_lost_reply(waiter):
    waiter.offer(Event("call", "claim", 1, OUTCOME, b"\xff"))
    assert type(waiter.outcome.error) is ReplyLost


@pytest.mark.parametrize("second", ["end", "fail", "offer", "parts"])
def test_the_first_outcome_stands(waiter, second):
    first = Outcome(last=0, answer=b"first")
    waiter.end(first)
    if second == "end":
        waiter.end(Outcome(last=0, answer=b"second"))
    elif second == "fail":
        waiter.fail(WorkerLost())
    elif second == "offer":
        waiter.offer(ending(1, Outcome(last=0, answer=b"second")))
    else:
        waiter.offer(parts(1))
    assert waiter.outcome is first
    assert waiter.parts() == []


def test_a_call_that_failed_stays_failed(waiter):
    waiter.fail(CallCancelled())
    waiter.offer(ending(1, Outcome(answer=b"late")))
    assert isinstance(waiter.outcome.error, CallCancelled)


def test_a_failure_keeps_count_of_what_was_received(waiter):
    waiter.offer(parts(1))
    waiter.fail(WorkerLost())
    assert waiter.outcome.last == 1
    assert waiter.parts() == [b"x"]


@pytest.mark.parametrize(
    ("most", "size"),
    [(BUFFER_EVENTS, 1), (4, BUFFER_BYTES // 4)],
    ids=["events", "bytes"],
)
def test_a_reader_too_slow_for_its_buffer_is_given_up(waiter, overflown, most, size):
    for number in range(1, most + 1):
        waiter.offer(parts(number, b"x" * size))
    assert waiter.outcome is None
    waiter.offer(parts(most + 1))
    assert isinstance(waiter.outcome.error, SlowReader)
    assert overflown == [waiter]
    waiter.offer(parts(most + 2))
    assert overflown == [waiter]


def test_a_reader_that_keeps_up_may_read_any_amount(waiter, overflown):
    for number in range(1, 3 * BUFFER_EVENTS):
        waiter.offer(parts(number, b"x" * 10_000))
        waiter.parts()
    assert (waiter.outcome, overflown) == (None, [])


def test_a_call_knows_how_long_it_may_live(overflown):
    waiter = Waiter("call", 60, overflown.append)
    assert waiter.deadline == waiter.since + 60


def test_one_payload_of_any_size_fits(overflown):
    waiter = Waiter("call", 60, overflown.append)
    waiter.offer(Event("call", "claim", 1, PARTS, b"x" * 5_000_000))
    assert waiter.outcome is None and overflown == []
    waiter.offer(Event("call", "claim", 2, PARTS, b"y"))
    assert isinstance(waiter.outcome.error, SlowReader) and overflown == [waiter]


def test_events_of_a_second_claim_are_no_part_of_the_answer(overflown):
    waiter = Waiter("call", 60, overflown.append)
    waiter.started("worker-1", "first")
    waiter.offer(Event("call", "first", 1, PARTS, b"a"))
    waiter.offer(Event("call", "second", 2, PARTS, b"b"))
    assert waiter.parts() == [b"a"]
    assert isinstance(waiter.outcome.error, ReplyLost) and overflown == [waiter]


def test_a_call_started_a_second_time_is_given_up(overflown):
    waiter = Waiter("call", 60, overflown.append)
    waiter.started("worker-1", "first")
    waiter.started("worker-1", "first")
    assert waiter.outcome is None
    waiter.started("worker-2", "second")
    assert isinstance(waiter.outcome.error, ReplyLost)


def test_a_nudge_ends_a_wait_that_brought_nothing(waiter):
    waiting = gevent.spawn(waiter.wait_nudged, 60)
    gevent.sleep(0)
    assert waiter.nudge_at > time.monotonic() + 59
    waiter.nudge()
    assert waiting.get(timeout=10) is False
    assert waiter.nudge_at is None
    assert not waiter.wait(0), "a nudge is nothing to send"


@pytest.mark.parametrize("event", [parts(1), ending(1, Outcome())], ids=["parts", "outcome"])
def test_what_comes_ends_a_wait_before_its_nudge(waiter, event):
    waiting = gevent.spawn(waiter.wait_nudged, 60)
    gevent.sleep(0)
    waiter.offer(event)
    assert waiting.get(timeout=10) is True
    assert waiter.nudge_at is None


def test_what_has_come_before_is_not_waited_for(waiter):
    waiter.offer(parts(1))
    assert waiter.wait_nudged(60) is True


# what many hold together


def test_much_is_taken_in_turns_until_nothing_is_left(waiter):
    payloads = [b"%d" % number * (TAKE_BYTES // 2) for number in range(1, 6)]
    for number, payload in enumerate(payloads, 1):
        waiter.offer(parts(number, payload))
    waiter.offer(ending(6, Outcome(last=5)))
    taken = []
    while more := waiter.parts():
        assert sum(map(len, more[:-1])) < TAKE_BYTES
        taken += more
    assert taken == payloads
    assert waiter.wait(0)


def test_a_wait_ends_at_once_while_something_is_left(waiter):
    for number in (1, 2):
        waiter.offer(parts(number, b"x" * TAKE_BYTES))
    assert len(waiter.parts()) == 1
    assert waiter.wait(0)
    assert len(waiter.parts()) == 1
    assert not waiter.wait(0)


def test_where_all_hold_much_a_slow_reader_is_given_up_earlier(overflown):
    buffers = Buffers()
    slow = Waiter("call", 60, overflown.append, buffers)
    other = Waiter("call", 60, overflown.append, buffers)
    for number in range(1, 4):
        slow.offer(parts(number, b"x" * FAIR_BYTES))
    buffers.held = SHARED_BYTES - 10  # by many others
    other.offer(parts(1, b"x" * 100))
    other.offer(parts(2, b"x" * 100))
    assert overflown == []
    slow.offer(parts(4))
    assert overflown == [slow]
    assert isinstance(slow.outcome.error, SlowReader)


@pytest.mark.parametrize("sizes", [[10, 20], [TAKE_BYTES, TAKE_BYTES, 5]])
def test_what_is_taken_or_dropped_is_held_no_more(sizes):
    buffers = Buffers()
    waiter = Waiter("call", 60, lambda waiter: None, buffers)
    for number, size in enumerate(sizes, 1):
        waiter.offer(parts(number, b"x" * size))
    assert buffers.held == sum(sizes)
    taken = waiter.parts()
    assert buffers.held == sum(sizes) - sum(map(len, taken))
    waiter.drop()
    assert buffers.held == 0
    assert waiter.parts() == []
