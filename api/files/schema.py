"""The fields of an upload besides the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, WithJsonSchema
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.schemas.check import check
from api.schemas.errors import invalid, invalid_request
from api.schemas.fields import Whole

LEAST_SECONDS, MOST_SECONDS = 3_600, 30 * 86_400
EXPIRES_SECONDS = "expires_after[seconds]"
Seconds = Annotated[int, Field(ge=LEAST_SECONDS, le=MOST_SECONDS), Whole]

# Two fields have brackets in their names.
NewFile = TypedDict(
    "NewFile",
    {
        "file": Annotated[
            str,
            WithJsonSchema({"type": "string", "contentMediaType": "application/octet-stream"}),
        ],
        "purpose": Literal["batch"],
        "expires_after[anchor]": NotRequired[Literal["created_at"]],
        "expires_after[seconds]": NotRequired[Seconds],
    },
)
NewFile.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]
NEW_FILE = TypeAdapter(NewFile)


def lifetime(fields: Mapping[str, str]) -> int | None:
    """How long the file of these checked fields lives, in seconds; None: as long as by default.

    Raises InvalidRequest for a wrong field.
    """
    values: dict[str, object] = dict(fields)
    text = fields.get(EXPIRES_SECONDS)
    if text is not None:
        if not (text.isascii() and text.isdecimal() and len(text) < 16):
            raise invalid("wrong.type", EXPIRES_SECONDS, text, expected="an integer")
        values[EXPIRES_SECONDS] = int(text)
    check(NEW_FILE, {"file": "", **values}, invalid_request)
    seconds = values.get(EXPIRES_SECONDS)
    return seconds if isinstance(seconds, int) else None
