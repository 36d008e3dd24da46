"""Checks a chat request. The caller's own values are passed on, never copies made by pydantic.

The check has two steps, since the fields that a model accepts depend on the model:
`model_name(data)`, then `chat_request(data, extra)`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from pydantic import TypeAdapter

from api.call_request import CheckedRequest
from api.chat import history
from api.chat.schema import MAX_MODEL, ChatBody
from api.schemas import other_api
from api.schemas.check import check
from api.schemas.errors import invalid, invalid_request, json_name
from gateway.errors import InvalidRequest

CHAT_REQUEST = TypeAdapter(ChatBody)
# Fields that become attributes of the CheckedRequest instead of parameters.
OWN_FIELDS = frozenset({"model", "models", "stream", "stream_options", "usage", "background"})
CHAT_PARAMETERS = frozenset(ChatBody.__annotations__) - OWN_FIELDS
TOOL_KINDS = ("function", "custom")
NAME = re.compile("[a-zA-Z0-9_-]{1,64}")


def model_name(data: Any) -> str:
    """The name of the model in a request: 1 to 256 printable characters.

    Raises InvalidRequest if the request is not an object or has no such name.
    """
    if not isinstance(data, dict):
        raise InvalidRequest(
            f"Invalid type for the request body: expected an object, but got {json_name(data)}"
            " instead.",
            code="invalid_type",
        )
    if "model" not in data:
        raise invalid("missing", "model")
    name = data["model"]
    if not isinstance(name, str):
        raise invalid("wrong.type", "model", name, expected="a string")
    if not 1 <= len(name) <= MAX_MODEL or not name.isprintable():
        reason = f"expected 1 to {MAX_MODEL} characters, none of them a control character"
        raise invalid("wrong.value", "model", reason=reason)
    return name


def chat_request(data: Any, extra: Collection[str] = ()) -> CheckedRequest:
    """The checked request. Fields that are not OpenAI's are ignored, except those in `extra`.

    What clients send back of earlier responses, nulls included, is put into OpenAI's form. Tools
    and parts of histories of unknown types are left out and named. Raises InvalidRequest for the
    first problem, with OpenAI's message and the path as `param`; the message says so if the request
    belongs to another endpoint.
    """
    model = model_name(data)
    try:
        check(CHAT_REQUEST, data, invalid_request)
        return _checked_request(model, data, extra)
    except InvalidRequest as error:
        error.message += other_api.hint(data, "/chat/completions")
        raise


def _checked_request(model: str, data: dict[str, Any], extra: Collection[str]) -> CheckedRequest:
    stream = bool(data.get("stream"))
    options = _stream_options(data, stream)
    _check_results(data["messages"])
    parameters, ignored = _sorted_fields(data, extra)
    parameters["messages"] = history.normal(data["messages"], ignored)
    _leave_out_tools(parameters, ignored)
    if "response_format" in parameters:
        parameters["response_format"] = _response_format(parameters["response_format"])
    cost, models = bool((data.get("usage") or {}).get("include")), data.get("models")
    usage = cost or bool(options.get("include_usage"))
    others = None if models is None else tuple(models)
    return CheckedRequest(
        model,
        stream,
        usage,
        parameters,
        ignored,
        others,
        include_cost=cost,
        background=bool(data.get("background")),
    )


def _sorted_fields(
    data: dict[str, Any], extra: Collection[str]
) -> tuple[dict[str, Any], list[str]]:
    parameters: dict[str, Any] = {}
    ignored: list[str] = []
    for name, value in data.items():
        if name in OWN_FIELDS:
            continue
        if name not in CHAT_PARAMETERS and name not in extra:
            ignored.append(name)
        elif value is not None:
            parameters[name] = value
    return parameters, ignored


def _stream_options(data: dict[str, Any], stream: bool) -> dict[str, Any]:
    options: dict[str, Any] | None = data.get("stream_options")
    if options is None:
        return {}
    if not stream:
        reason = "only allowed when 'stream' is enabled"
        raise invalid("wrong.value", "stream_options", reason=reason)
    return options


def _leave_out_tools(parameters: dict[str, Any], ignored: list[str]) -> None:
    """Leave out tools of unknown types.

    Raises InvalidRequest if nothing is left of the tools and one must be called.
    """
    tools = parameters.get("tools") or []
    unknown = [tool["type"] for tool in tools if tool["type"] not in TOOL_KINDS]
    if unknown:
        ignored += (f"tools.{kind}" for kind in unknown)
        parameters["tools"] = [tool for tool in tools if tool["type"] in TOOL_KINDS]
        if not parameters["tools"] and parameters.get("tool_choice") == "required":
            reason = f"this service does not run tools of the type '{unknown[0][:64]}'"
            raise invalid("wrong.value", "tool_choice", reason=reason)


def _response_format(value: dict[str, Any]) -> dict[str, Any]:
    """The format of the response in OpenAI's form."""
    if value["type"] != "json_schema" or "json_schema" in value:
        return value
    if "schema" not in value:
        raise invalid("missing", "response_format.json_schema")
    name = value.get("name")
    named = {"name": name if isinstance(name, str) and NAME.fullmatch(name) else "response"}
    strict = {"strict": value["strict"]} if isinstance(value.get("strict"), bool) else {}
    return {"type": "json_schema", "json_schema": {**named, "schema": value["schema"], **strict}}


def _check_results(messages: list[dict[str, Any]]) -> None:
    """Check that every tool result has a call before it."""
    call_ids: set[str] = set()
    for index, message in enumerate(messages):
        role = message["role"]
        if role == "assistant":
            call_ids.update(call["id"] for call in message.get("tool_calls") or ())
        elif role == "tool" and message["tool_call_id"] not in call_ids:
            reason = "answers no tool call of an assistant message before it"
            raise invalid("wrong.value", f"messages[{index}].tool_call_id", reason=reason)
