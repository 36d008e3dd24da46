"""A batch survives the death of everything: each line has one answer, and the account is right."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import requests
from openai import OpenAI

from tests.e2e.test_batches import create, finished, results
from tests.support.batches import line
from tests.support.stack import PATIENCE_SECONDS, Stack, until

pytestmark = pytest.mark.slow

LINES = 500


def kill_everything(stack: Stack) -> None:
    for process in stack.processes:
        process.kill()
    # Redis holds its log back while the disk is slow to take what came before; that is lost then.
    until(lambda: stack.redis.info("persistence")["aof_buffer_length"] == 0)
    assert stack.server.process
    stack.server.process.kill()
    stack.server.process.wait()


def start_again(stack: Stack) -> None:
    stack.server.stop()  # frees the folder
    stack.server.start()
    stack.processes.clear()
    stack.workers.clear()
    stack.web = stack.start_web(stack.port)
    stack.start_worker()
    stack.until_ready()


def records(stack: Stack, batch_id: str) -> list[dict[str, Any]]:
    """The records of all calls of a batch."""
    data: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        response = requests.get(
            f"{stack.url}/generations",
            params={"limit": "100", **after},
            headers=stack.headers(),
            timeout=PATIENCE_SECONDS,
        )
        page = response.json()
        data += page["data"]
        if not page["has_more"]:
            return [each for each in data if each["batch_id"] == batch_id]
        after = {"after": page["last_id"]}


def test_every_line_is_answered_once_though_everything_is_killed(tmp_path: Path) -> None:
    with (
        Stack(tmp_path) as stack,
        OpenAI(api_key=stack.key, base_url=stack.url, max_retries=0) as client,
    ):
        texts = [f"text {number}" for number in range(LINES)]
        lines = [line(text, text, model="fake/delay-100") for text in texts]
        batch = create(client, *lines)
        stack.until_called(LINES // 3)
        kill_everything(stack)
        start_again(stack)
        batch = finished(client, batch)
        assert batch.status == "completed"
        output = results(client, batch.output_file_id)
        errors = results(client, batch.error_file_id) if batch.error_file_id else {}
        assert output.keys() | errors.keys() == set(texts)
        assert len(output) + len(errors) == LINES
        assert batch.request_counts is not None
        counts = batch.request_counts
        assert (counts.completed, counts.failed) == (len(output), len(errors))
        assert errors == {}
        calls = stack.upstream.log()
        called = Counter(call["body"]["messages"][-1]["content"] for call in calls)
        # What was running when its worker was killed runs once more.
        assert max(called.values()) <= 2
        again = sum(called.values()) - LINES
        until(lambda: len(records(stack, batch.id)) >= LINES, what="all records")
        settled = records(stack, batch.id)
        completed = [each for each in settled if each["status"] == "completed"]
        assert len(completed) == len(settled) == len(output) == LINES
        ended = [call for call in calls if call["usage"]]
        assert sum(each["tokens_completion"] for each in completed) == sum(
            each["response"]["body"]["usage"]["completion_tokens"] for each in output.values()
        )
        assert LINES <= len(ended) <= LINES + again
