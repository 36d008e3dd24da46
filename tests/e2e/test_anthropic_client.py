"""The official Anthropic client, pointed here by its base URL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic
from pydantic import BaseModel

from tests.support.stack import Stack

MESSAGES: Any = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"type": "string"}},
    },
}
THINKING: Any = {"type": "enabled", "budget_tokens": 1024}


class City(BaseModel):
    name: str
    people: int


def new_client(stack: Stack, **fields: Any) -> Anthropic:
    base_url = stack.url.removesuffix("/v1")
    return Anthropic(**{"api_key": stack.key, "base_url": base_url, "max_retries": 0, **fields})


@pytest.fixture
def client(stack: Stack) -> Iterator[Anthropic]:
    with new_client(stack) as client:
        yield client


@pytest.mark.parametrize(
    "model", ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5", "demo/echo"]
)
def test_the_client_gets_a_message_of_any_model(client: Anthropic, model: str) -> None:
    answer = client.messages.create(
        model=model,
        max_tokens=100,
        system="Be kind.",
        messages=MESSAGES,
        extra_body={"temperature": 0},
    )
    (block,) = answer.content
    assert block.type == "text"
    assert block.text == "What is the capital of France?"
    assert (answer.role, answer.stop_reason) == ("assistant", "end_turn")
    assert answer.id.startswith("msg_")
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0
    assert answer._request_id


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"])
def test_the_client_gets_a_stream(client: Anthropic, model: str) -> None:
    with client.messages.stream(model=model, max_tokens=100, messages=MESSAGES) as stream:
        text = "".join(stream.text_stream)
        answer = stream.get_final_message()
    assert text == "What is the capital of France?"
    assert [block.type for block in answer.content] == ["text"]
    assert answer.stop_reason == "end_turn"
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0


def test_the_header_of_older_clients_is_taken(stack: Stack) -> None:
    headers = {"x-api-key": stack.key, "Authorization": anthropic.Omit()}
    with new_client(stack, api_key="unused", default_headers=headers) as client:
        answer = client.messages.create(model="demo/echo", max_tokens=9, messages=MESSAGES)
    assert answer.stop_reason == "end_turn"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_is_asked_for_and_its_result_taken(client: Anthropic, streamed: bool) -> None:
    fields: Any = {"model": "demo/tool", "max_tokens": 100, "tools": [WEATHER]}
    if streamed:
        with client.messages.stream(messages=MESSAGES, **fields) as stream:
            first = stream.get_final_message()
    else:
        first = client.messages.create(messages=MESSAGES, **fields)
    (use,) = first.content
    assert first.stop_reason == "tool_use"
    assert use.type == "tool_use"
    assert (use.name, use.input) == ("get_weather", {"city": "Paris", "unit": "celsius"})
    result: Any = {"type": "tool_result", "tool_use_id": use.id, "content": "Sunny."}
    turns = [
        *MESSAGES,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    answer = client.messages.create(messages=turns, **fields)
    assert answer.content[0].type == "text"
    assert answer.content[0].text == "The tool says: Sunny."


@pytest.mark.parametrize("streamed", [False, True])
def test_thinking_comes_with_its_signature_and_goes_back(
    client: Anthropic, stack: Stack, streamed: bool
) -> None:
    fields: Any = {"model": "claude/think", "max_tokens": 2000, "thinking": THINKING}
    if streamed:
        with client.messages.stream(messages=MESSAGES, **fields) as stream:
            answer = stream.get_final_message()
    else:
        answer = client.messages.create(messages=MESSAGES, **fields)
    thought, text = answer.content
    assert thought.type == "thinking"
    assert (thought.thinking, thought.signature) == ("Let me think.", "c2lnbmF0dXJl")
    assert text.type == "text"
    assert text.text == "What is the capital of France?"
    more: Any = [{"role": "assistant", "content": answer.content}, *MESSAGES]
    again = client.messages.create(messages=[*MESSAGES, *more], **fields)
    assert again.stop_reason == "end_turn"
    sent = stack.upstream.log()[-1]["body"]
    assert sent["messages"][1]["content"][0] == {
        "type": "thinking",
        "thinking": "Let me think.",
        "signature": "c2lnbmF0dXJl",
    }


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"])
def test_an_answer_is_parsed_by_its_schema(client: Anthropic, stack: Stack, model: str) -> None:
    messages: Any = [{"role": "user", "content": '{"name": "Paris", "people": 2}'}]
    answer = client.messages.parse(
        model=model, max_tokens=100, messages=messages, output_format=City
    )
    assert answer.parsed_output == City(name="Paris", people=2)
    sent = stack.upstream.log()[-1]["body"]
    output_format = sent.get("response_format") or sent["output_config"]["format"]
    assert output_format["type"] == "json_schema"


def test_what_the_model_does_not_take_is_named(client: Anthropic) -> None:
    raw = client.messages.with_raw_response.create(
        model="openai/gpt-4o-mini", max_tokens=100, messages=MESSAGES, extra_body={"top_k": 5}
    )
    assert raw.headers["X-Ignored-Parameters"] == "top_k"
    assert raw.parse().stop_reason == "end_turn"


# Errors


def refused(client: Anthropic, kind: type[anthropic.APIStatusError], **fields: Any) -> Any:
    """The error of this class that such a call raises."""
    params: Any = {"model": "demo/echo", "max_tokens": 100, "messages": MESSAGES, **fields}
    with pytest.raises(kind) as failure:
        client.messages.create(**params)
    assert failure.value.request_id
    return failure.value


def test_a_bad_key_is_an_authentication_error(stack: Stack) -> None:
    with new_client(stack, api_key="mk_inference_wrong") as client:
        error = refused(client, anthropic.AuthenticationError)
    assert (error.status_code, error.type) == (401, "authentication_error")


@pytest.mark.parametrize(
    ("fields", "kind", "status", "name", "message"),
    [
        ({"max_tokens": 0}, "BadRequestError", 400, "invalid_request_error", "max_tokens: "),
        (
            {
                "tools": [{"type": "web_search_20250305", "name": "web_search"}],
                "tool_choice": {"type": "tool", "name": "web_search"},
            },
            "BadRequestError",
            400,
            "invalid_request_error",
            "tool_choice.name: 'web_search_20250305' tools are not run by this service",
        ),
        ({"model": "openai/gpt-9"}, "NotFoundError", 404, "not_found_error", "The model"),
        (
            {"model": "claude/status-429-after-9999"},
            "RateLimitError",
            429,
            "rate_limit_error",
            "The provider",
        ),
        ({"model": "claude/status-401"}, "InternalServerError", 502, "api_error", "The provider"),
        ({"model": "claude/status-529"}, "OverloadedError", 529, "overloaded_error", ""),
        ({"model": "claude/status-504"}, "GatewayTimeoutError", 504, "timeout_error", ""),
    ],
)
def test_errors_are_of_the_client_s_own_classes(
    client: Anthropic, fields: Any, kind: str, status: int, name: str, message: str
) -> None:
    error = refused(client, getattr(anthropic, kind), **fields)
    assert (error.status_code, error.type) == (status, name)
    assert error.api_message.startswith(message)


def test_an_error_in_a_stream_is_raised(client: Anthropic) -> None:
    with client.messages.stream(model="demo/cut", max_tokens=9, messages=MESSAGES) as stream:
        with pytest.raises(anthropic.APIStatusError) as failure:
            stream.until_done()
    assert failure.value.type == "api_error"
    assert failure.value.api_message == (
        "The provider's stream ended before the answer was complete."
    )


def test_the_client_does_not_repeat_a_call_that_may_have_been_made(stack: Stack) -> None:
    model = "claude/cut-alone"  # a name of its own, to be counted by
    with new_client(stack, max_retries=2) as client:
        refused(client, anthropic.InternalServerError, model=model)
    calls = [call for call in stack.upstream.log() if call["model"] == "cut-alone"]
    assert len(calls) == 1
