"""The shape of models and their list, for the OpenAPI document alone."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, Required

from pydantic import Field
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.schemas.response_schema import Created

Price = Annotated[str, Field(pattern=r"^\d+(\.\d+)?$", examples=["0.00000015"])]


class UnitPrices(TypedDict, total=False):
    """USD for one token, by kind of token. Unknown prices are absent."""

    prompt: Price
    completion: Price
    input_cache_read: Price
    input_cache_write: Annotated[Price, Field(description="For 5 minutes.")]
    input_cache_write_1h: Annotated[Price, Field(description="For an hour.")]
    internal_reasoning: Price
    audio: Annotated[Price, Field(description="Audio in the prompt.")]
    input_audio_cache: Price
    audio_output: Price
    image_token: Annotated[Price, Field(description="Images in the prompt.")]
    image_output: Price


class PriceTier(UnitPrices):
    """The prices of calls whose prompt has more than `above` tokens."""

    above: Required[int]


class Pricing(UnitPrices, total=False):
    """USD for one token, by kind of token. Unknown prices are absent."""

    tiers: Annotated[list[PriceTier], Field(description="The prices for larger prompts.")]


class Model(TypedDict):
    """One model. Unknown values are absent."""

    id: Annotated[str, Field(examples=["openai/gpt-4o-mini"])]
    object: Literal["model"]
    created: Created
    owned_by: Annotated[str, Field(description="The provider that serves it.")]
    available: Annotated[bool, Field(description="Whether its provider is configured here.")]
    kind: Literal["chat", "embeddings"]
    context_length: NotRequired[Annotated[int, Field(description="In tokens.")]]
    max_output_tokens: NotRequired[int]
    shutdown_date: NotRequired[
        Annotated[str, Field(json_schema_extra={"format": "date"}, examples=["2027-01-14"])]
    ]
    successor: NotRequired[
        Annotated[str | None, Field(description="The model to use after the shutdown.")]
    ]
    pricing: NotRequired[Pricing]
    supported_parameters: NotRequired[
        Annotated[list[str], Field(description="The parameters that this model supports.")]
    ]


class ModelList(TypedDict):
    """The models that have a name of their own."""

    object: Literal["list"]
    data: list[Model]
