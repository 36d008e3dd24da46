"""The shape of OpenAI's embeddings responses, for the OpenAPI document alone."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.schemas.response_schema import Count


class EmbeddingVector(TypedDict):
    object: Literal["embedding"]
    index: Count
    embedding: Annotated[
        list[float] | str,
        Field(description="Numbers, or base64 of little-endian float32, as requested."),
    ]


class EmbeddingUsage(TypedDict):
    prompt_tokens: Count
    total_tokens: Count


class EmbeddingList(TypedDict):
    """One vector for each input, in the order of the inputs."""

    object: Literal["list"]
    data: list[EmbeddingVector]
    model: str
    usage: NotRequired[EmbeddingUsage]
