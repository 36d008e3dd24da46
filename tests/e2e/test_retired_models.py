"""Models that their provider has shut down: with real processes, and RETIRED_MODELS=successor."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.stack import Stack, events

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("retired models")]

# The fake provider says of a model with this name that it does not exist.
MODELS = """
[models."openai/old"]
provider = "openai"
upstream = "old-status-404"
shutdown_date = 2020-01-01
successor = "openai/gpt-6-luna"
[models."anthropic/old"]
provider = "anthropic"
upstream = "old-status-404"
successor = "openai/gpt-6-luna"
[models."openai/last"]
provider = "openai"
upstream = "last-status-404"
successor = "groq/not-configured"
"""
OLD = ["openai/old", "anthropic/old"]


@pytest.fixture(scope="module")
def successors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("successors")
    file = folder / "models.toml"
    file.write_text(MODELS)
    env = {"MODELS_FILE": str(file), "RETIRED_MODELS": "successor"}
    with Stack(folder / "stack", env=env) as running:
        yield running


@pytest.mark.parametrize("model", OLD)
def test_the_successor_answers_whole_with_what_it_takes(successors: Stack, model: str) -> None:
    successors.upstream.clear()
    response = successors.ask(model, "Are you there?", max_tokens=9, temperature=0.2)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["model"] == "gpt-6-luna"
    assert answer["choices"][0]["message"]["content"] == "Are you there?"
    assert "openai/gpt-6-luna answered in its place" in response.headers["Warning"]
    assert response.headers["X-Ignored-Parameters"] == "temperature"
    first, second = successors.upstream.log()
    assert (first["model"], second["model"]) == ("old-status-404", "gpt-6-luna")
    assert second["body"]["max_completion_tokens"] == 9
    assert not {"max_tokens", "temperature"} & second["body"].keys()


@pytest.mark.parametrize("model", OLD)
def test_the_successor_streams(successors: Stack, model: str) -> None:
    response = successors.ask(model, "one two three", stream=True)
    assert "openai/gpt-6-luna answered in its place" in response.headers["Warning"]
    *data, done = events(response)
    chunks = [json.loads(text) for text in data]
    assert done == "[DONE]"
    assert {chunk["model"] for chunk in chunks} == {"gpt-6-luna"}
    text = "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"])
    assert text == "one two three"


@pytest.mark.parametrize("stream", [False, True])
def test_a_successor_that_cannot_be_asked_is_named(successors: Stack, stream: bool) -> None:
    response = successors.ask("openai/last", stream=stream)
    assert response.status_code == 404
    error = response.json()["error"]
    assert error["code"] == "model_not_found"
    assert "Use the model 'groq/not-configured' instead" in error["message"]
