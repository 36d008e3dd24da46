"""A chat call as the body of an Anthropic Messages request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from gateway.chat import ChatCall
from providers.anthropic.blocks import Block
from providers.anthropic.messages import Conversation, check_breakpoints, conversation
from providers.anthropic.refusals import invalid, unsupported, unsupported_parameter
from providers.anthropic.schema import binding_schema
from providers.anthropic.thinking import (
    Style,
    Thinking,
    check_beside,
    default_budget,
    style,
    thinking,
)
from providers.anthropic.tools import is_forced, tool_choice, tools, used_tools

MAX_TOKENS = 8192  # if the caller sets no limit: Anthropic requires one
MAX_USER_ID = 256  # characters

# OpenAI's service tier -> Anthropic's. Only "auto" may use priority capacity.
TIERS = {"auto": "auto", "priority": "auto", "default": "standard_only"}

Body = dict[str, Any]


def request_body(call: ChatCall) -> Body:
    """Return the body; raises InvalidRequest with the path of what Anthropic cannot do.

    Parameters without a counterpart (seed, penalties, log probabilities) are left out: the rules
    of the catalogue have named them to the caller.
    """
    params = {key: value for key, value in call.parameters.items() if value is not None}
    how = style(call.thinking)
    _refuse_unsupported(params)
    talk = conversation(params["messages"])
    limit = call.max_output_tokens
    room = _max_tokens(params, limit, default_budget(params, how))
    thought = thinking(params, how, room, talk.may_think)
    body: Body = {
        "model": call.model,
        "max_tokens": _max_tokens(params, limit, thought.budget) if how.budget else room,
        "messages": talk.turns,
        "stream": True,
    }
    if prompt := talk.prompt:
        body["system"] = prompt
    _add_thinking(body, params, thought, talk)
    _add_sampling(body, params)
    _add_tools(body, params, talk, thought, how)
    _add_service(body, params)
    check_breakpoints(body)
    return body


def _refuse_unsupported(params: Mapping[str, Any]) -> None:
    if params.get("n", 1) != 1:
        raise unsupported("n", "must be 1")
    if params.get("modalities", ["text"]) != ["text"]:
        raise unsupported("modalities", "must be ['text']")
    for name in ("audio", "functions", "function_call", "web_search_options"):
        if name in params:
            raise unsupported_parameter(name)


def _max_tokens(params: Mapping[str, Any], limit: int | None, budget: int) -> int:
    chosen: int | None = params.get("max_completion_tokens") or params.get("max_tokens")
    tokens = chosen or MAX_TOKENS + budget
    return min(tokens, limit) if limit else tokens


def _add_thinking(
    body: Body, params: Mapping[str, Any], thought: Thinking, talk: Conversation
) -> None:
    check_beside(params, thought)
    if thought.on and talk.prefilled:
        path = f"messages[{talk.last_message}].role"
        raise unsupported(path, "may not be 'assistant' in the last message if the model thinks")
    if thought.config:
        body["thinking"] = thought.config
    config: Body = {"effort": thought.effort} if thought.effort else {}
    if schema := _schema(params.get("response_format")):
        config["format"] = {"type": "json_schema", "schema": schema}
    if config:
        body["output_config"] = config


def _add_sampling(body: Body, params: Mapping[str, Any]) -> None:
    temperature, top_p = min(params.get("temperature", 1), 1), params.get("top_p", 1)
    if temperature != 1 and top_p != 1:
        # Models since Claude Opus 4.1 refuse the two together.
        raise unsupported("top_p", "cannot be set together with 'temperature'")
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


def _add_tools(
    body: Body, params: Mapping[str, Any], talk: Conversation, thought: Thinking, how: Style
) -> None:
    declared = tools(params.get("tools") or ())
    choice = tool_choice(params, declared)
    if is_forced(choice):
        _check_forced(declared, thought, how)
    if not declared and (declared := used_tools(talk.turns)):
        choice = {"type": "none"}
    if declared:
        body["tools"] = declared
        if choice:
            body["tool_choice"] = choice


def _check_forced(declared: list[Block], thought: Thinking, how: Style) -> None:
    if not declared:
        raise invalid("tool_choice", "only allowed when 'tools' are specified")
    if not how.forced:
        raise unsupported("tool_choice", "cannot force the use of a tool")
    if thought.on:
        raise unsupported("tool_choice", "cannot force the use of a tool if the model thinks")


def _add_service(body: Body, params: Mapping[str, Any]) -> None:
    if user := params.get("safety_identifier") or params.get("user"):
        if len(user) > MAX_USER_ID:
            user = hashlib.sha256(user.encode()).hexdigest()
        body["metadata"] = {"user_id": user}
    if "service_tier" in params:
        if params["service_tier"] not in TIERS:
            raise unsupported("service_tier", f"does not support '{params['service_tier']}'")
        body["service_tier"] = TIERS[params["service_tier"]]


def _schema(response_format: Mapping[str, Any] | None) -> Any:
    kind = (response_format or {}).get("type", "text")
    if kind == "text":
        return None
    if response_format is None or kind != "json_schema":
        raise unsupported("response_format.type", f"does not support '{kind}'")
    return binding_schema(
        response_format["json_schema"]["schema"], "response_format.json_schema.schema"
    )
