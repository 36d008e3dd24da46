"""Idempotency-Key: the same request under the same key is one call, on whichever web process."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from gateway.account.api_keys import public_id
from tests.support.stack import PATIENCE_SECONDS, Stack, events, reserved_port, until

CHAT, MESSAGES, RESPONSES, EMBEDDINGS = (
    "/chat/completions",
    "/messages",
    "/responses",
    "/embeddings",
)
TWINS = 100


@pytest.fixture(scope="module")
def urls(stack: Stack) -> Iterator[tuple[str, str]]:
    """The base URLs of two web processes."""
    with reserved_port() as port:
        web = stack.start_web(port)
        other = f"http://127.0.0.1:{port}/inference/v1"
        until(lambda: _answers(other))
        yield stack.url, other
        web.kill()


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=PATIENCE_SECONDS).status_code == 200
    except requests.ConnectionError:
        return False


def body(path: str, text: str, model: str = "fake/stream-20-20", **more: Any) -> dict[str, Any]:
    if path in (RESPONSES, EMBEDDINGS):
        return {"model": model, "input": text, **more}
    content = [{"role": "user", "content": text}]
    return {"model": model, "max_tokens": 99, "messages": content, **more}


def send(stack: Stack, url: str, payload: dict[str, Any], name: str) -> requests.Response:
    headers = stack.headers(**{"Idempotency-Key": name})
    return requests.post(url, json=payload, headers=headers, timeout=PATIENCE_SECONDS)


def calls(stack: Stack, text: str) -> int:
    return sum(text in str(each) for each in stack.upstream.log())


def content(response: requests.Response) -> bytes:
    return re.sub(rb"^:.*\n\n", b"", response.content, flags=re.MULTILINE).strip()


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES, EMBEDDINGS])
@pytest.mark.parametrize("stream", [False, True])
def test_the_same_request_is_answered_the_same_without_a_call(
    stack: Stack, urls: tuple[str, str], path: str, stream: bool
) -> None:
    name, text = uuid.uuid4().hex, uuid.uuid4().hex
    more = {"stream": stream} if path != EMBEDDINGS else {}
    payload = body(path, text, "fake/plain", **more)
    first, *others = [send(stack, url + path, payload, name) for url in (*urls, *urls)]
    assert first.status_code == 200, first.text
    assert "Idempotent-Replayed" not in first.headers
    for other in others:
        assert other.headers["Idempotent-Replayed"] == "true"
        assert other.headers["X-Generation-Id"] == first.headers["X-Generation-Id"]
        assert (other.status_code, content(other)) == (200, content(first))
    assert calls(stack, text) == 1
    call_id, log = first.headers["X-Generation-Id"], "api.http.request_log call "
    until(lambda: len(re.findall(f"{log}.*{call_id}", stack.logs())) == len(others))


@pytest.mark.parametrize("stream", [False, True])
def test_a_hundred_twins_on_two_web_processes_are_one_call(
    stack: Stack, urls: tuple[str, str], stream: bool
) -> None:
    name, text = uuid.uuid4().hex, uuid.uuid4().hex
    public_id = stack.key.split("_")[2]
    before = stack.redis.hget(f"gw:spend:{public_id}", "requests")
    payload = body(CHAT, text, stream=stream)
    with ThreadPoolExecutor(TWINS) as threads:
        jobs = [
            threads.submit(send, stack, urls[i % 2] + CHAT, payload, name) for i in range(TWINS)
        ]
        responses = [job.result() for job in jobs]
    assert {each.status_code for each in responses} == {200}
    assert len({content(each) for each in responses}) == 1
    (call_id,) = {each.headers["X-Generation-Id"] for each in responses}
    assert sum("Idempotent-Replayed" not in each.headers for each in responses) == 1
    assert calls(stack, text) == 1
    address = f"{stack.url}/generations/{call_id}"
    headers = stack.headers()
    until(lambda: requests.get(address, headers=headers).json()["data"]["settled_at"])
    after = stack.redis.hget(f"gw:spend:{public_id}", "requests")
    assert int(after or 0) - int(before or 0) == 1


def test_another_request_under_the_same_key_is_refused(stack: Stack) -> None:
    name = uuid.uuid4().hex
    assert send(stack, stack.url + CHAT, body(CHAT, "one", "fake/plain"), name).status_code == 200
    for payload in (body(CHAT, "two", "fake/plain"), body(CHAT, "one", "fake/plain", stream=True)):
        response = send(stack, stack.url + CHAT, payload, name)
        assert response.status_code == 422
        assert response.json()["error"]["code"] == "idempotency_key_mismatch"
    other = {"Authorization": f"Bearer {stack.keys.create('other')}", "Idempotency-Key": name}
    payload = body(CHAT, "two", "fake/plain")  # each API key has its own
    assert requests.post(stack.url + CHAT, json=payload, headers=other).status_code == 200
    for bad in ("x" * 256, "with blank"):
        assert send(stack, stack.url + CHAT, payload, bad).status_code == 400


def test_a_failure_that_is_safe_to_retry_is_not_kept(stack: Stack) -> None:
    name, text = uuid.uuid4().hex, uuid.uuid4().hex
    payload = body(CHAT, text, "closed/model")
    for _ in range(2):
        response = send(stack, stack.url + CHAT, payload, name)
        assert response.status_code == 502
        assert "Idempotent-Replayed" not in response.headers
    limited = stack.keys.create("limited", rpm=1)
    headers = {"Authorization": f"Bearer {limited}", "Idempotency-Key": name}
    payload = body(CHAT, text, "fake/plain")
    assert requests.post(stack.url + CHAT, json=payload, headers=headers).status_code == 200
    again = requests.post(stack.url + CHAT, json=payload, headers=headers)
    assert again.status_code == 200  # a replay is no request more
    headers["Idempotency-Key"] = uuid.uuid4().hex
    for _ in range(2):
        refused = requests.post(stack.url + CHAT, json=payload, headers=headers)
        assert refused.status_code == 429
        assert "Idempotent-Replayed" not in refused.headers


def test_a_caller_who_left_comes_back_to_its_call(stack: Stack) -> None:
    name, text = uuid.uuid4().hex, uuid.uuid4().hex
    payload = body(CHAT, text, stream=True)
    headers = stack.headers(**{"Idempotency-Key": name})
    response = requests.post(stack.url + CHAT, json=payload, headers=headers, stream=True)
    assert next(events(response))
    response.close()
    again = send(stack, stack.url + CHAT, payload, name)
    assert again.headers["X-Generation-Id"] == response.headers["X-Generation-Id"]
    assert again.text.endswith("data: [DONE]\n\n")
    assert calls(stack, text) == 1


def test_a_key_that_was_just_revoked_gets_no_replay(stack: Stack) -> None:
    key = stack.keys.create("leaked")
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "once"}
    url, payload = stack.url + CHAT, body(CHAT, "revoked")

    def call() -> requests.Response:
        return requests.post(url, json=payload, headers=headers, timeout=PATIENCE_SECONDS)

    assert call().status_code == 200
    assert call().headers["Idempotent-Replayed"] == "true"
    stack.keys.revoke(public_id(key))
    assert call().status_code == 401
