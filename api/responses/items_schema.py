"""The shape of the input items of OpenAI's Responses API.

Source: OpenAI's API reference, "Create a model response". Further keys are not checked, and neither
are items and parts of other types: `api/responses/input.py` says what becomes of them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BeforeValidator, Tag
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.chat.messages_schema import (
    TEXT_OR_PARTS,
    Arguments,
    AudioUrlPart,
    FilePart,
    ImagePart,
    RefusalPart,
    Text,
    VideoPart,
)
from api.responses.tools_schema import FlatTool
from api.schemas.errors import TAG
from api.schemas.fields import (
    OTHER,
    Choice,
    FileData,
    ImageAddress,
    MediaAddress,
    OtherType,
    WebAddress,
    one_of,
    typed,
)


class InputText(TypedDict):
    type: Literal["input_text", "output_text", "text", "summary_text", "reasoning_text"]
    text: str


class InputImage(TypedDict):
    type: Literal["input_image"]
    image_url: NotRequired[ImageAddress | None]
    file_id: NotRequired[str | None]
    detail: NotRequired[Literal["auto", "low", "high", "original"] | None]


class InputFile(TypedDict):
    type: Literal["input_file"]
    file_data: NotRequired[FileData | None]
    file_id: NotRequired[str | None]
    file_url: NotRequired[WebAddress | None]
    filename: NotRequired[str | None]


class AudioData(TypedDict):
    data: str
    format: str


class InputAudio(TypedDict):
    """Audio as OpenAI documents it, or by the address that Codex CLI sends."""

    type: Literal["input_audio"]
    input_audio: NotRequired[AudioData | None]
    audio_url: NotRequired[MediaAddress | None]


TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
CHAT_PARTS = ("image_url", "file", "video_url", "audio_url")
# Clients put parts of any type, and parts of chat, into messages of any role.
Part = Annotated[
    Annotated[InputText, Tag("=input_text")]
    | Annotated[InputText, Tag("=output_text")]
    | Annotated[InputText, Tag("=text")]
    | Annotated[InputText, Tag("=summary_text")]
    | Annotated[InputText, Tag("=reasoning_text")]
    | Annotated[InputImage, Tag("=input_image")]
    | Annotated[InputFile, Tag("=input_file")]
    | Annotated[InputAudio, Tag("=input_audio")]
    | Annotated[ImagePart, Tag("=image_url")]
    | Annotated[FilePart, Tag("=file")]
    | Annotated[VideoPart, Tag("=video_url")]
    | Annotated[AudioUrlPart, Tag("=audio_url")]
    | Annotated[RefusalPart, Tag("=refusal")]
    | Annotated[OtherType, Tag(OTHER)],
    typed(*TEXTS, "input_image", "input_file", "input_audio", "refusal", *CHAT_PARTS),
]
Content = Annotated[Text | Annotated[list[Part], Tag("=items")], TEXT_OR_PARTS]


class RoleItem(TypedDict):
    role: Literal["user", "assistant", "system", "developer"]
    content: Content | None


MessageItem = Annotated[
    Annotated[RoleItem, Tag("=user")]
    | Annotated[RoleItem, Tag("=assistant")]
    | Annotated[RoleItem, Tag("=system")]
    | Annotated[RoleItem, Tag("=developer")],
    one_of("role", "user", "assistant", "system", "developer"),
]


class FunctionCallItem(TypedDict):
    type: Literal["function_call"]
    call_id: str
    name: str
    namespace: NotRequired[str | None]
    arguments: NotRequired[Arguments | None]


class CustomCallItem(TypedDict):
    type: Literal["custom_tool_call"]
    call_id: str
    name: str
    namespace: NotRequired[str | None]
    input: NotRequired[str | None]


class CallOutputItem(TypedDict):
    """The output of a tool. Without a `call_id` it is text that a client puts in by itself."""

    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: NotRequired[str | None]
    output: NotRequired[Content | None]


class ReasoningText(TypedDict):
    type: Literal["summary_text", "reasoning_text", "text"]
    text: str


class ReasoningItem(TypedDict):
    type: Literal["reasoning"]
    summary: NotRequired[list[ReasoningText] | None]
    content: NotRequired[list[ReasoningText] | None]
    encrypted_content: NotRequired[str | None]


class AdditionalTools(TypedDict):
    """Tools in the conversation: those of a Codex CLI, or those that a search has brought."""

    type: Literal["additional_tools", "tool_search_output"]
    tools: list[FlatTool]


class AgentMessage(TypedDict):
    """A message of one of a client's agents to another."""

    type: Literal["agent_message"]
    author: NotRequired[str | None]
    content: Content | None


def _refuse_reference(value: Any) -> Any:
    reason = (
        "items are not stored by this service; send the item itself instead of a reference"
        " (clients that send references by default send items with 'store': false)"
    )
    raise PydanticCustomError("wrong.value", "{reason}", {"reason": reason})


ITEM_KINDS = (
    "message function_call function_call_output custom_tool_call custom_tool_call_output reasoning"
    " additional_tools tool_search_output agent_message item_reference"
).split()


def _item_kind(value: Any) -> str | None:
    """The tag of an item. Messages and references, which have only an id, may lack a type."""
    if not isinstance(value, dict):
        return None
    bare = "message" if "role" in value or "id" not in value else "item_reference"
    kind = value.get("type") or bare
    if not isinstance(kind, str):
        return None
    return TAG + kind if kind in ITEM_KINDS else OTHER


Item = Annotated[
    Annotated[MessageItem, Tag("=message")]
    | Annotated[FunctionCallItem, Tag("=function_call")]
    | Annotated[CallOutputItem, Tag("=function_call_output")]
    | Annotated[CustomCallItem, Tag("=custom_tool_call")]
    | Annotated[CallOutputItem, Tag("=custom_tool_call_output")]
    | Annotated[ReasoningItem, Tag("=reasoning")]
    | Annotated[AdditionalTools, Tag("=additional_tools")]
    | Annotated[AdditionalTools, Tag("=tool_search_output")]
    | Annotated[AgentMessage, Tag("=agent_message")]
    | Annotated[dict[str, Any], BeforeValidator(_refuse_reference), Tag("=item_reference")]
    | Annotated[OtherType, Tag(OTHER)],
    Choice(
        _item_kind,
        "wrong.member",
        "wrong {key}",
        {"key": "type", "expected": ", ".join(f"'{kind}'" for kind in ITEM_KINDS[:-1])},
    ),
]
