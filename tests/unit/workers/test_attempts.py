"""workers/attempts.py: what is tried again, how often, and how long after."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from math import inf
from typing import Any

import gevent
import gevent.event
import pytest

from gateway import errors
from gateway.catalogue.file import ModelRow
from gateway.chat import ChatCall, Chunk, says_something
from gateway.errors import (
    GatewayError,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from gateway.timeouts import Timeouts
from providers.base import IGNORE, OnHead
from tests.support.fakes import Clock
from workers import attempts as attempts_module
from workers.attempts import BACKOFF_SECONDS, Attempts, Limits, lines

CALL = ChatCall("model", {"messages": []})
ANSWER: Chunk = {"choices": [{"index": 0, "delta": {"content": "a"}}]}
OPENING: Chunk = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
TRIED_AGAIN = (UpstreamUnreachable, UpstreamFailed, UpstreamOverloaded, UpstreamThrottled)


class Scripted:
    """A provider whose calls go as its steps say: an error is raised, parts are passed on."""

    def __init__(self, *attempts: Any, streams_only: bool = False) -> None:
        self.streams_only = streams_only
        self.calls = 0
        self.closed = 0
        self._attempts = iter(attempts)

    def complete(self, call: ChatCall, on_head: OnHead = IGNORE) -> Chunk:
        self.calls += 1
        step = next(self._attempts)
        if isinstance(step, BaseException):
            raise step
        return step

    def embed(self, model: str, parameters: Mapping[str, Any], on_head: OnHead = IGNORE) -> Chunk:
        return {**self.complete(ChatCall(model, parameters)), "asked": [model, parameters]}

    def stream(self, call: ChatCall) -> Iterator[list[Chunk]]:
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


def ask(way: str, tries: Attempts, provider: Scripted) -> list[Chunk]:
    """The answer's parts, whole or streamed."""
    if way == "complete":
        return [tries.complete(provider, CALL)]
    return [part for parts in tries.stream(provider, CALL) for part in parts]


both_ways = pytest.mark.parametrize("way", ["complete", "stream"])


@both_ways
def test_an_answer_is_asked_for_once(way: str, slept: list[float]) -> None:
    provider, tries = Scripted(ANSWER), attempts(slept)
    assert ask(way, tries, provider) == [ANSWER]
    assert (provider.calls, tries.count, slept) == (1, 1, [])


@both_ways
@pytest.mark.parametrize("kind", TRIED_AGAIN)
def test_what_cannot_have_been_acted_on_is_tried_again(
    way: str, kind: type[GatewayError], slept: list[float]
) -> None:
    provider, tries = Scripted(kind(), kind(), ANSWER), attempts(slept)
    assert ask(way, tries, provider) == [ANSWER]
    assert (provider.calls, tries.count, len(slept)) == (3, 3, 2)


@both_ways
@pytest.mark.parametrize("kind", [kind for kind in errors.kinds() if kind not in TRIED_AGAIN])
def test_nothing_else_is_tried_again(
    way: str, kind: type[GatewayError], slept: list[float]
) -> None:
    error = kind(retry_after=0.1)
    provider, tries = Scripted(error, ANSWER), attempts(slept)
    with pytest.raises(kind) as raised:
        ask(way, tries, provider)
    assert raised.value is error
    assert (provider.calls, tries.count, slept) == (1, 1, [])


@both_ways
@pytest.mark.parametrize("allowed", [1, 2, 5])
def test_there_are_no_more_attempts_than_allowed_and_the_last_error_is_raised(
    way: str, allowed: int, slept: list[float]
) -> None:
    failures = [UpstreamFailed(str(number)) for number in range(10)]
    provider, tries = Scripted(*failures), attempts(slept, allowed)
    with pytest.raises(UpstreamFailed) as raised:
        ask(way, tries, provider)
    assert raised.value is failures[allowed - 1]
    assert (provider.calls, tries.count, len(slept)) == (allowed, allowed, allowed - 1)


@both_ways
def test_a_retry_may_end_in_an_error_that_is_not_tried_again(way: str, slept: list[float]) -> None:
    provider, tries = Scripted(UpstreamFailed(), UpstreamRejected(), ANSWER), attempts(slept)
    with pytest.raises(UpstreamRejected):
        ask(way, tries, provider)
    assert tries.count == 2


@pytest.mark.parametrize("kind", [*TRIED_AGAIN, UpstreamTruncated])
def test_nothing_is_tried_again_once_a_part_was_passed_on(
    kind: type[GatewayError], slept: list[float]
) -> None:
    provider, tries = Scripted([ANSWER, kind()], ANSWER), attempts(slept)
    seen = []
    with pytest.raises(kind):
        for parts in tries.stream(provider, CALL):
            seen += parts
    assert seen == [ANSWER]
    assert (provider.calls, tries.count, slept) == (1, 1, [])


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
    monkeypatch.setattr(attempts_module, "time", clock)
    tries = Attempts(3, clock.now + left, sleep=slept.append)
    provider = Scripted(UpstreamThrottled(retry_after=10), ANSWER)
    with pytest.raises(UpstreamThrottled):
        ask(way, tries, provider)
    assert (tries.count, slept) == (1, [])


@both_ways
def test_a_wait_that_ends_before_the_deadline_is_borne(
    way: str, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(attempts_module, "time", clock)
    tries = Attempts(3, clock.now + 10.1, sleep=slept.append)
    assert ask(way, tries, Scripted(UpstreamThrottled(retry_after=10), ANSWER)) == [ANSWER]


@both_ways
def test_waits_add_up_against_the_deadline(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(attempts_module, "time", clock)

    def sleep(seconds: float) -> None:
        clock.now += seconds

    end = clock.now + 25
    tries = Attempts(10, end, sleep=sleep)
    with pytest.raises(UpstreamThrottled):
        ask(way, tries, Scripted(*(UpstreamThrottled(retry_after=10) for _ in range(10))))
    assert tries.count == 3
    assert clock.now < end


def test_each_wait_is_twice_the_one_before(
    slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts_module.random, "uniform", lambda low, high: high)
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
    parts: list[Chunk] = [{"a": "one\ntwo"}, {"b": 1}]
    assert lines(parts) == b'{"a":"one\\ntwo"}\n{"b":1}'


def test_embeddings_are_tried_again_as_a_chat_is(slept: list[float]) -> None:
    provider, tries = Scripted(UpstreamFailed(), {"data": []}), attempts(slept)
    embeddings = tries.embed(provider, ChatCall("model-2", {"input": "hi"}))
    assert embeddings == {"data": [], "asked": ["model-2", {"input": "hi"}]}
    assert (tries.count, len(slept)) == (2, 1)


# Before the first token


def test_what_comes_before_the_first_token_travels_with_it(slept: list[float]) -> None:
    provider = Scripted([OPENING, {"choices": []}, ANSWER, ANSWER])
    assert list(attempts(slept).stream(provider, CALL)) == [
        [OPENING, {"choices": []}, ANSWER],
        [ANSWER],
    ]


def test_a_stream_without_a_token_is_passed_on_at_its_end(slept: list[float]) -> None:
    assert list(attempts(slept).stream(Scripted([OPENING]), CALL)) == [[OPENING]]


def test_an_answer_that_ends_at_once_says_so(slept: list[float]) -> None:
    end: Chunk = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    stream = attempts(slept).stream(Scripted([OPENING, end, {"choices": []}]), CALL)
    assert next(stream) == [OPENING, end]


@pytest.mark.parametrize(
    "delta",
    [
        {"role": "assistant", "content": "a"},
        {"tool_calls": [{"index": 0}]},
        {"reasoning_content": "Hm"},
        {"thinking_blocks": [{}]},
        {"refusal": "No."},
    ],
)
def test_all_that_a_model_says_counts_as_a_token(delta: Chunk) -> None:
    assert says_something({"choices": [{"index": 0, "delta": delta}]})


def test_an_error_after_the_opening_is_tried_again_without_a_trace(slept: list[float]) -> None:
    provider = Scripted([OPENING, UpstreamFailed()], [OPENING, ANSWER])
    assert ask("stream", attempts(slept), provider) == [OPENING, ANSWER]
    assert provider.calls == 2


class Silent:
    """A provider that never says anything, or only after `opening`."""

    streams_only = True

    def __init__(self, *opening: Chunk) -> None:
        self.calls = self.closed = 0
        self._opening = opening

    def stream(self, call: ChatCall) -> Iterator[list[Chunk]]:
        self.calls += 1
        try:
            for part in self._opening:
                yield [part]
            gevent.event.Event().wait()
        finally:
            self.closed += 1

    def complete(self, call: ChatCall, on_head: OnHead = IGNORE) -> Chunk:
        return next(self.stream(call))[0]


@pytest.mark.parametrize("opening", [[], [OPENING]])
def test_a_stream_whose_first_token_is_late_is_closed_and_not_tried_again(
    opening: list[Chunk], slept: list[float]
) -> None:
    provider, tries = Silent(*opening), attempts(slept)
    tries.first_token = 0.01
    with pytest.raises(UpstreamTimeout) as raised:
        list(tries.stream(provider, CALL))  # type: ignore[arg-type]
    assert raised.value.should_retry is False
    assert (provider.calls, provider.closed, slept) == (1, 1, [])


def test_the_first_token_of_a_whole_answer_that_is_a_stream_is_waited_for_as_long(
    slept: list[float],
) -> None:
    provider, tries = Silent(OPENING), attempts(slept)
    tries.first_token = 0.01
    with pytest.raises(UpstreamTimeout):
        tries.complete(provider, CALL)  # type: ignore[arg-type]
    assert (provider.calls, provider.closed, slept) == (1, 1, [])


def test_a_whole_answer_that_is_a_stream_is_folded(slept: list[float]) -> None:
    provider = Scripted(UpstreamFailed(), [OPENING, ANSWER], streams_only=True)
    [choice] = attempts(slept).complete(provider, CALL)["choices"]
    assert choice["message"]["content"] == "a"
    assert provider.calls == 2


def test_a_token_in_time_ends_the_wait_for_the_first(slept: list[float]) -> None:
    tries = attempts(slept)
    tries.first_token = 0.01
    stream = tries.stream(Silent(ANSWER), CALL)  # type: ignore[arg-type]
    assert next(stream) == [ANSWER]
    with gevent.Timeout(0.05, False):  # five times what was left
        next(stream)
        pytest.fail("the stream went on")


def test_another_s_timeout_is_left_alone(slept: list[float]) -> None:
    tries = attempts(slept)
    tries.first_token = 600
    with pytest.raises(gevent.Timeout) as raised, gevent.Timeout(0.01) as deadline:
        list(tries.stream(Silent(), CALL))  # type: ignore[arg-type]
    assert raised.value is deadline


@both_ways
def test_no_attempt_is_made_where_another_route_should_be_asked(
    way: str, slept: list[float]
) -> None:
    tries = attempts(slept)
    tries.retry_until = time.monotonic() + 5
    with pytest.raises(UpstreamThrottled):
        ask(way, tries, Scripted(UpstreamThrottled(retry_after=5.1), ANSWER))
    assert slept == []


@both_ways
def test_every_failed_attempt_is_told_of(way: str, slept: list[float]) -> None:
    errors_seen: list[GatewayError] = []
    failures = [UpstreamFailed(), UpstreamThrottled()]
    tries = attempts(slept)
    tries.on_failure = lambda attempts, error: errors_seen.append(error)
    ask(way, tries, Scripted(*failures, ANSWER))
    assert errors_seen == failures


def test_a_failure_after_the_first_token_is_told_of_too(slept: list[float]) -> None:
    errors_seen: list[GatewayError] = []
    tries = attempts(slept)
    tries.on_failure = lambda attempts, error: errors_seen.append(error)
    with pytest.raises(UpstreamTruncated):
        ask("stream", tries, Scripted([ANSWER, UpstreamTruncated()]))
    assert len(errors_seen) == 1


@both_ways
def test_an_attempt_that_others_wait_for_is_given_up_in_time(way: str, slept: list[float]) -> None:
    provider, tries = Silent(), attempts(slept)
    tries.answer_by = time.monotonic() + 0.01
    tries.counts_after = 600
    with pytest.raises(UpstreamTimeout) as raised:
        ask(way, tries, provider)  # type: ignore[arg-type]
    assert raised.value.should_retry is False
    assert (provider.calls, slept) == (1, [])
    assert not tries.failure_counts()  # it might have answered
    tries.counts_after = 0
    assert tries.failure_counts()


def test_an_attempt_that_failed_by_itself_tells_of_its_route_however_soon(
    slept: list[float],
) -> None:
    tries = attempts(slept)
    tries.counts_after = 600
    with pytest.raises(UpstreamTimeout):
        ask("complete", tries, Scripted(UpstreamTimeout()))
    assert tries.failure_counts()


def row(**fields: Any) -> ModelRow:
    return ModelRow("a/model", "a", **fields)


def hurried(stream: bool, left: float, **fields: Any) -> tuple[float, float, float]:
    """Seconds for retries, for the answer, and of silence that counts."""
    now = time.monotonic()
    tries = Attempts(3, now + left)
    Limits(patience=10).hurry(tries, row(**fields), stream)
    times = (tries.retry_until - now, tries.answer_by - now, tries.counts_after)
    return tuple(round(each, 1) for each in times)  # type: ignore[return-value]


def test_a_route_with_a_fallback_gets_its_patience_and_at_most_half_of_the_time() -> None:
    ours = {"fallbacks": ("b/model",)}
    assert hurried(True, 600, **ours) == (10, 10, 9)
    assert hurried(True, 8, **ours) == (4, 4, 9)
    assert hurried(False, 600, **ours) == (10, 300, 30)
    assert hurried(False, 8, **ours) == (4, 4, 30)
    assert hurried(True, 600, **ours, timeouts=Timeouts(first_token=3)) == (3, 3, 2.7)


@pytest.mark.parametrize("stream", [True, False])
def test_the_impatience_of_callers_opens_no_breaker(stream: bool) -> None:
    assert hurried(stream, 600)[2] == inf
