"""Pydantic AI on each of the three APIs."""

import base64

from anthropic import AsyncAnthropic
from cells import API, BASE_URL, ENDLESS, KEY, ORIGIN, PNG, QUESTION, WEATHER
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

AUTH_ERROR = NOT_FOUND_ERROR = ModelHTTPError
NOT = {"json_mode": "it asks for a schema or for a tool, never for bare JSON"}


class City(BaseModel):
    name: str
    degrees: float
    capital: bool


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}"


def agent(model, key=KEY, **more):
    if API == "messages":
        client = AsyncAnthropic(base_url=f"{ORIGIN}/inference", api_key=key)
        return Agent(
            AnthropicModel(model, provider=AnthropicProvider(anthropic_client=client)), **more
        )
    kind = OpenAIChatModel if API == "chat" else OpenAIResponsesModel
    return Agent(kind(model, provider=OpenAIProvider(base_url=BASE_URL, api_key=key)), **more)


async def whole(model, key=KEY):
    return (await agent(model, key).run(QUESTION)).output


async def streamed(model, **more):
    async with agent(model).run_stream(QUESTION) as run:
        return [text async for text in run.stream_text(delta=True, debounce_by=None)]


async def usage(model):
    async with agent(model).run_stream(QUESTION) as run:
        async for _ in run.stream_text(delta=True):
            pass
        counts = run.usage() if callable(run.usage) else run.usage
        return counts.input_tokens


async def tools(model):
    return (await agent(model, tools=[get_weather]).run(WEATHER)).output


async def streamed_tools(model):
    async with agent(model, tools=[get_weather]).run_stream(WEATHER) as run:
        return await run.get_output()


async def structured(model):
    return (await agent(model, output_type=City).run(QUESTION)).output.model_dump()


async def image(model):
    picture = BinaryContent(base64.b64decode(PNG), media_type="image/png")
    return (await agent(model).run(["See", picture])).output


async def cancel(model):
    async with agent(model).run_stream(ENDLESS) as run:
        async for _ in run.stream_text(delta=True, debounce_by=None):
            break
