"""The bodies of requests that steer the queue."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

Id = Annotated[str, Field(min_length=1, max_length=256)]


class PauseRequest(TypedDict, total=False):
    """What is paused, or no longer: exactly one of a key (by its public id), model or provider."""

    __pydantic_config__ = ConfigDict(  # type: ignore[misc]
        extra="forbid", json_schema_extra={"minProperties": 1, "maxProperties": 1}
    )

    key: Id
    model: Id
    provider: Id


PAUSE = TypeAdapter(PauseRequest)
