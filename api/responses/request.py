"""Converts a request to OpenAI's Responses API to a chat request."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from api.call_request import CheckedRequest
from api.responses.input import Conversation, refuse_addresses
from api.responses.response import OWN_NAMES
from api.responses.schema import RESPONSES_FIELDS, RESPONSES_REQUEST
from api.responses.tools import Tools, present
from api.schemas import other_api
from api.schemas.check import check
from api.schemas.errors import invalid, invalid_request
from gateway.catalogue.file import FILE_URL
from gateway.errors import InvalidRequest

ENCRYPTED_REASONING = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"

# Responses' name -> chat's, for parameters with the same value.
CHAT_NAMES = {
    "max_output_tokens": "max_completion_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "service_tier": "service_tier",
    "user": "user",
    "safety_identifier": "safety_identifier",
    "prompt_cache_key": "prompt_cache_key",
    "prompt_cache_retention": "prompt_cache_retention",
}
# Summaries are always sent.
REASONING_FIELDS = ("effort", "summary", "generate_summary")
# Fields that need what this service does not store -> what to do instead.
NOT_STORED = {
    "conversation": "send 'previous_response_id', or the whole conversation in 'input'",
    "prompt": "send its text in 'instructions' and 'input'",
}

Data = Mapping[str, Any]


def chat_request(
    data: Any,
    extra: Collection[str] = (),
    accepts: Collection[str] = (),
    conversation: Callable[[str], list[dict[str, Any]]] = lambda response_id: [],
) -> CheckedRequest:
    """The checked request in chat's terms.

    `extra` names the provider's own parameters, `accepts` what else it takes beyond OpenAI's API.
    `conversation` returns the items of a previous response, which go before `input` in `data`.

    Raises InvalidRequest in OpenAI's words, with a path into the caller's own request as `param`,
    or into its input with the previous items before it.
    """
    try:
        check(RESPONSES_REQUEST, data, invalid_request)
    except InvalidRequest as error:
        error.message += other_api.hint(data, "/responses")
        raise
    _refuse_not_stored(data)
    if previous := data.get("previous_response_id"):
        data["input"] = [*conversation(previous), *as_items(data["input"])]
    if FILE_URL not in accepts:
        refuse_addresses(data)
    request = {name: value for name, value in data.items() if value is not None}
    stream = bool(request.get("stream"))
    if "stream_options" in request and not stream:
        reason = "only allowed when 'stream' is enabled"
        raise invalid("wrong.value", "stream_options", reason=reason)
    tools, ignored = Tools(request), _ignored(data, extra)
    parameters = {
        "messages": _messages(request, tools, ignored),
        **{ours: request[name] for name, ours in CHAT_NAMES.items() if name in request},
        **_tools(request, tools),
        **_text(request.get("text") or {}),
        **_logprobs(request),
        **{
            name: request[name]
            for name in extra
            if name in request and name not in RESPONSES_FIELDS
        },
    }
    if effort := (request.get("reasoning") or {}).get("effort"):
        parameters["reasoning_effort"] = effort
    ignored += (f"tools.{kind}" for kind in tools.ignored)
    background = bool(request.get("background"))
    stored = {"input": as_items(request["input"])} if background or request.get("store") else None
    return CheckedRequest(
        request["model"],
        stream,
        stream,
        parameters,
        ignored,
        own_names=OWN_NAMES,
        background=background,
        stored=stored,
    )


def as_items(value: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An input as items: text is a message of the user."""
    if isinstance(value, str):
        content = [{"type": "input_text", "text": value}]
        return [{"type": "message", "role": "user", "content": content}]
    return value


def keeps_reasoning(data: Data) -> bool:
    """Whether the response carries the reasoning for the client to keep, as `encrypted_content`.

    OpenAI sends it if `include` requests it. This service also sends it to clients that expect the
    server to store responses: without `store: true` it does not.
    """
    return ENCRYPTED_REASONING in (data.get("include") or ()) or data.get("store") is not False


def _refuse_not_stored(data: Data) -> None:
    for name, instead in NOT_STORED.items():
        if data.get(name) is not None:
            raise InvalidRequest(
                f"Unsupported parameter: '{name}' is not supported by this service: {instead}.",
                param=name,
                code="unsupported_parameter",
            )


def _ignored(data: Data, extra: Collection[str]) -> list[str]:
    """The fields that are unknown, and those that are known and have no effect."""
    accepted = RESPONSES_FIELDS | NOT_STORED.keys() | set(extra)
    ignored = [name for name in data if name not in accepted]
    reasoning = data.get("reasoning") or {}
    ignored += (f"reasoning.{name}" for name in reasoning if name not in REASONING_FIELDS)
    if data.get("truncation") == "auto":
        ignored.append("truncation")
    if data.get("top_logprobs") and not _wants_logprobs(data):
        ignored.append("top_logprobs")
    return ignored


def _wants_logprobs(data: Data) -> bool:
    return LOGPROBS in (data.get("include") or ())


def _logprobs(request: Data) -> dict[str, Any]:
    if not _wants_logprobs(request):
        return {}
    top = {"top_logprobs": request["top_logprobs"]} if "top_logprobs" in request else {}
    return {"logprobs": True, **top}


def _text(text: Data) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    if text.get("verbosity") is not None:
        parameters["verbosity"] = text["verbosity"]
    text_format = text.get("format") or {"type": "text"}
    if text_format["type"] == "json_schema":
        schema = present(text_format, "name", "description", "schema", "strict")
        parameters["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif text_format["type"] != "text":
        parameters["response_format"] = {"type": text_format["type"]}
    return parameters


def _tools(request: Data, tools: Tools) -> dict[str, Any]:
    """The tools and how to choose among them, which chat refuses if there are no tools."""
    parameters: dict[str, Any] = {}
    choice = tools.choice(request["tool_choice"]) if "tool_choice" in request else None
    if not tools.chat:
        if choice not in (None, "auto", "none"):
            reason = "only allowed when 'tools' are specified"
            raise invalid("wrong.value", "tool_choice", reason=reason)
        return parameters
    parameters["tools"] = tools.chat
    if choice is not None:
        parameters["tool_choice"] = choice
    if "parallel_tool_calls" in request:
        parameters["parallel_tool_calls"] = request["parallel_tool_calls"]
    return parameters


def _messages(request: Data, tools: Tools, ignored: list[str]) -> list[dict[str, Any]]:
    """The conversation, `instructions` first; adds the names of what is left out to `ignored`."""
    conversation = Conversation(tools)
    if request.get("instructions"):
        instructions = {"role": "system", "content": request["instructions"]}
        conversation.messages.append(instructions)
    if isinstance(request["input"], str):
        conversation.messages.append({"role": "user", "content": request["input"]})
    else:
        conversation.read(request["input"])
    ignored += (f"input.{kind}" for kind in conversation.ignored)
    return conversation.complete()
