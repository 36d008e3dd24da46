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

    `degraded`: they can, and the records of ended calls wait for the database.
    """

    status: Literal["ok", "degraded", "unavailable"]
    redis: Literal["ok", "unavailable"]
    workers: Annotated[int, Field(ge=0)]
    draining: bool
    records_waiting: Annotated[int, Field(ge=0)]
    records_lag_seconds: Annotated[float, Field(ge=0)]
