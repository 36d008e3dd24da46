"""workers/runner.py: one call, from its claim to its outcome, against scripted providers."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator
from datetime import date
from typing import Any

import gevent
import orjson
import pytest

from gateway.account.usage import Usage, normal
from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.file import ModelRow, ProviderRow, Rows
from gateway.catalogue.parameters import Rule
from gateway.catalogue.target import Target
from gateway.chat import ChatCall, Chunk
from gateway.errors import (
    CallCancelled,
    DeadlineExceeded,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    ProviderNotConfigured,
    StopCall,
    UpstreamAuth,
    UpstreamBadResponse,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from gateway.queue.protocol import CallSpec, Outcome, decode_head
from gateway.settings import Settings
from providers.base import IGNORE, OnHead
from providers.http.budget import SMALL, Budget
from tests.support.ended import Ended
from tests.support.fakes import USAGE
from workers import attempts, tasks
from workers.attempts import Limits
from workers.bill import Bill
from workers.claims import Claimed
from workers.runner import CallRunner

CALL_ID = "a" * 32
WORD: Chunk = {"choices": [{"index": 0, "delta": {"content": "a"}}]}
MORE: Chunk = {"choices": [{"index": 0, "delta": {"content": "b"}}]}
BODY = b'{"messages":[{"role":"user","content":"Hi"}],"temperature":0.5}'
URL = "http://127.0.0.1:9/v1"
USED = normal(USAGE)
CATALOGUE = Catalogue(
    Rows(
        {
            "acme": ProviderRow("acme", "openai", URL, extra_parameters=("top_k",)),
            "heir": ProviderRow("heir", "openai", URL),
        },
        {},
        {
            "acme/model": ModelRow(
                "acme/model",
                "acme",
                max_output_tokens=10,
                shutdown_date=date(2026, 12, 31),
                successor="heir/model",
            ),
            "heir/model": ModelRow(
                "heir/model",
                "heir",
                thinking="adaptive",
                max_output_tokens=20,
                parameters={
                    "max_tokens": (Rule(rename="max_completion_tokens"),),
                    "temperature": (Rule(only=1),),
                    "tools": (Rule(refuse=True),),
                },
            ),
        },
    ),
    Settings(),
)
FIRST, HEIR = (
    Target("acme/model", "acme", "model-2"),
    Target("heir/model", "heir", "model-3", only_if_gone=True),
)
GONE = ModelNotFound("The model `model-2` does not exist.", param="model")


class Provider:
    """Answers every call by the next of its steps; a step that is an exception is raised."""

    streams_only = False

    def __init__(self, *steps: Any) -> None:
        self.calls: list[ChatCall] = []
        self.closed = 0
        self._steps = steps

    def complete(self, call: ChatCall, on_head: OnHead = IGNORE) -> Chunk:
        self.calls.append(call)
        step = self._steps[len(self.calls) - 1]
        if isinstance(step, BaseException):
            raise step
        return step

    def stream(self, call: ChatCall) -> Iterator[list[Chunk]]:
        self.calls.append(call)
        try:
            for step in self._steps:
                if isinstance(step, BaseException):
                    raise step
                yield step
        finally:
            self.closed += 1


class Sender:
    """Keeps what is sent; `stop` is thrown at the second sending."""

    def __init__(self, stop: BaseException | None = None) -> None:
        self.sent: list[bytes] = []
        self._stop = stop

    @property
    def number(self) -> int:
        return len(self.sent)

    def send(self, lines: bytes) -> None:
        if self._stop is not None and self.sent:
            raise self._stop
        self.sent.append(lines)


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "BACKOFF_SECONDS", 0)


@pytest.fixture(autouse=True)
def every_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def spec(stream: bool = False, provider: str = "acme") -> CallSpec:
    return CallSpec(CALL_ID, "web-1", stream, (Target("acme/model", provider, "model-2"),))


def claimed(budget: float = 600, payload: bytes | None = b"") -> Claimed:
    return Claimed(CALL_ID, "web-1", "claim-1", budget, payload)


def ended(
    runner: CallRunner,
    spec: CallSpec,
    body: bytes = BODY,
    sender: Sender | None = None,
    call: Claimed | None = None,
) -> Ended:
    bill = Bill()
    outcome = runner.run(call or claimed(), spec, body, sender or Sender(), bill)  # type: ignore[arg-type]
    return Ended(outcome, bill)


def run(
    provider: Provider,
    stream: bool = False,
    sender: Sender | None = None,
    retries: int = 2,
    body: bytes = BODY,
) -> Ended:
    runner = CallRunner({"acme": provider}, Limits(retries), CATALOGUE)
    return ended(runner, spec(stream), body, sender)


both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def test_an_unstreamed_call_ends_with_the_bytes_of_its_answer() -> None:
    part = {"choices": [{"index": 0}], "usage": USAGE}
    sender = Sender()
    outcome = run(Provider(part), sender=sender)
    assert orjson.loads(outcome.answer) == part
    assert (outcome.error, outcome.usage, outcome.last) == (None, USED, 0)
    assert (outcome.route, outcome.attempts) == ("acme/model-2", 1)
    assert outcome.timings["work"] >= 0
    assert sender.sent == []


@both_ways
def test_a_whole_answer_counts_for_its_call_until_it_is_delivered(stream: bool) -> None:
    budget = Budget()
    large = {"choices": [{"index": 0, "delta": {"content": "x" * SMALL}}]}
    provider = Provider([large] if stream else large)
    runner = CallRunner({"acme": provider}, Limits(), CATALOGUE, budget=budget)
    outcome = runner.run(claimed(), spec(stream), BODY, Sender())  # type: ignore[arg-type]
    assert budget.used == len(outcome.answer)


@both_ways
@pytest.mark.parametrize("steps", [[], [UpstreamFailed()], [UpstreamFailed()] * 3])
def test_an_ended_call_keeps_no_body(stream: bool, steps: list[Any]) -> None:
    part: Any = {"choices": []}
    provider, body = Provider(*steps, [part] if stream else part), BODY + b" "
    gc.collect()
    gc.disable()
    try:
        before = sys.getrefcount(body)
        run(provider, stream, body=body)
        assert sys.getrefcount(body) == before
    finally:
        gc.enable()


@both_ways
def test_an_answer_without_usage_is_estimated(stream: bool) -> None:
    message = {"role": "assistant", "content": "x" * 20}
    choice = {"index": 0, "delta" if stream else "message": message}
    outcome = run(Provider([{"choices": [choice]}] if stream else {"choices": [choice]}), stream)
    assert (outcome.error, outcome.usage) == (None, Usage(input=1, output=5))
    assert outcome.estimated


def test_the_provider_is_asked_with_what_the_plan_and_the_body_say() -> None:
    provider = Provider({"choices": []})
    CallRunner({"acme": provider}, Limits(0), CATALOGUE).run(claimed(), spec(), BODY, Sender())  # type: ignore[arg-type]
    assert provider.calls == [ChatCall("model-2", orjson.loads(BODY), False, 10)]


@pytest.mark.parametrize(("cap", "limit"), [(7, 7), (0, None), (500, 10)])
def test_the_cap_of_the_queue_limits_the_output(cap: int, limit: int | None) -> None:
    provider = Provider({"choices": []})
    capped = Claimed(CALL_ID, "web-1", "claim-1", 600, b"", {"cap": cap})
    CallRunner({"acme": provider}, Limits(0), CATALOGUE).run(capped, spec(), BODY, Sender())  # type: ignore[arg-type]
    assert provider.calls[0].parameters.get("max_tokens") == limit


def test_parts_of_a_stream_are_sent_as_lines_as_they_come() -> None:
    first, second = {"choices": [{"delta": {"content": "a"}}]}, {"choices": []}
    last = {"choices": [], "usage": USAGE}
    sender = Sender()
    outcome = run(Provider([first, second], [last]), stream=True, sender=sender)
    assert [[orjson.loads(line) for line in sent.split(b"\n")] for sent in sender.sent] == [
        [first, second],
        [last],
    ]
    assert (outcome.error, outcome.answer, outcome.last) == (None, b"", 2)
    assert outcome.usage == USED


def test_usage_that_came_early_is_not_forgotten() -> None:
    outcome = run(Provider([{"choices": [], "usage": USAGE}], [{"choices": []}]), stream=True)
    assert outcome.usage == USED


@both_ways
def test_an_error_of_the_provider_is_the_outcome(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    error = UpstreamFailed("it broke")
    outcome = run(Provider(error, error, error), stream, retries=0)
    assert outcome.error is error
    assert error.__traceback__ is None  # it would keep the request's body until a full collection
    assert (outcome.answer, outcome.attempts, outcome.route) == (b"", 1, "acme/model-2")
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.WARNING, "attempt failed")
    assert "it broke" not in caplog.text


def test_a_failed_attempt_is_tried_again_as_often_as_configured() -> None:
    outcome = run(Provider(UpstreamFailed(), UpstreamFailed(), {"choices": []}), retries=2)
    assert (outcome.error, outcome.attempts) == (None, 3)
    outcome = run(Provider(UpstreamFailed(), UpstreamFailed(), {"choices": []}), retries=1)
    assert isinstance(outcome.error, UpstreamFailed)
    assert outcome.attempts == 2


def test_no_attempt_is_made_past_the_deadline() -> None:
    provider = Provider(UpstreamFailed(retry_after=1), {"choices": []})
    late = Claimed(CALL_ID, "web-1", "claim-1", 0.5, b"")
    outcome = ended(CallRunner({"acme": provider}, Limits(), CATALOGUE), spec(), call=late)
    assert isinstance(outcome.error, UpstreamFailed)
    assert len(provider.calls) == 1


def test_a_stream_that_breaks_off_counts_what_it_has_sent() -> None:
    sender = Sender()
    outcome = run(Provider([WORD], UpstreamTruncated()), stream=True, sender=sender)
    assert isinstance(outcome.error, UpstreamTruncated)
    assert (outcome.last, len(sender.sent), outcome.attempts) == (1, 1, 1)


@both_ways
def test_a_refused_credential_is_told_to_the_operator(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = run(Provider(UpstreamAuth("CANARY")), stream)
    assert isinstance(outcome.error, UpstreamAuth)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.__dict__["fields"]["route"] == "acme/model-2"
    assert "CANARY" not in caplog.text


@both_ways
def test_a_call_that_is_stopped_ends_with_the_reason(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    error = CallCancelled()
    outcome = run(Provider(StopCall(error)), stream)
    assert outcome.error is error
    assert caplog.records == []


def test_a_stream_that_is_stopped_while_it_sends_is_closed_at_the_provider() -> None:
    error = CallCancelled()
    provider, sender = Provider(*([WORD] for _ in range(5))), Sender(StopCall(error))
    outcome = run(provider, stream=True, sender=sender)
    assert (outcome.error, outcome.last) == (error, 1)
    assert provider.closed == 1


def test_a_stopped_stream_has_used_what_it_has_sent() -> None:
    stopped = StopCall(CallCancelled())
    outcome = run(Provider([WORD], [WORD], [MORE], stopped), stream=True)
    assert (outcome.usage, outcome.estimated) == (Usage(input=1, output=3), True)
    assert (outcome.route, outcome.attempts) == ("acme/model-2", 1)
    counted = Provider([WORD], [{"choices": [], "usage": USAGE}], stopped)
    assert run(counted, stream=True).usage == USED


@both_ways
def test_a_call_that_is_stopped_before_its_answer_has_used_its_prompt(stream: bool) -> None:
    outcome = run(Provider(StopCall(DeadlineExceeded())), stream)
    assert (outcome.usage, outcome.estimated) == (Usage(input=1), True)


@both_ways
def test_a_call_that_is_stopped_while_it_connects_has_used_nothing(stream: bool) -> None:
    stop = StopCall(CallCancelled())
    stop.request_sent = False  # as the transport does
    assert run(Provider(stop), stream).usage is None


@both_ways
def test_a_call_that_is_stopped_between_two_attempts_has_used_nothing(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "BACKOFF_SECONDS", 60)
    running = gevent.spawn(run, Provider(UpstreamOverloaded(), UpstreamOverloaded()), stream)
    gevent.sleep(0)  # until the pause after the first attempt
    running.kill(StopCall(CallCancelled()))
    outcome = running.get()
    assert isinstance(outcome.error, CallCancelled)
    assert (outcome.usage, outcome.attempts) == (None, 1)
    assert outcome.failures == [{"route": "acme/model-2", "code": UpstreamOverloaded.code}]


def test_a_stream_that_breaks_off_has_used_what_it_has_sent() -> None:
    outcome = run(Provider([WORD], [MORE], UpstreamTruncated()), stream=True)
    assert (outcome.usage, outcome.estimated) == (Usage(input=1, output=2), True)
    counted = Provider([WORD], [{"choices": [], "usage": USAGE}], UpstreamTruncated())
    assert (run(counted, stream=True).usage, outcome.last) == (USED, 2)


def test_a_stop_passes_by_code_that_catches_every_exception() -> None:
    assert not issubclass(StopCall, Exception)


@both_ways
@pytest.mark.parametrize("fault", [ValueError, KeyError, RuntimeError, OSError, AssertionError])
def test_an_unforeseen_fault_is_a_500_that_quotes_nothing(
    stream: bool, fault: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    outcome = run(Provider(fault("CANARY")), stream)
    assert type(outcome.error) is GatewayError
    assert outcome.error.status == 500
    assert b"CANARY" not in outcome.encode()
    assert "CANARY" not in caplog.text
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert fault.__name__ in record.getMessage()
    assert "test_runner.py:" in record.getMessage()
    assert record.exc_info is None


@both_ways
def test_a_body_that_is_no_json_is_a_500_that_quotes_nothing(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = run(Provider(), stream, body=b'{"CANARY')
    assert outcome.error is not None
    assert outcome.error.status == 500
    assert b"CANARY" not in outcome.encode()
    assert "CANARY" not in caplog.text


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


UNWRITABLE = [{"number": 2**64}, {"deep": nested(300)}, {"deep": nested(900)}]


@both_ways
@pytest.mark.parametrize("more", UNWRITABLE, ids=["number", "300 levels", "900 levels"])
def test_a_response_that_cannot_be_written_again_is_the_provider_s_fault(
    stream: bool, more: dict[str, Any]
) -> None:
    response = {**WORD, **more}
    outcome = run(Provider([response] if stream else response), stream)
    assert isinstance(outcome.error, UpstreamBadResponse)
    assert (outcome.error.status, outcome.answer, outcome.attempts) == (502, b"", 1)
    assert outcome.failures == [{"route": "acme/model-2", "code": "upstream_bad_response"}]


@both_ways
def test_a_fallback_answers_in_place_of_what_cannot_be_written(stream: bool) -> None:
    response, answer = {**WORD, "number": 2**64}, {**WORD, "usage": USAGE}
    fallback = Target("heir/model", "heir", "model-3")
    both = CallSpec(CALL_ID, "web-1", stream, (FIRST, fallback))
    steps = ([response], [answer]) if stream else (response, answer)
    providers = {"acme": Provider(steps[0]), "heir": Provider(steps[1])}
    runner, sender = CallRunner(providers, Limits(), CATALOGUE), Sender()
    outcome = ended(runner, both, sender=sender)
    assert (outcome.error, outcome.route, outcome.usage) == (None, "heir/model-3", USED)


@both_ways
@pytest.mark.parametrize("fault", [RecursionError, RecursionError("CANARY")])
def test_json_too_deep_to_be_walked_is_the_provider_s_fault(stream: bool, fault: Any) -> None:
    outcome = run(Provider(fault() if isinstance(fault, type) else fault), stream)
    assert isinstance(outcome.error, UpstreamBadResponse)


@both_ways
def test_usage_that_cannot_be_right_is_dropped(stream: bool) -> None:
    sender = Sender()
    response = {**WORD, "usage": {**USAGE, "prompt_tokens": -1}}
    outcome = run(Provider([response] if stream else response), stream, sender)
    assert (outcome.error, outcome.estimated) == (None, True)
    payload = sender.sent[0] if stream else outcome.answer
    assert orjson.loads(payload) == WORD


@both_ways
def test_a_timeout_that_is_not_the_calls_is_let_through(stream: bool) -> None:
    timeout = gevent.Timeout(600)
    with pytest.raises(gevent.Timeout) as raised:
        run(Provider(timeout), stream)
    assert raised.value is timeout


@both_ways
def test_a_provider_that_this_worker_does_not_have_is_named(stream: bool) -> None:
    runner = CallRunner({}, Limits(), CATALOGUE)
    outcome = ended(runner, spec(stream, "other"))
    assert isinstance(outcome.error, ProviderNotConfigured)
    assert "'other'" in outcome.error.message
    assert outcome.attempts == 0


# A model that is gone


def run_both(
    first: Provider, heir: Provider, stream: bool, body: bytes = BODY, sender: Sender | None = None
) -> Ended:
    both = CallSpec(CALL_ID, "web-1", stream, (FIRST, HEIR))
    runner = CallRunner({"acme": first, "heir": heir}, Limits(), CATALOGUE)
    return ended(runner, both, body, sender)


@both_ways
def test_a_model_that_is_gone_names_its_successor(stream: bool) -> None:
    outcome = run(Provider(GONE), stream)
    assert isinstance(outcome.error, ModelNotFound)
    assert outcome.error.message == (
        "The model `model-2` does not exist. Use the model 'heir/model' instead "
        "(shut down on 2026-12-31)."
    )
    assert (outcome.error.status, outcome.error.code) == (404, "model_not_found")
    assert (outcome.error.param, outcome.attempts) == ("model", 1)


def test_its_successor_answers_where_the_plan_says_so() -> None:
    heir = Provider({"choices": [], "usage": USAGE})
    outcome = run_both(Provider(GONE), heir, stream=False)
    assert (outcome.error, outcome.usage) == (None, USED)
    assert (outcome.route, outcome.attempts) == ("heir/model-3", 2)


def test_a_stream_of_the_successor_says_first_who_answers() -> None:
    sender = Sender()
    parts = [[WORD], [MORE]]
    outcome = run_both(Provider(GONE), Provider(*parts), stream=True, sender=sender)
    assert (outcome.error, outcome.route, outcome.last) == (None, "heir/model-3", 2)
    assert decode_head(sender.sent[0]) == ("heir/model-3", ["temperature"], orjson.dumps(WORD))
    assert sender.sent[1] == orjson.dumps(MORE)


@both_ways
def test_the_successor_gets_what_it_takes_of_the_caller_s_parameters(stream: bool) -> None:
    heir = Provider([{"choices": []}] if stream else {"choices": []})
    body = {"messages": [], "temperature": 0.5, "max_tokens": 9, "top_k": 3, "stop": "a"}
    run_both(Provider(GONE), heir, stream, orjson.dumps(body))
    fit = {"messages": [], "max_completion_tokens": 9, "stop": "a"}
    assert heir.calls == [ChatCall("model-3", fit, stream, 20, "adaptive")]


@both_ways
def test_the_outcome_names_what_the_target_that_answered_was_not_sent(stream: bool) -> None:
    answer = [{"choices": []}] if stream else {"choices": []}
    body = b'{"messages":[],"temperature":0.5,"top_k":3}'
    assert run_both(Provider(GONE), Provider(answer), stream, body).dropped == [
        "temperature",
        "top_k",
    ]
    assert run_both(Provider(answer), Provider(), stream, body).dropped == []


@both_ways
def test_what_the_caller_can_do_without_is_left_out_where_the_model_refuses_it(
    stream: bool,
) -> None:
    provider = Provider([{"choices": []}] if stream else {"choices": []})
    heir = Target("heir/model", "heir", "model-3")
    one = CallSpec(CALL_ID, "web-1", stream, (heir,), optional=("temperature",))
    runner = CallRunner({"heir": provider}, Limits(), CATALOGUE)
    outcome = runner.run(claimed(), one, BODY, Sender())  # type: ignore[arg-type]
    assert (outcome.error, outcome.dropped) == (None, ["temperature"])
    assert "temperature" not in provider.calls[0].parameters


@both_ways
def test_what_the_successor_cannot_do_is_not_left_out(stream: bool) -> None:
    outcome = run_both(Provider(GONE), Provider(), stream, b'{"messages":[],"tools":[1]}')
    assert isinstance(outcome.error, InvalidRequest)
    assert outcome.error.param == "tools"


@both_ways
def test_a_successor_that_is_gone_too_ends_the_call(stream: bool) -> None:
    outcome = run_both(Provider(GONE), Provider(ModelNotFound("Neither.")), stream)
    assert isinstance(outcome.error, ModelNotFound)
    assert (outcome.error.message, outcome.route) == ("Neither.", "heir/model-3")


@both_ways
def test_no_other_failure_moves_a_call_to_the_successor(stream: bool) -> None:
    heir = Provider({"choices": []})
    outcome = run_both(Provider(*[UpstreamFailed()] * 3), heir, stream)
    assert isinstance(outcome.error, UpstreamFailed)
    assert heir.calls == []


def test_an_answer_that_has_begun_is_not_begun_again_by_another() -> None:
    heir = Provider([{"choices": []}])
    outcome = run_both(Provider([WORD], GONE), heir, stream=True)
    assert isinstance(outcome.error, ModelNotFound)
    assert (heir.calls, outcome.last, outcome.route) == ([], 1, "acme/model-2")


def test_every_outcome_can_cross_redis() -> None:
    error = DeadlineExceeded("so late")
    outcome = Outcome.decode(run(Provider(error)).encode())
    assert isinstance(outcome.error, DeadlineExceeded)
    assert outcome.error.message == "so late"


# run


def test_a_stock_worker_is_told_what_runs_these_jobs() -> None:
    with pytest.raises(RuntimeError, match="python -m workers"):
        tasks.run(CALL_ID)


def test_a_fault_of_ours_is_not_to_be_repeated_by_the_caller() -> None:
    outcome = run(Provider(OverflowError()))
    assert outcome.error is not None
    assert outcome.error.should_retry is False


CUSTOM = {"type": "custom", "custom": {"name": "sh"}}
CUSTOM_BODY = orjson.dumps({"messages": [{"role": "user", "content": "Hi"}], "tools": [CUSTOM]})


@pytest.mark.parametrize("accepts", [(), ("custom_tools",)], ids=["functions", "custom tools"])
@both_ways
def test_a_custom_tool_is_called_as_such_whatever_the_model_takes(
    accepts: tuple[str, ...], stream: bool
) -> None:
    custom = {"type": "custom", "custom": {"name": "sh", "input": "ls"}}
    function = {"type": "function", "function": {"name": "sh", "arguments": '{"input":"ls"}'}}
    call = {"index": 0, "id": "c", **(custom if accepts else function)}
    field = "delta" if stream else "message"
    chunk = {"choices": [{"index": 0, field: {"tool_calls": [call]}}]}
    provider, sender = Provider([chunk] if stream else chunk), Sender()
    rows = Rows(
        {"acme": ProviderRow("acme", "openai", URL, accepts=accepts)},
        {},
        {"acme/model": ModelRow("acme/model", "acme")},
    )
    runner = CallRunner({"acme": provider}, Limits(0), Catalogue(rows, Settings()))
    outcome = runner.run(claimed(), spec(stream), CUSTOM_BODY, sender)  # type: ignore[arg-type]
    assert provider.calls[0].parameters["tools"][0]["type"] == ("custom" if accepts else "function")
    result = orjson.loads(sender.sent[0] if stream else outcome.answer)
    (returned,) = result["choices"][0][field]["tool_calls"]
    assert returned == {"index": 0, "id": "c", **custom}


def test_a_call_that_a_lost_worker_has_run_is_not_to_be_repeated_by_the_caller() -> None:
    """The provider may have acted on the first run, whatever became of the second."""
    refused = UpstreamUnreachable()
    assert refused.should_retry is True
    runner = CallRunner({"acme": Provider(refused)}, Limits(0), CATALOGUE)
    again = Claimed(CALL_ID, "web-1", "claim-2", 600, b"", {"lost_ms": 1_500})
    outcome = ended(runner, spec(), call=again)
    assert outcome.error is not None
    assert outcome.error.should_retry is False
    lost, failed = outcome.bill.attempts
    assert (lost["provider_name"], lost["code"]) == ("acme", "worker_lost")
    assert lost["latency_ms"] == 1_500
    assert failed["code"] == "upstream_connect"
