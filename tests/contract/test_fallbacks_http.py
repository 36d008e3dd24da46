"""What the web process makes of fallbacks: who is in the plan, and what the caller is told."""

from __future__ import annotations

import dataclasses

import pytest

from gateway.queue.protocol import Outcome, encode_head
from tests.support.fakes import ANSWER, STREAM, FakeBroker

BASE = "/inference/v1"
MODELS = """
[providers.unset]
wire = "openai"
base_url = "http://127.0.0.1:9/v1"
key_variable = "KEY_THAT_IS_NOT_SET"
[models."t/first"]
provider = "openai"
upstream = "first"
successor = "t/heir"
fallbacks = ["t/second", "t/unset"]
timeouts = { total = 7 }
[models."t/heir"]
provider = "openai"
[models."t/second"]
provider = "anthropic"
[models."t/third"]
provider = "openai"
upstream = "third"
[models."t/strict"]
provider = "openai"
upstream = "strict"
parameters = { stop = { refuse = true }, seed = { drop = true } }
[models."t/alias"]
provider = "openai"
upstream = "first"
[models."t/unset"]
provider = "unset"
fallbacks = ["t/third"]
[models."t/alone"]
provider = "unset"
[models."t/embed"]
provider = "openai"
kind = "embeddings"
fallbacks = ["t/embed-2"]
[models."t/embed-2"]
provider = "openai"
kind = "embeddings"
"""
HELLO = [{"role": "user", "content": "hi"}]
THIRD = "t/first could not answer: t/third answered in its place."


@pytest.fixture
def ask(make_client, settings, auth, tmp_path):
    """A function that asks, plays a script to the call, and tells both."""
    file = tmp_path / "models.toml"
    file.write_text(MODELS)

    def post(*script, path="/chat/completions", model="t/first", headers=(), **fields):
        configured = {"models_file": str(file)}
        configured.update(fields.pop("configured", {}))
        fake = FakeBroker(*script)
        client = make_client(dataclasses.replace(settings, **configured), fake)
        body = {"model": model, **({} if "input" in fields else {"messages": HELLO}), **fields}
        return client.post(
            f"{BASE}{path}", json=body, headers={**auth, **dict(headers)}, buffered=True
        ), fake

    return post


def targets(fake):
    (call,) = fake.calls
    return [(target.model, target.only_if_gone) for target in call.spec.targets]


@pytest.mark.parametrize("path", ["/chat/completions", "/messages", "/responses"])
def test_the_row_s_fallbacks_are_in_the_plan_whatever_the_endpoint(ask, path):
    more = {"max_tokens": 9} if path == "/messages" else {}
    more |= {"input": "hi"} if path == "/responses" else {}
    _, fake = ask(path=path, **more)
    assert targets(fake) == [("t/first", False), ("t/second", False)]


def test_the_caller_s_take_their_place(ask):
    _, fake = ask(models=["t/third", "t/first", "third", "first"])
    assert targets(fake) == [("t/first", False), ("t/third", False)]
    assert "models" not in fake.calls[0].body
    _, fake = ask(models=[])
    assert targets(fake) == [("t/first", False)]


def test_successors_come_before_fallbacks_and_none_stands_twice(ask):
    successor = {"retired_models": "successor"}
    _, fake = ask(configured=successor)
    assert targets(fake) == [("t/first", False), ("t/heir", True), ("t/second", False)]
    _, fake = ask(configured=successor, models=["t/heir"])
    assert targets(fake) == [("t/first", False), ("t/heir", False)]


def test_a_model_without_key_is_left_to_its_fallbacks(ask):
    response, fake = ask(model="t/unset")
    assert response.status_code == 200
    assert targets(fake) == [("t/unset", False), ("t/third", False)]


@pytest.mark.parametrize("fields", [{"model": "t/alone"}, {"model": "t/unset", "models": []}])
def test_a_model_without_key_and_fallback_is_refused(ask, fields):
    response, fake = ask(**fields)
    error = response.get_json()["error"]
    assert (response.status_code, error["code"]) == (503, "provider_not_configured")
    assert "KEY_THAT_IS_NOT_SET" in error["message"]
    assert fake.calls == []


def test_an_unknown_fallback_is_refused_by_name(ask):
    response, fake = ask(models=["t/third", "t/nobody"])
    error = response.get_json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (
        404,
        "model_not_found",
        "models",
    )
    assert "t/nobody" in error["message"]
    assert fake.calls == []


def test_six_fallbacks_are_too_many(ask):
    response, _ = ask(models=["t/third"] * 6)
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, "models")


def test_embeddings_fall_back_as_the_row_says_and_not_as_the_caller_does(ask):
    _, fake = ask(path="/embeddings", model="t/embed", input="hi", models=["t/third"])
    assert targets(fake) == [("t/embed", False), ("t/embed-2", False)]


def test_the_answer_says_who_gave_it(ask):
    outcome = dataclasses.replace(ANSWER, route="openai/third")
    response, _ = ask(outcome, models=["t/third"])
    assert response.get_json()["model"] == "third"
    assert response.headers["Warning"] == f'299 - "{THIRD}"'


def test_a_stream_says_who_gives_it(ask):
    script = (encode_head("openai/third", [], STREAM[0]), *STREAM[1:-1], Outcome(last=3))
    response, _ = ask(*script, models=["t/third"], stream=True)
    assert response.headers["Warning"] == f'299 - "{THIRD}"'
    assert '"model":"third"' in response.get_data(as_text=True)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("route", "name"), [("openai/first", "t/first"), ("anthropic/second", "t/second")]
)
def test_a_message_names_the_model_of_the_request_or_the_fallback_by_its_id(
    ask, stream, route, name
):
    head = encode_head(route, [], STREAM[0])
    answer = dataclasses.replace(ANSWER, route=route)
    script = (head, *STREAM[1:-1], Outcome(last=3, route=route)) if stream else (answer,)
    response, _ = ask(*script, path="/messages", max_tokens=9, stream=stream)
    assert f'"model":"{name}"' in response.get_data(as_text=True)


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_worker_left_out_at_the_first_model_is_named_too(ask, stream):
    answer = dataclasses.replace(ANSWER, route="openai/first", dropped=["seed", "tool_choice"])
    head = encode_head("openai/first", ["seed", "tool_choice"], STREAM[0])
    script = (head, *STREAM[1:-1], Outcome(last=3)) if stream else (answer,)
    response, _ = ask(*script, stream=stream, magic=2)
    assert response.headers["X-Ignored-Parameters"] == "magic, seed, tool_choice"


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_worker_left_out_is_named_and_nothing_is_checked_after_the_answer(ask, stream):
    """By this process' rules the fallback would refuse the call; the worker's may be others."""
    route, dropped = "openai/strict", ["top_p", "reasoning_effort"]
    head = encode_head(route, dropped, STREAM[0])
    answer = dataclasses.replace(ANSWER, route=route, dropped=dropped)
    script = (head, *STREAM[1:-1], Outcome(last=3)) if stream else (answer,)
    response, fake = ask(*script, models=["t/strict"], stream=stream, stop="x", seed=1, magic=2)
    assert response.status_code == 200
    assert response.headers["X-Ignored-Parameters"] == "magic, top_p, reasoning_effort"
    assert '"model":"strict"' in response.get_data(as_text=True)
    assert fake.left == [fake.calls[0].spec.call_id]


def test_an_answer_by_a_worker_of_the_previous_release_names_nothing_left_out(ask):
    response, _ = ask(dataclasses.replace(ANSWER, route="openai/strict"), models=["t/strict"])
    assert response.status_code == 200
    assert "X-Ignored-Parameters" not in response.headers


def test_a_model_s_own_total_bounds_its_calls(ask):
    assert ask()[1].calls[0].budget == 7
    assert ask(model="t/third")[1].calls[0].budget == 600


@pytest.mark.parametrize(("header", "budget"), [("3", 3), ("700", 7), ("0", 7), ("soon", 7)])
def test_the_client_may_lower_it(ask, header, budget):
    _, fake = ask(headers={"X-Request-Timeout": header})
    assert fake.calls[0].budget == budget


def test_two_names_of_one_route_are_asked_once(ask):
    response, fake = ask(models=["t/alias", "t/third"])
    assert targets(fake) == [("t/first", False), ("t/third", False)]
    assert "Warning" not in response.headers
