"""LiteLLM as a library, by its providers for OpenAI and for Anthropic."""

import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm
from cells import API, BASE_URL, CITY, DATA_URL, ENDLESS, KEY, ORIGIN, QUESTION, WEATHER
from pydantic import BaseModel

AUTH_ERROR, NOT_FOUND_ERROR = litellm.AuthenticationError, litellm.NotFoundError
NOT = {"json_mode": "Messages has no JSON mode"} if API == "messages" else {}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}


class City(BaseModel):
    name: str
    degrees: float
    capital: bool


def ask(model, prompt, key=KEY, **more):
    messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    if API == "messages":
        place = {"model": f"anthropic/{model}", "base_url": f"{ORIGIN}/inference"}
    else:
        place = {"model": f"openai/{model}", "base_url": BASE_URL}
    return litellm.completion(messages=messages, api_key=key, **place, **more)


def whole(model, key=KEY):
    return ask(model, QUESTION, key).choices[0].message.content


def streamed(model):
    chunks = ask(model, QUESTION, stream=True)
    return [text for chunk in chunks if (text := chunk.choices[0].delta.content)]


def usage(model):
    chunks = ask(model, QUESTION, stream=True, stream_options={"include_usage": True})
    return litellm.stream_chunk_builder(list(chunks)).usage.prompt_tokens


def tools(model, read=lambda response: response, **more):
    message = read(ask(model, WEATHER, tools=[TOOL], **more)).choices[0].message
    (call,) = message.tool_calls
    result = f"Sunny in {json.loads(call.function.arguments)['city']}"
    answer = {"role": "tool", "tool_call_id": call.id, "content": result}
    messages = [{"role": "user", "content": WEATHER}, message.model_dump(), answer]
    return read(ask(model, messages, tools=[TOOL], **more)).choices[0].message.content


def streamed_tools(model):
    return tools(model, lambda chunks: litellm.stream_chunk_builder(list(chunks)), stream=True)


def structured(model):
    text = ask(model, QUESTION, response_format=City).choices[0].message.content
    return City.model_validate_json(text).model_dump()


def json_mode(model):
    form = {"type": "json_object"}
    answer = ask(model, f"Answer in JSON like {CITY}", response_format=form)
    return json.loads(answer.choices[0].message.content)


def image(model):
    part = {"type": "image_url", "image_url": {"url": DATA_URL}}
    content = [{"type": "text", "text": "See"}, part]
    return ask(model, [{"role": "user", "content": content}]).choices[0].message.content


async def cancel(model):
    messages = [{"role": "user", "content": ENDLESS}]
    place = {"model": f"openai/{model}", "base_url": BASE_URL}
    if API == "messages":
        place = {"model": f"anthropic/{model}", "base_url": f"{ORIGIN}/inference"}
    stream = await litellm.acompletion(messages=messages, api_key=KEY, stream=True, **place)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.aclose()
