"""providers/http/budget.py: how many bytes of whole responses are read at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import gevent
import pytest

from gateway.errors import Overloaded, PayloadTooLarge
from providers.base import Request
from providers.http import budget as module
from providers.http.budget import SMALL, Budget, Reading
from providers.http.transport import Transport
from tests.support.raw_upstream import serving
from workers.breaker import counts

LIMIT = 10 * SMALL
PATIENCE = 30  # seconds


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0)


class Redis:
    """Holds what was written until it is delivered."""

    def __init__(self, budget: Budget) -> None:
        self.gone: set[str] = set()
        self.looks = 0
        budget.delivered = self

    def __call__(self, call_ids: Sequence[str]) -> list[bool]:
        self.looks += 1
        return [call_id in self.gone for call_id in call_ids]


def waiting(reading: Reading, size: int) -> gevent.Greenlet:
    greenlet = gevent.spawn(reading.expect, size)
    gevent.sleep(0)
    assert not greenlet.ready()
    return greenlet


def done(greenlet: gevent.Greenlet) -> None:
    greenlet.get(timeout=PATIENCE)


def test_small_responses_are_not_counted() -> None:
    budget = Budget(LIMIT)
    reading = Reading(budget)
    reading.expect(SMALL)
    reading.arrived(SMALL)
    budget.hold("call", SMALL)
    assert budget.used == 0


def test_a_response_of_known_length_counts_while_it_is_read() -> None:
    budget = Budget(LIMIT)
    reading = Reading(budget)
    reading.expect(3 * SMALL)
    reading.arrived(3 * SMALL)
    assert budget.used == 3 * SMALL
    reading.close()
    assert budget.used == 0


def test_one_of_unknown_length_counts_for_twice_what_has_come() -> None:
    budget = Budget(LIMIT)
    reading = Reading(budget)
    reading.arrived(2 * SMALL)
    reading.arrived(3 * SMALL)
    assert budget.used == 4 * SMALL
    reading.arrived(6 * SMALL)
    assert budget.used == LIMIT


def test_what_does_not_fit_waits_until_another_is_read() -> None:
    budget = Budget(LIMIT)
    first, second = Reading(budget), Reading(budget)
    first.expect(6 * SMALL)
    later = waiting(second, 6 * SMALL)
    first.close()
    done(later)
    assert budget.used == 6 * SMALL


def test_an_answer_counts_until_it_is_delivered_and_costs_nothing_before() -> None:
    budget = Budget(LIMIT)
    redis = Redis(budget)
    budget.hold("one", 6 * SMALL)
    Reading(budget).expect(2 * SMALL)
    assert redis.looks == 0
    later = waiting(Reading(budget), 4 * SMALL)
    redis.gone.add("one")
    done(later)
    assert redis.looks > 0
    assert budget.used == 6 * SMALL


def test_of_two_that_wait_for_each_other_the_older_goes_on() -> None:
    budget = Budget(LIMIT)
    older, newer = Reading(budget), Reading(budget)
    older.expect(5 * SMALL)
    newer.expect(5 * SMALL)
    stuck = waiting(newer, 7 * SMALL)
    older.expect(8 * SMALL)
    assert not stuck.ready()
    older.close()
    done(stuck)


def test_the_older_too_waits_for_what_is_not_delivered() -> None:
    budget = Budget(LIMIT)
    redis = Redis(budget)
    budget.hold("one", 6 * SMALL)
    later = waiting(Reading(budget), 5 * SMALL)
    redis.gone.add("one")
    done(later)


def test_a_response_that_can_never_fit_is_refused_at_once() -> None:
    budget = Budget(LIMIT)
    with pytest.raises(PayloadTooLarge) as raised:
        Reading(budget).expect(LIMIT + 1)
    assert f"{LIMIT:,} bytes" in raised.value.message
    assert raised.value.should_retry is False


def test_a_provider_s_time_that_ends_while_a_response_waits_for_room_is_nobody_s_fault() -> None:
    budget = Budget(LIMIT)
    Redis(budget)
    budget.hold("one", LIMIT)
    with pytest.raises(Overloaded) as raised, gevent.Timeout(0.01):
        Reading(budget).expect(2 * SMALL)
    assert raised.value.should_retry is False  # the provider was called
    assert not counts(raised.value)


def test_a_provider_is_not_given_up_while_we_make_it_wait() -> None:
    budget = Budget(LIMIT)
    Redis(budget)
    budget.hold("one", LIMIT)
    with gevent.Timeout(0.01), pytest.raises(Overloaded):
        Reading(budget).expect(2 * SMALL)


# Over HTTP


HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.fixture
def budget() -> Budget:
    return Budget(LIMIT)


@pytest.fixture
def transport(budget: Budget) -> Iterator[Transport]:
    made = Transport(read_timeout=5, budget=budget)
    yield made
    made.close()


def known(size: int) -> bytes:
    return f"{HEAD}Content-Length: {size}\r\n\r\n".encode() + b"x" * size


def chunked(size: int) -> bytes:
    head = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n"
    return head.encode() + b"x" * size + b"\r\n0\r\n\r\n"


@pytest.mark.parametrize("answer", [known, chunked])
def test_a_whole_body_counts_until_its_response_is_closed(answer, transport, budget) -> None:  # type: ignore[no-untyped-def]
    with serving(answer(4 * SMALL)) as url:
        with transport.post(Request(url, {}, b"{}")) as response:
            assert len(response.read_all()) == 4 * SMALL
            assert budget.used >= 4 * SMALL
        assert budget.used == 0


def test_a_body_of_known_length_counts_for_it_and_no_more(transport, budget) -> None:  # type: ignore[no-untyped-def]
    with serving(known(9 * SMALL)) as url, transport.post(Request(url, {}, b"{}")) as response:
        assert len(response.read_all(response.read())) == 9 * SMALL
        assert budget.used == 9 * SMALL


@pytest.mark.parametrize("answer", [known, chunked])
def test_a_body_that_can_never_fit_is_not_read(answer, transport, budget) -> None:  # type: ignore[no-untyped-def]
    with (
        serving(answer(LIMIT + 1)) as url,
        pytest.raises(PayloadTooLarge),
        transport.post(Request(url, {}, b"{}")) as response,
    ):
        response.read_all()
    assert budget.used == 0


def test_a_stream_may_be_longer_than_the_budget(transport, budget) -> None:  # type: ignore[no-untyped-def]
    with serving(chunked(2 * LIMIT)) as url, transport.post(Request(url, {}, b"{}")) as response:
        assert sum(map(len, iter(response.read, b""))) == 2 * LIMIT
