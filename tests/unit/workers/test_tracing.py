"""workers/tracing.py: the span of each attempt, however it ends."""

import gevent
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway.chat import ChatCall
from gateway.errors import CallCancelled, StopCall, UpstreamFailed
from gateway.tracing import INTERNAL, Tracing
from workers import tracing
from workers.tracing import TracedProvider

CALL = ChatCall("model-2", {"messages": [{"role": "user", "content": "a secret"}], "seed": 7})
USAGE = {"prompt_tokens": 3, "completion_tokens": 2}
WHOLE = {
    "choices": [{"index": 0, "message": {"content": "an answer"}, "finish_reason": "stop"}],
    "usage": USAGE,
}
STREAM = [
    [{"choices": [{"index": 0, "delta": {"content": "an "}}]}],
    [{"choices": [{"index": 0, "delta": {"content": "answer"}, "finish_reason": "length"}]}],
    [{"choices": [], "usage": USAGE}],
]


class Scripted:
    """A provider that answers, or raises, what the test says."""

    streams_only = False

    def __init__(self, error=None):
        self.error = error
        self.contexts = []

    def complete(self, call, on_head=None):
        self.contexts.append(tracing.context.get())
        if self.error:
            raise self.error
        call.upstream["id"] = "resp-1"
        return WHOLE

    def stream(self, call):
        yield from STREAM[:1]
        if self.error:
            raise self.error
        yield from STREAM[1:]

    def embed(self, model, parameters, on_head=None):
        return {"data": [], "usage": {"prompt_tokens": 5}}

    def count_tokens(self, call):
        return {"input_tokens": 9}


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def make(exporter):
    """A function that makes a traced provider of a scripted one."""

    def make(provider, capture=False):
        spans = TracerProvider(shutdown_on_exit=False)
        spans.add_span_processor(SimpleSpanProcessor(exporter))
        maker = Tracing(spans, capture)
        return TracedProvider(provider, maker, maker.start("call", INTERNAL, None, {}), "mistral")

    return make


def only(exporter):
    [span] = exporter.get_finished_spans()
    return span


def test_a_whole_response_has_usage_reason_and_id_and_no_content(make, exporter):
    assert make(Scripted()).complete(CALL) == WHOLE
    span = only(exporter)
    assert (span.name, span.kind.name, span.parent is not None) == ("chat model-2", "CLIENT", True)
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "mistral_ai",
        "gen_ai.request.model": "model-2",
        "gen_ai.request.seed": 7,
        "gen_ai.response.id": "resp-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
    }


def test_a_stream_has_the_time_to_its_first_chunk(make, exporter):
    assert list(make(Scripted()).stream(CALL)) == STREAM
    attributes = only(exporter).attributes
    assert attributes["gen_ai.request.stream"] is True
    assert attributes["gen_ai.response.time_to_first_chunk"] >= 0
    assert attributes["gen_ai.response.finish_reasons"] == ("length",)
    assert attributes["gen_ai.usage.output_tokens"] == 2


@pytest.mark.parametrize(
    "error, code",
    [
        (UpstreamFailed("a secret"), "upstream_failed"),
        (StopCall(CallCancelled()), "client_closed_request"),
        (gevent.Timeout(), "timeout"),
        (KeyError("a secret"), "KeyError"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_is_noted_by_its_code_alone(make, exporter, error, code, stream):
    provider = make(Scripted(error))
    with pytest.raises(type(error)):
        list(provider.stream(CALL)) if stream else provider.complete(CALL)
    span = only(exporter)
    assert span.attributes["error.type"] == code
    assert not span.status.is_ok and not span.events
    assert "secret" not in span.to_json()


def test_a_stream_that_is_not_read_to_its_end_is_cancelled(make, exporter):
    stream = make(Scripted()).stream(CALL)
    next(stream)
    stream.close()
    assert only(exporter).attributes["error.type"] == "cancelled"


@pytest.mark.parametrize("stream", [False, True])
def test_content_is_there_if_it_is_asked_for(make, exporter, stream):
    provider = make(Scripted(), capture=True)
    list(provider.stream(CALL)) if stream else provider.complete(CALL)
    attributes = only(exporter).attributes
    assert "a secret" in attributes["gen_ai.input.messages"]
    assert "an answer" in attributes["gen_ai.output.messages"]


def test_embeddings_and_counts_have_operations_of_their_own(make, exporter):
    make(Scripted()).embed("model-3", {"input": "a secret"})
    make(Scripted()).count_tokens(CALL)
    embed, count = exporter.get_finished_spans()
    assert (embed.name, count.name) == ("embeddings model-3", "count_tokens model-2")
    assert embed.attributes["gen_ai.usage.input_tokens"] == 5
    assert "secret" not in embed.to_json() + count.to_json()


def test_a_provider_that_takes_the_context_gets_that_of_its_attempt(make, exporter):
    scripted = Scripted()
    gevent.spawn(make(scripted).complete, CALL).get()
    span = only(exporter)
    ids = f"{span.context.trace_id:032x}-{span.context.span_id:016x}"
    assert [each["traceparent"][:-3] for each in scripted.contexts] == [f"00-{ids}"]
    assert tracing.context.get() != scripted.contexts[0]  # it is that greenlet's alone
