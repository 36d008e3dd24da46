"""Mutated requests to every endpoint: refused in its words or answered, without a fault.

Only queue, processes and network are left out: what is taken runs to a provider's bytes and back.
`--hypothesis-profile=nightly` sends 20,000 of them, see CONTRIBUTING.md.
"""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import HealthCheck, event, given
from hypothesis import settings as how

from gateway.catalogue.catalogue import Catalogue
from tests.support.fuzz import ENDPOINTS, mutated
from tests.support.whole import WholeExchange

pytestmark = pytest.mark.slow

CASES = 400  # for each endpoint, where the profile says nothing of more
LONGEST_SECONDS = 10.0  # of CPU time: what is worse than linear takes minutes

many = how(
    max_examples=max(CASES, how.default.max_examples),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def ask(make_client, settings, auth):
    """A function that posts these bytes; gives the response and the seconds of CPU it took."""
    client = make_client(settings, WholeExchange(Catalogue.load(settings), settings))

    def post(endpoint, raw):
        began = time.thread_time()
        response = client.post(
            f"/inference/v1/{endpoint}",
            data=raw,
            headers={**auth, "anthropic-version": "2023-06-01"},
            content_type="application/json",
            buffered=True,
        )
        return response, time.thread_time() - began

    return post


def check_refusal(endpoint, body):
    if endpoint == "messages":
        assert body.keys() == {"type", "error", "request_id"}
        assert body["type"] == "error"
        assert body["error"].keys() == {"type", "message"}
        assert body["error"]["type"] in {"invalid_request_error", "not_found_error"}
        return
    assert body.keys() == {"error"}
    error = body["error"]
    assert error.keys() == {"message", "type", "param", "code", "request_id"}
    assert error["type"] == "invalid_request_error"
    assert isinstance(error["message"], str)
    assert error["message"]
    assert error["param"] is None or isinstance(error["param"], str)
    assert error["code"] is None or isinstance(error["code"], str)


def check_answer(response):
    if response.content_type == "application/json":
        assert json.loads(response.data).get("error") is None
        return
    assert response.content_type.startswith("text/event-stream")
    lines = response.data.decode().split("\n")
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    events = [json.loads(each) for each in data if each != "[DONE]"]
    assert events
    assert not any(each.get("error") or each.get("type") == "error" for each in events)
    assert not any(each.get("type") == "response.failed" for each in events)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_mutated_request_is_refused_or_answered(ask, endpoint, caplog):
    @many
    @given(mutated(endpoint))
    def check(raw):
        response, seconds = ask(endpoint, raw)
        event(str(response.status_code))
        assert response.status_code in (200, 400, 404), response.data + caplog.text.encode()
        if response.status_code == 200:
            check_answer(response)
        else:
            check_refusal(endpoint, response.get_json())
        assert seconds < LONGEST_SECONDS

    check()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_request_that_is_not_mutated_is_mostly_answered(ask, endpoint):
    """Otherwise the mutated ones would show little."""
    seen = []

    @how(many, max_examples=100)
    @given(ENDPOINTS[endpoint])
    def check(value):
        seen.append(ask(endpoint, json.dumps(value).encode())[0].status_code)
        assert seen[-1] in (200, 400)

    check()
    assert seen.count(200) > len(seen) / 4
