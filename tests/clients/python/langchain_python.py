"""LangChain's classes for OpenAI (both APIs) and Anthropic, and its agent loop."""

import anthropic
import openai
from cells import API, BASE_URL, CITY, DATA_URL, ENDLESS, KEY, ORIGIN, QUESTION, WEATHER
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

AUTH_ERROR = (openai.AuthenticationError, anthropic.AuthenticationError)
NOT_FOUND_ERROR = (openai.NotFoundError, anthropic.NotFoundError)
NOT = {"json_mode": "Messages has no JSON mode"} if API == "messages" else {}


class City(BaseModel):
    """A city."""

    name: str
    degrees: float
    capital: bool


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}"


def chat(model, key=KEY, **more):
    if API == "messages":
        return ChatAnthropic(model=model, api_key=key, base_url=f"{ORIGIN}/inference", **more)
    responses = API == "responses"
    return ChatOpenAI(
        model=model, api_key=key, base_url=BASE_URL, use_responses_api=responses, **more
    )


def text_of(message):
    return message.text if isinstance(message.text, str) else message.text()


def whole(model, key=KEY):
    return text_of(chat(model, key).invoke(QUESTION))


def streamed(model):
    return [text for part in chat(model).stream(QUESTION) if (text := text_of(part))]


def usage(model):
    first, *others = chat(model, stream_usage=True).stream(QUESTION)
    for part in others:
        first += part
    return first.usage_metadata["input_tokens"]


def tools(model):
    agent = create_agent(chat(model), [get_weather])
    state = agent.invoke({"messages": [("user", WEATHER)]})
    return text_of(state["messages"][-1])


def streamed_tools(model):
    agent = create_agent(chat(model, streaming=True), [get_weather])
    parts = agent.stream({"messages": [("user", WEATHER)]}, stream_mode="messages")
    texts = [text_of(part) for part, _ in parts if type(part).__name__ == "AIMessageChunk"]
    assert len([text for text in texts if text]) > 2
    return "".join(texts)


def structured(model):
    return (
        chat(model).with_structured_output(City, method="json_schema").invoke(QUESTION).model_dump()
    )


def json_mode(model):
    model = chat(model).with_structured_output(City, method="json_mode")
    return model.invoke(f"Answer in JSON like {CITY}").model_dump()


def image(model):
    part = {"type": "image_url", "image_url": {"url": DATA_URL}}
    content = [{"type": "text", "text": "See"}, part]
    return text_of(chat(model).invoke([("user", content)]))


def cancel(model):
    stream = chat(model).stream(ENDLESS)
    for part in stream:
        if text_of(part):
            break
    stream.close()
