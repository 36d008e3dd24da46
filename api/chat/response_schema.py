"""The shape of chat completions and their chunks, for the OpenAPI document alone."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.schemas.response_schema import Count, Created


class PromptTokensDetails(TypedDict):
    cached_tokens: NotRequired[Annotated[Count | None, Field(description="Read from a cache.")]]
    cache_write_tokens: NotRequired[
        Annotated[Count | None, Field(description="Written to a cache.")]
    ]
    audio_tokens: NotRequired[Count | None]


class CompletionTokensDetails(TypedDict):
    reasoning_tokens: NotRequired[Count | None]
    audio_tokens: NotRequired[Count | None]
    accepted_prediction_tokens: NotRequired[Count | None]
    rejected_prediction_tokens: NotRequired[Count | None]


class Usage(TypedDict):
    """Tokens of one call, as the provider counted them."""

    prompt_tokens: Annotated[Count, Field(description="Includes cached tokens.")]
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: NotRequired[PromptTokensDetails | None]
    completion_tokens_details: NotRequired[CompletionTokensDetails | None]
    cost: NotRequired[
        Annotated[
            float | None,
            Field(
                description="USD, if the request has `usage: {include: true}`; null: the model's"
                " prices are unknown."
            ),
        ]
    ]


class AnsweredFunction(TypedDict):
    name: str
    arguments: Annotated[str, Field(description="JSON, as the model wrote it.")]


class AnsweredCustom(TypedDict):
    name: str
    input: str


class AnsweredToolCall(TypedDict):
    """A tool call of the model, in `function` or `custom` according to its `type`."""

    id: str
    type: Annotated[str, Field(examples=["function"])]
    function: NotRequired[AnsweredFunction]
    custom: NotRequired[AnsweredCustom]


class ThinkingBlock(TypedDict):
    """Signed reasoning of an Anthropic model. Send it back unchanged with a tool's result."""

    type: Literal["thinking", "redacted_thinking"]
    thinking: NotRequired[str]
    signature: NotRequired[str]
    data: NotRequired[str]


class AnsweredMessage(TypedDict):
    role: Annotated[str, Field(examples=["assistant"])]
    content: str | None
    refusal: str | None
    tool_calls: NotRequired[list[AnsweredToolCall] | None]
    reasoning_content: NotRequired[
        Annotated[str | None, Field(description="The model's reasoning, if the provider sends it.")]
    ]
    thinking_blocks: NotRequired[list[ThinkingBlock] | None]


FinishReason = Annotated[
    str, Field(examples=["stop", "length", "tool_calls", "content_filter", "function_call"])
]


class TokenLogprob(TypedDict):
    token: str
    logprob: float
    bytes: NotRequired[list[int] | None]
    top_logprobs: NotRequired[list[dict[str, Any]]]


class Logprobs(TypedDict):
    content: NotRequired[list[TokenLogprob] | None]
    refusal: NotRequired[list[TokenLogprob] | None]


class CompletionChoice(TypedDict):
    index: Count
    message: AnsweredMessage
    logprobs: Logprobs | None
    finish_reason: FinishReason
    native_finish_reason: NotRequired[
        Annotated[str | None, Field(description="The provider's own finish reason.")]
    ]
    stop_sequence: NotRequired[str | None]


class ChatCompletion(TypedDict):
    """A chat completion."""

    id: Annotated[str, Field(examples=["chatcmpl-0123456789abcdef0123456789abcdef"])]
    object: Literal["chat.completion"]
    created: Created
    model: Annotated[str, Field(description="The name of the model at its provider.")]
    choices: list[CompletionChoice]
    usage: NotRequired[Usage]
    service_tier: NotRequired[str | None]
    system_fingerprint: NotRequired[str | None]


class FunctionDelta(TypedDict, total=False):
    name: str | None
    arguments: str | None


class ToolCallDelta(TypedDict):
    """A piece of a tool call; `id`, `type` and the function's name come with its first one."""

    index: Count
    id: NotRequired[str | None]
    type: NotRequired[str | None]
    function: NotRequired[FunctionDelta | None]


class Delta(TypedDict, total=False):
    """The addition of a chunk to the message; the first chunk has `role`."""

    role: str | None
    content: str | None
    refusal: str | None
    tool_calls: list[ToolCallDelta] | None
    reasoning_content: str | None
    thinking_blocks: list[ThinkingBlock] | None


class ChunkChoice(TypedDict):
    index: Count
    delta: Delta
    logprobs: NotRequired[Logprobs | None]
    finish_reason: Annotated[FinishReason | None, Field(description="Null until the end.")]
    native_finish_reason: NotRequired[str | None]
    stop_sequence: NotRequired[str | None]


class ChatCompletionChunk(TypedDict):
    """The data of one event of a stream; after the last one comes `data: [DONE]`."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: Created
    model: str
    choices: list[ChunkChoice]
    usage: NotRequired[
        Annotated[
            Usage | None,
            Field(description="Only if `stream_options` asks; null in all chunks but the last."),
        ]
    ]
    service_tier: NotRequired[str | None]
    system_fingerprint: NotRequired[str | None]
