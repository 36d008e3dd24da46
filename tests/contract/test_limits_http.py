"""Limits of a key, as the callers of each API see them."""

from __future__ import annotations

import re

import orjson
import pytest

from gateway.account.api_keys import public_id
from gateway.account.refusals import limited
from gateway.errors import ModelNotAllowed, RecordsBacklog, UpstreamFailed
from gateway.queue import event_logs, keys
from gateway.queue.protocol import Outcome
from tests.support.fakes import FakeBroker

TEXT = "Hello!"
TURN = {"role": "user", "content": TEXT}
MODEL = "openai/gpt-4o-mini"
BODIES = {
    "/chat/completions": {"model": MODEL, "messages": [TURN]},
    "/responses": {"model": MODEL, "input": TEXT},
    "/messages": {"model": MODEL, "max_tokens": 9, "messages": [TURN]},
    "/embeddings": {"model": "openai/text-embedding-3-small", "input": TEXT},
}
CALLS = [(path, stream) for path in BODIES for stream in (False, True) if path != "/embeddings"]
CALLS.append(("/embeddings", False))
every_call = pytest.mark.parametrize(("path", "stream"), CALLS)

RATE = {"name": "requests_per_minute", "scope": "key", "reset_ms": 1_200, "limit": 60}
BUDGET = {"name": "limit", "scope": "owner", "unit": "usd", "window": "daily", "reset_ms": 9_000}


@pytest.fixture
def ask(make_client, settings, auth):
    """A function that makes a call that ends with an error."""

    def ask(error, path, stream, **headers):
        client = make_client(settings, FakeBroker(error))
        body = BODIES[path] | ({"stream": True} if stream else {})
        return client.post(f"/inference/v1{path}", json=body, headers={**auth, **headers})

    return ask


def error_of(response, path):
    """The kind of the error in the API's dialect, its code ("" at Anthropic) and message."""
    body = response.get_json()
    error = body["error"]
    if path == "/messages":
        assert body["type"] == "error"
        return error["type"], "", error["message"]
    return error["type"], error["code"], error["message"]


@every_call
def test_a_rate_limit_says_which_and_when_to_come_back(ask, path, stream):
    response = ask(limited(RATE), path, stream)
    assert response.status_code == 429
    kind, code, message = error_of(response, path)
    assert kind == ("rate_limit_error" if path == "/messages" else "requests")
    assert code in ("rate_limit_exceeded", "")
    assert "requests per minute: limit 60" in message
    headers = response.headers
    assert (headers["x-limit-name"], headers["x-limit-scope"]) == ("requests_per_minute", "key")
    assert (headers["Retry-After"], headers["retry-after-ms"]) == ("2", "1200")
    assert headers["x-limit-reset"].endswith("Z")
    assert "x-should-retry" not in headers


def test_tokens_have_openai_s_type_of_their_own(ask):
    response = ask(limited({**RATE, "name": "tokens_per_minute"}), "/chat/completions", False)
    kind, code, _ = error_of(response, "/chat/completions")
    assert (kind, code) == ("tokens", "rate_limit_exceeded")


@every_call
def test_a_budget_is_a_quota_that_no_client_tries_again(ask, path, stream):
    response = ask(limited(BUDGET), path, stream)
    assert response.status_code == 429
    kind, code, message = error_of(response, path)
    assert kind == ("rate_limit_error" if path == "/messages" else "insufficient_quota")
    assert code in ("insufficient_quota", "")
    assert "the daily budget of the owner of this API key" in message
    headers = response.headers
    assert (headers["x-limit-name"], headers["x-limit-scope"]) == ("limit", "owner")
    assert headers["x-should-retry"] == "false"
    assert "Retry-After" not in headers
    assert "retry-after-ms" not in headers


@every_call
def test_a_model_that_the_key_may_not_use_is_openai_s_403(ask, path, stream):
    response = ask(ModelNotAllowed(), path, stream)
    assert response.status_code == 403
    kind, code, _ = error_of(response, path)
    assert kind == ("permission_error" if path == "/messages" else "invalid_request_error")
    assert code in ("model_not_found", "")


@every_call
def test_a_full_backlog_of_records_is_a_503_that_is_worth_a_retry(ask, path, stream):
    response = ask(RecordsBacklog(retry_after=5), path, stream)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert response.headers["x-should-retry"] == "true"


# What the limits leave, on every response

ADMITTED = {"requests": [60, 59, 360_000], "tokens": [150_000, 149_984, 12], "cap": 0}
VECTOR = {"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 1, "total_tokens": 1}}
OPENAI = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-limit-tokens": "150000",
    "x-ratelimit-remaining-requests": "59",
    "x-ratelimit-remaining-tokens": "149984",
    "x-ratelimit-reset-requests": "6m0s",
    "x-ratelimit-reset-tokens": "12ms",
}
ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "60",
    "anthropic-ratelimit-requests-remaining": "59",
    "anthropic-ratelimit-tokens-limit": "150000",
    "anthropic-ratelimit-tokens-remaining": "149984",
}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def rate_limits(response):
    """The headers of rate limits, by their names in lower case."""
    named = {name.lower(): value for name, value in response.headers}
    return {name: value for name, value in named.items() if "-ratelimit-" in name}


@pytest.fixture
def admitted(make_client, settings, auth):
    """A function that makes a call of which the queue admits what it is given."""

    def admitted(admission, path, stream, *script):
        if path == "/embeddings" and not script:
            script = (Outcome(answer=orjson.dumps(VECTOR)),)
        broker = FakeBroker(*script)
        broker.admission = admission
        body = BODIES[path] | ({"stream": True} if stream else {})
        client = make_client(settings, broker)
        return broker, client.post(f"/inference/v1{path}", json=body, headers=auth)

    return admitted


@every_call
@pytest.mark.parametrize("failing", [False, True])
def test_every_response_has_the_id_of_the_call_and_openai_s_rate_limits(
    admitted, path, stream, failing
):
    script = (UpstreamFailed(),) if failing else ()
    broker, response = admitted(ADMITTED, path, stream, *script)
    assert response.status_code == (502 if failing else 200)
    (call,) = broker.calls
    assert response.headers["X-Generation-Id"] == call.spec.call_id
    found = rate_limits(response)
    assert OPENAI.items() <= found.items()
    assert "X-Max-Tokens-Capped" not in response.headers
    if path != "/messages":
        assert found == OPENAI
        return
    resets = {name for name in found if name.startswith("anthropic") and name.endswith("reset")}
    assert len(resets) == 2
    assert all(TIME.fullmatch(found.pop(name)) for name in resets)
    assert found == OPENAI | ANTHROPIC


@every_call
def test_a_key_without_limits_has_no_headers_of_them(admitted, path, stream):
    _, response = admitted({"requests": None, "tokens": None, "cap": 0}, path, stream)
    assert rate_limits(response) == {}
    assert response.headers["X-Generation-Id"]


@every_call
def test_a_capped_call_says_so(admitted, path, stream):
    _, response = admitted({"cap": 812}, path, stream)
    assert response.headers["X-Max-Tokens-Capped"] == "812"


def test_a_refused_request_is_no_call(client, auth):
    for path in BODIES:
        response = client.post(f"/inference/v1{path}", json={"model": MODEL}, headers=auth)
        assert response.status_code == 400
        assert "X-Generation-Id" not in response.headers


def test_a_key_whose_logs_are_full_is_told_when_they_expire(ask, redis, key):
    for number in range(20):
        address = keys.log_address(f"call{number}", 3_600)
        event_logs.store_logged_request(redis, public_id(key), address, b"x" * 1_000_000, 60)
    # Far from both bounds, because what other tests have left may expire meanwhile.
    redis.config_set("maxmemory", 2 * (redis.info("memory")["used_memory"] + 8_000_000))
    response = ask(UpstreamFailed(), "/responses", False, **{"Idempotency-Key": "a"})
    assert response.status_code == 429
    kind, code, message = error_of(response, "/responses")
    assert (kind, code) == ("requests", "rate_limit_exceeded")
    assert "background, resumable and idempotent calls: limit " in message
    headers = response.headers
    assert (headers["x-limit-name"], headers["x-limit-scope"]) == ("log_bytes", "key")
    assert (headers["Retry-After"], headers["retry-after-ms"]) == ("60", "60000")
    assert headers["x-limit-reset"].endswith("Z")
