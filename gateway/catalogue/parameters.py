"""Parameter rules: how a model differs from OpenAI's chat models in the parameters it takes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
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
REFUSE = Rule(refuse=True)

# Parameters that tune a response and ask for nothing: a substitute may do without them.
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
RULE_FIELDS = {**ACTIONS, **CONDITIONS}


def rules(row: str, table: Any) -> dict[str, Rule]:
    """The rules of a row's `parameters` table; raises ConfigurationError."""
    parsed: dict[str, Rule] = {}
    for parameter, action in dict(table).items():
        if not _is_rule(action):
            known = f"expected one of {sorted(ACTIONS)}, and perhaps `when` or `unless`"
            raise ConfigurationError(f'models file, "{row}", {parameter}: {known}')
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in action.items()
            if name != "pass"
        }
        parsed[parameter] = Rule(**values)
    return parsed


def merge(*tables: Mapping[str, Rule]) -> dict[str, Rule]:
    """The rules of all tables; of two rules for one parameter, the later table's."""
    merged: dict[str, Rule] = {}
    for table in tables:
        merged.update(table)
    return {name: rule for name, rule in merged.items() if rule != PASS}


def apply(
    rules: Mapping[str, Rule], params: Mapping[str, Any], optional: Collection[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """The parameters as the model takes them, and the names of those that are left out.

    A parameter named in `optional` is left out where the rules would refuse it. Conditions are
    checked against the parameters as the caller sent them.

    Raises InvalidRequest with OpenAI's codes `unsupported_parameter` and `unsupported_value`.
    """
    params = _with_defaults(rules, params)
    if not rules or not (rules.keys() & params.keys()):
        return params, []
    kept: dict[str, Any] = {}
    dropped: list[str] = []
    for name, value in params.items():
        rule = rules.get(name)
        if rule is None or not rule.holds(params):
            kept[name] = value
        elif rule.drop:
            dropped.append(name)
        elif rule.rename is not None:
            kept.setdefault(rule.rename, params.get(rule.rename, value))
        elif rule.clamp is not None:
            low, high = rule.clamp
            kept[name] = min(max(value, low), high)
        elif rule.refuse or (rule.only is not None and value != rule.only):
            if name not in optional:
                raise _unsupported(name, value, rule)
            dropped.append(name)
        elif rule.only is None:  # a default that the caller has overridden
            kept[name] = value
    return kept, dropped


def taken(rules: Mapping[str, Rule], name: str) -> bool:
    """Whether this parameter has an effect on a model with these rules."""
    rule = rules.get(name, PASS)
    return not (rule.drop or rule.refuse or rule.only is not None) or bool(rule.unless)


def _with_defaults(rules: Mapping[str, Rule], params: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {
        name: rule.default
        for name, rule in rules.items()
        if rule.default is not None and name not in params and rule.holds(params)
    }
    return {**params, **defaults}


def _is_rule(action: Any) -> bool:
    return (
        isinstance(action, dict)
        and len(action.keys() & ACTIONS.keys()) == 1
        and all(name in RULE_FIELDS and RULE_FIELDS[name](value) for name, value in action.items())
    )


def _unsupported(name: str, value: object, rule: Rule) -> InvalidRequest:
    if rule.refuse:
        return InvalidRequest(
            f"Unsupported parameter: '{name}' is not supported with this model.",
            param=name,
            code="unsupported_parameter",
        )
    return InvalidRequest(
        f"Unsupported value: '{name}' does not support {value!r:.64} with this model. "
        f"Only the default ({rule.only:g}) value is supported.",
        param=name,
        code="unsupported_value",
    )
