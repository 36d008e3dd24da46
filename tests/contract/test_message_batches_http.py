"""Anthropic's message batches, with Anthropic's client and a broker that plays a script."""

from __future__ import annotations

import dataclasses
import json

import anthropic
import orjson
import pytest
from anthropic import Anthropic

from api.openapi.document import document
from app import PREFIX
from gateway.errors import UpstreamFailed
from gateway.files.batches import BatchStore
from tests.contract.test_openapi import check
from tests.support.batches import run_all

MESSAGES = [{"role": "user", "content": "hi"}]


def params(**more):
    return {"model": "openai/gpt-4o-mini", "max_tokens": 5, "messages": MESSAGES, **more}


def requests(*ids, **more):
    return [{"custom_id": each, "params": params(**more)} for each in ids]


@pytest.fixture
def settings(settings, tmp_path):
    return dataclasses.replace(settings, files_url=f"file://{tmp_path}")


@pytest.fixture
def make_api(client, connect):
    return lambda key: connect(Anthropic, client.application, api_key=key).messages.batches


@pytest.fixture
def batches(make_api, key):
    return make_api(key)


@pytest.fixture
def run(client, batches):
    def run(batch):
        run_all(client.application)
        return batches.retrieve(batch.id)

    return run


@pytest.fixture
def store(client):
    return BatchStore(client.application.extensions["services"].broker.redis)


def results(batches, batch):
    return {each.custom_id: each.result for each in batches.results(batch.id)}


def stored(tmp_path):
    return [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_batch_runs_to_its_end(batches, run, broker):
    batch = batches.create(requests=requests("one", "two"))
    assert (batch.type, batch.processing_status) == ("message_batch", "in_progress")
    assert (batch.expires_at - batch.created_at).total_seconds() == 86_400
    assert batch.request_counts.to_dict() == {
        "processing": 2,
        "succeeded": 0,
        "errored": 0,
        "canceled": 0,
        "expired": 0,
    }
    assert (batch.ended_at, batch.results_url) == (None, None)
    with pytest.raises(anthropic.BadRequestError):
        list(batches._get(f"/v1/messages/batches/{batch.id}/results", cast_to=str))
    batch = run(batch)
    assert batch.processing_status == "ended"
    assert batch.ended_at >= batch.created_at
    assert batch.request_counts.succeeded == 2
    assert batch.request_counts.processing == 0
    one = results(batches, batch)["one"]
    assert one.type == "succeeded"
    assert one.message.content[0].text == "Hello!"
    assert one.message.usage.output_tokens == 2
    assert [call.spec.account["batch_id"] for call in broker.calls] == [batch.id] * 2
    assert {call.spec.account["priority"] for call in broker.calls} == {"batch"}


@pytest.mark.parametrize("public_url", ["", "http://testserver/"])
def test_anthropic_s_client_follows_results_url(
    make_client, connect, settings, broker, key, public_url
):
    app = make_client(dataclasses.replace(settings, public_url=public_url), broker).application
    batches = connect(Anthropic, app, api_key=key).messages.batches
    id = batches.create(requests=requests("one")).id
    run_all(app)
    path = f"/v1/messages/batches/{id}/results"
    expected = f"http://testserver/inference{path}" if public_url else path
    assert batches.retrieve(id).results_url == expected
    assert [each.custom_id for each in batches.results(id)] == ["one"]


def test_a_request_that_fails_is_errored_with_anthropic_s_error(batches, run, broker):
    broker.script = (UpstreamFailed(),)
    batch = run(batches.create(requests=requests("one")))
    assert (batch.request_counts.errored, batch.request_counts.succeeded) == (1, 0)
    one = results(batches, batch)["one"]
    assert one.type == "errored"
    assert (one.error.type, one.error.error.type) == ("error", "api_error")
    assert one.error.request_id


def test_wrong_params_are_errored(batches, run, broker):
    wrong = [
        {"custom_id": "one", "params": {"model": "openai/gpt-4o-mini"}},
        {"custom_id": "two", "params": params(model="none/at-all")},
    ]
    found = results(batches, run(batches.create(requests=wrong)))
    assert found["one"].error.error.type == "invalid_request_error"
    assert found["two"].error.error.type == "not_found_error"
    assert broker.calls == []


def test_a_cancelled_batch_runs_no_further_request(batches, run, broker):
    batch = batches.create(requests=requests("one", "two"))
    cancelled = batches.cancel(batch.id)
    assert cancelled.processing_status == "canceling"
    assert cancelled.cancel_initiated_at
    batch = run(batch)
    assert batch.processing_status == "ended"
    assert batch.request_counts.canceled == 2
    assert {result.type for result in results(batches, batch).values()} == {"canceled"}
    assert broker.calls == []
    assert batches.cancel(batch.id).processing_status == "ended"


def test_an_expired_batch_has_results(batches, run, store):
    batch = batches.create(requests=requests("one"))
    store.change(batch.id, ("validating",), expires=1)
    batch = run(batch)
    assert batch.request_counts.expired == 1
    assert results(batches, batch)["one"].type == "expired"


def test_a_batch_that_has_ended_can_be_deleted(batches, run, client, tmp_path):
    batch = batches.create(requests=requests("one"))
    with pytest.raises(anthropic.BadRequestError):
        batches.delete(batch.id)
    run(batch)
    assert batches.delete(batch.id).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError):
        batches.retrieve(batch.id)
    run_all(client.application)  # sweeps
    assert stored(tmp_path) == []


def test_batches_are_listed_both_ways(batches, auth, client):
    ids = [batches.create(requests=requests("one")).id for _ in range(5)]
    listed = [batch.id for batch in batches.list(limit=2)]
    assert sorted(listed) == sorted(ids)
    page = batches.list(limit=2, before_id=listed[4])
    assert ([batch.id for batch in page.data], page.has_more) == (listed[2:4], True)
    page = batches.list(limit=2, before_id=listed[1])
    assert ([batch.id for batch in page.data], page.has_more) == (listed[:1], False)
    assert batches.list(before_id=listed[0]).data == []
    for query in ("before_id=none", f"before_id={ids[0]}&after_id={ids[0]}", "limit=1001"):
        response = client.get(f"{PREFIX}/messages/batches?{query}", headers=auth)
        assert response.status_code == 400
        assert response.get_json()["type"] == "error"


def test_openai_s_and_anthropic_s_batches_do_not_mix(batches, client, auth, run):
    batch = run(batches.create(requests=requests("one")))
    assert client.get(f"{PREFIX}/batches/{batch.id}", headers=auth).status_code == 404
    assert client.get(f"{PREFIX}/batches", headers=auth).get_json()["data"] == []
    assert client.get(f"{PREFIX}/files", headers=auth).get_json()["data"] == []


def test_a_key_does_not_see_the_batches_of_another(batches, make_api, make_key):
    batch = batches.create(requests=requests("one"))
    others = make_api(make_key())
    assert others.list().data == []
    for call in (others.retrieve, others.cancel, others.delete, others.results):
        with pytest.raises(anthropic.NotFoundError):
            call(batch.id)


def test_batch_tokens_queued_bounds_what_waits(make_api, make_key, tmp_path):
    batches = make_api(make_key(batch_tokens_queued=50))
    batches.create(requests=requests("one"))
    with pytest.raises(anthropic.RateLimitError, match="Limit: 50 enqueued tokens"):
        batches.create(requests=requests("two"))
    assert len(stored(tmp_path)) == 1


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ([], "empty array"),
        ([{"params": params()}], r"requests\[0\].custom_id"),
        ([{"custom_id": "one"}], r"requests\[0\].params"),
        ([*requests("one"), {"custom_id": 2, "params": params()}], r"requests\[1\].custom_id"),
        (requests("a b"), "pattern"),
        (requests("a" * 65), "pattern"),
        (requests("one", "one"), "unique"),
        (requests("one", stream=True), "do not stream"),
        (requests("one", max_tokens=0), "max_tokens"),
        ([{**requests("one")[0], "magic": 1}], r"Unknown parameter: 'requests\[0\].magic'"),
    ],
)
def test_a_wrong_batch_is_refused_and_leaves_nothing(batches, tmp_path, sent, message):
    with pytest.raises(anthropic.BadRequestError, match=message):
        batches.create(requests=sent)
    assert stored(tmp_path) == []


@pytest.mark.parametrize(
    ("body", "media", "status"),
    [
        (b"{", "application/json", 400),
        (b"{}", "application/json", 400),
        (b'{"requests": [{]}', "application/json", 400),
        (b'{"requests": [{"params": %b}]}' % (b"[" * 300 + b"]" * 300), "application/json", 400),
        (
            b'{"requests": [{"custom_id": "a", "params": {"a": %b}}]}' % (b"[" * 300 + b"]" * 300),
            "application/json",
            400,
        ),
        (b"{}", "text/plain", 415),
    ],
)
def test_what_is_no_batch_is_refused(client, auth, tmp_path, body, media, status):
    address = f"{PREFIX}/messages/batches"
    response = client.post(address, data=body, headers=auth, content_type=media)
    assert response.status_code == status
    assert response.get_json()["type"] == "error"
    assert response.headers["request-id"]
    assert stored(tmp_path) == []


def test_without_a_storage_batches_are_not_configured(make_client, settings, auth):
    client = make_client(dataclasses.replace(settings, files_url=""))
    for method, path in [("POST", ""), ("GET", ""), ("GET", "/1"), ("GET", "/1/results")]:
        response = client.open(
            f"{PREFIX}/messages/batches{path}", method=method, headers=auth, json={"requests": []}
        )
        assert response.status_code == 503
        assert "FILES_URL" in response.get_json()["error"]["message"]


def test_message_batches_are_as_documented(client, auth, batches, run):
    described = json.loads(orjson.dumps(document(client.application)))
    batch = run(batches.create(requests=requests("one")))
    running = batches.create(requests=requests("two"))
    path = "/messages/batches/{batch_id}"
    for method, template, id in [
        ("get", "/messages/batches", ""),
        ("get", "/messages/batches?limit=0", ""),
        ("post", "/messages/batches", ""),
        ("get", path, batch.id),
        ("get", path, running.id),
        ("get", path, "none"),
        ("get", f"{path}/results", batch.id),
        ("get", f"{path}/results", running.id),
        ("delete", path, running.id),
        ("post", f"{path}/cancel", running.id),
        ("delete", path, batch.id),
    ]:
        address = PREFIX + template.replace("{batch_id}", id)
        response = client.open(address, method=method, headers=auth)
        check(described, method, template.partition("?")[0], response)
