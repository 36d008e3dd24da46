"""Anthropic's Messages API over HTTP, with a fake broker in place of queue and workers."""

from __future__ import annotations

import dataclasses
import json

import orjson
import pytest

from gateway import errors
from gateway.account.api_keys import KeyStore, public_id
from gateway.queue.protocol import Outcome
from tests.support.fakes import ANSWER, SILENCE, FakeBroker, part
from tests.support.messages_events import events, message

BASE = "/inference/v1"
MESSAGES = f"{BASE}/messages"
BODY = {
    "model": "openai/gpt-4o-mini",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "hi"}],
}
VERSIONS = {"anthropic-version": "2023-06-01", "anthropic-beta": "a-2025-01-01,b-2026-01-01"}
NO_KEY = "x-api-key header is required"


def post(client, headers, body=None, **fields):
    return client.post(
        MESSAGES,
        data=orjson.dumps(body or {**BODY, **fields}),
        content_type="application/json",
        headers={**VERSIONS, **headers},
        buffered=True,
    )


@pytest.fixture
def plain(key):
    return {"x-api-key": key}


@pytest.fixture
def ask(client, plain):
    """A function that posts a Messages request with these further fields."""
    return lambda **fields: post(client, plain, **fields)


@pytest.fixture
def ask_scripted(make_client, settings, plain):
    """A function that posts a Messages request to which this script is played."""

    def ask(*script, **fields):
        fake = FakeBroker(*script)
        return post(make_client(settings, fake), plain, **fields)

    return ask


def refused(response, status, kind):
    """Checks all that a refusal has to be; returns its message."""
    told = response.get_json()
    assert told.keys() == {"type", "error", "request_id"}
    assert (response.status_code, told["type"], told["error"]["type"]) == (status, "error", kind)
    assert told["error"].keys() == {"type", "message"}
    assert response.content_type == "application/json"
    request_id = response.headers["X-Request-Id"]
    assert told["request_id"] == response.headers["request-id"] == request_id
    return told["error"]["message"]


# Answers


def test_a_whole_answer_is_a_message(ask, broker):
    response = ask()
    (call,) = broker.calls
    assert (response.status_code, response.content_type) == (200, "application/json")
    assert response.get_json() == {
        "id": f"msg_{call.spec.call_id}",
        "type": "message",
        "role": "assistant",
        "model": "openai/gpt-4o-mini",
        "content": [{"type": "text", "text": "Hello!"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 9,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 2,
        },
    }
    assert response.headers["request-id"] == response.headers["X-Request-Id"]
    assert response.headers["X-Ignored-Parameters"] == "anthropic-beta"


def test_a_stream_is_the_same_message(ask, broker):
    response = ask(stream=True)
    assert response.content_type.startswith("text/event-stream")
    assert response.headers["request-id"] == response.headers["X-Request-Id"]
    streamed = message(events(response.get_data()))
    whole = ask().get_json()
    assert streamed == whole | {"id": streamed["id"]}
    assert [call.spec.stream for call in broker.calls] == [True, False]


def test_the_exchange_gets_a_chat_call(ask, broker):
    ask(system="Be kind.", stop_sequences=["END"], metadata={"user_id": "u"})
    assert broker.calls[0].body == {
        "messages": [{"role": "system", "content": "Be kind."}, *BODY["messages"]],
        "max_tokens": 50,
        "stop": ["END"],
        "user": "u",
    }


def test_what_the_provider_does_not_take_is_left_out_and_named(ask, broker):
    response = ask(
        model="openai/gpt-6-luna",
        temperature=0.3,
        top_k=5,
        thinking={"type": "adaptive"},
        context_management={},
        service_tier="auto",
    )
    assert response.status_code == 200
    (call,) = broker.calls
    assert call.body.keys() == {"messages", "max_tokens", "temperature"}
    assert call.spec.optional == ("temperature",)  # the worker leaves it out
    named = response.headers["X-Ignored-Parameters"].split(", ")
    assert sorted(named) == [
        "anthropic-beta",
        "context_management",
        "service_tier",
        "temperature",
        "thinking",
        "top_k",
    ]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("header", "betas"),
    [
        ("context-1m-2025-08-07", ["context-1m-2025-08-07"]),
        ("a-2025-01-01, b-2026-01-01,", ["a-2025-01-01", "b-2026-01-01"]),
        ("good,b@d,x y,\tfine", ["good", "fine"]),
        ("x" * 65, None),
        ("", None),
    ],
)
def test_the_betas_of_the_caller_go_to_anthropic(client, plain, broker, stream, header, betas):
    body = {**BODY, "model": "anthropic/claude-sonnet-5-5", "stream": stream}
    body["context_management"] = {"edits": []}
    response = client.post(MESSAGES, json=body, headers={**plain, "anthropic-beta": header})
    assert broker.calls[0].body.get("betas") == betas
    assert broker.calls[0].body["context_management"] == {"edits": []}
    assert "X-Ignored-Parameters" not in response.headers


def test_more_tokens_than_the_model_can_write_are_lowered(ask, broker):
    for stream in (False, True):
        ask(max_tokens=32_000, stream=stream)
        ask(model="openai/gpt-6-luna", max_tokens=200_000, stream=stream)
    assert [call.body["max_tokens"] for call in broker.calls] == [16_384, 128_000] * 2


def test_tools_that_anthropic_runs_are_left_out_and_named(ask, broker):
    hosted = [{"type": "web_search_20250305", "name": "web_search"}, {"type": "advisor"}]
    own = {"name": "f", "input_schema": {}}
    response = ask(tools=[*hosted, own], tool_choice={"type": "any"})
    assert response.status_code == 200
    assert [tool["function"]["name"] for tool in broker.calls[0].body["tools"]] == ["f"]
    named = response.headers["X-Ignored-Parameters"].split(", ")
    assert {"web_search_20250305", "advisor"} <= set(named)
    assert ask(tools=hosted).status_code == 200
    assert "tools" not in broker.calls[1].body


def test_the_betas_of_an_sdk_change_the_address_and_nothing_else(client, plain):
    response = client.post(f"{MESSAGES}?beta=true", json=BODY, headers=plain)
    assert response.get_json()["type"] == "message"


def test_an_answer_after_blanks_is_a_message_or_anthropic_s_error(ask_scripted):
    good = ask_scripted(SILENCE, ANSWER).get_data()
    assert good.startswith(b" ")
    assert json.loads(good)["type"] == "message"
    response = ask_scripted(SILENCE, errors.UpstreamOverloaded())
    assert response.status_code == 200
    told = response.get_json()
    assert (told["type"], told["error"]["type"]) == ("error", "overloaded_error")
    assert told["request_id"] == response.headers["request-id"]


# Counting


COUNT = f"{MESSAGES}/count_tokens"
PROMPT = {"messages": [{"role": "user", "content": "x" * 400}]}


def test_anthropic_counts_for_its_models(make_client, settings, plain):
    fake = FakeBroker(Outcome(answer=b'{"input_tokens":12}'))
    body = {**PROMPT, "model": "anthropic/claude-sonnet-5-5", "thinking": {"type": "adaptive"}}
    headers = {**plain, "anthropic-beta": "b-1"}
    response = make_client(settings, fake).post(COUNT, json=body, headers=headers)
    assert response.get_json() == {"input_tokens": 12}
    assert response.headers["request-id"] == response.headers["X-Request-Id"]
    assert "X-Token-Count" not in response.headers
    (call,) = fake.calls
    assert (call.spec.kind, call.spec.stream, len(call.spec.targets)) == ("count_tokens", False, 1)
    assert call.body["betas"] == ["b-1"]


def test_a_failed_count_is_an_error(make_client, settings, plain):
    fake = FakeBroker(errors.UpstreamThrottled(retry_after=3))
    body = {**PROMPT, "model": "anthropic/claude-sonnet-5-5"}
    response = make_client(settings, fake).post(COUNT, json=body, headers=plain)
    refused(response, 429, "rate_limit_error")


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "demo/echo", "groq/x"])
def test_other_models_get_an_estimate(client, broker, plain, model):
    response = client.post(COUNT, json={**PROMPT, "model": model}, headers=plain)
    assert response.get_json() == {"input_tokens": 100}
    assert response.headers["X-Token-Count"] == "estimate"
    assert broker.calls == []


def test_an_estimate_goes_by_the_key_as_it_is_now(client, redis, settings):
    store = KeyStore(redis, settings.key_pepper)  # that of another process
    key = store.create("tests", models=("demo/slow",))
    body, headers = {**PROMPT, "model": "demo/echo"}, {"x-api-key": key}
    refused(client.post(COUNT, json=body, headers=headers), 403, "permission_error")
    store.change(public_id(key), lambda record: {"models": ("demo/echo",)})
    assert client.post(COUNT, json=body, headers=headers).get_json() == {"input_tokens": 100}


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"model": "openai/gpt-4o-mini"}, 400, "invalid_request_error"),
        ({**PROMPT, "model": "nobody/x"}, 404, "not_found_error"),
        ({**PROMPT}, 400, "invalid_request_error"),
        ({**PROMPT, "model": "openai/text-embedding-3-small"}, 404, "not_found_error"),
    ],
)
def test_a_count_of_nothing_is_refused(client, plain, body, status, kind):
    refused(client.post(COUNT, json=body, headers=plain), status, kind)


# Keys


def test_the_key_may_stand_in_either_header(client, auth, plain):
    assert post(client, auth).status_code == 200
    assert post(client, plain).status_code == 200
    for path in (f"{BASE}/models", f"{BASE}/models/demo/echo"):
        assert client.get(path, headers=plain).status_code == 200


def test_no_key_is_told_so(client, broker):
    assert refused(post(client, {}), 401, "authentication_error") == NO_KEY
    assert refused(post(client, {"x-api-key": ""}), 401, "authentication_error") == NO_KEY
    assert broker.calls == []


def test_wrong_keys_are_told_alike_in_either_header(client, broker, redis, settings, key):
    store = KeyStore(redis, settings.key_pepper)
    store.revoke(key[13:25])
    for wrong in (key, "mk_inference_x", "sk-ant-abc", "x" * 300, "Bearer x"):
        in_bearer = post(client, {"Authorization": f"Bearer {wrong}"})
        alone = post(client, {"x-api-key": wrong})
        told = refused(alone, 401, "authentication_error")
        assert wrong[-30:] not in told
        assert refused(in_bearer, 401, "authentication_error") == told
    assert broker.calls == []


def test_the_authorization_header_is_the_only_guess(client, key, auth):
    wrong = {"Authorization": "Bearer mk_inference_x", "x-api-key": key}
    refused(post(client, wrong), 401, "authentication_error")
    assert post(client, {**auth, "x-api-key": "mk_inference_x"}).status_code == 200


# Errors


@pytest.mark.parametrize(
    ("fields", "status", "kind", "told"),
    [
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens: Input should be"),
        ({"model": 5}, 400, "invalid_request_error", "model: Input should be a valid string"),
        ({"model": "nobody/x"}, 404, "not_found_error", "The model `nobody/x` does not exist"),
        ({"model": "groq/llama"}, 503, "api_error", "The model 'groq/llama' is served by"),
        (
            {
                "tools": [{"type": "web_search_20250305", "name": "web_search"}],
                "tool_choice": {"type": "tool", "name": "web_search"},
            },
            400,
            "invalid_request_error",
            "tool_choice.name: 'web_search_20250305' tools are not run by this service",
        ),
        (
            {
                "tools": [{"type": "web_search_20250305", "name": "web_search"}],
                "tool_choice": {"type": "any"},
            },
            400,
            "invalid_request_error",
            "tool_choice.type: none of the tools is run by the caller",
        ),
    ],
)
def test_a_bad_request_is_refused_before_anything_is_spent(ask, broker, fields, status, kind, told):
    assert refused(ask(**fields), status, kind).startswith(told)
    assert broker.calls == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "thread", [{"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}]
)
def test_threads_are_refused_so_that_tool_runners_go_on_without_them(ask, broker, stream, thread):
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "x"}
    messages = [{"role": "user", "content": [result]}]
    response = ask(stream=stream, thread=thread, messages=messages)
    assert response.status_code == 400
    error = response.get_json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["details"] == {"error_code": "thread_unsupported_request"}
    assert broker.calls == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "gpt-4o-mini", "demo/echo"])
def test_the_response_names_the_model_of_the_request(ask, stream, model):
    response = ask(model=model, stream=stream)
    body = message(events(response.get_data())) if stream else response.get_json()
    assert body["model"] == model


@pytest.mark.parametrize("words", ["This model's maximum context length is 8192 tokens.", "Long"])
def test_a_long_prompt_is_named_in_the_words_that_claude_code_reacts_to(ask, broker, words):
    broker.refusal = errors.UpstreamRejected(words, code="context_length_exceeded")
    message = refused(ask(), 400, "invalid_request_error")
    assert message == f"prompt is too long: {words}"


def test_anthropic_s_own_words_for_a_long_prompt_stay(ask, broker):
    words = "prompt is too long: 208310 tokens > 200000 maximum"
    broker.refusal = errors.UpstreamRejected(words, code="context_length_exceeded")
    assert refused(ask(), 400, "invalid_request_error") == words


def test_a_wrong_key_is_not_worth_a_retry(client):
    response = post(client, {"x-api-key": "sk-ant-abc"})
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (errors.Overloaded(retry_after=5), 529, "overloaded_error"),
        (errors.UpstreamThrottled(retry_after=5), 429, "rate_limit_error"),
        (errors.UpstreamTimeout(retry_after=5), 504, "timeout_error"),
    ],
)
def test_a_failed_call_keeps_its_status_and_advice(ask, broker, stream, error, status, kind):
    broker.refusal = error
    response = ask(stream=stream)
    refused(response, status, kind)
    assert response.headers.get("Retry-After") == (None if error.should_retry is False else "5")
    wanted = None if error.should_retry is None else str(error.should_retry).lower()
    assert response.headers.get("x-should-retry") == wanted


def test_an_error_in_a_stream_is_an_event(ask_scripted):
    response = ask_scripted(part("Hel"), errors.UpstreamTruncated(), stream=True)
    last = events(response.get_data())[-1]
    assert (last["type"], last["error"]["type"]) == ("error", "api_error")
    assert last["request_id"] == response.headers["request-id"]


def test_a_stream_without_a_word_is_a_message_all_the_same(ask_scripted):
    response = ask_scripted(SILENCE, Outcome(last=0), stream=True)
    assert response.get_data().startswith(b": ")
    assert message(events(response.get_data()))["content"] == []


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", MESSAGES, 405, "invalid_request_error"),
        ("GET", f"{MESSAGES}/count_tokens", 405, "invalid_request_error"),
        ("GET", f"{MESSAGES}/none", 404, "not_found_error"),
        ("POST", "/v1/messages", 404, "not_found_error"),
    ],
)
def test_what_is_not_there_is_told_in_anthropic_s_envelope(
    client, plain, method, path, status, kind
):
    refused(client.open(path, method=method, headers=plain), status, kind)


def test_a_body_that_is_none_is_refused(client, settings, make_client, broker, plain):
    told = refused(client.post(MESSAGES, data=b"{", headers=plain), 415, "invalid_request_error")
    assert "application/json" in told
    broken = client.post(MESSAGES, data=b"{", headers=plain, content_type="application/json")
    refused(broken, 400, "invalid_request_error")
    small = make_client(dataclasses.replace(settings, max_body_bytes=10), broker)
    refused(post(small, plain), 413, "request_too_large")


def test_an_unforeseen_fault_is_an_api_error_that_says_nothing(ask, broker, caplog):
    broker.refusal = RuntimeError("the prompt was: my secret prompt")
    told = refused(ask(), 500, "api_error")
    assert "secret" not in told + caplog.text


@pytest.mark.parametrize(
    "path", ["nothing", "models/nobody/messages", "threads/1/messages", "messages2"]
)
def test_other_addresses_keep_openai_s_envelope(client, plain, path):
    told = client.get(f"{BASE}/{path}", headers=plain).get_json()
    assert told["error"].keys() == {"message", "type", "param", "code", "request_id"}
