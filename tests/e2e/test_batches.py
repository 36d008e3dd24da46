"""Batches with the official clients and real processes; files in a folder and in a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
from anthropic import Anthropic
from openai import OpenAI
from openai.types import Batch

from tests.e2e.test_generations import ended
from tests.faults.proxy import FaultProxy
from tests.support import s3
from tests.support.batches import CHAT, line
from tests.support.stack import PATIENCE_SECONDS, Stack, until


@pytest.fixture
def client(stack: Stack) -> Iterator[OpenAI]:
    with OpenAI(api_key=stack.key, base_url=stack.url, max_retries=0) as client:
        yield client


def create(client: OpenAI, *lines: bytes, endpoint: Any = CHAT) -> Batch:
    file = client.files.create(file=("input.jsonl", b"".join(lines)), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")


def finished(client: OpenAI, batch: Batch) -> Batch:
    last = [batch]

    def look() -> bool:
        last[0] = client.batches.retrieve(batch.id)
        return last[0].status in ("completed", "failed", "expired", "cancelled")

    until(look, what=f"the end of {last}")
    return last[0]


def results(client: OpenAI, file_id: str | None) -> dict[str, Any]:
    assert file_id
    content = client.files.content(file_id).read()
    lines = [orjson.loads(text) for text in content.splitlines()]
    named = {each["custom_id"]: each for each in lines}
    assert len(named) == len(lines), "a line has two results"
    return named


def test_a_batch_of_several_models_is_answered(stack: Stack, client: OpenAI) -> None:
    lines = [
        line("openai", "one"),
        line("anthropic", "two", model="claude/echo"),
        line("failing", "three", model="fake/status-400"),
    ]
    batch = finished(client, create(client, *lines))
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 3, "completed": 2, "failed": 1}
    output = results(client, batch.output_file_id)
    texts = {
        name: each["response"]["body"]["choices"][0]["message"]["content"]
        for name, each in output.items()
    }
    assert texts == {"openai": "one", "anthropic": "two"}
    assert results(client, batch.error_file_id)["failing"]["response"]["status_code"] == 400
    assert batch.usage is not None
    assert batch.usage.output_tokens > 0
    call = ended(stack, output["openai"]["response"]["body"]["id"])
    assert (call["batch_id"], call["priority"], call["status"]) == (batch.id, "batch", "completed")


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/responses", {"model": "fake/echo", "input": "one"}),
        ("/v1/embeddings", {"model": "demo/embed", "input": "one"}),
    ],
)
def test_other_endpoints_take_batches(client: OpenAI, endpoint: str, body: Any) -> None:
    request = {"custom_id": "1", "method": "POST", "url": endpoint, "body": body}
    batch = finished(client, create(client, orjson.dumps(request), endpoint=endpoint))
    assert results(client, batch.output_file_id)["1"]["response"]["status_code"] == 200


def test_identical_lines_of_a_key_with_a_cache_are_one_call(stack: Stack) -> None:
    stack.upstream.clear()
    lines = [line(str(number), model="fake/delay-300-same") for number in range(9)]
    key = stack.keys.create("cached", cache_seconds=60)
    with OpenAI(api_key=key, base_url=stack.url, max_retries=0) as client:
        batch = finished(client, create(client, *lines))
        output = results(client, batch.output_file_id)
    assert batch.request_counts is not None
    assert batch.request_counts.completed == 9
    assert len({each["response"]["body"]["id"] for each in output.values()}) == 9
    assert len([call for call in stack.upstream.log() if call["model"] == "delay-300-same"]) == 1


def test_a_cancelled_batch_keeps_the_results_so_far(client: OpenAI, stack: Stack) -> None:
    lines = [line(str(number), model="fake/delay-300") for number in range(400)]
    batch = create(client, *lines)
    until(lambda: client.batches.retrieve(batch.id).status == "in_progress")
    until(lambda: any(call["model"] == "delay-300" for call in stack.upstream.log()))
    assert client.batches.cancel(batch.id).status == "cancelling"
    batch = finished(client, batch)
    assert batch.status == "cancelled"
    output = results(client, batch.output_file_id)
    errors = results(client, batch.error_file_id)
    assert output.keys() | errors.keys() == {str(number) for number in range(400)}
    assert len(output) + len(errors) == 400
    assert {each["error"]["code"] for each in errors.values()} == {"batch_cancelled"}


def test_a_batch_waits_for_the_limits_of_its_key(stack: Stack) -> None:
    key = stack.keys.create("a narrow key", max_in_flight=1, max_waiting=0)
    with OpenAI(api_key=key, base_url=stack.url, max_retries=0) as client:
        lines = [line(str(number), model="fake/delay-50") for number in range(2)]
        batch = finished(client, create(client, *lines))
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 2, "completed": 2, "failed": 0}


def test_a_batch_of_messages_is_answered(stack: Stack) -> None:
    base = stack.url.removesuffix("/v1")
    messages: Any = [{"role": "user", "content": "one"}]
    with Anthropic(api_key=stack.key, base_url=base, max_retries=0) as client:
        batches = client.messages.batches
        models = {"claude": "claude/echo", "openai": "fake/echo", "none": "none/at-all"}
        batch = batches.create(
            requests=[
                {
                    "custom_id": name,
                    "params": {"model": model, "max_tokens": 100, "messages": messages},
                }
                for name, model in models.items()
            ]
        )
        until(lambda: batches.retrieve(batch.id).processing_status == "ended")
        found = {each.custom_id: each.result for each in batches.results(batch.id)}
        counts = batches.retrieve(batch.id).request_counts
    assert (counts.succeeded, counts.errored) == (2, 1)
    for name in ("claude", "openai"):
        result = found[name]
        assert result.type == "succeeded"
        assert result.message.content[0].type == "text"
        assert result.message.content[0].text == "one"
    assert found["none"].type == "errored"


@pytest.mark.slow
def test_memory_stays_flat_while_a_file_of_200_mb_is_uploaded_and_run(
    stack: Stack, client: OpenAI, tmp_path: Path
) -> None:
    path = tmp_path / "input.jsonl"
    with path.open("wb") as file:
        for number in range(4_000):
            file.write(line(str(number), "word " * 10_000, model="fake/stream-2-0"))
    assert path.stat().st_size > 200_000_000
    arbiter = Path(f"/proc/{stack.web.pid}/task/{stack.web.pid}/children")
    pids = [int(arbiter.read_text().split()[0]), *(worker.pid for worker in stack.workers)]
    before = [peak_megabytes(pid) for pid in pids]
    with path.open("rb") as file:
        uploaded = client.files.create(file=file, purpose="batch")
    batch = client.batches.create(input_file_id=uploaded.id, endpoint=CHAT, completion_window="24h")
    batch = finished(client, batch)
    assert batch.request_counts is not None
    assert batch.request_counts.completed == 4_000
    growth = [peak_megabytes(pid) - start for pid, start in zip(pids, before, strict=True)]
    assert max(growth) < 160, f"the processes grew by {growth} MB"


def peak_megabytes(pid: int) -> int:
    """The most memory that a process has had so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1_000


@pytest.mark.slow
def test_files_in_a_bucket(tmp_path: Path) -> None:
    """boto3 waits cooperatively: while the bucket is silent, other requests go on."""
    with s3.bucket() as env, FaultProxy(s3.address(env)) as proxy:
        env = {**env, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}
        env["FILES_URL"] = f"s3://{s3.BUCKET}/a/b"
        with (
            Stack(tmp_path, env=env) as stack,
            OpenAI(api_key=stack.key, base_url=stack.url, max_retries=0) as client,
            ThreadPoolExecutor(1) as threads,
        ):
            batch = create(client, *[line(str(number), "hi " * 5_000) for number in range(100)])
            batch = finished(client, batch)
            assert batch.status == "completed", stack.logs()
            assert len(results(client, batch.output_file_id)) == 100
            proxy.blackhole()
            waiting = threads.submit(client.files.content, batch.input_file_id)
            assert stack.ask("fake/echo").status_code == 200
            assert not waiting.done()
            proxy.heal()
            assert waiting.result(PATIENCE_SECONDS).read()
