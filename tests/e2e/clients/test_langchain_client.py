"""LangChain's classes for OpenAI, pointed here by their base URL."""

from __future__ import annotations

import httpx
import openai
import pytest
import tiktoken
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

from tests.support.stack import Stack

pytestmark = pytest.mark.slow

QUESTION = "What is the capital of France?"


class City(BaseModel):
    """A city."""

    name: str
    degrees: float
    capital: bool


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"Sunny in {city}"


def chat(stack: Stack, model: str, **more: object) -> ChatOpenAI:
    return ChatOpenAI(model=model, base_url=stack.url, api_key=stack.key, max_retries=0, **more)


def test_langchain_gets_an_answer(stack: Stack) -> None:
    answer = chat(stack, "openai/gpt-4o-mini").invoke(QUESTION)
    assert answer.content == QUESTION
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata["total_tokens"] > 3


def test_langchain_gets_a_stream_with_usage(stack: Stack) -> None:
    pieces = list(chat(stack, "openai/gpt-4o-mini", stream_usage=True).stream(QUESTION))
    assert "".join(piece.content for piece in pieces) == QUESTION
    assert len(pieces) > 3
    assert sum(piece.usage_metadata["total_tokens"] for piece in pieces if piece.usage_metadata) > 3


@pytest.mark.parametrize("streaming", [False, True])
def test_langchain_calls_a_tool_and_gets_the_answer_that_follows(
    stack: Stack, streaming: bool
) -> None:
    model = chat(stack, "fake/tool", streaming=streaming).bind_tools([get_weather])
    turn = model.invoke(QUESTION)
    (call,) = turn.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
    answer = model.invoke([("user", QUESTION), turn, get_weather.invoke(call)])
    assert answer.content == "Sunny in Paris"


def test_langchain_parses_an_answer_by_its_schema(stack: Stack) -> None:
    model = chat(stack, "fake/schema").with_structured_output(City, method="json_schema")
    assert model.invoke(QUESTION) == City(name="Paris", degrees=0.5, capital=True)


def test_langchain_raises_the_clients_errors_with_our_fields(stack: Stack) -> None:
    with pytest.raises(openai.BadRequestError) as failure:
        chat(stack, "openai/gpt-4o-mini", temperature=200).invoke(QUESTION)
    assert (failure.value.param, failure.value.code) == ("temperature", "decimal_above_max_value")
    with pytest.raises(openai.APIError) as failure:
        list(chat(stack, "fake/stream-6-10-cut").stream(QUESTION))
    assert failure.value.code == "upstream_truncated"


@pytest.mark.parametrize("model", ["fake/echo", "demo/embed"])
def test_langchain_gets_embeddings_of_the_tokens_that_it_makes(
    stack: Stack, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A token for each byte: the real vocabularies are downloaded when they are first used.
    tokens = tiktoken.Encoding(
        "bytes",
        pat_str=r"[\s\S]",
        mergeable_ranks={bytes([value]): value for value in range(256)},
        special_tokens={},
    )
    monkeypatch.setattr(tiktoken, "encoding_for_model", lambda name: tokens)
    stack.upstream.clear()
    with httpx.Client() as http:  # LangChain would leave its own open
        embeddings = OpenAIEmbeddings(
            model=model, base_url=stack.url, api_key=stack.key, max_retries=0, http_client=http
        )
        one, two, same = embeddings.embed_documents(["hi", "you", "hi"])
    assert one == same != two
    if model == "fake/echo":
        (call,) = stack.upstream.log()
        assert call["body"]["input"] == [[104, 105], [121, 111, 117], [104, 105]]
        assert sum(value * value for value in one) == pytest.approx(12)  # three times 2.0
