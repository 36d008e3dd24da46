"""Building blocks of request shapes: bounded numbers and texts, and discriminators of unions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, LiteralString, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.schemas.errors import TAG
from api.schemas.urls import is_file_data, is_image_url, is_media_url, is_web_url

MAX_TOKENS = 2**31 - 1
INT64 = 2**63

OTHER = f"{TAG}other"
TAGS_BY_TYPE: dict[type, str] = {str: "=text", list: "=items", dict: "=object"}


class Choice(Discriminator):
    """A discriminator that can be part of a union of types, which hashes its members."""

    __hash__ = object.__hash__  # the inherited one fails: it hashes a dict


def one_of(key: str, *names: str) -> Choice:
    """Selects the member of a union by the value of this key of an object."""

    def choose(value: Any) -> str | None:
        name = value.get(key) if isinstance(value, dict) else None
        return TAG + name if isinstance(name, str) else None

    facts = {"key": key, "expected": ", ".join(f"'{name}'" for name in names)}
    return Choice(choose, "wrong.member", "wrong {key}", {**facts})


def either(expected: str) -> Choice:
    """Selects the member of a union by the type of the value: string, array or object."""

    def choose(value: Any) -> str | None:
        return TAGS_BY_TYPE.get(type(value))

    facts = {"expected": f"one of {expected}"}
    return Choice(choose, "wrong.type", "expected {expected}", {**facts})


class OtherType(TypedDict):
    """Something of another type. It is left out, and `X-Ignored-Parameters` names its type."""

    type: str


def typed(*types: str) -> Choice:
    """Selects the member of a union by `type`; the one with the tag OTHER is for unknown types."""

    def choose(value: Any) -> str | None:
        kind = value.get("type") if isinstance(value, dict) else None
        if not isinstance(kind, str):
            return None
        return TAG + kind if kind in types else OTHER

    facts = {"key": "type", "expected": ", ".join(f"'{kind}'" for kind in types)}
    return Choice(choose, "wrong.member", "wrong {key}", {**facts})


def checked(kind: LiteralString, reason: str, holds: Callable[[Any], bool]) -> AfterValidator:
    def check(value: Any) -> Any:
        if not holds(value):
            raise PydanticCustomError(kind, "{reason}", {"reason": reason})
        return value

    return AfterValidator(check)


def _restore_integer(value: Any) -> Any:
    """Undo the JSON parser's conversion of integers beyond 64 bits to floats.

    The error is then that they are too large, not that they are decimals.
    """
    huge = type(value) is float and abs(value) >= INT64 and value.is_integer()
    # The first ones below the range are rounded to its end.
    return min(int(value), -INT64 - 1) if huge and value < 0 else int(value) if huge else value


def _is_metadata(metadata: dict[str, Any]) -> bool:
    return len(metadata) <= 16 and all(
        len(key) <= 64 and isinstance(value, str) and len(value) <= 512
        for key, value in metadata.items()
    )


def _is_logit_bias(biases: dict[str, Any]) -> bool:
    return len(biases) <= 300 and all(
        type(bias) in (int, float) and -100 <= bias <= 100 for bias in biases.values()
    )


Whole = BeforeValidator(_restore_integer)
TokenLimit = Annotated[int, Field(ge=1, le=MAX_TOKENS), Whole]
Choices = Annotated[int, Field(ge=1, le=128), Whole]
TopLogprobs = Annotated[int, Field(ge=0, le=20), Whole]
Seed = Annotated[int, Field(ge=-INT64, le=INT64 - 1), Whole]
Temperature = Annotated[float, Field(ge=0, le=2)]
Probability = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
FunctionName = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,64}$")]
ToolName = Annotated[str, Field(min_length=1, max_length=256)]  # see workers/tool_names.py
SpeakerName = Annotated[str, Field(max_length=64)]
Label = Annotated[str, Field(max_length=512)]
ModelName = Annotated[
    str,
    Field(min_length=1, max_length=256),
    checked("wrong.value", "expected no control characters", str.isprintable),
]
JsonSchema: TypeAlias = dict[str, Any]
Metadata = Annotated[
    dict[str, Any],
    checked(
        "wrong.value",
        "expected at most 16 keys of at most 64 characters, with strings of at most 512 characters",
        _is_metadata,
    ),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": 16,
            "propertyNames": {"maxLength": 64},
            "additionalProperties": {"type": "string", "maxLength": 512},
        }
    ),
]
LogitBias = Annotated[
    dict[str, Any],
    checked(
        "wrong.value",
        "expected at most 300 tokens, each with a number from -100 to 100",
        _is_logit_bias,
    ),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": 300,
            "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        }
    ),
]
ImageAddress = Annotated[
    str,
    checked(
        "wrong.image_url",
        "expected an http or https URL of a public host, or a base64 data URL of an image",
        is_image_url,
    ),
]
MediaAddress = Annotated[
    str,
    checked(
        "wrong.value",
        "expected an http or https URL of a public host, or a base64 data URL of audio or video",
        is_media_url,
    ),
]
PUBLIC = "expected an http or https URL of a public host"
WebAddress = Annotated[str, checked("wrong.value", PUBLIC, is_web_url)]
FileData = Annotated[
    str, checked("wrong.value", "expected base64 data or a URL of a public host", is_file_data)
]
