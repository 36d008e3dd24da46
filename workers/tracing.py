"""The spans of a call in its worker: its time in the queue, itself, and each attempt."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import gevent

from gateway import tracing
from gateway.catalogue.target import Target
from gateway.chat import ChatCall, Chunk, fold
from gateway.errors import GatewayError, StopCall, code_of
from gateway.queue.protocol import CallSpec
from gateway.tracing import Tracing
from providers.base import IGNORE, OnHead, Provider
from workers.bill import Bill
from workers.claims import Claimed

if TYPE_CHECKING:
    from opentelemetry.trace import Span

NOTHING: Mapping[str, str] = {}
# The context of the attempt that this greenlet makes: headers for providers that take them.
context: ContextVar[Mapping[str, str]] = ContextVar("context", default=NOTHING)


class CallTrace:
    """The spans of one call, which has just been claimed."""

    def __init__(self, maker: Tracing, claimed: Claimed, spec: CallSpec) -> None:
        self._maker = maker
        queued = claimed.admission.get("queued_ms", 0)
        since = time.monotonic() - claimed.claimed_at
        attributes = {
            tracing.CALL_ID: spec.call_id,
            tracing.REQUEST_ID: spec.account.get("request_id"),
            tracing.KEY_ID: spec.key,
            tracing.QUEUED: queued,
        }
        start = maker.start
        waited = start("queue", tracing.INTERNAL, spec.trace, attributes, since + queued / 1000)
        waited.end(time.time_ns() - int(since * 1e9))
        name = f"call {spec.targets[0].model}"
        self._span = start(name, tracing.INTERNAL, spec.trace, attributes, since)

    def traced(self, provider: Provider, target: Target, host: str) -> Provider:
        """Return a provider, which is at this host, whose attempts have spans."""
        return TracedProvider(provider, self._maker, self._span, target.provider, host)

    def end(self, bill: Bill, error: GatewayError | None) -> None:
        """End the call's span, with what the call has used in all its attempts."""
        self._span.set_attribute(tracing.ATTEMPTS, len(bill.attempts))
        self._span.set_attribute(tracing.COST, bill.nano / 1e9)
        if error is not None:
            self._maker.fail(self._span, code_of(error))
        self._span.end()


class TracedProvider:
    """A provider that makes a span below `parent` of each call. It has this name and host."""

    def __init__(
        self, provider: Provider, maker: Tracing, parent: Span, name: str, host: str = ""
    ) -> None:
        self.streams_only = provider.streams_only
        self._provider, self._maker, self._parent = provider, maker, parent
        self._name, self._host = name, host

    def complete(self, call: ChatCall, on_head: OnHead = IGNORE) -> Chunk:
        """Return the whole response, as Provider.complete."""
        with self._attempt("chat", call.model, call.parameters) as attempt:
            response = self._provider.complete(call, on_head)
            attempt.add([response])
            attempt.identify(call)
            return response

    def stream(self, call: ChatCall) -> Iterator[list[Chunk]]:
        """Yield the response as it arrives, as Provider.stream."""
        with self._attempt("chat", call.model, call.parameters, stream=True) as attempt:
            for chunks in self._provider.stream(call):
                attempt.add(chunks)
                yield chunks
            attempt.identify(call)

    def embed(self, model: str, parameters: Mapping[str, Any], on_head: OnHead = IGNORE) -> Chunk:
        """Return the embeddings, as Provider.embed."""
        with self._attempt("embeddings", model, parameters) as attempt:
            response = self._provider.embed(model, parameters, on_head)
            attempt.add([{"choices": (), "usage": response.get("usage")}])
            return response

    def count_tokens(self, call: ChatCall) -> Chunk:
        """Return the tokens of a prompt, as Provider.count_tokens."""
        with self._attempt("count_tokens", call.model, call.parameters):
            return self._provider.count_tokens(call)

    def _attempt(
        self, operation: str, model: str, params: Mapping[str, Any], stream: bool = False
    ) -> Attempt:
        attributes = tracing.request_attributes(operation, self._name, model, params, stream)
        attributes[tracing.SERVER_ADDRESS] = self._host or None
        if self._maker.capture:
            attributes |= tracing.input_attributes(params)
        name = f"{operation} {model}"
        span = self._maker.start(name, tracing.CLIENT, self._parent, attributes)
        context.set(self._maker.context(span))
        return Attempt(self._maker, span, stream)


class Attempt:
    """The span of one attempt; a context manager. Failures are noted by their codes alone."""

    def __init__(self, maker: Tracing, span: Span, stream: bool) -> None:
        self._maker, self._span, self._stream = maker, span, stream
        self._began = time.monotonic()
        self._usage: Mapping[str, Any] | None = None
        self._reasons: dict[int, str] = {}
        self._chunks: list[Chunk] = []  # kept if the response is to be captured
        self._begun = False

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        span = self._span
        if error is not None:
            self._maker.fail(span, _code(error))
        for name, value in tracing.usage_attributes(self._usage).items():
            span.set_attribute(name, value)
        if self._reasons:
            reasons = [self._reasons[index] for index in sorted(self._reasons)]
            span.set_attribute(tracing.FINISH_REASONS, reasons)
        if self._chunks:
            choices = fold(self._chunks)["choices"] if self._stream else self._chunks[0]["choices"]
            for name, text in tracing.output_attributes(choices).items():
                span.set_attribute(name, text)
        span.end()

    def add(self, chunks: list[Chunk]) -> None:
        """Note chunks of a stream, or a whole response."""
        if self._stream and not self._begun:
            seconds = time.monotonic() - self._began
            self._span.set_attribute(tracing.FIRST_CHUNK, seconds)
        self._begun = True
        for chunk in chunks:
            self._usage = chunk.get("usage") or self._usage
            for choice in chunk.get("choices") or ():
                if reason := choice.get("finish_reason"):
                    self._reasons[choice.get("index", 0)] = str(reason)
        if self._maker.capture:
            self._chunks += chunks

    def identify(self, call: ChatCall) -> None:
        """Note the id of the response."""
        if id := call.upstream.get("id"):
            self._span.set_attribute(tracing.RESPONSE_ID, id)


def _code(error: BaseException) -> str:
    """What ended an attempt. A stream that nobody reads on was given up."""
    if isinstance(error, StopCall):
        return code_of(error.error)
    if isinstance(error, gevent.Timeout):
        return "timeout"
    if isinstance(error, GeneratorExit):
        return "cancelled"
    return code_of(error) if isinstance(error, GatewayError) else type(error).__name__
