"""The shape of OpenAI's requests for batches."""

from __future__ import annotations

from typing import Annotated, Literal, Required

from pydantic import ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.batches.validation import PATHS
from api.files.schema import Seconds
from api.schemas.fields import Metadata

STRICT = ConfigDict(extra="forbid")


class ExpiresAfter(TypedDict):
    """When the files that a batch writes expire, from their creation on."""

    __pydantic_config__ = STRICT  # type: ignore[misc]

    anchor: Literal["created_at"]
    seconds: Seconds


class NewBatch(TypedDict, total=False):
    """A new batch. Each line of its input is a request to `endpoint`."""

    __pydantic_config__ = STRICT  # type: ignore[misc]

    input_file_id: Required[Annotated[str, Field(min_length=1, max_length=64)]]
    endpoint: Required[Literal[tuple(PATHS)]]  # type: ignore[valid-type]
    completion_window: Required[Literal["24h"]]
    metadata: Metadata | None
    output_expires_after: ExpiresAfter | None


NEW_BATCH = TypeAdapter(NewBatch)
