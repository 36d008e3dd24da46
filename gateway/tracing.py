"""Traces with OpenTelemetry: the only user of its libraries, which are an extra.

One trace leads from the HTTP request through the queue to each attempt at a provider. The context
travels in the CallSpec. Spans and their kinds:

    POST /inference/v1/chat/completions   server    in the web process, until the response has ended
        queue                             internal  in the worker: from the submission to the claim
        call openai/gpt-4o                internal  from the claim to the outcome
            chat gpt-4o                   client    each attempt at a provider

Attributes are those of the GenAI conventions, which are in development: the tables below are the
only place that has their names. Prompts and responses are left out unless `capture` is set.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gevent
import orjson

from gateway.account.usage import normal
from gateway.settings import ConfigurationError, Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

SERVICE = "inference-service"
SERVER, INTERNAL, CLIENT = "SERVER", "INTERNAL", "CLIENT"
MAX_STATE = 512  # characters of a tracestate, as the W3C recommends

# Our names of providers -> those of the conventions, where they differ.
PROVIDERS = {
    "mistral": "mistral_ai",
    "xai": "x_ai",
    "gemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    "bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "moonshot": "moonshot_ai",
}
# Parameters of a request -> attributes.
PARAMETERS = {
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "seed": "gen_ai.request.seed",
    "n": "gen_ai.request.choice.count",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "dimensions": "gen_ai.embeddings.dimension.count",
}
OPERATION, PROVIDER = "gen_ai.operation.name", "gen_ai.provider.name"
REQUEST_MODEL, REQUEST_STREAM = "gen_ai.request.model", "gen_ai.request.stream"
STOP, OUTPUT_TYPE = "gen_ai.request.stop_sequences", "gen_ai.output.type"
RESPONSE_ID, FINISH_REASONS = "gen_ai.response.id", "gen_ai.response.finish_reasons"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS, OUTPUT_TOKENS = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
CACHE_READ = "gen_ai.usage.cache_read.input_tokens"
CACHE_CREATION = "gen_ai.usage.cache_creation.input_tokens"
REASONING = "gen_ai.usage.reasoning.output_tokens"
INPUT_MESSAGES, OUTPUT_MESSAGES = "gen_ai.input.messages", "gen_ai.output.messages"
SYSTEM, TOOLS = "gen_ai.system_instructions", "gen_ai.tool.definitions"
ERROR, SERVER_ADDRESS = "error.type", "server.address"
HTTP_METHOD, HTTP_ROUTE = "http.request.method", "http.route"
HTTP_STATUS = "http.response.status_code"
# Ours.
CALL_ID, REQUEST_ID, KEY_ID = "inference.call_id", "inference.request_id", "inference.key_id"
QUEUED, ATTEMPTS, COST = "inference.queued_ms", "inference.attempts", "inference.cost_usd"

OUTPUT_TYPES = {"json_object": "json", "json_schema": "json", "text": "text"}
SYSTEM_ROLES = ("system", "developer")


def open_tracing(settings: Settings) -> Tracing | None:
    """Return what makes spans and exports them; None without OTEL_EXPORTER_OTLP_ENDPOINT.

    Further variables of OpenTelemetry's are read by its libraries. Raises ConfigurationError if
    those are not installed.
    """
    if not settings.otlp_endpoint:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigurationError(
            "OTEL_EXPORTER_OTLP_ENDPOINT needs OpenTelemetry: pip install -r requirements-otel.txt"
        ) from error
    resource = Resource.create()
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": SERVICE}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    url = settings.variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    exporter = OTLPSpanExporter(url or f"{settings.otlp_endpoint.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider, settings.captures_content)


class Tracing:
    """Makes the spans of one process. `capture`: they have prompts and responses."""

    def __init__(self, provider: TracerProvider, capture: bool = False) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation import tracecontext

        self.capture = capture
        self._trace, self._provider = trace, provider
        self._tracer = provider.get_tracer(SERVICE)
        self._propagator = tracecontext.TraceContextTextMapPropagator()

    def start(
        self,
        name: str,
        kind: str,
        parent: Span | Mapping[str, str] | None,
        attributes: Mapping[str, Any],
        seconds_ago: float = 0.0,
    ) -> Span:
        """Start a span, below another or below the one that a context names."""
        if parent is None or isinstance(parent, Mapping):
            context = self._propagator.extract(parent or {})
        else:
            context = self._trace.set_span_in_context(parent)
        return self._tracer.start_span(
            name,
            context,
            kind=self._trace.SpanKind[kind],
            attributes={name: value for name, value in attributes.items() if value is not None},
            start_time=time.time_ns() - int(seconds_ago * 1e9),
        )

    def context(self, span: Span) -> dict[str, str]:
        """Return the context of a span, as headers have it."""
        context: dict[str, str] = {}
        self._propagator.inject(context, self._trace.set_span_in_context(span))
        return context

    def fail(self, span: Span, code: str) -> None:
        """Mark a span as failed. No message goes with it, which could quote a prompt."""
        span.set_attribute(ERROR, code)
        span.set_status(self._trace.StatusCode.ERROR)

    def close(self, seconds: float = 2.0) -> None:
        """Export what has not been exported, as far as that works within so many seconds."""
        with gevent.Timeout(seconds, False):
            self._provider.shutdown()


def received(parent: str, state: str) -> dict[str, str]:
    """Return the context that the headers `traceparent` and `tracestate` of a request name."""
    if not parent:
        return {}
    kept = state and len(state) <= MAX_STATE
    return {"traceparent": parent, "tracestate": state} if kept else {"traceparent": parent}


def request_attributes(
    operation: str, provider: str, model: str, params: Mapping[str, Any], stream: bool
) -> dict[str, Any]:
    """Return the attributes of a request for a model."""
    attributes: dict[str, Any] = {
        OPERATION: operation,
        PROVIDER: PROVIDERS.get(provider, provider),
        REQUEST_MODEL: model,
        REQUEST_STREAM: stream or None,
    }
    for name, attribute in PARAMETERS.items():
        if type(value := params.get(name)) in (int, float):
            attributes[attribute] = value
    if stop := params.get("stop"):
        attributes[STOP] = [stop] if isinstance(stop, str) else list(stop)
    output = params.get("response_format")
    if isinstance(output, Mapping):
        attributes[OUTPUT_TYPE] = OUTPUT_TYPES.get(str(output.get("type")))
    return attributes


def usage_attributes(usage: Mapping[str, Any] | None) -> dict[str, int]:
    """Return the attributes of OpenAI's usage. The input includes what was cached."""
    if not usage:
        return {}
    counts = normal(usage)
    parts = {
        CACHE_READ: counts.cache_read,
        CACHE_CREATION: counts.cache_write + counts.cache_write_1h,
        REASONING: counts.reasoning,
    }
    totals = {INPUT_TOKENS: counts.prompt, OUTPUT_TOKENS: counts.output}
    return totals | {name: count for name, count in parts.items() if count}


def input_attributes(params: Mapping[str, Any]) -> dict[str, str]:
    """Return the attributes that hold what was asked: the content of a request."""
    messages = params.get("messages") or ()
    system = [each for each in messages if each.get("role") in SYSTEM_ROLES]
    turns = [each for each in messages if each.get("role") not in SYSTEM_ROLES]
    values = {
        SYSTEM: [part for each in system for part in _parts(each)],
        INPUT_MESSAGES: [{"role": each["role"], "parts": _parts(each)} for each in turns],
        TOOLS: params.get("tools"),
    }
    return {name: _json(value) for name, value in values.items() if value}


def output_attributes(choices: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the attribute that holds the response: the content of its choices."""
    messages = [
        {
            "role": "assistant",
            "parts": _parts(choice.get("message") or {}),
            "finish_reason": choice.get("finish_reason"),
        }
        for choice in choices
    ]
    return {OUTPUT_MESSAGES: _json(messages)} if messages else {}


def _parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of a message as the conventions write them; of media, the type alone."""
    content = message.get("content")
    if message.get("role") == "tool":
        id = message.get("tool_call_id")
        return [{"type": "tool_call_response", "id": id, "response": _text(content)}]
    parts: list[dict[str, Any]] = []
    if thinking := message.get("reasoning_content"):
        parts.append({"type": "reasoning", "content": thinking})
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content or ():
        if part.get("type") == "text":
            parts.append({"type": "text", "content": part.get("text")})
        else:
            parts.append({"type": part.get("type")})
    for call in message.get("tool_calls") or ():
        function = call.get("function") or call.get("custom") or {}
        arguments = function.get("arguments") or function.get("input")
        name = function.get("name")
        parts.append(
            {"type": "tool_call", "id": call.get("id"), "name": name, "arguments": arguments}
        )
    return parts


def _text(content: Any) -> Any:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content


def _json(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()
