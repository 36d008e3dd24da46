"""What to do with a parameter that a model does not take as OpenAI's chat models do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import InvalidRequest
from gateway.settings import ConfigurationError


@dataclass(frozen=True, slots=True)
class Rule:
    """One parameter's treatment; exactly one of the fields is set.

    `rename` sends it under another name; `drop` leaves it out and names it to the caller;
    `refuse` answers 400; `only` leaves out that one value and answers 400 to any other;
    `clamp` moves a number into a range.
    """

    rename: str | None = None
    drop: bool = False
    refuse: bool = False
    only: float | None = None
    clamp: tuple[float, float] | None = None


WANTED: dict[str, Callable[[Any], bool]] = {
    "rename": lambda value: isinstance(value, str),
    "drop": lambda value: value is True,
    "refuse": lambda value: value is True,
    "only": lambda value: type(value) in (int, float),
    "clamp": lambda value: isinstance(value, list) and len(value) == 2,
}


def _is_rule(action: Any) -> bool:
    return (
        isinstance(action, dict)
        and len(action) == 1
        and all(name in WANTED and WANTED[name](value) for name, value in action.items())
    )


def rules(model: str, table: Any) -> dict[str, Rule]:
    """The rules of a model's `parameters` table; raises ConfigurationError."""
    known = sorted(WANTED)
    made: dict[str, Rule] = {}
    for parameter, action in dict(table).items():
        if not _is_rule(action):
            raise ConfigurationError(
                f'models file, "{model}", {parameter}: one of {known} is wanted'
            )
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in action.items()
        }
        made[parameter] = Rule(**values)
    return made


def apply(
    rules: Mapping[str, Rule], parameters: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The parameters as the model takes them, and the names of those left out.

    Raises InvalidRequest with OpenAI's codes `unsupported_parameter` and `unsupported_value`.
    """
    if not rules or not (rules.keys() & parameters.keys()):
        return parameters, []
    kept: dict[str, Any] = {}
    dropped: list[str] = []
    for name, value in parameters.items():
        rule = rules.get(name)
        if rule is None:
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
        elif value != rule.only:
            raise _unsupported_value(name, value, rule.only)
    return kept, dropped


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
