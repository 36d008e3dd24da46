"""gateway/broker/pending_call.py: one call's events, in order, until its outcome."""

from __future__ import annotations

import time

import gevent
import pytest

from gateway.broker.pending_call import (
    BUFFER_BYTES,
    EVENT_BYTES,
    FAIR_BYTES,
    MOST_BYTES,
    SHARED_BYTES,
    SLOW_SECONDS,
    TAKE_BYTES,
    Buffers,
    PendingCall,
)
from gateway.errors import CallCancelled, NoWorkers, ReplyLost, SlowReader, WorkerLost
from gateway.queue.protocol import CHUNKS, OUTCOME, RETRY, Event, Outcome
from tests.support.fakes import Clock


@pytest.fixture
def overflown():
    return []


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pending(overflown, clock):
    return PendingCall("call", 60, overflown.append, Buffers(clock))


def parts(number, payload=b"x"):
    return Event("call", "claim", number, CHUNKS, payload)


def ending(number, outcome):
    return Event("call", "claim", number, OUTCOME, outcome.encode())


def test_events_come_out_in_order_and_once(pending):
    pending.offer(parts(1, b"a"))
    pending.offer(parts(2, b"b"))
    assert pending.parts() == [b"a", b"b"]
    pending.offer(parts(3, b"c"))
    assert pending.parts() == [b"c"]
    assert pending.parts() == []
    assert (pending.received, pending.outcome) == (3, None)


def test_a_wait_ends_with_what_has_come(pending):
    assert not pending.wait(0)
    pending.offer(parts(1))
    assert pending.wait(0)
    pending.parts()
    assert not pending.wait(0)
    pending.offer(ending(2, Outcome(last=1)))
    assert pending.wait(0)
    pending.parts()
    assert pending.wait(0)


def test_the_outcome_ends_the_call_after_its_parts(pending):
    pending.offer(parts(1, b"a"))
    pending.offer(ending(2, Outcome(last=1, answer=b"{}")))
    assert pending.parts() == [b"a"]
    assert pending.outcome == Outcome(last=1, answer=b"{}")


@pytest.mark.parametrize("numbers", [(1, 1), (1, 2, 1), (1, 2, 2, 3, 3), (1, 2, 3, 2, 1)])
def test_an_event_seen_before_is_dropped(pending, numbers):
    for number in numbers:
        pending.offer(parts(number, b"%d" % number))
    assert pending.parts() == [b"%d" % number for number in range(1, max(numbers) + 1)]
    assert pending.outcome is None


@pytest.mark.parametrize("numbers", [(2,), (1, 3), (1, 2, 5)])
def test_a_gap_is_an_error_and_no_hole_in_the_text(pending, numbers):
    for number in numbers:
        pending.offer(parts(number))
    assert isinstance(pending.outcome.error, ReplyLost)
    assert len(pending.parts()) == len(numbers) - 1


def test_an_outcome_after_a_gap_is_a_lost_reply(pending):
    pending.offer(parts(1))
    pending.offer(ending(3, Outcome(last=2, answer=b"{}")))
    assert type(pending.outcome.error) is ReplyLost


def test_an_outcome_that_counts_otherwise_is_a_lost_reply(pending):
    pending.offer(parts(1))
    pending.offer(ending(2, Outcome(last=5, answer=b"{}")))
    assert type(pending.outcome.error) is ReplyLost


def test_an_outcome_that_cannot_be_read_is_a_lost_reply(pending):
    pending.offer(Event("call", "claim", 1, OUTCOME, b"\xff"))
    assert type(pending.outcome.error) is ReplyLost


@pytest.mark.parametrize("second", ["end", "fail", "offer", "parts"])
def test_the_first_outcome_stands(pending, second):
    first = Outcome(last=0, answer=b"first")
    pending.end(first)
    if second == "end":
        pending.end(Outcome(last=0, answer=b"second"))
    elif second == "fail":
        pending.fail(WorkerLost())
    elif second == "offer":
        pending.offer(ending(1, Outcome(last=0, answer=b"second")))
    else:
        pending.offer(parts(1))
    assert pending.outcome is first
    assert pending.parts() == []


def test_a_call_that_failed_stays_failed(pending):
    pending.fail(CallCancelled())
    pending.offer(ending(1, Outcome(answer=b"late")))
    assert isinstance(pending.outcome.error, CallCancelled)


def test_a_failure_keeps_count_of_what_was_received(pending):
    pending.offer(parts(1))
    pending.fail(WorkerLost())
    assert pending.outcome.last == 1
    assert pending.parts() == [b"x"]


def fill(pending, size=BUFFER_BYTES):
    """Offer events of about so many bytes; return how many events have been offered in all."""
    for _ in range(size // (10_000 + EVENT_BYTES)):
        pending.offer(parts(pending.received + 1, b"x" * 10_000))
    return pending.received


@pytest.mark.parametrize("size", [1, 10_000], ids=["many small ones", "large ones"])
def test_a_client_that_takes_nothing_of_a_full_buffer_is_given_up(pending, overflown, clock, size):
    while overflown == []:
        assert pending.received * (size + EVENT_BYTES) < BUFFER_BYTES + 10 * size + 1_000
        pending.offer(parts(pending.received + 1, b"x" * size))
        clock.now += SLOW_SECONDS / 2
    assert isinstance(pending.outcome.error, SlowReader)
    pending.offer(parts(pending.received + 1))
    assert overflown == [pending], "it is reported once"


def test_events_that_come_all_at_once_do_not_make_a_client_slow(pending, overflown, clock):
    fill(pending, 2 * BUFFER_BYTES)
    assert overflown == []
    pending.parts()  # it takes
    clock.now += SLOW_SECONDS + 0.1
    fill(pending, BUFFER_BYTES)
    assert overflown == []
    clock.now += SLOW_SECONDS + 0.1
    pending.offer(parts(pending.received + 1))
    assert overflown == [pending]


def test_no_call_holds_more_than_the_most(pending, overflown):
    fill(pending, 2 * MOST_BYTES)
    assert overflown == [pending]


def test_a_reader_that_keeps_up_may_read_any_amount(pending, overflown):
    for number in range(1, 3_000):
        pending.offer(parts(number, b"x" * 10_000))
        pending.parts()
    assert (pending.outcome, overflown) == (None, [])


def test_a_call_knows_how_long_it_may_live(overflown):
    pending = PendingCall("call", 60, overflown.append)
    assert pending.deadline == pending.since + 60


def test_one_payload_of_any_size_fits(overflown):
    pending = PendingCall("call", 60, overflown.append)
    pending.offer(Event("call", "claim", 1, CHUNKS, b"x" * (MOST_BYTES + 1)))
    assert pending.outcome is None and overflown == []
    pending.offer(Event("call", "claim", 2, CHUNKS, b"y"))
    assert isinstance(pending.outcome.error, SlowReader) and overflown == [pending]


def test_events_of_a_second_claim_are_no_part_of_the_answer(overflown):
    pending = PendingCall("call", 60, overflown.append)
    pending.started("worker-1", "first")
    pending.offer(Event("call", "first", 1, CHUNKS, b"a"))
    pending.offer(Event("call", "second", 2, CHUNKS, b"b"))
    assert pending.parts() == [b"a"]
    assert isinstance(pending.outcome.error, ReplyLost) and overflown == [pending]


def test_a_call_started_a_second_time_is_given_up(overflown):
    pending = PendingCall("call", 60, overflown.append)
    pending.started("worker-1", "first")
    pending.started("worker-1", "first")
    assert pending.outcome is None
    pending.started("worker-2", "second")
    assert isinstance(pending.outcome.error, ReplyLost)


def test_a_nudge_ends_a_wait_that_brought_nothing(pending):
    waiting = gevent.spawn(pending.wait_nudged, 60)
    gevent.sleep(0)
    assert pending.nudge_at > time.monotonic() + 59
    pending.nudge()
    assert waiting.get(timeout=10) is False
    assert pending.nudge_at is None
    assert not pending.wait(0), "a nudge is nothing to send"


@pytest.mark.parametrize("event", [parts(1), ending(1, Outcome())], ids=["parts", "outcome"])
def test_what_comes_ends_a_wait_before_its_nudge(pending, event):
    waiting = gevent.spawn(pending.wait_nudged, 60)
    gevent.sleep(0)
    pending.offer(event)
    assert waiting.get(timeout=10) is True
    assert pending.nudge_at is None


def test_what_has_come_before_is_not_waited_for(pending):
    pending.offer(parts(1))
    assert pending.wait_nudged(60) is True


def test_what_is_sent_at_once_does_not_end_the_wait_and_moves_its_nudge(pending):
    sent = []
    waiting = gevent.spawn(pending.wait_nudged, 60, lambda payload: not sent.append(payload))
    gevent.sleep(0)
    pending.nudge_at = 0.0
    pending.offer(parts(1, b"a"))
    pending.offer(parts(2, b"b"))
    assert pending.nudge_at > time.monotonic() + 59
    pending.offer(ending(3, Outcome(last=2)))
    assert waiting.get(timeout=10) is True
    assert sent == [b"a", b"b"]
    assert pending.parts() == []


def test_what_cannot_be_sent_at_once_is_kept_with_all_after_it(pending):
    offered = []
    waiting = gevent.spawn(pending.wait_nudged, 60, lambda payload: bool(offered.append(payload)))
    gevent.sleep(0)
    pending.offer(parts(1, b"a"))
    pending.offer(parts(2, b"b"))
    assert waiting.get(timeout=10) is True
    pending.offer(parts(3, b"c"))
    assert offered == [b"a"], "the order is lost if a later one is sent first"
    assert pending.parts() == [b"a", b"b", b"c"]


# what many hold together


def test_much_is_taken_in_turns_until_nothing_is_left(pending):
    payloads = [b"%d" % number * (TAKE_BYTES // 2) for number in range(1, 6)]
    for number, payload in enumerate(payloads, 1):
        pending.offer(parts(number, payload))
    pending.offer(ending(6, Outcome(last=5)))
    taken = []
    while more := pending.parts():
        assert sum(map(len, more[:-1])) < TAKE_BYTES
        taken += more
    assert taken == payloads
    assert pending.wait(0)


def test_a_wait_ends_at_once_while_something_is_left(pending):
    for number in (1, 2):
        pending.offer(parts(number, b"x" * TAKE_BYTES))
    assert len(pending.parts()) == 1
    assert pending.wait(0)
    assert len(pending.parts()) == 1
    assert not pending.wait(0)


def test_where_all_hold_much_a_slow_reader_is_given_up_earlier(overflown, clock):
    buffers = Buffers(clock)
    slow = PendingCall("call", 60, overflown.append, buffers)
    other = PendingCall("call", 60, overflown.append, buffers)
    for number in range(1, 4):
        slow.offer(parts(number, b"x" * FAIR_BYTES))
    buffers.held = SHARED_BYTES - 10  # by many others
    other.offer(parts(1, b"x" * 100))
    other.offer(parts(2, b"x" * 100))
    assert overflown == []
    slow.offer(parts(4))
    clock.now += SLOW_SECONDS + 0.1
    slow.offer(parts(5))
    assert overflown == [slow]
    assert isinstance(slow.outcome.error, SlowReader)


def test_where_all_hold_far_too_much_nobody_gets_time(overflown, clock):
    buffers = Buffers(clock)
    pending = PendingCall("call", 60, overflown.append, buffers)
    pending.offer(parts(1, b"x" * FAIR_BYTES))
    buffers.held = 2 * SHARED_BYTES
    pending.offer(parts(2))
    assert overflown == [pending]


@pytest.mark.parametrize("sizes", [[10, 20], [TAKE_BYTES, TAKE_BYTES, 5]])
def test_what_is_taken_or_dropped_is_held_no_more(sizes):
    buffers = Buffers()
    pending = PendingCall("call", 60, lambda pending: None, buffers)
    for number, size in enumerate(sizes, 1):
        pending.offer(parts(number, b"x" * size))
    assert buffers.held == sum(sizes) + len(sizes) * EVENT_BYTES
    taken = pending.parts()
    left = sizes[len(taken) :]
    assert buffers.held == sum(left) + len(left) * EVENT_BYTES
    pending.drop()
    assert buffers.held == 0
    assert pending.parts() == []


# calls that run once more


def retried(lost="claim"):
    return Event("call", "", 0, RETRY, lost.encode())


def second(number, payload=b"y"):
    return Event("call", "second", number, CHUNKS, payload)


def test_a_call_that_a_lost_worker_has_run_is_not_to_be_sent_again(pending):
    pending.started("worker", "claim")
    pending.offer(retried())
    pending.fail(NoWorkers(retry_after=5))
    assert pending.outcome.error.should_retry is False


def test_a_look_from_before_the_loss_does_not_end_the_second_run(pending):
    """The reply to the monitor's look and the event of the loss come over two connections."""
    pending.started("worker", "claim")
    pending.offer(retried())
    pending.started("worker", "claim", "1")
    pending.offer(second(1))
    pending.started("worker", "claim", "1")
    assert pending.outcome is None
    assert pending.claim == "second"
    assert pending.parts() == [b"y"]


def test_events_of_the_lost_worker_are_dropped_and_those_of_the_next_count(pending, overflown):
    pending.started("worker", "claim")
    pending.offer(retried())
    assert (pending.worker, pending.claim) == ("", "")
    pending.offer(parts(1))
    pending.offer(second(1))
    pending.offer(retried())  # a log that is read again
    pending.offer(parts(2))
    pending.offer(ending(3, Outcome(last=2)))
    pending.offer(second(2, b"z"))
    assert pending.parts() == [b"y", b"z"]
    assert (pending.outcome, overflown) == (None, [])


def test_a_call_of_whose_first_run_something_has_come_ends(pending, overflown):
    pending.offer(parts(1))
    pending.offer(retried())
    assert isinstance(pending.outcome.error, ReplyLost)
    assert overflown == [pending]


def test_who_runs_it_again_may_be_known_before_the_event_is_read(pending, overflown):
    pending.started("worker", "claim")
    pending.started("another", "second", "claim")
    pending.offer(retried())
    assert (pending.worker, pending.claim, pending.outcome) == ("another", "second", None)
    pending.offer(second(1))
    assert (pending.parts(), overflown) == ([b"y"], [])


def test_the_time_that_it_waits_for_a_worker_begins_anew(pending):
    pending.since -= 50
    pending.retried("claim")
    assert time.monotonic() - pending.since < 50


@pytest.mark.parametrize("wait", [PendingCall.until_accepted, PendingCall.until_admitted])
@pytest.mark.parametrize("error", [None, WorkerLost()])
def test_a_log_may_end_before_the_queue_replies(pending, wait, error):
    pending.logged = True
    pending.offer(ending(1, Outcome(last=1, error=error)))
    waiting = gevent.spawn(wait, pending)
    gevent.sleep(0.01)
    assert not waiting.ready()
    pending.accepted()
    waiting.get(timeout=10)


def test_a_refused_call_is_not_waited_for(pending):
    pending.fail(NoWorkers())
    with gevent.Timeout(10):
        pending.until_accepted()
