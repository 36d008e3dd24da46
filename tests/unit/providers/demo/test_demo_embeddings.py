"""demo/embed: the same vector for the same text, and none for the other demo models."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

import pytest

from gateway.errors import InvalidRequest, UpstreamRejected
from providers.demo.embeddings import DIMENSIONS, MAX_DIMENSIONS
from providers.demo.provider import MODELS, DemoProvider


def vectors(given: Any, **more: Any) -> list[tuple[float, ...]]:
    chunk = DemoProvider().embed("embed", {"input": given, **more})
    assert [item["index"] for item in chunk["data"]] == list(range(len(chunk["data"])))
    raw = [base64.b64decode(item["embedding"]) for item in chunk["data"]]
    return [struct.unpack(f"<{len(each) // 4}f", each) for each in raw]


def test_the_same_text_has_the_same_vector_wherever_it_stands() -> None:
    (alone,) = vectors("hello")
    other, same = vectors(["other", "hello"])
    assert alone == same != other


def test_tokens_have_vectors_too() -> None:
    (one,) = vectors([1, 2, 3])
    same, other = vectors([[1, 2, 3], [1, 2]])
    assert one == same != other


@pytest.mark.parametrize("dimensions", [None, 1, 3, MAX_DIMENSIONS])
def test_a_vector_has_length_1_and_the_dimensions_asked_for(dimensions: int | None) -> None:
    (vector,) = vectors("hello", dimensions=dimensions)
    assert len(vector) == (dimensions or DIMENSIONS)
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-5)


def test_more_dimensions_than_there_are_is_refused() -> None:
    with pytest.raises(UpstreamRejected) as caught:
        vectors("hello", dimensions=MAX_DIMENSIONS + 1)
    assert (caught.value.status, caught.value.param) == (400, "dimensions")


def test_tokens_are_counted() -> None:
    def usage(given: Any) -> dict[str, int]:
        return DemoProvider().embed("embed", {"input": given})["usage"]

    assert usage("eight ch") == {"prompt_tokens": 2, "total_tokens": 2}
    assert usage([[1, 2, 3], [4]]) == {"prompt_tokens": 4, "total_tokens": 4}


@pytest.mark.parametrize("model", [*MODELS, "else"])
def test_a_model_that_makes_no_embeddings_is_named(model: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        DemoProvider().embed(model, {"input": "hello"})
    assert f"`{model}`" in caught.value.message
    assert caught.value.param == "model"
