"""The shapes of waiting calls, pauses and workers, for the OpenAPI document alone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.schemas.response_schema import Count

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class WaitingCall(TypedDict):
    """A call that waits. Its request is not shown."""

    id: str
    reason: Annotated[
        Literal["in_line", "limit", "paused", "scheduled"],
        Field(description="Why it waits: `limit` is a key's or an owner's calls in flight."),
    ]
    position: Annotated[
        Count | None,
        Field(description="From 1: in the queue, or among such calls of its key for `limit`."),
    ]
    pause: Annotated[str | None, Field(examples=["model:openai/gpt-4o-mini"])]
    starts_at: Time | None
    waiting_since: Time | None
    waiting_seconds: Annotated[float, Field(ge=0)]
    deadline_at: Time | None
    api_key_id: str
    owner: str | None
    model: str
    model_requested: str | None
    provider_name: str | None
    kind: str
    streamed: bool
    priority: str | None
    request_id: str | None
    bytes: Annotated[Count, Field(description="Of its request.")]
    cursor: Annotated[str, Field(description="For `after`: the page behind this call.")]


class Pause(TypedDict):
    """A key, a model or a provider whose calls wait."""

    pause: Annotated[str, Field(examples=["model:openai/gpt-4o-mini"])]
    kind: Literal["key", "model", "provider"]
    id: str
    since: Time | None
    by: Annotated[str, Field(description="Public id of an operator key, or another name.")]
    held: Annotated[Count, Field(description="Calls that workers have passed over.")]


class Counts(TypedDict):
    """How many calls wait, by reason. Calls in line that are paused count as in line."""

    in_line: Count
    limit: Count
    paused: Count
    scheduled: Count


class QueuePage(TypedDict):
    """Calls that wait: those in line in their order, then the others by their deadlines."""

    data: list[WaitingCall]
    has_more: bool
    counts: Counts
    pauses: list[Pause]


class Moved(TypedDict):
    """It was moved."""

    moved: Literal[True]


class Cancelled(TypedDict):
    """It was cancelled."""

    cancelled: Literal[True]


class PauseResponse(TypedDict):
    """A pause."""

    data: Pause


class Resumed(TypedDict):
    """Whether there was such a pause."""

    resumed: bool


class Worker(TypedDict):
    """A worker process that lives."""

    name: str
    slots: Annotated[Count, Field(description="Calls that it runs at once.")]
    running: Count
    release: Annotated[str, Field(description="Its `RELEASE`.")]
    host: str
    pid: Count
    started_at: str | None
    draining: Annotated[bool, Field(description="Whether it is to take no calls.")]
    drained: Annotated[bool, Field(description="Whether it takes and runs none.")]


class WorkerList(TypedDict):
    """The workers that live, by name."""

    data: list[Worker]


class Drained(TypedDict):
    """Whether the worker is to take no calls."""

    draining: bool
