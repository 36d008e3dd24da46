"""GET /generations and /usage: what a key sees of its calls, and what OpenAI's client reads."""

from __future__ import annotations

import dataclasses
import time

import orjson
import pytest
from openai import OpenAI

from app import PREFIX
from gateway.account.ledger import open_ledger
from gateway.account.records import Record
from gateway.account.redis_ledger import RedisLedger
from gateway.queue import keys

NOW_MS = int(time.time() * 1000)
CALL_ID = "0123456789abcdef" * 2


def record(call_id, key_id, **fields):
    usage = {"input": 10, "cache_read": 4, "output": 5}
    values = {
        "created_ms": NOW_MS - 1_000,
        "settled_ms": NOW_MS,
        "model": "openai/gpt-4o-mini",
        "usage": usage,
        "usage_source": "provider",
        "cost_nano": 1_234_567,
        **fields,
    }
    return Record(id=call_id, key_id=key_id, **values)


@pytest.fixture
def own(key):
    """The public id of the caller's key."""
    return key.split("_")[2]


@pytest.fixture
def operator(redis, make_key):
    return make_key(operator=True)


@pytest.fixture
def ledger(settings, redis):
    return RedisLedger(settings, redis)


@pytest.fixture
def get(client, auth):
    def get(path, headers=auth):
        return client.get(PREFIX + path, headers=headers)

    return get


# Calls


@pytest.mark.parametrize(
    "path",
    [
        f"/generations/{CALL_ID}",
        f"/generation?id={CALL_ID}",
        f"/generations/chatcmpl-{CALL_ID}",
        f"/generation?id=msg_{CALL_ID}",
        f"/generation?id=resp_{CALL_ID}",
    ],
)
def test_a_call_is_found_by_its_id_and_by_that_of_its_response(get, ledger, own, path):
    ledger.write([record(CALL_ID, own)])
    response = get(path)
    assert response.status_code == 200
    data = response.get_json()["data"]
    assert (data["id"], data["status"], data["total_cost"]) == (CALL_ID, "completed", 0.001234567)


@pytest.mark.parametrize("path", ["/generations/none", "/generation?id=none"])
def test_a_call_that_nobody_made_is_404(get, path):
    response = get(path)
    assert response.status_code == 404
    assert response.get_json()["error"]["code"] == "generation_not_found"


def test_a_call_of_another_key_is_404(get, ledger):
    ledger.write([record(CALL_ID, "another")])
    assert get(f"/generations/{CALL_ID}").status_code == 404


def test_an_id_is_needed_at_openrouter_s_address(get):
    assert get("/generation").get_json()["error"]["code"] == "missing_required_parameter"


@pytest.mark.parametrize(
    ("job", "status"),
    [
        ("queued", "queued"),
        ("deferred", "queued"),
        ("started", "running"),
        ("finished", "settling"),
        ("canceled", "settling"),
    ],
)
def test_a_call_without_a_record_is_told_from_the_queue(get, redis, own, job, status):
    stub = {"id": CALL_ID, "key_id": own, "created_ms": NOW_MS, "model": "m", "prompt_tokens": 3}
    redis.hset(keys.job(CALL_ID), mapping={"status": job, "stub": orjson.dumps(stub)})
    data = get(f"/generations/{CALL_ID}").get_json()["data"]
    assert (data["status"], data["model"], data["total_cost"]) == (status, "m", None)


def test_a_running_call_of_another_key_is_404(get, redis):
    stub = orjson.dumps({"id": CALL_ID, "key_id": "another"})
    redis.hset(keys.job(CALL_ID), mapping={"status": "started", "stub": stub})
    assert get(f"/generations/{CALL_ID}").status_code == 404


def test_a_record_counts_more_than_the_queue_once_the_call_has_ended(get, redis, ledger, own):
    stub = orjson.dumps({"id": CALL_ID, "key_id": own})
    redis.hset(keys.job(CALL_ID), mapping={"status": "finished", "stub": stub})
    ledger.write([record(CALL_ID, own)])
    assert get(f"/generations/{CALL_ID}").get_json()["data"]["status"] == "completed"


def test_an_unknown_call_is_503_while_the_ledger_is_behind(get, redis):
    settled = int(time.time() - keys.JOB_SECONDS - 5) * 1000
    redis.xadd(keys.RECORDS, {"r": "{}"}, id=f"{settled}-0")
    response = get("/generations/none")
    assert response.status_code == 503
    assert response.get_json()["error"]["code"] == "account_unavailable"


@pytest.mark.parametrize("path", ["/generations/none", "/generations", "/usage"])
def test_a_database_that_is_away_is_503_and_never_401_or_500(make_client, settings, auth, path):
    away = dataclasses.replace(settings, database_url="postgresql://nobody@127.0.0.1:1/none")
    client = make_client(settings, ledger=open_ledger(away, None))
    response = client.get(PREFIX + path, headers=auth)
    assert response.status_code == 503
    assert response.get_json()["error"]["code"] == "account_unavailable"
    assert response.headers["Retry-After"] == "5"


def test_pages_of_calls_are_the_latest_first_and_the_key_s_own(get, ledger, own):
    ledger.write([record(f"c{i}", own, settled_ms=NOW_MS + i) for i in range(5)])
    ledger.write([record("other", "another", settled_ms=NOW_MS + 9)])
    first = get("/generations?limit=3").get_json()
    assert [call["id"] for call in first["data"]] == ["c4", "c3", "c2"]
    assert (first["has_more"], first["first_id"], first["last_id"]) == (True, "c4", "c2")
    second = get(f"/generations?limit=3&after={first['last_id']}").get_json()
    assert [call["id"] for call in second["data"]] == ["c1", "c0"]
    assert second["has_more"] is False


def test_calls_are_filtered(get, ledger, own):
    ledger.write([record("c1", own, status="failed"), record("c2", own, model="m2")])
    assert [c["id"] for c in get("/generations?status=failed").get_json()["data"]] == ["c1"]
    assert [c["id"] for c in get("/generations?model=m2").get_json()["data"]] == ["c2"]
    assert get(f"/generations?end_time={NOW_MS // 1000 - 60}").get_json()["data"] == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("status=odd", "status"),
        ("after=none", "after"),
        ("limit=101", "limit"),
        ("models=m", "models"),
    ],
)
def test_a_wrong_query_of_calls_is_refused(get, query, param):
    response = get(f"/generations?{query}")
    assert response.status_code == 400
    assert response.get_json()["error"]["param"] == param


def test_an_operator_sees_the_calls_of_all_keys(get, ledger, own, operator):
    ledger.write([record(CALL_ID, own), record("c2", "another")])
    headers = {"Authorization": f"Bearer {operator}"}
    assert get(f"/generations/{CALL_ID}", headers).status_code == 200
    assert len(get("/generations", headers).get_json()["data"]) == 2
    (call,) = get("/generations?api_key_id=another", headers).get_json()["data"]
    assert call["id"] == "c2"


# Usage


def results(response):
    assert response.status_code == 200, response.get_json()
    return [row for bucket in response.get_json()["data"] for row in bucket["results"]]


def test_a_key_sees_its_own_usage(get, ledger, own):
    ledger.write([record("c1", own), record("c2", own), record("c3", "another")])
    (row,) = results(get("/usage"))
    assert (row["num_model_requests"], row["output_tokens"]) == (2, 10)
    assert (row["input_tokens"], row["input_cached_tokens"]) == (28, 8)
    assert row["cost"] == 0.002469134


@pytest.mark.parametrize(
    "path",
    [
        "/usage?api_key_ids={own}&api_key_ids=another",
        "/organization/costs?api_key_ids[]=another",
        "/generations?api_key_id=another",
    ],
)
def test_a_key_that_names_another_is_refused(get, own, path):
    response = get(path.format(own=own))
    assert response.status_code == 403
    assert response.get_json()["error"]["param"].startswith("api_key_id")


def test_an_operator_sees_the_usage_of_all_keys(get, ledger, own, operator):
    ledger.write([record("c1", own), record("c2", "another")])
    headers = {"Authorization": f"Bearer {operator}"}
    rows = results(get("/usage?group_by[]=api_key_id", headers))
    assert {row["api_key_id"] for row in rows} == {own, "another"}
    (row,) = results(get("/usage?api_key_ids=another", headers))
    assert row["num_model_requests"] == 1


def test_usage_comes_as_csv(get, ledger, own):
    ledger.write([record("c1", own)])
    response = get("/usage?format=csv&group_by=model")
    assert response.mimetype == "text/csv"
    assert "attachment" in response.headers["Content-Disposition"]
    names, row = response.get_data(as_text=True).splitlines()
    assert names.startswith("start_time,end_time,model,")
    assert ",openai/gpt-4o-mini," in row


# OpenAI's client


@pytest.fixture
def admin(client, connect, operator):
    return connect(OpenAI, client.application, admin_api_key=operator).admin.organization.usage


@pytest.fixture
def calls(ledger, own):
    calls = [
        record("c1", own, owner="team"),
        record("c2", "another", model="m2"),
        record("c3", own, kind="embeddings", usage={"input": 7}, cost_nano=10),
    ]
    ledger.write(calls)
    return calls


def test_openai_s_client_reads_the_usage_of_chat_models(admin, calls, own):
    page = admin.completions(
        start_time=NOW_MS // 1000 - 86_400, group_by=["api_key_id", "model"], bucket_width="1d"
    )
    rows = [row for bucket in page.data for row in bucket.results]
    assert {(row.api_key_id, row.model) for row in rows} == {
        (own, "openai/gpt-4o-mini"),
        ("another", "m2"),
    }
    assert all(type(row).__name__.endswith("UsageCompletionsResult") for row in rows)
    assert sum(row.input_cached_tokens for row in rows) == 8
    assert sum(row.num_model_requests for row in rows) == 2


def test_openai_s_client_filters(admin, calls):
    start = NOW_MS // 1000 - 60
    page = admin.completions(start_time=start, models=["m2"], api_key_ids=["another"], limit=2)
    (row,) = [row for bucket in page.data for row in bucket.results]
    assert row.output_tokens == 5
    page = admin.completions(start_time=start, project_ids=["team"], group_by=["project_id"])
    (row,) = [row for bucket in page.data for row in bucket.results]
    assert row.project_id == "team"


def test_openai_s_client_reads_the_usage_of_embedding_models(admin, calls):
    page = admin.embeddings(start_time=NOW_MS // 1000 - 60)
    (row,) = [row for bucket in page.data for row in bucket.results]
    assert type(row).__name__.endswith("UsageEmbeddingsResult")
    assert (row.input_tokens, row.num_model_requests) == (7, 1)


def test_openai_s_client_reads_the_costs(admin, calls, own):
    page = admin.costs(start_time=NOW_MS // 1000 - 60, group_by=["line_item"])
    rows = [row for bucket in page.data for row in bucket.results]
    costs = {row.line_item: row.amount.value for row in rows}
    assert costs == {"openai/gpt-4o-mini": 0.001234577, "m2": 0.001234567}
    assert {row.amount.currency for row in rows} == {"usd"}


def test_openai_s_client_reads_page_after_page(admin, calls):
    end, starts, page = NOW_MS // 1000, [], {}
    while True:
        answer = admin.costs(start_time=end - 4 * 86_400, end_time=end, limit=2, **page)
        starts += [bucket.start_time for bucket in answer.data]
        if not answer.has_more:
            break
        page = {"page": answer.next_page}
    assert len(starts) == len(set(starts)) == 5
    assert starts == sorted(starts)
