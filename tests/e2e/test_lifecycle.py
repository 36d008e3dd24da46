"""Calls that wait while processes come and go.

What kills, stops and deploys do to calls that run is in the fault suite: rows P and R.
"""

from __future__ import annotations

import queue
from typing import Any

import pytest
import requests

from gateway.queue import keys
from tests.support.stack import PATIENCE_SECONDS, Stack, until


def response_of(result: queue.Queue[Any]) -> requests.Response:
    value = result.get(timeout=PATIENCE_SECONDS)
    assert isinstance(value, requests.Response), value
    return value


def test_a_queued_call_of_a_stopping_web_process_may_be_sent_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("queued")
    with Stack(folder, env={"DRAIN_SECONDS": "1", "WORKER_CONCURRENCY": "1"}) as stack:
        stack.in_background("fake/hang")
        stack.until_called()
        waiting = stack.in_background("fake/echo")
        until(lambda: stack.redis.llen(keys.RQ_QUEUE) == 1)
        stack.web.terminate()
        response = response_of(waiting)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "shutting_down"
        assert response.headers["x-should-retry"] == "true"
        assert len(stack.upstream.log()) == 1


def test_a_worker_added_later_takes_what_waits(own_stack: Stack) -> None:
    own_stack.workers[0].terminate()
    assert own_stack.workers[0].wait() == 0
    waiting = own_stack.in_background("fake/echo", "patience")
    until(lambda: own_stack.redis.llen(keys.RQ_QUEUE) == 1)
    own_stack.start_worker()
    assert response_of(waiting).json()["choices"][0]["message"]["content"] == "patience"
