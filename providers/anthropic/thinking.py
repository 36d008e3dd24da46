"""How Anthropic's models are told to think: budgets, adaptive thinking and effort.

Sources: platform.claude.com/docs, "Extended thinking", "Adaptive thinking", "Effort" and the
migration guide of Claude Sonnet 5.5, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from providers.anthropic.refusals import invalid, unsupported, unsupported_parameter

MIN_BUDGET = 1024  # tokens

# OpenAI's reasoning_effort -> tokens of thinking, for the models that take a budget.
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
DISPLAYS = ("summarized", "omitted")
# While a model thinks, temperature and top_k stay as they are, and top_p can only be so low.
LEAST_TOP_P = 0.95


@dataclass(frozen=True, slots=True)
class Style:
    """How one family of models thinks.

    `budget` tells the models that want a number of tokens from those that judge by themselves;
    `off` is how such a model is told not to think first, None where it always does; `forced` is
    false for those that refuse to be forced to use a tool.
    """

    budget: bool = False
    off: str | None = "disabled"
    forced: bool = True


# What a model's `thinking` may say -> how to speak to it.
STYLES = {
    "budget": Style(budget=True),  # up to Claude Sonnet 4.5, Opus 4.5 and Haiku 4.5
    "adaptive": Style(),  # Claude Sonnet 4.6 and 5, Opus 4.6 to 5
    "between_tools": Style(off="between_tools", forced=False),  # Claude Sonnet 5.5
    "always": Style(off=None, forced=False),  # Claude Opus 5.5 and Fable
}
# What nothing is known of is taken for a model that wants a budget, as the first of ours do.
DEFAULT = "budget"


@dataclass(frozen=True, slots=True)
class Thinking:
    """What a request says about thinking: `config` and `effort` as Anthropic names them."""

    config: Mapping[str, Any] | None = None
    effort: str | None = None

    @property
    def budget(self) -> int:
        """Tokens set aside for thinking; 0 where none are."""
        return int((self.config or {}).get("budget_tokens", 0))

    @property
    def on(self) -> bool:
        """Whether the model is told to think before it speaks."""
        return (self.config or {}).get("type") in ("enabled", "adaptive")


def style(name: str | None) -> Style:
    """The style of this name; an unknown one is the default."""
    return STYLES.get(name or DEFAULT, STYLES[DEFAULT])


def thinking(asked: Mapping[str, Any], how: Style, room: int, able: bool) -> Thinking:
    """What to say about thinking; raises InvalidRequest for a `thinking` that cannot be.

    `room` is the number of tokens that the answer and its thinking may take together, `able`
    whether the conversation lets a model with a budget think: one that has used a tool goes on
    only from the thinking that made it do so.
    """
    chosen = _chosen(asked, how, room, able)
    own = _own_effort(asked.get("output_config") or {})
    return replace(chosen, effort=own) if own else chosen


def _chosen(asked: Mapping[str, Any], how: Style, room: int, able: bool) -> Thinking:
    said = asked.get("thinking")
    effort = asked.get("reasoning_effort")
    level = EFFORTS.get(effort or "")
    if said is not None:
        config = _checked(said, room)
        if "budget_tokens" in config and not able:
            # Anthropic does without thinking, too, where it is turned on in the middle of a turn.
            return Thinking()
        return Thinking(config, None if how.budget else level)
    if effort is None:
        return Thinking()
    if effort == "none":
        return _off(how)
    if not how.budget:
        # The newer of these show nothing of their thinking unless told to.
        return Thinking({"type": "adaptive", "display": "summarized"}, level)
    # An effort is a hint: where there is no room for the least of budgets, it is not followed.
    budget = min(BUDGETS.get(effort, MIN_BUDGET), max(room * 4 // 5, MIN_BUDGET))
    if not able or budget >= room:
        return Thinking()
    return Thinking({"type": "enabled", "budget_tokens": budget})


def _own_effort(said: Any) -> str | None:
    """Anthropic's own effort, which turns no thinking on; no schema has seen it."""
    if not isinstance(said, Mapping):
        raise invalid("output_config", "expected an object")
    for name in said:
        if name != "effort":
            raise unsupported_parameter(f"output_config.{name[:64]}")
    effort = said.get("effort")
    if effort is not None and effort not in OWN_EFFORTS:
        raise invalid("output_config.effort", f"expected one of {', '.join(OWN_EFFORTS)}")
    return str(effort) if effort else None


def wanted_budget(asked: Mapping[str, Any], how: Style) -> int:
    """Tokens of thinking to add to the limit of an answer for which the caller named none."""
    said, effort = asked.get("thinking"), asked.get("reasoning_effort")
    kind = said.get("type") if isinstance(said, Mapping) else None
    if isinstance(said, Mapping) and kind == "enabled":
        budget = said.get("budget_tokens")
        return budget if type(budget) is int else 0
    if effort == "none" or kind in ("disabled", "between_tools"):
        return 0
    # Without a budget its thinking still counts as output; its effort is high by default.
    return BUDGETS.get(effort or ("" if how.budget else "high"), 0)


def check_beside(asked: Mapping[str, Any], chosen: Thinking) -> None:
    """Raises InvalidRequest for what Anthropic does not take of a model that thinks first."""
    if not chosen.on:
        return
    if asked.get("temperature", 1) != 1:
        raise unsupported("temperature", "must be 1 where the model thinks")
    if not LEAST_TOP_P <= asked.get("top_p", 1) <= 1:
        raise unsupported("top_p", f"must be {LEAST_TOP_P} or more where the model thinks")
    if "top_k" in asked:
        raise unsupported("top_k", "cannot be set where the model thinks")


def _off(how: Style) -> Thinking:
    if how.off is None:
        raise unsupported("reasoning_effort", "does not support 'none'")
    # The older models do not think unless told to.
    return Thinking() if how.budget else Thinking({"type": how.off})


def _checked(said: Any, room: int) -> Mapping[str, Any]:
    """The caller's own `thinking`, which no schema has seen: only what Anthropic knows of it."""
    kind = said.get("type") if isinstance(said, Mapping) else None
    if kind not in TYPES:
        raise invalid("thinking.type", f"expected one of {', '.join(TYPES)}")
    config: dict[str, Any] = {"type": kind}
    if kind == "enabled":
        budget = said.get("budget_tokens")
        if type(budget) is not int or budget < MIN_BUDGET:
            raise invalid("thinking.budget_tokens", f"expected an integer >= {MIN_BUDGET}")
        if budget >= room:
            raise invalid("thinking.budget_tokens", f"expected less than 'max_tokens' ({room})")
        config["budget_tokens"] = budget
    if (display := said.get("display")) is not None:
        if display not in DISPLAYS:
            raise invalid("thinking.display", f"expected one of {', '.join(DISPLAYS)}")
        config["display"] = display
    return config
