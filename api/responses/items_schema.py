"""The shape of the input items of OpenAI's Responses API.

Source: OpenAI's API reference, "Create a model response". Further keys are not checked.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BeforeValidator, Tag
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.chat.messages_schema import TEXT_OR_PARTS, NonEmpty, RefusalPart, Text
from api.schemas.errors import TAG
from api.schemas.fields import Choice, FileData, ImageAddress, WebAddress, one_of


class InputText(TypedDict):
    type: Literal["input_text"]
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


class OutputText(TypedDict):
    type: Literal["output_text"]
    text: str


InputPart = Annotated[
    Annotated[InputText, Tag("=input_text")]
    | Annotated[InputImage, Tag("=input_image")]
    | Annotated[InputFile, Tag("=input_file")],
    one_of("type", "input_text", "input_image", "input_file"),
]
OutputPart = Annotated[
    Annotated[OutputText, Tag("=output_text")] | Annotated[RefusalPart, Tag("=refusal")],
    one_of("type", "output_text", "refusal"),
]
InputContent = Annotated[Text | Annotated[list[InputPart], NonEmpty, Tag("=items")], TEXT_OR_PARTS]
# The output of a tool may be empty.
ToolOutput = Annotated[Text | Annotated[list[InputPart], Tag("=items")], TEXT_OR_PARTS]
InstructionContent = Annotated[
    Text | Annotated[list[InputText], NonEmpty, Tag("=items")], TEXT_OR_PARTS
]
OutputContent = Annotated[
    Text | Annotated[list[OutputPart], NonEmpty, Tag("=items")], TEXT_OR_PARTS
]


class UserItem(TypedDict):
    role: Literal["user"]
    content: InputContent


class InstructionItem(TypedDict):
    role: Literal["system", "developer"]
    content: InstructionContent


class AssistantItem(TypedDict):
    role: Literal["assistant"]
    content: OutputContent


MessageItem = Annotated[
    Annotated[UserItem, Tag("=user")]
    | Annotated[AssistantItem, Tag("=assistant")]
    | Annotated[InstructionItem, Tag("=system")]
    | Annotated[InstructionItem, Tag("=developer")],
    one_of("role", "user", "assistant", "system", "developer"),
]


class FunctionCallItem(TypedDict):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class CustomCallItem(TypedDict):
    type: Literal["custom_tool_call"]
    call_id: str
    name: str
    input: str


class CallOutputItem(TypedDict):
    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: str
    output: ToolOutput


class ReasoningText(TypedDict):
    type: Literal["summary_text", "reasoning_text"]
    text: str


class ReasoningItem(TypedDict):
    type: Literal["reasoning"]
    summary: list[ReasoningText]
    content: NotRequired[list[ReasoningText] | None]
    encrypted_content: NotRequired[str | None]


def _refuse_reference(value: Any) -> Any:
    reason = (
        "items are not stored by this service; send the item itself instead of a reference"
        " (clients that send references by default send items with 'store': false)"
    )
    raise PydanticCustomError("wrong.value", "{reason}", {"reason": reason})


def _item_kind(value: Any) -> str | None:
    """The tag of an item. Messages and references, which have only an id, may lack a type."""
    if not isinstance(value, dict):
        return None
    bare = "message" if "role" in value or "id" not in value else "item_reference"
    kind = value.get("type") or bare
    return TAG + kind if isinstance(kind, str) else None


ITEM_KINDS = (
    "message function_call function_call_output custom_tool_call custom_tool_call_output reasoning"
).split()
Item = Annotated[
    Annotated[MessageItem, Tag("=message")]
    | Annotated[FunctionCallItem, Tag("=function_call")]
    | Annotated[CallOutputItem, Tag("=function_call_output")]
    | Annotated[CustomCallItem, Tag("=custom_tool_call")]
    | Annotated[CallOutputItem, Tag("=custom_tool_call_output")]
    | Annotated[ReasoningItem, Tag("=reasoning")]
    | Annotated[dict[str, Any], BeforeValidator(_refuse_reference), Tag("=item_reference")],
    Choice(
        _item_kind,
        "wrong.member",
        "wrong {key}",
        {"key": "type", "expected": ", ".join(f"'{kind}'" for kind in ITEM_KINDS)},
    ),
]
