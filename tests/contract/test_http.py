"""The HTTP face: shapes, headers and errors, with a fake broker in place of queue and workers."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import tracemalloc

import orjson
import pytest

from gateway import SERVICE, VERSION, errors
from gateway.catalogue.target import Target
from gateway.queue import keys
from gateway.queue.protocol import Outcome
from tests.support.fakes import (
    ANSWER,
    CHOICE,
    SILENCE,
    STREAM,
    USAGE,
    FakeBroker,
    ScriptedCall,
    part,
)

BASE = "/inference/v1"
CHAT = f"{BASE}/chat/completions"
BODY = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
ORIGIN = "https://app.example"


def chat(client, body, headers):
    """The answer to a chat completion, read to its end as a server does it.

    Not `json=`, which sorts the body's fields.
    """
    return client.post(
        CHAT,
        data=orjson.dumps(body),
        content_type="application/json",
        headers=headers,
        buffered=True,
    )


@pytest.fixture
def ask(client, auth):
    """A function that posts a chat completion with these further fields and headers."""

    def post(headers=(), **fields):
        return chat(client, {**BODY, **fields}, {**auth, **dict(headers)})

    return post


@pytest.fixture
def ask_scripted(make_client, settings, auth):
    """A function that posts a chat completion to which this script is played."""

    def post(*script, stream=False, fake=None, **configured):
        fake = fake or FakeBroker(*script)
        client = make_client(dataclasses.replace(settings, **configured), fake)
        return chat(client, {**BODY, "stream": stream}, auth), fake

    return post


def events(response):
    """The data of a stream's events; comments are left out."""
    blocks = response.get_data(as_text=True).split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith(("data: ", ": ")) for block in blocks)
    return [block[6:] for block in blocks if block.startswith("data: ")]


def envelope(error, response):
    names = ("message", "type", "param", "code")
    values = {name: getattr(error, name) for name in names}
    return {"error": {**values, "request_id": response.headers["X-Request-Id"]}}


# Routes


def test_only_health_and_the_documentation_are_public(client):
    views = client.application.view_functions
    rules = client.application.url_map.iter_rules()
    public = {
        rule.rule
        for rule in rules
        if views[rule.endpoint].access == "public" and not rule.rule.startswith("/console")
    }
    open_to_all = ("health", "health/ready", "openapi.json", "docs")
    assert public == {*(f"{BASE}/{name}" for name in open_to_all), "/", "/inference", BASE}


# Health and models


def test_health_is_told_to_the_byte(client):
    response = client.get(f"{BASE}/health")
    assert response.status_code == 200
    assert response.get_data() == (
        b'{"status": "ok", "service": "inference-service", "version": "1.0.0"}'
    )
    assert (SERVICE, VERSION) == ("inference-service", "1.0.0")
    assert response.content_type == "application/json"


@pytest.mark.parametrize(
    ("workers", "draining", "status", "reasons"),
    [(0, False, 503, ["no_workers"]), (1, False, 200, []), (1, True, 503, ["draining"])],
)
def test_readiness_needs_a_worker_and_no_drain(
    client, broker, redis, workers, draining, status, reasons
):
    broker.draining = draining
    redis.sadd(keys.RQ_WORKERS, "rq:worker:gone", *["rq:worker:w1"] * workers)
    redis.set(keys.lease("w1"), 1)
    response = client.get(f"{BASE}/health/ready")
    assert response.status_code == status
    assert response.get_json() == {
        "status": "ok" if status == 200 else "unavailable",
        "reasons": reasons,
        "redis": "ok",
        "workers": workers,
        "draining": draining,
        "calls_waiting": 0,
        "longest_wait_seconds": 0.0,
        "redis_memory_share": 0.0,
        "records_waiting": 0,
        "records_lag_seconds": 0.0,
    }


def test_a_ledger_that_is_behind_is_degraded_and_calls_are_answered(client, redis):
    redis.sadd(keys.RQ_WORKERS, "rq:worker:w1")
    redis.set(keys.lease("w1"), 1)
    redis.xadd(keys.RECORDS, {"r": b"{}"}, id=f"{(redis.time()[0] - 60) * 1000}-0")
    response = client.get(f"{BASE}/health/ready")
    assert (response.status_code, response.get_json()["status"]) == (200, "degraded")
    assert response.get_json()["reasons"] == ["records_backlog"]
    assert response.get_json()["records_waiting"] == 1
    assert 60 <= response.get_json()["records_lag_seconds"] < 300


def test_calls_that_wait_for_long_are_a_reason_to_look(client, redis):
    redis.sadd(keys.RQ_WORKERS, "rq:worker:w1")
    redis.set(keys.lease("w1"), 1)
    now_ms = redis.time()[0] * 1000
    for number, seconds in enumerate((1, 90, 5)):
        redis.rpush(keys.RQ_QUEUE, f"call{number}")
        redis.hset(keys.job(f"call{number}"), "queued_ms", now_ms - seconds * 1000)
    response = client.get(f"{BASE}/health/ready")
    facts = response.get_json()
    assert (response.status_code, facts["status"]) == (200, "degraded")
    assert (facts["reasons"], facts["calls_waiting"]) == (["queue_backlog"], 3)
    assert 90 <= facts["longest_wait_seconds"] < 330


@pytest.mark.parametrize(("share", "reason"), [(0.45, "redis_memory_logs"), (0.8, "redis_memory")])
def test_a_redis_that_is_nearly_full_is_a_reason_to_look(client, redis, share, reason):
    redis.sadd(keys.RQ_WORKERS, "rq:worker:w1")
    redis.set(keys.lease("w1"), 1)
    redis.set("ballast", b"x" * 20_000_000)  # beside it, the buffers of a connection are nothing
    redis.config_set("maxmemory", int(redis.info("memory")["used_memory"] / share))
    facts = client.get(f"{BASE}/health/ready").get_json()
    assert (facts["status"], facts["reasons"]) == ("degraded", [reason])
    assert share - 0.05 <= facts["redis_memory_share"] < share + 0.1


@pytest.mark.parametrize("public_url", ["", "https://inference.example.com/"])
def test_links_begin_with_the_public_url_and_not_with_the_host_header(
    make_client, settings, broker, auth, public_url
):
    client = make_client(dataclasses.replace(settings, public_url=public_url), broker)
    headers = {**auth, "Prefer": "respond-async", "Host": "evil.example"}
    body = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
    response = client.post(f"{BASE}/chat/completions", json=body, headers=headers)
    data = response.get_json()["data"]
    path = f"{BASE}/generations/{data['id']}"
    assert response.status_code == 202
    assert response.headers["Location"] == data["location"] == public_url.rstrip("/") + path


def test_without_redis_the_service_lives_and_is_not_ready(make_client, settings, broker, tmp_path):
    absent = dataclasses.replace(settings, redis_url=f"unix://{tmp_path}/absent.sock")
    client = make_client(absent, broker)
    assert client.get(f"{BASE}/health").status_code == 200
    ready = client.get(f"{BASE}/health/ready")
    assert (ready.status_code, ready.get_json()["redis"]) == (503, "unavailable")
    assert ready.get_json()["reasons"] == ["redis_away"]
    broker.redis.close()


def test_the_list_of_models_is_openai_s(client, auth):
    listed = client.get(f"{BASE}/models", headers=auth).get_json()
    assert listed["object"] == "list"
    rows = {row["id"]: row for row in listed["data"]}
    assert {"openai/gpt-4o", "anthropic/claude-sonnet-4-5", "demo/echo"} <= rows.keys()
    assert not any("*" in name for name in rows)
    parameters = rows["openai/gpt-4o-mini"].pop("supported_parameters")
    assert {"max_tokens", "temperature", "tools", "seed"} <= set(parameters)
    assert not {"model", "messages", "stream", "top_k"} & set(parameters)
    assert rows["openai/gpt-4o-mini"] == {
        "id": "openai/gpt-4o-mini",
        "object": "model",
        "created": 0,
        "owned_by": "openai",
        "available": True,
        "kind": "chat",
        "context_length": 128_000,
        "max_output_tokens": 16_384,
        "shutdown_date": "2027-01-14",
        "successor": "openai/gpt-6-luna",
        "pricing": {
            "prompt": "0.00000015",
            "completion": "0.0000006",
            "input_cache_read": "0.000000075",
        },
    }


@pytest.mark.parametrize(
    ("model", "available"), [("demo/echo", True), ("groq/any/model:free", False)]
)
def test_one_model_is_told_alike(client, auth, model, available):
    shown = client.get(f"{BASE}/models/{model}", headers=auth).get_json()
    assert ("supported_parameters" in shown) is (model != "demo/echo")  # which reads none
    shown.pop("supported_parameters", None)
    assert shown == {
        "id": model,
        "object": "model",
        "created": 0,
        "owned_by": model.partition("/")[0],
        "available": available,
        "kind": "chat",
    }


@pytest.mark.parametrize("model", ["nobody/x", "gpt-9", "groq/*", "groq/"])
def test_an_unknown_model_is_not_told(client, auth, model):
    response = client.get(f"{BASE}/models/{model}", headers=auth)
    assert response.status_code == 404
    assert response.get_json()["error"]["code"] == "model_not_found"


def test_a_bare_name_shows_the_model_under_its_full_id(client, auth):
    response = client.get(f"{BASE}/models/gpt-4o", headers=auth)
    assert response.get_json()["id"] == "openai/gpt-4o"


# Whole answers


def test_a_bare_model_name_is_the_same_call(ask, broker):
    response = ask(model="gpt-4o-mini")
    assert (response.status_code, response.get_json()["model"]) == (200, "gpt-4o-mini")
    (call,) = broker.calls
    assert call.spec.targets == (Target("openai/gpt-4o-mini", "openai", "gpt-4o-mini"),)


def test_a_whole_answer_has_openai_s_shape(ask, broker):
    response = ask(temperature=0.5)
    value = response.get_json()
    assert (response.status_code, response.content_type) == (200, "application/json")
    assert list(value) == ["id", "object", "created", "model", "choices", "usage"]
    (call,) = broker.calls
    assert value["id"] == f"chatcmpl-{call.spec.call_id}"
    assert (value["object"], type(value["created"])) == ("chat.completion", int)
    assert value["model"] == "gpt-4o-mini"
    assert (value["choices"], value["usage"]) == ([CHOICE], USAGE)
    assert broker.left == [call.spec.call_id]
    assert "X-Ignored-Parameters" not in response.headers


def test_the_exchange_gets_plan_body_and_key(ask, broker, key):
    ask(max_tokens=5, user="zoë")
    (call,) = broker.calls
    assert call.spec.web == broker.web
    assert call.spec.targets == (Target("openai/gpt-4o-mini", "openai", "gpt-4o-mini"),)
    assert not call.spec.stream
    assert call.body == {"messages": BODY["messages"], "max_tokens": 5, "user": "zoë"}
    assert call.admission.public_id == key[13:25]
    assert call.budget == 600


def test_every_call_has_an_id_of_its_own(ask):
    assert ask().get_json()["id"] != ask().get_json()["id"]


def test_parameters_that_the_model_does_not_take_are_named(ask, broker):
    response = ask(model="anthropic/claude-sonnet-4-5", temperature=1.7, seed=1, magic=2)
    # The worker makes them fit, for the model that it asks.
    assert broker.calls[0].body == {"messages": BODY["messages"], "temperature": 1.7, "seed": 1}
    assert response.headers["X-Ignored-Parameters"] == "magic, seed"


def test_what_a_provider_takes_beyond_openai_s_parameters_is_sent(make_client, settings, auth):
    fake = FakeBroker()
    configured = dataclasses.replace(settings, variables={"TOGETHER_API_KEY": "k"})
    body = {**BODY, "model": "together/meta/llama", "top_k": 4, "safe_prompt": True}
    response = make_client(configured, fake).post(CHAT, json=body, headers=auth)
    assert fake.calls[0].body["top_k"] == 4
    assert response.headers["X-Ignored-Parameters"] == "safe_prompt"
    assert response.get_json()["model"] == "meta/llama"


@pytest.mark.parametrize("stream", [False, True])
def test_unknown_fields_are_named_and_odd_names_left_out(ask, stream):
    odd = ["a b", "a\r\nSet-Cookie: c", "é", "x" * 65, "", "a,b"]
    response = ask(stream=stream, top_k=1, **dict.fromkeys(odd, 1), **{"x.y-z_1": None})
    assert response.status_code == 200
    assert response.headers["X-Ignored-Parameters"] == "top_k, x.y-z_1"


def test_at_most_twenty_unknown_fields_are_named(ask):
    told = ask(**{f"field{number}": 1 for number in range(50)}).headers["X-Ignored-Parameters"]
    assert told.split(", ") == [f"field{number}" for number in range(20)]


@pytest.mark.parametrize(("configured", "first"), [(20.0, 20.0), (0.0, None), (3.5, 3.5)])
def test_an_answer_in_time_is_waited_for_as_configured(ask_scripted, configured, first):
    _, fake = ask_scripted(ANSWER, sync_heartbeat=configured)
    assert fake.calls[0].pending.waited == [first]


@pytest.mark.parametrize("silences", [1, 2, 5])
def test_a_slow_answer_begins_with_blanks(ask_scripted, silences):
    response, fake = ask_scripted(*[SILENCE] * silences, ANSWER)
    text = response.get_data()
    assert text.startswith(b" " * silences + b"{")
    assert json.loads(text)["choices"] == [CHOICE]
    assert (response.status_code, response.content_type) == (200, "application/json")
    assert len(set(fake.left)) == 1


def test_a_failure_after_blanks_is_an_error_object(ask_scripted):
    response, fake = ask_scripted(SILENCE, errors.WorkerLost())
    assert response.status_code == 200
    assert json.loads(response.get_data()) == envelope(errors.WorkerLost(), response)
    assert len(set(fake.left)) == 1


# Streams


def test_a_stream_is_frames_of_chunks_and_the_end_marker(ask, broker):
    response = ask(stream=True)
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["X-Accel-Buffering"] == "no"
    *chunks, last = events(response)
    assert last == "[DONE]"
    values = [json.loads(chunk) for chunk in chunks]
    assert len(values) == 3
    (call,) = broker.calls
    identity = (f"chatcmpl-{call.spec.call_id}", values[0]["created"], "gpt-4o-mini")
    assert {(value["id"], value["created"], value["model"]) for value in values} == {identity}
    assert {value["object"] for value in values} == {"chat.completion.chunk"}
    text = "".join(value["choices"][0]["delta"].get("content", "") for value in values)
    assert text == "Hello!"
    assert values[-1]["choices"][0]["finish_reason"] == "stop"
    assert "usage" not in response.get_data(as_text=True)
    assert broker.left == [call.spec.call_id]


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": None}])
def test_usage_is_streamed_only_where_it_was_asked_for(ask, options):
    assert "usage" not in ask(stream=True, stream_options=options).get_data(as_text=True)


@pytest.mark.parametrize("stream", [True, False])
def test_the_worker_is_asked_for_the_cost_if_the_request_is_to_include_it(ask, broker, stream):
    ask(stream=stream)
    ask(stream=stream, usage={"include": True})
    assert [call.spec.cost for call in broker.calls] == [False, True]


def test_a_stream_that_is_to_include_the_cost_ends_with_the_usage(ask):
    *_, last, _ = events(ask(stream=True, usage={"include": True}))
    assert json.loads(last)["usage"] == USAGE


def test_usage_is_null_on_every_chunk_but_an_extra_one(ask):
    *chunks, _ = events(ask(stream=True, stream_options={"include_usage": True}))
    values = [json.loads(chunk) for chunk in chunks]
    assert [value["usage"] for value in values] == [None, None, None, USAGE]
    assert values[-1]["choices"] == []


def test_silence_is_filled_with_comments(ask_scripted):
    response, fake = ask_scripted(SILENCE, SILENCE, *STREAM[:2], SILENCE, *STREAM[2:], stream=True)
    text = response.get_data(as_text=True)
    assert text.startswith(": keep-alive\n\n: keep-alive\n\ndata: ")
    assert text.count(": keep-alive\n\n") == 3
    assert len(events(response)) == 4
    first, *later = fake.calls[0].pending.waited
    assert first == 5
    assert set(later) == {15}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        errors.UpstreamThrottled("Slow down.", retry_after=2.2),
        errors.UpstreamRejected("Too long.", param="messages", code="context_length_exceeded"),
        errors.DeadlineExceeded(),
        errors.WorkerLost(),
        errors.NoWorkers(retry_after=5),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_before_the_first_event_keeps_its_status(ask_scripted, stream, error):
    response, fake = ask_scripted(error, stream=stream)
    assert (response.status_code, response.content_type) == (error.status, "application/json")
    assert response.get_json() == envelope(error, response)
    assert len(set(fake.left)) == 1


def test_an_error_after_the_first_event_is_an_event_before_the_end_marker(ask_scripted):
    response, fake = ask_scripted(part("Hel"), errors.UpstreamTruncated(), stream=True)
    assert response.status_code == 200
    first, failure, last = events(response)
    assert json.loads(first)["choices"][0]["delta"]["content"] == "Hel"
    assert json.loads(failure) == envelope(errors.UpstreamTruncated(), response)
    assert last == "[DONE]"
    assert len(set(fake.left)) == 1


def test_an_error_after_a_comment_is_an_event_too(ask_scripted):
    response, _ = ask_scripted(SILENCE, errors.UpstreamTimeout(), stream=True)
    assert response.status_code == 200
    assert json.loads(events(response)[0]) == envelope(errors.UpstreamTimeout(), response)


def test_a_stream_that_nobody_reads_on_is_left(make_client, settings, auth):
    fake = FakeBroker(part("a"), part("b"), SILENCE)
    body = {**BODY, "stream": True}
    response = make_client(settings, fake).post(CHAT, json=body, headers=auth, buffered=False)
    assert next(iter(response.response)).startswith(b"data: ")
    response.close()
    assert fake.left == [fake.calls[0].spec.call_id]


# Headers


@pytest.mark.parametrize("given", ["abc", "A-b_9", "x" * 64])
def test_a_given_request_id_is_kept(ask, client, given):
    assert ask({"X-Request-Id": given}).headers["X-Request-Id"] == given
    assert client.get("/nothing", headers={"X-Request-Id": given}).headers["X-Request-Id"] == given


def test_a_request_without_an_id_gets_one(client):
    ids = {client.get(f"{BASE}/health").headers["X-Request-Id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


@pytest.mark.parametrize(
    ("headers", "whole", "streamed"),
    [
        ({}, 600, 600),
        ({"X-Request-Timeout": "30"}, 30, 30),
        ({"X-Request-Timeout": "2.5"}, 2.5, 2.5),
        ({"X-Request-Timeout": "10000"}, 600, 600),
        ({"x-stainless-read-timeout": "45"}, 45, 600),
        ({"X-Request-Timeout": "30", "x-stainless-read-timeout": "45"}, 30, 30),
        ({"X-Request-Timeout": "soon", "x-stainless-read-timeout": "45"}, 45, 600),
        *[({"X-Request-Timeout": odd}, 600, 600) for odd in ("", "0", "-1", "nan", "inf", "x")],
    ],
)
def test_a_client_may_lower_the_deadline(ask, broker, headers, whole, streamed):
    ask(headers)
    ask(headers, stream=True).get_data()
    assert [call.budget for call in broker.calls] == [whole, streamed]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "retry_after", "should_retry"),
    [
        (errors.Overloaded(retry_after=5), "5", "true"),
        (errors.ShuttingDown(retry_after=0), "1", "true"),
        (errors.QueueUnavailable(retry_after=1.2), "2", "true"),
        (errors.UpstreamThrottled(retry_after=10_000), "120", None),
        (errors.JobLost(), None, "false"),
        (errors.AuthenticationFailed(), None, "false"),
    ],
)
def test_a_refusal_tells_whether_and_when_to_retry(
    ask, broker, stream, error, retry_after, should_retry
):
    broker.refusal = error
    response = ask(stream=stream)
    assert response.status_code == error.status
    assert response.headers.get("Retry-After") == retry_after
    assert response.headers.get("x-should-retry") == should_retry
    assert error.__traceback__ is None  # it would hold the whole request until a collection


def test_an_error_of_the_worker_tells_it_too(ask_scripted):
    response, _ = ask_scripted(errors.UpstreamOverloaded(retry_after=7, should_retry=True))
    assert response.headers["Retry-After"] == "7"
    assert response.headers["x-should-retry"] == "true"


def test_a_client_that_should_not_retry_is_not_told_when_to(ask_scripted):
    response, _ = ask_scripted(errors.UpstreamThrottled(retry_after=7, should_retry=False))
    assert "Retry-After" not in response.headers
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("path", [CHAT, f"{BASE}/health", "/nothing"])
def test_cors_is_off_unless_configured(client, path):
    for method in ("GET", "OPTIONS"):
        asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
        headers = client.open(path, method=method, headers=asked).headers
        assert [name for name, _ in headers if name.startswith("Access-Control")] == []
        assert "Vary" not in headers


@pytest.fixture
def browser(make_client, settings):
    return make_client(dataclasses.replace(settings, cors_allow_origins=(ORIGIN,)))


@pytest.mark.parametrize("path", [f"{BASE}/health", f"{BASE}/models", "/nothing"])
def test_an_allowed_origin_may_read_answers_and_errors(browser, path):
    headers = browser.get(path, headers={"Origin": ORIGIN}).headers
    assert headers["Access-Control-Allow-Origin"] == ORIGIN
    assert headers["Vary"] == "Origin"
    exposed = headers["Access-Control-Expose-Headers"].split(", ")
    assert {"X-Request-Id", "Retry-After", "x-should-retry", "x-limit-name"} <= set(exposed)
    assert "Access-Control-Allow-Credentials" not in headers


@pytest.mark.parametrize("origin", ["https://other.example", "null", f"{ORIGIN}.evil.example", ""])
def test_another_origin_may_not(browser, origin):
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for response in (
        browser.get(f"{BASE}/health", headers=asked),
        browser.options(CHAT, headers=asked),
    ):
        assert "Access-Control-Allow-Origin" not in response.headers
        assert response.headers["Vary"] == "Origin"  # a cache must not give it to the allowed one


def test_a_preflight_needs_no_key_and_allows_what_is_asked_for(browser):
    wanted = "authorization, content-type, x-stainless-lang"
    asked = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": f"{wanted}, bad name?",
    }
    response = browser.options(CHAT, headers=asked)
    assert (response.status_code, response.get_data()) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "POST" in response.headers["Access-Control-Allow-Methods"]
    assert response.headers["Access-Control-Allow-Headers"].startswith(wanted)
    assert "?" not in response.headers["Access-Control-Allow-Headers"]


def test_a_star_allows_any_origin(make_client, settings):
    browser = make_client(dataclasses.replace(settings, cors_allow_origins=("*",)))
    headers = browser.get(f"{BASE}/health", headers={"Origin": "null"}).headers
    assert headers["Access-Control-Allow-Origin"] == "null"


# Errors


def test_a_provider_without_key_is_503_and_names_the_variable(ask, broker):
    response = ask(model="groq/llama")
    error = response.get_json()["error"]
    assert (response.status_code, error["code"]) == (503, "provider_not_configured")
    assert "GROQ_API_KEY" in error["message"]
    assert response.headers["x-should-retry"] == "false"
    assert broker.calls == []


def test_without_redis_a_call_is_503_and_may_be_repeated(make_client, settings, auth, tmp_path):
    absent = dataclasses.replace(settings, redis_url=f"unix://{tmp_path}/absent.sock")
    response = make_client(absent).post(CHAT, json=BODY, headers=auth)
    assert response.status_code == 503
    assert response.get_json()["error"]["code"] == "queue_unavailable"
    assert response.headers["x-should-retry"] == "true"
    assert response.headers["Retry-After"] == "2"


@pytest.mark.parametrize("stream", [False, True])
def test_an_unforeseen_fault_is_500_and_the_log_says_nothing_of_the_request(
    ask, broker, caplog, stream
):
    broker.refusal = RuntimeError("the prompt was: my secret prompt")
    with caplog.at_level(logging.DEBUG):
        response = ask(stream=stream, messages=[{"role": "user", "content": "my secret prompt"}])
    assert response.status_code == 500
    assert response.get_json() == envelope(errors.GatewayError(), response)
    assert response.headers["X-Request-Id"]
    assert "secret" not in response.get_data(as_text=True) + caplog.text
    assert re.search(
        r"POST /inference/v1/chat/completions: RuntimeError at \w+\.py:\d+", caplog.text
    )


def test_the_list_of_models_may_end_in_a_slash(client, auth):
    assert client.get(f"{BASE}/models/", headers=auth).status_code == 200


@pytest.mark.parametrize("path", ["/", "/inference", "/inference/v1"])
def test_clients_may_ask_whether_the_service_is_there(client, path):
    assert client.head(path).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_begun_while_no_worker_lives(ask_scripted, stream):
    no_workers = errors.NoWorkers(retry_after=5)
    fake = FakeBroker(SILENCE, SILENCE, SILENCE, no_workers)
    fake.workers = iter([False] * 3)
    response, fake = ask_scripted(stream=stream, fake=fake)
    assert response.status_code == 503
    assert response.get_json()["error"]["code"] == "no_workers"
    assert response.headers["Retry-After"] == "5"


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_begins_once_a_worker_lives(ask_scripted, stream):
    fake = FakeBroker(SILENCE, SILENCE, errors.WorkerLost())
    fake.workers = iter([False, True])
    response, fake = ask_scripted(stream=stream, fake=fake)
    assert response.status_code == 200
    assert "worker_lost" in response.get_data(as_text=True)


class Weighing(FakeBroker):
    """A broker that notes how many bytes Python holds while a call waits."""

    held = 0

    def submit(self, spec, body, key, budget, logged_request):
        self.pending = ScriptedCall(spec.call_id, budget, self._steps(spec.kind))
        return self.pending

    def _steps(self, kind):
        self.pending.accepted()
        self.held = tracemalloc.get_traced_memory()[0]
        yield Outcome(answer=b'{"data":[]}') if kind == "embeddings" else ANSWER


TEXT = "x" * 10_000_000
MESSAGES = [{"role": "user", "content": TEXT}]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("chat/completions", {"messages": MESSAGES}),
        ("messages", {"messages": MESSAGES, "max_tokens": 5}),
        ("responses", {"input": TEXT}),
        ("embeddings", {"input": TEXT, "model": "openai/text-embedding-3-small"}),
    ],
)
def test_a_large_request_is_not_held_while_its_call_waits(
    make_client, settings, auth, path, fields
):
    broker = Weighing()
    body = orjson.dumps({"model": "openai/gpt-4o-mini", **fields})
    client = make_client(settings, broker)
    tracemalloc.start()
    try:
        response = client.post(
            f"{BASE}/{path}", data=body, content_type="application/json", headers=auth
        )
    finally:
        tracemalloc.stop()
    assert response.status_code == 200, response.text
    # The first request of a process makes caches and imports as well.
    assert 0 < broker.held < len(TEXT) / 2
