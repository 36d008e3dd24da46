"""LlamaIndex, by its class for compatible services. Its class for Anthropic checks the names."""

import asyncio
import contextlib

import openai
from cells import API, BASE_URL, CELLS, DATA_URL, ENDLESS, KEY, QUESTION, WEATHER
from llama_index.core.agent.workflow import AgentStream, FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

AUTH_ERROR, NOT_FOUND_ERROR = openai.AuthenticationError, openai.NotFoundError
NOT = {
    "json_mode": "it asks for a schema or for a tool",
    "usage": "it leaves usage to the client under it",
}
if API == "messages":
    NOT = dict.fromkeys(CELLS, "it takes the names in its own list of Claude models only")


class City(BaseModel):
    name: str
    degrees: float
    capital: bool


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}"


def llm(model, key=KEY):
    return OpenAILike(
        model=model,
        api_base=BASE_URL,
        api_key=key,
        is_chat_model=True,
        is_function_calling_model=True,
        should_use_structured_outputs=True,
    )


def question(text):
    return [ChatMessage(role="user", content=text)]


def whole(model, key=KEY):
    return llm(model, key).chat(question(QUESTION)).message.content


def streamed(model):
    return [part.delta for part in llm(model).stream_chat(question(QUESTION)) if part.delta]


async def tools(model):
    agent = FunctionAgent(tools=[get_weather], llm=llm(model), streaming=False)
    return str(await agent.run(WEATHER))


async def streamed_tools(model):
    handler = FunctionAgent(tools=[get_weather], llm=llm(model)).run(WEATHER)
    texts = [e.delta async for e in handler.stream_events() if isinstance(e, AgentStream)]
    assert len(texts) > 2
    return str(await handler)


def structured(model):
    return llm(model).as_structured_llm(City).chat(question(QUESTION)).raw.model_dump()


def image(model):
    message = ChatMessage(role="user", blocks=[TextBlock(text="See"), ImageBlock(url=DATA_URL)])
    return llm(model).chat([message]).message.content


async def cancel(model):
    async def read():
        async for _ in await llm(model).astream_chat(question(ENDLESS)):
            pass

    task = asyncio.ensure_future(read())
    await asyncio.sleep(1.5)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
