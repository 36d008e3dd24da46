"""A call and its fallbacks in a worker: what is asked of whom, and what is left of it."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Iterator
from typing import Any

import gevent.event
import orjson
import pytest

from gateway.account.usage import normal
from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.file import ModelRow, ProviderRow, Rows
from gateway.catalogue.target import Target
from gateway.chat import ChatCall, Chunk
from gateway.errors import (
    GatewayError,
    ModelNotFound,
    UpstreamAuth,
    UpstreamFailed,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamTruncated,
)
from gateway.queue.protocol import CallSpec, Outcome, decode_head
from gateway.settings import Settings
from gateway.timeouts import Timeouts
from providers.base import IGNORE, OnHead
from tests.support.ended import Ended
from tests.support.fakes import USAGE, Clock
from workers import attempts
from workers.attempts import Limits
from workers.bill import Bill
from workers.breaker import Breakers
from workers.claims import Claimed
from workers.runner import CallRunner

URL = "http://127.0.0.1:9/v1"
BODY = b'{"messages":[]}'
USED = normal(USAGE)
WHOLE: Chunk = {"choices": [{"index": 0, "message": {"content": "b"}}], "usage": USAGE}
OPENING: Chunk = {"choices": [{"index": 0, "delta": {"role": "assistant"}}], "usage": {"no": 1}}
WORD: Chunk = {"choices": [{"index": 0, "delta": {"content": "a"}}]}
LAST: Chunk = {"choices": [], "usage": USAGE}
HANG = "hang"


class Provider:
    """Answers each call by the next of its scripts, or always by the one it has."""

    streams_only = False

    def __init__(self, *scripts: Any) -> None:
        self.calls = 0
        self._scripts = scripts

    def complete(self, call: ChatCall, on_head: OnHead = IGNORE) -> Chunk:
        return next(self._steps())

    def stream(self, call: ChatCall) -> Iterator[list[Chunk]]:
        for step in self._steps():
            yield [step]

    def _steps(self) -> Iterator[Chunk]:
        script = self._scripts[min(self.calls, len(self._scripts) - 1)]
        self.calls += 1
        for step in script if isinstance(script, list) else [script]:
            if step is HANG:
                gevent.event.Event().wait()
            if isinstance(step, BaseException):
                raise step
            yield step


class Sender:
    def __init__(self) -> None:
        self.sent: list[bytes] = []

    @property
    def number(self) -> int:
        return len(self.sent)

    def send(self, lines: bytes) -> None:
        self.sent.append(lines)


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "BACKOFF_SECONDS", 0)


class House:
    """A runner for the models a/model, b/model and c/model, each of a provider of its own."""

    def __init__(
        self, *providers: Provider, limits: Limits | None = None, without: str = "", **row: Any
    ) -> None:
        self.providers = dict(zip("abc", providers, strict=False))
        self.clock = Clock()
        self.breakers = Breakers(3, 10.0, self.clock)
        rows = {name: ProviderRow(name, "openai", URL) for name in "abc"}
        models = {f"{n}/model": ModelRow(f"{n}/model", n, context_length=8) for n in "abc"}
        models["a/model"] = ModelRow("a/model", "a", context_length=4, **row)
        known: dict[str, Any] = dict(self.providers)
        if "timeouts" in row:
            known["a/model"] = known.pop("a")
        known.pop(without, None)
        catalogue = Catalogue(Rows(rows, {}, models), Settings())
        self.runner = CallRunner(known, limits or Limits(), catalogue, self.breakers)

    def ask(
        self, stream: bool = False, names: str = "ab", budget: float = 600, key: str = ""
    ) -> tuple[Ended, list[bytes]]:
        sender = Sender()
        targets = tuple(Target(f"{n}/model", n, "model") for n in names)
        spec = CallSpec("c" * 32, "web", stream, targets, key=key)
        claimed = Claimed(spec.call_id, "web", "claim", budget, b"")
        bill = Bill()
        outcome = self.runner.run(claimed, spec, BODY, sender, bill)  # type: ignore[arg-type]
        return Ended(outcome, bill), sender.sent


both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
FAILURES = [UpstreamAuth, UpstreamFailed, UpstreamTimeout, UpstreamTruncated, UpstreamThrottled]


@both_ways
@pytest.mark.parametrize("kind", FAILURES)
def test_the_fallback_answers_and_the_record_tells_of_the_failures(
    stream: bool, kind: type[GatewayError]
) -> None:
    answer = [WORD, LAST] if stream else WHOLE
    house = House(Provider(kind()), Provider(answer))
    outcome, sent = house.ask(stream)
    assert (outcome.error, outcome.route, outcome.usage) == (None, "b/model", USED)
    tries = 3 if kind.retryable else 1
    assert outcome.failures == [{"route": "a/model", "code": kind.code}] * tries
    assert outcome.attempts == tries + 1
    if stream:
        assert decode_head(sent[0]) == ("b/model", [], orjson.dumps(WORD))
    assert Outcome.decode(outcome.encode()) == outcome.outcome


def test_a_call_that_went_well_has_no_failures_in_its_record() -> None:
    outcome, _ = House(Provider(WHOLE)).ask(names="a")
    assert (outcome.failures, outcome.attempts) == ([], 1)


@pytest.mark.parametrize("failure", [UpstreamTruncated(), UpstreamFailed(), UpstreamTimeout()])
def test_what_a_failed_stream_began_with_leaves_no_trace(failure: GatewayError) -> None:
    house = House(Provider([OPENING, failure]), Provider([WORD, LAST]))
    outcome, sent = house.ask(stream=True)
    assert (outcome.error, outcome.usage) == (None, USED)
    assert b"".join(sent) == b"#b/model\n" + orjson.dumps(WORD) + orjson.dumps(LAST)


def test_after_a_token_was_sent_a_failure_is_told_and_nothing_spliced_on() -> None:
    house = House(Provider([WORD, UpstreamTruncated()]), Provider([WORD, LAST]))
    outcome, sent = house.ask(stream=True)
    assert isinstance(outcome.error, UpstreamTruncated)
    assert (sent, outcome.last, outcome.route) == ([orjson.dumps(WORD)], 1, "a/model")
    assert house.providers["b"].calls == 0


def test_a_stream_that_does_not_begin_is_left_for_the_fallback() -> None:
    house = House(Provider([OPENING, HANG]), Provider([WORD, LAST]), limits=Limits(patience=0.01))
    outcome, _ = house.ask(stream=True)
    assert (outcome.error, outcome.route) == (None, "b/model")
    assert outcome.failures == [{"route": "a/model", "code": "upstream_timeout"}]
    assert house.providers["a"].calls == 1


def test_without_a_fallback_patience_is_not_short() -> None:
    late = gevent.event.Event()

    class Late(Provider):
        def stream(self, call: ChatCall) -> Iterator[list[Chunk]]:
            late.wait()
            yield from ([WORD], [LAST])

    house = House(Late(), limits=Limits(patience=0.001))
    running = gevent.spawn(house.ask, stream=True, names="a")
    gevent.sleep(0.02)  # far longer than the patience
    late.set()
    with gevent.Timeout(10):
        outcome, _ = running.get()
    assert (outcome.error, outcome.failures) == (None, [])


def test_a_model_s_own_limits_stand_before_the_service_s() -> None:
    house = House(
        Provider([HANG]),
        Provider([WORD]),
        timeouts=Timeouts(first_token=0.01),
        limits=Limits(patience=600),
    )
    assert house.ask(stream=True)[0].route == "b/model"
    house = House(Provider(UpstreamFailed()), Provider(WHOLE), retries=0)
    assert house.ask()[0].attempts == 2


def test_a_provider_that_asks_for_a_long_pause_is_left_for_the_fallback() -> None:
    house = House(Provider(UpstreamThrottled(retry_after=30)), Provider(WHOLE))
    outcome, _ = house.ask()
    assert (outcome.route, outcome.attempts) == ("b/model", 2)


@both_ways
def test_a_call_that_is_too_long_gets_one_attempt_at_a_larger_model(stream: bool) -> None:
    too_long = UpstreamRejected("Too long.", code="context_length_exceeded")
    house = House(Provider(too_long), Provider(UpstreamFailed()), Provider(WHOLE))
    outcome, _ = house.ask(stream, "abc")
    assert outcome.error is too_long
    assert [house.providers[name].calls for name in "abc"] == [1, 1, 0]


@both_ways
def test_a_refusal_is_the_answer(stream: bool) -> None:
    refusal = UpstreamRejected("Not that.", code="content_policy_violation")
    house = House(Provider(refusal), Provider(WHOLE))
    assert house.ask(stream)[0].error is refusal
    assert house.providers["b"].calls == 0


def test_a_provider_that_this_worker_does_not_have_is_passed_over() -> None:
    house = House(Provider(), Provider(WHOLE), without="a")
    outcome, _ = house.ask()
    assert (outcome.route, outcome.attempts) == ("b/model", 1)
    assert outcome.failures == [{"route": "a/model", "code": "provider_not_configured"}]


def test_a_refused_key_is_loud_though_the_caller_is_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    House(Provider(UpstreamAuth("CANARY")), Provider(WHOLE)).ask()
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    fields = record.__dict__["fields"]
    assert (fields["route"], fields["error"]) == ("a/model", "upstream_auth")
    assert "CANARY" not in caplog.text


# Breakers


@both_ways
def test_in_an_outage_calls_go_straight_to_the_fallback(stream: bool) -> None:
    house = House(Provider(UpstreamFailed()), Provider([WORD, LAST] if stream else WHOLE))
    outcomes = [house.ask(stream)[0] for _ in range(5)]
    assert [outcome.error for outcome in outcomes] == [None] * 5
    assert house.providers["a"].calls == 3
    assert outcomes[-1].failures == [{"route": "a/model", "code": "circuit_open"}]
    assert outcomes[-1].attempts == 1


@both_ways
def test_after_the_cool_down_an_answered_probe_brings_all_back(stream: bool) -> None:
    answer = [WORD, LAST] if stream else WHOLE
    fail = UpstreamFailed()
    house = House(Provider(fail, fail, fail, answer), Provider(answer))
    house.ask(stream)
    assert house.ask(stream)[0].route == "b/model"
    house.clock.now += 10
    assert [house.ask(stream)[0].route for _ in range(3)] == ["a/model"] * 3
    assert house.breakers.troubled == {}


def test_a_probe_that_fails_is_not_tried_again_by_its_call() -> None:
    house = House(Provider(UpstreamFailed()), Provider(WHOLE))
    house.ask()
    house.clock.now += 10
    outcome, _ = house.ask()
    assert (outcome.route, outcome.attempts) == ("b/model", 2)
    assert house.providers["a"].calls == 4


@both_ways
def test_where_nobody_else_can_answer_an_open_route_keeps_its_retries(stream: bool) -> None:
    answer = [WORD, LAST] if stream else WHOLE
    fail = UpstreamFailed()
    house = House(Provider(*[fail] * 5, answer))
    assert house.ask(stream, names="a")[0].attempts == 3
    assert house.breakers.is_open("a/model")
    outcome, _ = house.ask(stream, names="a")
    assert (outcome.error, outcome.attempts) == (None, 3)


def test_where_all_are_open_the_last_is_asked() -> None:
    house = House(Provider(UpstreamFailed()), Provider(UpstreamFailed()))
    house.ask()
    outcome, _ = house.ask()
    assert [house.providers[name].calls for name in "ab"] == [3, 6]
    assert isinstance(outcome.error, UpstreamFailed)


@both_ways
def test_a_silent_provider_leaves_its_fallback_half_of_the_deadline(stream: bool) -> None:
    house = House(Provider([HANG]), Provider([WORD, LAST] if stream else WHOLE))
    outcome, _ = house.ask(stream, budget=0.05)
    assert (outcome.error, outcome.route) == (None, "b/model")
    assert house.breakers.troubled == {}  # another caller may have more time


@pytest.mark.parametrize(
    "told",
    [
        UpstreamRejected("max_tokens: 50000 > 4096"),
        UpstreamRejected("too long", code="context_length_exceeded"),
        ModelNotFound("The model b does not exist."),
    ],
    ids=["4xx", "too long", "gone"],
)
def test_what_a_fallback_refuses_is_left_to_the_next_and_not_told(told: GatewayError) -> None:
    house = House(Provider(UpstreamTruncated()), Provider(told), Provider(WHOLE))
    outcome, _ = house.ask(names="abc")
    assert (outcome.error, outcome.route) == (None, "c/model")
    outcome, _ = house.ask()
    assert isinstance(outcome.error, UpstreamTruncated)


def test_a_fallback_s_rules_for_content_are_told() -> None:
    rules = UpstreamRejected("Not that.", code="content_policy_violation")
    house = House(Provider(UpstreamFailed()), Provider(rules), Provider(WHOLE))
    outcome, _ = house.ask(names="abc")
    assert outcome.error is rules


def test_a_model_that_this_worker_does_not_know_is_passed_over() -> None:
    house = House(Provider(UpstreamFailed()), Provider(WHOLE))
    outcome, _ = house.ask(names="azb")  # z: a web process with a newer catalogue
    assert (outcome.error, outcome.route) == (None, "b/model")
    assert outcome.failures[-1] == {"route": "z/model", "code": "provider_not_configured"}


def test_an_answer_to_a_call_from_before_the_outage_closes_no_breaker() -> None:
    gate = gevent.event.Event()

    class Old(Provider):
        def complete(self, call: ChatCall, on_head: OnHead = IGNORE) -> Chunk:
            gate.wait()
            return WHOLE

    house = House(Old(), Provider(WHOLE))
    old = gevent.spawn(house.ask)
    gevent.sleep(0)
    for _ in range(3):
        house.breakers.failed("a/model", UpstreamFailed())
    assert house.breakers.is_open("a/model")
    gate.set()
    with gevent.Timeout(10):
        assert old.get()[0].route == "a/model"
    assert house.breakers.is_open("a/model")


def test_a_first_token_begins_the_count_again_while_its_stream_goes_on() -> None:
    fail = UpstreamTimeout()
    house = House(Provider(fail, fail, [WORD, HANG], fail, fail), Provider([WORD, LAST]))
    for _ in range(2):
        house.ask(stream=True)
    house.clock.now += 1
    long = gevent.spawn(house.ask, True)
    gevent.sleep(0)
    assert house.breakers.troubled == {}
    for _ in range(2):
        house.ask(stream=True)
    assert not house.breakers.is_open("a/model")
    assert not long.ready()
    long.kill()


def test_the_head_of_a_whole_response_begins_the_count_again() -> None:
    class Slow(Provider):
        def complete(self, call: ChatCall, on_head: OnHead = IGNORE) -> Chunk:
            on_head()
            gevent.event.Event().wait()
            return WHOLE

    house = House(Slow(), Provider(WHOLE))
    for _ in range(2):
        house.breakers.failed("a/model", UpstreamTimeout())
    house.clock.now += 1
    call = gevent.spawn(house.ask)
    gevent.sleep(0)
    assert house.breakers.troubled == {}
    call.kill()


def test_one_key_whose_calls_fail_does_not_divert_another() -> None:
    fail = UpstreamTimeout()
    house = House(Provider(*[fail] * 3, WHOLE), Provider(WHOLE))
    assert [house.ask(key="one")[0].route for _ in range(4)] == ["b/model"] * 4
    house.clock.now += 1
    assert house.ask(key="other")[0].route == "a/model"
    assert house.ask(key="one")[0].route == "a/model"  # the other's answer has closed the breaker


def test_a_probe_that_the_provider_refuses_as_wrong_shows_that_it_is_well() -> None:
    failures = [UpstreamTimeout()] * 3
    house = House(Provider(*failures, UpstreamRejected("No."), WHOLE), Provider(WHOLE))
    for _ in failures:
        house.ask()
    assert house.breakers.is_open("a/model")
    house.clock.now += 10
    assert isinstance(house.ask()[0].error, UpstreamRejected)
    assert house.ask()[0].route == "a/model"


def test_a_refused_call_between_failures_breaks_their_row() -> None:
    failed, refused = UpstreamTimeout(), UpstreamRejected("No.")
    house = House(Provider(failed, failed, refused, failed, failed), Provider(WHOLE))
    for _ in range(5):
        house.ask()
        house.clock.now += 1
    assert not house.breakers.is_open("a/model")


def test_a_call_that_fell_over_leaves_nothing_of_its_prompt_behind() -> None:
    class Prompt(dict[str, Any]):
        """What a weak reference can be made of."""

    class Fails(Provider):
        def complete(self, call: ChatCall, on_head: OnHead = IGNORE) -> Chunk:
            prompt = call.parameters["messages"] = Prompt()  # type: ignore[index]
            seen.append(weakref.ref(prompt))
            kept = UpstreamTimeout()  # as urllib3 keeps its own
            raise kept

    seen: list[weakref.ref[Prompt]] = []
    house = House(Fails(), Provider(WHOLE))
    gc.disable()
    try:
        assert house.ask()[0].route == "b/model"
        outcome, _ = house.ask(names="a")
        assert outcome.error is not None
        assert [prompt() for prompt in seen] == [None, None]
    finally:
        gc.enable()
