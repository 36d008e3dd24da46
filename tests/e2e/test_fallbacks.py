"""Timeouts, fallbacks and breakers, with real processes and a provider that misbehaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.stack import Stack, events, until

# What the fake provider does stands in the name that it is asked by: see upstream_answers.WORDS.
MODELS = """
[providers.closed]
wire = "openai"
base_url = "http://127.0.0.1:1/v1"
[providers.unset]
wire = "openai"
base_url = "http://127.0.0.1:1/v1"
key_variable = "KEY_THAT_IS_NOT_SET"
[models."any/*"]
provider = "openai"
[models."claude/*"]
provider = "anthropic"
[models."t/large"]
provider = "openai"
upstream = "large"
context_length = 100_000
"""
ROW = """
[models."t/{name}"]
provider = "{provider}"
upstream = "{upstream}"
context_length = 1000
retries = {retries}
fallbacks = ["t/large"]
timeouts = {{ first_token = 0.5, first_byte = 0.5, between_tokens = 0.5 }}
"""
ROWS = {
    "refused": "closed x",
    "unset": "unset x",
    "broken": "openai broken-status-500",
    "busy": "openai busy-status-503",
    "locked": "openai locked-status-401",
    "limited": "openai limited-status-429-after-30",
    "page": "openai html",
    "reset": "openai reset",
    "silent": "openai silent-hang",
    "cut": "openai cut",
    "stalls": "openai hang-mid",
    "breaks": "openai error-mid",
    "drops": "openai reset-mid",
    "claude-cut": "anthropic cut",
    "claude-stalls": "anthropic hang-mid",
}
# They fail in both ways; with one word to say, the others fail in a stream before the first.
ALWAYS = ["refused", "unset", "broken", "busy", "locked", "limited", "page", "reset", "silent"]
EARLY = [*ALWAYS, "cut", "stalls", "breaks", "drops", "claude-cut", "claude-stalls"]


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("routed")
    file = folder / "models.toml"
    rows = [(name, *row.split(" ")) for name, row in ROWS.items()]
    rows += [("down", "openai", "down-status-500"), ("back", "openai", "back-once-500")]
    file.write_text(
        MODELS
        + "".join(ROW.format(name=n, provider=p, upstream=u, retries=0) for n, p, u in rows)
        + ROW.format(name="twice", provider="openai", upstream="twice-once-500", retries=1)
    )
    env = {"MODELS_FILE": str(file), "BREAKER_FAILURES": "4", "BREAKER_COOLDOWN_SECONDS": "1"}
    with Stack(folder / "stack", workers=2, env=env) as running:
        yield running


def told(response: requests.Response) -> tuple[str, list[dict[str, Any]], list[str]]:
    """The text of a stream, its errors, and the finish reasons."""
    chunks = [json.loads(text) for text in events(response) if text != "[DONE]"]
    choices = [choice for chunk in chunks for choice in chunk.get("choices", [])]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    errors = [chunk["error"] for chunk in chunks if chunk.get("error")]
    return text, errors, [c["finish_reason"] for c in choices if c.get("finish_reason")]


@pytest.mark.parametrize("name", ALWAYS)
def test_the_fallback_answers_whole(routed: Stack, name: str) -> None:
    response = routed.ask(f"t/{name}", "Hello")
    assert response.status_code == 200, response.text
    assert response.json()["model"] == "large"
    assert response.json()["choices"][0]["message"]["content"] == "Hello"
    assert f"t/{name} could not answer: t/large answered" in response.headers["Warning"]


@pytest.mark.parametrize("name", EARLY)
def test_a_stream_that_fails_before_its_first_token_falls_over_unseen(
    routed: Stack, name: str
) -> None:
    response = routed.ask(f"t/{name}", "Hello", stream=True)
    assert response.status_code == 200, response.text
    assert "t/large answered" in response.headers["Warning"]
    data = list(events(response))
    assert {json.loads(text)["model"] for text in data[:-1]} == {"large"}
    assert told(response) == ("Hello", [], ["stop"])
    roles = [json.loads(text)["choices"][0]["delta"].get("role") for text in data[:-1]]
    assert roles.count("assistant") == 1


@pytest.mark.parametrize("name", ["cut", "stalls", "breaks", "drops"])
def test_after_the_first_token_a_stream_ends_with_an_error_and_nothing_spliced_on(
    routed: Stack, name: str
) -> None:
    routed.upstream.clear()
    response = routed.ask(f"t/{name}", "one two three four", stream=True)
    text, errors, reasons = told(response)
    assert (text, len(errors), reasons) == ("one two ", 1, [])
    assert len(routed.upstream.log()) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_the_caller_names_fallbacks_of_its_own(routed: Stack, stream: bool) -> None:
    others = ["any/second-status-400-x", "any/third"]
    response = routed.ask(
        "any/first-status-401", "Hello", stream=stream, models=["any/first-status-401", others[1]]
    )
    assert response.status_code == 200, response.text
    assert "any/third answered in its place" in response.headers["Warning"]
    # What a fallback refuses was asked of another model: the next may take it.
    response = routed.ask("any/first-status-401", "Hello", stream=stream, models=others)
    assert "any/third answered in its place" in response.headers["Warning"]
    # A refusal of the model that was asked for is final.
    response = routed.ask(others[0], "Hello", stream=stream, models=others[1:])
    assert (response.status_code, response.json()["error"]["type"]) == (
        400,
        "invalid_request_error",
    )


def test_an_empty_list_switches_the_row_s_fallbacks_off(routed: Stack) -> None:
    response = routed.ask("t/page", models=[])
    assert (response.status_code, response.json()["error"]["code"]) == (
        502,
        "upstream_bad_response",
    )


def test_a_fallback_that_does_not_exist_is_named(routed: Stack) -> None:
    response = routed.ask("any/model", models=["nobody/knows"])
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (
        404,
        "model_not_found",
        "models",
    )


def test_a_refused_key_is_never_the_caller_s(routed: Stack) -> None:
    response = routed.ask("any/mine-status-403")
    assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_auth")
    assert "upstream_auth by openai/mine-status-403" in routed.logs()


def test_a_retry_at_the_same_model_comes_before_the_fallback(routed: Stack) -> None:
    response = routed.ask("t/twice", "a text of its own")
    assert response.json()["model"] == "twice-once-500"
    assert "Warning" not in response.headers


@pytest.mark.parametrize("stream", [False, True])
def test_the_client_s_deadline_is_shared_by_all_who_are_asked(routed: Stack, stream: bool) -> None:
    headers = {"X-Request-Timeout": "2"}
    models = ["any/later-hang"]
    response = routed.ask("any/late-hang", headers=headers, models=["t/large"], stream=stream)
    assert "t/large answered in its place" in response.headers["Warning"]
    routed.upstream.clear()
    response = routed.ask("any/late-hang", headers=headers, models=models, stream=stream)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert [call["model"] for call in routed.upstream.log()] == ["late-hang", "later-hang"]


def test_in_an_outage_all_workers_go_straight_to_the_fallback(routed: Stack) -> None:
    routed.upstream.clear()

    def asked() -> int:
        return sum(call["model"] == "down-status-500" for call in routed.upstream.log())

    def spared() -> bool:
        before = asked()
        responses = [routed.ask("t/down") for _ in range(8)]
        assert {response.json()["model"] for response in responses} == {"large"}
        return asked() == before

    until(spared, what="eight calls that spare the model that is down")


def test_a_model_that_is_back_is_used_again(routed: Stack) -> None:
    texts = [f"text {number}" for number in range(4)]  # each fails the first time it is asked
    for text in texts:
        assert routed.ask("t/back", text).json()["model"] == "large"
    until(
        lambda: routed.ask("t/back", texts[0]).json()["model"] == "back-once-500",
        what="an answer of the model itself",
    )
    until(
        lambda: all(
            routed.ask("t/back", text).json()["model"] == "back-once-500" for text in texts * 2
        ),
        what="only answers of the model itself",
    )
