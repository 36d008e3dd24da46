"""Embeddings with real processes: by the same queue and workers as everything else."""

from __future__ import annotations

import base64
import json
import math
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
import requests
from openai import OpenAI

from tests.support.raw_http import post
from tests.support.stack import PATIENCE_SECONDS, Stack, until


@pytest.fixture
def client(stack: Stack) -> Iterator[OpenAI]:
    with OpenAI(api_key=stack.key, base_url=stack.url, max_retries=0) as client:
        yield client


def ask(stack: Stack, model: str, text: Any = "hi", **fields: Any) -> requests.Response:
    body = {"model": model, "input": text, **fields}
    return requests.post(
        f"{stack.url}/embeddings", json=body, headers=stack.headers(), timeout=PATIENCE_SECONDS
    )


def test_the_client_gets_numbers_out_of_the_base64_that_it_asks_for(
    stack: Stack, client: OpenAI
) -> None:
    stack.upstream.clear()
    answer = client.embeddings.create(model="openai/text-embedding-3-small", input=["hi", "you"])
    assert [item.embedding for item in answer.data] == [[2.0] * 3, [3.0] * 3]
    assert [item.index for item in answer.data] == [0, 1]
    assert (answer.model, answer.usage.total_tokens) == ("text-embedding-3-small", 2)
    (call,) = stack.upstream.log()
    assert (call["path"], call["headers"]["authorization"]) == ("/v1/embeddings", "***")
    assert call["body"] == {
        "model": "text-embedding-3-small",
        "input": ["hi", "you"],
        "encoding_format": "base64",
    }


@pytest.mark.parametrize("model", ["fake/echo", "fake/numbers", "fake/picky"])
@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_the_encoding_is_the_callers_whatever_the_provider_can_do(
    stack: Stack, model: str, encoding: str | None
) -> None:
    fields = {"encoding_format": encoding} if encoding else {}
    (item,) = ask(stack, model, "four", dimensions=2, **fields).json()["data"]
    in_base64 = base64.b64encode(struct.pack("<2f", 4, 4)).decode()
    assert item["embedding"] == (in_base64 if encoding == "base64" else [4.0, 4.0])


def test_the_demo_model_needs_no_provider(client: OpenAI) -> None:
    one = client.embeddings.create(model="demo/embed", input="hello", dimensions=64)
    two = client.embeddings.create(model="demo/embed", input=["x", "hello"], dimensions=64)
    assert one.data[0].embedding == two.data[1].embedding != two.data[0].embedding
    assert len(one.data[0].embedding) == 64
    assert math.hypot(*one.data[0].embedding) == pytest.approx(1, abs=1e-5)


def test_a_large_batch_arrives_whole(client: OpenAI) -> None:
    texts = [f"text {number}" for number in range(2048)]
    answer = client.embeddings.create(model="demo/embed", input=texts, dimensions=512)
    assert [item.index for item in answer.data] == list(range(2048))
    (alone,) = client.embeddings.create(model="demo/embed", input=texts[7], dimensions=512).data
    assert answer.data[7].embedding == pytest.approx(alone.embedding)


def test_a_batch_that_is_too_long_is_a_bad_request_that_says_how_long(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="2048") as failure:
        client.embeddings.create(model="demo/embed", input=["a"] * 2049)
    assert (failure.value.param, failure.value.code) == ("input", "array_above_max_length")


@pytest.mark.parametrize("model", ["anthropic/claude-sonnet-4-5", "claude/any", "demo/echo"])
def test_a_model_that_makes_no_embeddings_is_a_bad_request(client: OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError) as failure:
        client.embeddings.create(model=model, input="hi")
    assert failure.value.param == "model"


def test_a_failed_attempt_is_tried_again(stack: Stack) -> None:
    stack.upstream.clear()
    assert ask(stack, "fake/once-500").status_code == 200
    assert len(stack.upstream.log()) == 2


def test_a_call_ends_at_its_deadline(stack: Stack) -> None:
    headers = stack.headers(**{"X-Request-Timeout": "1"})
    body = {"model": "fake/hang", "input": "hi"}
    response = requests.post(
        f"{stack.url}/embeddings", json=body, headers=headers, timeout=PATIENCE_SECONDS
    )
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")


def test_the_provider_connection_is_closed_when_the_client_leaves(stack: Stack) -> None:
    stack.upstream.clear()
    body = json.dumps({"model": "fake/hang", "input": "hi"}).encode()
    path = "/inference/v1/embeddings"
    with socket.create_connection(("127.0.0.1", stack.port)) as client:
        client.sendall(post(stack, f"Content-Length: {len(body)}", body=body, path=path))
        stack.until_called()
    until(lambda: [call for call in stack.upstream.log() if call["closed_early"]])


class SmallRedis(Stack):
    """A stack whose Redis has 40 MB."""

    def addresses(self) -> tuple[str, str]:
        self.redis.config_set("maxmemory", "40mb")
        return super().addresses()


@pytest.mark.slow
def test_large_answers_take_no_more_of_redis_than_it_has(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    def embed(dimensions: int) -> requests.Response:
        body = {"model": "fake/embed", "input": ["a"] * 500, "dimensions": dimensions}
        return requests.post(
            f"{stack.url}/embeddings",
            json={**body, "encoding_format": "base64"},
            headers=stack.headers(),
            timeout=PATIENCE_SECONDS,
        )

    with SmallRedis(tmp_path_factory.mktemp("small")) as stack:
        with ThreadPoolExecutor(16) as pool:
            responses = list(pool.map(embed, [600] * 16))  # 1.6 MB each
        assert [response.status_code for response in responses] == [200] * 16
        assert stack.redis.info("memory")["used_memory_peak"] < 40e6
        response = embed(2_000)  # more than a tenth of Redis' memory
        assert (response.status_code, response.json()["error"]["code"]) == (
            413,
            "request_too_large",
        )
