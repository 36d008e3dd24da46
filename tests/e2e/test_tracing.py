"""One trace leads from a request through the queue to each attempt, as a collector receives it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.support.collector import Collector, Received
from tests.support.stack import PATIENCE_SECONDS, Stack, until

pytestmark = pytest.mark.slow

PROMPT = "a prompt that nobody else may read"
SERVER, INTERNAL, CLIENT = 2, 1, 3
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class TracedStack(Stack):
    """A stack whose fake provider is sent the context of traces."""

    def catalogue(self, provider_url: str) -> str:
        text = super().catalogue(provider_url)
        return text.replace("[providers.fake]", "[providers.fake]\ntrace_context = true")


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Stack]:
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "UPSTREAM_RETRIES": "1",
    }
    with TracedStack(tmp_path_factory.mktemp("traced"), env=env) as stack:
        yield stack


def tree(collector: Collector, request_id: str, count: int) -> list[Received]:
    """The spans of the trace of a request, once so many have arrived; the first one is the root."""

    def spans() -> list[Received]:
        traces = {
            each.trace
            for each in collector.spans
            if each.attributes.get("inference.request_id") == request_id
        }
        return [each for each in collector.spans if each.trace in traces]

    until(lambda: len(spans()) >= count, what=f"{count} spans")
    arrived = sorted(spans(), key=lambda each: (each.kind != SERVER, each.kind, each.start))
    assert len(arrived) == count
    return arrived


def test_a_stream_has_one_trace_below_that_of_its_caller(
    traced: Stack, collector: Collector
) -> None:
    response = traced.ask(
        "fake/echo",
        PROMPT,
        stream=True,
        temperature=0.5,
        headers={"X-Request-Id": "streamed", "traceparent": f"00-{TRACE}-{CALLER}-01"},
    )
    assert response.status_code == 200
    root, *inner, attempt = tree(collector, "streamed", 4)
    call, queue = sorted(inner, key=lambda each: each.name)
    assert {each.trace for each in (root, queue, call, attempt)} == {TRACE}
    assert (root.name, root.kind, root.parent) == (
        *("POST /inference/v1/chat/completions", SERVER),
        CALLER,
    )
    assert root.attributes["http.response.status_code"] == 200
    assert (queue.name, queue.kind, queue.parent) == ("queue", INTERNAL, root.id)
    assert (call.name, call.kind, call.parent) == ("call fake/echo", INTERNAL, root.id)
    assert (attempt.name, attempt.kind, attempt.parent) == ("chat echo", CLIENT, call.id)
    assert queue.start <= queue.end <= call.end and call.start <= attempt.start <= call.end
    assert attempt.attributes["gen_ai.request.temperature"] == 0.5
    assert attempt.attributes["server.address"] == "127.0.0.1"
    assert attempt.attributes["gen_ai.usage.output_tokens"] > 0
    assert attempt.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert attempt.resource["service.name"] == "inference-service"
    assert call.attributes["inference.call_id"] == response.headers["X-Generation-Id"]
    assert call.attributes["inference.cost_usd"] > 0
    sent = traced.upstream.log()[-1]["headers"]["traceparent"]
    assert sent.startswith(f"00-{TRACE}-{attempt.id}-")


def test_a_retry_is_an_attempt_of_its_own(traced: Stack, collector: Collector) -> None:
    response = traced.ask("fake/once-503", PROMPT, headers={"X-Request-Id": "retried"})
    assert response.status_code == 200
    spans = tree(collector, "retried", 5)
    failed, answered = [each for each in spans if each.kind == CLIENT]
    assert failed.failed and not answered.failed
    assert failed.attributes["error.type"] and "error.type" not in answered.attributes
    [call] = [each for each in spans if each.name.startswith("call")]
    assert {failed.parent, answered.parent} == {call.id}
    assert call.attributes["inference.attempts"] == 2 and not call.failed


def test_spans_are_exported_in_a_drain_and_have_no_content(
    traced: Stack, collector: Collector
) -> None:
    traced.ask("fake/echo", PROMPT, headers={"X-Request-Id": "last"})
    for process in (traced.web, *traced.workers):
        process.terminate()
    for process in (traced.web, *traced.workers):
        assert process.wait() == 0
    traced.workers.clear()  # tests run in any order: the next one meets a service
    traced.web = traced.start_web(traced.port)
    traced.start_worker()
    traced.until_ready()
    tree(collector, "last", 4)
    sent = b"".join(collector.raw)
    assert PROMPT.encode() not in sent and traced.key.encode() not in sent
    logs = traced.logs()
    assert "Traceback" not in logs, logs[logs.index("Traceback") - 300 :][:3000]


def test_a_collector_that_hangs_delays_neither_calls_nor_the_end(tmp_path: Path) -> None:
    with Collector(answers=False) as hanging:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": hanging.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        with Stack(tmp_path / "stack", env=env) as stack:
            for _ in range(3):
                response = requests.get(f"{stack.url}/health", timeout=PATIENCE_SECONDS)
                assert response.ok and stack.ask("fake/echo").ok
            began = time.monotonic()
            for process in (stack.web, *stack.workers):
                process.terminate()
            for process in (stack.web, *stack.workers):
                process.wait()
            assert time.monotonic() - began < PATIENCE_SECONDS / 2
