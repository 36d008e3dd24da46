"""OpenAI's dialect of embeddings: what the contract cases cannot say."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamBadResponse, UpstreamRejected, UpstreamThrottled
from providers.openai.embeddings import OpenAIEmbeddings, base64_of, texts

WIRE = OpenAIEmbeddings("https://host/v1/", "key\n", {"X-Team": "a"})
ONE = {"input": "hi"}


def answer(*embeddings: Any, **fields: Any) -> dict[str, Any]:
    return {"data": [{"embedding": each} for each in embeddings], **fields}


def test_the_request_is_the_callers_and_asks_for_base64() -> None:
    request = WIRE.request("m", {"input": ["a"], "dimensions": 3, "encoding_format": "float"})
    assert request.url == "https://host/v1/embeddings"
    assert json.loads(request.body) == {
        "model": "m",
        "input": ["a"],
        "dimensions": 3,
        "encoding_format": "base64",
    }
    assert request.headers == {
        "X-Team": "a",
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "inference-service",
        "Authorization": "Bearer key",
    }


def test_without_a_key_nothing_is_authorized() -> None:
    assert "Authorization" not in OpenAIEmbeddings("http://x").request("m", ONE).headers


@pytest.mark.parametrize(
    "params", [{}, {"encoding_format": "base64"}, {"encoding_format": "float"}]
)
def test_a_plain_request_names_no_encoding(params: dict[str, str]) -> None:
    request = WIRE.request("m", {**ONE, **params}, plain=True)
    assert json.loads(request.body) == {"model": "m", **ONE}


@pytest.mark.parametrize(
    ("refusal", "params", "again"),
    [
        (UpstreamRejected("encoding_format: no such field"), "base64", True),
        (UpstreamRejected("no", param="encoding_format", status=422), "base64", True),
        (UpstreamRejected("the text is too long"), "base64", False),
        (UpstreamRejected("odd proxy"), "float", True),
        (UpstreamRejected("odd proxy"), None, True),
        (UpstreamRejected("too large", status=413), None, False),
    ],
)
def test_a_refusal_that_base64_may_have_caused_is_worth_a_plain_request(
    refusal: UpstreamRejected, params: str | None, again: bool
) -> None:
    assert WIRE.wants_plain(refusal, {**ONE, "encoding_format": params}) is again


@pytest.mark.parametrize(
    ("given", "count"),
    [("hi", 1), (["a"], 1), (["a", "b"], 2), ([1, 2, 3], 1), ([1], 1), ([[1, 2], [3]], 2)],
)
def test_an_array_of_tokens_is_one_text(given: Any, count: int) -> None:
    assert len(texts(given)) == count


def test_base64_is_passed_on_as_it_is_to_whoever_wants_it() -> None:
    chunk = WIRE.response(answer("not even base64"), {**ONE, "encoding_format": "base64"})
    assert chunk == {"data": [{"object": "embedding", "index": 0, "embedding": "not even base64"}]}


def test_numbers_become_base64_for_whoever_wants_it() -> None:
    chunk = WIRE.response(answer([1, -0.5]), {**ONE, "encoding_format": "base64"})
    assert chunk["data"][0]["embedding"] == base64.b64encode(struct.pack("<2f", 1, -0.5)).decode()


@pytest.mark.parametrize("encoding", [None, "float"])
def test_numbers_stay_numbers_for_whoever_wants_them(encoding: str | None) -> None:
    chunk = WIRE.response(answer([0.1, 2]), {**ONE, "encoding_format": encoding})
    assert chunk["data"][0]["embedding"] == [0.1, 2]


@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": None},
        {"data": {}},
        answer(),
        answer([1], [2]),
        {"data": ["x"]},
        {"data": [{}]},
        answer(None),
        answer(5),
        answer({"a": 1}),
    ],
)
def test_what_is_no_embedding_for_each_input_is_a_bad_response(
    body: dict[str, Any], encoding: str
) -> None:
    with pytest.raises(UpstreamBadResponse):
        WIRE.response(body, {**ONE, "encoding_format": encoding})


@pytest.mark.parametrize("embedding", ["", "AAAA", "A", "AAA=A", "é", "AAAAAAA="])
def test_base64_that_is_no_float32_is_a_bad_response_for_whoever_wants_numbers(
    embedding: str,
) -> None:
    with pytest.raises(UpstreamBadResponse):
        WIRE.response(answer(embedding), ONE)


@pytest.mark.parametrize("embedding", [["x"], [1e300], [None], [[1]]])
def test_numbers_that_are_none_are_a_bad_response_for_whoever_wants_base64(
    embedding: list[Any],
) -> None:
    with pytest.raises(UpstreamBadResponse):
        WIRE.response(answer(embedding), {**ONE, "encoding_format": "base64"})


@pytest.mark.parametrize(
    ("usage", "passed"),
    [
        (None, None),
        ([], None),
        ({"total_tokens": 3}, None),
        ({"prompt_tokens": 3}, {"prompt_tokens": 3, "total_tokens": 3}),
        ({"prompt_tokens": 3, "total_tokens": 4}, {"prompt_tokens": 3, "total_tokens": 4}),
    ],
)
def test_usage_is_whole_or_absent(usage: Any, passed: Any) -> None:
    assert WIRE.response(answer([1.0], usage=usage), ONE).get("usage") == passed


def test_an_error_in_a_200_is_an_error() -> None:
    with pytest.raises(UpstreamThrottled):
        WIRE.response({"error": {"message": "slow", "code": "rate_limit_exceeded"}}, ONE)


def test_an_echoed_key_is_masked() -> None:
    wire = OpenAIEmbeddings("https://host/v1", "operator-key")
    body = {"error": {"message": "no operator-key", "type": "invalid_request_error"}}
    with pytest.raises(UpstreamRejected) as caught:
        wire.response(body, ONE)
    assert caught.value.message == "no ***"


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1))
def test_base64_holds_each_float32_exactly(numbers: list[float]) -> None:
    raw = base64.b64decode(base64_of(numbers))
    assert list(struct.unpack(f"<{len(numbers)}f", raw)) == numbers
