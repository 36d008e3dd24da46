"""The official OpenAI client, pointed here by its base URL."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI

from tests.support.stack import Stack

MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]


@pytest.fixture
def client(stack: Stack) -> Iterator[OpenAI]:
    with OpenAI(api_key=stack.key, base_url=stack.url, max_retries=0) as client:
        yield client


def test_the_client_gets_a_completion(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="openai/gpt-4o-mini", messages=MESSAGES, temperature=0
    )
    assert answer.choices[0].message.content == "What is the capital of France?"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "gpt-4o-mini"
    assert answer.usage is not None
    assert answer.usage.total_tokens > 0


def test_the_client_gets_a_stream_with_usage(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="anthropic/claude-sonnet-4-5",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "What is the capital of France?"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens > 0


def test_the_client_gets_a_tool_call(client: OpenAI) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
    answer = client.chat.completions.create(model="demo/tool", messages=MESSAGES, tools=[tool])
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.tool_calls[0].function.name == "get_weather"


def test_a_bad_key_is_an_authentication_error(stack: Stack) -> None:
    with OpenAI(api_key="mk_inference_wrong", base_url=stack.url, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as failure:
            client.chat.completions.create(model="demo/echo", messages=MESSAGES)
    assert failure.value.code == "invalid_api_key"
    assert failure.value.request_id


def test_an_unknown_model_is_a_not_found_error(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as failure:
        client.chat.completions.create(model="openai/gpt-9", messages=MESSAGES)
    assert failure.value.code == "model_not_found"


def test_a_wrong_parameter_is_a_bad_request_error_that_names_it(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as failure:
        client.chat.completions.create(model="demo/echo", messages=MESSAGES, temperature=200)
    assert failure.value.param == "temperature"
    assert failure.value.code == "decimal_above_max_value"


def test_a_failure_in_a_stream_is_an_api_error(client: OpenAI) -> None:
    stream = client.chat.completions.create(model="demo/cut", messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError) as failure:
        list(stream)
    assert failure.value.code == "upstream_truncated"


@pytest.mark.slow
def test_the_client_does_not_repeat_a_call_that_may_have_been_made(own_stack: Stack) -> None:
    # A stack of its own: on a pooled connection, a reset before any byte is tried once more.
    stack = own_stack
    with OpenAI(api_key=stack.key, base_url=stack.url, max_retries=2) as client:
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="fake/reset", messages=MESSAGES)
    assert len(stack.upstream.log()) == 1


def test_the_client_lists_and_fetches_models(client: OpenAI) -> None:
    ids = [model.id for model in client.models.list()]
    assert {"openai/gpt-4o-mini", "openai/gpt-4o", "anthropic/claude-sonnet-4-5"} <= set(ids)
    assert client.models.retrieve("openai/gpt-4o").owned_by == "openai"
