"""gateway/catalogue: which models there are, and where each goes."""

from __future__ import annotations

import dataclasses
from datetime import date
from decimal import Decimal

import pytest

from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.file import PriceTier
from gateway.catalogue.parameters import Rule
from gateway.errors import InvalidRequest, ModelNotFound, ProviderNotConfigured
from gateway.settings import ConfigurationError, Settings
from gateway.timeouts import Timeouts

DEMO = [
    "demo/echo", "demo/slow", "demo/error", "demo/throttled", "demo/cut", "demo/tool", "demo/embed",
]  # fmt: skip
WILD = [
    "groq", "mistral", "deepseek", "together", "openrouter", "xai", "fireworks", "gemini",
    "ollama", "vllm", "llamacpp", "local",
]  # fmt: skip
KEYS = {
    "OPENAI_API_KEY": "sk-1",
    "ANTHROPIC_API_KEY": "sk-ant-1",
    "LOCAL_BASE_URL": "http://127.0.0.1:1/v1",
    **{f"{name.upper()}_API_KEY": "key" for name in WILD},
}


def catalogue(**fields):
    return Catalogue.load(Settings(**fields))


def fit(models, model, params, first):
    """What `model` takes of a call for `first`."""
    return models.resolve(model).fit(params, models.resolve(first))


@pytest.fixture
def with_file(tmp_path):
    """A function that loads the catalogue with this text as MODELS_FILE."""

    def load(text, **fields):
        file = tmp_path / "models.toml"
        file.write_text(text, "utf-8")
        return catalogue(models_file=str(file), variables=KEYS, **fields)

    return load


@pytest.mark.parametrize(
    ("model", "shutdown", "successor"),
    [
        ("openai/gpt-4o-mini", date(2027, 1, 14), "openai/gpt-6-luna"),
        ("openai/gpt-4o", date(2027, 1, 14), "openai/gpt-6.1-sol"),
        ("anthropic/claude-sonnet-4-5", date(2026, 11, 30), "anthropic/claude-sonnet-5-5"),
    ],
)
def test_the_documented_models_are_served_with_their_ends_and_successors(
    model, shutdown, successor
):
    models = catalogue(variables=KEYS)
    row = models.find(model)
    assert (row.shutdown_date, row.successor) == (shutdown, successor)
    target = models.resolve(model)
    assert (target.provider, target.upstream_model) == tuple(model.split("/"))
    assert models.find(successor).shutdown_date is None


def test_every_successor_and_fallback_can_be_asked_for():
    models = catalogue(variables=KEYS)
    for row in models.listed():
        for other in (*row.fallbacks, *([row.successor] if row.successor else [])):
            assert models.resolve(other).provider == row.provider


@pytest.mark.parametrize("model", DEMO)
def test_demo_models_are_served_only_where_they_are_asked_for(model):
    with pytest.raises(ModelNotFound):
        catalogue().resolve(model)
    models = catalogue(demo_models=True)
    target = models.resolve(model)
    assert (models.providers[target.provider].wire, target.upstream_model) == (
        "demo",
        model.partition("/")[2],
    )


@pytest.mark.parametrize("family", WILD)
def test_a_wildcard_serves_any_model_of_its_provider(family):
    models = catalogue(variables=KEYS)
    target = models.resolve(f"{family}/meta-llama/Llama-4:free")
    assert (target.provider, target.upstream_model) == (family, "meta-llama/Llama-4:free")


def test_the_list_names_models_and_no_wildcards():
    listed = [row.id for row in catalogue(demo_models=True).listed()]
    assert listed[0] == "openai/gpt-4o-mini"
    assert listed[-len(DEMO) :] == DEMO
    assert not any("*" in name for name in listed)


@pytest.mark.parametrize(
    "model",
    ["gpt-9", "openai/gpt-9", "openai/", "groq", "groq/", "/", "", "groq/*"],
)
def test_an_unknown_model_is_not_found(model):
    with pytest.raises(ModelNotFound) as caught:
        catalogue(variables=KEYS).resolve(model)
    assert caught.value.message == (
        f"The model `{model}` does not exist or you do not have access to it."
    )


@pytest.mark.parametrize("bare", ["gpt-4o-mini", "claude-sonnet-4-5", "text-embedding-3-small"])
def test_a_bare_name_stands_for_the_one_listed_model_that_has_it(bare):
    models = catalogue(variables=KEYS)
    target = models.resolve(bare)
    assert target.model == models.full_name(bare)
    assert target.model.partition("/")[2] == bare
    assert target == models.resolve(target.model)


@pytest.mark.parametrize(
    "bare", ["claude-opus-4-8", "claude-haiku-4-5", "claude-sonnet-5-5", "gpt-4o-mini"]
)
def test_the_default_models_of_agents_and_libraries_resolve(bare):
    assert catalogue(variables=KEYS).resolve(bare).upstream_model == bare


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("claude-sonnet-4-5-20250929", "anthropic/claude-sonnet-4-5"),
        ("anthropic/claude-haiku-4-5-20251001", "anthropic/claude-haiku-4-5"),
        ("gpt-4o-2024-11-20", "openai/gpt-4o"),
        ("openai/gpt-4o-mini-2024-07-18", "openai/gpt-4o-mini"),
    ],
)
def test_a_dated_version_is_its_model_under_the_dated_name(name, model):
    models = catalogue(variables=KEYS)
    target, row = models.resolve(name), models.find(model)
    assert target.upstream_model == name.rpartition("/")[2]
    assert target.model == f"{row.provider}/{target.upstream_model}"
    assert target.row == dataclasses.replace(row, parameters=target.row.parameters)
    assert target.row.parameters == row.parameters
    assert models.with_row(target).row == target.row


@pytest.mark.parametrize(
    "name", ["gpt-9-20250929", "openai/gpt-4o-2024", "gpt-4o-1-2024-11-20", "fast-20250929"]
)
def test_a_date_makes_no_model_of_an_unknown_name_or_of_an_alias(with_file, name):
    models = with_file('[models.fast]\nprovider = "openai"\nupstream = "gpt-4o"')
    with pytest.raises(ModelNotFound):
        models.resolve(name)


def test_a_dated_model_with_a_row_of_its_own_is_that_row(with_file):
    models = with_file('[models."openai/gpt-4o-2024-05-13"]\nprovider = "openai"')
    assert models.resolve("gpt-4o-2024-05-13").row.max_output_tokens is None


TWICE = """
[models."groq/small"]
provider = "groq"
[models."mistral/small"]
provider = "mistral"
[models."together/labs/large"]
provider = "together"
[models."plain"]
provider = "groq"
upstream = "other"
[models."openai/plain"]
provider = "openai"
"""


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("small", ["groq/small", "mistral/small"]),
        ("labs/large", ["together/labs/large"]),
        ("OpenAI/gpt-4o", ["openai/gpt-4o"]),
        ("anthropic/gpt-4o", ["openai/gpt-4o"]),
    ],
)
def test_a_name_that_is_not_clear_is_refused_with_the_ids_that_may_be_meant(with_file, name, ids):
    suggested = " or ".join(f"`{full}`" for full in ids)
    with pytest.raises(ModelNotFound) as caught:
        with_file(TWICE).resolve(name)
    assert caught.value.message.endswith(f"access to it. Did you mean {suggested}?")


def test_an_id_without_a_provider_stands_before_a_bare_name(with_file):
    assert with_file(TWICE).resolve("plain").upstream_model == "other"


def test_the_demo_models_have_bare_names_only_where_they_are_on():
    assert catalogue(demo_models=True).full_name("echo") == "demo/echo"
    assert catalogue().full_name("echo") == "echo"


def test_a_long_unknown_name_is_not_repeated_whole():
    with pytest.raises(ModelNotFound) as caught:
        catalogue().find("m" * 10_000)
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("model", "variable"),
    [
        ("openai/gpt-4o-mini", "OPENAI_API_KEY"),
        ("anthropic/claude-sonnet-4-5", "ANTHROPIC_API_KEY"),
        ("groq/llama", "GROQ_API_KEY"),
        ("local/any", "LOCAL_BASE_URL"),
    ],
)
def test_a_provider_that_is_not_configured_says_which_variable_to_set(model, variable):
    models = catalogue()
    with pytest.raises(ProviderNotConfigured, match=f"set {variable}.$") as caught:
        models.require_configured(models.resolve(model))
    assert caught.value.code == "provider_not_configured"
    assert not models.available(models.find(model))
    configured = catalogue(variables=KEYS)
    assert configured.available(configured.find(model))


@pytest.mark.parametrize("key", ["  ", ",", " , "])
def test_a_blank_key_is_none(key):
    models = catalogue(variables={"OPENAI_API_KEY": key})
    assert not models.available(models.find("openai/gpt-4o"))


def test_a_variable_may_hold_several_keys():
    settings = Settings(variables={"OPENAI_API_KEY": "sk-1, sk-2,"})
    assert Catalogue.load(settings).providers["openai"].keys(settings) == ("sk-1", "sk-2")


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({}, "https://api.openai.com/v1"),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:9/v1/"}, "http://127.0.0.1:9/v1"),
        ({"OPENAI_BASE_URL": " "}, "https://api.openai.com/v1"),
    ],
)
def test_a_variable_overrides_the_base_url(variables, address):
    settings = Settings(variables=variables)
    assert Catalogue.load(settings).providers["openai"].address(settings) == address


PRIVATE = """
[providers.house]
wire = "openai"
base_url = "http://127.0.0.1:8000/v1/"
headers = { "X-Team" = "search" }
extra_parameters = ["top_k"]

[models."house/small"]
provider = "house"
upstream = "models/small-7b"
context_length = 8192
"""


def test_a_file_adds_a_private_provider_to_the_built_in_ones(with_file):
    models = with_file(PRIVATE)
    target = models.resolve("house/small")
    assert target.upstream_model == "models/small-7b"
    provider = models.providers[target.provider]
    assert provider.address(Settings()) == "http://127.0.0.1:8000/v1"
    assert provider.headers == {"X-Team": "search"}
    assert target.row.extra_parameters == ("top_k",)
    assert target.row.context_length == 8192
    assert models.resolve("openai/gpt-4o").upstream_model == "gpt-4o"


def test_a_row_of_the_file_replaces_the_built_in_one_of_its_name(with_file):
    models = with_file('[models."openai/gpt-4o"]\nprovider = "groq"\nupstream = "other"')
    target = models.resolve("openai/gpt-4o")
    assert (target.provider, target.upstream_model) == ("groq", "other")
    assert target.row.shutdown_date is None


def test_a_file_may_replace_the_whole_catalogue(with_file):
    models = with_file("replace = true\n" + PRIVATE, demo_models=True)
    assert [row.id for row in models.listed()] == ["house/small"]
    assert list(models.providers) == ["house"]


def test_a_model_s_rules_are_read(with_file):
    models = with_file(
        PRIVATE + '[models."house/small".parameters]\n'
        "temperature = { clamp = [0, 1] }\nseed = { drop = true }"
    )
    rules = models.find("house/small").parameters
    assert rules["temperature"] == (Rule(clamp=(0, 1)),)
    assert rules["seed"] == (Rule(drop=True),)


RULES = """
[providers.house]
wire = "openai"
base_url = "http://127.0.0.1:8000/v1/"
[providers.house.parameters]
seed = { drop = true }
stop = { drop = true }
n = { refuse = true }

[rules.old]
models = ["house/old-*", "house/ancient"]
[rules.old.parameters]
stop = { pass = true }
n = { only = 1 }

[rules.others]
models = ["elsewhere/*"]
[rules.others.parameters]
user = { drop = true }

[models."house/*"]
provider = "house"
[models."house/old-1"]
provider = "house"
parameters = { n = { drop = true }, top_p = { clamp = [0, 1] } }
[models."house/alias"]
provider = "house"
upstream = "ancient"
"""
DROP, REFUSE, ONLY = (Rule(drop=True),), (Rule(refuse=True),), (Rule(only=1),)


@pytest.mark.parametrize(
    ("model", "rules"),
    [
        ("house/new", {"seed": DROP, "stop": DROP, "n": REFUSE}),
        ("house/old-2", {"seed": DROP, "n": ONLY}),
        ("house/old-1", {"seed": DROP, "n": DROP, "top_p": (Rule(clamp=(0, 1)),)}),
        ("house/alias", {"seed": DROP, "n": ONLY}),
    ],
)
def test_rules_of_provider_family_and_model_stand_one_over_the_other(with_file, model, rules):
    roles = {"messages.role": (Rule(map={"developer": "system"}),)}  # of every model
    assert with_file(RULES).find(model).parameters == roles | rules


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("openai/o3-mini", "max_tokens"),
        ("openai/gpt-5-nano", "temperature"),
        ("openai/gpt-6-sol", "reasoning_effort"),
        ("anthropic/claude-sonnet-5", "temperature"),
    ],
)
def test_models_that_an_operator_adds_have_the_rules_of_their_family(with_file, model, name):
    provider = model.partition("/")[0]
    models = with_file(f'[models."{provider}/*"]\nprovider = "{provider}"')
    other = models.find(f"{provider}/another")
    assert name in models.find(model).parameters
    assert other.parameters.get(name) == models.providers[provider].parameters.get(name)


def test_a_model_of_another_kind_is_refused_in_openai_s_words():
    models = catalogue(variables=KEYS, demo_models=True)
    models.resolve("openai/gpt-4o").require("chat")
    models.resolve("openai/text-embedding-3-small").require("embeddings")
    models.resolve("mistral/mistral-embed").require("embeddings")  # nothing is known of it
    with pytest.raises(InvalidRequest, match="^This is not a chat model") as caught:
        models.resolve("demo/embed").require("chat")
    assert (caught.value.status, caught.value.param, caught.value.code) == (404, "model", None)
    with pytest.raises(InvalidRequest, match="embeddings") as caught:
        models.resolve("openai/gpt-4o").require("embeddings")
    assert (caught.value.status, caught.value.param) == (400, "model")


CHAIN = """
[models."openai/a"]
provider = "openai"
successor = "openai/b"
[models."openai/b"]
provider = "openai"
successor = "groq/c"
[models."openai/x"]
provider = "openai"
successor = "openai/y"
[models."openai/y"]
provider = "openai"
successor = "openai/x"
[models."openai/lost"]
provider = "openai"
successor = "local/d"
"""


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("openai/a", ["openai/b", "groq/c"]),
        ("openai/x", ["openai/y"]),
        ("openai/lost", []),
        ("groq/c", []),
    ],
)
def test_successors_follow_each_other_as_far_as_they_are_configured(tmp_path, model, names):
    file = tmp_path / "models.toml"
    file.write_text(CHAIN, "utf-8")
    keys = {"OPENAI_API_KEY": "k", "GROQ_API_KEY": "k"}
    models = catalogue(models_file=str(file), variables=keys, retired_models="successor")
    assert [target.model for target in models.successors(models.resolve(model), {})] == names
    refusing = catalogue(models_file=str(file), variables=keys)
    assert refusing.successors(refusing.resolve(model), {}) == []


SUBSTITUTES = """
[models."openai/a"]
provider = "openai"
successor = "anthropic/b"
[models."anthropic/b"]
provider = "anthropic"
successor = "openai/gpt-6-luna"
"""


@pytest.mark.parametrize(
    ("requested", "names"),
    [
        ({"temperature": 2, "seed": 1}, ["anthropic/b", "openai/gpt-6-luna"]),
        ({"n": 1}, ["anthropic/b", "openai/gpt-6-luna"]),
        ({"n": 2}, ["openai/gpt-6-luna"]),
        ({"audio": {}}, ["openai/gpt-6-luna"]),
        ({"web_search_options": {}}, ["anthropic/b", "openai/gpt-6-luna"]),
    ],
)
def test_no_successor_takes_a_call_that_it_cannot_answer_as_asked(with_file, requested, names):
    models = with_file(SUBSTITUTES, retired_models="successor")
    assert [r.model for r in models.successors(models.resolve("openai/a"), requested)] == names


def test_a_substitute_does_without_a_knob_and_not_without_what_is_asked_for():
    models = catalogue(variables=KEYS)
    assert fit(models, "openai/gpt-4o", {"top_k": 1}, "llamacpp/m") == ({}, ["top_k"])
    with pytest.raises(InvalidRequest) as refusal:
        fit(models, "openai/gpt-4o", {"grammar": "root ::= [ab]"}, "llamacpp/m")
    assert refusal.value.param == "grammar"


@pytest.mark.parametrize(
    ("model", "dropped"),
    [
        ("openai/gpt-4o", ["reasoning_effort", "verbosity"]),
        ("openai/gpt-4o-mini", ["reasoning_effort", "verbosity"]),
        ("openai/gpt-6-luna", []),
    ],
)
def test_a_model_is_told_nothing_of_reasoning_that_it_does_not_do(model, dropped):
    sent = {"reasoning_effort": "low", "verbosity": "low"}
    kept, left_out = fit(catalogue(variables=KEYS), model, sent, model)
    assert left_out == dropped
    assert kept == {name: value for name, value in sent.items() if name not in dropped}


def test_what_a_provider_keeps_of_messages_is_one_of_what_there_is(with_file):
    row = '[providers.own]\nwire = "openai"\nbase_url = "http://a"\nkeeps = '
    assert with_file(row + '["reasoning_content"]').providers["own"].accepts
    with pytest.raises(ConfigurationError, match="accepts may name cache_control, "):
        with_file(row + '["everything"]')


def test_a_pattern_of_ids_is_a_regular_expression(with_file):
    row = '[providers.own]\nwire = "openai"\nbase_url = "http://a"\ntool_call_ids = '
    assert with_file(row + '".{1,40}"').providers["own"].tool_call_ids == ".{1,40}"
    with pytest.raises(ConfigurationError, match="tool_call_ids is no regular expression"):
        with_file(row + '"["')


@pytest.mark.parametrize(
    "old", ["openai/gpt-4o-mini", "openai/gpt-4o", "anthropic/claude-sonnet-4-5"]
)
def test_the_successors_take_what_was_sent_to_the_seed_models(old):
    models = catalogue(variables=KEYS)
    sent = {
        "messages": [], "temperature": 0.2, "top_p": 0.9, "max_tokens": 50, "seed": 1, "stop": "a",
        "presence_penalty": 0.5, "frequency_penalty": 0.5, "logprobs": True, "top_logprobs": 2,
        "logit_bias": {"1": 1}, "user": "u",
    }  # fmt: skip
    new = models.find(old).successor
    kept, dropped = fit(models, new, sent, old)
    assert {"temperature", "top_p", "logprobs", "logit_bias"} <= set(dropped)
    assert not set(dropped) & kept.keys()
    assert ("stop" in kept) is new.startswith("anthropic/")
    limits = {"max_tokens", "max_completion_tokens"} & kept.keys()
    assert limits == {"max_completion_tokens" if new.startswith("openai/") else "max_tokens"}


def test_a_substitute_of_another_provider_gets_nothing_that_only_the_first_one_takes():
    models = catalogue(variables=KEYS)
    sent = {"messages": [], "top_k": 4, "min_p": 0.1, "stop": "a"}
    assert fit(models, "openai/gpt-4o", sent, "together/m") == (
        {"messages": [], "stop": "a"},
        ["top_k", "min_p"],
    )
    assert fit(models, "together/m", sent, "together/m") == (sent, [])


def test_prices_are_read_as_they_are_written(with_file):
    models = with_file(PRIVATE + 'prices = { prompt = "0.10", completion = "2" }')
    assert models.find("house/small").prices == (
        PriceTier(0, (("prompt", Decimal("0.10")), ("completion", Decimal(2)))),
    )


def test_prices_of_larger_prompts_are_tiers(with_file):
    tiers = 'tiers = [{ above = 10, prompt = "2" }, { above = 20, prompt = "3" }]'
    models = with_file(PRIVATE + f'prices = {{ prompt = "1", {tiers} }}\nbilled = false')
    row = models.find("house/small")
    assert [(tier.above, dict(tier.prices)) for tier in row.prices] == [
        (0, {"prompt": 1}),
        (10, {"prompt": 2}),
        (20, {"prompt": 3}),
    ]
    assert not row.billed


WRONG = {
    "unknown field of a model": ('[models."a/b"]\nprovider = "openai"\ncolour = "red"', "a/b"),
    "unknown field of a provider": (
        '[providers.a]\nwire = "openai"\nbase_url = "http://a"\ntimeout = 3',
        "a",
    ),
    "its own name as a field": ('[models."a/b"]\nprovider = "openai"\nid = "c"', "a/b"),
    "model without provider": ('[models."a/b"]\ncontext_length = 1', "a/b"),
    "unknown provider": ('[models."a/b"]\nprovider = "nobody"', "a/b"),
    "unknown successor": ('[models."a/b"]\nprovider = "openai"\nsuccessor = "a/c"', "a/b"),
    "unknown fallback": ('[models."a/b"]\nprovider = "openai"\nfallbacks = ["a/c"]', "a/b"),
    "fallback of another kind": (
        '[models."a/b"]\nprovider = "openai"\nfallbacks = ["openai/text-embedding-3-small"]',
        "a/b",
    ),
    "unknown timeout": ('[models."a/b"]\nprovider = "openai"\ntimeouts = { lunch = 1 }', "a/b"),
    "timeout of nothing": ('[models."a/b"]\nprovider = "openai"\ntimeouts = { total = 0 }', "a/b"),
    "timeout without end": (
        '[models."a/b"]\nprovider = "openai"\ntimeouts = { total = inf }',
        "a/b",
    ),
    "timeout as a string": (
        '[models."a/b"]\nprovider = "openai"\ntimeouts = { total = "1s" }',
        "a/b",
    ),
    "timeout that is on": (
        '[models."a/b"]\nprovider = "openai"\ntimeouts = { total = true }',
        "a/b",
    ),
    "timeouts that are no table": ('[models."a/b"]\nprovider = "openai"\ntimeouts = 5', "a/b"),
    "retries below nothing": ('[models."a/b"]\nprovider = "openai"\nretries = -1', "a/b"),
    "retries without end": ('[models."a/b"]\nprovider = "openai"\nretries = 11', "a/b"),
    "deployment at an unknown provider": (
        '[models."a/b"]\nprovider = "openai"\ndeployments = [{ provider = "nobody" }]',
        "a/b",
    ),
    "deployments of two wires": (
        '[models."a/b"]\nprovider = "openai"\n'
        'deployments = [{ provider = "openai" }, { provider = "anthropic" }]',
        "a/b",
    ),
    "deployments without the provider": (
        '[models."a/b"]\nprovider = "openai"\ndeployments = [{ provider = "azure" }]',
        "a/b",
    ),
    "deployments of a family": (
        '[models."a/*"]\nprovider = "openai"\ndeployments = [{ provider = "openai" }]',
        "a/*",
    ),
    "deployment of no weight": (
        '[models."a/b"]\nprovider = "openai"\ndeployments = [{ provider = "openai", weight = 0 }]',
        "a/b",
    ),
    "deployment with an unknown field": (
        '[models."a/b"]\nprovider = "openai"\ndeployments = [{ provider = "openai", share = 1 }]',
        "a/b",
    ),
    "deployment that is no table": (
        '[models."a/b"]\nprovider = "openai"\ndeployments = ["openai"]',
        "a/b",
    ),
    "unknown kind of credentials": (
        '[providers.a]\nwire = "openai"\nbase_url = "http://a"\nauth = "kerberos"',
        "a",
    ),
    "unknown rule": (
        '[models."a/b"]\nprovider = "openai"\n[models."a/b".parameters]\nseed = { burn = true }',
        "a/b",
    ),
    "two rules": (
        '[models."a/b"]\nprovider = "openai"\n'
        '[models."a/b".parameters]\nseed = { drop = true, refuse = true }',
        "a/b",
    ),
    "rule of a wrong type": (
        '[models."a/b"]\nprovider = "openai"\n[models."a/b".parameters]\nseed = "drop"',
        "a/b",
    ),
    "rule that is off": (
        '[models."a/b"]\nprovider = "openai"\n[models."a/b".parameters]\nseed = { drop = false }',
        "a/b",
    ),
    "range that is a number": (
        '[models."a/b"]\nprovider = "openai"\n[models."a/b".parameters]\ntop_p = { clamp = 1 }',
        "a/b",
    ),
    "rules that are no table": ('[models."a/b"]\nprovider = "openai"\nparameters = 5', "a/b"),
    "date as a string": (
        '[models."a/b"]\nprovider = "openai"\nshutdown_date = "2027-01-14"',
        "a/b",
    ),
    "limit as a string": ('[models."a/b"]\nprovider = "openai"\ncontext_length = "128k"', "a/b"),
    "model that is no table": ('[models]\n"a/b" = 5', "a/b"),
    "models that are no table": ("models = 5", "models"),
    "price as a number": ('[models."a/b"]\nprovider = "openai"\nprices = { prompt = 0.1 }', "a/b"),
    "price of nothing known": (
        '[models."a/b"]\nprovider = "openai"\nprices = { per_request = "0.1" }',
        "a/b",
    ),
    "price that is no number": (
        '[models."a/b"]\nprovider = "openai"\nprices = { prompt = "cheap" }',
        "a/b",
    ),
    "price below nothing": (
        '[models."a/b"]\nprovider = "openai"\nprices = { prompt = "-1" }',
        "a/b",
    ),
    "price beyond reason": (
        '[models."a/b"]\nprovider = "openai"\nprices = { prompt = "1e999999" }',
        "a/b",
    ),
    "tiers out of order": (
        '[models."a/b"]\nprovider = "openai"\n'
        'prices = { tiers = [{ above = 9, prompt = "1" }, { above = 9, prompt = "2" }] }',
        "a/b",
    ),
    "tier without a number": (
        '[models."a/b"]\nprovider = "openai"\nprices = { tiers = [{ prompt = "1" }] }',
        "a/b",
    ),
    "tier that is no table": (
        '[models."a/b"]\nprovider = "openai"\nprices = { tiers = [1] }',
        "a/b",
    ),
    "tiers that are no list": (
        '[models."a/b"]\nprovider = "openai"\nprices = { tiers = 1 }',
        "a/b",
    ),
    "typical output of nothing": (
        '[models."a/b"]\nprovider = "openai"\ntypical_output_tokens = 0',
        "a/b",
    ),
    "unknown kind": ('[models."a/b"]\nprovider = "openai"\nkind = "images"', "a/b"),
    "control character in a name": ('[models."a/\\n"]\nprovider = "openai"', "a/\n"),
    "provider with a slash": ('[providers."a/b"]\nwire = "openai"\nbase_url = "http://a"', "a/b"),
    "rules without models": ("[rules.a]\nparameters = { n = { drop = true } }", "a"),
    "unknown field of rules": ('[rules.a]\nmodels = ["a/*"]\nwire = "openai"', "a"),
    "condition without a rule": (
        '[models."a/b"]\nprovider = "openai"\n[models."a/b".parameters]\nseed = { when = "n" }',
        "a/b",
    ),
    "unknown wire": ('[providers.a]\nwire = "gopher"\nbase_url = "http://a"', "a"),
    "no base URL": ('[providers.a]\nwire = "openai"', "a"),
    "base URL that is none": ('[providers.a]\nwire = "openai"\nbase_url = "a:1"', "a"),
    "provider without wire": ('[providers.a]\nbase_url = "http://a"', "a"),
    "headers that are no table": (
        '[providers.a]\nwire = "openai"\nbase_url = "http://a"\nheaders = "X-Team"',
        "a",
    ),
}


@pytest.mark.parametrize(("text", "row"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_file_is_refused_with_the_name_of_the_row(with_file, text, row):
    with pytest.raises(ConfigurationError) as caught:
        with_file(text)
    assert f'"{row}"' in str(caught.value)


@pytest.mark.parametrize(
    ("table", "advice"),
    [
        ('model."a/b"', r"write \[models\.…\]"),
        ("provider.x", r"write \[providers\.…\]"),
        ("rule.x", r"write \[rules\.…\]"),
        ("colours", "known: providers, rules, models, replace"),
    ],
)
def test_an_unknown_table_is_refused_with_the_name_that_was_meant(with_file, table, advice):
    name = table.partition(".")[0]
    with pytest.raises(ConfigurationError, match=f'"{name}": unknown table; {advice}'):
        with_file(f'[{table}]\nprovider = "openai"')


@pytest.mark.parametrize(
    "variable", ["OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "LOCAL_BASE_URL", "OWN_BASE_URL"]
)
@pytest.mark.parametrize(
    "url", ["api.example/v1", "localhost:8000/v1", "https://", "http://h:x/v1"]
)
def test_a_base_url_that_is_no_url_names_its_variable(tmp_path, variable, url):
    file = tmp_path / "models.toml"
    file.write_text('[providers.own]\nwire = "openai"\nbase_url_variable = "OWN_BASE_URL"')
    with pytest.raises(ConfigurationError, match=f"^{variable} must be a URL .* '{url}'$"):
        catalogue(models_file=str(file), variables={variable: url})


def test_a_file_that_is_not_there_names_the_variable(tmp_path):
    with pytest.raises(ConfigurationError, match="^MODELS_FILE .*absent.toml: No such file"):
        catalogue(models_file=str(tmp_path / "absent.toml"))


def test_a_file_that_is_not_toml_is_refused_with_the_line(with_file):
    with pytest.raises(ConfigurationError, match=r"models.toml is not TOML: .*line 2"):
        with_file("replace = true\nx = = 1")


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    file = tmp_path / "models.toml"
    file.write_bytes(b"# \xff")
    with pytest.raises(ConfigurationError, match="is not TOML"):
        catalogue(models_file=str(file))


def test_rows_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        catalogue().find("openai/gpt-4o").context_length = 1


# Names of the previous release

OLD_NAMES = """
[providers.house]
wire = "openai"
base_url = "http://127.0.0.1:8000/v1"
keeps = ["file_url"]
[policies.house]
models = ["house/*"]
parameters = { seed = { drop = true } }
[models."house/old"]
provider = "house"
context = 8192
output = 100
shutdown = 2027-01-14
"""


def test_old_names_are_read_with_one_warning_for_a_file(with_file, caplog):
    row = with_file(OLD_NAMES).find("house/old")
    assert (row.context_length, row.max_output_tokens) == (8192, 100)
    assert row.shutdown_date == date(2027, 1, 14)
    assert (row.accepts, row.parameters["seed"]) == (("file_url",), DROP)
    (record,) = caplog.records
    assert "models.toml uses old names" in record.getMessage()
    names = "policies is now rules, keeps is now accepts, context is now context_length"
    assert names in record.getMessage()


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ('[models."a/b"]\nprovider = "openai"\ncontext = 1\ncontext_length = 1', "a/b"),
        ('[policies.a]\nmodels = ["a/*"]\n[rules.b]\nmodels = ["b/*"]', "policies"),
    ],
)
def test_an_old_name_beside_its_new_one_is_refused(with_file, text, row):
    with pytest.raises(ConfigurationError, match=f'"{row}"'):
        with_file(text)


def test_the_built_in_file_has_no_old_names(caplog):
    catalogue()
    assert caplog.records == []


# Fallbacks

FALLBACKS = """
[models."house/first"]
provider = "openai"
fallbacks = ["house/second", "groq/llama", "house/unset", "house/first"]
timeouts = { first_token = 2, total = 60.5 }
retries = 0
[models."house/second"]
provider = "openai"
[models."house/third"]
provider = "openai"
[providers.unset]
wire = "openai"
base_url = "http://127.0.0.1:1/v1"
key_variable = "NOT_SET"
[models."house/unset"]
provider = "unset"
fallbacks = ["house/second"]
"""


def names(routes):
    return [target.model for target in routes]


def test_a_row_names_its_fallbacks_in_order_and_those_without_key_are_left_out(with_file):
    models = with_file(FALLBACKS)
    assert names(models.fallbacks(models.resolve("house/first"), None)) == [
        "house/second",
        "groq/llama",
    ]
    assert models.fallbacks(models.resolve("house/second"), None) == []


def test_the_caller_s_fallbacks_take_the_place_of_the_row_s(with_file):
    models = with_file(FALLBACKS)
    first = models.resolve("house/first")
    requested = ["house/first", "house/third", "house/third", "house/unset"]
    assert names(models.fallbacks(first, requested)) == ["house/third"]
    assert models.fallbacks(first, []) == []


def test_a_fallback_that_the_caller_made_up_is_refused_by_name(with_file):
    models = with_file(FALLBACKS)
    with pytest.raises(ModelNotFound) as caught:
        models.fallbacks(models.resolve("house/first"), ["house/third", "house/nowhere"])
    assert "house/nowhere" in caught.value.message
    assert caught.value.param == "models"


def test_an_embedder_does_not_chat_for_a_model_that_fails(with_file):
    models = with_file(FALLBACKS)
    assert models.fallbacks(models.resolve("house/first"), ["openai/text-embedding-3-small"]) == []


def test_a_model_whose_provider_has_no_key_has_a_place_and_fallbacks(with_file):
    models = with_file(FALLBACKS)
    target = models.resolve("house/unset")
    assert names(models.fallbacks(target, None)) == ["house/second"]
    with pytest.raises(ProviderNotConfigured, match="set NOT_SET"):
        models.require_configured(target)


def test_a_row_s_own_limits_are_kept(with_file):
    row = with_file(FALLBACKS).find("house/first")
    assert (row.timeouts, row.retries) == (Timeouts(first_token=2, total=60.5), 0)
    row = with_file(FALLBACKS).find("house/second")
    assert (row.timeouts, row.retries) == (Timeouts(), None)


def test_every_row_is_told_families_among_them(with_file):
    ids = [row.id for row in with_file(FALLBACKS).rows()]
    assert {"house/first", "groq/*"} <= set(ids)


@pytest.mark.parametrize("first", ["openai/gpt-4o", "anthropic/claude-sonnet-4-5"])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_no_model_is_asked_for_more_than_it_can_write(first: str, name: str) -> None:
    models = catalogue(variables=KEYS)
    limit = models.find("openai/gpt-4o").max_output_tokens
    for value, sent in ((limit + 1, limit), (7, 7)):
        kept = fit(models, "openai/gpt-4o", {"messages": [], name: value}, first)
        assert kept == ({"messages": [], name: sent}, [])


NO_TOOLS = [
    {"tools": []},
    {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
    {"tools": [], "tool_choice": "none"},
    {"tool_choice": "auto"},
    {"parallel_tool_calls": False},
    {"functions": [], "function_call": "auto"},
    {"function_call": "none"},
]


@pytest.mark.parametrize("sent", NO_TOOLS)
@pytest.mark.parametrize("model", ["openai/gpt-4o", "openai/gpt-6.1-sol"])
def test_a_choice_among_no_tools_is_left_out_with_them(model: str, sent: dict[str, object]) -> None:
    models = catalogue(variables=KEYS)
    assert fit(models, model, {**sent, "seed": 1}, model) == ({"seed": 1}, [])


def test_a_tool_that_is_forced_among_none_is_left_to_the_provider() -> None:
    models = catalogue(variables=KEYS)
    sent = {"tools": [], "tool_choice": "required"}
    assert fit(models, "openai/gpt-4o", sent, "openai/gpt-4o") == (sent, [])


def test_rules_add_to_what_models_accept(with_file):
    catalogue = with_file("")
    assert "custom_tools" in catalogue.find("openai/gpt-6-luna").accepts
    assert "custom_tools" not in catalogue.find("openai/gpt-4o").accepts
    with pytest.raises(ConfigurationError, match="accepts may name"):
        with_file('[rules.own]\nmodels = ["a/*"]\naccepts = ["magic"]\n')


@pytest.mark.parametrize("provider", ["vllm", "llamacpp", "local", "together", "fireworks"])
def test_servers_of_open_models_get_the_arguments_of_their_templates(with_file, provider):
    assert "chat_template_kwargs" in with_file("").find(f"{provider}/m").extra_parameters
