"""How embeddings look on the wire."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.embeddings import renderer
from api.embeddings.renderer import VECTORS_A_TURN, EmbeddingsRenderer
from gateway.errors import WorkerLost

USAGE = {"prompt_tokens": 3, "total_tokens": 3}


def encoded(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def item(embedding: Any, index: int = 0) -> dict[str, Any]:
    return {"object": "embedding", "index": index, "embedding": embedding}


def rendered(part: dict[str, Any], as_numbers: bool) -> dict[str, Any]:
    body = EmbeddingsRenderer("call", "model-2", as_numbers).whole(orjson.dumps(part))
    return dict(json.loads(body))


@pytest.mark.parametrize("more", [{}, {"usage": USAGE}, {"usage": USAGE, "extra": [1]}])
@pytest.mark.parametrize("as_numbers", [True, False])
def test_the_answer_is_openai_s_list(more: dict[str, Any], as_numbers: bool) -> None:
    vector = encoded(1, -0.5)
    answer = rendered({"data": [item(vector)], **more}, as_numbers)
    shown = [1, -0.5] if as_numbers else vector
    assert answer == {"object": "list", "model": "model-2", "data": [item(shown)], **more}


def test_numbers_that_a_provider_gave_stay_as_they_are() -> None:
    part = {"data": [item([0.1, 1e-40]), item(encoded(2), 1)]}
    assert rendered(part, True)["data"] == [item([0.1, 1e-40]), item([2], 1)]


def test_base64_is_passed_on_byte_by_byte() -> None:
    answer = b'{"data":[{"embedding":"x"}],"spaced" : 1}'
    assert EmbeddingsRenderer("call", "m", False).whole(answer).endswith(answer[1:])


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_every_float32_arrives_as_it_was(numbers: list[float]) -> None:
    assert rendered({"data": [item(encoded(*numbers))]}, True)["data"][0]["embedding"] == numbers


def test_a_few_vectors_wait_for_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would wait for all large responses."""
    turns: list[int] = []
    monkeypatch.setattr(renderer, "give_turn", lambda: turns.append(1))
    rendered({"data": [item(encoded(0.5))] * (VECTORS_A_TURN - 1)}, True)
    assert not turns
    rendered({"data": [item(encoded(0.5))] * (3 * VECTORS_A_TURN)}, True)
    assert len(turns) == 3


def test_a_large_batch_keeps_its_order() -> None:
    count = 3 * VECTORS_A_TURN + 1
    part = {"data": [item(encoded(index), index) for index in range(count)], "usage": USAGE}
    assert rendered(part, True)["data"] == [item([float(index)], index) for index in range(count)]


def test_an_error_under_a_spent_status_is_the_envelope() -> None:
    body = EmbeddingsRenderer("call", "m").whole_error(WorkerLost())
    assert json.loads(body) == WorkerLost().envelope()
