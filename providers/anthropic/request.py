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
    style,
    thinking,
    wanted_budget,
)
from providers.anthropic.tools import is_forced, tool_choice, tools, used_tools

MAX_TOKENS = 8192  # where the caller names no limit: Anthropic wants one
MAX_USER_ID = 256  # characters

# OpenAI's service tier -> Anthropic's. Only "auto" may use priority capacity.
TIERS = {"auto": "auto", "priority": "auto", "default": "standard_only"}

Body = dict[str, Any]


def request_body(call: ChatCall) -> Body:
    """The body; raises InvalidRequest, naming the path of what cannot be said to Anthropic.

    Tuning knobs without a counterpart (seed, penalties, log probabilities) are left out: the
    catalogue's policy has named them to the caller.
    """
    asked = {key: value for key, value in call.parameters.items() if value is not None}
    how = style(call.thinking)
    _refuse_unsupported(asked)
    talk = conversation(asked["messages"])
    limit = call.max_output_tokens
    wanted = wanted_budget(asked, how)
    room = _max_tokens(asked, limit, wanted)
    thought = thinking(asked, how, room, talk.may_think)
    body: Body = {
        "model": call.model,
        "max_tokens": _max_tokens(asked, limit, thought.budget) if how.budget else room,
        "messages": talk.turns,
        "stream": True,
    }
    if prompt := talk.prompt:
        body["system"] = prompt
    _say_thinking(body, asked, thought, talk)
    _say_sampling(body, asked)
    _say_tools(body, asked, talk, thought, how)
    _say_service(body, asked)
    check_breakpoints(body)
    return body


def _refuse_unsupported(asked: Mapping[str, Any]) -> None:
    if asked.get("n", 1) != 1:
        raise unsupported("n", "must be 1")
    if asked.get("modalities", ["text"]) != ["text"]:
        raise unsupported("modalities", "must be ['text']")
    for name in ("audio", "functions", "function_call", "web_search_options"):
        if name in asked:
            raise unsupported_parameter(name)


def _max_tokens(asked: Mapping[str, Any], limit: int | None, budget: int) -> int:
    named: int | None = asked.get("max_completion_tokens") or asked.get("max_tokens")
    wanted = named or MAX_TOKENS + budget
    return min(wanted, limit) if limit else wanted


def _say_thinking(
    body: Body, asked: Mapping[str, Any], thought: Thinking, talk: Conversation
) -> None:
    check_beside(asked, thought)
    if thought.on and talk.prefilled:
        path = f"messages[{talk.last_message}].role"
        raise unsupported(path, "may not be 'assistant' at the end where the model thinks")
    if thought.config:
        body["thinking"] = thought.config
    config: Body = {"effort": thought.effort} if thought.effort else {}
    if schema := _schema(asked.get("response_format")):
        config["format"] = {"type": "json_schema", "schema": schema}
    if config:
        body["output_config"] = config


def _say_sampling(body: Body, asked: Mapping[str, Any]) -> None:
    temperature, top_p = min(asked.get("temperature", 1), 1), asked.get("top_p", 1)
    if temperature != 1 and top_p != 1:
        # The models since Claude Opus 4.1 refuse the two together.
        raise unsupported("top_p", "cannot be set together with 'temperature'")
    if temperature != 1 or ("temperature" in asked and top_p == 1):
        body["temperature"] = temperature
    elif "top_p" in asked:
        body["top_p"] = top_p
    if "top_k" in asked:
        if type(asked["top_k"]) is not int or asked["top_k"] < 0:
            raise invalid("top_k", "expected an integer >= 0")
        body["top_k"] = asked["top_k"]
    stops = asked.get("stop", [])
    if stops := [s for s in ([stops] if isinstance(stops, str) else stops) if s.strip()]:
        body["stop_sequences"] = stops


def _say_tools(
    body: Body, asked: Mapping[str, Any], talk: Conversation, thought: Thinking, how: Style
) -> None:
    declared = tools(asked.get("tools") or ())
    choice = tool_choice(asked, declared)
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
        raise unsupported("tool_choice", "cannot force the use of a tool where the model thinks")


def _say_service(body: Body, asked: Mapping[str, Any]) -> None:
    if user := asked.get("safety_identifier") or asked.get("user"):
        if len(user) > MAX_USER_ID:
            user = hashlib.sha256(user.encode()).hexdigest()
        body["metadata"] = {"user_id": user}
    if "service_tier" in asked:
        if asked["service_tier"] not in TIERS:
            raise unsupported("service_tier", f"does not support '{asked['service_tier']}'")
        body["service_tier"] = TIERS[asked["service_tier"]]


def _schema(wanted: Mapping[str, Any] | None) -> Any:
    kind = (wanted or {}).get("type", "text")
    if kind == "text":
        return None
    if wanted is None or kind != "json_schema":
        raise unsupported("response_format.type", f"does not support '{kind}'")
    return binding_schema(wanted["json_schema"]["schema"], "response_format.json_schema.schema")
