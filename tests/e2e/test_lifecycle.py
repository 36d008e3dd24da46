"""Deaths, deploys and outages: every accepted call gets one answer."""

from __future__ import annotations

import json
import queue
import signal
import threading
import time
from typing import Any

import pytest
import requests

from gateway.queue.lease import STEADY_SECONDS
from tests.support.stack import Stack, events, until


def answer(result: queue.Queue[Any], seconds: float = 40) -> requests.Response:
    value = result.get(timeout=seconds)
    assert isinstance(value, requests.Response), value
    return value


def test_a_killed_worker_is_a_502_within_four_seconds(own_stack: Stack) -> None:
    steady(own_stack)
    sync = own_stack.in_background("fake/hang")
    stream = own_stack.in_background("fake/hang", stream=True)
    begun = own_stack.open_stream("fake/stream-1000-50")
    lines = events(begun)
    next(lines)
    own_stack.until_called(3)
    until(lambda: own_stack.redis.zcard("rq:wip:infer") == 3)
    known_to_web(own_stack)
    own_stack.workers[0].kill()
    killed = time.monotonic()
    for result in (sync, stream):
        response = answer(result)
        assert response.status_code == 502
        assert response.json()["error"]["code"] == "worker_lost"
        assert response.headers["x-should-retry"] == "false"
    *_, failure, done = lines
    assert json.loads(failure)["error"]["code"] == "worker_lost"
    assert done == "[DONE]"
    assert time.monotonic() - killed < 4.5  # 4 s promised; the test's own looks take some
    assert own_stack.redis.zcard("rq:wip:infer") == 0
    assert own_stack.redis.zcard("rq:failed:infer") == 3
    assert len(own_stack.upstream.log()) == 3


def test_a_stopped_worker_that_wakes_up_later_cannot_answer_twice(own_stack: Stack) -> None:
    steady(own_stack)
    result = own_stack.in_background("fake/delay-9000")
    own_stack.until_called()
    known_to_web(own_stack)
    worker = own_stack.workers[0]
    worker.signal(signal.SIGSTOP)
    response = answer(result)
    assert response.json()["error"]["code"] == "worker_lost"
    worker.signal(signal.SIGCONT)
    again = own_stack.ask("fake/echo", "after the pause")
    assert again.json()["choices"][0]["message"]["content"] == "after the pause"
    assert worker.popen.poll() is None


def test_the_calls_of_a_killed_web_process_are_stopped(own_stack: Stack) -> None:
    steady(own_stack)
    own_stack.in_background("fake/hang")
    own_stack.until_called()
    own_stack.web.kill()
    until(lambda: own_stack.upstream.log()[0]["closed_early"], 10, "the provider call closed")
    until(lambda: own_stack.redis.zcard("rq:wip:infer") == 0, 5)


def test_sigterm_of_both_loses_nothing_that_ends_in_time(own_stack: Stack) -> None:
    whole = [own_stack.in_background("fake/delay-3000", f"call {n}") for n in range(20)]
    streams = [own_stack.in_background("fake/stream-60-50", stream=True) for _ in range(20)]
    own_stack.until_called(40)
    asked = time.monotonic()
    for _ in range(3):  # Heroku may send it several times
        own_stack.web.terminate()
        own_stack.workers[0].terminate()
    for number, result in enumerate(whole):
        response = answer(result)
        assert response.status_code == 200, response.text
        assert response.json()["choices"][0]["message"]["content"] == f"call {number}"
    for result in streams:
        *data, done = events(answer(result))
        assert done == "[DONE]"
        text = "".join(json.loads(d)["choices"][0]["delta"].get("content") or "" for d in data)
        assert text == "".join(f"t{i} " for i in range(60))
    assert own_stack.workers[0].wait() == 0
    assert own_stack.web.wait() == 0
    assert time.monotonic() - asked < 15  # idle connections hold nobody up
    assert own_stack.redis.keys("gw:lease:*") == []
    assert own_stack.redis.smembers("rq:workers:infer") == set()


def test_what_does_not_end_in_time_is_ended_with_an_error(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with Stack(tmp_path_factory.mktemp("drain"), env={"DRAIN_SECONDS": "2"}) as stack:
        sync = stack.in_background("fake/hang")
        stream = stack.open_stream("fake/stream-1000-50")
        lines = events(stream)
        next(lines)
        stack.until_called(2)
        asked = time.monotonic()
        stack.web.terminate()
        stack.workers[0].terminate()
        response = answer(sync)
        assert response.status_code == 502
        assert response.json()["error"]["code"] == "worker_stopped"
        assert response.headers["x-should-retry"] == "false"
        *_, failure, done = lines
        assert json.loads(failure)["error"]["code"] == "worker_stopped"
        assert done == "[DONE]"
        assert stack.workers[0].wait() == 0
        assert stack.web.wait() == 0
        assert time.monotonic() - asked < 2 + 3  # as much room as on Heroku: 25 of 28 s
        closed = [call["closed_early"] for call in stack.upstream.log()]
        assert closed == [True, True]


def test_a_queued_call_of_a_stopping_web_process_may_be_sent_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("queued")
    with Stack(folder, env={"DRAIN_SECONDS": "1", "WORKER_CONCURRENCY": "1"}) as stack:
        stack.in_background("fake/hang")
        stack.until_called()
        waiting = stack.in_background("fake/echo")
        until(lambda: stack.redis.llen("rq:queue:infer") == 1)
        stack.web.terminate()
        response = answer(waiting)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "shutting_down"
        assert response.headers["x-should-retry"] == "true"
        assert len(stack.upstream.log()) == 1


def test_a_worker_added_later_takes_what_waits(own_stack: Stack) -> None:
    own_stack.workers[0].terminate()
    assert own_stack.workers[0].wait() == 0
    waiting = own_stack.in_background("fake/echo", "patience")
    until(lambda: own_stack.redis.llen("rq:queue:infer") == 1)
    own_stack.start_worker()
    assert answer(waiting).json()["choices"][0]["message"]["content"] == "patience"


def test_without_any_worker_a_call_fails_after_a_while(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("nobody")
    with Stack(folder, workers=0, env={"NO_WORKERS_SECONDS": "1"}) as stack:
        response = stack.ask("fake/echo")
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "no_workers"
        assert int(response.headers["Retry-After"]) > 0
        assert stack.redis.llen("rq:queue:infer") == 0


def test_redis_gone_and_back_delivers_what_was_finished_meanwhile(own_stack: Stack) -> None:
    running = own_stack.in_background("fake/delay-1500", "kept")
    stream = own_stack.in_background("fake/stream-20-100", stream=True)
    own_stack.until_called(2)
    own_stack.server.stop()
    refused = own_stack.ask("fake/echo")
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "queue_unavailable"
    assert int(refused.headers["Retry-After"]) > 0
    until(lambda: all(call["ended"] for call in own_stack.upstream.log()), 10)
    own_stack.server.start()
    assert answer(running).json()["choices"][0]["message"]["content"] == "kept"
    *data, done = events(answer(stream))
    assert done == "[DONE]"
    text = "".join(json.loads(d)["choices"][0]["delta"].get("content") or "" for d in data)
    assert text == "".join(f"t{i} " for i in range(20))
    assert own_stack.web.popen.poll() is None
    assert own_stack.workers[0].popen.poll() is None
    until(lambda: own_stack.ask("fake/echo").status_code == 200, 10)
    assert len([c for c in own_stack.upstream.log() if "stream" in c["model"]]) == 1


def test_redis_emptied_under_running_calls_still_delivers_them(own_stack: Stack) -> None:
    running = own_stack.in_background("fake/delay-4000", "kept")
    own_stack.until_called()
    known_to_web(own_stack)
    own_stack.redis.flushall()
    assert answer(running).json()["choices"][0]["message"]["content"] == "kept"
    # The worker registers again; the key is gone with the rest.
    until(lambda: own_stack.redis.scard("rq:workers:infer") == 1, 10)
    assert own_stack.ask("fake/echo").status_code == 401


def test_a_deploy_with_both_generations_up_fails_no_call(own_stack: Stack) -> None:
    stop = threading.Event()
    failures: list[str] = []
    done = 0

    def keep_asking() -> None:
        nonlocal done
        while not stop.is_set():
            response = own_stack.ask("fake/delay-200")
            if response.status_code != 200:
                failures.append(response.text)
            done += 1

    threads = [threading.Thread(target=keep_asking) for _ in range(10)]
    for thread in threads:
        thread.start()
    old = own_stack.workers[0]
    for _ in range(2):
        new = own_stack.start_worker()
        until(lambda: own_stack.redis.scard("rq:workers:infer") == 2, 20)
        old.terminate()
        assert old.wait() == 0
        old = new
    stop.set()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert done > 20


def steady(stack: Stack) -> None:
    """Wait until both processes have renewed their leases for so long that they judge others."""
    begun = time.monotonic()
    until(lambda: time.monotonic() - begun > STEADY_SECONDS + 0.5, 10)


def known_to_web(stack: Stack) -> None:
    """Wait for one sweep of the web process: it asks Redis about each of its calls."""

    def sweeps() -> int:
        stats = stack.redis.info("commandstats")
        return stats.get("cmdstat_hmget", {}).get("calls", 0)

    before = sweeps()
    until(lambda: sweeps() > before + 2, 10, "a sweep")
