"""What callers are told of a model's end, of who answers in its place, and of what models take."""

from __future__ import annotations

import dataclasses
import json
from datetime import date

import orjson
import pytest

from gateway import errors
from gateway.catalogue.target import Target
from gateway.queue.protocol import Outcome, encode_head
from tests.support.fakes import ANSWER, SILENCE, STREAM, FakeBroker

BASE = "/inference/v1"
MESSAGES = [{"role": "user", "content": "hi"}]
OLD, NEW = "openai/gpt-4o-mini", "openai/gpt-6-luna"
LONG_BEFORE, NEAR, AFTER = date(2026, 1, 1), date(2026, 12, 1), date(2027, 2, 1)
SUBSTITUTED = f'299 - "{OLD} has been shut down by its provider: {NEW} answered in its place."'
ROUTE = "openai/gpt-6-luna"
BY_SUCCESSOR = (encode_head(ROUTE, [], STREAM[0]), *STREAM[1:-1], Outcome(last=3, route=ROUTE))


@pytest.fixture
def ask(make_client, settings, auth):
    """A function that asks on a given day, plays a script to the call, and tells both."""

    def post(*script, today=LONG_BEFORE, path="/chat/completions", configured=(), **fields):
        fake = FakeBroker(*script)
        configured_settings = dataclasses.replace(settings, **dict(configured))
        client = make_client(configured_settings, fake, today=lambda: today)
        body = {"model": OLD, "messages": MESSAGES, **fields}
        sent = {name: value for name, value in body.items() if value is not None}
        answer = client.post(f"{BASE}{path}", data=orjson.dumps(sent), headers=auth, buffered=True,
                             content_type="application/json")  # fmt: skip
        return answer, fake

    return post


def models(answer):
    """The names under which a stream's chunks come."""
    lines = answer.get_data(as_text=True).split("\n\n")
    values = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    return {value["model"] for value in values}


# The end is near


@pytest.mark.parametrize("stream", [False, True])
def test_long_before_its_end_a_model_is_like_any_other(ask, stream):
    answer, _ = ask(stream=stream)
    assert answer.status_code == 200
    assert not {"Warning", "Deprecation", "Sunset"} & set(answer.headers.keys())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("today", "verb"), [(NEAR, "will be"), (AFTER, "was to be")])
def test_near_its_end_and_past_it_a_model_answers_with_a_warning(ask, stream, today, verb):
    answer, fake = ask(today=today, stream=stream)
    assert answer.status_code == 200
    assert answer.headers.getlist("Warning") == [
        f'299 - "{OLD} {verb} shut down by its provider on 2027-01-14. Use {NEW} instead."'
    ]
    assert answer.headers["Deprecation"] == "@1794700800"  # 2026-11-15, 60 days before
    assert answer.headers["Sunset"] == "Thu, 14 Jan 2027 00:00:00 GMT"
    assert len(fake.calls) == 1


@pytest.mark.parametrize(
    ("script", "fields", "status"),
    [
        ((errors.UpstreamFailed(),), {}, 502),
        ((errors.ModelNotFound(),), {}, 404),
        ((), {"messages": None}, 400),
    ],
)
def test_an_error_is_no_reason_not_to_warn(ask, script, fields, status):
    answer, _ = ask(*script, today=NEAR, **fields)
    assert answer.status_code == status
    assert "2027-01-14" in answer.headers["Warning"]
    assert "2027" in answer.headers["Sunset"]


def test_a_model_without_an_end_answers_without_a_warning(ask):
    answer, _ = ask(today=AFTER, model=NEW)
    assert "Warning" not in answer.headers


def test_pages_may_read_the_warning_and_its_dates(make_client, settings):
    browser = make_client(dataclasses.replace(settings, cors_allow_origins=("*",)))
    headers = browser.get(f"{BASE}/health", headers={"Origin": "https://app.example"}).headers
    exposed = set(headers["Access-Control-Expose-Headers"].split(", "))
    assert {"Warning", "Deprecation", "Sunset"} <= exposed


# A successor answers


def test_without_the_setting_a_call_is_for_one_model_alone(ask):
    _, fake = ask()
    assert fake.calls[0].spec.targets == (Target(OLD, "openai", "gpt-4o-mini"),)


def test_with_the_setting_a_call_may_go_to_the_successor(ask):
    _, fake = ask(configured={"retired_models": "successor"})
    assert fake.calls[0].spec.targets == (
        Target(OLD, "openai", "gpt-4o-mini"),
        Target(NEW, "openai", "gpt-6-luna", only_if_gone=True),
    )


SUCCESSOR = {"retired_models": "successor"}


def test_a_whole_answer_names_the_model_that_gave_it(ask):
    outcome = dataclasses.replace(ANSWER, route=ROUTE)
    answer, _ = ask(outcome, configured=SUCCESSOR)
    assert answer.get_json()["model"] == "gpt-6-luna"
    assert answer.headers.getlist("Warning") == [SUBSTITUTED]


def test_a_stream_names_the_model_that_gives_it(ask):
    answer, _ = ask(*BY_SUCCESSOR, stream=True, configured=SUCCESSOR)
    assert models(answer) == {"gpt-6-luna"}
    assert answer.headers.getlist("Warning") == [SUBSTITUTED]
    assert "#" not in answer.get_data(as_text=True)


def test_both_warnings_are_given_where_both_are_due(ask):
    answer, _ = ask(*BY_SUCCESSOR, stream=True, configured=SUCCESSOR, today=AFTER)
    first, second = sorted(answer.headers.getlist("Warning"))
    assert first == SUBSTITUTED
    assert "2027-01-14" in second
    assert len(answer.headers.getlist("Sunset")) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_after_the_headers_names_its_model_all_the_same(ask, stream):
    script = BY_SUCCESSOR if stream else (dataclasses.replace(ANSWER, route=ROUTE),)
    answer, _ = ask(SILENCE, *script, stream=stream, configured=SUCCESSOR)
    assert "Warning" not in answer.headers
    if stream:
        assert models(answer) == {"gpt-6-luna"}
    else:
        assert json.loads(answer.get_data())["model"] == "gpt-6-luna"


@pytest.mark.parametrize("stream", [False, True])
def test_the_model_that_was_asked_answers_under_its_own_name(ask, stream):
    own = "openai/gpt-4o-mini"
    script = STREAM if stream else (dataclasses.replace(ANSWER, route=own),)
    answer, _ = ask(*script, stream=stream, configured=SUCCESSOR)
    assert "Warning" not in answer.headers
    found = models(answer) if stream else {answer.get_json()["model"]}
    assert found == {"gpt-4o-mini"}


def test_what_the_successor_did_not_get_is_named(ask):
    outcome = dataclasses.replace(ANSWER, route=ROUTE, dropped=["temperature", "logprobs"])
    own, _ = ask(temperature=0.2, logprobs=True, magic=1)
    assert own.headers["X-Ignored-Parameters"] == "magic"
    answer, fake = ask(outcome, configured=SUCCESSOR, temperature=0.2, logprobs=True, magic=1)
    assert answer.headers["X-Ignored-Parameters"] == "magic, temperature, logprobs"
    assert fake.calls[0].body == {"messages": MESSAGES, "temperature": 0.2, "logprobs": True}


# Kinds of model, and what each takes


def test_a_model_for_embeddings_is_not_asked_to_chat(ask):
    answer, fake = ask(model="demo/embed")
    error = answer.get_json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (
        404,
        "invalid_request_error",
        "model",
    )
    assert "not a chat model" in error["message"]
    assert fake.calls == []


def test_a_chat_model_is_not_asked_for_embeddings(ask):
    answer, fake = ask(path="/embeddings", messages=None, input="hi")
    error = answer.get_json()["error"]
    assert (answer.status_code, error["param"]) == (400, "model")
    assert "embeddings" in error["message"]
    assert fake.calls == []


def test_a_refusal_by_the_model_s_rules_comes_before_the_queue(ask):
    tools = [{"type": "function", "function": {"name": "f"}}]
    answer, fake = ask(model="openai/gpt-6.1-sol", tools=tools)
    error = answer.get_json()["error"]
    assert (answer.status_code, error["code"]) == (400, "unsupported_parameter")
    assert fake.calls == []


@pytest.mark.parametrize(
    ("model", "taken", "not_taken"),
    [
        (NEW, {"max_tokens", "max_completion_tokens", "tools", "temperature"}, {"logit_bias"}),
        ("openai/gpt-6.1-sol", {"reasoning_effort"}, {"tools", "functions"}),
        ("anthropic/claude-sonnet-5-5", {"tools", "thinking"}, {"temperature", "seed"}),
        ("together/any", {"top_k", "temperature"}, {"safe_prompt"}),
        ("openai/text-embedding-3-small", {"dimensions", "user"}, {"input", "temperature"}),
    ],
)
def test_the_list_says_which_parameters_mean_something(client, auth, model, taken, not_taken):
    shown = client.get(f"{BASE}/models/{model}", headers=auth).get_json()
    supported = shown["supported_parameters"]
    assert supported == sorted(supported)
    assert taken <= set(supported)
    assert not not_taken & set(supported)


def test_embeddings_of_one_model_are_never_made_by_another(make_client, settings, auth, tmp_path):
    file = tmp_path / "models.toml"
    file.write_text(
        '[models."demo/embed"]\nprovider = "demo"\nkind = "embeddings"\nsuccessor = "demo/other"\n'
        '[models."demo/other"]\nprovider = "demo"\nkind = "embeddings"\n'
    )
    configured = dataclasses.replace(
        settings, retired_models="successor", models_file=str(file), demo_models=True
    )
    fake = FakeBroker(Outcome(answer=b'{"data":[]}'))
    body = {"model": "demo/embed", "input": "hi"}
    answer = make_client(configured, fake).post(f"{BASE}/embeddings", json=body, headers=auth)
    assert answer.status_code == 200
    assert [target.model for target in fake.calls[0].spec.targets] == ["demo/embed"]
