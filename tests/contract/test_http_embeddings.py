"""The HTTP face of embeddings, with a fake broker in place of queue and workers."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import orjson
import pytest

from gateway import errors
from gateway.queue.protocol import Outcome
from tests.support.fakes import SILENCE, FakeBroker

EMBEDDINGS = "/inference/v1/embeddings"
MODEL = "openai/text-embedding-3-small"
USAGE = {"prompt_tokens": 3, "total_tokens": 3}
VECTOR = base64.b64encode(struct.pack("<2f", 1, -0.5)).decode()


def item(embedding: Any) -> dict[str, Any]:
    return {"object": "embedding", "index": 0, "embedding": embedding}


ANSWER = Outcome(answer=orjson.dumps({"data": [item(VECTOR)], "usage": USAGE}))


@pytest.fixture
def ask(make_client, settings, auth):
    """A function that asks for embeddings to which this script is played."""

    def post(*script, headers=None, model=MODEL, **fields):
        fake = FakeBroker(*(script or (ANSWER,)))
        body = orjson.dumps({"model": model, "input": "hi", **fields})
        response = make_client(settings, fake).post(
            EMBEDDINGS,
            data=body,
            content_type="application/json",
            headers=auth if headers is None else headers,
            buffered=True,
        )
        return response, fake

    return post


@pytest.mark.parametrize(
    ("asked", "vector"),
    [({}, [1, -0.5]), ({"encoding_format": "float"}, [1, -0.5]), (None, VECTOR)],
)
def test_the_answer_is_openai_s_list_in_the_encoding_asked_for(ask, asked, vector):
    response, fake = ask(**({"encoding_format": "base64"} if asked is None else asked))
    assert (response.status_code, response.content_type) == (200, "application/json")
    assert response.get_json() == {
        "object": "list",
        "model": "text-embedding-3-small",
        "data": [item(vector)],
        "usage": USAGE,
    }
    assert fake.left == [fake.calls[0].spec.call_id]
    assert "X-Ignored-Parameters" not in response.headers


def test_the_exchange_gets_a_call_of_its_kind(ask):
    _, fake = ask(dimensions=2, user=None, stream=True, odd=1)
    (call,) = fake.calls
    assert (call.spec.kind, call.spec.stream) == ("embeddings", False)
    assert call.body == {"input": "hi", "dimensions": 2}


def test_unknown_fields_are_named(ask):
    response, _ = ask(stream=True, odd=1)
    assert response.headers["X-Ignored-Parameters"] == "stream, odd"


def test_a_batch_as_large_as_openai_takes_passes(ask):
    response, fake = ask(input=[[1] * 8_000] * 37)
    assert response.status_code == 200
    assert fake.calls[0].body == {"input": [[1] * 8_000] * 37}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": []}, "input", "empty_array"),
        ({"input": ["a"] * 2049}, "input", "array_above_max_length"),
        ({"encoding_format": "hex"}, "encoding_format", "invalid_value"),
        ({"dimensions": 0}, "dimensions", "integer_below_min_value"),
    ],
)
def test_what_is_wrong_is_a_400_before_anything_is_queued(ask, fields, param, code):
    response, fake = ask(**fields)
    error = response.get_json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"
    assert fake.calls == []


def test_without_a_key_nothing_is_answered(ask):
    response, fake = ask(headers={})
    assert (response.status_code, fake.calls) == (401, [])


@pytest.mark.parametrize("model", ["openai/gpt-4o", "anthropic/claude-sonnet-4-5", "demo/echo"])
def test_a_model_that_chats_makes_no_embeddings(ask, model):
    response, fake = ask(model=model)
    assert (response.status_code, fake.calls) == (400, [])
    assert response.get_json()["error"]["param"] == "model"


def test_an_unknown_model_is_a_404(ask):
    response, _ = ask(model="nobody/embed")
    assert response.status_code == 404
    assert response.get_json()["error"]["code"] == "model_not_found"


def test_an_error_of_the_call_is_the_answer(ask):
    response, _ = ask(errors.WorkerLost())
    assert (response.status_code, response.headers["x-should-retry"]) == (502, "false")
    assert response.get_json()["error"]["code"] == "worker_lost"


def test_a_slow_answer_begins_with_blanks(ask):
    response, _ = ask(SILENCE, ANSWER)
    assert response.get_data().startswith(b" {")
    assert json.loads(response.get_data())["data"] == [item([1, -0.5])]


def test_a_failure_after_blanks_is_an_error_object(ask):
    response, _ = ask(SILENCE, errors.WorkerLost())
    assert response.status_code == 200
    error = errors.WorkerLost()
    error.request_id = response.headers["X-Request-Id"]
    assert json.loads(response.get_data()) == error.envelope()


def test_a_chat_request_for_a_model_of_embeddings_is_refused(make_client, settings, auth):
    fake = FakeBroker()
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
    client = make_client(settings, fake)
    response = client.post("/inference/v1/chat/completions", json=body, headers=auth)
    assert (response.status_code, fake.calls) == (404, [])
    assert response.get_json()["error"]["param"] == "model"
