"""Haystack's chat generator for OpenAI, and its agent."""

import asyncio
import contextlib
import os

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
import openai
from cells import BASE_URL, CITY, ENDLESS, KEY, PNG, QUESTION, WEATHER
from haystack.components.agents import Agent
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage, ImageContent
from haystack.tools import create_tool_from_function
from haystack.utils import Secret
from pydantic import BaseModel

AUTH_ERROR, NOT_FOUND_ERROR = openai.AuthenticationError, openai.NotFoundError
NOT = {}


class City(BaseModel):
    name: str
    degrees: float
    capital: bool


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}"


def generator(model, key=KEY, **more):
    return OpenAIChatGenerator(
        model=model, api_key=Secret.from_token(key), api_base_url=BASE_URL, **more
    )


def ask(model, prompt, key=KEY, **more):
    content = prompt if isinstance(prompt, list) else [prompt]
    message = ChatMessage.from_user(content_parts=content)
    return generator(model, key, **more).run([message])["replies"][0]


def whole(model, key=KEY):
    return ask(model, QUESTION, key).text


def streamed(model):
    chunks = []
    ask(model, QUESTION, streaming_callback=chunks.append)
    return [chunk.content for chunk in chunks if chunk.content]


def usage(model):
    options = {"stream_options": {"include_usage": True}}
    reply = ask(model, QUESTION, streaming_callback=lambda _: None, generation_kwargs=options)
    return reply.meta["usage"]["prompt_tokens"]


def tools(model, **more):
    agent = Agent(
        chat_generator=generator(model), tools=[create_tool_from_function(get_weather)], **more
    )
    return agent.run(messages=[ChatMessage.from_user(WEATHER)])["messages"][-1].text


def streamed_tools(model):
    return tools(model, streaming_callback=lambda _: None)


def structured(model):
    reply = ask(model, QUESTION, generation_kwargs={"response_format": City})
    return City.model_validate_json(reply.text).model_dump()


def json_mode(model):
    form = {"response_format": {"type": "json_object"}}
    reply = ask(model, f"Answer in JSON like {CITY}", generation_kwargs=form)
    return City.model_validate_json(reply.text).model_dump()


def image(model):
    return ask(model, ["See", ImageContent(base64_image=PNG, mime_type="image/png")]).text


async def cancel(model):
    started = asyncio.Event()

    async def note(chunk):
        started.set()

    messages = [ChatMessage.from_user(ENDLESS)]
    run = generator(model).run_async(messages, streaming_callback=note)
    task = asyncio.ensure_future(run)
    await started.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
