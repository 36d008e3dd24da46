"""The shape of a request to OpenAI's Responses API: the part that this service supports.

Source: OpenAI's API reference, "Create a model response". Further keys are not checked.
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, Required

from pydantic import Field, Tag, TypeAdapter
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.chat.messages_schema import NonEmpty, Text
from api.chat.schema import MAX_MODEL, MAX_TOOLS, TextFormat
from api.responses.items_schema import Item
from api.responses.tools_schema import FlatTool, FlatToolChoice
from api.schemas.fields import (
    FunctionName,
    JsonSchema,
    Label,
    Metadata,
    Probability,
    Temperature,
    TokenLimit,
    TopLogprobs,
    either,
    one_of,
)

MAX_ITEMS = 4096


class FlatSchemaFormat(TypedDict):
    type: Literal["json_schema"]
    name: FunctionName
    schema: JsonSchema
    description: NotRequired[str | None]
    strict: NotRequired[bool | None]


FlatFormat = Annotated[
    Annotated[TextFormat, Tag("=text")]
    | Annotated[TextFormat, Tag("=json_object")]
    | Annotated[FlatSchemaFormat, Tag("=json_schema")],
    one_of("type", "text", "json_object", "json_schema"),
]


class TextConfig(TypedDict, total=False):
    format: FlatFormat | None
    verbosity: Literal["low", "medium", "high"] | None


class Reasoning(TypedDict, total=False):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None
    summary: Literal["auto", "concise", "detailed"] | None


class ObfuscationOptions(TypedDict, total=False):
    include_obfuscation: bool | None


class ResponsesBody(TypedDict, total=False):
    """A request for a response."""

    # The first error in the order of these keys is reported.

    model: Required[Annotated[str, Field(min_length=1, max_length=MAX_MODEL)]]
    input: Required[
        Annotated[
            Text | Annotated[list[Item], NonEmpty, Field(max_length=MAX_ITEMS), Tag("=items")],
            either("a string or array of input items"),
        ]
    ]
    instructions: str | None
    stream: bool | None
    stream_options: ObfuscationOptions | None
    store: bool | None
    background: bool | None
    previous_response_id: Label | None
    include: list[str] | None
    max_output_tokens: TokenLimit | None
    temperature: Temperature | None
    top_p: Probability | None
    top_logprobs: TopLogprobs | None
    tools: Annotated[list[FlatTool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None
    tool_choice: FlatToolChoice | None
    parallel_tool_calls: bool | None
    text: TextConfig | None
    reasoning: Reasoning | None
    truncation: Literal["auto", "disabled"] | None
    metadata: Metadata | None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None
    user: Label | None
    safety_identifier: Label | None
    prompt_cache_key: Label | None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None


RESPONSES_REQUEST = TypeAdapter(ResponsesBody)
RESPONSES_FIELDS = frozenset(ResponsesBody.__annotations__)
