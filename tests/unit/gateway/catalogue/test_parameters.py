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
RULES = {
    "max_tokens": Rule(rename="max_completion_tokens"),
    "seed": Rule(drop=True),
    "logit_bias": Rule(drop=True),
    "tools": Rule(refuse=True),
    "top_p": Rule(only=1),
    "presence_penalty": Rule(only=0),
    "temperature": Rule(clamp=(0, 1)),
    "verbosity": Rule(only=1, unless={"reasoning_effort": "none"}),
    "reasoning_effort": Rule(default="none", when="functions"),
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
        (
            {"top_p": 0.2},
            "top_p",
            "unsupported_value",
            "Unsupported value: 'top_p' does not support 0.2 with this model. "
            "Only the default (1) value is supported.",
        ),
        (
            {"presence_penalty": -2},
            "presence_penalty",
            "unsupported_value",
            "Unsupported value: 'presence_penalty' does not support -2 with this model. "
            "Only the default (0) value is supported.",
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
    assert apply(RULES, sent, optional=("tools", "top_p")) == ({"stop": "a"}, ["tools", "top_p"])
    assert apply(RULES, {"top_p": 1}, optional=("top_p",)) == ({}, [])
    with pytest.raises(InvalidRequest) as caught:
        apply(RULES, sent, optional=("top_p",))
    assert caught.value.param == "tools"


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("stop", True), ("max_tokens", True), ("temperature", True), ("verbosity", True),
        ("reasoning_effort", True), ("seed", False), ("tools", False), ("top_p", False),
    ],
)  # fmt: skip
def test_what_a_model_makes_something_of_is_told(name, answer):
    assert taken(RULES, name) is answer


def test_of_two_rules_for_a_parameter_the_later_holds():
    first = {"seed": Rule(drop=True), "stop": Rule(drop=True), "n": Rule(only=1)}
    second = {"seed": Rule(refuse=True), "stop": Rule()}
    assert merge(first, second) == {"seed": Rule(refuse=True), "n": Rule(only=1)}
    assert merge() == {}


def test_a_refusal_repeats_little_of_a_value():
    with pytest.raises(InvalidRequest) as caught:
        apply(RULES, {"top_p": "x" * 1_000})
    assert len(caught.value.message) < 200


@given(st.dictionaries(st.sampled_from(["messages", "stop", "user", "n"]), st.integers()))
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
    ],
)
def test_a_rule_is_read_from_a_table(action, rule):
    assert rules("a/b", {"x": action}) == {"x": rule}


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
    ],
)
def test_a_wrong_rule_names_model_and_parameter(action):
    with pytest.raises(ConfigurationError, match=r'"a/b", seed: '):
        rules("a/b", {"seed": action})


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
        ("openai/gpt-6.1-sol", {"logprobs": True, "temperature": 1}, {}, ["logprobs"]),
        ("anthropic/claude-sonnet-4-5", {"temperature": 1.7}, {"temperature": 1}, []),
        ("anthropic/claude-sonnet-4-5", {"seed": 1, "top_p": 0.5}, {"top_p": 0.5}, ["seed"]),
        ("anthropic/claude-sonnet-5-5", {"temperature": 1, "logprobs": True}, {}, ["logprobs"]),
    ],
)
def test_the_built_in_models_have_these_rules(model, sent, kept, dropped):
    row = Catalogue.load(Settings()).find(model)
    assert apply(row.parameters, sent) == (kept, dropped)


@pytest.mark.parametrize("model", ["openai/gpt-6-luna", "anthropic/claude-sonnet-5-5"])
def test_models_with_fixed_sampling_refuse_another_temperature(model):
    row = Catalogue.load(Settings()).find(model)
    with pytest.raises(InvalidRequest, match="Only the default"):
        apply(row.parameters, {"temperature": 0.2})
