"""Parameter rules: how a model differs from OpenAI's chat models in the parameters it takes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from gateway.errors import InvalidRequest
from gateway.settings import ConfigurationError


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to one parameter; at most one action is set, none to pass it on.

    `rename` sends it under another name. `drop` leaves it out and names it to the caller. `refuse`
    answers 400, with the reason if it is a text. `only` leaves it out, and names it unless it has
    this value. `clamp` moves a number into a range. `map` replaces values. `max_items` cuts a list
    and names it. `default` is sent where the caller sends nothing. `fix` is always sent, and names
    another value. `advise` replaces a forced tool, or a schema, by a message of the system that
    asks for it, and names it.

    `when` names a parameter without which the rule does not hold, or the values that parameters
    must have. `unless` holds values of parameters with which the rule does not hold.
    """

    rename: str | None = None
    drop: bool = False
    refuse: bool | str = False
    only: Any = None
    clamp: tuple[float, float] | None = None
    map: Mapping[str, Any] = field(default_factory=dict)
    max_items: int | None = None
    default: Any = None
    fix: Any = None
    advise: bool = False
    when: str | Mapping[str, Any] | None = None
    unless: Mapping[str, Any] = field(default_factory=dict)

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Whether the rule's conditions are met."""
        if not self.conditional:
            return True
        if isinstance(self.when, str) and not params.get(self.when):
            return False
        if isinstance(self.when, Mapping) and not _all_match(self.when, params):
            return False
        return not any(_matches(params.get(name), value) for name, value in self.unless.items())

    @property
    def conditional(self) -> bool:
        """Whether the rule has conditions."""
        return self.when is not None or bool(self.unless)


# The rules of one parameter: the first whose conditions are met holds.
Rules: TypeAlias = tuple[Rule, ...]

PASS = Rule()
REFUSE = Rule(refuse=True)
DROP = Rule(drop=True)

# Parameters that tune a response and ask for nothing: a substitute may do without them.
KNOBS = frozenset(
    "temperature top_p top_k top_a min_p presence_penalty frequency_penalty repetition_penalty"
    " repeat_penalty logit_bias seed random_seed reasoning_effort verbosity thinking output_config"
    " reasoning cache_prompt chat_template_kwargs safe_prompt prompt_mode provider enable_thinking"
    " thinking_budget clear_thinking reasoning_format disable_reasoning ttl do_sample tool_stream"
    " safety_mode separate_reasoning reasoning_split".split()
)

ACTIONS: dict[str, Callable[[Any], bool]] = {
    "pass": lambda value: value is True,
    "rename": lambda value: isinstance(value, str),
    "drop": lambda value: value is True,
    "refuse": lambda value: value is True or isinstance(value, str),
    "only": lambda value: type(value) in (int, float, str),
    "clamp": lambda value: isinstance(value, list) and len(value) == 2,
    "map": lambda value: isinstance(value, dict) and bool(value),
    "max_items": lambda value: type(value) is int and value > 0,
    "default": lambda value: isinstance(value, (str, int, float)),
    "fix": lambda value: isinstance(value, (str, int, float)),
    "advise": lambda value: value is True,
}
CONDITIONS: dict[str, Callable[[Any], bool]] = {
    "when": lambda value: isinstance(value, (str, dict)),
    "unless": lambda value: isinstance(value, dict),
}
RULE_FIELDS = {**ACTIONS, **CONDITIONS}
# What a rule for a field inside a parameter, such as "messages.role", may do.
FIELD_ACTIONS = frozenset({"pass", "drop", "map"})


def rules(row: str, table: Any) -> dict[str, Rules]:
    """The rules of a row's `parameters` table; raises ConfigurationError."""
    parsed: dict[str, Rules] = {}
    for parameter, entry in dict(table).items():
        entries = entry if isinstance(entry, list) else [entry]
        if not entries or not all(_is_rule(parameter, each) for each in entries):
            actions = sorted(FIELD_ACTIONS if "." in parameter else ACTIONS)
            text = f"expected one of {actions}, and perhaps `when` or `unless`, or a list of these"
            raise ConfigurationError(f'models file, "{row}", {parameter}: {text}')
        parsed[parameter] = tuple(map(_rule, entries))
    return parsed


def merge(*tables: Mapping[str, Rules]) -> dict[str, Rules]:
    """The rules of all tables; of two entries for one parameter, the later table's."""
    merged: dict[str, Rules] = {}
    for table in tables:
        merged.update(table)
    return {name: each for name, each in merged.items() if each != (PASS,)}


def apply(
    table: Mapping[str, Rules], params: Mapping[str, Any], optional: Collection[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """The parameters as the model takes them, and the names of those that are left out.

    A parameter named in `optional` is left out where the rules would refuse it. Conditions are
    checked against the parameters as the caller sent them, with `default` and `fix` applied.

    Raises InvalidRequest with OpenAI's code `unsupported_parameter`.
    """
    if not table:
        return dict(params), []
    kept = {**params, **_set_by_rules(table, params)}
    dropped = [name for name in params if kept[name] is not params[name]]
    complete = dict(kept)
    for name, entry in table.items():
        if name in kept and (rule := _first(entry, complete)):
            _apply_to_value(kept, name, rule, dropped, optional)
    for name, entry in table.items():
        if "." in name and (rule := _first(entry, complete)):
            _apply_inside(kept, name, rule, dropped)
    return kept, [name for name in {**params, **table} if name in dropped]


def _set_by_rules(table: Mapping[str, Rules], params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters to which a rule gives a value that the caller has not sent."""
    values: dict[str, Any] = {}
    for name, entry in table.items():
        rule = _first(entry, params)
        if rule is None:
            continue
        if rule.fix is not None and params.get(name) != rule.fix:
            values[name] = rule.fix
        elif rule.default is not None and name not in params:
            values[name] = rule.default
    return values


def _first(entry: Rules, params: Mapping[str, Any]) -> Rule | None:
    for rule in entry:
        if rule.holds(params):
            return rule
    return None


def taken(table: Mapping[str, Rules], name: str) -> bool:
    """Whether this parameter has an effect on a model with these rules."""
    return not any(
        not rule.conditional and bool(rule.drop or rule.refuse or rule.only is not None)
        for rule in table.get(name, ())
    )


def _apply_to_value(
    kept: dict[str, Any], name: str, rule: Rule, dropped: list[str], optional: Collection[str]
) -> None:
    value = kept[name]
    if rule.rename is not None:
        del kept[name]
        kept.setdefault(rule.rename, value)
    elif rule.clamp is not None:
        low, high = rule.clamp
        kept[name] = min(max(value, low), high)
    elif rule.map:
        if isinstance(value, str):
            kept[name] = rule.map.get(value, value)
    elif rule.max_items is not None:
        if isinstance(value, list) and len(value) > rule.max_items:
            kept[name] = value[: rule.max_items]
            dropped.append(name)
    elif rule.advise:
        if advice := ADVICE[name](value):
            kept[name], text = advice
            kept["messages"] = [*kept["messages"], {"role": "system", "content": text}]
            dropped.append(name)
    elif rule.refuse and name not in optional:
        reason = f": {rule.refuse}" if isinstance(rule.refuse, str) else ""
        raise InvalidRequest(
            f"Unsupported parameter: '{name}' is not supported with this model{reason}.",
            param=name,
            code="unsupported_parameter",
        )
    elif rule.drop or rule.refuse or rule.only is not None:
        del kept[name]
        if value != rule.only:
            dropped.append(name)


def _tool_advice(choice: Any) -> tuple[Any, str] | None:
    """What to send instead of a choice that forces a tool, and the sentence that asks for it."""
    if choice == "required":
        return "auto", "Answer this turn by calling one of the tools, without any text."
    if isinstance(choice, Mapping) and isinstance(named := choice.get(choice.get("type")), Mapping):
        name = named.get("name")
        return "auto", f"Answer this turn by calling the tool `{name}`, without any text."
    return None


def _schema_advice(response_format: Any) -> tuple[Any, str] | None:
    """What to send instead of a schema, and the sentence that describes it."""
    described = response_format.get("json_schema") or response_format
    schema = orjson.dumps(described.get("schema") or {}).decode()
    text = f"Answer with a JSON object that matches this JSON Schema, and nothing else: {schema}"
    return {"type": "json_object"}, text


ADVICE: dict[str, Callable[[Any], tuple[Any, str] | None]] = {
    "tool_choice": _tool_advice,
    "response_format": _schema_advice,
}


def _apply_inside(kept: dict[str, Any], path: str, rule: Rule, dropped: list[str]) -> None:
    """Apply a rule to a field inside of a parameter: of an object, or of each item of a list."""
    name, *steps = path.split(".")
    if name not in kept:
        return
    value = _changed(kept[name], steps, rule)
    if value is not kept[name]:
        kept[name] = value
        if rule.drop:
            dropped.append(path)


def _changed(value: Any, steps: list[str], rule: Rule) -> Any:
    """`value` with the rule applied at `steps`: itself if there is nothing to change."""
    if isinstance(value, list):
        items = [_changed(item, steps, rule) for item in value]
        return (
            items if any(new is not old for new, old in zip(items, value, strict=True)) else value
        )
    if not isinstance(value, Mapping) or steps[0] not in value:
        return value
    step, *rest = steps
    old = value[step]
    if not rest and rule.drop:
        return {key: each for key, each in value.items() if key != step}
    if rest:
        new = _changed(old, rest, rule)
    else:
        new = rule.map.get(old, old) if isinstance(old, str) else old
    return value if new is old else {**value, step: new}


def _all_match(expected: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
    return all(_matches(params.get(name), value) for name, value in expected.items())


def _matches(value: Any, expected: Any) -> bool:
    """Whether a value is the expected one. An object may have further fields."""
    if isinstance(expected, Mapping):
        return isinstance(value, Mapping) and _all_match(expected, value)
    return bool(value == expected)


def _rule(entry: Mapping[str, Any]) -> Rule:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in entry.items()
        if name != "pass"
    }
    return Rule(**values)


def _is_rule(parameter: str, entry: Any) -> bool:
    actions = FIELD_ACTIONS if "." in parameter else ACTIONS.keys()
    return (
        isinstance(entry, dict)
        and len(entry.keys() & ACTIONS.keys()) == 1
        and len(entry.keys() & actions) == 1
        and ("advise" not in entry or parameter in ADVICE)
        and all(name in RULE_FIELDS and RULE_FIELDS[name](value) for name, value in entry.items())
    )
