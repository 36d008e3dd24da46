"""The shape of a chat request, as OpenAI documents it. Further keys are not checked.

These are typed dictionaries, since nothing is built from a request: it is checked, and the provider
gets its own values. Each union has a function that selects the member by a tag: pydantic would
otherwise try all members, which is slow and reports the errors of each.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, Required

from pydantic import Field, Tag
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.chat.messages_schema import CacheControl, Message, NonEmpty, Text, TextContent
from api.schemas.fields import (
    OTHER,
    Choices,
    FunctionName,
    JsonSchema,
    Label,
    LogitBias,
    Metadata,
    ModelName,
    OtherType,
    Penalty,
    Probability,
    Seed,
    Temperature,
    TokenLimit,
    ToolName,
    TopLogprobs,
    either,
    one_of,
    typed,
)

MAX_MODEL = 256  # characters
MAX_MESSAGES = 2048
MAX_TOOLS = 128
MAX_STOPS = 4
MAX_FALLBACKS = 5


class Function(TypedDict):
    name: ToolName
    description: NotRequired[str | None]
    parameters: NotRequired[JsonSchema | None]
    strict: NotRequired[bool | None]


class FunctionTool(TypedDict):
    type: Literal["function"]
    function: Function
    cache_control: NotRequired[CacheControl | None]


class Custom(TypedDict):
    name: ToolName
    description: NotRequired[str | None]
    format: NotRequired[dict[str, Any] | None]


class CustomTool(TypedDict):
    type: Literal["custom"]
    custom: Custom
    cache_control: NotRequired[CacheControl | None]


Tool = Annotated[
    Annotated[FunctionTool, Tag("=function")]
    | Annotated[CustomTool, Tag("=custom")]
    | Annotated[OtherType, Tag(OTHER)],
    typed("function", "custom"),
]


class Named(TypedDict):
    name: ToolName


class ChosenFunction(TypedDict):
    type: Literal["function"]
    function: Named


class ChosenCustom(TypedDict):
    type: Literal["custom"]
    custom: Named


class AllowedTools(TypedDict):
    mode: Literal["auto", "required"]
    tools: list[dict[str, Any]]


class ChosenAmong(TypedDict):
    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ChosenTool = Annotated[
    Annotated[ChosenFunction, Tag("=function")]
    | Annotated[ChosenCustom, Tag("=custom")]
    | Annotated[ChosenAmong, Tag("=allowed_tools")],
    one_of("type", "function", "custom", "allowed_tools"),
]
ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("=text")]
    | Annotated[ChosenTool, Tag("=object")],
    either("a string or object"),
]
FunctionChoice = Annotated[
    Annotated[Literal["none", "auto"], Tag("=text")] | Annotated[Named, Tag("=object")],
    either("a string or object"),
]


class TextFormat(TypedDict):
    type: Literal["text", "json_object"]


class SchemaOfAnswer(TypedDict):
    name: FunctionName
    schema: JsonSchema
    description: NotRequired[str | None]
    strict: NotRequired[bool | None]


class SchemaFormat(TypedDict):
    """A JSON schema as OpenAI has it, or directly in `schema`, as llama.cpp and Together do."""

    type: Literal["json_schema"]
    json_schema: NotRequired[SchemaOfAnswer]
    schema: NotRequired[JsonSchema]


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("=text")]
    | Annotated[TextFormat, Tag("=json_object")]
    | Annotated[SchemaFormat, Tag("=json_schema")],
    one_of("type", "text", "json_object", "json_schema"),
]


class StreamOptions(TypedDict, total=False):
    include_usage: bool | None
    include_obfuscation: bool | None


class UsageOptions(TypedDict, total=False):
    include: bool | None


class VoiceById(TypedDict):
    id: str


class Audio(TypedDict):
    format: Literal["wav", "aac", "mp3", "flac", "opus", "pcm16"]
    voice: Annotated[Text | Annotated[VoiceById, Tag("=object")], either("a string or object")]


class Prediction(TypedDict):
    type: Literal["content"]
    content: TextContent


class Approximately(TypedDict, total=False):
    city: str | None
    country: str | None
    region: str | None
    timezone: str | None


class UserLocation(TypedDict):
    type: Literal["approximate"]
    approximate: Approximately


class WebSearchOptions(TypedDict, total=False):
    search_context_size: Literal["low", "medium", "high"] | None
    user_location: UserLocation | None


Stop = Annotated[
    Text | Annotated[list[str], Field(max_length=MAX_STOPS, fail_fast=True), Tag("=items")],
    either("a string or array of strings"),
]


class ChatBody(TypedDict, total=False):
    """A request for a chat completion."""

    # The first error in the order of these keys is reported.

    model: Required[Annotated[str, Field(min_length=1, max_length=MAX_MODEL)]]
    messages: Required[Annotated[list[Message], NonEmpty, Field(max_length=MAX_MESSAGES)]]
    # OpenRouter's: the fallbacks, in this order, if `model` fails.
    models: Annotated[list[ModelName], Field(max_length=MAX_FALLBACKS, fail_fast=True)] | None
    stream: bool | None
    stream_options: StreamOptions | None
    # This service's, and the Responses API's: the caller comes back for the response.
    background: bool | None
    # OpenRouter's: the usage in the response says what the call cost.
    usage: UsageOptions | None
    temperature: Temperature | None
    top_p: Probability | None
    n: Choices | None
    max_tokens: TokenLimit | None
    max_completion_tokens: TokenLimit | None
    stop: Stop | None
    presence_penalty: Penalty | None
    frequency_penalty: Penalty | None
    logit_bias: LogitBias | None
    logprobs: bool | None
    top_logprobs: TopLogprobs | None
    seed: Seed | None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None
    tool_choice: ToolChoice | None
    parallel_tool_calls: bool | None
    functions: Annotated[list[Function], Field(max_length=MAX_TOOLS, fail_fast=True)] | None
    function_call: FunctionChoice | None
    response_format: ResponseFormat | None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None
    verbosity: Literal["low", "medium", "high"] | None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None
    modalities: Annotated[list[Literal["text", "audio"]], NonEmpty] | None
    audio: Audio | None
    prediction: Prediction | None
    web_search_options: WebSearchOptions | None
    metadata: Metadata | None
    store: bool | None
    user: Label | None
    safety_identifier: Label | None
    prompt_cache_key: Label | None
    # OpenAI's reference spells the first one way and its clients the other.
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None
