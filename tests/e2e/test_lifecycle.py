"""Calls that wait while processes come and go.

What kills, stops and deploys do to calls that run is in the fault suite: rows P and R.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
from typing import Any

import pytest
import requests

from gateway.queue import keys
from tests.support.stack import PATIENCE_SECONDS, Stack, until

pytestmark = pytest.mark.slow


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


def test_a_worker_drains_on_every_signal_that_means_stop_and_ignores_the_rest(
    own_stack: Stack,
) -> None:
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGINT):
        worker = own_stack.workers[-1]
        own_stack.until_ready()
        own_stack.upstream.clear()
        running = own_stack.in_background("fake/delay-1000", number.name)
        own_stack.until_called()
        for ignored in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
            worker.popen.send_signal(ignored)
        worker.popen.send_signal(number)
        content = response_of(running).json()["choices"][0]["message"]["content"]
        assert (content, worker.wait()) == (number.name, 0)
        own_stack.start_worker()


def serving_process(stack: Stack) -> int:
    """The process below gunicorn's arbiter."""
    command = ["pgrep", "-P", str(stack.web.pid)]
    return int(subprocess.run(command, capture_output=True, check=True).stdout.split()[0])


@pytest.mark.parametrize("to", ["arbiter", "web process"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGQUIT", "SIGHUP"])
def test_a_signal_that_stops_a_web_process_ends_its_streams_with_an_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, to: str
) -> None:
    with Stack(tmp_path_factory.mktemp("signal"), env={"DRAIN_SECONDS": "1"}) as stack:
        stream = stack.open_stream("fake/stream-2-0-hang-mid")
        first = next(lines := stream.iter_lines(chunk_size=1))
        process = stack.web.pid if to == "arbiter" else serving_process(stack)
        os.kill(process, getattr(signal, name))
        rest = b"\n".join([first, *lines])
        assert b'"code":"worker_stopped"' in rest
