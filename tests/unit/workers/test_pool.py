"""workers/pool.py: calls spread over keys and deployments, and those in trouble rest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from gateway.chat import ChatCall, Chunk
from gateway.errors import (
    GatewayError,
    ModelNotFound,
    UpstreamAuth,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamQuotaExceeded,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamTruncated,
)
from providers.base import IGNORE, OnHead
from workers.pool import Pool, Way, trouble_of_a_deployment, trouble_of_a_key

CALL = ChatCall("model", {"messages": []})
HELLO: Chunk = {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}


class Upstream:
    """A provider that fails with `error` while it has one; `calls` are those that it got."""

    streams_only = False

    def __init__(self, error: GatewayError | None = None, late: bool = False) -> None:
        self.error, self.late = error, late
        self.calls: list[ChatCall] = []

    def complete(self, call: ChatCall, on_head: OnHead = IGNORE) -> Chunk:
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        on_head()
        return HELLO

    def stream(self, call: ChatCall) -> Iterator[list[Chunk]]:
        self.calls.append(call)
        if self.error is not None and not self.late:
            raise self.error
        yield [HELLO]
        if self.error is not None:
            raise self.error
        yield [HELLO]

    def embed(self, model: str, parameters: Mapping[str, Any], on_head: OnHead = IGNORE) -> Chunk:
        return self.complete(ChatCall(model, parameters), on_head)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def pool(*upstreams: Upstream, clock: Clock | None = None, weights: Any = None) -> Pool:
    ways = [
        Way(f"key {number}", upstream, (weights or [1] * len(upstreams))[number])
        for number, upstream in enumerate(upstreams)
    ]
    return Pool(ways, trouble_of_a_key, clock or Clock())


def whole(each: Pool) -> Any:
    return each.complete(CALL)


def streamed(each: Pool) -> Any:
    return list(each.stream(CALL))[0][0]


def embedded(each: Pool) -> Any:
    return each.embed("model", {"input": "hi"})


@pytest.fixture(params=[whole, streamed, embedded])
def ask(request: pytest.FixtureRequest) -> Callable[[Pool], Any]:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "error", [UpstreamThrottled(retry_after=20), UpstreamAuth(), UpstreamQuotaExceeded()]
)
def test_a_key_in_trouble_rests_while_another_takes_the_call(
    ask: Callable[[Pool], Any], error: GatewayError
) -> None:
    clock, first, second = Clock(), Upstream(error), Upstream()
    keys = pool(first, second, clock=clock)
    assert ask(keys) == HELLO
    assert ask(keys) == HELLO
    assert (len(first.calls), len(second.calls)) == (1, 2)
    clock.now += 61
    assert ask(keys) == HELLO
    assert len(first.calls) == 2


def test_it_rests_as_long_as_its_provider_says() -> None:
    clock, first, second = Clock(), Upstream(UpstreamThrottled(retry_after=20)), Upstream()
    keys = pool(first, second, clock=clock)
    whole(keys)
    for seconds, calls in ((19, 1), (1.5, 2)):
        clock.now += seconds
        whole(keys)
        assert len(first.calls) == calls


def test_a_rest_is_logged_by_number_and_without_the_key(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        whole(pool(Upstream(UpstreamThrottled(retry_after=20)), Upstream()))
    (record,) = caplog.records
    assert record.getMessage() == "key 0 rests for 20 seconds"
    assert record.__dict__["fields"]["error"] == "rate_limit_exceeded"


@pytest.mark.parametrize("error", [UpstreamRejected(), UpstreamFailed(), UpstreamTimeout()])
def test_other_errors_are_not_the_key_s_fault(
    ask: Callable[[Pool], Any], error: GatewayError
) -> None:
    first, second = Upstream(error), Upstream()
    with pytest.raises(type(error)):
        ask(pool(first, second))
    assert (len(first.calls), second.calls) == (1, [])


def test_the_last_error_stands_when_all_keys_are_in_trouble(ask: Callable[[Pool], Any]) -> None:
    first = Upstream(UpstreamThrottled(retry_after=20))
    second = Upstream(UpstreamThrottled(retry_after=9))
    keys = pool(first, second)
    with pytest.raises(UpstreamThrottled) as raised:
        ask(keys)
    assert raised.value.retry_after == 9
    with pytest.raises(UpstreamThrottled):
        ask(keys)
    # The one that rests for less was asked again, and no other.
    assert (len(first.calls), len(second.calls)) == (1, 2)


def test_a_stream_that_has_begun_stays_where_it_is() -> None:
    first, second = Upstream(UpstreamThrottled(), late=True), Upstream()
    chunks = pool(first, second).stream(CALL)
    assert next(chunks) == [HELLO]
    with pytest.raises(UpstreamThrottled):
        next(chunks)
    assert second.calls == []


def test_calls_go_to_the_least_busy_key_until_their_streams_end() -> None:
    upstreams = [Upstream(), Upstream()]
    keys = pool(*upstreams)
    streams = [keys.stream(CALL) for _ in range(6)]
    for each in streams:
        next(each)
    assert [len(each.calls) for each in upstreams] == [3, 3]
    streams[0].close()  # type: ignore[attr-defined]
    streams[2].close()  # type: ignore[attr-defined]
    whole(keys)
    assert [len(each.calls) for each in upstreams] == [4, 3]


def test_weights_are_shares_of_the_running_calls() -> None:
    upstreams = [Upstream(), Upstream()]
    places = pool(*upstreams, weights=[3, 1])
    streams = [places.stream(CALL) for _ in range(8)]
    for each in streams:
        next(each)
    assert [len(each.calls) for each in upstreams] == [6, 2]


def test_each_way_gets_the_call_as_it_takes_it() -> None:
    upstream = Upstream()
    prepared = ChatCall("deployment-7", {"messages": []})
    way = Way("here", upstream, prepare=lambda call: prepared)
    places = Pool([way], trouble_of_a_deployment)
    for ask in (whole, streamed, embedded):
        ask(places)
    assert [call.model for call in upstream.calls] == ["deployment-7"] * 3


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (UpstreamOverloaded(retry_after=7), 7),
        (UpstreamFailed(), 5),
        (UpstreamThrottled(), 5),
        (ModelNotFound(), 60),
        (UpstreamAuth(), 60),
        (UpstreamTimeout(), 0),
        (UpstreamTruncated(), 0),
        (UpstreamRejected(), 0),
    ],
)
def test_a_deployment_rests_where_another_can_be_asked_without_harm(
    error: GatewayError, seconds: float
) -> None:
    assert trouble_of_a_deployment(error) == seconds


def test_the_head_of_a_response_is_reported_once_whoever_sends_it() -> None:
    heads: list[None] = []
    keys = pool(Upstream(UpstreamThrottled()), Upstream())
    keys.complete(CALL, lambda: heads.append(None))
    keys.embed("model", {"input": "hi"}, lambda: heads.append(None))
    assert len(heads) == 2
