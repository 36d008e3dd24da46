"""gateway/policy.py: one row a rule, for every model that has such a rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalogue import Catalogue
from gateway.errors import InvalidRequest
from gateway.policy import Rule, apply, rules
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
    ],
)
def test_a_rule_is_read_from_a_table(action, rule):
    assert rules("a/b", {"x": action}) == {"x": rule}


@pytest.mark.parametrize("action", [{}, "drop", 5, {"burn": 1}, {"drop": True, "refuse": True}])
def test_a_wrong_rule_names_model_and_parameter(action):
    with pytest.raises(ConfigurationError, match=r'"a/b", seed: '):
        rules("a/b", {"seed": action})


@pytest.mark.parametrize(
    ("model", "sent", "kept", "dropped"),
    [
        ("openai/gpt-4o", {"max_tokens": 5, "seed": 1}, {"max_tokens": 5, "seed": 1}, []),
        ("openai/gpt-6-luna", {"max_tokens": 5}, {"max_completion_tokens": 5}, []),
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
