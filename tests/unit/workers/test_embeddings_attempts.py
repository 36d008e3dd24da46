"""The worker's side of embeddings: the provider's other method, by the same rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gateway.chat import ChatCall, Chunk
from gateway.errors import UpstreamError, UpstreamFailed, UpstreamRejected
from tests.support.fakes import Clock
from workers import attempts as attempts_module
from workers.attempts import Attempts

CALL = ChatCall("model-2", {"input": "hi"})
ANSWER: Chunk = {"data": [{"index": 0}]}


class Provider:
    """Answers each call by the next of its steps; a step that is an exception is raised."""

    def __init__(self, *steps: Any) -> None:
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self._steps = iter(steps)

    def embed(self, model: str, parameters: Mapping[str, Any]) -> Chunk:
        self.asked.append((model, parameters))
        step = next(self._steps)
        if isinstance(step, BaseException):
            raise step
        return step


def attempts(monkeypatch: pytest.MonkeyPatch) -> Attempts:
    clock = Clock()
    monkeypatch.setattr(attempts_module, "time", clock)
    return Attempts(2, clock.now + 600, sleep=lambda seconds: None)


def test_the_provider_is_asked_for_embeddings_by_model_and_parameters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provider = Provider(ANSWER)
    assert attempts(monkeypatch).embed(provider, CALL) == ANSWER  # type: ignore[arg-type]
    assert provider.asked == [("model-2", {"input": "hi"})]


def test_what_cannot_have_been_acted_on_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = attempts(monkeypatch)
    assert made.embed(Provider(UpstreamFailed(), ANSWER), CALL) == ANSWER  # type: ignore[arg-type]
    assert made.made == 2


@pytest.mark.parametrize("error", [UpstreamError(), UpstreamRejected()])
def test_everything_else_is_not(monkeypatch: pytest.MonkeyPatch, error: UpstreamError) -> None:
    made = attempts(monkeypatch)
    with pytest.raises(type(error)):
        made.embed(Provider(error), CALL)  # type: ignore[arg-type]
    assert made.made == 1
