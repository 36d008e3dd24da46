"""A chat call as the body of an Anthropic Messages request."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.chat import ChatCall
from gateway.errors import InvalidRequest
from providers.anthropic.blocks import text
from providers.anthropic.messages import Conversation, conversation, fit_breakpoints
from providers.anthropic.refusals import invalid, unsupported, unsupported_parameter
from providers.anthropic.schema import binding_schema
from providers.anthropic.thinking import (
    Style,
    Thinking,
    default_budget,
    ignored_thinking,
    leave_out_beside,
    style,
    thinking,
    without_thinking,
)
from providers.anthropic.tools import is_forced, tool_choice, tools, used_tools

MAX_TOKENS = 8192  # if the caller sets no limit: Anthropic requires one
MAX_USER_ID = 256  # characters

# OpenAI's service tier -> Anthropic's. Only "auto" may use priority capacity.
TIERS = {"auto": "auto", "priority": "auto", "default": "standard_only"}

BETA = re.compile(r"[\w.-]{1,64}", re.ASCII)
SCOPED_CACHES = "prompt-caching-scope"  # the beginning of a beta's name
CONTEXT_EDITS = "context-management"  # likewise

JSON_ONLY = "Respond with a single JSON object and nothing else: no other text, no code fence."
CALL_A_TOOL = "Respond with a call of one of the tools."
CALL_THE_TOOL = "Respond with a call of the tool `{}`."

Body = dict[str, Any]


def request_body(call: ChatCall) -> Body:
    """Return the body; raises InvalidRequest with the path of what Anthropic cannot do.

    Parameters without a counterpart (seed, penalties, log probabilities) are left out: the rules
    of the catalogue have named them to the caller. Others that do not go together, or that this
    model refuses, are left out and added to `call.ignored`.
    """
    params = {key: value for key, value in call.parameters.items() if value is not None}
    how = style(call.thinking)
    _refuse_unsupported(params)
    talk = conversation(params["messages"], call.system_turns)
    if talk.prefilled and not how.prefill:
        talk.go_on()
    ignored = []
    if how.forced and is_forced(params.get("tool_choice")):
        ignored += without_thinking(params)  # a model that thinks cannot be forced
    elif talk.prefilled and "thinking" not in params:
        ignored += without_thinking(params)  # nor can it go on with a turn
    limit = call.max_output_tokens
    room = _max_tokens(params, limit, default_budget(params, how))
    thought = thinking(params, how, room, talk.may_think)
    body: Body = {
        "model": call.model,
        "max_tokens": _max_tokens(params, limit, thought.budget) if how.budget else room,
        "messages": talk.turns,
        "stream": True,
    }
    ignored += ignored_thinking(params, how) + leave_out_beside(params, thought)
    _add_thinking(body, params, thought, talk)
    ignored += _add_sampling(body, params)
    ignored += _add_tools(body, params, talk, how)
    ignored += _add_service(body, params)
    if prompt := talk.prompt:
        body["system"] = prompt
    names = betas(call)
    if any(name.startswith(CONTEXT_EDITS) for name in names):
        ignored += _add_context_edits(body, params)
    elif "context_management" in params:
        ignored.append("context_management")
    fit_breakpoints(body, any(name.startswith(SCOPED_CACHES) for name in names))
    call.ignored.extend(name for name in ignored if name not in call.ignored)
    return body


def betas(call: ChatCall) -> list[str]:
    """Return the names of Anthropic's betas that the caller wants, as far as a header may hold."""
    names = call.parameters.get("betas")
    names = names if isinstance(names, list) else []
    return [name for name in names if isinstance(name, str) and BETA.fullmatch(name)]


def wants_json(call: ChatCall) -> bool:
    """Return whether the model is told to respond with JSON that Anthropic does not enforce."""
    return _json_instruction(call.parameters.get("response_format")) is not None


def _add_context_edits(body: Body, params: Mapping[str, Any]) -> list[str]:
    """Pass on the edits that clear old content; those of other kinds add blocks to responses."""
    config = params.get("context_management")
    edits = config.get("edits") if isinstance(config, Mapping) else None
    kept = [
        edit
        for edit in (edits if isinstance(edits, list) else ())
        if isinstance(edit, Mapping) and str(edit.get("type")).startswith("clear_")
    ]
    if kept:
        body["context_management"] = {"edits": kept}
    return ["context_management"] if edits != kept and config is not None else []


def _refuse_unsupported(params: Mapping[str, Any]) -> None:
    if params.get("n", 1) != 1:
        raise unsupported("n", "must be 1")
    if params.get("modalities", ["text"]) != ["text"]:
        raise unsupported("modalities", "must be ['text']")
    for name in ("audio", "functions", "function_call"):
        if name in params:
            raise unsupported_parameter(name)


def _max_tokens(params: Mapping[str, Any], limit: int | None, budget: int) -> int:
    chosen: int | None = params.get("max_completion_tokens") or params.get("max_tokens")
    tokens = chosen or MAX_TOKENS + budget
    return min(tokens, limit) if limit else tokens


def _add_thinking(
    body: Body, params: Mapping[str, Any], thought: Thinking, talk: Conversation
) -> None:
    if thought.on and talk.prefilled:
        path = f"messages[{talk.last_message}].role"
        raise unsupported(path, "may not be 'assistant' in the last message if the model thinks")
    if thought.config:
        body["thinking"] = thought.config
    config: Body = {"effort": thought.effort} if thought.effort else {}
    if words := _json_instruction(params.get("response_format")):
        talk.system.append(text(words))
    elif schema := _schema(params.get("response_format")):
        config["format"] = {"type": "json_schema", "schema": schema}
    if config:
        body["output_config"] = config


def _add_sampling(body: Body, params: Mapping[str, Any]) -> list[str]:
    ignored = []
    temperature, top_p = params.get("temperature", 1), params.get("top_p", 1)
    if temperature != 1 and top_p != 1:
        # Models since Claude Opus 4.1 refuse the two together.
        ignored.append("top_p")
    if temperature != 1 or ("temperature" in params and top_p == 1):
        body["temperature"] = temperature
    elif "top_p" in params:
        body["top_p"] = top_p
    if "top_k" in params:
        if type(params["top_k"]) is not int or params["top_k"] < 0:
            raise invalid("top_k", "expected an integer >= 0")
        body["top_k"] = params["top_k"]
    stops = params.get("stop", [])
    if stops := [s for s in ([stops] if isinstance(stops, str) else stops) if s.strip()]:
        body["stop_sequences"] = stops
    return ignored


def _add_tools(body: Body, params: Mapping[str, Any], talk: Conversation, how: Style) -> list[str]:
    ignored = []
    declared = tools(params)
    choice = tool_choice(params, declared)
    if choice is not None and choice["type"] in ("any", "tool"):
        if not declared:
            raise invalid("tool_choice", "only allowed when 'tools' are specified")
        if not how.forced:
            name = choice.pop("name", None)
            choice["type"] = "auto"
            talk.instruct(CALL_THE_TOOL.format(name) if name else CALL_A_TOOL)
            ignored.append("tool_choice")
    if not declared and (declared := used_tools(talk.turns)):
        choice = {"type": "none"}
    if declared:
        body["tools"] = declared
        if choice:
            body["tool_choice"] = choice
    return ignored


def _add_service(body: Body, params: Mapping[str, Any]) -> list[str]:
    if user := params.get("safety_identifier") or params.get("user"):
        if len(user) > MAX_USER_ID:
            user = hashlib.sha256(user.encode()).hexdigest()
        body["metadata"] = {"user_id": user}
    if "service_tier" in params:
        if params["service_tier"] not in TIERS:
            return ["service_tier"]
        body["service_tier"] = TIERS[params["service_tier"]]
    return []


def _schema(response_format: Mapping[str, Any] | None) -> Any:
    """Return the schema of the response in Anthropic's terms, or None if the caller sets none.

    Raises InvalidRequest for one that Anthropic cannot enforce.
    """
    if (response_format or {}).get("type", "text") != "json_schema":
        return None
    assert response_format is not None
    return binding_schema(
        response_format["json_schema"]["schema"], "response_format.json_schema.schema"
    )


def _json_instruction(response_format: Any) -> str | None:
    """Return what the model is told if the caller wants JSON that Anthropic does not enforce."""
    kind = (response_format or {}).get("type")
    if kind == "json_object":
        return JSON_ONLY
    try:
        _schema(response_format)
    except InvalidRequest:
        schema = orjson.dumps(response_format["json_schema"]["schema"]).decode()
        return f"{JSON_ONLY} It must match this JSON schema:\n{schema}"
    return None
