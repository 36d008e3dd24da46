"""OpenAI's Python client."""

import json

import openai
from cells import API, BASE_URL, CITY, DATA_URL, ENDLESS, KEY, QUESTION, WEATHER
from pydantic import BaseModel

AUTH_ERROR, NOT_FOUND_ERROR = openai.AuthenticationError, openai.NotFoundError
NOT = {}
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
FUNCTION = {"name": "get_weather", "parameters": PARAMETERS}


class City(BaseModel):
    name: str
    degrees: float
    capital: bool


def client(key=KEY):
    return openai.OpenAI(base_url=BASE_URL, api_key=key)


def chat(model, prompt, key=KEY, **more):
    messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    return client(key).chat.completions.create(model=model, messages=messages, **more)


def respond(model, prompt, key=KEY, **more):
    return client(key).responses.create(model=model, input=prompt, **more)


if API == "chat":

    def whole(model, key=KEY):
        return chat(model, QUESTION, key).choices[0].message.content

    def streamed(model):
        chunks = chat(model, QUESTION, stream=True)
        return [text for chunk in chunks if (text := chunk.choices[0].delta.content)]

    def usage(model):
        options = {"include_usage": True}
        *_, last = chat(model, QUESTION, stream=True, stream_options=options)
        return last.usage.prompt_tokens

    def tools(model, create=chat):
        tool = [{"type": "function", "function": FUNCTION}]
        message = create(model, WEATHER, tools=tool).choices[0].message
        (call,) = message.tool_calls
        result = f"Sunny in {json.loads(call.function.arguments)['city']}"
        answer = {"role": "tool", "tool_call_id": call.id, "content": result}
        question = {"role": "user", "content": WEATHER}
        return create(model, [question, message, answer], tools=tool).choices[0].message.content

    def streamed_tools(model):
        def create(model, prompt, **more):
            messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
            with client().chat.completions.stream(model=model, messages=messages, **more) as stream:
                return stream.get_final_completion()

        return tools(model, create)

    def structured(model):
        messages = [{"role": "user", "content": QUESTION}]
        answer = client().chat.completions.parse(
            model=model, messages=messages, response_format=City
        )
        return answer.choices[0].message.parsed.model_dump()

    def json_mode(model):
        prompt = f"Answer in JSON like {json.dumps(CITY)}"
        answer = chat(model, prompt, response_format={"type": "json_object"})
        return json.loads(answer.choices[0].message.content)

    def image(model):
        part = {"type": "image_url", "image_url": {"url": DATA_URL}}
        prompt = [{"role": "user", "content": [{"type": "text", "text": "See"}, part]}]
        return chat(model, prompt).choices[0].message.content

    def cancel(model):
        stream = chat(model, ENDLESS, stream=True)
        next(iter(stream))
        stream.close()

else:

    def whole(model, key=KEY):
        return respond(model, QUESTION, key).output_text

    def streamed(model):
        events = respond(model, QUESTION, stream=True)
        return [event.delta for event in events if event.type == "response.output_text.delta"]

    def usage(model):
        *_, last = respond(model, QUESTION, stream=True)
        return last.response.usage.input_tokens

    def tools(model, create=respond):
        tool = [{"type": "function", "strict": True, **FUNCTION}]
        response = create(model, WEATHER, tools=tool)
        (call,) = [item for item in response.output if item.type == "function_call"]
        result = f"Sunny in {json.loads(call.arguments)['city']}"
        answer = {"type": "function_call_output", "call_id": call.call_id, "output": result}
        question = {"role": "user", "content": WEATHER}
        return create(model, [question, *response.output, answer], tools=tool).output_text

    def streamed_tools(model):
        def create(model, prompt, **more):
            with client().responses.stream(model=model, input=prompt, **more) as stream:
                return stream.get_final_response()

        return tools(model, create)

    def structured(model):
        response = client().responses.parse(model=model, input=QUESTION, text_format=City)
        return response.output_parsed.model_dump()

    def json_mode(model):
        prompt = f"Answer in JSON like {json.dumps(CITY)}"
        response = respond(model, prompt, text={"format": {"type": "json_object"}})
        return json.loads(response.output_text)

    def image(model):
        part = {"type": "input_image", "image_url": DATA_URL}
        content = [{"type": "input_text", "text": "See"}, part]
        return respond(model, [{"role": "user", "content": content}]).output_text

    def cancel(model):
        stream = respond(model, ENDLESS, stream=True)
        for event in stream:
            if event.type == "response.output_text.delta":
                break
        stream.close()

    def count_tokens(model):
        return client().responses.input_tokens.count(model=model, input=QUESTION).input_tokens
