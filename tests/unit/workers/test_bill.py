"""workers/bill.py and the runner: what each end of a call leaves in its record."""

from __future__ import annotations

import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import gevent
import orjson
import pytest

from gateway.account.records import Record
from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.file import ModelRow, PriceTier, ProviderRow, Rows
from gateway.catalogue.target import Target
from gateway.chat import ChatCall, Chunk
from gateway.errors import (
    CallCancelled,
    DeadlineExceeded,
    GatewayError,
    PayloadTooLarge,
    StopCall,
    UpstreamFailed,
    UpstreamThrottled,
    UpstreamTruncated,
)
from gateway.queue.protocol import CallSpec, Outcome
from gateway.settings import Settings
from providers.base import IGNORE, OnHead
from tests.support.fakes import Clock
from workers import attempts
from workers.attempts import Limits
from workers.bill import Bill
from workers.claims import Claimed
from workers.runner import CallRunner

URL = "http://127.0.0.1:9/v1"
BODY = b'{"messages":[{"role":"user","content":"%b"}]}' % (b"x" * 40)  # 10 tokens, about


def tiers(prompt: str, completion: str) -> tuple[PriceTier, ...]:
    return (PriceTier(0, (("prompt", Decimal(prompt)), ("completion", Decimal(completion)))),)


ROWS = {
    "a/model": ModelRow("a/model", "a", prices=tiers("1", "10")),  # 1,000 and 10,000 nano a token
    "b/model": ModelRow("b/model", "b", prices=tiers("2", "20")),
    "c/model": ModelRow("c/model", "c"),  # no price is known
}
CATALOGUE = Catalogue(
    Rows({name: ProviderRow(name, "openai", URL) for name in "abc"}, {}, ROWS), Settings()
)
ACCOUNT = {
    "owner": "team",
    "request_id": "req-1",
    "user_agent": "curl/8",
    "priority": "standard",
    "model": "model",
    "created_ms": 1_796_000_000_000,
    "prompt_tokens": 10,
    "output_tokens": 300,
}
ADMISSION = {"cap": 0, "queued_ms": 40, "reserved_usd": 900, "reserved_tokens": 1_010}


def usage(prompt: int, completion: int) -> dict[str, Any]:
    total = prompt + completion
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}


WORD: Chunk = {"choices": [{"index": 0, "delta": {"content": "abcd"}, "finish_reason": None}]}
LAST: Chunk = {
    "choices": [
        {"index": 0, "delta": {}, "finish_reason": "stop", "native_finish_reason": "end_turn"}
    ],
    "service_tier": "default",
}
PROMPT: Chunk = {"choices": [], "usage": usage(100, 1)}
COUNT: Chunk = {"choices": [], "usage": usage(100, 7)}
WHOLE: Chunk = {
    "choices": [{"index": 0, "message": {"content": "abcd"}, "finish_reason": "length"}],
    "service_tier": "priority",
    "usage": usage(100, 7),
}


class Provider:
    """Answers each call by the next of its scripts: lists of chunks, and errors that are raised."""

    def __init__(self, *scripts: Any, streams_only: bool = False) -> None:
        self.streams_only = streams_only
        self._scripts = iter(scripts)

    def complete(self, call: ChatCall, on_head: OnHead = IGNORE) -> Chunk:
        (response,) = self._steps(call)
        return response

    def embed(self, model: str, parameters: Any, on_head: OnHead = IGNORE) -> Chunk:
        (response,) = self._steps(None)
        return response

    def count_tokens(self, call: ChatCall) -> Chunk:
        (response,) = self._steps(None)
        return response

    def stream(self, call: ChatCall) -> Iterator[list[Chunk]]:
        for step in self._steps(call):
            yield [step]

    def _steps(self, call: ChatCall | None) -> Iterator[Chunk]:
        if call is not None:
            call.upstream["id"] = "upstream-1"
        for step in next(self._scripts):
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


class Full:
    def hold(self, call_id: str, size: int) -> None:
        raise PayloadTooLarge


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "BACKOFF_SECONDS", 0)


def ended(
    providers: dict[str, Provider],
    stream: bool = True,
    kind: str = "chat",
    retries: int = 0,
    body: bytes = BODY,
) -> Record:
    targets = tuple(Target(f"{name}/model", name, "model") for name in providers)
    spec = CallSpec("c" * 32, "web", stream, targets, kind, key="key-1", account=ACCOUNT)
    claimed = Claimed("c" * 32, "web", "claim", 600, b"", ADMISSION)
    bill = Bill()
    runner = CallRunner(providers, Limits(retries), CATALOGUE)  # type: ignore[arg-type]
    outcome = runner.run(claimed, spec, body, Sender(), bill)  # type: ignore[arg-type]
    record = bill.record(claimed, spec, outcome.error, "worker-1")
    assert Record.decode(record.encode()) == record
    return record


def one(*script: Any, **options: Any) -> Record:
    return ended({"a": Provider(list(script))}, **options)


def used(record: Record) -> tuple[dict[str, int], str, int]:
    return dict(record.usage), record.usage_source, record.cost_nano


def tried(record: Record) -> list[tuple[str, int, str]]:
    return [(each["provider_name"], each["status"], each["code"]) for each in record.attempts]


def test_a_stream_that_went_well_has_everything_in_its_record() -> None:
    before = int(time.time() * 1000)
    record = one(PROMPT, WORD, WORD, LAST, COUNT)
    # 100 * 1,000 + 7 * 10,000 nano
    assert used(record) == ({"input": 100, "output": 7}, "provider", 170_000)
    assert (record.id, record.key_id, record.owner) == ("c" * 32, "key-1", "team")
    assert (record.model, record.model_requested) == ("a/model", "model")
    assert (record.provider_name, record.upstream_model) == ("a", "model")
    assert (record.upstream_id, record.service_tier) == ("upstream-1", "default")
    assert (record.finish_reason, record.native_finish_reason) == ("stop", "end_turn")
    assert (record.status, record.error_code, record.cancelled) == ("completed", "", False)
    assert tried(record) == [("a", 200, "")]
    assert (record.queued_ms, record.reserved_nano, record.reserved_tokens) == (40, 900, 1_010)
    assert (record.request_id, record.user_agent) == ("req-1", "curl/8")
    assert (record.priority, record.worker, record.streamed) == ("standard", "worker-1", True)
    assert (record.created_ms, record.settled_ms >= before) == (ACCOUNT["created_ms"], True)
    assert record.deadline_ms >= before + 590_000
    assert record.latency_ms >= (record.time_to_first_token_ms or 0) >= 40
    assert (record.generation_time_ms or 0) <= record.latency_ms - 40
    assert record.prices == {
        "version": "catalogue",
        "above": 0,
        "units": {"prompt": "0.000001", "completion": "0.00001"},
    }


def test_a_whole_response_is_recorded_as_a_stream_is() -> None:
    record = one(WHOLE, stream=False)
    assert used(record) == ({"input": 100, "output": 7}, "provider", 170_000)
    assert (record.finish_reason, record.service_tier) == ("length", "priority")
    assert (record.streamed, record.time_to_first_token_ms) == (False, None)
    assert record.generation_time_ms is not None
    assert tried(record) == [("a", 200, "")]


def test_a_whole_response_of_a_provider_that_streams_costs_what_the_stream_does() -> None:
    provider = Provider([PROMPT, WORD, WORD, LAST, COUNT], streams_only=True)
    record = ended({"a": provider}, stream=False)
    assert used(record) == ({"input": 100, "output": 7}, "provider", 170_000)
    assert (record.finish_reason, record.upstream_id) == ("stop", "upstream-1")


@pytest.mark.parametrize("stream", [True, False])
def test_a_response_without_usage_is_estimated(stream: bool) -> None:
    response = WORD if stream else {**WHOLE, "usage": None}
    record = one(response, stream=stream)
    # 10 * 1,000 + 1 * 10,000 nano
    assert used(record) == ({"input": 10, "output": 1}, "estimated", 20_000)


def test_a_failed_attempt_is_recorded_and_costs_nothing() -> None:
    provider = Provider([UpstreamFailed()], [UpstreamThrottled()], [WORD, LAST, COUNT])
    record = ended({"a": provider}, retries=2)
    assert tried(record) == [
        ("a", 502, "upstream_failed"),
        ("a", 429, "rate_limit_exceeded"),
        ("a", 200, ""),
    ]
    assert used(record) == ({"input": 100, "output": 7}, "provider", 170_000)
    failed = one(UpstreamFailed())
    assert used(failed) == ({}, "none", 0)
    assert (failed.status, failed.error_code, failed.prices) == ("failed", "upstream_failed", None)


@pytest.mark.parametrize("stream", [True, False])
def test_a_failed_attempt_whose_provider_counted_is_charged_at_its_own_price(stream: bool) -> None:
    first = Provider([PROMPT, UpstreamTruncated()], streams_only=True)
    second = Provider([WORD, LAST, COUNT], streams_only=True)
    record = ended({"a": first, "b": second}, stream=stream)
    # 100 * 1,000 + 1 * 10,000 at a, and 100 * 2,000 + 7 * 20,000 at b
    assert used(record) == ({"input": 200, "output": 8}, "provider", 110_000 + 340_000)
    assert tried(record) == [("a", 502, "upstream_truncated"), ("b", 200, "")]
    assert (record.model, record.prices and record.prices["units"]["prompt"]) == (
        "b/model",
        "0.000002",
    )


def test_a_whole_response_that_broke_off_is_charged_what_its_provider_counted() -> None:
    provider = Provider([PROMPT, WORD, WORD, UpstreamTruncated()], streams_only=True)
    # Nobody got the two words: 100 * 1,000 + 1 * 10,000
    assert used(ended({"a": provider}, stream=False)) == (
        {"input": 100, "output": 1},
        "provider",
        110_000,
    )


def test_a_stream_that_broke_off_is_charged_what_was_sent() -> None:
    record = one(WORD, WORD, WORD, UpstreamTruncated())
    # 10 * 1,000 + 3 * 10,000
    assert used(record) == ({"input": 10, "output": 3}, "estimated", 40_000)
    assert tried(record) == [("a", 502, "upstream_truncated")]
    # The provider counted the prompt, and nothing after it: 100 * 1,000 + 3 * 10,000
    record = one(PROMPT, WORD, WORD, WORD, UpstreamTruncated())
    assert used(record) == ({"input": 100, "output": 3}, "estimated", 130_000)


@pytest.mark.parametrize("error", [CallCancelled(), DeadlineExceeded()])
@pytest.mark.parametrize("streams_only", [True, False])
def test_a_call_that_is_stopped_is_charged_what_it_has_used(
    error: GatewayError, streams_only: bool
) -> None:
    provider = Provider([WORD, WORD, StopCall(error)], streams_only=streams_only)
    record = ended({"a": provider}, stream=not streams_only)
    assert used(record) == ({"input": 10, "output": 2}, "estimated", 30_000)
    assert record.cancelled is isinstance(error, CallCancelled)
    assert record.status == ("cancelled" if record.cancelled else "failed")
    assert tried(record) == [("a", error.status, error.code)]


class Silent(Provider):
    """Writes for so many seconds of the clock, until the call is stopped."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__([], streams_only=False)
        self._clock, self._seconds = clock, seconds

    def complete(self, call: ChatCall, on_head: OnHead = IGNORE) -> Chunk:
        self._clock.now += self._seconds
        raise StopCall(CallCancelled())


@pytest.mark.parametrize(("seconds", "output"), [(0.0, 0), (2.0, 100), (600.0, 300)])
def test_a_whole_answer_that_is_stopped_is_estimated_by_its_time_and_what_was_reserved(
    monkeypatch: pytest.MonkeyPatch, seconds: float, output: int
) -> None:
    clock = Clock()
    monkeypatch.setattr(attempts, "time", clock)
    record = ended({"a": Silent(clock, seconds)}, stream=False)
    counts = {"input": 10, **({"output": output} if output else {})}
    assert used(record) == (counts, "estimated", 10_000 + output * 10_000)


def test_a_call_that_is_stopped_before_its_first_token_is_charged_the_count_of_its_prompt() -> None:
    record = one(PROMPT, StopCall(CallCancelled()))
    assert used(record) == ({"input": 100, "output": 1}, "provider", 110_000)


def test_a_call_that_is_stopped_while_it_connects_costs_nothing() -> None:
    stop = StopCall(CallCancelled())
    stop.request_sent = False
    record = one(stop)
    assert used(record) == ({}, "none", 0)
    assert tried(record) == [("a", 499, "client_closed_request")]


def test_a_call_that_is_stopped_between_two_attempts_notes_the_first_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempts, "BACKOFF_SECONDS", 60)
    provider = Provider([UpstreamFailed()])
    running = gevent.spawn(ended, {"a": provider}, retries=1)
    gevent.sleep(0)  # until the pause after the first attempt
    running.kill(StopCall(CallCancelled()))
    record = running.get()
    assert tried(record) == [("a", 502, "upstream_failed")]
    assert (record.status, record.usage_source) == ("cancelled", "none")


def test_a_response_that_cannot_be_written_is_charged_once() -> None:
    unwritable = {**WHOLE, "number": 2**64}
    both = {"a": Provider([unwritable]), "b": Provider([WHOLE])}
    record = ended(both, stream=False)
    assert used(record) == ({"input": 200, "output": 14}, "provider", 170_000 + 340_000)
    assert tried(record) == [("a", 502, "upstream_bad_response"), ("b", 200, "")]
    assert used(one(unwritable, stream=False)) == (
        {"input": 100, "output": 7},
        "provider",
        170_000,
    )
    # Of a stream, one word was sent before.
    record = one(WORD, {**WORD, "number": 2**64})
    assert used(record)[1:] == ("estimated", 30_000)


def test_a_fault_of_ours_costs_what_the_provider_counted_before_it() -> None:
    assert used(one(RuntimeError())) == ({}, "none", 0)
    record = one(COUNT, WORD, RuntimeError())
    assert (record.status, record.error_code) == ("failed", "gateway_error")
    assert record.usage["input"] == 100


def test_a_model_without_known_prices_costs_nothing_and_says_so() -> None:
    record = ended({"c": Provider([WORD, LAST, COUNT])})
    assert used(record) == ({"input": 100, "output": 7}, "provider", 0)
    assert record.prices is None


def test_embeddings_and_counts_of_tokens_are_recorded() -> None:
    counted = {"data": [], "usage": {"prompt_tokens": 8, "total_tokens": 8}}
    body = b'{"input":"x"}'
    record = one(counted, stream=False, kind="embeddings", body=body)
    assert used(record) == ({"input": 8}, "provider", 8_000)
    record = one({"data": []}, stream=False, kind="embeddings", body=body)
    assert used(record) == ({"input": 10}, "estimated", 10_000)
    record = one({"input_tokens": 900}, stream=False, kind="count_tokens")
    assert used(record) == ({}, "none", 0)
    assert (record.kind, record.status) == ("count_tokens", "completed")
    record = one(StopCall(CallCancelled()), stream=False, kind="count_tokens")
    assert used(record) == ({}, "none", 0)


def test_an_answer_for_which_the_worker_has_no_room_is_charged() -> None:
    runner = CallRunner({"a": Provider([WHOLE])}, Limits(0), CATALOGUE, budget=Full())  # type: ignore[dict-item, arg-type]
    spec = CallSpec("c" * 32, "web", False, (Target("a/model", "a", "model"),))
    claimed, bill = Claimed("c" * 32, "web", "claim", 600, b""), Bill()
    outcome = runner.run(claimed, spec, BODY, Sender(), bill)  # type: ignore[arg-type]
    record = bill.record(claimed, spec, outcome.error, "worker-1")
    assert used(record) == ({"input": 100, "output": 7}, "provider", 170_000)
    assert tried(record) == [("a", 413, "request_too_large")]


def test_a_call_that_never_ran_has_a_record_too() -> None:
    claimed = Claimed("c" * 32, "web", "claim", -1, b"", ADMISSION)
    spec = CallSpec("c" * 32, "web", True, (Target("a/model", "a", "model"),), key="key-1")
    record = Bill().record(claimed, spec, DeadlineExceeded(), "worker-1")
    assert (record.model, record.status, record.error_code) == (
        "a/model",
        "failed",
        "deadline_exceeded",
    )
    assert (record.attempts, record.usage, record.cost_nano) == ((), {}, 0)


def test_what_a_provider_says_takes_little_room_in_a_record() -> None:
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "x" * 1_000}]}
    record = one(WORD, {**last, "service_tier": {"no": "text"}}, COUNT)
    assert (len(record.finish_reason), record.service_tier) == (256, "")
    claimed = Claimed("c" * 32, "web", "claim", 60, b"")
    spec = CallSpec("c" * 32, "web", True, (Target("a/model", "a", "model"),))
    record = Bill(upstream={"id": "\ud800"}).record(claimed, spec, None, "worker-1")
    assert Record.decode(record.encode()).upstream_id == "?"


def test_an_outcome_says_nothing_of_usage_or_attempts() -> None:
    assert {"usage", "attempts", "failures"}.isdisjoint(Outcome.__dataclass_fields__)


def shown(
    providers: dict[str, Provider], stream: bool, cost: bool = True
) -> tuple[list[dict[str, Any]], Record]:
    """The usages in a response, and the record."""
    targets = tuple(Target(f"{name}/model", name, "model") for name in providers)
    spec = CallSpec("c" * 32, "web", stream, targets, cost=cost)
    claimed = Claimed("c" * 32, "web", "claim", 600, b"")
    bill, sender = Bill(), Sender()
    runner = CallRunner(providers, Limits(0), CATALOGUE)  # type: ignore[arg-type]
    outcome = runner.run(claimed, spec, BODY, sender, bill)  # type: ignore[arg-type]
    lines = b"\n".join(sender.sent).split(b"\n") if stream else [outcome.answer]
    chunks = [orjson.loads(line[line.index(b"{") :]) for line in lines if b"{" in line]
    usages = [chunk["usage"] for chunk in chunks if "usage" in chunk]
    return usages, bill.record(claimed, spec, outcome.error, "worker-1")


def script(stream: bool, **more: Any) -> list[Chunk]:
    count = {"usage": {**usage(100, 7), **more}}
    return [WORD, LAST, {"choices": [], **count}] if stream else [{**WHOLE, **count}]


both_ways = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


@both_ways
def test_the_cost_is_in_the_usage_if_the_request_includes_it(stream: bool) -> None:
    (found,), record = shown({"a": Provider(script(stream))}, stream)
    assert (found["total_tokens"], found["cost"]) == (107, 0.00017)
    assert record.cost_nano == 170_000
    (found,), record = shown({"a": Provider(script(stream))}, stream, cost=False)
    assert "cost" not in found
    assert record.cost_nano == 170_000


@both_ways
def test_the_cost_is_that_of_all_attempts(stream: bool) -> None:
    first = Provider([PROMPT, UpstreamTruncated()], streams_only=True)
    (found,), record = shown({"a": first, "b": Provider(script(stream))}, stream)
    assert found["cost"] == record.cost_nano / 10**9 == 0.00045


@both_ways
def test_an_unknown_cost_is_null_and_the_provider_s_own_is_kept(stream: bool) -> None:
    (found,), _ = shown({"c": Provider(script(stream))}, stream)
    assert found["cost"] is None
    (found,), _ = shown({"a": Provider(script(stream, cost=0.5))}, stream)
    assert (found["cost"], found["cost_details"]) == (0.00017, {"upstream_inference_cost": 0.5})
