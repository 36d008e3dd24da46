"""The shape of OpenAI's Responses API's responses, for the OpenAPI document alone.

From OpenAI's API reference: "Responses" and "Streaming events".
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.chat.response_schema import TokenLogprob
from api.schemas.response_schema import Count, Created, ErrorDetails

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputText(TypedDict):
    type: Literal["output_text"]
    text: str
    annotations: list[dict[str, Any]]
    logprobs: NotRequired[list[TokenLogprob] | None]


class OutputRefusal(TypedDict):
    type: Literal["refusal"]
    refusal: str


OutputPart = OutputText | OutputRefusal


class OutputMessage(TypedDict):
    """A message of the model."""

    type: Literal["message"]
    id: str
    role: Literal["assistant"]
    status: ItemStatus
    content: list[OutputPart]


class OutputFunctionCall(TypedDict):
    """A function call of the model. Send its result with its `call_id`."""

    type: Literal["function_call"]
    id: NotRequired[str | None]
    call_id: str
    name: str
    namespace: NotRequired[Annotated[str, Field(description="That of the tool, if it has one.")]]
    arguments: Annotated[str, Field(description="JSON, as the model wrote it.")]
    status: NotRequired[ItemStatus | None]


class OutputCustomCall(TypedDict):
    """A custom tool call of the model. Send its result with its `call_id`."""

    type: Literal["custom_tool_call"]
    id: NotRequired[str | None]
    call_id: str
    name: str
    namespace: NotRequired[Annotated[str, Field(description="That of the tool, if it has one.")]]
    input: str
    status: NotRequired[ItemStatus | None]


class SummaryText(TypedDict):
    type: Literal["summary_text"]
    text: str


class OutputReasoning(TypedDict):
    """The model's reasoning. Send it back unchanged with a tool's result."""

    type: Literal["reasoning"]
    id: str
    summary: list[SummaryText]
    content: NotRequired[list[dict[str, Any]] | None]
    encrypted_content: NotRequired[str | None]
    status: NotRequired[ItemStatus | None]


OutputItem = OutputMessage | OutputFunctionCall | OutputCustomCall | OutputReasoning


class ResponseErrorDetails(TypedDict):
    code: str | None
    message: str


class IncompleteDetails(TypedDict):
    reason: Annotated[str, Field(examples=["max_output_tokens", "content_filter"])]


class InputTokensDetails(TypedDict):
    cached_tokens: Count
    cache_write_tokens: NotRequired[Count]


class OutputTokensDetails(TypedDict):
    reasoning_tokens: Count


class ResponseUsage(TypedDict):
    """Tokens of one call, as the provider counted them."""

    input_tokens: Count
    input_tokens_details: InputTokensDetails
    output_tokens: Count
    output_tokens_details: OutputTokensDetails
    total_tokens: Count


class Response(TypedDict):
    """A response of OpenAI's Responses API."""

    id: Annotated[str, Field(examples=["resp_0123456789abcdef0123456789abcdef"])]
    object: Literal["response"]
    created_at: Created
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    model: str
    output: list[OutputItem]
    error: ResponseErrorDetails | None
    incomplete_details: IncompleteDetails | None
    usage: ResponseUsage | None
    instructions: str | list[dict[str, Any]] | None
    metadata: dict[str, Any] | None
    parallel_tool_calls: bool
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    temperature: float | None
    top_p: float | None
    max_output_tokens: int | None
    reasoning: dict[str, Any] | None
    text: dict[str, Any]
    store: bool
    background: NotRequired[bool]
    completed_at: NotRequired[Created | None]
    max_tool_calls: NotRequired[int | None]
    previous_response_id: NotRequired[str | None]
    prompt_cache_key: NotRequired[str | None]
    prompt_cache_retention: NotRequired[str | None]
    safety_identifier: NotRequired[str | None]
    service_tier: NotRequired[str | None]
    top_logprobs: NotRequired[int | None]
    truncation: NotRequired[str | None]
    user: NotRequired[str | None]


class ResponseDeleted(TypedDict):
    """A response that is no longer kept."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class InputItemList(TypedDict):
    """Items of the input of a response."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class InputTokens(TypedDict):
    """The tokens that the input of a response has."""

    object: Literal["response.input_tokens"]
    input_tokens: Count


class ResponseSnapshot(TypedDict):
    """The response so far: at the beginning, and complete at the end."""

    type: Literal[
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    sequence_number: Count
    response: Response


class OutputItemEvent(TypedDict):
    """An output item begins or ends."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    sequence_number: Count
    output_index: Count
    item: OutputItem


class OutputProgress(TypedDict):
    """A part of an output item begins, grows or ends; `type` says which."""

    type: Literal[
        "response.content_part.added",
        "response.content_part.done",
        "response.output_text.delta",
        "response.output_text.done",
        "response.refusal.delta",
        "response.refusal.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.custom_tool_call_input.delta",
        "response.custom_tool_call_input.done",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_part.done",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
    ]
    sequence_number: Count
    item_id: str
    output_index: Count
    content_index: NotRequired[Count]
    summary_index: NotRequired[Count]
    delta: NotRequired[str]
    text: NotRequired[str]
    refusal: NotRequired[str]
    name: NotRequired[str]
    arguments: NotRequired[str]
    input: NotRequired[str]
    part: NotRequired[dict[str, Any]]
    logprobs: NotRequired[list[TokenLogprob]]


class ResponseErrorEvent(TypedDict):
    """The stream failed. The error is there twice, since clients read one or the other."""

    type: Literal["error"]
    sequence_number: Count
    code: str | None
    message: str
    param: str | None
    error: ErrorDetails


ResponseEvent = ResponseSnapshot | OutputItemEvent | OutputProgress | ResponseErrorEvent
