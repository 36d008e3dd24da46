"""Anthropic's parameters for thinking: budgets, adaptive thinking and effort.

Sources: platform.claude.com/docs, "Extended thinking", "Adaptive thinking", "Effort" and the
migration guide of Claude Sonnet 5.5, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from providers.anthropic.refusals import invalid, unsupported_parameter

MIN_BUDGET = 1024  # tokens

# OpenAI's reasoning_effort -> tokens of thinking, for models that take a budget.
BUDGETS = {
    "minimal": 1024,
    "low": 1024,
    "medium": 4096,
    "high": 16_384,
    "xhigh": 32_768,
    "max": 32_768,
}
# OpenAI's reasoning_effort -> Anthropic's effort.
EFFORTS = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
OWN_EFFORTS = ("low", "medium", "high", "xhigh", "max")
TYPES = ("enabled", "adaptive", "disabled", "between_tools")
TYPES_OFF = ("disabled", "between_tools")
DISPLAYS = ("summarized", "omitted")
# While a model thinks, temperature and top_k cannot be set, and top_p must be at least this.
MIN_TOP_P = 0.95


@dataclass(frozen=True, slots=True)
class Style:
    """How one family of models thinks.

    `budget`: it takes a number of tokens, and does not decide by itself. `off`: the type of
    `thinking` that turns thinking off, None if nothing does. `forced`: it can be forced to use a
    tool. `prefill`: it continues a turn that the assistant has begun.
    """

    budget: bool = False
    off: str | None = "disabled"
    forced: bool = True
    prefill: bool = False


# The `thinking` of a model's row -> its style.
STYLES = {
    "budget": Style(budget=True, prefill=True),  # up to Claude Sonnet 4.5, Opus 4.5 and Haiku 4.5
    "adaptive": Style(),  # Claude Sonnet 4.6 and 5, Opus 4.6 to 5
    "between_tools": Style(off="between_tools", forced=False),  # Claude Sonnet 5.5
    "always": Style(off=None, forced=False),  # Claude Opus 5.5 and Fable
}
# The style of models whose row has no `thinking`.
DEFAULT = "budget"


@dataclass(frozen=True, slots=True)
class Thinking:
    """The fields of a request: `thinking` (`config`) and `output_config.effort` (`effort`)."""

    config: Mapping[str, Any] | None = None
    effort: str | None = None

    @property
    def budget(self) -> int:
        """Tokens set aside for thinking, or 0."""
        return int((self.config or {}).get("budget_tokens", 0))

    @property
    def on(self) -> bool:
        """Whether the request turns thinking on."""
        return (self.config or {}).get("type") in ("enabled", "adaptive")


def style(name: str | None) -> Style:
    """Return the style with this name; the default for None and unknown names."""
    return STYLES.get(name or DEFAULT, STYLES[DEFAULT])


def thinking(params: Mapping[str, Any], how: Style, room: int, able: bool) -> Thinking:
    """Return the fields about thinking; raises InvalidRequest for a wrong `thinking`.

    `room` is the maximum of tokens for the response and its thinking together. `able` is whether
    the conversation lets a model with a budget think: see Conversation.may_think.
    """
    chosen = _chosen(params, how, room, able)
    own = _own_effort(params.get("output_config") or {})
    if own:
        chosen = replace(chosen, effort=own)
    if chosen.effort in ("xhigh", "max") and (chosen.config or {}).get("type") == "between_tools":
        return replace(chosen, effort="high")  # the API refuses more
    return chosen


def _chosen(params: Mapping[str, Any], how: Style, room: int, able: bool) -> Thinking:
    own = params.get("thinking")
    effort = params.get("reasoning_effort")
    level = EFFORTS.get(effort or "")
    if own is not None:
        config = _in_style(_checked(own, room), how, room)
        if config and "budget_tokens" in config and not able:
            # Anthropic too ignores thinking that is turned on in the middle of a turn.
            return Thinking()
        return Thinking(config, None if how.budget else level)
    if effort is None:
        return Thinking()
    if effort == "none":
        return _off(how)
    if not how.budget:
        # Newer models return no text of their thinking unless a display is set.
        return Thinking({"type": "adaptive", "display": "summarized"}, level)
    # An effort is a hint: it is ignored if there is no room for the smallest budget.
    budget = min(BUDGETS.get(effort, MIN_BUDGET), max(room * 4 // 5, MIN_BUDGET))
    if not able or budget >= room:
        return Thinking()
    return Thinking({"type": "enabled", "budget_tokens": budget})


def _in_style(config: Mapping[str, Any], how: Style, room: int) -> Mapping[str, Any] | None:
    """Return a caller's `thinking` in the terms of this model's family; None to say nothing.

    Clients send what another model understands, above all after a failover.
    """
    kind = config["type"]
    if kind in TYPES_OFF:
        if how.budget:
            return {"type": "disabled"} if kind == "disabled" else None
        return {**config, "type": how.off} if how.off else None
    if how.budget and kind == "adaptive":
        budget = min(BUDGETS["high"], room * 4 // 5)
        return (
            {**config, "type": "enabled", "budget_tokens": budget} if budget >= MIN_BUDGET else None
        )
    if not how.budget and kind == "enabled":
        return {k: v for k, v in config.items() if k == "display"} | {"type": "adaptive"}
    return config


def _own_effort(config: Any) -> str | None:
    """Return Anthropic's own effort, which turns no thinking on; no schema has checked it."""
    if not isinstance(config, Mapping):
        raise invalid("output_config", "expected an object")
    for name in config:
        if name != "effort":
            raise unsupported_parameter(f"output_config.{name[:64]}")
    effort = config.get("effort")
    if effort is not None and effort not in OWN_EFFORTS:
        raise invalid("output_config.effort", f"expected one of {', '.join(OWN_EFFORTS)}")
    return str(effort) if effort else None


def default_budget(params: Mapping[str, Any], how: Style) -> int:
    """Return the tokens of thinking to add to the default limit of a response."""
    own, effort = params.get("thinking"), params.get("reasoning_effort")
    kind = own.get("type") if isinstance(own, Mapping) else None
    if isinstance(own, Mapping) and kind == "enabled":
        budget = own.get("budget_tokens")
        return budget if type(budget) is int else 0
    if effort == "none" or kind in TYPES_OFF:
        return 0
    # Thinking without a budget counts as output too; the effort is high by default.
    return BUDGETS.get(effort or ("" if how.budget else "high"), 0)


def ignored_thinking(params: Mapping[str, Any], how: Style) -> list[str]:
    """Return the name of the parameter that turns thinking off where nothing does."""
    own = params.get("thinking")
    off = isinstance(own, Mapping) and own.get("type") in TYPES_OFF
    return ["thinking"] if off and how.off is None else []


def without_thinking(params: dict[str, Any]) -> list[str]:
    """Remove the parameters that turn thinking on; return their names."""
    own = params.get("thinking")
    on = {
        "thinking": isinstance(own, Mapping) and own.get("type") not in TYPES_OFF,
        "reasoning_effort": params.get("reasoning_effort", "none") != "none",
    }
    names = [name for name, holds in on.items() if holds]
    for name in names:
        del params[name]
    return names


def leave_out_beside(params: dict[str, Any], chosen: Thinking) -> list[str]:
    """Remove the parameters that Anthropic refuses if the model thinks; return their names."""
    refused = {
        "temperature": params.get("temperature", 1) != 1,
        "top_p": not MIN_TOP_P <= params.get("top_p", 1) <= 1,
        "top_k": "top_k" in params,
    }
    names = [name for name, holds in refused.items() if holds and chosen.on]
    for name in names:
        del params[name]
    return names


def _off(how: Style) -> Thinking:
    # Older models do not think unless a request turns it on; some of the newest always do.
    if how.budget:
        return Thinking()
    return Thinking({"type": how.off}) if how.off else Thinking(effort="low")


def _checked(own: Any, room: int) -> Mapping[str, Any]:
    """Return the fields of the caller's `thinking` that Anthropic has; no schema has checked it."""
    kind = own.get("type") if isinstance(own, Mapping) else None
    if kind not in TYPES:
        raise invalid("thinking.type", f"expected one of {', '.join(TYPES)}")
    config: dict[str, Any] = {"type": kind}
    if kind == "enabled" and own.get("budget_tokens") is None:
        config["type"] = "adaptive"  # as other providers are told to think
    elif kind == "enabled":
        budget = own["budget_tokens"]
        if type(budget) is not int or budget < MIN_BUDGET:
            raise invalid("thinking.budget_tokens", f"expected an integer >= {MIN_BUDGET}")
        if budget >= room:
            raise invalid("thinking.budget_tokens", f"expected less than 'max_tokens' ({room})")
        config["budget_tokens"] = budget
    if (display := own.get("display")) is not None:
        if display not in DISPLAYS:
            raise invalid("thinking.display", f"expected one of {', '.join(DISPLAYS)}")
        config["display"] = display
    return config
