"""The shape of Anthropic's Messages responses, for the OpenAPI document alone.

From Anthropic's API reference: "Messages" and "Streaming messages".
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.schemas.response_schema import Count


class MessagesErrorCode(TypedDict):
    error_code: Annotated[str, Field(examples=["thread_unsupported_request"])]


class MessagesErrorDetails(TypedDict):
    type: Annotated[str, Field(examples=["invalid_request_error"])]
    message: str
    details: NotRequired[MessagesErrorCode]


class MessagesError(TypedDict):
    """Anthropic's error object."""

    type: Literal["error"]
    error: MessagesErrorDetails
    request_id: NotRequired[str | None]


class TokenCount(TypedDict):
    """The tokens of a prompt."""

    input_tokens: Count


class TextBlock(TypedDict):
    type: Literal["text"]
    text: str


class SignedThinkingBlock(TypedDict):
    """The model's reasoning. Send it back unchanged with a tool's result."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class RedactedThinkingBlock(TypedDict):
    type: Literal["redacted_thinking"]
    data: str


class ToolUseBlock(TypedDict):
    """A tool call of the model."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


ContentBlock = TextBlock | SignedThinkingBlock | RedactedThinkingBlock | ToolUseBlock

StopReason = Annotated[
    str,
    Field(examples=["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]),
]


class ThinkingTokens(TypedDict):
    thinking_tokens: Count


class MessageUsage(TypedDict):
    """Tokens of one call. Unlike OpenAI's, `input_tokens` excludes cached tokens."""

    input_tokens: Count
    output_tokens: Count
    cache_creation_input_tokens: NotRequired[Count | None]
    cache_read_input_tokens: NotRequired[Count | None]
    cache_creation: NotRequired[dict[str, Any]]
    output_tokens_details: NotRequired[ThinkingTokens]


class Message(TypedDict):
    """A message, complete."""

    id: Annotated[str, Field(examples=["msg_0123456789abcdef0123456789abcdef"])]
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[ContentBlock]
    stop_reason: Annotated[StopReason | None, Field(description="Null in a stream's first event.")]
    stop_sequence: str | None
    stop_details: NotRequired[dict[str, Any]]
    usage: MessageUsage


class MessageStart(TypedDict):
    type: Literal["message_start"]
    message: Message


class ContentBlockStart(TypedDict):
    type: Literal["content_block_start"]
    index: Count
    content_block: ContentBlock


class TextDelta(TypedDict):
    type: Literal["text_delta"]
    text: str


class InputJsonDelta(TypedDict):
    type: Literal["input_json_delta"]
    partial_json: str


class ThinkingDelta(TypedDict):
    type: Literal["thinking_delta"]
    thinking: str


class SignatureDelta(TypedDict):
    type: Literal["signature_delta"]
    signature: str


class ContentBlockDelta(TypedDict):
    type: Literal["content_block_delta"]
    index: Count
    delta: TextDelta | InputJsonDelta | ThinkingDelta | SignatureDelta


class ContentBlockStop(TypedDict):
    type: Literal["content_block_stop"]
    index: Count


class MessageEnd(TypedDict):
    stop_reason: StopReason | None
    stop_sequence: str | None
    stop_details: NotRequired[dict[str, Any]]


class MessageDelta(TypedDict):
    type: Literal["message_delta"]
    delta: MessageEnd
    usage: Annotated[MessageUsage, Field(description="Of the whole call.")]


class MessageStop(TypedDict):
    type: Literal["message_stop"]


class Ping(TypedDict):
    type: Literal["ping"]


MessageEvent = (
    MessageStart
    | ContentBlockStart
    | ContentBlockDelta
    | ContentBlockStop
    | MessageDelta
    | MessageStop
    | Ping
    | MessagesError
)
