"""Converts a request of Anthropic's Messages API to a chat request."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeAlias

from api.call_request import CheckedRequest
from api.messages.others import text_of
from api.messages.turns import PART_MAKERS, cache_mark, chat_messages
from gateway.catalogue.file import FILE_URL, MESSAGES_API
from gateway.errors import InvalidRequest

Data: TypeAlias = Mapping[str, Any]

# Anthropic's name -> chat's, where the value is the same.
SAME = {
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop_sequences": "stop",
}
# Chat parameters that OpenAI does not have: for the providers whose row names them.
EXTRA = frozenset({"thinking", "output_config", "top_k", "betas", "context_management"})
CHOICES = {"auto": "auto", "any": "required", "none": "none"}
BETA = re.compile(r"[\w.-]{1,64}", re.ASCII)  # what a name in `anthropic-beta` may hold
MAX_BETAS = 64
PLAIN_USER = re.compile(r"[\w-]{1,64}", re.ASCII)  # what OpenAI and DeepSeek take of a user's name
SERVICE_TIERS = {"auto": "auto", "standard_only": "default"}
# Chat's name -> Anthropic's, of parameters that tune a response and ask for nothing. A client of
# Anthropic's cannot know which of them another provider's model refuses: they are left out there.
OWN_NAMES = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "thinking": "thinking",
    "reasoning_effort": "output_config.effort",
    "output_config": "output_config.effort",
    "user": "metadata.user_id",
    "service_tier": "service_tier",
    "betas": "anthropic-beta",
    "context_management": "context_management",
}
KNOWN = frozenset(
    {*SAME, "model", "messages", "system", "stream", "tools", "tool_choice", "thinking"}
    | {"output_config", "output_format", "metadata", "service_tier", "cache_control"}
    | {"context_management", "background"}
)
KNOWN_OF_TOOLS = frozenset(
    {"type", "name", "description", "input_schema", "strict", "cache_control"}
)


def chat_request(
    body: Data,
    extra: Collection[str] = (),
    accepts: Collection[str] = (),
    *,
    betas: str = "",
    limit: int | None = None,
    alone: bool = True,
) -> CheckedRequest:
    """The chat request that a checked Messages request stands for.

    `extra` names the parameters beyond OpenAI's that the provider takes, `accepts` what else it
    takes beyond OpenAI's API (see models.toml). Parameters that the provider lacks are among
    `ignored`, by Anthropic's names. `betas` is the caller's `anthropic-beta` header. `limit` is the
    model's maximum of output tokens: clients must send a limit and cannot know it, so a larger one
    is lowered. `alone`: no other provider may get this call. Raises InvalidRequest for documents by
    their address where the provider takes none, and if a tool must be used that only Anthropic
    runs.
    """
    if FILE_URL not in accepts:
        _refuse_addresses(body)
    native = MESSAGES_API in accepts
    params = {ours: body[name] for name, ours in SAME.items() if name in body}
    params |= _tools(body, native) | _thinking(body, native) | _output(body, native)
    params |= _account(body, native) | _betas(body, betas)
    if limit is not None:
        params["max_tokens"] = min(params["max_tokens"], limit)
    unknown = EXTRA.difference(extra) & params.keys()
    params = {name: value for name, value in params.items() if name not in unknown}
    ignored = [*_ignored(body), *(OWN_NAMES[name] for name in sorted(unknown))]
    if "service_tier" in body and not native:
        ignored.append("service_tier")
    return CheckedRequest(
        model=body["model"],
        stream=bool(body.get("stream")),
        include_usage=True,
        parameters={"messages": chat_messages(body, native, alone), **params},
        ignored=list(dict.fromkeys(ignored)),
        optional=tuple(name for name in OWN_NAMES if name in params),
        own_names=OWN_NAMES,
        background=bool(body.get("background")),
    )


def _refuse_addresses(body: Data) -> None:
    for path, block in _all_blocks(body):
        if block["type"] == "document" and block["source"]["type"] == "url":
            path = f"{path}.source.url"
            reason = "this model takes no documents by URL; send the document itself"
            raise InvalidRequest(f"{path}: {reason}", param=path)


def _all_blocks(body: Data) -> Iterator[tuple[str, Data]]:
    """Every block of the turns with its path, including blocks inside tool results."""
    for i, message in enumerate(body["messages"]):
        for j, block in enumerate(_listed(message.get("content"))):
            yield f"messages.{i}.content.{j}", block
            if block["type"] == "tool_result":
                for k, inner in enumerate(_listed(block.get("content"))):
                    yield f"messages.{i}.content.{j}.content.{k}", inner


# Types of blocks that are converted. Others become text, if they have any.
SERVED = frozenset(PART_MAKERS) | {"tool_use", "tool_result", "thinking", "redacted_thinking"}


def _listed(content: Any) -> list[Data]:
    return content if isinstance(content, list) else []


def _tools(body: Data, native: bool) -> dict[str, Any]:
    choice = body.get("tool_choice") or {}
    tools = [tool for tool in body.get("tools") or () if not _is_hosted(tool)]
    _check_choice(choice, tools, body)
    if not tools:
        return {}
    parameters: dict[str, Any] = {"tools": [_tool(tool, native) for tool in tools]}
    if kind := choice.get("type"):
        named = {"type": "function", "function": {"name": choice.get("name")}}
        parameters["tool_choice"] = CHOICES.get(kind, named)
    if choice.get("disable_parallel_tool_use"):
        parameters["parallel_tool_calls"] = False
    return parameters


def _is_hosted(tool: Data) -> bool:
    """Whether Anthropic runs or defines this tool."""
    return tool.get("type") not in (None, "custom")


def _check_choice(choice: Data, tools: list[Data], body: Data) -> None:
    hosted = [tool for tool in body.get("tools") or () if _is_hosted(tool)]
    if choice.get("type") == "tool" and all(tool["name"] != choice["name"] for tool in tools):
        for tool in hosted:
            if tool.get("name") == choice["name"] and tool["type"].isprintable():
                reason = f"'{tool['type'][:64]}' tools are not run by this service"
                raise _unserved("tool_choice.name", reason)
    if choice.get("type") == "any" and hosted and not tools:
        raise _unserved("tool_choice.type", "none of the tools is run by the caller")


def _unserved(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: {reason}", param=path)


def _tool(tool: Data, native: bool) -> dict[str, Any]:
    # OpenAI refuses an object schema without properties.
    schema = {"type": "object", **tool["input_schema"]}
    if schema["type"] == "object":
        schema.setdefault("properties", {})
    function = {"name": tool["name"], "parameters": schema}
    for name in ("description", "strict"):
        if tool.get(name) is not None:
            function[name] = tool[name]
    chat_tool: dict[str, Any] = {"type": "function", "function": function}
    if mark := cache_mark(tool, native):
        chat_tool["cache_control"] = mark
    return chat_tool


def _thinking(body: Data, native: bool) -> dict[str, Any]:
    thinking = body.get("thinking")
    if thinking is None:
        return {}
    if native:
        return {"thinking": thinking}
    # Other providers with this parameter only know on and off.
    return {"thinking": {"type": "disabled" if thinking["type"] == "disabled" else "enabled"}}


def _output(body: Data, native: bool) -> dict[str, Any]:
    config = body.get("output_config") or {}
    parameters: dict[str, Any] = {}
    if effort := config.get("effort"):
        # OpenAI's parameter would also turn on thinking for Anthropic's models.
        parameters |= (
            {"output_config": {"effort": effort}} if native else {"reasoning_effort": effort}
        )
    if output_format := config.get("format") or body.get("output_format"):
        schema = output_format["schema"]
        answer = {"name": "answer", "schema": schema, "strict": is_strict(schema)}
        parameters["response_format"] = {"type": "json_schema", "json_schema": answer}
    return parameters


def is_strict(schema: Any) -> bool:
    """Whether OpenAI can enforce a JSON schema.

    Every object in it must list all its properties as required and allow no others. Anthropic
    enforces more schemas; other providers get those with `strict` false. Source:
    developers.openai.com/api/docs/guides/structured-outputs, "Supported schemas".
    """
    if isinstance(schema, list):
        return all(map(is_strict, schema))
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties")
        closed = schema.get("additionalProperties") is False and isinstance(properties, dict)
        if not closed or _names(schema.get("required")) != set(properties or ()):
            return False
    return all(map(is_strict, schema.values()))


def _names(required: Any) -> set[str] | None:
    """The required names; None for anything but a list of names, since schemas are not checked."""
    named = required or []
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        return None
    return set(named)


def _account(body: Data, native: bool) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    if user := (body.get("metadata") or {}).get("user_id"):
        # Agents send whole objects, which other providers refuse; a hash identifies a user as well.
        plain = native or PLAIN_USER.fullmatch(user)
        parameters["user"] = user if plain else hashlib.sha256(user.encode()).hexdigest()
    if native and (tier := body.get("service_tier")):
        parameters["service_tier"] = SERVICE_TIERS[tier]
    return parameters


def _betas(body: Data, header: str) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    names = [name for each in header.split(",") if BETA.fullmatch(name := each.strip())]
    if names:
        parameters["betas"] = names[:MAX_BETAS]
    if "context_management" in body:
        parameters["context_management"] = body["context_management"]
    return parameters


def _ignored(body: Data) -> Iterator[str]:
    """The fields, tools and blocks of a request that no provider gets."""
    yield from (name for name in body if name not in KNOWN)
    for tool in body.get("tools") or ():
        if _is_hosted(tool):
            yield tool["type"]
        else:
            yield from (f"tools.{name}" for name in tool if name not in KNOWN_OF_TOOLS)
    for message in body["messages"]:
        yield from (f"messages.{name}" for name in message if name not in ("role", "content"))
    for _, block in _all_blocks(body):
        if block["type"] == "tool_use" and block.get("cache_control"):
            yield "cache_control"
        if block["type"] == "document" and (block.get("citations") or {}).get("enabled"):
            yield "citations"
        if block["type"] not in SERVED and not text_of(block):
            yield block["type"]
