"""Checks a request for embeddings, as OpenAI documents it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal, Required

from pydantic import AfterValidator, Field, Tag, TypeAdapter
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.chat.request import model_name
from api.chat.schema import MAX_MODEL
from api.handler import CheckedRequest
from api.schemas.check import check
from api.schemas.errors import TAG, invalid_request
from api.schemas.fields import Choice, Label, Whole

MAX_INPUTS = 2048  # texts of one request, and tokens of a text that stands alone
MAX_DIMENSIONS = 2**31 - 1  # what a model can do is for its provider to say
# OpenAI takes 300,000 tokens in one request; the rest is for the arrays around them.
MAX_ELEMENTS = 310_000

MEMBERS: dict[type, str] = {str: "texts", int: "tokens", list: "token_lists"}
EXPECTED = "one of a string, array of strings, array of integers, or array of integer arrays"


def _member(value: Any) -> str | None:
    """Which kind of input this is: an array's first element decides."""
    if isinstance(value, str):
        return f"{TAG}text"
    if not isinstance(value, list):
        return None
    return TAG + (MEMBERS.get(type(value[0]), "texts") if value else "texts")


def _not_empty(text: str) -> str:
    if not text:
        raise PydanticCustomError("wrong.value", "{reason}", {"reason": "expected some text"})
    return text


Text = Annotated[str, AfterValidator(_not_empty)]
Token = Annotated[int, Field(ge=0), Whole]
Many = Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)
# How many tokens the model takes is for its provider to say.
Some = Field(min_length=1, fail_fast=True)
Input = Annotated[
    Annotated[Text, Tag("=text")]
    | Annotated[list[Text], Many, Tag("=texts")]
    | Annotated[list[Token], Many, Tag("=tokens")]
    | Annotated[list[Annotated[list[Token], Some]], Many, Tag("=token_lists")],
    Choice(_member, "wrong.type", "expected {expected}", {"expected": EXPECTED}),
]


class EmbeddingsBody(TypedDict, total=False):
    """A request for embeddings."""

    # Errors are looked for in the order of these keys.

    model: Required[Annotated[str, Field(min_length=1, max_length=MAX_MODEL)]]
    input: Required[Input]
    encoding_format: Literal["float", "base64"] | None
    dimensions: Annotated[int, Field(ge=1, le=MAX_DIMENSIONS), Whole] | None
    user: Label | None


EMBEDDINGS_REQUEST = TypeAdapter(EmbeddingsBody)
EMBEDDINGS_PARAMETERS = frozenset(EmbeddingsBody.__annotations__) - {"model"}


def embeddings_request(data: Any, extra: Collection[str] = ()) -> CheckedRequest:
    """The checked request; fields that OpenAI does not have are ignored, save those in `extra`.

    It has the form of a chat request that is not streamed, with `input` in place of `messages`.
    Raises InvalidRequest about the first thing that is wrong, in OpenAI's words.
    """
    model = model_name(data)
    check(EMBEDDINGS_REQUEST, data, invalid_request)
    known = EMBEDDINGS_PARAMETERS.union(extra)
    parameters = {k: v for k, v in data.items() if k in known and v is not None}
    ignored = [name for name in data if name not in known and name != "model"]
    return CheckedRequest(
        model=model, stream=False, include_usage=False, parameters=parameters, ignored=ignored
    )
