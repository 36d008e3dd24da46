"""Checks a request of Anthropic's Messages API, with Anthropic's error messages.

Anthropic's own API validates with pydantic and puts a dotted path before pydantic's message
("max_tokens: Field required"); so does this. The caller's own values are passed on.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal, NotRequired, Required

from pydantic import Field, Tag, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # the one of typing will do from Python 3.12

from api.messages.blocks_schema import CacheControl, MessageContent, NonEmpty, SystemContent
from api.schemas.check import check
from api.schemas.errors import TAG
from api.schemas.fields import Choice, JsonSchema, TokenLimit, ToolName, one_of
from gateway.errors import InvalidRequest

MAX_MODEL = 256  # characters
MAX_MESSAGES = 100_000
MAX_TOOLS = 512
MAX_STOPS = 8191
MIN_BUDGET = 1024  # tokens
MAX_ECHO = 64  # characters of a caller's value that a message may repeat

# Fields that are not supported and would change the result if they were ignored.
REFUSED = {
    "mcp_servers": "MCP servers are not called by this service",
    "container": "containers are not kept by this service",
    "thread": "this service keeps no threads; send the whole conversation",
}
# Anthropic's tool runners go on without threads when an error has this code.
NO_THREADS = "thread_unsupported_request"


class Message(TypedDict):
    """A turn. One without content says nothing, as an assistant's turn may."""

    role: Literal["user", "assistant", "system"]
    content: NotRequired[MessageContent | None]


class Tool(TypedDict):
    """A tool that the caller runs."""

    type: NotRequired[Literal["custom"] | None]
    name: ToolName
    description: NotRequired[str | None]
    input_schema: JsonSchema
    strict: NotRequired[bool | None]
    cache_control: NotRequired[CacheControl | None]


class HostedTool(TypedDict):
    """A tool that Anthropic runs or defines: it is left out."""

    type: str


def _kind_of_tool(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else {}
    if kind in (None, "custom"):
        return "=custom"
    # "function" is the type of OpenAI's tools: a request for another API.
    return "=hosted" if isinstance(kind, str) and kind != "function" else None


AnyTool = Annotated[
    Annotated[Tool, Tag("=custom")] | Annotated[HostedTool, Tag("=hosted")],
    Choice(_kind_of_tool, "wrong.member", "wrong {key}", {"key": "type", "expected": "'custom'"}),
]


class SimpleChoice(TypedDict):
    type: Literal["auto", "any", "none"]
    disable_parallel_tool_use: NotRequired[bool | None]


class ChosenTool(TypedDict):
    type: Literal["tool"]
    name: ToolName
    disable_parallel_tool_use: NotRequired[bool | None]


ToolChoice = Annotated[
    Annotated[SimpleChoice, Tag("=auto")]
    | Annotated[SimpleChoice, Tag("=any")]
    | Annotated[SimpleChoice, Tag("=none")]
    | Annotated[ChosenTool, Tag("=tool")],
    one_of("type", "auto", "any", "tool", "none"),
]

Display = Literal["summarized", "omitted"]


class BudgetThinking(TypedDict):
    type: Literal["enabled"]
    budget_tokens: Annotated[int, Field(ge=MIN_BUDGET)]
    display: NotRequired[Display | None]


class AdaptiveThinking(TypedDict):
    type: Literal["adaptive"]
    display: NotRequired[Display | None]


class OtherThinking(TypedDict):
    type: Literal["disabled", "between_tools"]


Thinking = Annotated[
    Annotated[BudgetThinking, Tag("=enabled")]
    | Annotated[AdaptiveThinking, Tag("=adaptive")]
    | Annotated[OtherThinking, Tag("=disabled")]
    | Annotated[OtherThinking, Tag("=between_tools")],
    one_of("type", "enabled", "disabled", "between_tools", "adaptive"),
]


class JsonFormat(TypedDict):
    type: Literal["json_schema"]
    schema: JsonSchema


class OutputConfig(TypedDict, total=False):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None
    format: JsonFormat | None


class Metadata(TypedDict, total=False):
    user_id: str | None


class CountTokensBody(TypedDict, total=False):
    """A prompt whose tokens are to be counted. Other fields of a message's request are ignored."""

    # The first error in the order of these keys is reported.

    model: Required[Annotated[str, Field(min_length=1, max_length=MAX_MODEL)]]
    messages: Required[Annotated[list[Message], NonEmpty, Field(max_length=MAX_MESSAGES)]]
    system: SystemContent | None
    stream: bool | None
    temperature: Annotated[float, Field(ge=0, le=1)] | None
    top_p: Annotated[float, Field(ge=0, le=1)] | None
    top_k: Annotated[int, Field(ge=0)] | None
    stop_sequences: Annotated[list[str], Field(max_length=MAX_STOPS, fail_fast=True)] | None
    tools: Annotated[list[AnyTool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None
    tool_choice: ToolChoice | None
    thinking: Thinking | None
    output_config: OutputConfig | None
    output_format: JsonFormat | None
    metadata: Metadata | None
    service_tier: Literal["auto", "standard_only"] | None
    cache_control: CacheControl | None


class MessagesBody(CountTokensBody, total=False):
    """A request for a message."""

    max_tokens: Required[TokenLimit]
    # This service's: the caller comes back for the response.
    background: bool | None


MESSAGES_REQUEST = TypeAdapter(MessagesBody)
COUNT_TOKENS_REQUEST = TypeAdapter(CountTokensBody)


def model_name(data: Any) -> str:
    """The name of the model in a request: 1 to 256 printable characters.

    Raises InvalidRequest when the request is not an object or names no such model.
    """
    if not isinstance(data, dict):
        raise InvalidRequest("Input should be an object")
    if "model" not in data:
        raise _invalid("model", "Field required")
    name = data["model"]
    if not isinstance(name, str):
        raise _invalid("model", "Input should be a valid string")
    if not 1 <= len(name) <= MAX_MODEL or not name.isprintable():
        raise _invalid("model", f"String should have 1 to {MAX_MODEL} printable characters")
    return name


def checked(data: Any) -> dict[str, Any]:
    """The request itself, checked and without nulls at the top level.

    Raises InvalidRequest about the first thing that is wrong; `param` is its dotted path.
    """
    model_name(data)
    # First, because a continued thread lacks the turns that the schema wants to see.
    _refuse_features(data)
    check(MESSAGES_REQUEST, data, _to_error)
    body = {name: value for name, value in data.items() if value is not None}
    _check_whole(body)
    return body


def _refuse_features(body: dict[str, Any]) -> None:
    for name, reason in REFUSED.items():
        if body.get(name):
            error = _invalid(name, f"Extra inputs are not permitted: {reason}")
            error.code = NO_THREADS if name == "thread" else None
            raise error


def _check_whole(body: dict[str, Any]) -> None:
    """Check the rules that involve several fields."""
    if body.get("thinking", {}).get("budget_tokens", 0) >= body["max_tokens"]:
        raise InvalidRequest(
            "`max_tokens` must be greater than `thinking.budget_tokens`.", param="max_tokens"
        )
    for i, message in enumerate(body["messages"]):
        if message["role"] == "user" and message.get("content") is None:
            raise _invalid(f"messages.{i}.content", "Field required")
        for j, block in enumerate(_blocks(message)):
            kind, role = block["type"], message["role"]
            if BLOCK_ROLES.get(kind, role) != role:
                reason = f"`{kind}` blocks are not allowed in messages of role '{role}'"
                raise _invalid(f"messages.{i}.content.{j}", reason)
    _check_tool_use(body["messages"])


def _check_tool_use(messages: list[dict[str, Any]]) -> None:
    """Check that every tool_use block has its result in the next turn, and every result its use."""
    open_ids: Counter[str] = Counter()
    last_use = 0  # index of the last turn that uses tools
    for i, message in enumerate(messages):
        if message["role"] == "assistant" and open_ids and last_use != i - 1:
            raise _without_result(last_use, open_ids)
        for j, block in enumerate(_blocks(message)):
            if block["type"] == "tool_use":
                open_ids[block["id"]] += 1
                last_use = i
            elif block["type"] == "tool_result" and block["tool_use_id"] not in open_ids:
                raise _invalid(
                    f"messages.{i}.content.{j}",
                    f"unexpected `tool_use_id` found in `tool_result` blocks:"
                    f" {_echo(block['tool_use_id'])}. Each `tool_result` block must have a"
                    " corresponding `tool_use` block in the previous message.",
                )
            elif block["type"] == "tool_result":
                open_ids -= Counter([block["tool_use_id"]])
    if open_ids:
        raise _without_result(last_use, open_ids)


def _without_result(last_use: int, open_ids: Counter[str]) -> InvalidRequest:
    return _invalid(
        f"messages.{last_use}",
        "`tool_use` ids were found without `tool_result` blocks immediately after:"
        f" {', '.join(sorted(map(_echo, open_ids)))}. Each `tool_use` block must have a"
        " corresponding `tool_result` block in the next message.",
    )


# Type of block -> the role whose messages may have it. All roles may have the others.
BLOCK_ROLES = {
    "image": "user",
    "document": "user",
    "tool_result": "user",
    "tool_use": "assistant",
    "thinking": "assistant",
    "redacted_thinking": "assistant",
}


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return content if isinstance(content, list) else []


def _invalid(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: {reason}", param=path)


def _to_error(problem: ValidationError) -> InvalidRequest:
    first = problem.errors(include_url=False)[0]
    loc, value, facts = first["loc"], first["input"], first.get("ctx", {})
    reason: str = first["msg"]
    if first["type"] == "wrong.member":
        key = facts["key"]
        if not isinstance(value, dict):
            reason = "Input should be an object"
        elif key not in value:
            loc, reason = (*loc, key), "Field required"
        else:
            reason = _wrong_tag(value[key], key, facts["expected"])
    elif first["type"] == "wrong.type":
        reason = "Input should be a valid string or array"
    return _invalid(_path(loc), reason)


def _wrong_tag(tag: Any, key: str, expected: str) -> str:
    return (
        f"Input tag '{_echo(tag)}' found using '{key}' does not match any of the expected tags: "
        f"{expected}"
    )


def _echo(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    return "".join(char for char in text[:MAX_ECHO] if char.isprintable())


def _path(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(step) for step in loc if isinstance(step, int) or not step.startswith(TAG))
