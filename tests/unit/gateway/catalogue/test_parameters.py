"""gateway/catalogue/parameters.py: one row a rule, for every model that has such a rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.parameters import KNOBS, Rule, apply, merge, rules, taken
from gateway.errors import InvalidRequest
from gateway.settings import ConfigurationError, Settings

MESSAGES = [{"role": "user", "content": "hi"}]
NONE = {"reasoning_effort": "none"}
RULES = {
    "max_tokens": (Rule(rename="max_completion_tokens"),),
    "seed": (Rule(drop=True),),
    "logit_bias": (Rule(drop=True),),
    "tools": (Rule(refuse=True),),
    "top_p": (Rule(only=1),),
    "presence_penalty": (Rule(only=0),),
    "temperature": (Rule(only=1, when="thinking"), Rule(clamp=(0, 1))),
    "verbosity": (Rule(only=1, unless=NONE),),
    "reasoning_effort": (Rule(default="none", when="functions"), Rule(map={"max": "high"})),
    "user": (Rule(when={"user": "me"}), Rule(drop=True)),
    "stop": (Rule(max_items=2),),
    "thinking": (Rule(drop=True, when={"thinking": {"type": "enabled"}}),),
    "service_tier": (Rule(fix="flex", when="batch"),),
    "messages.name": (Rule(drop=True),),
    "messages.role": (Rule(map={"developer": "system"}),),
    "metadata.a.b": (Rule(drop=True),),
}


@pytest.mark.parametrize(
    ("sent", "kept", "dropped"),
    [
        ({}, {}, []),
        ({"stop": "a"}, {"stop": "a"}, []),
        ({"max_tokens": 5}, {"max_completion_tokens": 5}, []),
        ({"max_tokens": 5, "max_completion_tokens": 7}, {"max_completion_tokens": 7}, []),
        ({"max_completion_tokens": 7, "max_tokens": 5}, {"max_completion_tokens": 7}, []),
        ({"seed": 1}, {}, ["seed"]),
        ({"logit_bias": {}, "stop": "a", "seed": 1}, {"stop": "a"}, ["logit_bias", "seed"]),
        ({"top_p": 1}, {}, []),
        ({"top_p": 1.0}, {}, []),
        ({"presence_penalty": 0}, {}, []),
        (
            {"verbosity": 2, "reasoning_effort": "none"},
            {"verbosity": 2, "reasoning_effort": "none"},
            [],
        ),
        ({"functions": [1]}, {"functions": [1], "reasoning_effort": "none"}, []),
        (
            {"functions": [1], "verbosity": 2},
            {"functions": [1], "verbosity": 2, "reasoning_effort": "none"},
            [],
        ),
        ({"functions": []}, {"functions": []}, []),
        (
            {"functions": [1], "reasoning_effort": "high"},
            {"functions": [1], "reasoning_effort": "high"},
            [],
        ),
        ({"temperature": -0.5}, {"temperature": 0}, []),
        ({"temperature": 0.5}, {"temperature": 0.5}, []),
        ({"temperature": 1.5}, {"temperature": 1}, []),
        (
            {"temperature": 0.5, "thinking": {"type": "disabled"}},
            {"thinking": {"type": "disabled"}},
            ["temperature"],
        ),
        ({"thinking": {"type": "enabled", "budget_tokens": 1}}, {}, ["thinking"]),
        ({"top_p": 0.2, "presence_penalty": 1}, {}, ["top_p", "presence_penalty"]),
        ({"reasoning_effort": "max"}, {"reasoning_effort": "high"}, []),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "low"}, []),
        ({"user": "me"}, {"user": "me"}, []),
        ({"user": "you"}, {}, ["user"]),
        ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}, []),
        ({"stop": ["a", "b", "c"]}, {"stop": ["a", "b"]}, ["stop"]),
        (
            {"batch": 1, "service_tier": "auto"},
            {"batch": 1, "service_tier": "flex"},
            ["service_tier"],
        ),
        ({"batch": 1, "service_tier": "flex"}, {"batch": 1, "service_tier": "flex"}, []),
        ({"batch": 1}, {"batch": 1, "service_tier": "flex"}, []),
        ({"metadata": {"a": {"b": 1, "c": 2}}}, {"metadata": {"a": {"c": 2}}}, ["metadata.a.b"]),
        ({"metadata": {"a": 1}}, {"metadata": {"a": 1}}, []),
    ],
)
def test_a_rule_changes_what_the_provider_gets(sent, kept, dropped):
    assert apply(RULES, {"messages": MESSAGES, **sent}) == (
        {"messages": MESSAGES, **kept},
        dropped,
    )


@pytest.mark.parametrize(
    ("sent", "param", "code", "message"),
    [
        (
            {"tools": []},
            "tools",
            "unsupported_parameter",
            "Unsupported parameter: 'tools' is not supported with this model.",
        ),
    ],
)
def test_a_rule_refuses_in_openai_s_words(sent, param, code, message):
    with pytest.raises(InvalidRequest) as caught:
        apply(RULES, sent)
    error = caught.value
    assert (error.status, error.param, error.code) == (400, param, code)
    assert error.message == message


def test_a_substitute_leaves_out_the_values_that_it_does_not_take():
    sent = {"top_p": 0.2, "presence_penalty": 0, "verbosity": 3, "stop": "a"}
    assert apply(RULES, sent, optional=KNOBS) == ({"stop": "a"}, ["top_p", "verbosity"])
    with pytest.raises(InvalidRequest):
        apply(RULES, {"tools": []}, optional=KNOBS)


def test_an_optional_parameter_is_left_out_instead_of_refused():
    sent = {"tools": [], "top_p": 0.2, "stop": "a"}
    assert apply(RULES, sent, optional=("tools",)) == ({"stop": "a"}, ["tools", "top_p"])
    with pytest.raises(InvalidRequest) as caught:
        apply(RULES, sent, optional=("top_p",))
    assert caught.value.param == "tools"


def test_a_rule_for_a_field_changes_it_in_every_message():
    messages = [
        {"role": "developer", "content": "a"},
        {"role": "user", "content": "b", "name": "Ann"},
        {"role": "system", "content": "c"},
    ]
    kept, dropped = apply(RULES, {"messages": messages})
    assert kept["messages"] == [
        {"role": "system", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "system", "content": "c"},
    ]
    assert dropped == ["messages.name"]
    assert messages[1]["name"] == "Ann"


SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}


@pytest.mark.parametrize(
    ("name", "value", "sent", "words"),
    [
        ("tool_choice", "required", "auto", "calling one of the tools"),
        ("tool_choice", {"type": "function", "function": {"name": "f"}}, "auto", "the tool `f`"),
        ("tool_choice", {"type": "custom", "custom": {"name": "g"}}, "auto", "the tool `g`"),
        ("response_format", SCHEMA, {"type": "json_object"}, 'nothing else: {"type":"object"}'),
    ],
)  # fmt: skip
def test_advice_stands_for_what_a_model_cannot_be_forced_to(name, value, sent, words):
    table = {name: (Rule(advise=True),)}
    kept, dropped = apply(table, {"messages": MESSAGES, name: value})
    assert (kept[name], dropped) == (sent, [name])
    assert kept["messages"][:-1] == MESSAGES
    assert kept["messages"][-1]["role"] == "system"
    assert words in kept["messages"][-1]["content"]


@pytest.mark.parametrize("value", ["auto", "none"])
def test_a_choice_that_forces_no_tool_needs_no_advice(value):
    sent = {"messages": MESSAGES, "tool_choice": value}
    assert apply({"tool_choice": (Rule(advise=True),)}, sent) == (sent, [])


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("stop", True), ("max_tokens", True), ("temperature", True), ("verbosity", True),
        ("reasoning_effort", True), ("seed", False), ("tools", False), ("top_p", False),
    ],
)  # fmt: skip
def test_what_a_model_makes_something_of_is_told(name, answer):
    assert taken(RULES, name) is answer


def test_of_two_entries_for_a_parameter_the_later_holds():
    drop, refuse, only = (Rule(drop=True),), (Rule(refuse=True),), (Rule(only=1),)
    first = {"seed": drop, "stop": drop, "n": only}
    assert merge(first, {"seed": refuse, "stop": (Rule(),)}) == {"seed": refuse, "n": only}
    assert merge() == {}


@given(st.dictionaries(st.sampled_from(["audio", "modalities", "n"]), st.integers()))
def test_what_no_rule_names_goes_through_as_it_is(parameters):
    assert apply(RULES, parameters) == (parameters, [])
    assert apply({}, parameters) == (parameters, [])


def test_the_caller_s_parameters_are_not_changed():
    parameters = {"seed": 1, "temperature": 2, "max_tokens": 5}
    apply(RULES, parameters)
    assert parameters == {"seed": 1, "temperature": 2, "max_tokens": 5}


@pytest.mark.parametrize(
    ("action", "rule"),
    [
        ({"rename": "b"}, Rule(rename="b")),
        ({"drop": True}, Rule(drop=True)),
        ({"refuse": True}, Rule(refuse=True)),
        ({"only": 1}, Rule(only=1)),
        ({"clamp": [0, 1]}, Rule(clamp=(0, 1))),
        ({"pass": True}, Rule()),
        ({"default": "none", "when": "tools"}, Rule(default="none", when="tools")),
        ({"only": 1, "unless": {"a": "b"}}, Rule(only=1, unless={"a": "b"})),
        ({"only": "auto"}, Rule(only="auto")),
        ({"map": {"a": "b"}, "when": {"c": 1}}, Rule(map={"a": "b"}, when={"c": 1})),
        ({"max_items": 4}, Rule(max_items=4)),
        ({"fix": "none"}, Rule(fix="none")),
    ],
)
def test_a_rule_is_read_from_a_table(action, rule):
    assert rules("a/b", {"x": action}) == {"x": (rule,)}


def test_a_list_of_rules_is_read():
    entry = [{"drop": True, "when": "tools"}, {"clamp": [0, 1]}]
    assert rules("a/b", {"x": entry}) == {"x": (Rule(drop=True, when="tools"), Rule(clamp=(0, 1)))}


@pytest.mark.parametrize(
    "action",
    [
        {},
        "drop",
        5,
        {"burn": 1},
        {"drop": True, "refuse": True},
        {"when": "n"},
        {"drop": True, "unless": 5},
        [],
        [{"drop": True}, "drop"],
        {"map": {}},
        {"max_items": 0},
        {"advise": True},
    ],
)
def test_a_wrong_rule_names_model_and_parameter(action):
    with pytest.raises(ConfigurationError, match=r'"a/b", seed: '):
        rules("a/b", {"seed": action})


@pytest.mark.parametrize("action", [{"clamp": [0, 1]}, {"rename": "a"}, {"refuse": True}])
def test_a_field_inside_a_parameter_can_only_be_left_out_or_replaced(action):
    with pytest.raises(ConfigurationError, match=r'"a/b", messages.role: '):
        rules("a/b", {"messages.role": action})


@pytest.mark.parametrize(
    ("model", "sent", "kept", "dropped"),
    [
        ("openai/gpt-4o", {"max_tokens": 5, "seed": 1}, {"max_tokens": 5, "seed": 1}, []),
        ("openai/gpt-6-luna", {"max_tokens": 5}, {"max_completion_tokens": 5}, []),
        (
            "openai/gpt-6-luna",
            {"tools": [1], "temperature": 0.2},
            {"tools": [1], "temperature": 0.2, "reasoning_effort": "none"},
            [],
        ),
        (
            "openai/gpt-6-luna",
            {"tools": [1], "reasoning_effort": "high"},
            {"tools": [1], "reasoning_effort": "none"},
            ["reasoning_effort"],
        ),
        ("openai/gpt-6.1-sol", {"logprobs": True, "temperature": 1}, {}, ["logprobs"]),
        ("anthropic/claude-sonnet-4-5", {"temperature": 1.7}, {"temperature": 1}, []),
        ("anthropic/claude-sonnet-4-5", {"seed": 1, "top_p": 0.5}, {"top_p": 0.5}, ["seed"]),
        ("anthropic/claude-sonnet-5-5", {"temperature": 1, "logprobs": True}, {}, ["logprobs"]),
    ],
)
def test_the_built_in_models_have_these_rules(model, sent, kept, dropped):
    row = Catalogue.load(Settings()).find(model)
    assert apply(row.parameters, sent) == (kept, dropped)
