"""What RQ's own tools say while calls run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker

from tests.support.stack import PATIENCE_SECONDS, Stack, until

pytestmark = pytest.mark.slow


def rq(stack: Stack, *arguments: str) -> str:
    # `rq` takes redis:// and unix:// URLs; it is beside the Python that runs the tests.
    command = [str(Path(sys.executable).with_name("rq")), *arguments, "--url", stack.server.url]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS
    ).stdout


def test_rq_info_tells_what_waits_runs_and_has_ended(own_stack: Stack) -> None:
    own_stack.ask("fake/echo")
    own_stack.ask("fake/status-400")
    hanging = [own_stack.in_background("fake/hang") for _ in range(5)]
    own_stack.until_called(7)
    assert hanging
    until(lambda: "busy infer" in rq(own_stack, "info"))
    info = rq(own_stack, "info")
    assert "5 executing, 1 finished, 1 failed" in info
    assert re.search(r"jobs: 1 finished, 1 failed", info)
    # RQ cleans registries up while it tells: that must not have touched what runs.
    assert "5 executing" in rq(own_stack, "info")
    assert len(own_stack.upstream.log()) == 7


def test_a_running_call_can_be_fetched_as_a_job(own_stack: Stack) -> None:
    own_stack.in_background("fake/hang", "PROMPT-CANARY")
    own_stack.until_called()
    (entry,) = own_stack.redis.zrange("rq:wip:infer", 0, -1)
    call_id = entry.decode().partition(":")[0]
    job = Job.fetch(call_id, connection=own_stack.redis, serializer=JSONSerializer)
    assert job.get_status() == JobStatus.STARTED
    assert job.func_name == "workers.tasks.run"
    assert list(job.args) == [call_id]
    assert job.description == "chat"
    (worker,) = BaseWorker.all(connection=own_stack.redis)
    assert job.worker_name == worker.name
    assert "CANARY" not in str(own_stack.redis.hgetall(f"rq:job:{call_id}"))


def test_rq_suspend_and_resume_are_obeyed(own_stack: Stack) -> None:
    rq(own_stack, "suspend")
    until(lambda: "suspended infer" in rq(own_stack, "info"))
    waiting = own_stack.in_background("fake/echo", "after the pause")
    until(lambda: own_stack.redis.llen("rq:queue:infer") == 1)
    assert own_stack.upstream.log() == []
    rq(own_stack, "resume")
    response = waiting.get(timeout=PATIENCE_SECONDS)
    assert response.json()["choices"][0]["message"]["content"] == "after the pause"
