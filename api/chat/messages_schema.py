"""The shape of chat messages, as OpenAI documents them.

Beyond OpenAI: `cache_control`, `reasoning_content`, `thinking_blocks` and `is_error`, for models of
Anthropic (platform.claude.com/docs, "Prompt caching" and "Extended thinking", read in November
2026). An OpenAI-compatible provider gets those that it accepts.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, Tag
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.schemas.errors import TAG
from api.schemas.fields import (
    OTHER,
    Choice,
    FileData,
    ImageAddress,
    MediaAddress,
    OtherType,
    SpeakerName,
    either,
    one_of,
    typed,
)


class CacheControl(TypedDict):
    """The end of a cached part of a prompt at Anthropic, and how long it is cached."""

    type: Literal["ephemeral"]
    ttl: NotRequired[Literal["5m", "1h"] | None]


class TextPart(TypedDict):
    type: Literal["text"]
    text: str
    cache_control: NotRequired[CacheControl | None]


class RefusalPart(TypedDict):
    type: Literal["refusal"]
    refusal: str


class ImageUrl(TypedDict):
    url: ImageAddress
    detail: NotRequired[Literal["auto", "low", "high", "original"] | None]


class ImagePart(TypedDict):
    type: Literal["image_url"]
    image_url: ImageUrl
    cache_control: NotRequired[CacheControl | None]


class InputAudio(TypedDict):
    data: str
    format: Annotated[str, Field(pattern="^[a-zA-Z0-9_-]{1,64}$", examples=["wav", "mp3"])]


class AudioPart(TypedDict):
    type: Literal["input_audio"]
    input_audio: InputAudio


class Media(TypedDict):
    url: MediaAddress


class VideoPart(TypedDict):
    """A video, as vLLM, OpenRouter, Together and others take it."""

    type: Literal["video_url"]
    video_url: Media


class AudioUrlPart(TypedDict):
    """Audio by its address, as vLLM takes it."""

    type: Literal["audio_url"]
    audio_url: Media


class File(TypedDict, total=False):
    file_data: FileData | None
    file_id: str | None
    filename: str | None


class FilePart(TypedDict):
    type: Literal["file"]
    file: File
    cache_control: NotRequired[CacheControl | None]


UserPart = Annotated[
    Annotated[TextPart, Tag("=text")]
    | Annotated[ImagePart, Tag("=image_url")]
    | Annotated[AudioPart, Tag("=input_audio")]
    | Annotated[FilePart, Tag("=file")]
    | Annotated[VideoPart, Tag("=video_url")]
    | Annotated[AudioUrlPart, Tag("=audio_url")],
    # `video_url` and `audio_url` are not OpenAI's: they work and are not advertised.
    one_of("type", "text", "image_url", "input_audio", "file"),
]
AssistantPart = Annotated[
    Annotated[TextPart, Tag("=text")]
    | Annotated[RefusalPart, Tag("=refusal")]
    | Annotated[OtherType, Tag(OTHER)],
    typed("text", "refusal"),
]
RESULT_PARTS = ("text", "image_url", "input_audio", "file", "video_url", "audio_url")
ResultPart = Annotated[
    Annotated[TextPart, Tag("=text")]
    | Annotated[ImagePart, Tag("=image_url")]
    | Annotated[AudioPart, Tag("=input_audio")]
    | Annotated[FilePart, Tag("=file")]
    | Annotated[VideoPart, Tag("=video_url")]
    | Annotated[AudioUrlPart, Tag("=audio_url")]
    | Annotated[OtherType, Tag(OTHER)],
    typed(*RESULT_PARTS),
]

Text = Annotated[str, Tag("=text")]
NonEmpty = Field(min_length=1, fail_fast=True)
TEXT_OR_PARTS = either("a string or array of objects")
TextContent = Annotated[Text | Annotated[list[TextPart], NonEmpty, Tag("=items")], TEXT_OR_PARTS]
UserContent = Annotated[Text | Annotated[list[UserPart], NonEmpty, Tag("=items")], TEXT_OR_PARTS]
AssistantContent = Annotated[Text | Annotated[list[AssistantPart], Tag("=items")], TEXT_OR_PARTS]
ResultContent = Annotated[Text | Annotated[list[ResultPart], Tag("=items")], TEXT_OR_PARTS]


Arguments = Annotated[
    Text | Annotated[dict[str, Any], Tag("=object")], either("a string or object")
]


class CalledFunction(TypedDict):
    name: str
    arguments: NotRequired[Arguments | None]


class FunctionToolCall(TypedDict):
    id: str
    type: NotRequired[Literal["function"] | None]
    function: CalledFunction


class CalledCustom(TypedDict):
    name: str
    input: str


class CustomToolCall(TypedDict):
    id: str
    type: Literal["custom"]
    custom: CalledCustom


def _call_kind(value: Any) -> str | None:
    """The tag of a tool call. Some clients leave out the type of a function."""
    if not isinstance(value, dict):
        return None
    kind = value.get("type") or "function"
    return TAG + kind if isinstance(kind, str) else None


ToolCall = Annotated[
    Annotated[FunctionToolCall, Tag("=function")] | Annotated[CustomToolCall, Tag("=custom")],
    Choice(
        _call_kind,
        "wrong.member",
        "wrong {key}",
        {"key": "type", "expected": "'function', 'custom'"},
    ),
]


class SystemMessage(TypedDict):
    role: Literal["system", "developer"]
    content: TextContent
    name: NotRequired[SpeakerName | None]


class UserMessage(TypedDict):
    role: Literal["user"]
    content: UserContent
    name: NotRequired[SpeakerName | None]


class SpokenAudio(TypedDict):
    id: str


class Thought(TypedDict):
    type: Literal["thinking"]
    thinking: str
    signature: NotRequired[str | None]


class RedactedThought(TypedDict):
    type: Literal["redacted_thinking"]
    data: str


ThinkingBlock = Annotated[
    Annotated[Thought, Tag("=thinking")] | Annotated[RedactedThought, Tag("=redacted_thinking")],
    one_of("type", "thinking", "redacted_thinking"),
]


class AssistantMessage(TypedDict):
    role: Literal["assistant"]
    content: NotRequired[AssistantContent | None]
    refusal: NotRequired[str | None]
    name: NotRequired[SpeakerName | None]
    audio: NotRequired[SpokenAudio | None]
    tool_calls: NotRequired[Annotated[list[ToolCall], Field(max_length=128, fail_fast=True)] | None]
    function_call: NotRequired[CalledFunction | None]
    reasoning_content: NotRequired[str | None]
    thinking_blocks: NotRequired[list[ThinkingBlock] | None]


class ToolMessage(TypedDict):
    role: Literal["tool"]
    content: ResultContent | None
    tool_call_id: str
    is_error: NotRequired[bool | None]
    cache_control: NotRequired[CacheControl | None]


class FunctionMessage(TypedDict):
    role: Literal["function"]
    content: str | None
    name: SpeakerName


Message = Annotated[
    Annotated[SystemMessage, Tag("=system")]
    | Annotated[SystemMessage, Tag("=developer")]
    | Annotated[UserMessage, Tag("=user")]
    | Annotated[AssistantMessage, Tag("=assistant")]
    | Annotated[ToolMessage, Tag("=tool")]
    | Annotated[FunctionMessage, Tag("=function")],
    # `function` works and is not advertised: OpenAI used it before there were tools.
    one_of("role", "system", "developer", "user", "assistant", "tool"),
]
