"""The queue under load, as operators steer it; scheduled calls; the order in which calls start."""

from __future__ import annotations

import queue
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from gateway.catalogue.target import Target
from gateway.queue import commands, keys, scripts
from gateway.queue.protocol import AdmissionRequest, CallSpec
from gateway.settings import Settings
from tests.support.stack import PATIENCE_SECONDS, Stack, until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("queue")]

SLOTS = 4
FLOOD = 1_000
FLOODING_WEB = "web-flood"  # whose calls nobody waits for


@pytest.fixture(scope="module")
def steered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    env = {"WORKER_CONCURRENCY": str(SLOTS)}
    with Stack(tmp_path_factory.mktemp("steered"), env=env) as stack:
        yield stack


@pytest.fixture
def steer(steered: Stack) -> Callable[..., Any]:
    """A function that sends a request of an operator and returns the response's JSON."""
    steered.upstream.clear()
    key = steered.keys.create("boss", operator=True)

    def send(method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {key}"}
        response = requests.request(
            method, steered.url + path, json=body, headers=headers, timeout=PATIENCE_SECONDS
        )
        response.raise_for_status()
        return response.json()

    return send


def texts(stack: Stack) -> list[str]:
    """What the provider was asked, in the order in which calls started."""
    return [call["body"]["messages"][-1]["content"] for call in stack.upstream.log()]


def responses(results: list[queue.Queue[Any]]) -> list[requests.Response]:
    return [result.get(timeout=PATIENCE_SECONDS) for result in results]


def contents(results: list[queue.Queue[Any]]) -> list[str]:
    found = responses(results)
    assert all(response.status_code == 200 for response in found), [r.text for r in found]
    return [response.json()["choices"][0]["message"]["content"] for response in found]


def ended(stack: Stack, accepted: requests.Response) -> dict[str, Any]:
    """The record of a call that goes on without its client; empty until it has ended."""
    url = f"{stack.url}/generations/{accepted.json()['data']['id']}"
    data = requests.get(url, headers=stack.headers(), timeout=PATIENCE_SECONDS).json()["data"]
    return data if data["status"] in ("completed", "failed") else {}


def test_a_paused_model_waits_under_load_and_others_go_on(
    steered: Stack, steer: Callable[..., Any]
) -> None:
    paused, other = "fake/delay-1", "fake/delay-2"
    steer("POST", "/queue/pause", {"model": paused})
    waiting = [steered.in_background(paused, f"paused {n}") for n in range(12)]
    going = [steered.in_background(other, f"other {n}") for n in range(12)]
    assert sorted(contents(going)) == sorted(f"other {n}" for n in range(12))
    until(lambda: steer("GET", "/queue")["counts"]["paused"] == 12, what="12 paused calls")
    page = steer("GET", "/queue?reason=paused")
    assert {call["pause"] for call in page["data"]} == {f"model:{paused}"}
    assert not any(text.startswith("paused") for text in texts(steered))
    steer("POST", "/queue/resume", {"model": paused})
    assert sorted(contents(waiting)) == sorted(f"paused {n}" for n in range(12))
    asked = texts(steered)
    assert len(asked) == len(set(asked)) == 24


def test_a_worker_drained_while_busy_loses_nothing(
    steered: Stack, steer: Callable[..., Any]
) -> None:
    running = [steered.in_background("fake/delay-1000", f"running {n}") for n in range(SLOTS)]
    steered.until_called(SLOTS)
    (busy,) = steer("GET", "/workers")["data"]
    steer("POST", f"/workers/{busy['name']}/drain")

    def worker() -> dict[str, Any]:
        (shown,) = (w for w in steer("GET", "/workers")["data"] if w["name"] == busy["name"])
        return shown  # type: ignore[no-any-return]

    after = [steered.in_background("fake/echo", f"after {n}") for n in range(8)]
    assert sorted(contents(running)) == sorted(f"running {n}" for n in range(SLOTS))
    until(lambda: worker()["drained"], what="a drained worker")
    old = steered.workers[-1]
    steered.start_worker()
    assert sorted(contents(after)) == sorted(f"after {n}" for n in range(8))
    assert worker()["running"] == 0
    old.terminate()
    assert old.wait() == 0
    steered.until_ready()
    asked = texts(steered)
    assert len(asked) == len(set(asked)) == SLOTS + 8


def test_a_scheduled_call_survives_the_restart_of_all_workers(
    steered: Stack, steer: Callable[..., Any]
) -> None:
    began = time.time()
    later = {"X-Not-Before": "3"}
    waiting = steered.in_background("fake/echo", "waiting", headers=later)
    accepted = steered.ask("fake/echo", "left", headers={**later, "Prefer": "respond-async"})
    assert accepted.status_code == 202
    until(lambda: steer("GET", "/queue")["counts"]["scheduled"] == 2, what="two scheduled calls")
    steered.workers[-1].terminate()
    assert steered.workers[-1].wait() == 0
    steered.start_worker()
    assert contents([waiting]) == ["waiting"]
    record = until(lambda: ended(steered, accepted), what="the end of the call that was left")
    assert record["response"]["choices"][0]["message"]["content"] == "left"
    calls = steered.upstream.log()
    assert len(calls) == 2 and all(call["started"] >= began + 3 for call in calls)
    steered.until_ready()


def test_a_call_past_its_deadline_is_never_sent(steered: Stack, steer: Callable[..., Any]) -> None:
    steer("POST", "/queue/pause", {"provider": "fake"})
    soon = {"X-Deadline": "1"}
    left = steered.ask("fake/echo", headers={**soon, "Prefer": "respond-async"})
    response = steered.ask("fake/echo", headers=soon)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")
    record = until(lambda: ended(steered, left), what="the end of the call that was left")
    assert record["status"] == "failed"
    steer("POST", "/queue/resume", {"provider": "fake"})
    assert steered.ask("fake/echo", "another").status_code == 200
    assert texts(steered) == ["another"]


def test_an_operator_cancels_a_waiting_and_a_running_call(
    steered: Stack, steer: Callable[..., Any]
) -> None:
    running = steered.in_background("fake/hang", "running")
    steered.until_called()
    steer("POST", "/queue/pause", {"model": "fake/echo"})
    waiting = steered.in_background("fake/echo", "waiting")
    until(lambda: steer("GET", "/queue")["data"], what="a waiting call")
    (call,) = steer("GET", "/queue")["data"]
    started = steered.redis.zrange(keys.RQ_STARTED, 0, -1)[0].decode().partition(":")[0]
    for call_id in (call["id"], started):
        steer("POST", f"/queue/{call_id}/cancel")
    steer("POST", "/queue/resume", {"model": "fake/echo"})
    for response in responses([running, waiting]):
        assert (response.status_code, response.headers["x-should-retry"]) == (503, "false")
        assert response.json()["error"]["code"] == "cancelled_by_operator"
    assert texts(steered) == ["running"]
    until(lambda: steered.upstream.log()[0]["closed_early"], what="a closed provider call")


def flood(
    stack: Stack, name: str, number: int, model: str, priority: str = "interactive"
) -> list[str]:
    """Queue so many calls of a new key at once, for which no client waits; return their ids."""
    record = stack.keys.get(stack.keys.create(name, priority=priority).split("_")[2])
    assert record is not None
    settings = Settings(redis_url=stack.server.url)
    admission = AdmissionRequest(record.public_id, record.hmac, record.version)
    target = Target(model, "fake", model.partition("/")[2])
    body = b'{"messages":[{"role":"user","content":"%b"}]}' % name.encode()
    stack.redis.set(keys.lease(FLOODING_WEB), "0 0", ex=600)
    call_ids = [uuid.uuid4().hex for _ in range(number)]
    with stack.redis.pipeline(transaction=False) as pipeline:
        for call_id in call_ids:
            spec = CallSpec(call_id, FLOODING_WEB, False, (target,), key=record.public_id)
            pipeline.execute_command(*commands.submit_command(settings, spec, body, admission, 600))
        assert all(reply[0] == b"ok" for reply in pipeline.execute())
    return call_ids


@pytest.mark.parametrize("flooding", ["interactive", "batch"])
def test_a_flood_of_one_key_delays_another_key_by_one_round_of_the_slots(
    steered: Stack, steer: Callable[..., Any], flooding: str
) -> None:
    """Calls of other keys come last, and start as soon as slots are free.

    A batch call lets 64 calls of each other key go first, and starts then.
    """
    for command in scripts.load_commands():
        steered.redis.execute_command(*command)
    busy = flood(steered, "busy", SLOTS, "fake/hang")
    steered.until_called(SLOTS)
    flood(steered, "flood", FLOOD, "fake/delay-1", flooding)
    others = {"interactive": 2 * SLOTS, "standard": 2 * SLOTS + 8, "batch": 2 * SLOTS + 64}
    if flooding == "batch":
        others = dict.fromkeys(others, 2 * SLOTS)
    waiting = []
    for priority in others:
        key = steered.keys.create(priority, priority=priority)
        headers = {"Authorization": f"Bearer {key}"}
        waiting.append(steered.in_background("fake/echo", priority, headers=headers))
    until(
        lambda: steer("GET", "/queue")["counts"]["in_line"] == FLOOD + 3, what="all calls in line"
    )
    assert texts(steered) == ["busy"] * SLOTS
    for call_id in busy:  # the slots are free from here on
        commands.cancel(steered.redis, call_id)
    assert all(response.status_code == 200 for response in responses(waiting))
    order = texts(steered)
    for priority, latest in others.items():
        assert order.index(priority) < latest + len(others), (priority, order[:100])
    # What is left of the flood ends: nobody waits for it.
    steered.redis.delete(keys.lease(FLOODING_WEB))
    until(lambda: steer("GET", "/queue")["counts"]["in_line"] == 0, what="an empty queue")
    until(lambda: not steered.redis.zcard(keys.RQ_STARTED), what="no running call")
