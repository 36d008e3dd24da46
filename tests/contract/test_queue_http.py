"""/queue and /workers, and the same with `flask queue` and `flask workers`."""

from __future__ import annotations

import re

import orjson
import pytest

from app import PREFIX, create_app
from gateway.account.api_keys import KeyStore
from gateway.queue import keys, steering
from gateway.queue.lease import LeaseState
from gateway.settings import Settings
from tests.contract.test_openapi import check, described  # noqa: F401
from tests.support.admission import KEY, Calls

TEMPLATES = ((r"^/queue/\w+/(move|cancel)$", r"/queue/{call_id}/\1"),
             (r"^/workers/[\w-]+/drain$", "/workers/{name}/drain"))  # fmt: skip


@pytest.fixture(scope="module")
def app():
    return create_app(Settings(key_pepper="p" * 40, demo_models=True))


@pytest.fixture
def calls(redis, settings):
    calls = Calls(redis, settings)
    calls.key()
    return calls


@pytest.fixture
def store(redis, settings):
    return KeyStore(redis, settings.key_pepper)


@pytest.fixture
def operator(store):
    return store.create("boss", operator=True)


@pytest.fixture
def api(client, operator, described):  # noqa: F811
    """A function that sends a request of the operator, checks its response, and returns it."""

    def send(method, path, body=None):
        response = client.open(
            PREFIX + path,
            method=method,
            data=None if body is None else orjson.dumps(body),
            content_type="application/json" if body is not None else None,
            headers={"Authorization": f"Bearer {operator}"},
        )
        template = path.partition("?")[0]
        for pattern, name in TEMPLATES:
            template = re.sub(pattern, name, template)
        check(described, method.lower(), template, response)
        return response

    return send


@pytest.fixture
def run(client):
    runner = client.application.test_cli_runner()

    def run(*words):
        result = runner.invoke(args=words)
        assert result.exit_code == 0, result.output
        return result.output

    return run


@pytest.fixture
def worker(redis):
    """The name of a worker that has just renewed its records."""
    name = "worker-1"
    redis.sadd(keys.RQ_WORKERS, keys.rq_worker(name))
    redis.set(keys.lease(name), LeaseState(10, 5).encode())
    facts = {"slots": 10, "running": 3, "release": "1.0.0", "hostname": "here", "pid": 7}
    facts |= {"birth": "2026-11-27T00:00:00.000000Z", "drains": 0}
    redis.hset(keys.rq_worker(name), mapping=facts)
    return name


def error(response):
    problem = response.get_json()["error"]
    return response.status_code, problem["code"]


def audit(redis):
    entries = [orjson.loads(fields[b"entry"]) for _, fields in redis.xrange(keys.AUDIT)]
    return [(each["action"], each["target"]) for each in entries if "queue" in each["action"]
            or "worker" in each["action"]]  # fmt: skip


def test_the_queue_says_who_waits_and_why(api, calls):
    calls.key(max_in_flight=1, owner="team")
    account = {"priority": "standard", "model": "echo", "request_id": "mine"}
    first = calls.submit(account=account, owner="team")
    second = calls.submit(owner="team")
    scheduled = calls.submit(owner="team", delay=60, seconds=660)  # the later deadline
    body = api("GET", "/queue").get_json()
    assert [(call["id"], call["reason"], call["position"]) for call in body["data"]] == [
        (first, "in_line", 1),
        (second, "limit", 1),
        (scheduled, "scheduled", None),
    ]
    shown = body["data"][0]
    assert (shown["api_key_id"], shown["owner"], shown["model"]) == (KEY, "team", "demo/echo")
    assert (shown["priority"], shown["request_id"]) == ("standard", "mine")
    assert (shown["waiting_since"], shown["deadline_at"]) == (
        "2026-01-05T00:00:00Z",
        "2026-01-05T00:10:00Z",
    )
    assert body["data"][2]["starts_at"] == "2026-01-05T00:01:00Z"
    assert body["counts"] == {"in_line": 1, "limit": 1, "paused": 0, "scheduled": 1}
    assert (body["has_more"], body["pauses"]) == (False, [])


def test_pages_and_filters(api, calls):
    ids = [calls.submit() for _ in range(3)]
    first = api("GET", "/queue?limit=2").get_json()
    assert ([call["id"] for call in first["data"]], first["has_more"]) == (ids[:2], True)
    rest = api("GET", f"/queue?limit=2&after={first['data'][-1]['cursor']}").get_json()
    assert ([call["id"] for call in rest["data"]], rest["has_more"]) == (ids[2:], False)
    for query, count in (
        (f"api_key_id={KEY}", 3), ("api_key_id=another", 0), ("model=echo", 3),
        ("model=demo/slow", 0), ("reason=in_line", 3), ("reason=paused", 0),
    ):  # fmt: skip
        assert len(api("GET", f"/queue?{query}").get_json()["data"]) == count, query


@pytest.mark.parametrize(
    "query",
    ["after=x", "after=q:1e999x:a", "after=q:1.2.3:a", "reason=bored", "limit=501", "page=1"],
)
def test_a_wrong_query_is_refused(api, query):
    assert api("GET", f"/queue?{query}").status_code == 400


def test_a_call_is_moved_and_cancelled(api, calls):
    first, second = calls.submit(), calls.submit()
    assert api("POST", f"/queue/{second}/move").get_json() == {"moved": True}
    assert [call["id"] for call in api("GET", "/queue").get_json()["data"]] == [second, first]
    assert api("POST", f"/queue/{second}/cancel").get_json() == {"cancelled": True}
    assert error(api("POST", f"/queue/{second}/cancel")) == (404, "call_not_found")
    assert error(api("POST", f"/queue/{second}/move")) == (409, "call_not_in_line")
    assert error(api("POST", "/queue/nobody/move")) == (404, "call_not_found")
    assert audit(calls.redis) == [("queue.moved", second), ("queue.cancelled", second)]


@pytest.mark.parametrize("act", ["move", "cancel"])
def test_jobs_of_other_applications_on_the_redis_are_left_alone(api, redis, act):
    redis.hset(keys.job("theirs"), mapping={"status": "queued", "origin": "another"})
    assert error(api("POST", f"/queue/theirs/{act}")) == (404, "call_not_found")
    assert redis.hget(keys.job("theirs"), "status") == b"queued"


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"key": KEY}, f"key:{KEY}"),
        ({"model": "echo"}, "model:demo/echo"),  # as a request may name it
        ({"provider": "demo"}, "provider:demo"),
    ],
)
def test_a_key_a_model_or_a_provider_is_paused_and_resumed(api, calls, body, name, operator):
    shown = api("POST", "/queue/pause", body).get_json()["data"]
    assert (shown["pause"], shown["by"], shown["held"]) == (name, operator[13:25], 0)
    assert api("POST", "/queue/pause", body).get_json()["data"] == shown
    calls.submit()
    assert calls.claim() == []
    (call,) = api("GET", "/queue").get_json()["data"]
    assert (call["reason"], call["pause"]) == ("paused", name)
    assert api("GET", "/queue").get_json()["pauses"] == [{**shown, "held": 1}]
    assert error(api("POST", f"/queue/{call['id']}/move")) == (409, "call_not_in_line")
    assert api("POST", "/queue/resume", body).get_json() == {"resumed": True}
    assert api("POST", "/queue/resume", body).get_json() == {"resumed": False}
    assert audit(calls.redis) == [("queue.paused", name), ("queue.resumed", name)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (400, "invalid_value")),
        ({"key": KEY, "model": "echo"}, (400, "invalid_value")),
        ({"queue": "all"}, (400, "unknown_parameter")),
        ({"key": "nobody"}, (404, "key_not_found")),
        ({"model": "nothing"}, (404, "model_not_found")),
        ({"provider": "nobody"}, (404, "provider_not_found")),
    ],
)
def test_what_cannot_be_paused_is_refused(api, redis, body, expected):
    assert error(api("POST", "/queue/pause", body)) == expected
    assert not redis.exists(keys.PAUSED)


def test_what_the_catalogue_has_no_more_can_be_resumed(api, redis):
    steering.pause(redis, "model:gone", 1, "boss", {})
    assert api("POST", "/queue/resume", {"model": "gone"}).get_json() == {"resumed": True}


def test_a_worker_is_drained_and_takes_calls_again(api, redis, worker):
    (shown,) = api("GET", "/workers").get_json()["data"]
    assert shown == {
        "name": worker,
        "slots": 10,
        "running": 3,
        "release": "1.0.0",
        "host": "here",
        "pid": 7,
        "started_at": "2026-11-27T00:00:00.000000Z",
        "draining": False,
        "drained": False,
    }
    assert api("POST", f"/workers/{worker}/drain").get_json() == {"draining": True}
    assert api("GET", "/workers").get_json()["data"][0]["draining"] is True
    redis.hset(keys.rq_worker(worker), mapping={"running": 0, "drains": 1})
    assert api("GET", "/workers").get_json()["data"][0]["drained"] is True
    assert api("DELETE", f"/workers/{worker}/drain").get_json() == {"draining": False}
    assert api("GET", "/workers").get_json()["data"][0]["drained"] is False
    assert error(api("POST", "/workers/nobody/drain")) == (404, "worker_not_found")
    assert audit(redis) == [("worker.drained", worker), ("worker.undrained", worker)]


def test_the_commands_do_the_same(run, calls, redis, worker):
    first, second = calls.submit(), calls.submit()
    assert run("queue", "move", second) == f"moved {second}\n"
    lines = run("queue", "list").splitlines()
    assert [line.split()[:3] for line in lines[:2]] == [
        ["1", "in_line", second],
        ["2", "in_line", first],
    ]
    assert lines[-1] == "in_line 2  limit 0  paused 0  scheduled 0"
    assert run("queue", "list", "--limit", "1").splitlines()[1] == "Only the first 1 are shown."
    assert run("queue", "cancel", second) == f"cancelled {second}\n"
    assert run("queue", "pause", "model", "echo") == "paused model:demo/echo\n"
    calls.claim()
    lines = run("queue", "list", "--reason", "paused", "--model", "echo").splitlines()
    assert lines[0].split()[:4] == ["-", "paused", "model:demo/echo", first]
    assert lines[1] == "model:demo/echo is paused by command line; calls held: 1"
    assert run("queue", "resume", "model", "echo") == "resumed model:demo/echo\n"
    assert run("workers", "drain", worker) == f"draining {worker}\n"
    assert "3 of 10 calls  1.0.0  here:7  draining" in run("workers", "list")
    run("workers", "undrain", worker)
    assert run("workers", "list").endswith("taking calls\n")
    assert [action for action, _ in audit(redis)] == [
        *("queue.moved", "queue.cancelled", "queue.paused", "queue.resumed"),
        *("worker.drained", "worker.undrained"),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("queue", "move", "nobody"), "No call with this id waits or runs."),
        (("queue", "pause", "key", "nobody"), "There is no such API key."),
        (("queue", "resume", "provider", "demo"), "provider:demo is not paused"),
        (("workers", "drain", "nobody"), "There is no such worker."),
    ],
)
def test_a_command_that_cannot_be_done_says_why(client, words, message):
    result = client.application.test_cli_runner().invoke(args=words)
    assert (result.exit_code, result.output) == (1, f"Error: {message}\n")
