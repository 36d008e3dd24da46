"""The shape of content blocks in requests, as Anthropic's Messages API documents them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, Tag
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.chat.messages_schema import Text
from api.schemas.errors import TAG
from api.schemas.fields import Choice, ImageAddress, WebAddress, either, one_of

NonEmpty = Field(min_length=1, fail_fast=True)
FailFast = Field(fail_fast=True)
# Only the first character is checked: scanning a whole image is slow.
Base64 = Annotated[str, Field(pattern="^[A-Za-z0-9+/_-]")]


def known_or_other(*names: str) -> Choice:
    """Selects the member of a union by the `type` of an object; "other" if it is none of these."""

    def choose(value: Any) -> str | None:
        kind = value.get("type") if isinstance(value, dict) else None
        return TAG + (kind if kind in names else "other") if isinstance(kind, str) else None

    expected = ", ".join(f"'{name}'" for name in names)
    return Choice(choose, "wrong.member", "wrong {key}", {"key": "type", "expected": expected})


class CacheControl(TypedDict):
    """The end of a cached part of the prompt. Other types and TTLs than these have no effect."""

    type: Literal["ephemeral"] | str
    ttl: NotRequired[Literal["5m", "1h"] | str | None]


class OtherBlock(TypedDict):
    """A block of a type that is not listed: it becomes text, or is left out."""

    type: str


class TextBlock(TypedDict):
    type: Literal["text"]
    text: str
    cache_control: NotRequired[CacheControl | None]


class Base64Image(TypedDict):
    type: Literal["base64"]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: Base64


class WebImage(TypedDict):
    type: Literal["url"]
    url: ImageAddress


class ImageBlock(TypedDict):
    type: Literal["image"]
    source: Annotated[
        Annotated[Base64Image, Tag("=base64")] | Annotated[WebImage, Tag("=url")],
        one_of("type", "base64", "url"),
    ]
    cache_control: NotRequired[CacheControl | None]


class Base64Pdf(TypedDict):
    type: Literal["base64"]
    media_type: Literal["application/pdf"]
    data: Base64


class PlainText(TypedDict):
    type: Literal["text"]
    media_type: Literal["text/plain"]
    data: str


class WebDocument(TypedDict):
    type: Literal["url"]
    url: WebAddress


DOCUMENT_PART = one_of("type", "text", "image")


class Custom(TypedDict):
    type: Literal["content"]
    content: Annotated[
        Text
        | Annotated[
            list[
                Annotated[
                    Annotated[TextBlock, Tag("=text")] | Annotated[ImageBlock, Tag("=image")],
                    DOCUMENT_PART,
                ]
            ],
            FailFast,
            Tag("=items"),
        ],
        either("a string or array of objects"),
    ]


class Citations(TypedDict, total=False):
    enabled: bool | None


class DocumentBlock(TypedDict):
    type: Literal["document"]
    source: Annotated[
        Annotated[Base64Pdf, Tag("=base64")]
        | Annotated[PlainText, Tag("=text")]
        | Annotated[Custom, Tag("=content")]
        | Annotated[WebDocument, Tag("=url")],
        one_of("type", "base64", "text", "content", "url"),
    ]
    title: NotRequired[str | None]
    context: NotRequired[str | None]
    citations: NotRequired[Citations | None]
    cache_control: NotRequired[CacheControl | None]


class ToolUseBlock(TypedDict):
    """A tool call. Ids may hold any characters: some providers use more than Anthropic does."""

    type: Literal["tool_use"]
    id: Annotated[str, Field(min_length=1)]
    name: Annotated[str, Field(min_length=1, max_length=200)]
    input: NotRequired[dict[str, Any] | None]
    cache_control: NotRequired[CacheControl | None]


class ThinkingBlock(TypedDict):
    type: Literal["thinking"]
    thinking: NotRequired[str | None]
    signature: NotRequired[str | None]


class RedactedThinkingBlock(TypedDict):
    type: Literal["redacted_thinking"]
    data: NotRequired[str | None]


ResultBlock = Annotated[
    Annotated[TextBlock, Tag("=text")]
    | Annotated[ImageBlock, Tag("=image")]
    | Annotated[DocumentBlock, Tag("=document")]
    | Annotated[OtherBlock, Tag("=other")],
    known_or_other("text", "image", "document"),
]


class ToolResultBlock(TypedDict):
    type: Literal["tool_result"]
    tool_use_id: str
    content: NotRequired[
        Annotated[
            Text | Annotated[list[ResultBlock], FailFast, Tag("=items")],
            either("a string or array of objects"),
        ]
        | None
    ]
    is_error: NotRequired[bool | None]
    cache_control: NotRequired[CacheControl | None]


ContentBlock = Annotated[
    Annotated[TextBlock, Tag("=text")]
    | Annotated[ImageBlock, Tag("=image")]
    | Annotated[DocumentBlock, Tag("=document")]
    | Annotated[ToolUseBlock, Tag("=tool_use")]
    | Annotated[ToolResultBlock, Tag("=tool_result")]
    | Annotated[ThinkingBlock, Tag("=thinking")]
    | Annotated[RedactedThinkingBlock, Tag("=redacted_thinking")]
    | Annotated[OtherBlock, Tag("=other")],
    known_or_other(
        "text",
        "image",
        "document",
        "tool_use",
        "tool_result",
        "thinking",
        "redacted_thinking",
    ),
]
MessageContent = Annotated[
    Text | Annotated[list[ContentBlock], FailFast, Tag("=items")],
    either("a string or array of objects"),
]
SystemBlock = Annotated[
    Annotated[TextBlock, Tag("=text")] | Annotated[OtherBlock, Tag("=other")],
    known_or_other("text"),
]
SystemContent = Annotated[
    Text | Annotated[list[SystemBlock], FailFast, Tag("=items")],
    either("a string or array of objects"),
]
