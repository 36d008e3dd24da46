"""The shape of content blocks in requests, as Anthropic's Messages API documents them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, Tag
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.chat.messages_schema import Text
from api.schemas.fields import ImageAddress, WebAddress, either, one_of

NonEmpty = Field(min_length=1, fail_fast=True)
FailFast = Field(fail_fast=True)
# Only the first character is checked: scanning a whole image is slow.
Base64 = Annotated[str, Field(pattern="^[A-Za-z0-9+/_-]")]


class CacheControl(TypedDict):
    type: Literal["ephemeral"]
    ttl: NotRequired[Literal["5m", "1h"] | None]


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
    type: Literal["tool_use"]
    id: Annotated[str, Field(pattern="^[A-Za-z0-9_-]+$")]
    name: Annotated[str, Field(min_length=1, max_length=200)]
    input: dict[str, Any]
    cache_control: NotRequired[CacheControl | None]


class ThinkingBlock(TypedDict):
    type: Literal["thinking"]
    thinking: str
    signature: str


class RedactedThinkingBlock(TypedDict):
    type: Literal["redacted_thinking"]
    data: str


ResultBlock = Annotated[
    Annotated[TextBlock, Tag("=text")]
    | Annotated[ImageBlock, Tag("=image")]
    | Annotated[DocumentBlock, Tag("=document")],
    one_of("type", "text", "image", "document"),
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
    | Annotated[RedactedThinkingBlock, Tag("=redacted_thinking")],
    one_of(
        "type",
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
SystemContent = Annotated[
    Text | Annotated[list[TextBlock], FailFast, Tag("=items")],
    either("a string or array of objects"),
]
