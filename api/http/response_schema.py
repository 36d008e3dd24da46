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
    """Whether calls can be answered: Redis answers, workers live, nothing is shutting down."""

    status: Literal["ok", "unavailable"]
    redis: Literal["ok", "unavailable"]
    workers: Annotated[int, Field(ge=0)]
    draining: bool
