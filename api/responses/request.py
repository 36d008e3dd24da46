"""A request to OpenAI's Responses API as the chat request that asks for the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from api.handler import CheckedRequest
from api.responses.input import chat_messages, refuse_addresses
from api.responses.schema import RESPONSES_FIELDS, RESPONSES_REQUEST
from api.schemas.check import check
from api.schemas.errors import invalid, invalid_request
from gateway.errors import InvalidRequest

ENCRYPTED_REASONING = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"

# Responses' name -> that of chat completions, where the value is the same.
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
# What would need a memory, and what to do instead.
STORED = {
    "previous_response_id": "send the whole conversation in 'input'",
    "conversation": "send the whole conversation in 'input'",
    "prompt": "send its text in 'instructions' and 'input'",
    "background": "leave it out and wait for the answer, or stream it",
}

Data = Mapping[str, Any]


def chat_request(
    data: Any, extra: Collection[str] = (), keeps: Collection[str] = ()
) -> CheckedRequest:
    """The checked request in chat's terms.

    `extra` names the provider's own parameters, `keeps` what it takes of messages beyond OpenAI's.

    `store` changes nothing: no response is ever stored. Raises InvalidRequest in OpenAI's words,
    with a path into the caller's own request as `param`.
    """
    check(RESPONSES_REQUEST, data, invalid_request)
    _refuse_stored(data)
    if "file_url" not in keeps:
        refuse_addresses(data)
    asked = {name: value for name, value in data.items() if value is not None}
    stream = bool(asked.get("stream"))
    if "stream_options" in asked and not stream:
        reason = "only allowed when 'stream' is enabled"
        raise invalid("wrong.value", "stream_options", reason=reason)
    parameters = {
        "messages": chat_messages(asked),
        **{ours: asked[name] for name, ours in CHAT_NAMES.items() if name in asked},
        **_tools(asked),
        **_text(asked.get("text") or {}),
        **_logprobs(asked),
        **{name: asked[name] for name in extra if name in asked and name not in RESPONSES_FIELDS},
    }
    if effort := (asked.get("reasoning") or {}).get("effort"):
        parameters["reasoning_effort"] = effort
    return CheckedRequest(asked["model"], stream, stream, parameters, _ignored(data, extra))


def keeps_reasoning(data: Data) -> bool:
    """Whether the client is to be given its reasoning to keep, as `encrypted_content`.

    So OpenAI does where `include` asks for it. Who leaves the storing to the server is given it
    too, since here the server forgets.
    """
    return ENCRYPTED_REASONING in (data.get("include") or ()) or data.get("store") is not False


def _refuse_stored(data: Data) -> None:
    for name, instead in STORED.items():
        if data.get(name) not in (None, False):
            raise InvalidRequest(
                f"Unsupported parameter: '{name}' is not supported by this service, which stores"
                f" nothing: {instead}.",
                param=name,
                code="unsupported_parameter",
            )


def _ignored(data: Data, extra: Collection[str]) -> list[str]:
    """The fields nobody knows, and those that are known and change nothing here."""
    known = RESPONSES_FIELDS | STORED.keys() | set(extra)
    ignored = [name for name in data if name not in known]
    if data.get("truncation") == "auto":
        ignored.append("truncation")
    if data.get("top_logprobs") and not _wants_logprobs(data):
        ignored.append("top_logprobs")
    return ignored


def _wants_logprobs(data: Data) -> bool:
    return LOGPROBS in (data.get("include") or ())


def _logprobs(asked: Data) -> dict[str, Any]:
    if not _wants_logprobs(asked):
        return {}
    top = {"top_logprobs": asked["top_logprobs"]} if "top_logprobs" in asked else {}
    return {"logprobs": True, **top}


def _text(text: Data) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if text.get("verbosity") is not None:
        made["verbosity"] = text["verbosity"]
    wanted = text.get("format") or {"type": "text"}
    if wanted["type"] == "json_schema":
        schema = _given(wanted, "name", "description", "schema", "strict")
        made["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif wanted["type"] != "text":
        made["response_format"] = {"type": wanted["type"]}
    return made


def _tools(asked: Data) -> dict[str, Any]:
    """Without tools, chat refuses what Responses lets stand: how to choose among none."""
    if not asked.get("tools"):
        if asked.get("tool_choice", "auto") not in ("auto", "none"):
            reason = "only allowed when 'tools' are specified"
            raise invalid("wrong.value", "tool_choice", reason=reason)
        return {}
    made: dict[str, Any] = {"tools": [_tool(tool) for tool in asked["tools"]]}
    if "tool_choice" in asked:
        made["tool_choice"] = _tool_choice(asked["tool_choice"])
    if "parallel_tool_calls" in asked:
        made["parallel_tool_calls"] = asked["parallel_tool_calls"]
    return made


def _tool(tool: Data) -> dict[str, Any]:
    if tool["type"] == "function":
        return _nested(tool, "name", "description", "parameters", "strict")
    custom = _nested(tool, "name", "description", "format")
    grammar = tool.get("format")
    if grammar and grammar["type"] == "grammar":
        wanted = {"type": "grammar", "grammar": _given(grammar, "syntax", "definition")}
        custom["custom"]["format"] = wanted
    return custom


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, str):
        return choice
    if choice["type"] != "allowed_tools":
        return _nested(choice, "name")
    allowed = {"mode": choice["mode"], "tools": [_nested(t, "name") for t in choice["tools"]]}
    return {"type": "allowed_tools", "allowed_tools": allowed}


def _nested(flat: Data, *names: str) -> dict[str, Any]:
    """Chat has the facts of a tool one level deeper, under the name of its type."""
    return {"type": flat["type"], flat["type"]: _given(flat, *names)}


def _given(value: Data, *names: str) -> dict[str, Any]:
    return {name: value[name] for name in names if value.get(name) is not None}
