"""The shapes of health and readiness, for the OpenAPI document alone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12


class Health(TypedDict):
    """Whether the web process can serve; `unavailable`: restart it."""

    status: Literal["ok", "unavailable"]
    service: Annotated[str, Field(examples=["inference-service"])]
    version: Annotated[str, Field(examples=["1.0.0"])]


class Readiness(TypedDict):
    """Whether calls can be answered: Redis answers, workers live, nothing is shutting down.

    `degraded`: they can, and `reasons` says what should be looked at.
    """

    status: Literal["ok", "degraded", "unavailable"]
    reasons: list[
        Literal[
            "redis_away",
            "no_workers",
            "draining",
            "records_backlog",
            "queue_backlog",
            "redis_memory",
            "redis_memory_logs",
        ]
    ]
    redis: Literal["ok", "unavailable"]
    workers: Annotated[int, Field(ge=0)]
    draining: bool
    calls_waiting: Annotated[int, Field(ge=0)]
    longest_wait_seconds: Annotated[float, Field(ge=0)]
    redis_memory_share: Annotated[float, Field(ge=0, description="Of maxmemory; 0: no limit.")]
    records_waiting: Annotated[int, Field(ge=0)]
    records_lag_seconds: Annotated[float, Field(ge=0)]
