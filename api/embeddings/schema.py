"""Checks a request for embeddings, as OpenAI documents it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal, Required

from pydantic import AfterValidator, Field, Tag, TypeAdapter
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.call_request import CheckedRequest
from api.chat.request import model_name
from api.chat.schema import MAX_MODEL
from api.schemas import other_api
from api.schemas.check import check
from api.schemas.errors import TAG, invalid_request
from api.schemas.fields import Choice, Label, Whole
from gateway.errors import InvalidRequest

MAX_INPUTS = 2048  # texts in one request, and tokens of a single text
MAX_DIMENSIONS = 2**31 - 1  # the provider checks the limit of the model
# OpenAI accepts 300,000 tokens in one request; the rest is for the arrays around them.
MAX_ELEMENTS = 310_000

MEMBERS: dict[type, str] = {str: "texts", int: "tokens", list: "token_lists"}
EXPECTED = "one of a string, array of strings, array of integers, or array of integer arrays"


def _member(value: Any) -> str | None:
    """The tag of this kind of input. The first element of an array decides."""
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
UpToMaxInputs = Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)
# The provider checks how many tokens the model accepts.
NonEmpty = Field(min_length=1, fail_fast=True)
Input = Annotated[
    Annotated[Text, Tag("=text")]
    | Annotated[list[Text], UpToMaxInputs, Tag("=texts")]
    | Annotated[list[Token], UpToMaxInputs, Tag("=tokens")]
    | Annotated[list[Annotated[list[Token], NonEmpty]], UpToMaxInputs, Tag("=token_lists")],
    Choice(_member, "wrong.type", "expected {expected}", {"expected": EXPECTED}),
]


class EmbeddingsBody(TypedDict, total=False):
    """A request for embeddings."""

    # The first error in the order of these keys is reported.

    model: Required[Annotated[str, Field(min_length=1, max_length=MAX_MODEL)]]
    input: Required[Input]
    encoding_format: Literal["float", "base64"] | None
    dimensions: Annotated[int, Field(ge=1, le=MAX_DIMENSIONS), Whole] | None
    user: Label | None


EMBEDDINGS_REQUEST = TypeAdapter(EmbeddingsBody)
EMBEDDINGS_PARAMETERS = frozenset(EmbeddingsBody.__annotations__) - {"model"}


def embeddings_request(data: Any, extra: Collection[str] = ()) -> CheckedRequest:
    """The checked request. Fields that are not OpenAI's are ignored, except those in `extra`.

    It has the form of an unstreamed chat request, with `input` in place of `messages`. Raises
    InvalidRequest for the first problem, with OpenAI's message.
    """
    model = model_name(data)
    try:
        check(EMBEDDINGS_REQUEST, data, invalid_request)
    except InvalidRequest as error:
        if "messages" in data:
            error.message += other_api.hint(data, "/embeddings")
        raise
    accepted = EMBEDDINGS_PARAMETERS.union(extra)
    parameters = {k: v for k, v in data.items() if k in accepted and v is not None}
    ignored = [name for name in data if name not in accepted and name != "model"]
    return CheckedRequest(
        model=model,
        stream=False,
        include_usage=False,
        parameters=parameters,
        ignored=ignored,
        kind="embeddings",
    )
