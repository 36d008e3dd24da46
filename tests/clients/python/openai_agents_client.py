"""OpenAI's Agents SDK."""

import openai
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from cells import API, BASE_URL, DATA_URL, ENDLESS, KEY, QUESTION, WEATHER
from pydantic import BaseModel

AUTH_ERROR, NOT_FOUND_ERROR = openai.AuthenticationError, openai.NotFoundError
NOT = {"json_mode": "it asks for a schema, never for bare JSON"}
set_tracing_disabled(True)


class City(BaseModel):
    name: str
    degrees: float
    capital: bool


@function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}"


def agent(model, key=KEY, **more):
    kind = OpenAIChatCompletionsModel if API == "chat" else OpenAIResponsesModel
    client = openai.AsyncOpenAI(base_url=BASE_URL, api_key=key)
    return Agent(name="tester", model=kind(model=model, openai_client=client), **more)


async def deltas(run):
    async for event in run.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            yield event.data.delta


async def whole(model, key=KEY):
    return (await Runner.run(agent(model, key), QUESTION)).final_output


async def streamed(model):
    return [text async for text in deltas(Runner.run_streamed(agent(model), QUESTION))]


async def usage(model):
    settings = ModelSettings(include_usage=True)
    run = Runner.run_streamed(agent(model, model_settings=settings), QUESTION)
    async for _ in run.stream_events():
        pass
    return run.context_wrapper.usage.input_tokens


async def tools(model):
    return (await Runner.run(agent(model, tools=[get_weather]), WEATHER)).final_output


async def streamed_tools(model):
    run = Runner.run_streamed(agent(model, tools=[get_weather]), WEATHER)
    async for _ in run.stream_events():
        pass
    return run.final_output


async def structured(model):
    return (await Runner.run(agent(model, output_type=City), QUESTION)).final_output.model_dump()


async def image(model):
    content = [
        {"type": "input_text", "text": "See"},
        {"type": "input_image", "detail": "auto", "image_url": DATA_URL},
    ]
    return (await Runner.run(agent(model), [{"role": "user", "content": content}])).final_output


async def cancel(model):
    run = Runner.run_streamed(agent(model), ENDLESS)
    async for _ in deltas(run):
        run.cancel()
        break
    async for _ in run.stream_events():
        pass
