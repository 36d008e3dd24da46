"""Checks a chat request. The caller's own values are passed on, never copies made by pydantic.

The check has two steps, since the fields that a model accepts depend on the model:
`model_name(data)`, then `chat_request(data, extra)`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import TypeAdapter

from api.chat.schema import MAX_MODEL, ChatBody
from api.handler import CheckedRequest
from api.schemas.check import check
from api.schemas.errors import invalid, invalid_request, json_name
from gateway.errors import InvalidRequest

CHAT_REQUEST = TypeAdapter(ChatBody)
# Fields that become attributes of the CheckedRequest instead of parameters.
OWN_FIELDS = frozenset({"model", "models", "stream", "stream_options"})
CHAT_PARAMETERS = frozenset(ChatBody.__annotations__) - OWN_FIELDS
# An assistant message may lack content if one of these is present.
INSTEAD_OF_CONTENT = (
    "tool_calls",
    "refusal",
    "function_call",
    "audio",
    "reasoning_content",
    "thinking_blocks",
)


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

    Raises InvalidRequest for the first problem, with OpenAI's message and the path as `param`.
    """
    model = model_name(data)
    check(CHAT_REQUEST, data, invalid_request)
    return _checked_request(model, data, extra)


def _checked_request(model: str, data: dict[str, Any], extra: Collection[str]) -> CheckedRequest:
    stream = bool(data.get("stream"))
    options = _stream_options(data, stream)
    _check_conversation(data["messages"])
    parameters, ignored = _sorted_fields(data, extra)
    usage, models = bool(options.get("include_usage")), data.get("models")
    others = None if models is None else tuple(models)
    return CheckedRequest(model, stream, usage, parameters, ignored, others)


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


def _check_conversation(messages: list[dict[str, Any]]) -> None:
    """Check the rules that involve several messages: a tool result needs a call before it."""
    call_ids: set[str] = set()
    for index, message in enumerate(messages):
        role = message["role"]
        if role == "assistant":
            _check_has_content(message, f"messages[{index}].content")
            call_ids.update(call["id"] for call in message.get("tool_calls") or ())
        elif role == "tool" and message["tool_call_id"] not in call_ids:
            reason = "answers no tool call of an assistant message before it"
            raise invalid("wrong.value", f"messages[{index}].tool_call_id", reason=reason)


def _check_has_content(message: dict[str, Any], path: str) -> None:
    if message.get("content") is not None or any(message.get(key) for key in INSTEAD_OF_CONTENT):
        return
    if "content" not in message:
        raise invalid("missing", path)
    raise invalid("wrong.type", path, expected="one of a string or array of objects")
