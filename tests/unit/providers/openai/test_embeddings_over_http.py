"""Embeddings between us and a provider: encodings that it refuses, and failures on the way."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from api.embeddings.schema import MAX_INPUTS
from gateway.errors import (
    InvalidRequest,
    UpstreamBadResponse,
    UpstreamError,
    UpstreamFailed,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTruncated,
)
from providers.anthropic.wire import AnthropicWire
from providers.http.provider import HttpProvider
from providers.http.transport import Transport
from providers.openai.chat import OpenAIWire
from providers.openai.embeddings import OpenAIEmbeddings
from tests.support.raw_upstream import closing_transport, serving
from tests.support.upstream import Upstream

LARGEST_DIMENSIONS = 3_072  # of text-embedding-3-large
TWO = "AAAAQAAAAEAAAABA"  # base64 of three times 2.0, as float32


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def provider(upstream: Upstream) -> Iterator[HttpProvider]:
    upstream.clear()
    url = f"{upstream.url}/v1"
    limits = {"connect_timeout": 5, "read_timeout": 5, "max_response_bytes": 1 << 20}
    with closing_transport(**limits) as transport:
        yield HttpProvider(OpenAIWire(url, "key"), transport, OpenAIEmbeddings(url, "key"))


def vectors(chunk: dict[str, Any]) -> list[Any]:
    return [item["embedding"] for item in chunk["data"]]


def sent(upstream: Upstream) -> list[str | None]:
    """The encodings that the provider was asked for, call by call."""
    return [call["body"].get("encoding_format") for call in upstream.log()]


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_the_provider_is_asked_once_and_for_base64(
    provider: HttpProvider, upstream: Upstream, encoding: str | None
) -> None:
    chunk = provider.embed("echo", {"input": ["hi", "ho"], "encoding_format": encoding})
    assert vectors(chunk) == [TWO, TWO]
    assert chunk["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    assert sent(upstream) == ["base64"]


@pytest.mark.parametrize(("encoding", "vector"), [(None, [2.0] * 3), ("base64", TWO)])
def test_a_provider_that_refuses_to_hear_of_encodings_is_asked_again(
    provider: HttpProvider, upstream: Upstream, encoding: str | None, vector: Any
) -> None:
    params = {"input": "hi"} | ({"encoding_format": encoding} if encoding else {})
    assert vectors(provider.embed("picky", params)) == [vector]
    assert sent(upstream) == ["base64", None]


def test_a_refusal_of_something_else_is_the_callers(
    provider: HttpProvider, upstream: Upstream
) -> None:
    with pytest.raises(UpstreamRejected):
        provider.embed("status-400", {"input": "hi", "encoding_format": "base64"})
    assert sent(upstream) == ["base64"]


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("status-429", UpstreamThrottled),
        ("status-500", UpstreamFailed),
        ("reset", UpstreamError),
        ("cut", UpstreamTruncated),
        ("html", UpstreamBadResponse),
        ("malformed", UpstreamBadResponse),
        ("gzip", UpstreamBadResponse),
        ("huge-2", UpstreamBadResponse),
    ],
)
def test_each_failure_has_its_error_and_is_asked_for_once(
    provider: HttpProvider, upstream: Upstream, model: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        provider.embed(model, {"input": "hi"})
    assert sent(upstream) == ["base64"]


def test_the_largest_batch_there_is_fits_into_the_limit() -> None:
    vector = b64encode(bytes(LARGEST_DIMENSIONS * 4)).decode()
    data = [{"object": "embedding", "index": i, "embedding": vector} for i in range(MAX_INPUTS)]
    body = json.dumps({"object": "list", "data": data, "model": "m"}, indent=2).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    transport = Transport(read_timeout=30)
    with serving(head % len(body) + body) as url:
        provider = HttpProvider(OpenAIWire(url), transport, OpenAIEmbeddings(url))
        chunk = provider.embed("large", {"input": ["a"] * MAX_INPUTS})
    transport.close()
    assert vectors(chunk) == [vector] * MAX_INPUTS


def test_a_provider_without_embeddings_names_the_model() -> None:
    transport = Transport()
    provider = HttpProvider(AnthropicWire("http://127.0.0.1:1", "key"), transport)
    with pytest.raises(InvalidRequest, match="`claude`") as caught:
        provider.embed("claude", {"input": "hi"})
    assert (caught.value.status, caught.value.param) == (400, "model")
    transport.close()
