"""The official OpenAI client's Responses API, pointed here by its base URL."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response
from pydantic import BaseModel

from tests.support.stack import Stack

PNG = "data:image/png;base64,iVBORw0KGgo="
TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
NESTED = {"type": "function", "function": {k: TOOL[k] for k in TOOL if k != "type"}}


class Place(BaseModel):
    city: str
    population: int


@pytest.fixture
def client(stack: Stack) -> Iterator[OpenAI]:
    with OpenAI(api_key=stack.key, base_url=stack.url, max_retries=0) as client:
        yield client


def asked_upstream(stack: Stack, model: str) -> dict:
    """The body of the last call that the fake provider got for this model."""
    return [call for call in stack.upstream.log() if call["model"] == model][-1]["body"]


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"])
def test_the_client_gets_a_response(client: OpenAI, model: str) -> None:
    response = client.responses.create(model=model, input="What is the capital of France?")
    assert response.output_text == "What is the capital of France?"
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.total_tokens > 0
    # The client itself checks nothing; its types do.
    Response.model_validate(response.model_dump())


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"])
def test_the_client_gets_a_stream(client: OpenAI, model: str) -> None:
    events = list(client.responses.create(model=model, input="one two three", stream=True))
    for event in events:
        type(event).model_validate(event.model_dump())
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == "one two three"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == text


def test_the_client_s_own_accumulator_takes_the_stream(client: OpenAI) -> None:
    with client.responses.stream(model="demo/echo", input="one two three") as stream:
        snapshots = [e.snapshot for e in stream if e.type == "response.output_text.delta"]
        assert stream.get_final_response().output_text == snapshots[-1] == "one two three"


def test_a_loop_of_tools_comes_to_its_end(client: OpenAI, stack: Stack) -> None:
    conversation: list = [{"role": "user", "content": "How is the weather?"}]
    first = client.responses.create(model="demo/tool", input=conversation, tools=[TOOL])
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert call.name == "get_weather"
    conversation += first.output
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    conversation.append(result)
    model = "fake/after-tools"
    second = client.responses.create(model=model, input=conversation, tools=[TOOL])
    assert second.output_text == "How is the weather?"
    body = asked_upstream(stack, "after-tools")
    assert body["tools"] == [NESTED]
    function = {"name": "get_weather", "arguments": call.arguments}
    assert body["messages"][1]["tool_calls"] == [
        {"id": call.call_id, "type": "function", "function": function}
    ]
    assert body["messages"][2] == {
        "role": "tool",
        "tool_call_id": call.call_id,
        "content": "sunny",
    }


def test_a_streamed_tool_call_is_whole_at_its_end(client: OpenAI) -> None:
    with client.responses.stream(model="demo/tool", input="Weather?", tools=[TOOL]) as stream:
        deltas = [e.delta for e in stream if e.type == "response.function_call_arguments.delta"]
        response = stream.get_final_response()
    (call,) = [item for item in response.output if item.type == "function_call"]
    assert len(deltas) > 1
    assert "".join(deltas) == call.arguments


def test_an_answer_is_parsed_into_a_model(client: OpenAI, stack: Stack) -> None:
    model, text = "fake/parse", '{"city": "Paris", "population": 2}'
    response = client.responses.parse(model=model, input=text, text_format=Place)
    assert response.output_parsed == Place(city="Paris", population=2)
    output = asked_upstream(stack, "parse")["response_format"]
    assert (output["type"], output["json_schema"]["name"]) == (
        "json_schema",
        "Place",
    )
    assert output["json_schema"]["schema"]["required"] == ["city", "population"]
    with client.responses.stream(model=model, input=text, text_format=Place) as stream:
        assert stream.get_final_response().output_parsed == Place(city="Paris", population=2)


def test_an_image_reaches_either_provider(client: OpenAI, stack: Stack) -> None:
    content = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": PNG, "detail": "auto"},
    ]
    for model in ("fake/image", "claude/image-claude"):
        response = client.responses.create(
            model=model, input=[{"role": "user", "content": content}]
        )
        assert response.output_text == "What is this?"
    (message,) = asked_upstream(stack, "image")["messages"]
    assert message["content"][1]["image_url"]["url"] == PNG
    (message,) = asked_upstream(stack, "image-claude")["messages"]
    assert message["content"][1]["source"]["media_type"] == "image/png"


def test_a_wrong_parameter_is_a_bad_request_error_that_names_it(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as failure:
        client.responses.create(model="demo/echo", input="hi", previous_response_id="resp_1")
    assert failure.value.param == "previous_response_id"
    with pytest.raises(openai.BadRequestError) as failure:
        client.responses.create(
            model="demo/echo",
            input="hi",
            tools=[{"type": "web_search"}],
            tool_choice={"type": "web_search"},
        )
    assert failure.value.param == "tool_choice"


def test_a_response_is_not_found_afterwards(client: OpenAI) -> None:
    response = client.responses.create(model="demo/echo", input="hi")
    with pytest.raises(openai.NotFoundError) as failure:
        client.responses.retrieve(response.id)
    assert "'store' or 'background'" in failure.value.message


def test_a_failure_in_a_stream_is_an_api_error(client: OpenAI) -> None:
    stream = client.responses.create(model="demo/cut", input="hi", stream=True)
    with pytest.raises(openai.APIError) as failure:
        list(stream)
    assert failure.value.code == "upstream_truncated"


def test_a_failure_before_the_stream_is_an_error_with_its_status(client: OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError):
            client.responses.create(model="fake/status-401", input="hi", stream=stream)
