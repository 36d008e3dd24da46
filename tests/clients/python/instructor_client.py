"""Instructor on OpenAI's client: by tools, by schema and by JSON mode."""

import instructor
import openai
from cells import BASE_URL, DATA_URL, KEY, QUESTION
from pydantic import BaseModel

try:
    from instructor.core.exceptions import InstructorRetryException
except ImportError:
    from instructor.exceptions import InstructorRetryException

AUTH_ERROR = (openai.AuthenticationError, InstructorRetryException)
NOT_FOUND_ERROR = (openai.NotFoundError, InstructorRetryException)
OBJECTS = "its answers are always objects"
NOT = {
    "tools": "it has no loop of tools",
    "streamed_tools": "it has no loop of tools",
    "usage": "it leaves usage to the client under it",
    "cancel": "it leaves streams to the client under it",
}


class City(BaseModel):
    name: str
    degrees: float
    capital: bool


class Said(BaseModel):
    text: str


def create(model, kind, mode, prompt=QUESTION, key=KEY, **more):
    client = instructor.from_openai(openai.OpenAI(base_url=BASE_URL, api_key=key), mode=mode)
    messages = [{"role": "user", "content": prompt}]
    return client.chat.completions.create(
        model=model, messages=messages, response_model=kind, **more
    )


def whole(model, key=KEY):
    answer = create(model, City, instructor.Mode.TOOLS, key=key)
    assert answer.model_dump() == {"name": "Paris", "degrees": 0.5, "capital": True}
    return "Paris is the capital of France."


def streamed(model):
    client = instructor.from_openai(openai.OpenAI(base_url=BASE_URL, api_key=KEY))
    messages = [{"role": "user", "content": QUESTION}]
    parts = list(
        client.chat.completions.create_partial(model=model, messages=messages, response_model=City)
    )
    assert len(parts) > 2 and parts[-1].name == "Paris", parts
    return ["Paris is ", "the capital ", "of France."]


def structured(model):
    return create(model, City, instructor.Mode.JSON_SCHEMA).model_dump()


def json_mode(model):
    return create(model, City, instructor.Mode.JSON).model_dump()


def image(model):
    part = {"type": "image_url", "image_url": {"url": DATA_URL}}
    content = [{"type": "text", "text": "See"}, part]
    assert create(model, Said, instructor.Mode.TOOLS, prompt=content).text == "Paris"
    return "I see 1 image."
