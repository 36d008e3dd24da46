"""OpenAI's batches, with OpenAI's client and a broker that plays a script."""

from __future__ import annotations

import dataclasses
import json
import time

import openai
import orjson
import pytest

from api.idempotency import name_in_redis
from api.openapi.document import document
from app import PREFIX
from gateway.account.api_keys import public_id
from gateway.errors import QuotaExceeded, RateLimited, UpstreamFailed
from gateway.files import batches
from gateway.files.batches import BatchStore
from gateway.queue import event_logs, keys
from tests.contract.test_openapi import check
from tests.support.batches import CHAT, line, run_all


@pytest.fixture
def settings(settings, tmp_path):
    return dataclasses.replace(settings, files_url=f"file://{tmp_path}")


@pytest.fixture
def api(make_openai, key):
    return make_openai(key)


@pytest.fixture
def create(api):
    def create(*lines, endpoint=CHAT, **more):
        file = api.files.create(file=("input.jsonl", b"".join(lines)), purpose="batch")
        return api.batches.create(
            input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more
        )

    return create


@pytest.fixture
def run(client, api):
    def run(batch):
        run_all(client.application)
        return api.batches.retrieve(batch.id)

    return run


def results(api, file_id):
    content = api.files.content(file_id).read()
    return {each["custom_id"]: each for each in map(orjson.loads, content.splitlines())}


def test_a_batch_runs_to_its_end(api, create, run, broker):
    batch = create(line("one"), line("two", text="ho"), metadata={"team": "a"})
    assert (batch.object, batch.status) == ("batch", "validating")
    assert batch.expires_at == batch.created_at + 86_400
    batch = run(batch)
    assert batch.status == "completed"
    assert batch.completed_at >= batch.finalizing_at >= batch.in_progress_at >= batch.created_at
    assert batch.request_counts.to_dict() == {"total": 2, "completed": 2, "failed": 0}
    assert batch.metadata == {"team": "a"}
    assert batch.model == "openai/gpt-4o-mini"
    assert (batch.usage.input_tokens, batch.usage.output_tokens) == (18, 4)
    assert batch.usage.total_tokens == 22
    assert batch.error_file_id is None
    output = results(api, batch.output_file_id)
    assert output.keys() == {"one", "two"}
    one = output["one"]
    assert one.keys() == {"id", "custom_id", "response", "error"}
    assert one["id"].startswith("batch_req_")
    assert one["error"] is None
    assert one["response"]["status_code"] == 200
    assert one["response"]["request_id"]
    assert one["response"]["body"]["choices"][0]["message"]["content"] == "Hello!"
    file = api.files.retrieve(batch.output_file_id)
    assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    assert [each.id for each in api.files.list(purpose="batch_output")] == [file.id]


def test_a_line_is_a_call_of_its_key_with_the_priority_and_the_id_of_the_batch(
    create, run, broker, key
):
    batch = run(create(line("one")))
    (call,) = broker.calls
    assert call.spec.key == key.split("_")[2]
    assert call.spec.account["priority"] == "batch"
    assert call.spec.account["batch_id"] == batch.id
    assert call.budget == 3600


def test_a_key_has_a_bounded_number_of_batches_that_have_not_ended(create, run, monkeypatch):
    monkeypatch.setattr(batches, "MAX_ACTIVE", 2)
    first, _ = create(line("one")), create(line("one"))
    with pytest.raises(openai.RateLimitError, match="have not ended") as refused:
        create(line("one"))
    assert refused.value.code == "too_many_batches"
    run(first)
    create(line("one"))


def test_of_a_key_s_batches_that_have_ended_the_latest_are_known(
    api, create, run, redis, key, monkeypatch
):
    monkeypatch.setattr(batches, "MAX_KEPT", 2)
    index = keys.batches("openai", public_id(key))
    ended = [create(line("one")) for _ in range(3)]
    assert len(api.batches.list().data) == 3
    run(ended[0])
    redis.zadd(index, {batch.id: batch.created_at - 9 + n for n, batch in enumerate(ended)})
    later = create(line("one"))
    assert {each.id for each in api.batches.list()} == {ended[2].id, later.id}
    with pytest.raises(openai.NotFoundError):
        api.batches.retrieve(ended[0].id)
    assert redis.exists(keys.batch(ended[0].id)) == 0


def test_a_batch_mixes_models_and_endpoints_have_our_prefix_or_none(api, create, run):
    lines = [
        line("one", url="/inference/v1/chat/completions"),
        line("two", url="/chat/completions", model="anthropic/claude-sonnet-5-5"),
        line("three", model="demo/echo"),
    ]
    batch = run(create(*lines, endpoint="/inference/v1/chat/completions"))
    assert (batch.status, batch.model) == ("completed", None)
    assert len(results(api, batch.output_file_id)) == 3


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/responses", {"model": "openai/gpt-4o-mini", "input": "hi"}),
        ("/v1/embeddings", {"model": "demo/embed", "input": "hi"}),
    ],
)
def test_other_endpoints_run(client, create, run, broker, endpoint, body):
    if "embed" in endpoint:
        broker.script = (UpstreamFailed(),)
    request = {"custom_id": "1", "method": "POST", "url": endpoint, "body": body}
    batch = run(create(orjson.dumps(request), endpoint=endpoint))
    assert batch.status == "completed"
    assert len(broker.calls) == 1


def test_a_batch_without_a_success_has_no_output_file(api, create, run, broker):
    broker.script = (UpstreamFailed(),)
    batch = run(create(line("one"), line("two")))
    assert batch.status == "completed"
    assert batch.request_counts.to_dict() == {"total": 2, "completed": 0, "failed": 2}
    assert batch.output_file_id is None
    one = results(api, batch.error_file_id)["one"]
    assert one["error"] is None
    assert one["response"]["status_code"] == 502
    assert one["response"]["body"]["error"]["code"] == "upstream_failed"


def test_a_line_that_the_api_refuses_is_in_the_error_file(api, create, run):
    batch = run(create(line("one", temperature=9), line("two")))
    assert batch.request_counts.to_dict() == {"total": 2, "completed": 1, "failed": 1}
    assert results(api, batch.error_file_id)["one"]["response"]["status_code"] == 400
    assert results(api, batch.output_file_id).keys() == {"two"}


def test_a_line_that_a_budget_refuses_is_not_tried_again(api, create, run, broker):
    broker.script = (QuotaExceeded(),)
    batch = run(create(line("one")))
    response = results(api, batch.error_file_id)["one"]["response"]
    assert (response["status_code"], len(broker.calls)) == (429, 1)


def test_a_batch_with_a_wrong_line_fails(create, run, broker):
    batch = run(create(line("first"), line("first"), line("a", model="none/at-all")))
    assert batch.status == "failed"
    assert batch.failed_at
    errors = [(error.code, error.line, error.param) for error in batch.errors.data]
    assert errors == [
        ("duplicate_custom_id", 2, "custom_id"),
        ("model_not_found", 3, "body.model"),
    ]
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert batch.request_counts.total == 0
    assert broker.calls == []


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_a_batch_without_lines_fails(create, run, content):
    batch = run(create(content))
    assert (batch.status, batch.errors.data[0].code) == ("failed", "empty_file")


def test_blank_lines_are_left_out(create, run):
    batch = run(create(line("one"), b"\n", line("two"), b"\n\n"))
    assert batch.request_counts.to_dict() == {"total": 2, "completed": 2, "failed": 0}


def test_a_file_that_does_not_exist_fails_the_batch(api, run):
    batch = api.batches.create(input_file_id="file-none", endpoint=CHAT, completion_window="24h")
    batch = run(batch)
    assert (batch.status, batch.errors.data[0].code) == ("failed", "file_not_found")


def test_the_file_of_another_key_does_not_exist(api, make_openai, make_key, run):
    other = make_openai(make_key())
    file = other.files.create(file=("a.jsonl", line("one")), purpose="batch")
    batch = run(api.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h"))
    assert batch.errors.data[0].code == "file_not_found"


def test_a_model_that_the_key_may_not_use_does_not_exist(make_openai, make_key, client):
    api = make_openai(make_key(models=("demo/*",)))
    file = api.files.create(file=("a.jsonl", line("one")), purpose="batch")
    batch = api.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    run_all(client.application)
    assert api.batches.retrieve(batch.id).errors.data[0].code == "model_not_found"


def test_batch_tokens_queued_bounds_what_waits(make_openai, make_key, client):
    api = make_openai(make_key(batch_tokens_queued=150))
    file = api.files.create(file=("a.jsonl", line("one") + line("two")), purpose="batch")
    batches = [
        api.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        for _ in range(2)
    ]
    store = BatchStore(client.application.extensions["services"].broker.redis)
    # The first one has begun and waits; the second is validated beside it.
    store.change(batches[0].id, ("validating",), lines=2, queued_tokens=100)
    run_all(client.application)
    first, second = (api.batches.retrieve(batch.id) for batch in batches)
    assert first.status == "completed"
    assert (second.status, second.errors.data[0].code) == ("failed", "token_limit_exceeded")
    again = api.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    run_all(client.application)
    assert api.batches.retrieve(again.id).status == "completed"


def test_a_cancelled_batch_runs_no_further_line(api, create, run, broker):
    batch = create(line("one"), line("two"))
    store = BatchStore(broker.redis)
    store.change(batch.id, ("validating",), status="in_progress", lines=2)
    assert api.batches.cancel(batch.id).status == "cancelling"
    assert api.batches.cancel(batch.id).status == "cancelling"
    batch = run(batch)
    assert batch.status == "cancelled"
    assert batch.cancelled_at >= batch.cancelling_at
    assert broker.calls == []
    errors = results(api, batch.error_file_id)
    assert errors.keys() == {"one", "two"}
    assert errors["one"]["response"] is None
    assert errors["one"]["error"]["code"] == "batch_cancelled"
    assert api.batches.cancel(batch.id).status == "cancelled"


@pytest.mark.parametrize("reason", ["cancelled", "expired"])
def test_calls_that_still_run_when_a_batch_stops_are_stopped(
    create, run, broker, redis, key, settings, reason
):
    batch = create(line("one"), line("two"), line("three"))
    values = {"expires": 1} if reason == "expired" else {}
    status = "in_progress" if reason == "expired" else "cancelling"
    BatchStore(broker.redis).change(
        batch.id, ("validating",), status=status, lines=3, lines_completed=1, **values
    )
    redis.setbit(keys.batch_lines(batch.id), 1, 1)
    key_id = public_id(key)
    # The second call of line 2: its first was never queued.
    for name, call_id in (("1", "ended"), ("2", "lost"), ("2:1", "running"), ("3", "waiting")):
        name = name_in_redis(settings.key_pepper, key_id, f"{batch.id}:{name}")
        address = keys.log_address(call_id, 60)
        event_logs.remember(redis, key_id, name, f"{call_id} print".encode(), address, b"", 60)
    for call_id, state in (("ended", "started"), ("running", "started"), ("waiting", "queued")):
        redis.hset(keys.job(call_id), mapping={"status": state, "worker_name": "w1", "bytes": 1})
    assert run(batch).status == reason
    assert redis.smembers(keys.cancel("w1")) == {b"running"}
    assert redis.hget(keys.job("waiting"), "status") == b"canceled"


def test_a_batch_that_is_cancelled_before_it_was_checked_has_no_files(api, create, run):
    batch = create(line("one"))
    api.batches.cancel(batch.id)
    batch = run(batch)
    assert (batch.status, batch.error_file_id) == ("cancelled", None)


def test_a_batch_that_has_ended_cannot_be_cancelled(api, create, run):
    batch = run(create(line("one")))
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
        api.batches.cancel(batch.id)


def test_an_expired_batch_keeps_its_results(api, create, run, broker, redis):
    batch = create(line("one"), line("two"))
    store = BatchStore(broker.redis)
    store.change(batch.id, ("validating",), status="in_progress", lines=2, expires=1)
    batch = run(batch)
    assert (batch.status, batch.expired_at > 0) == ("expired", True)
    assert results(api, batch.error_file_id)["two"]["error"]["code"] == "batch_expired"


def test_lines_that_have_ended_are_not_run_again(api, create, run, broker, redis, client):
    batch = create(line("one"), line("two"))
    store = BatchStore(redis)
    store.change(batch.id, ("validating",), status="in_progress", lines=2)
    redis.set(keys.BATCH_RUNNER, "another")
    store.mark(batch.id, "another", [], [1], {"lines_completed": 1})
    redis.delete(keys.BATCH_RUNNER)
    batch = run(batch)
    assert [call.body["messages"][0]["content"] for call in broker.calls] == ["hi"]
    assert results(api, batch.output_file_id).keys() == {"two"}
    assert batch.request_counts.completed == 2


def test_the_input_of_a_running_batch_stays_when_its_file_is_deleted(api, create, run, redis):
    batch = create(line("one"))
    api.files.delete(batch.input_file_id)
    assert api.files.list().data == []
    assert run(batch).status == "completed"


def test_nothing_but_the_files_of_a_batch_stays(api, create, run, redis, tmp_path):
    batch = run(create(line("one"), line("two", temperature=9)))
    stored = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert stored == {batch.input_file_id, batch.output_file_id, batch.error_file_id}
    names = {name.decode().rpartition("gw:")[2] for name in redis.keys("*gw:batch*")}
    assert {name for name in names if ":of:" not in name} == {f"batch:{batch.id}"}


def test_the_files_of_a_batch_expire_when_their_owner_wants(api, create, run):
    after = {"anchor": "created_at", "seconds": 7200}
    batch = run(create(line("one"), output_expires_after=after))
    file = api.files.retrieve(batch.output_file_id)
    assert file.expires_at == file.created_at + 7200


def test_batches_are_listed_in_pages(api, create):
    ids = [create(line("one")).id for _ in range(5)]
    paged = [batch.id for batch in api.batches.list(limit=2)]
    assert sorted(paged) == sorted(ids)
    assert api.batches.list(limit=2).has_more
    assert not api.batches.list(limit=5).has_more
    with pytest.raises(openai.BadRequestError):
        api.batches.list(after="batch_none")


def test_a_key_does_not_see_the_batches_of_another(create, make_openai, make_key):
    batch = create(line("one"))
    other = make_openai(make_key())
    assert other.batches.list().data == []
    for call in (other.batches.retrieve, other.batches.cancel):
        with pytest.raises(openai.NotFoundError, match="No batch found with id"):
            call(batch.id)


def test_an_operator_sees_all_batches(create, make_openai, make_key):
    batch = create(line("one"))
    operator = make_openai(make_key(operator=True))
    assert [each.id for each in operator.batches.list()] == [batch.id]
    assert operator.batches.cancel(batch.id).status == "cancelling"
    with pytest.raises(openai.PermissionDeniedError):
        operator.batches.create(
            input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h"
        )


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"endpoint": "/v1/images/generations"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"input_file_id": ""}, "input_file_id"),
        ({"magic": 1}, "magic"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, None),
    ],
)
def test_a_wrong_batch_is_refused(client, auth, change, param):
    body = {"input_file_id": "file-1", "endpoint": CHAT, "completion_window": "24h", **change}
    response = client.post(f"{PREFIX}/batches", json=body, headers=auth)
    assert response.status_code == 400
    assert response.get_json()["error"]["param"] == param or param is None


def test_without_a_storage_batches_are_not_configured(make_client, settings, auth):
    client = make_client(dataclasses.replace(settings, files_url=""))
    for method, path in [("POST", ""), ("GET", ""), ("GET", "/1"), ("POST", "/1/cancel")]:
        response = client.open(f"{PREFIX}/batches{path}", method=method, headers=auth)
        assert response.status_code == 503
        assert response.get_json()["error"]["code"] == "files_not_configured"


def test_a_header_does_not_make_a_request_a_line(client):
    headers = {"inference.line": "1", "Inference-Line": "1", "inference_line": "1"}
    assert client.get(f"{PREFIX}/models", headers=headers).status_code == 401


def test_the_calls_of_a_revoked_key_are_refused(api, create, client, auth, broker, key):
    batch = create(line("one"))
    store = client.application.extensions["services"].keys
    store.revoke(key.split("_")[2])
    run_all(client.application)
    ended = BatchStore(broker.redis).get(batch.id)
    assert broker.calls == []
    assert (ended.status, ended.lines_failed) == ("completed", 1)


def test_batches_are_as_documented(client, auth, create, run, broker):
    described = json.loads(orjson.dumps(document(client.application)))
    broker.script = ()
    batch = run(create(line("one"), line("two", temperature=9)))
    failed = run(create(b"{}"))
    for method, path, id in [
        ("get", "/batches", ""),
        ("get", "/batches?limit=0", ""),
        ("get", "/batches/{batch_id}", batch.id),
        ("get", "/batches/{batch_id}", failed.id),
        ("get", "/batches/{batch_id}", "none"),
        ("post", "/batches/{batch_id}/cancel", batch.id),
        ("post", "/batches/{batch_id}/cancel", create(line("one")).id),
    ]:
        address = PREFIX + path.replace("{batch_id}", id)
        response = client.open(address, method=method, headers=auth)
        check(described, method, path.partition("?")[0], response)


def test_an_expired_line_is_not_tried_again(create, run, broker):
    broker.refusal = RateLimited(headers={"x-limit-name": "requests_per_minute"})
    batch = create(line("one"))
    store = BatchStore(broker.redis)
    store.change(batch.id, ("validating",), expires=int(time.time()) + 2)
    batch = run(batch)
    assert batch.status == "expired"
