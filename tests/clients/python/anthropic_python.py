"""Anthropic's Python client: its tool cells use its beta tool runner."""

import anthropic
from anthropic import beta_tool
from cells import ENDLESS, KEY, ORIGIN, PNG, QUESTION, WEATHER
from pydantic import BaseModel

AUTH_ERROR, NOT_FOUND_ERROR = anthropic.AuthenticationError, anthropic.NotFoundError
NOT = {"json_mode": "Messages has no JSON mode"}


class City(BaseModel):
    name: str
    degrees: float
    capital: bool


@beta_tool
def get_weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: Its name.
    """
    return f"Sunny in {city}"


def client(key=KEY):
    return anthropic.Anthropic(base_url=f"{ORIGIN}/inference", api_key=key)


def fields(model, prompt):
    return {
        "model": model,
        "max_tokens": 1_000,
        "messages": [{"role": "user", "content": prompt}],
    }


def whole(model, key=KEY):
    return client(key).messages.create(**fields(model, QUESTION)).content[0].text


def streamed(model):
    with client().messages.stream(**fields(model, QUESTION)) as stream:
        return list(stream.text_stream)


def usage(model):
    with client().messages.stream(**fields(model, QUESTION)) as stream:
        return stream.get_final_message().usage.input_tokens


def tools(model):
    runner = client().beta.messages.tool_runner(tools=[get_weather], **fields(model, WEATHER))
    return runner.until_done().content[0].text


def streamed_tools(model):
    runner = client().beta.messages.tool_runner(
        tools=[get_weather], stream=True, **fields(model, WEATHER)
    )
    for stream in runner:
        message = stream.get_final_message()
    return message.content[0].text


def structured(model):
    answer = client().messages.parse(output_format=City, **fields(model, QUESTION))
    return answer.parsed_output.model_dump()


def image(model):
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "See"}]
    return client().messages.create(**fields(model, content)).content[0].text


def count_tokens(model):
    request = fields(model, QUESTION)
    del request["max_tokens"]
    return client().messages.count_tokens(**request).input_tokens


def cancel(model):
    with client().messages.stream(**fields(model, ENDLESS)) as stream:
        next(iter(stream.text_stream))
