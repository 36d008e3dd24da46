"""The shapes of calls and usage, for the OpenAPI document alone."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.schemas.response_schema import Count

Time = Annotated[str, Field(description="ISO 8601, UTC.", examples=["2026-11-26T20:43:02.000Z"])]
Usd = Annotated[float, Field(description="In USD.")]
Milliseconds = Annotated[int, Field(ge=0, description="In milliseconds.")]
UnixTime = Annotated[int, Field(description="Unix time, in seconds.")]


class ProviderResponse(TypedDict):
    """One attempt at a provider."""

    provider_name: str | None
    model: str | None
    status: Annotated[int | None, Field(description="The HTTP status; null: no response.")]
    latency: Milliseconds | None
    error: Annotated[str | None, Field(description="Code of the error; null: it succeeded.")]


class Generation(TypedDict):
    """A call. What is not known, or not yet, is null."""

    id: str
    status: Annotated[
        Literal["queued", "running", "settling", "completed", "failed", "cancelled", "lost"],
        Field(description="`settling`: the call has ended, and its record is being written."),
    ]
    kind: Annotated[str, Field(examples=["chat"])]
    created_at: Time | None
    settled_at: Time | None
    key_id: Annotated[str, Field(description="The public id of the API key.")]
    owner: str | None
    request_id: str | None
    upstream_id: Annotated[str | None, Field(description="The provider's id of the response.")]
    model: Annotated[str | None, Field(description="The model that answered.")]
    model_requested: str | None
    provider_name: str | None
    upstream_model: str | None
    streamed: bool
    cancelled: Annotated[bool, Field(description="Whether the client left before the end.")]
    error_code: str | None
    finish_reason: str | None
    native_finish_reason: str | None
    latency: Annotated[Milliseconds | None, Field(description="From the request to the end.")]
    queued_ms: Milliseconds | None
    time_to_first_token: Milliseconds | None
    generation_time: Milliseconds | None
    tokens_prompt: Annotated[Count | None, Field(description="Cached tokens included.")]
    tokens_completion: Count | None
    native_tokens_prompt: Count | None
    native_tokens_completion: Count | None
    native_tokens_cached: Annotated[Count | None, Field(description="Read from a cache.")]
    native_tokens_cache_write: Count | None
    native_tokens_reasoning: Count | None
    usage_source: Annotated[
        Literal["provider", "estimated", "none"], Field(description="Who counted the tokens.")
    ]
    usage: Annotated[Usd | None, Field(description="The same as `total_cost`.")]
    total_cost: Usd | None
    saved: Annotated[Usd | None, Field(description="What a cached answer has saved, in USD.")]
    prices: Annotated[
        dict[str, Any] | None,
        Field(description="The prices of the tokens and their version; null: unknown, cost 0."),
    ]
    reserved: Annotated[Usd, Field(description="What the call had reserved, in USD.")]
    reserved_tokens: Count
    provider_responses: list[ProviderResponse]
    priority: str | None
    deadline: Time | None
    worker: str | None
    user_agent: str | None
    service_tier: str | None
    cache_hit: bool
    batch_id: str | None
    correction: Annotated[bool, Field(description="Whether an operator made it, and not a call.")]
    note: str | None
    response: NotRequired[
        Annotated[
            dict[str, Any] | None,
            Field(description="The body of the response, if it is kept and was not streamed."),
        ]
    ]
    error: NotRequired[
        Annotated[dict[str, Any] | None, Field(description="Why it failed, if that is kept.")]
    ]


class AcceptedCall(TypedDict):
    """A call that goes on while its caller does something else."""

    id: str
    status: Literal["queued"]
    location: Annotated[str, Field(description="Where its response will be.")]


class Accepted(TypedDict):
    data: AcceptedCall


class GenerationData(TypedDict):
    data: Generation


class GenerationList(TypedDict):
    """A page of calls, the latest settled first."""

    object: Literal["list"]
    data: list[Generation]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Grouped(TypedDict):
    """What a result was grouped by; null: it was not."""

    api_key_id: str | None
    model: str | None
    owner: str | None
    project_id: Annotated[str | None, Field(description="The owner, under OpenAI's name.")]
    kind: str | None


class UsageResult(Grouped):
    """The usage of one group in one bucket."""

    object: Literal["organization.usage.completions.result"]
    input_tokens: Annotated[Count, Field(description="Cached tokens and cache writes included.")]
    input_cached_tokens: Count
    input_cache_write_tokens: Count
    input_uncached_tokens: Count
    output_tokens: Count
    output_reasoning_tokens: Annotated[Count, Field(description="Part of `output_tokens`.")]
    input_audio_tokens: Count
    output_audio_tokens: Count
    num_model_requests: Count
    cost: Usd
    saved: Usd


class EmbeddingsResult(Grouped):
    """The usage of embedding models by one group in one bucket."""

    object: Literal["organization.usage.embeddings.result"]
    input_tokens: Count
    num_model_requests: Count
    cost: Usd


class Amount(TypedDict):
    value: float
    currency: Literal["usd"]


class CostsResult(TypedDict):
    """The costs of one group in one day."""

    object: Literal["organization.costs.result"]
    amount: Amount
    api_key_id: str | None
    line_item: Annotated[str | None, Field(description="The model.")]
    project_id: Annotated[str | None, Field(description="The owner, under OpenAI's name.")]


class Bucket(TypedDict):
    object: Literal["bucket"]
    start_time: UnixTime
    end_time: UnixTime


class UsageBucket(Bucket):
    results: list[UsageResult]


class EmbeddingsBucket(Bucket):
    results: list[EmbeddingsResult]


class CostsBucket(Bucket):
    results: list[CostsResult]


class Paged(TypedDict):
    object: Literal["page"]
    has_more: bool
    next_page: str | None


class UsagePage(Paged):
    """The buckets of a period, in the order of time; those without usage have no results."""

    data: list[UsageBucket]


class EmbeddingsUsagePage(Paged):
    """The buckets of a period, in the order of time; those without usage have no results."""

    data: list[EmbeddingsBucket]


class CostsPage(Paged):
    """The days of a period, in the order of time; those without usage have no results."""

    data: list[CostsBucket]
