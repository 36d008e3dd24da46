"""gateway/catalogue/target.py: what a call is sent that may write so many tokens and no more."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.catalogue.catalogue import Catalogue
from gateway.chat import ChatCall
from gateway.settings import Settings
from providers.anthropic.wire import AnthropicWire
from providers.base import ORDINARY

CATALOGUE = Catalogue.load(Settings(key_pepper="p" * 40))
TURN = {"role": "user", "content": "Hello!"}


def sent(model: str, cap: int, **params: Any) -> dict[str, Any]:
    """What is left of these parameters for the model, but for the messages."""
    target = CATALOGUE.resolve(model)
    kept, dropped = target.fit({"messages": [TURN], **params}, target, cap=cap)
    assert dropped == []
    del kept["messages"]
    return kept


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("openai/gpt-6-luna", "max_completion_tokens"),
        ("openai/gpt-4o-mini", "max_tokens"),
        ("mistral/any", "max_tokens"),
        ("anthropic/claude-sonnet-4-5", "max_tokens"),
    ],
)
def test_a_call_without_a_limit_gets_one_under_the_model_s_own_name(model: str, name: str) -> None:
    assert sent(model, 700)[name] == 700


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(("limit", "capped"), [(50, 50), (700, 700), (9_000, 700)])
def test_a_limit_is_lowered_and_never_raised(name: str, limit: int, capped: int) -> None:
    kept = sent("openai/gpt-4o-mini", 700, **{name: limit})
    assert set(kept.values()) == {capped}


def test_choices_share_the_cap() -> None:
    assert 233 in sent("openai/gpt-4o-mini", 700, n=3).values()


def test_without_a_cap_nothing_is_added() -> None:
    assert sent("openai/gpt-4o-mini", 0) == {}


@pytest.mark.parametrize(
    ("cap", "thinking"),
    [
        (9_000, {"type": "enabled", "budget_tokens": 4_000}),
        (4_000, {"type": "enabled", "budget_tokens": 3_200}),
        (1_000, None),
    ],
)
def test_thinking_stays_below_the_cap(cap: int, thinking: Any) -> None:
    params = {"thinking": {"type": "enabled", "budget_tokens": 4_000}, "max_tokens": 9_000}
    kept = sent("anthropic/claude-sonnet-4-5", cap, **params)
    assert kept.get("thinking") == thinking
    wire = AnthropicWire("https://api.example", "key", {}, ORDINARY)
    call = ChatCall("claude-sonnet-4-5", {"messages": [TURN], **kept}, thinking="budget")
    assert wire.request(call).body  # Anthropic's rules hold


@pytest.mark.parametrize("effort", ["low", "high", "max"])
def test_an_effort_fits_the_cap(effort: str) -> None:
    kept = sent("anthropic/claude-sonnet-4-5", 2_000, reasoning_effort=effort)
    wire = AnthropicWire("https://api.example", "key", {}, ORDINARY)
    call = ChatCall("claude-sonnet-4-5", {"messages": [TURN], **kept}, thinking="budget")
    assert b'"max_tokens":2000' in wire.request(call).body
