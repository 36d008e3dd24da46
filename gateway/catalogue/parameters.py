"""What to do with a parameter that a model does not take as OpenAI's chat models do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.errors import InvalidRequest
from gateway.settings import ConfigurationError


@dataclass(frozen=True, slots=True)
class Rule:
    """One parameter's treatment; at most one of the first six fields is set, none to pass it on.

    `rename` sends it under another name; `drop` leaves it out and names it to the caller;
    `refuse` answers 400; `only` leaves out that one value and answers 400 to any other;
    `clamp` moves a number into a range; `default` is sent where the caller says nothing.

    `when` names a parameter without which the rule does not hold, `unless` values of other
    parameters with which it does not.
    """

    rename: str | None = None
    drop: bool = False
    refuse: bool = False
    only: float | None = None
    clamp: tuple[float, float] | None = None
    default: Any = None
    when: str | None = None
    unless: Mapping[str, Any] = field(default_factory=dict)

    def holds(self, parameters: Mapping[str, Any]) -> bool:
        """Whether the rule's conditions are met."""
        if self.when is not None and not parameters.get(self.when):
            return False
        return not any(parameters.get(name) == value for name, value in self.unless.items())


PASS = Rule()

# What tunes an answer and asks for none: a substitute may do without.
KNOBS = frozenset(
    "temperature top_p top_k top_a min_p presence_penalty frequency_penalty repetition_penalty"
    " repeat_penalty logit_bias seed random_seed reasoning_effort verbosity thinking output_config"
    " reasoning cache_prompt".split()
)

ACTIONS: dict[str, Callable[[Any], bool]] = {
    "pass": lambda value: value is True,
    "rename": lambda value: isinstance(value, str),
    "drop": lambda value: value is True,
    "refuse": lambda value: value is True,
    "only": lambda value: type(value) in (int, float),
    "clamp": lambda value: isinstance(value, list) and len(value) == 2,
    "default": lambda value: isinstance(value, (str, int, float)),
}
CONDITIONS: dict[str, Callable[[Any], bool]] = {
    "when": lambda value: isinstance(value, str),
    "unless": lambda value: isinstance(value, dict),
}
WANTED = {**ACTIONS, **CONDITIONS}


def rules(row: str, table: Any) -> dict[str, Rule]:
    """The rules of a row's `parameters` table; raises ConfigurationError."""
    made: dict[str, Rule] = {}
    for parameter, action in dict(table).items():
        if not _is_rule(action):
            known = f"one of {sorted(ACTIONS)} is wanted, with `when` or `unless` beside it"
            raise ConfigurationError(f'models file, "{row}", {parameter}: {known}')
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in action.items()
            if name != "pass"
        }
        made[parameter] = Rule(**values)
    return made


def merge(*tables: Mapping[str, Rule]) -> dict[str, Rule]:
    """The rules of all tables; a later one's stand before an earlier one's."""
    merged: dict[str, Rule] = {}
    for table in tables:
        merged.update(table)
    return {name: rule for name, rule in merged.items() if rule != PASS}


def apply(
    rules: Mapping[str, Rule], parameters: dict[str, Any], lenient: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """The parameters as the model takes them, and the names of those left out.

    `lenient` is for a model that answers in another's place, whose caller could not know its
    rules: a knob (see KNOBS) that `only` would refuse is left out instead.

    Raises InvalidRequest with OpenAI's codes `unsupported_parameter` and `unsupported_value`.
    """
    parameters = _with_defaults(rules, parameters)
    if not rules or not (rules.keys() & parameters.keys()):
        return parameters, []
    kept: dict[str, Any] = {}
    dropped: list[str] = []
    for name, value in parameters.items():
        rule = rules.get(name)
        if rule is None or not rule.holds(parameters):
            kept[name] = value
        elif rule.drop:
            dropped.append(name)
        elif rule.refuse:
            raise _unsupported(name)
        elif rule.rename is not None:
            kept.setdefault(rule.rename, parameters.get(rule.rename, value))
        elif rule.clamp is not None:
            low, high = rule.clamp
            kept[name] = min(max(value, low), high)
        elif rule.only is None:  # a default that the caller has overridden
            kept[name] = value
        elif value != rule.only:
            if not lenient or name not in KNOBS:
                raise _unsupported_value(name, value, rule.only)
            dropped.append(name)
    return kept, dropped


def check_knobs(unknown: Iterable[str]) -> None:
    """Raises InvalidRequest where one of these parameters is more than a knob."""
    for name in unknown:
        if name not in KNOBS:
            raise _unsupported(name)


def taken(rules: Mapping[str, Rule], name: str) -> bool:
    """Whether a model with these rules makes anything of this parameter."""
    rule = rules.get(name, PASS)
    return not (rule.drop or rule.refuse or rule.only is not None) or bool(rule.unless)


def _with_defaults(rules: Mapping[str, Rule], parameters: dict[str, Any]) -> dict[str, Any]:
    defaults = {
        name: rule.default
        for name, rule in rules.items()
        if rule.default is not None and name not in parameters and rule.holds(parameters)
    }
    return {**parameters, **defaults} if defaults else parameters


def _is_rule(action: Any) -> bool:
    return (
        isinstance(action, dict)
        and len(action.keys() & ACTIONS.keys()) == 1
        and all(name in WANTED and WANTED[name](value) for name, value in action.items())
    )


def _unsupported(name: str) -> InvalidRequest:
    return InvalidRequest(
        f"Unsupported parameter: '{name}' is not supported with this model.",
        param=name,
        code="unsupported_parameter",
    )


def _unsupported_value(name: str, value: object, only: float | None) -> InvalidRequest:
    return InvalidRequest(
        f"Unsupported value: '{name}' does not support {value!r:.64} with this model. "
        f"Only the default ({only:g}) value is supported.",
        param=name,
        code="unsupported_value",
    )
