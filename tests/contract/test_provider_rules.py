"""What each provider is sent of a call, whatever API it came through: the rules of models.toml."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gateway.catalogue.catalogue import Catalogue
from tests.support.whole import WholeExchange

HELLO = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "Read", "parameters": {"type": "object"}}}
FLAT_TOOL = {"type": "function", "name": "Read", "parameters": {"type": "object"}}
CLAUDE_TOOL = {"name": "Read", "input_schema": {"type": "object"}}
FORCED = {"type": "function", "function": {"name": "Read"}}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "a", "schema": {"type": "object", "properties": {}}},
}
KEYS = {
    "LOCAL_BASE_URL": "http://127.0.0.1:1/v1",
    "AZURE_OPENAI_BASE_URL": "https://me.openai.azure.com/openai/v1",
    "AWS_BEARER_TOKEN_BEDROCK": "key",
}


class Keys(dict[str, str]):
    """A value for every variable of a key."""

    def get(self, name: str, default: Any = "") -> Any:
        return super().get(name, "key" if name.endswith("_API_KEY") else default)


@pytest.fixture
def ask(make_client, settings, auth):
    """A function that posts a call; gives the response, and what the provider was sent."""
    settings = dataclasses.replace(settings, variables=Keys(KEYS))
    exchange = WholeExchange(Catalogue.load(settings), settings)
    client = make_client(settings, exchange)

    def post(api, model, **fields):
        response = send(client, auth, api, model, **fields)
        assert response.status_code == 200, response.get_data(as_text=True)
        post.request = exchange.transport.request
        return response, exchange.transport.sent

    return post


@pytest.fixture
def refused(client, auth):
    """A function that posts a call that is a 400; gives the error."""

    def post(api, model, **fields):
        response = send(client, auth, api, model, **fields)
        assert response.status_code == 400
        return response.get_json()["error"]

    return post


def send(client, auth, api, model, **fields):
    if api == "responses":
        fields = {"input": "hi", **fields}
    else:
        fields = {"messages": HELLO, **fields}
    if api == "messages":
        fields = {"max_tokens": 100, **fields}
    path = "chat/completions" if api == "chat" else api
    return client.post(
        f"/inference/v1/{path}",
        json={"model": model, **fields},
        headers={**auth, "anthropic-version": "2023-06-01"},
        buffered=True,
    )


def ignored(response):
    return set(filter(None, response.headers.get("X-Ignored-Parameters", "").split(", ")))


# Sampling

GPT_6, SOL, SONNET = "openai/gpt-6-luna", "openai/gpt-6.1-sol", "anthropic/claude-sonnet-5-5"


@pytest.mark.parametrize("api", ["chat", "messages", "responses"])
@pytest.mark.parametrize("model", [GPT_6, SOL, SONNET])
def test_sampling_that_a_model_does_not_take_is_left_out_and_named(ask, api, model):
    response, sent = ask(api, model, temperature=0.1, top_p=0.9)
    assert not {"temperature", "top_p"} & sent.keys()
    assert ignored(response) == {"temperature", "top_p"}
    response, sent = ask(api, model, temperature=1)
    assert "temperature" not in sent
    assert ignored(response) == set()


def test_penalties_and_stop_are_left_out_for_models_that_reason(ask):
    fields = {"presence_penalty": 0.5, "frequency_penalty": 0.5, "stop": "END"}
    response, sent = ask("chat", GPT_6, **fields)
    assert not fields.keys() & sent.keys()
    assert ignored(response) == fields.keys()


def test_sampling_and_stop_are_sent_to_a_model_that_is_not_to_reason(ask):
    fields = {"temperature": 0.1, "top_p": 0.9, "stop": ["END"]}
    response, sent = ask("chat", GPT_6, **fields, reasoning_effort="none")
    assert {name: sent[name] for name in fields} == fields
    assert ignored(response) == set()


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("openai/o3-mini", {"stop": "a", "parallel_tool_calls": False, "temperature": 0}),
        ("openai/gpt-5-nano", {"stop": "a", "temperature": 0, "top_p": 0.5}),
        ("xai/grok-4.5", {"stop": "a", "presence_penalty": 1, "frequency_penalty": 1}),
    ],
)
def test_other_models_that_reason_are_sent_none_of_it_either(make_ask, model, fields):
    response, sent = make_ask(model)("chat", model, **fields, tools=[TOOL])
    assert not fields.keys() & sent.keys()
    assert ignored(response) == fields.keys()


@pytest.fixture
def make_ask(make_client, settings, auth, tmp_path):
    """A function that adds a row for a model and gives a function that asks it."""

    def make(model):
        file = tmp_path / "models.toml"
        file.write_text(f'[models."{model}"]\nprovider = "{model.partition("/")[0]}"\n')
        own = dataclasses.replace(settings, variables=Keys(KEYS), models_file=str(file))
        exchange = WholeExchange(Catalogue.load(own), own)
        client = make_client(own, exchange)

        def post(api, model, **fields):
            body = {"model": model, "messages": HELLO, **fields}
            response = client.post("/inference/v1/chat/completions", json=body, headers=auth)
            assert response.status_code == 200, response.get_data(as_text=True)
            return response, exchange.transport.sent

        return post

    return make


def test_temperature_stands_before_top_p_for_claude(ask):
    model = "anthropic/claude-sonnet-4-5"
    response, sent = ask("chat", model, temperature=0.2, top_p=0.9)
    assert (sent["temperature"], "top_p" in sent, ignored(response)) == (0.2, False, {"top_p"})
    response, sent = ask("chat", model, temperature=1, top_p=0.9)
    assert (sent["top_p"], ignored(response)) == (0.9, set())


@pytest.mark.parametrize(
    "thinks",
    [{"reasoning_effort": "low"}, {"thinking": {"type": "enabled", "budget_tokens": 1024}}],
)
def test_sampling_makes_way_for_thinking(ask, thinks):
    sampling = {"temperature": 0.2, "top_p": 0.2, "top_k": 5}
    response, sent = ask("chat", "anthropic/claude-sonnet-4-5", **sampling, **thinks)
    assert sent["thinking"]["type"] == "enabled"
    assert "temperature" not in sent
    assert "top_k" not in sent
    assert "top_p" not in sent
    assert ignored(response) == sampling.keys()


# Tools that are forced


@pytest.mark.parametrize(
    ("api", "fields"),
    [
        ("chat", {"tools": [TOOL], "tool_choice": "required"}),
        ("chat", {"tools": [TOOL], "tool_choice": FORCED}),
        ("messages", {"tools": [CLAUDE_TOOL], "tool_choice": {"type": "any"}}),
        ("messages", {"tools": [CLAUDE_TOOL], "tool_choice": {"type": "tool", "name": "Read"}}),
        ("responses", {"tools": [FLAT_TOOL], "tool_choice": "required"}),
        ("responses", {"tools": [FLAT_TOOL], "tool_choice": {"type": "function", "name": "Read"}}),
    ],
)
def test_a_model_that_cannot_be_forced_is_asked_to_use_the_tool(ask, api, fields):
    response, sent = ask(api, SONNET, **fields)
    assert sent["tool_choice"] == {"type": "auto"}
    assert "Respond with a call" in str([sent.get("system"), sent["messages"]])
    assert ignored(response) == {"tool_choice"}


@pytest.mark.parametrize("choice", ["required", FORCED])
def test_thinking_makes_way_for_a_forced_tool(ask, choice):
    model = "anthropic/claude-sonnet-4-5"
    fields = {"tools": [TOOL], "tool_choice": choice, "reasoning_effort": "high"}
    response, sent = ask("chat", model, **fields)
    assert sent["tool_choice"]["type"] in ("any", "tool")
    assert "thinking" not in sent
    assert ignored(response) == {"reasoning_effort"}


def test_reasoning_makes_way_for_tools_where_a_model_has_only_one_of_them(ask):
    response, sent = ask("responses", GPT_6, tools=[FLAT_TOOL], reasoning={"effort": "high"})
    assert sent["reasoning_effort"] == "none"
    assert ignored(response) == {"reasoning.effort"}


@pytest.mark.parametrize("model", ["openai/gpt-4o", "mistral/small", "vllm/qwen3"])
def test_an_empty_list_of_tools_is_not_sent(ask, model):
    fields = {"tools": [], "tool_choice": "auto", "parallel_tool_calls": False}
    response, sent = ask("chat", model, **fields)
    assert not fields.keys() & sent.keys()


@pytest.mark.parametrize(
    ("model", "thinking", "sent_as", "left_out"),
    [
        (SONNET, {"type": "disabled"}, {"type": "between_tools"}, set()),
        ("anthropic/claude-opus-5-5", {"type": "disabled"}, None, {"thinking"}),
        ("claude-opus-4-8", {"type": "disabled"}, {"type": "disabled"}, set()),
        (
            "claude-opus-4-8",
            {"type": "enabled", "budget_tokens": 2048},
            {"type": "adaptive"},
            set(),
        ),
    ],
)
def test_thinking_is_asked_for_as_each_model_takes_it(ask, model, thinking, sent_as, left_out):
    response, sent = ask("messages", model, thinking=thinking, max_tokens=4000)
    assert sent.get("thinking") == sent_as
    assert ignored(response) == left_out


def test_a_model_that_always_thinks_thinks_little_where_it_is_not_to(ask):
    response, sent = ask("chat", "anthropic/claude-opus-5-5", reasoning_effort="none")
    assert sent["output_config"] == {"effort": "low"}
    assert ignored(response) == set()


# Parameters that only OpenAI has

BOOKKEEPING = {
    "store": False,
    "metadata": {"a": "b"},
    "safety_identifier": "me",
    "prompt_cache_key": "s-1",
    "prompt_cache_retention": "24h",
    "verbosity": "low",
}
STRICT = [
    "groq", "mistral", "deepseek", "together", "xai", "fireworks", "gemini", "bedrock", "cohere",
    "cerebras", "nvidia", "moonshot", "zai", "alibaba", "perplexity",
]  # fmt: skip


@pytest.mark.parametrize("provider", STRICT)
def test_what_tunes_nothing_is_left_out_and_named_where_it_is_not_documented(ask, provider):
    response, sent = ask("chat", f"{provider}/model", **BOOKKEEPING)
    taken = {"prompt_cache_key"} if provider == "fireworks" else set()
    assert BOOKKEEPING.keys() & sent.keys() == taken
    assert ignored(response) == BOOKKEEPING.keys() - taken


@pytest.mark.parametrize("model", [GPT_6, "azure/gpt-6-luna"])
def test_openai_is_sent_all_of_it(ask, model):
    response, sent = ask("chat", model, **BOOKKEEPING)
    assert {name: sent[name] for name in BOOKKEEPING} == BOOKKEEPING
    assert ignored(response) == set()


def test_a_fallback_is_sent_only_what_it_takes(make_client, settings, auth):
    own = dataclasses.replace(settings, variables={"GROQ_API_KEY": "key"})
    exchange = WholeExchange(Catalogue.load(own), own)
    body = {"model": "openai/gpt-4o", "models": ["groq/x"], "messages": HELLO, **BOOKKEEPING}
    response = make_client(own, exchange).post(
        "/inference/v1/chat/completions", json=body, headers=auth
    )
    assert exchange.transport.sent["model"] == "x"
    assert not BOOKKEEPING.keys() & exchange.transport.sent.keys()
    assert ignored(response) == BOOKKEEPING.keys()


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("groq/x", {"logprobs": True, "top_logprobs": 2, "logit_bias": {"1": 1}}),
        ("groq/x", {"service_tier": "priority", "reasoning_effort": "low"}),
        ("mistral/x", {"user": "u", "logit_bias": {"1": 1}, "service_tier": "auto"}),
        ("gemini/x", {"user": "u", "parallel_tool_calls": False, "logit_bias": {"1": 1}}),
        ("xai/x", {"logit_bias": {"1": 1}, "service_tier": "auto"}),
        ("xai/grok-4-fast-reasoning", {"reasoning_effort": "low"}),
        ("deepseek/x", {"reasoning_effort": "none"}),
        ("openai/gpt-4o", {"reasoning_effort": "low", "verbosity": "low"}),
        ("azure/gpt-4o", {"reasoning_effort": "low", "verbosity": "low"}),
        ("azure/gpt-6-luna", {"temperature": 0, "stop": "a", "presence_penalty": 1}),
        ("cohere/command-a", {"logit_bias": {"1": 1}, "parallel_tool_calls": False, "user": "u"}),
        ("cerebras/gpt-oss-120b", {"frequency_penalty": 1, "presence_penalty": 1}),
        ("cerebras/gpt-oss-120b", {"parallel_tool_calls": False, "logit_bias": {"1": 1}}),
        ("nvidia/meta/llama", {"user": "u", "service_tier": "auto"}),
        ("moonshot/kimi-k2.6", {"temperature": 0.2, "top_p": 0.9, "reasoning_effort": "low"}),
        ("zai/glm-5.2", {"frequency_penalty": 1, "seed": 1, "user": "u", "logprobs": True}),
        ("alibaba/qwen-plus", {"user": "u", "frequency_penalty": 1, "logit_bias": {"1": 1}}),
        ("perplexity/sonar", {"user": "u", "seed": 1, "reasoning_effort": "low"}),
    ],
)  # fmt: skip
def test_what_a_provider_refuses_is_left_out_and_named(ask, model, fields):
    # Without tools, what is about tools is left out for every provider and not named.
    tools = {"tools": [TOOL]} if "parallel_tool_calls" in fields else {}
    response, sent = ask("chat", model, **tools, **fields)
    assert not fields.keys() & sent.keys()
    assert ignored(response) == fields.keys()


def test_claude_code_s_user_does_not_go_to_mistral(ask):
    response, sent = ask("messages", "mistral/x", metadata={"user_id": "u"})
    assert "user" not in sent
    assert ignored(response) == {"metadata.user_id"}


@pytest.mark.parametrize("provider", ["mistral", "cohere", "zai", "perplexity"])
def test_no_usage_is_asked_of_a_provider_that_refuses_the_question(ask, provider):
    _, sent = ask("chat", f"{provider}/x", stream=True)
    assert sent["stream"] is True
    assert "stream_options" not in sent
    _, sent = ask("chat", "groq/x", stream=True)
    assert sent["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("provider", ["groq", "mistral", "gemini", "cohere", "zai"])
def test_names_of_messages_are_left_out_where_they_are_refused(ask, provider):
    messages = [{"role": "user", "content": "hi", "name": "Ann"}]
    response, sent = ask("chat", f"{provider}/x", messages=messages)
    assert sent["messages"] == HELLO
    assert ignored(response) == {"messages.name"}


# Names and values


@pytest.mark.parametrize("provider", [*STRICT, "ollama", "llamacpp", "local", "lmstudio"])
def test_the_limit_has_the_name_that_the_provider_documents(ask, provider):
    newer = provider in ("groq", "xai", "gemini", "bedrock", "cerebras", "moonshot")
    _, sent = ask("chat", f"{provider}/x", max_completion_tokens=9)
    assert sent["max_completion_tokens" if newer else "max_tokens"] == 9
    assert len({"max_tokens", "max_completion_tokens"} & sent.keys()) == 1
    _, sent = ask("responses", f"{provider}/x", max_output_tokens=9)
    assert 9 in (sent.get("max_tokens"), sent.get("max_completion_tokens"))


@pytest.mark.parametrize(
    ("api", "model", "sent_as", "limit"),
    [
        ("messages", "openai/gpt-4o-mini", "max_tokens", 16_384),
        ("chat", "openai/gpt-4o", "max_tokens", 16_384),
        ("messages", GPT_6, "max_completion_tokens", 128_000),
        ("messages", "anthropic/claude-sonnet-4-5", "max_tokens", 64_000),
    ],
)
def test_no_model_is_asked_for_more_than_it_can_write(ask, api, model, sent_as, limit):
    _, sent = ask(api, model, max_tokens=200_000)
    assert sent[sent_as] == limit


@pytest.mark.parametrize(
    "model",
    ["deepseek/x", "mistral/x", "together/x", "llamacpp/x", "vllm/x", "ollama/x", "fireworks/x"],
)
def test_developers_are_the_system_for_all_but_openai(ask, model):
    messages = [{"role": "developer", "content": "rules"}, *HELLO]
    _, sent = ask("chat", model, messages=messages)
    assert [each["role"] for each in sent["messages"]] == ["system", "user"]
    _, sent = ask("chat", "openai/gpt-4o", messages=messages)
    assert [each["role"] for each in sent["messages"]] == ["developer", "user"]


@pytest.mark.parametrize(
    ("model", "effort", "sent_as"),
    [
        ("openai/gpt-6-luna", "minimal", "low"),
        ("openai/gpt-6.1-sol", "none", "low"),
        ("groq/openai/gpt-oss-120b", "max", "high"),
        ("groq/openai/gpt-oss-120b", "none", "low"),
        ("groq/qwen/qwen3-32b", "high", "default"),
        ("groq/qwen/qwen3-32b", "none", "none"),
        ("mistral/x", "medium", "high"),
        ("mistral/x", "minimal", "none"),
        ("deepseek/x", "xhigh", "high"),
        ("deepseek/x", "max", "max"),
        ("gemini/gemini-3-pro", "none", "low"),
        ("gemini/gemini-3-pro-preview", "medium", "high"),
        ("gemini/gemini-3.1-pro", "medium", "medium"),
        ("gemini/gemini-3-flash", "minimal", "low"),
        ("perplexity/sonar-reasoning-pro", "xhigh", "high"),
        ("gemini/gemini-2.5-flash", "none", "none"),
        ("gemini/gemini-3-pro", "xhigh", "high"),
        ("xai/grok-4.3", "none", "none"),
        ("xai/grok-4.5", "none", "low"),
        ("xai/grok-3-mini", "medium", "high"),
        ("together/x", "minimal", "low"),
        ("fireworks/x", "max", "high"),
        ("openrouter/x", "max", "xhigh"),
        ("vllm/x", "minimal", "low"),
        ("sglang/x", "max", "high"),
        ("azure/o3", "none", "low"),
        ("azure/gpt-5-mini", "none", "minimal"),
        ("cohere/command-a", "low", "high"),
        ("cohere/command-a", "minimal", "none"),
        ("cerebras/gpt-oss-120b", "none", "low"),
        ("cerebras/zai-glm-4.7", "none", "none"),
        ("nvidia/x", "max", "high"),
        ("moonshot/kimi-k3", "medium", "high"),
        ("lmstudio/x", "xhigh", "high"),
        ("ollama/x", "xhigh", "high"),
    ],
)
def test_an_effort_becomes_the_nearest_that_the_model_knows(ask, model, effort, sent_as):
    response, sent = ask("chat", model, reasoning_effort=effort)
    assert sent["reasoning_effort"] == sent_as
    assert ignored(response) == set()


@pytest.mark.parametrize(
    ("model", "limit"),
    [("openai/gpt-4o", 4), ("azure/gpt-4o", 4), ("gemini/x", 5), ("groq/x", 4), ("zai/x", 1)],
)
def test_a_list_of_stop_sequences_is_cut_to_what_the_provider_takes(ask, model, limit):
    words = list("abcdefgh")
    response, sent = ask("messages", model, stop_sequences=words)
    assert sent["stop"] == words[:limit]
    assert ignored(response) == {"stop"}


def test_a_seed_has_mistral_s_name(ask):
    response, sent = ask("chat", "mistral/x", seed=7)
    assert (sent["random_seed"], "seed" in sent, ignored(response)) == (7, False, set())


@pytest.mark.parametrize("provider", ["deepseek", "zai"])
def test_a_schema_is_described_to_a_provider_that_takes_none(ask, provider):
    response, sent = ask("chat", f"{provider}/x", response_format=SCHEMA)
    assert sent["response_format"] == {"type": "json_object"}
    assert '{"properties":{},"type":"object"}' in sent["messages"][-1]["content"]
    assert ignored(response) == {"response_format"}


@pytest.mark.parametrize(
    "provider", ["vllm", "llamacpp", "local", "together", "fireworks", "nvidia", "sglang"]
)
def test_the_switches_of_a_chat_template_reach_the_servers_that_have_one(ask, provider):
    fields = {"chat_template_kwargs": {"enable_thinking": False}}
    response, sent = ask("chat", f"{provider}/qwen3", **fields)
    assert sent["chat_template_kwargs"] == fields["chat_template_kwargs"]
    assert ignored(response) == set()


@pytest.mark.parametrize(
    ("model", "choice"),
    [
        ("zai/glm-5.2", "required"),
        ("zai/glm-5.2", FORCED),
        ("moonshot/kimi-k2.6", FORCED),
        ("alibaba/qwen-plus", "required"),
        ("lmstudio/qwen3", FORCED),
    ],
)
def test_providers_that_force_no_tool_are_asked_to_use_it(ask, model, choice):
    response, sent = ask("chat", model, tools=[TOOL], tool_choice=choice)
    assert sent["tool_choice"] == "auto"
    assert "Answer this turn by calling" in sent["messages"][-1]["content"]
    assert ignored(response) == {"tool_choice"}


def test_a_provider_that_cannot_be_told_to_use_no_tool_gets_none(ask):
    _, sent = ask("chat", "zai/glm-5.2", tools=[TOOL], tool_choice="none")
    assert not {"tools", "tool_choice"} & sent.keys()


@pytest.mark.parametrize("provider", ["moonshot", "zai"])
def test_strictness_of_tools_is_left_out_where_it_is_unknown(ask, provider):
    strict = {"type": "function", "function": {**TOOL["function"], "strict": True}}
    response, sent = ask("chat", f"{provider}/x", tools=[strict])
    assert "strict" not in sent["tools"][0]["function"]
    assert ignored(response) == {"tools.function.strict"}


@pytest.mark.parametrize("model", ["lmstudio/x", "perplexity/sonar"])
def test_some_are_asked_for_no_object_without_a_schema(ask, model):
    response, sent = ask("chat", model, response_format={"type": "json_object"})
    assert "response_format" not in sent
    assert ignored(response) == {"response_format"}
    response, sent = ask("chat", model, response_format=SCHEMA)
    assert sent["response_format"] == SCHEMA


REFUSES_TOOLS = [
    ("openai/gpt-6.1-sol", "it calls functions in OpenAI's Responses API only"),
    ("perplexity/sonar", "its models search the web, and call no functions"),
]


@pytest.mark.parametrize("api", ["chat", "messages", "responses"])
@pytest.mark.parametrize(("model", "reason"), REFUSES_TOOLS)
def test_a_model_without_functions_refuses_them_and_says_why(refused, api, model, reason):
    tool = {"chat": TOOL, "messages": CLAUDE_TOOL, "responses": FLAT_TOOL}[api]
    error = refused(api, model, tools=[tool])
    assert reason in error["message"]


# Addresses and keys


@pytest.mark.parametrize(
    ("model", "url", "upstream"),
    [
        ("azure/my-gpt", "https://me.openai.azure.com/openai/v1", "my-gpt"),
        ("bedrock/openai.gpt-6", "https://bedrock-mantle.us-east-1.api.aws/v1", "openai.gpt-6"),
        ("cohere/command-a-03-2025", "https://api.cohere.ai/compatibility/v1", "command-a-03-2025"),
        ("cerebras/gpt-oss-120b", "https://api.cerebras.ai/v1", "gpt-oss-120b"),
        ("nvidia/meta/llama-3.3-70b", "https://integrate.api.nvidia.com/v1", "meta/llama-3.3-70b"),
        ("moonshot/kimi-k3", "https://api.moonshot.ai/v1", "kimi-k3"),
        ("zai/glm-5.2", "https://api.z.ai/api/paas/v4", "glm-5.2"),
        ("alibaba/qwen3", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "qwen3"),
        ("lmstudio/qwen3-4b", "http://127.0.0.1:1234/v1", "qwen3-4b"),
        ("sglang/qwen3", "http://127.0.0.1:30000/v1", "qwen3"),
        ("perplexity/sonar-pro", "https://api.perplexity.ai", "sonar-pro"),
    ],
)  # fmt: skip
def test_each_provider_is_called_at_its_address_with_its_key(ask, model, url, upstream):
    _, sent = ask("chat", model)
    assert (ask.request.url, sent["model"]) == (f"{url}/chat/completions", upstream)
    headers = {name.lower(): value for name, value in ask.request.headers.items()}
    if model.startswith("azure"):
        assert headers["api-key"] == "key"
        assert "authorization" not in headers
    elif not url.startswith("http:"):
        assert headers["authorization"] == "Bearer key"
