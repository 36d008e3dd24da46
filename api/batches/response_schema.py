"""The shapes of OpenAI's batches, for the OpenAPI document alone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.schemas.response_schema import Count

UnixTime = Annotated[int, Field(description="Unix time, in seconds.")]


class BatchError(TypedDict):
    """Why a batch cannot run. `line` is null if no line is to blame."""

    code: Annotated[str, Field(examples=["invalid_json_line"])]
    line: int | None
    message: str
    param: str | None


class BatchErrors(TypedDict):
    """Why a batch cannot run; at most 50 reasons."""

    object: Literal["list"]
    data: list[BatchError]


class RequestCounts(TypedDict):
    """The requests of a batch, and those that have ended: with the status 200 or another one."""

    total: Count
    completed: Count
    failed: Count


class InputDetails(TypedDict):
    """The tokens of the input that came from a provider's cache."""

    cached_tokens: Count


class OutputDetails(TypedDict):
    """The tokens of the output that no caller sees."""

    reasoning_tokens: Count


class BatchUsage(TypedDict):
    """What the completed requests used."""

    input_tokens: Count
    input_tokens_details: InputDetails
    output_tokens: Count
    output_tokens_details: OutputDetails
    total_tokens: Count


class Batch(TypedDict):
    """A batch. What is not known, or not yet, is null."""

    id: Annotated[str, Field(examples=["batch_0123456789abcdef0123456789abcdef"])]
    object: Literal["batch"]
    endpoint: str
    model: Annotated[str | None, Field(description="Null: several models.")]
    errors: BatchErrors | None
    input_file_id: str
    completion_window: Literal["24h"]
    status: Literal[
        "validating",
        "failed",
        "in_progress",
        "finalizing",
        "completed",
        "expired",
        "cancelling",
        "cancelled",
    ]
    output_file_id: Annotated[str | None, Field(description="Null: no request succeeded.")]
    error_file_id: Annotated[str | None, Field(description="Null: no request failed.")]
    created_at: UnixTime
    in_progress_at: UnixTime | None
    expires_at: UnixTime
    finalizing_at: UnixTime | None
    completed_at: UnixTime | None
    failed_at: UnixTime | None
    expired_at: UnixTime | None
    cancelling_at: UnixTime | None
    cancelled_at: UnixTime | None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None


class BatchList(TypedDict):
    """A page of batches."""

    object: Literal["list"]
    data: list[Batch]
    first_id: str | None
    last_id: str | None
    has_more: bool
