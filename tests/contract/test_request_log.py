"""The web process' line about a request."""

from __future__ import annotations

import logging

import pytest

from gateway.errors import UpstreamFailed
from gateway.queue.protocol import Outcome
from tests.support.fakes import FakeBroker, part

URL = "/inference/v1/chat/completions"
BODY = {"model": "demo/echo", "messages": [{"role": "user", "content": "a secret prompt"}]}


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO)

    def lines():
        records = [each for each in caplog.records if each.name == "api.http.request_log"]
        return [(record.getMessage(), record.fields) for record in records]

    yield lines
    assert "secret" not in caplog.text + str(lines())


def test_a_call_that_went_well_has_the_worker_s_line_and_one_at_debug(
    client, broker, auth, lines, caplog
):
    client.post(URL, json=BODY, headers=auth).close()
    assert lines() == []
    caplog.set_level(logging.DEBUG)
    client.post(URL, json=BODY, headers={**auth, "X-Request-Id": "mine-1"}).close()
    [(message, fields)] = lines()
    assert message == "call"
    assert fields.pop("total_ms") >= 0
    assert fields == {
        "request_id": "mine-1",
        "call_id": broker.calls[1].spec.call_id,
        "key_id": broker.calls[1].spec.key,
        "method": "POST",
        "address": URL,
        "status": 200,
        "error": "",
        "model": "demo/echo",
        "route": "demo/echo",
        "cache": "",
    }


def test_a_stream_s_line_comes_when_it_has_ended(make_client, settings, auth, lines):
    client = make_client(settings, FakeBroker(part("Hel"), UpstreamFailed()))
    response = client.post(URL, json={**BODY, "stream": True}, headers=auth)
    assert lines() == []
    assert "upstream_failed" in response.get_data(as_text=True)
    response.close()
    [(_, fields)] = lines()
    assert (fields["status"], fields["error"]) == (200, "upstream_failed")
    assert fields["first_token_ms"] <= fields["total_ms"]


def test_a_call_that_no_worker_can_tell_of_has_a_line(client, broker, auth, lines):
    broker.cache = "hit"
    client.post(URL, json=BODY, headers=auth).close()
    broker.cache = ""
    client.post(URL, json={**BODY, "stream": True}, headers=auth, buffered=False).close()
    assert [(fields["status"], fields["cache"]) for _, fields in lines()] == [
        (200, "hit"),
        (200, ""),
    ]


def test_a_call_that_goes_on_without_its_client_is_no_failure(client, broker, auth, lines):
    broker.leave = broker.abandon  # as the real one does: nobody waits here any more
    client.post(URL, json=BODY, headers={**auth, "Prefer": "respond-async"}).close()
    [(_, fields)] = lines()
    assert (fields["status"], fields["error"]) == (202, "")


def test_a_response_that_breaks_has_a_line_although_its_call_went_well(
    make_client, settings, auth, lines
):
    odd = b'{"choices":[{"index":0,"delta":{"tool_calls":"x"}}]}'
    client = make_client(settings, FakeBroker(part("Hel"), odd, Outcome(last=2)))
    body = {**BODY, "model": "openai/gpt-4o", "max_tokens": 9, "stream": True}
    response = client.post("/inference/v1/messages", json=body, headers=auth)
    assert "event: error" in response.get_data(as_text=True)
    response.close()
    [(_, fields)] = lines()
    assert (fields["status"], fields["error"]) == (200, "gateway_error")


def test_a_refused_request_has_a_line_that_does_not_quote_it(client, auth, lines):
    response = client.post(URL, json={**BODY, "model": "secret/model"}, headers=auth)
    response.close()
    client.get("/secret/path").close()
    wrong = {"Authorization": "Bearer secret"}
    client.post(URL, json=BODY, headers=wrong).close()
    shown = [(f["address"], f["status"], f["error"], bool(f["key_id"])) for _, f in lines()]
    assert shown == [
        (URL, 404, "model_not_found", True),
        ("unknown", 404, "unknown_url", False),
        (URL, 401, "invalid_api_key", False),
    ]


def test_a_read_that_went_well_has_a_line_at_debug_only(client, auth, lines):
    client.get("/inference/v1/models", headers=auth).close()
    assert lines() == []
