"""workers/routing.py: what is tried again, how often, and how long after."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway import errors
from gateway.chat import ChatCall, Part
from gateway.errors import (
    GatewayError,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from tests.fakes import Clock
from workers import routing
from workers.routing import BACKOFF_SECONDS, Attempts, lines

CALL = ChatCall("model", {"messages": []})
ANSWER: Part = {"choices": [{"index": 0}]}
TRIED_AGAIN = (UpstreamUnreachable, UpstreamFailed, UpstreamOverloaded, UpstreamThrottled)


class Scripted:
    """A provider whose calls go as its steps say: an error is raised, parts are passed on."""

    def __init__(self, *attempts: Any) -> None:
        self.calls = 0
        self.closed = 0
        self._attempts = iter(attempts)

    def complete(self, call: ChatCall) -> Part:
        self.calls += 1
        step = next(self._attempts)
        if isinstance(step, BaseException):
            raise step
        return step

    def stream(self, call: ChatCall) -> Iterator[list[Part]]:
        self.calls += 1
        step = next(self._attempts)
        try:
            for item in step if isinstance(step, list) else [step]:
                if isinstance(item, BaseException):
                    raise item
                yield [item]
        finally:
            self.closed += 1


@pytest.fixture
def slept() -> list[float]:
    return []


def attempts(slept: list[float], allowed: int = 3, seconds: float = 600) -> Attempts:
    return Attempts(allowed, time.monotonic() + seconds, sleep=slept.append)


def ask(way: str, made: Attempts, provider: Scripted) -> list[Part]:
    """The answer's parts, whole or streamed."""
    if way == "complete":
        return [made.complete(provider, CALL)]
    return [part for parts in made.stream(provider, CALL) for part in parts]


both_ways = pytest.mark.parametrize("way", ["complete", "stream"])


@both_ways
def test_an_answer_is_asked_for_once(way: str, slept: list[float]) -> None:
    provider, made = Scripted(ANSWER), attempts(slept)
    assert ask(way, made, provider) == [ANSWER]
    assert (provider.calls, made.made, slept) == (1, 1, [])


@both_ways
@pytest.mark.parametrize("kind", TRIED_AGAIN)
def test_what_cannot_have_been_acted_on_is_tried_again(
    way: str, kind: type[GatewayError], slept: list[float]
) -> None:
    provider, made = Scripted(kind(), kind(), ANSWER), attempts(slept)
    assert ask(way, made, provider) == [ANSWER]
    assert (provider.calls, made.made, len(slept)) == (3, 3, 2)


@both_ways
@pytest.mark.parametrize("kind", [kind for kind in errors.kinds() if kind not in TRIED_AGAIN])
def test_nothing_else_is_tried_again(
    way: str, kind: type[GatewayError], slept: list[float]
) -> None:
    error = kind(retry_after=0.1)
    provider, made = Scripted(error, ANSWER), attempts(slept)
    with pytest.raises(kind) as raised:
        ask(way, made, provider)
    assert raised.value is error
    assert (provider.calls, made.made, slept) == (1, 1, [])


@both_ways
@pytest.mark.parametrize("allowed", [1, 2, 5])
def test_there_are_no_more_attempts_than_allowed_and_the_last_error_is_raised(
    way: str, allowed: int, slept: list[float]
) -> None:
    failures = [UpstreamFailed(str(number)) for number in range(10)]
    provider, made = Scripted(*failures), attempts(slept, allowed)
    with pytest.raises(UpstreamFailed) as raised:
        ask(way, made, provider)
    assert raised.value is failures[allowed - 1]
    assert (provider.calls, made.made, len(slept)) == (allowed, allowed, allowed - 1)


@both_ways
def test_a_retry_may_end_in_an_error_that_is_not_tried_again(way: str, slept: list[float]) -> None:
    provider, made = Scripted(UpstreamFailed(), UpstreamRejected(), ANSWER), attempts(slept)
    with pytest.raises(UpstreamRejected):
        ask(way, made, provider)
    assert made.made == 2


@pytest.mark.parametrize("kind", [*TRIED_AGAIN, UpstreamTruncated])
def test_nothing_is_tried_again_once_a_part_was_passed_on(
    kind: type[GatewayError], slept: list[float]
) -> None:
    provider, made = Scripted([ANSWER, kind()], ANSWER), attempts(slept)
    seen = []
    with pytest.raises(kind):
        for parts in made.stream(provider, CALL):
            seen += parts
    assert seen == [ANSWER]
    assert (provider.calls, made.made, slept) == (1, 1, [])


def test_a_stream_that_is_read_no_further_is_closed(slept: list[float]) -> None:
    provider = Scripted([ANSWER, ANSWER, ANSWER])
    stream = attempts(slept).stream(provider, CALL)
    next(stream)
    stream.close()
    assert provider.closed == 1


@both_ways
def test_a_provider_that_names_a_time_is_left_alone_for_that_long(
    way: str, slept: list[float]
) -> None:
    provider = Scripted(UpstreamThrottled(retry_after=17.5), ANSWER)
    ask(way, attempts(slept), provider)
    assert slept == [17.5]


def test_a_time_shorter_than_the_backoff_does_not_shorten_it(slept: list[float]) -> None:
    attempts(slept).complete(Scripted(UpstreamThrottled(retry_after=0.001), ANSWER), CALL)
    assert slept[0] >= BACKOFF_SECONDS / 2


@both_ways
@pytest.mark.parametrize("left", [9.9, 10.0])
def test_no_attempt_is_waited_for_past_the_deadline(
    way: str, left: float, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(routing, "time", clock)
    made = Attempts(3, clock.now + left, sleep=slept.append)
    provider = Scripted(UpstreamThrottled(retry_after=10), ANSWER)
    with pytest.raises(UpstreamThrottled):
        ask(way, made, provider)
    assert (made.made, slept) == (1, [])


@both_ways
def test_a_wait_that_ends_before_the_deadline_is_borne(
    way: str, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(routing, "time", clock)
    made = Attempts(3, clock.now + 10.1, sleep=slept.append)
    assert ask(way, made, Scripted(UpstreamThrottled(retry_after=10), ANSWER)) == [ANSWER]


@both_ways
def test_waits_add_up_against_the_deadline(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(routing, "time", clock)

    def sleep(seconds: float) -> None:
        clock.now += seconds

    end = clock.now + 25
    made = Attempts(10, end, sleep=sleep)
    with pytest.raises(UpstreamThrottled):
        ask(way, made, Scripted(*(UpstreamThrottled(retry_after=10) for _ in range(10))))
    assert made.made == 3
    assert clock.now < end


def test_each_wait_is_twice_the_one_before(
    slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing.random, "uniform", lambda low, high: high)
    attempts(slept, 5).complete(Scripted(*(UpstreamFailed() for _ in range(4)), ANSWER), CALL)
    assert slept == [BACKOFF_SECONDS * factor for factor in (1, 2, 4, 8)]


def test_waits_differ_so_that_workers_do_not_come_back_together() -> None:
    waits = []
    for _ in range(50):
        slept: list[float] = []
        attempts(slept).complete(Scripted(UpstreamFailed(), ANSWER), CALL)
        waits += slept
    assert len(set(waits)) > 1
    assert all(BACKOFF_SECONDS / 2 <= wait <= BACKOFF_SECONDS for wait in waits)


def test_parts_travel_as_lines_without_a_line_break_of_their_own() -> None:
    parts: list[Part] = [{"a": "one\ntwo"}, {"b": 1}]
    assert lines(parts) == b'{"a":"one\\ntwo"}\n{"b":1}'


@both_ways
def test_a_caller_is_not_told_to_repeat_what_a_provider_may_have_seen(
    way: str, slept: list[float]
) -> None:
    provider = Scripted(UpstreamFailed(), UpstreamUnreachable(), UpstreamUnreachable())
    with pytest.raises(UpstreamUnreachable) as caught:
        ask(way, attempts(slept), provider)
    assert caught.value.should_retry is False


@both_ways
def test_a_caller_may_repeat_what_no_provider_has_seen(way: str, slept: list[float]) -> None:
    provider = Scripted(*(UpstreamUnreachable() for _ in range(3)))
    with pytest.raises(UpstreamUnreachable) as caught:
        ask(way, attempts(slept), provider)
    assert caught.value.should_retry is True
