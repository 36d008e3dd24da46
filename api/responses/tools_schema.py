"""The shape of tools, and of the choice among them, in OpenAI's Responses API.

Source: OpenAI's API reference, "Create a model response". Further keys are not checked, and neither
are tools of other types: OpenAI runs those itself, or a client does.
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field, Tag
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.chat.messages_schema import NonEmpty
from api.schemas.fields import OTHER, JsonSchema, OtherType, ToolName, either, one_of, typed


class TextGrammar(TypedDict):
    type: Literal["text"]


class Grammar(TypedDict):
    type: Literal["grammar"]
    syntax: Literal["lark", "regex"]
    definition: str


CustomFormat = Annotated[
    Annotated[TextGrammar, Tag("=text")] | Annotated[Grammar, Tag("=grammar")],
    one_of("type", "text", "grammar"),
]


class FlatFunctionTool(TypedDict):
    type: Literal["function"]
    name: ToolName
    description: NotRequired[str | None]
    parameters: NotRequired[JsonSchema | None]
    strict: NotRequired[bool | None]


class FlatCustomTool(TypedDict):
    type: Literal["custom"]
    name: ToolName
    description: NotRequired[str | None]
    format: NotRequired[CustomFormat | None]


class InnerFunctionTool(FlatFunctionTool):
    name: Annotated[str, Field(min_length=1)]


class InnerCustomTool(FlatCustomTool):
    name: Annotated[str, Field(min_length=1)]


InnerTool = Annotated[
    Annotated[InnerFunctionTool, Tag("=function")]
    | Annotated[InnerCustomTool, Tag("=custom")]
    | Annotated[OtherType, Tag(OTHER)],
    typed("function", "custom"),
]


class Namespace(TypedDict):
    """Tools under a common name, such as those of an MCP server.

    A call of one of them has the namespace in a field of its own.
    """

    type: Literal["namespace"]
    name: Annotated[str, Field(min_length=1)]
    description: NotRequired[str | None]
    tools: list[InnerTool]


FlatTool = Annotated[
    Annotated[FlatFunctionTool, Tag("=function")]
    | Annotated[FlatCustomTool, Tag("=custom")]
    | Annotated[Namespace, Tag("=namespace")]
    | Annotated[OtherType, Tag(OTHER)],
    typed("function", "custom", "namespace"),
]


class NamedFunction(TypedDict):
    type: Literal["function"]
    name: str
    namespace: NotRequired[str | None]


class NamedCustom(TypedDict):
    type: Literal["custom"]
    name: str
    namespace: NotRequired[str | None]


NamedTool = Annotated[
    Annotated[NamedFunction, Tag("=function")]
    | Annotated[NamedCustom, Tag("=custom")]
    | Annotated[OtherType, Tag(OTHER)],
    typed("function", "custom"),
]


class AllowedFlatTools(TypedDict):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], NonEmpty]


FlatToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("=text")]
    | Annotated[
        Annotated[NamedFunction, Tag("=function")]
        | Annotated[NamedCustom, Tag("=custom")]
        | Annotated[AllowedFlatTools, Tag("=allowed_tools")]
        | Annotated[OtherType, Tag(OTHER)],
        typed("function", "custom", "allowed_tools"),
        Tag("=object"),
    ],
    either("a string or object"),
]
