"""The main job with real processes: sync, streamed, refused, many at once, abandoned."""

from __future__ import annotations

import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from gateway.account.api_keys import CACHE_SECONDS
from gateway.account.records import Record
from gateway.queue import keys
from tests.support.raw_http import post
from tests.support.stack import PATIENCE_SECONDS, Stack, events, until

PROVIDERS = ["fake/echo", "claude/echo", "openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"]


@pytest.mark.parametrize("model", [*PROVIDERS, "demo/echo"])
def test_a_call_is_answered_whole(stack: Stack, model: str) -> None:
    response = stack.ask(model, "What is the capital of France?")
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/json"
    answer = response.json()
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{32}", answer["id"])
    assert answer["object"] == "chat.completion"
    assert isinstance(answer["created"], int)
    assert answer["model"] == model.partition("/")[2]
    (choice,) = answer["choices"]
    native = "end_turn" if model.startswith(("claude/", "anthropic/")) else None
    assert choice.pop("native_finish_reason", None) == native
    assert choice == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": "What is the capital of France?",
            "refusal": None,
        },
        "logprobs": None,
        "finish_reason": "stop",
    }
    usage = answer["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


@pytest.mark.parametrize("model", [*PROVIDERS, "demo/echo"])
def test_a_call_is_streamed(stack: Stack, model: str) -> None:
    response = stack.ask(
        model, "one two\u2028three", stream=True, stream_options={"include_usage": True}
    )
    assert response.headers["Content-Type"] == "text/event-stream"
    *data, done = (block[6:] for block in response.content.decode().split("\n\n") if block)
    assert done == "[DONE]"
    chunks = [json.loads(text) for text in data]
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    text = "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"])
    assert text == "one two\u2028three"
    reasons = [c["finish_reason"] for chunk in chunks for c in chunk["choices"]]
    assert [reason for reason in reasons if reason] == ["stop"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] > 0
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_usage_says_what_the_call_cost_if_the_request_includes_it(
    stack: Stack, stream: bool
) -> None:
    response = stack.ask("fake/echo", stream=stream, usage={"include": True})
    if stream:
        *_, last, _ = (block[6:] for block in response.text.split("\n\n") if block)
        usage = json.loads(last)["usage"]
    else:
        usage = response.json()["usage"]
    # The prices of fake/*, in 1e-9 USD for a token; the sum is rounded once.
    nano = usage["prompt_tokens"] * 123.4567 + usage["completion_tokens"] * 1765.4321
    assert usage["cost"] == round(nano) / 10**9
    assert "X-Ignored-Parameters" not in response.headers


def test_the_upstream_gets_the_operators_key_and_nothing_of_the_callers(stack: Stack) -> None:
    stack.upstream.clear()
    stack.ask("openai/gpt-4o-mini", headers={"X-Evil": "1"}, base_url="http://evil", api_key="k")
    (call,) = stack.upstream.log()
    assert call["path"] == "/v1/chat/completions"
    assert call["headers"]["authorization"] == "***"
    assert "x-evil" not in call["headers"]
    assert call["body"] == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "hello there"}],
    }


def test_unknown_fields_are_named(stack: Stack) -> None:
    response = stack.ask("fake/echo", foo=1, base_url="http://evil")
    assert response.headers["X-Ignored-Parameters"] == "foo, base_url"


def test_a_failure_before_the_first_event_keeps_its_status(stack: Stack) -> None:
    response = stack.ask("fake/status-400", stream=True)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("model", ["fake/stream-6-10-cut", "fake/stream-6-10-error-mid"])
def test_a_failure_after_the_first_event_is_an_event(stack: Stack, model: str) -> None:
    response = stack.ask(model, stream=True)
    assert response.status_code == 200
    *chunks, failure, done = events(response)
    assert len(chunks) >= 2
    assert json.loads(failure)["error"]["code"]
    assert done == "[DONE]"


def test_an_upstream_that_cannot_be_reached_is_a_502(stack: Stack) -> None:
    response = stack.ask("closed/any")
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_connect"
    assert "127.0.0.1" not in response.text


def test_the_upstreams_401_is_never_the_callers(stack: Stack) -> None:
    response = stack.ask("fake/status-401")
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_auth"


@pytest.mark.parametrize("stream", [False, True])
def test_a_fallback_of_the_callers_takes_over_and_is_named(stack: Stack, stream: bool) -> None:
    response = stack.ask("fake/status-500", "Hello", stream=stream, models=["claude/echo"])
    assert response.status_code == 200, response.text
    assert "claude/echo answered in its place" in response.headers["Warning"]
    assert '"model":"echo"' in response.text
    assert "Hello" in response.text


def test_a_failure_that_was_not_acted_on_is_tried_again(stack: Stack) -> None:
    stack.upstream.clear()
    assert stack.ask("fake/once-500-again").status_code == 200
    assert len(stack.upstream.log()) == 2


def test_a_revoked_key_is_refused_at_once(stack: Stack) -> None:
    key = stack.keys.create("to be revoked")
    headers = {"Authorization": f"Bearer {key}"}
    assert stack.ask("demo/echo", headers=headers).status_code == 200
    stack.keys.revoke(key[13:25])
    refused = stack.ask("demo/echo", headers=headers)
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "invalid_api_key"


def test_a_revoked_key_reads_nothing_soon_after(stack: Stack) -> None:
    key = stack.keys.create("to be revoked")
    headers = {"Authorization": f"Bearer {key}"}

    def read() -> int:
        return requests.get(f"{stack.url}/key", headers=headers, timeout=10).status_code

    assert read() == 200
    stack.keys.revoke(key[13:25])
    # Its record may be cached for twice as long.
    until(lambda: read() == 401, CACHE_SECONDS / 2)


def test_300_sync_calls_at_once_are_all_answered_by_one_worker(stack: Stack) -> None:
    stack.upstream.clear()
    with ThreadPoolExecutor(300) as pool:
        answers = list(pool.map(lambda n: stack.ask("fake/delay-500", f"call {n}"), range(300)))
    assert {answer.status_code for answer in answers} == {200}
    texts = [answer.json()["choices"][0]["message"]["content"] for answer in answers]
    assert texts == [f"call {n}" for n in range(300)]
    assert len(stack.upstream.log()) == 300


def test_100_streams_at_once_are_all_complete(stack: Stack) -> None:
    with ThreadPoolExecutor(100) as pool:
        answers = list(
            pool.map(lambda n: stack.ask("fake/stream-40-25-delay-500", stream=True), range(100))
        )
    for answer in answers:
        *data, done = events(answer)
        assert done == "[DONE]"
        text = "".join(json.loads(d)["choices"][0]["delta"].get("content") or "" for d in data)
        assert text == "".join(f"t{i} " for i in range(40))


@pytest.mark.parametrize("stream", [False, True])
def test_the_provider_connection_is_closed_when_the_client_leaves_before_the_answer(
    stack: Stack, stream: bool
) -> None:
    stack.upstream.clear()
    with socket.create_connection(("127.0.0.1", stack.port)) as client:
        client.sendall(raw_call(stack, "fake/hang", stream=stream))
        stack.until_called()
    until(lambda: [call for call in stack.upstream.log() if call["closed_early"]])


def test_the_provider_connection_is_closed_when_the_client_leaves_a_stream(stack: Stack) -> None:
    stack.upstream.clear()
    response = stack.open_stream("fake/stream-1000-50")
    next(response.iter_lines())
    response.close()
    until(lambda: [call for call in stack.upstream.log() if call["closed_early"]])


@pytest.mark.parametrize("begun", [True, False], ids=["in the middle", "before the answer"])
def test_the_record_of_a_call_whose_client_has_left_says_what_was_used(
    own_stack: Stack, begun: bool
) -> None:
    with ThreadPoolExecutor(1) as pool:
        # Waited for from before the call, because records do not stay in the stream.
        arrival = pool.submit(own_stack.redis.xread, {keys.RECORDS: "0"}, block=20_000)
        if begun:
            response = own_stack.open_stream("fake/stream-1000-50")
            next(response.iter_lines())
            response.close()
        else:
            with socket.create_connection(("127.0.0.1", own_stack.port)) as client:
                client.sendall(raw_call(own_stack, "fake/hang"))
                own_stack.until_called()
        ((_, ((_, entry), *_)),) = arrival.result()
    record = Record.from_entry(entry)
    assert (record.status, record.error_code) == ("cancelled", "client_closed_request")
    assert record.usage_source == "estimated"
    assert record.usage["input"] > 0
    assert record.usage.get("output", 0) > 0 or not begun


def test_a_client_that_sends_its_next_request_early_gets_both_answers(stack: Stack) -> None:
    raw = raw_call(stack, "fake/delay-300")
    with socket.create_connection(("127.0.0.1", stack.port), PATIENCE_SECONDS) as client:
        client.sendall(raw + raw)
        received = b""
        while received.count(b"chat.completion") < 2:
            piece = client.recv(65536)
            assert piece, received
            received += piece
    assert received.count(b"HTTP/1.1 200 OK") == 2


def test_the_connections_to_redis_stay_within_their_budget(stack: Stack) -> None:
    names = [client["name"] for client in stack.redis.client_list()]
    # The test's own client, then at most eight for each of the two processes.
    assert len(names) <= 1 + 8 + 8


@pytest.mark.slow
def test_readiness_tells_what_is_missing(own_stack: Stack) -> None:
    (worker,) = own_stack.workers
    worker.kill()

    def ready() -> requests.Response:
        return requests.get(f"{own_stack.url}/health/ready", timeout=PATIENCE_SECONDS)

    until(lambda: ready().status_code == 503)
    facts = ready().json()
    facts = {name: facts[name] for name in ("status", "redis", "workers", "draining")}
    assert facts == {"status": "unavailable", "redis": "ok", "workers": 0, "draining": False}
    own_stack.server.stop()
    assert ready().json()["redis"] == "unavailable"
    health = requests.get(f"{own_stack.url}/health", timeout=PATIENCE_SECONDS)
    assert health.status_code == 200


def test_leases_name_both_processes(stack: Stack) -> None:
    def kinds() -> list[str]:
        return sorted(name.decode().split(":")[2][:3] for name in stack.redis.keys("gw:lease:*"))

    until(lambda: kinds() == ["web", "wor"])
    assert all(stack.redis.pttl(name) <= keys.LEASE_MS for name in stack.redis.keys("gw:lease:*"))


def raw_call(stack: Stack, model: str, **fields: Any) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": "x"}], **fields}
    raw = json.dumps(body).encode()
    return post(stack, f"Content-Length: {len(raw)}", body=raw)
