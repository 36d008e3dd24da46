"""The shapes of Anthropic's message batches, for the OpenAPI document alone."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.schemas.response_schema import Count

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class MessageBatchRequest(TypedDict):
    """One request: `params` are those of a message."""

    custom_id: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,64}$")]
    params: dict[str, Any]


class NewMessageBatch(TypedDict):
    """A new batch of messages."""

    requests: Annotated[list[MessageBatchRequest], Field(min_length=1, max_length=100_000)]


NEW_MESSAGE_BATCH = TypeAdapter(NewMessageBatch)


class MessageBatchCounts(TypedDict):
    """What became of the requests. Until the batch has ended, all are processing."""

    processing: Count
    succeeded: Count
    errored: Count
    canceled: Count
    expired: Count


class MessageBatch(TypedDict):
    """A batch of messages."""

    id: Annotated[str, Field(examples=["msgbatch_0123456789abcdef0123456789abcdef"])]
    type: Literal["message_batch"]
    processing_status: Literal["in_progress", "canceling", "ended"]
    request_counts: MessageBatchCounts
    created_at: Time
    expires_at: Time
    ended_at: Time | None
    cancel_initiated_at: Time | None
    archived_at: None
    results_url: Annotated[str | None, Field(description="Null until the batch has ended.")]


class MessageBatchList(TypedDict):
    """A page of batches, the latest first."""

    data: list[MessageBatch]
    first_id: str | None
    last_id: str | None
    has_more: bool


class MessageBatchDeleted(TypedDict):
    """A batch that was deleted."""

    id: str
    type: Literal["message_batch_deleted"]
