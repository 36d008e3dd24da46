"""Kept responses with real processes: found again, for every API, and made once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from openai import OpenAI

from gateway.queue import keys
from tests.e2e.test_generations import ended
from tests.support.stack import PATIENCE_SECONDS, Stack, events, until

BODIES: dict[str, dict[str, Any]] = {
    "/chat/completions": {"messages": [{"role": "user", "content": "one two three"}]},
    "/responses": {"input": "one two three"},
    "/messages": {"max_tokens": 99, "messages": [{"role": "user", "content": "one two three"}]},
}
# What differs from one response to the next with the same content.
IDENTITY = re.compile(
    rb'chatcmpl-\w+|msg_\w+|resp_\w+|rs_\w+|fc_\w+|"(created|created_at|completed_at)":[\d.]+'
)


def post(
    stack: Stack, path: str, key: str = "", extra: dict[str, str] | None = None, **body: Any
) -> requests.Response:
    headers = {"Authorization": f"Bearer {key or stack.key}", "X-Cache": "on", **(extra or {})}
    return requests.post(
        f"{stack.url}{path}",
        json=BODIES.get(path, {}) | body,
        headers=headers,
        timeout=PATIENCE_SECONDS,
    )


def text(response: requests.Response) -> bytes:
    return IDENTITY.sub(b"", response.content)


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["fake/echo", "claude/echo"])
def test_the_same_request_is_answered_again_without_the_provider(
    stack: Stack, path: str, stream: bool, model: str
) -> None:
    model = f"{model}-{path.strip('/').replace('/', '')}-{stream}".lower()
    stack.upstream.clear()
    first = post(stack, path, model=model, stream=stream)
    second = post(stack, path, model=model, stream=stream)
    assert (first.status_code, first.headers["X-Cache"]) == (200, "miss")
    assert (second.status_code, second.headers["X-Cache"]) == (200, "hit")
    assert first.headers["Content-Type"] == second.headers["Content-Type"]
    assert first.headers["X-Generation-Id"] != second.headers["X-Generation-Id"]
    if stream:
        assert content(second) == content(first) == "one two three"
    else:
        assert text(second) == text(first)
    assert len(stack.upstream.log()) == 1
    third = post(stack, path, stack.keys.create("other"), model=model, stream=stream)
    assert third.headers["X-Cache"] == "miss"


def content(response: requests.Response) -> str:
    """The text of a stream, of whichever API."""
    pieces = []
    for data in events(response):
        if data == "[DONE]":
            break
        event = json.loads(data)
        for choice in event.get("choices", ()):
            pieces.append(choice["delta"].get("content") or "")
        if event.get("type") == "content_block_delta":
            pieces.append(event["delta"]["text"])
        if event.get("type") == "response.output_text.delta":
            pieces.append(event["delta"])
    return "".join(pieces)


def test_a_hit_leaves_a_record_that_costs_nothing(stack: Stack) -> None:
    first = post(stack, "/chat/completions", model="fake/record")
    second = post(stack, "/chat/completions", model="fake/record")
    assert second.headers["X-Cache"] == "hit"
    call_id = second.headers["X-Generation-Id"]
    call = ended(stack, call_id)
    assert call["cache_hit"]
    assert (call["status"], call["total_cost"], call["usage_source"]) == ("completed", 0, "none")
    assert (call["tokens_prompt"], call["tokens_completion"]) == (None, None)
    assert (call["model"], call["provider_name"]) == ("fake/record", "fake")
    assert first.headers["X-Generation-Id"] != call_id


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
def test_an_idempotent_call_keeps_its_response_and_gets_a_kept_one(
    stack: Stack, path: str, stream: bool
) -> None:
    model = f"fake/idempotent-{path.strip('/').replace('/', '')}-{stream}".lower()
    stack.upstream.clear()
    names = [{"Idempotency-Key": f"{model}-{number}"} for number in range(2)]
    first = post(stack, path, extra=names[0], model=model, stream=stream)
    second = post(stack, path, extra=names[1], model=model, stream=stream)
    plain = post(stack, path, model=model, stream=stream)
    again = post(stack, path, extra=names[1], model=model, stream=stream)
    states = [each.headers.get("X-Cache") for each in (first, second, plain, again)]
    assert states == ["miss", "hit", "hit", None]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.content == second.content
    assert text(second) == text(first) or stream and content(second) == content(first)
    assert len(stack.upstream.log()) == 1
    assert ended(stack, second.headers["X-Generation-Id"])["cache_hit"]


def test_a_resumable_stream_from_the_cache_can_be_read_on(stack: Stack) -> None:
    body = {"model": "fake/resumable", "stream": True}
    post(stack, "/chat/completions", **body)
    hit = post(stack, "/chat/completions", extra={"X-Resumable": "true"}, **body)
    call_id = hit.headers["X-Generation-Id"]
    assert (hit.headers["X-Cache"], f"id: {call_id}:0" in hit.text) == ("hit", True)
    replay = requests.get(
        f"{stack.url}/generations/{call_id}/stream",
        headers={"Authorization": f"Bearer {stack.key}"},
        timeout=PATIENCE_SECONDS,
    )
    assert replay.content == hit.content


@pytest.mark.parametrize("stream", [False, True])
def test_a_background_response_from_the_cache_can_be_retrieved(stack: Stack, stream: bool) -> None:
    stack.upstream.clear()
    model = f"fake/background-{stream}".lower()
    client = OpenAI(api_key=stack.key, base_url=stack.url, default_headers={"X-Cache": "on"})
    texts = []
    for _ in range(2):
        created = client.responses.create(model=model, input="one", background=True, stream=stream)
        if stream:
            sent = list(created)
            id = sent[-1].response.id
            assert sent[-1].response.output_text == "one"
        else:
            id = created.id
        response = until(lambda id=id: completed(client, id), what="its end")
        texts.append(response.output_text)
        assert response.completed_at
    assert texts == ["one"] * 2
    assert len(stack.upstream.log()) == 1
    assert ended(stack, id.removeprefix("resp_"))["cache_hit"]


def completed(client: OpenAI, id: str) -> Any:
    response = client.responses.retrieve(id)
    return response if response.status == "completed" else None


def test_nothing_is_kept_of_calls_without_a_cache(stack: Stack) -> None:
    before = set(stack.redis.keys(keys.cached("*")))
    stack.ask("fake/plain")
    assert set(stack.redis.keys(keys.cached("*"))) <= before
    assert "X-Cache" not in stack.ask("fake/plain").headers


def test_no_prompt_can_be_read_from_the_names(stack: Stack) -> None:
    post(stack, "/chat/completions", model="fake/names")
    names = b" ".join(stack.redis.keys(f"{keys.PREFIX}gw:cached*"))
    assert b"one two three" not in names
    assert re.search(rb"gw:cached:response:[0-9a-f]{64}", names)


@pytest.mark.parametrize("stream", [False, True])
def test_identical_calls_at_the_same_time_are_made_once(stack: Stack, stream: bool) -> None:
    stack.upstream.clear()
    model = f"fake/delay-1000-{stream}".lower()
    with ThreadPoolExecutor(10) as pool:
        calls = [
            pool.submit(post, stack, "/chat/completions", model=model, stream=stream)
            for _ in range(10)
        ]
        responses = [call.result() for call in calls]
    assert [response.status_code for response in responses] == [200] * 10
    assert sorted(response.headers["X-Cache"] for response in responses) == ["hit"] * 9 + ["miss"]
    assert len(stack.upstream.log()) == 1
    assert len({response.headers["X-Generation-Id"] for response in responses}) == 10


def test_twins_of_a_call_that_fails_make_their_own(stack: Stack) -> None:
    stack.upstream.clear()
    with ThreadPoolExecutor(3) as pool:
        calls = [
            pool.submit(post, stack, "/chat/completions", model="fake/delay-500-status-400")
            for _ in range(3)
        ]
        responses = [call.result() for call in calls]
    assert [response.status_code for response in responses] == [400] * 3
    assert {response.headers["X-Cache"] for response in responses} == {"miss"}
    assert len(stack.upstream.log()) == 3


def test_a_cut_stream_is_not_kept(stack: Stack) -> None:
    for _ in range(2):
        response = post(stack, "/chat/completions", model="fake/stream-9-0-cut", stream=True)
        assert response.headers["X-Cache"] == "miss"
        assert "error" in response.text


@pytest.fixture
def two_webs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("two"), env={"WEB_CONCURRENCY": "2"}) as running:
        yield running


@pytest.mark.slow
def test_identical_calls_are_made_once_over_all_web_processes_and_workers(two_webs: Stack) -> None:
    two_webs.start_worker()
    two_webs.until_ready()
    with ThreadPoolExecutor(40) as pool:
        calls = [
            pool.submit(post, two_webs, "/chat/completions", model="fake/delay-1000")
            for _ in range(40)
        ]
        responses = [call.result() for call in calls]
    found = [response.headers["X-Cache"] for response in responses]
    assert sorted(found) == ["hit"] * 39 + ["miss"]
    assert len(two_webs.upstream.log()) == 1


@pytest.mark.slow
def test_twins_of_a_call_whose_worker_is_killed_make_their_own(two_webs: Stack) -> None:
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(post, two_webs, "/chat/completions", model="fake/delay-3000")
        two_webs.until_called()
        twins = [
            pool.submit(post, two_webs, "/chat/completions", model="fake/delay-3000")
            for _ in range(2)
        ]
        two_webs.workers[0].kill()
        two_webs.start_worker()
        assert first.result().json()["error"]["code"] == "worker_lost"
        responses = [twin.result() for twin in twins]
    assert [response.status_code for response in responses] == [200] * 2
    assert len(two_webs.upstream.log()) in (2, 3)  # the second may have found the first's
