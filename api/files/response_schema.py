"""The shapes of files, for the OpenAPI document alone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.schemas.response_schema import Count

UnixTime = Annotated[int, Field(description="Unix time, in seconds.")]


class File(TypedDict):
    """A file of the caller, or one that a batch has written."""

    id: Annotated[str, Field(examples=["file-0123456789abcdef0123456789abcdef"])]
    object: Literal["file"]
    bytes: Count
    created_at: UnixTime
    expires_at: UnixTime
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"]
    status_details: None


class FileList(TypedDict):
    """A page of files."""

    object: Literal["list"]
    data: list[File]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(TypedDict):
    """A file that was deleted."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]
