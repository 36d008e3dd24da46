"""Whatever OpenAI takes, Anthropic takes in translation, or the caller is told what it cannot."""

import json
import re

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from api.chat.request import chat_request
from gateway.catalogue import parameters as rules
from gateway.catalogue.catalogue import Catalogue
from gateway.chat import ChatCall
from gateway.errors import InvalidRequest
from gateway.settings import Settings
from providers.anthropic.thinking import STYLES
from providers.anthropic.wire import AnthropicWire
from tests.support.anthropic_rules import violations
from tests.support.conversations import MESSAGES, PARAMETERS

WIRE = AnthropicWire("", "sk-ant-operator-key")
TARGET = Catalogue.load(Settings(variables={"ANTHROPIC_API_KEY": "k"})).resolve(
    "anthropic/claude-sonnet-4-5"
)


def wants_thinking(data):
    effort = data.get("reasoning_effort", "none")
    return data.get("thinking", {}).get("type") in ("enabled", "adaptive") or effort != "none"


def parts(data):
    for message in data["messages"]:
        if isinstance(message.get("content"), list):
            yield from message["content"]


def calls(data):
    return [message for message in data["messages"] if message.get("tool_calls")]


def lacks_results(data):
    called = sum(len(message["tool_calls"]) for message in calls(data))
    return sum(message["role"] == "tool" for message in data["messages"]) < called


def is_silent(data):
    """Whether no message says anything that Anthropic would hear."""
    words = [m["content"] for m in data["messages"] if isinstance(m.get("content"), str)]
    words += [part.get("text") or part.get("refusal") or "" for part in parts(data)]
    shown = any(part["type"] in ("image_url", "file") for part in parts(data))
    return not shown and not calls(data) and not any(word.strip() for word in words)


# What is refused, by the path that is named -> whether this request can give reason for it.
REASONS = {
    r"n": lambda data: data["n"] != 1,
    r"messages": is_silent,
    r"messages\[\d+\]\.tool_calls": lacks_results,
    r"messages\[\d+\]\.content\[\d+\]\.image_url\.url": lambda data: any(
        part["image_url"]["url"].startswith("http:")
        for part in parts(data)
        if part["type"] == "image_url"
    ),
    r"messages\[\d+\]\.content\[\d+\]\.file": lambda data: any(
        "file_id" in part["file"] for part in parts(data) if part["type"] == "file"
    ),
    r"messages\[\d+\]\.role": wants_thinking,
    r"thinking\.budget_tokens": lambda data: (
        data["thinking"]["budget_tokens"]
        >= min(
            data.get("max_completion_tokens") or data["max_tokens"], TARGET.row.max_output_tokens
        )
    ),
    r"tool_choice": lambda data: not data.get("tools"),
    r"tool_choice\.function\.name": lambda data: all(
        tool["function"]["name"] != data["tool_choice"]["function"]["name"]
        for tool in data.get("tools", ())
    ),
}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(MESSAGES, PARAMETERS, st.sampled_from([None, *STYLES]), st.booleans())
def test_a_request_keeps_anthropics_rules_or_is_refused_for_a_reason(
    messages, asked, style, system_turns
):
    data = {"model": "m", "messages": messages, **asked}
    request = chat_request(data, extra=TARGET.row.extra_parameters)
    before = json.dumps(data)
    try:
        parameters, _ = rules.apply(TARGET.row.parameters, request.parameters)
        call = ChatCall(
            "claude", parameters, True, TARGET.row.max_output_tokens, style, system_turns
        )
        body = json.loads(WIRE.request(call).body)
    except InvalidRequest as refusal:
        (reason,) = [path for path in REASONS if re.fullmatch(path, refusal.param or "")]
        event(f"refused: {reason}")
        assert REASONS[reason](data), refusal.message
    else:
        event("translated")
        assert violations(body) == []
    assert json.dumps(data) == before


HI = {"type": "text", "text": "Hi"}
BROKEN = {
    "two turns of the user": {"messages": [{"role": "user", "content": [HI]}] * 2},
    "an assistant first": {"messages": [{"role": "assistant", "content": [HI]}]},
    "no text": {"messages": [{"role": "user", "content": [{"type": "text", "text": " "}]}]},
    "no tokens": {"max_tokens": 0},
    "hot": {"temperature": 1.1},
    "small budget": {"thinking": {"type": "enabled", "budget_tokens": 1000}},
    "large budget": {"thinking": {"type": "enabled", "budget_tokens": 5000}},
    "five breakpoints": {
        "messages": [
            {"role": "user", "content": [{**HI, "cache_control": {"type": "ephemeral"}}] * 5}
        ]
    },
    "a call without its result": {
        "messages": [
            {"role": "user", "content": [HI]},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}],
            },
        ]
    },
    "a result of no call": {
        "messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}]
    },
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_the_rules_themselves_find_what_is_wrong(change):
    right = {
        "model": "m",
        "max_tokens": 2048,
        "stream": True,
        "messages": [{"role": "user", "content": [HI]}],
    }
    assert violations(right) == []
    assert violations({**right, **change}) != []
