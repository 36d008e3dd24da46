"""gateway/tracing.py: which attributes spans have, and that nothing is loaded where it is off."""

import dataclasses
import subprocess
import sys

import orjson
import pytest

from gateway import tracing
from gateway.settings import ConfigurationError

OFF = """
import sys
from gateway.settings import Settings
from app import create_app
import workers.runner
create_app(Settings(key_pepper="p" * 40))
# redis-py loads OpenTelemetry's metrics by itself, if they are installed.
assert "opentelemetry.exporter" not in sys.modules
assert "opentelemetry.trace.propagation.tracecontext" not in sys.modules
"""


def test_without_an_endpoint_no_library_is_loaded():
    subprocess.run([sys.executable, "-c", OFF], check=True, timeout=60)


def test_an_endpoint_without_the_extra_says_what_to_install(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigurationError, match="pip install -r requirements-otel.txt"):
        tracing.open_tracing(dataclasses.replace(settings, otlp_endpoint="http://127.0.0.1:9"))


def test_a_request_is_described_with_the_names_of_the_conventions():
    params = {
        "messages": [{"role": "user", "content": "secret"}],
        "max_completion_tokens": 20,
        "temperature": 0.5,
        "n": 2,
        "stop": "end",
        "seed": None,
        "top_p": "high",
        "response_format": {"type": "json_schema"},
    }
    assert tracing.request_attributes("chat", "xai", "grok-4", params, True) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "x_ai",
        "gen_ai.request.model": "grok-4",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 20,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.stop_sequences": ["end"],
        "gen_ai.output.type": "json",
    }


def test_input_tokens_include_cached_ones():
    details = {"cached_tokens": 30, "cache_write_tokens": 10}
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": details}
    assert tracing.usage_attributes(usage) == {
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 30,
        "gen_ai.usage.cache_creation.input_tokens": 10,
    }
    assert tracing.usage_attributes(None) == {}


def test_content_is_written_in_parts_and_media_without_their_data():
    function = {"name": "find", "arguments": '{"q":1}'}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "look"}, image]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "function": function}]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    attributes = tracing.input_attributes({"messages": messages})
    assert orjson.loads(attributes["gen_ai.system_instructions"]) == [
        {"type": "text", "content": "be brief"}
    ]
    call = {"type": "tool_call", "id": "c1", "name": "find", "arguments": '{"q":1}'}
    assert orjson.loads(attributes["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "look"}, {"type": "image_url"}]},
        {"role": "assistant", "parts": [call]},
        {
            "role": "tool",
            "parts": [{"type": "tool_call_response", "id": "c1", "response": "42"}],
        },
    ]


def test_a_context_without_a_parent_or_with_a_long_state_is_dropped():
    assert tracing.received("", "a=b") == {}
    assert tracing.received("p", "a=b") == {"traceparent": "p", "tracestate": "a=b"}
    assert tracing.received("p", "a" * 600) == {"traceparent": "p"}


@pytest.mark.parametrize(
    "text, captures",
    [("", False), ("true", True), ("1", True), ("SPAN_ONLY", True), ("SPAN_AND_EVENT", True)]
    + [("false", False), ("EVENT_ONLY", False), ("NO_CONTENT", False)],
)
def test_content_is_captured_only_if_the_variable_asks_for_it(settings, text, captures):
    assert dataclasses.replace(settings, capture_content=text).captures_content is captures
