"""What the response shapes of several APIs share, for the OpenAPI document alone.

Clients must accept further keys, since a provider's own are passed on. The `response_schema`
modules are imported when the document is first requested, so that a process without such a request
does not hold them.
"""

from __future__ import annotations

from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

Count = Annotated[int, Field(ge=0)]
Created = Annotated[int, Field(description="Unix time, in seconds.")]


class ErrorDetails(TypedDict):
    """OpenAI's error object: its four keys are always there."""

    message: str
    type: Annotated[str, Field(examples=["invalid_request_error"])]
    param: Annotated[str | None, Field(description="Path of the wrong value in the request.")]
    code: Annotated[str | None, Field(examples=["model_not_found"])]
    request_id: NotRequired[Annotated[str, Field(description="As in the header X-Request-Id.")]]


class Error(TypedDict):
    """Why a call failed."""

    error: ErrorDetails
