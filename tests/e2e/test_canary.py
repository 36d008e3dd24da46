"""A planted prompt, answer and key must be nowhere once their calls have ended."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from redis import Redis

from gateway.account.database import schema
from tests.support import console
from tests.support.collector import Collector
from tests.support.receiver import Receiver
from tests.support.sentry import sentry_project
from tests.support.stack import (
    ANTHROPIC_KEY,
    OPENAI_KEY,
    PATIENCE_SECONDS,
    PEPPER,
    ROOT,
    Stack,
    until,
)

pytestmark = pytest.mark.slow

PROMPT = "CANARY-in-a-prompt"  # the provider's answer repeats it
WRONG_KEY = "mk_inference_AbCdEfGh1234_CANARYinakey0123456789CANARYinakey0123456789abc"
METRICS_TOKEN = "CANARYinakey: a token of Prometheus"
READ: dict[bytes, Any] = {
    b"string": lambda redis, name: redis.get(name),
    b"hash": lambda redis, name: redis.hgetall(name),
    b"list": lambda redis, name: redis.lrange(name, 0, -1),
    b"set": lambda redis, name: redis.smembers(name),
    b"zset": lambda redis, name: redis.zrange(name, 0, -1),
    b"stream": lambda redis, name: redis.xrange(name),
}


@pytest.fixture(scope="module")
def sentry() -> Iterator[tuple[str, list[str]]]:
    with sentry_project() as project:
        yield project


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory,
    sentry: tuple[str, list[str]],
    collector: Collector,
    receiver: Receiver,
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("canary")
    url = f"sqlite:///{folder}/account.db"
    schema.upgrade_url(url)
    env = {
        "LOG_LEVEL": "DEBUG",
        "LOG_FORMAT": "json",
        "DATABASE_URL": url,
        "SENTRY_DSN": sentry[0],
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "WEBHOOK_HOSTS": receiver.host,
        "METRICS_TOKEN": METRICS_TOKEN,
        "METRICS_BY_KEY": "1",
        "UPSTREAM_RETRIES": "1",
        "RELEASE": "r1",
    }
    with Stack(folder, env=env) as running:
        yield running


def everything_in(redis: Redis) -> str:
    """All names and values."""
    values = {}
    for name in redis.keys():
        read = READ.get(redis.type(name))  # none: it has just expired
        values[name] = read(redis, name) if read else None
    return str(values)


def call(stack: Stack, path: str, body: dict[str, Any], **headers: str) -> requests.Response:
    return requests.post(
        f"{stack.url}{path}", json=body, headers=stack.headers(**headers), timeout=PATIENCE_SECONDS
    )


def get(stack: Stack, path: str) -> str:
    url = f"{stack.url}{path}"
    response = requests.get(url, headers=stack.headers(), timeout=PATIENCE_SECONDS)
    assert response.ok
    return response.text


def make_calls(stack: Stack) -> list[requests.Response]:
    """Calls of each kind that are answered, that fail in each way, and that are refused."""
    question = {
        "messages": [
            {"role": "user", "content": f"{PROMPT} a first"},
            {"role": "assistant", "content": PROMPT},
            {"role": "user", "content": PROMPT},
        ],
        "max_tokens": 99,
    }
    tool = {"name": "look", "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "function", "function": {**tool, "description": PROMPT}}]
    calls = [
        (path, {"model": model, **body, "stream": stream})
        for stream in (False, True)
        for path, body in (
            ("/chat/completions", question),
            ("/chat/completions", {**question, "tools": tools}),
            ("/messages", {**question, "system": PROMPT}),
            ("/responses", {"input": PROMPT, "instructions": PROMPT}),
        )
        for model in (
            *("fake/echo", "claude/echo", "fake/status-500", "fake/status-401", "closed/x"),
            # The provider's error repeats the prompt, and our key.
            *("fake/status-400-leak-quote", "fake/status-503-leak-quote"),
            *("claude/status-400-leak-quote", "claude/error-mid-leak-quote"),
            *("fake/error-first-leak-quote", "fake/error-mid-leak-quote", "fake/cut"),
            *("fake/malformed", "fake/html"),
        )
    ]
    broken = {"model": "fake/echo", "messages": [{"role": "user", "content": [PROMPT]}]}
    calls += [
        ("/embeddings", {"model": "fake/embedding", "input": PROMPT}),
        ("/chat/completions", broken),
        (f"/{PROMPT}", question),
    ]
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda each: call(stack, *each), calls))
    stream = stack.open_stream("fake/slow-60-nonce", PROMPT)
    next(stream.iter_lines())
    stream.close()  # its client leaves
    return responses


def deliver_events(stack: Stack, receiver: Receiver) -> None:
    """Background responses that are completed and that fail, whose key has a webhook; deleted."""
    operator = {"Authorization": f"Bearer {stack.keys.create('boss', operator=True)}"}
    owned = {"name": "hooked", "webhook_url": f"{receiver.url}/hook", "alerts": [0.01], "limit": 1}
    created = requests.post(f"{stack.url}/keys", json=owned, headers=operator, timeout=60).json()
    mine = {"Authorization": f"Bearer {created['key']}"}
    ids = []
    for model in ("fake/echo", "fake/status-400-leak-quote", "closed/x"):
        body = {"model": model, "input": PROMPT, "background": True}
        ids.append(call(stack, "/responses", body, **mine).json()["id"])
    until(lambda: len(receiver.at("/hook")) >= len(ids), what="an event of each response")
    for id in ids:
        address = f"{stack.url}/responses/{id}"
        assert requests.delete(address, headers=mine, timeout=PATIENCE_SECONDS).ok


def console_pages(stack: Stack) -> str:
    """The pages of the console that an operator can reach by links from its lists."""
    base = console.address(stack)
    key = stack.keys.create("reader", operator=True)
    lists = ("calls", "calls?status=failed", "usage", "keys", "models", "queue", "live", "batches")
    with console.sign_in(stack, key) as browser:
        pages = [browser.get(f"{base}/{name}", timeout=PATIENCE_SECONDS).text for name in lists]
        links = set(re.findall(r'href="(/console/(?:calls|keys)/[\w-]+)"', "".join(pages)))
        assert len(links) > 50
        root = base.removesuffix("/console")
        pages += [browser.get(root + link, timeout=PATIENCE_SECONDS).text for link in links]
        with browser.get(f"{base}/live/stream", stream=True, timeout=PATIENCE_SECONDS) as stream:
            pages.append(next(line for line in stream.iter_lines() if b"data" in line).decode())
    return "".join(pages)


def metrics(stack: Stack) -> str:
    headers = {"Authorization": f"Bearer {METRICS_TOKEN}"}
    url = f"http://127.0.0.1:{stack.port}/metrics"
    text = requests.get(url, headers=headers, timeout=PATIENCE_SECONDS).text
    assert "inference_key_calls_total" in text
    return text


def lines(stack: Stack) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stack.logs().splitlines() if line.startswith("{")]


def test_a_planted_prompt_answer_and_key_are_nowhere_when_their_calls_have_ended(
    stack: Stack, sentry: tuple[str, list[str]], collector: Collector, receiver: Receiver
) -> None:
    responses = make_calls(stack)
    deliver_events(stack, receiver)
    answered = [each for each in responses if each.status_code == 200]
    assert len(answered) >= 12
    assert any(PROMPT in each.text for each in answered)
    relayed = [each for each in responses if f"You asked: {PROMPT}" in each.text]
    assert relayed  # a provider's error, to its caller alone
    assert not any(OPENAI_KEY in each.text or ANTHROPIC_KEY in each.text for each in responses)
    wrong = {"Authorization": f"Bearer {WRONG_KEY}"}
    refused = call(stack, "/chat/completions", {"model": "fake/echo", "messages": []}, **wrong)
    assert refused.status_code == 401
    assert "CANARYinakey" not in refused.text + str(refused.headers)
    stack.redis.set("control", PROMPT, px=500)  # that it would be found
    assert PROMPT in everything_in(stack.redis)
    until(lambda: PROMPT not in everything_in(stack.redis), what="the prompt gone from Redis")
    until(lambda: stack.redis.xlen("gw:records") == 0, what="the records in the database")
    until(lambda: sentry[1], what="a report at Sentry")
    until(lambda: any(span.failed for span in collector.spans), what="a failed span")
    calls = sum("X-Generation-Id" in each.headers for each in responses)
    until(lambda: sum(span.kind == 2 for span in collector.spans) >= calls, what="all spans")
    places = {
        "the log": stack.logs(),
        "Redis": everything_in(stack.redis),
        "the database": "".join(
            path.read_bytes().decode("latin-1") for path in stack.folder.glob("account.db*")
        ),
        "Sentry": "".join(sentry[1]),
        "spans": b"".join(collector.raw).decode("latin-1"),
        "webhooks": str(receiver.deliveries),
        "metrics": metrics(stack),
        "the console": console_pages(stack),
        "usage": "".join(get(stack, path) for path in ("/usage", "/generations", "/key")),
    }
    secret = stack.key.rpartition("_")[2]
    for place, text in places.items():
        assert text, place
        for planted in ("CANARY-in", "CANARYinakey", secret, PEPPER):
            assert planted not in text, f"{planted} is in {place}"
        for planted in (OPENAI_KEY, ANTHROPIC_KEY):
            assert planted not in text, f"a provider's key is in {place}"
    assert "Traceback" not in places["the log"]


def test_a_caller_s_request_id_is_in_both_lines_of_the_call(stack: Stack) -> None:
    response = call(
        stack,
        "/chat/completions",
        {"model": "fake/status-500", "messages": [{"role": "user", "content": "hi"}]},
        **{"X-Request-Id": "mine-1"},
    )
    assert response.json()["error"]["request_id"] == "mine-1"

    def logged() -> list[dict[str, Any]]:
        mine = [line for line in lines(stack) if line.get("request_id") == "mine-1"]
        return mine if sum(line["message"] == "call" for line in mine) == 2 else []

    mine = until(logged, what="both lines")
    assert {line["call_id"] for line in mine} == {response.headers["X-Generation-Id"]}
    failed = [line for line in mine if line["message"] == "attempt failed"]
    assert [(each["level"], each["status"], each["attempt"]) for each in failed] == [
        ("WARNING", 500, 1),
        ("WARNING", 500, 2),
    ]
    assert all(each["host"] == "127.0.0.1" for each in failed)
    web, worker = (
        next(each for each in mine if (each["logger"], each["message"]) == (name, "call"))
        for name in ("api.http.request_log", "workers.call_log")
    )
    assert (web["status"], web["error"]) == (502, "upstream_failed")
    assert (worker["status"], worker["attempts"]) == ("failed", 2)


def test_the_doctor_looks_at_a_running_service_and_calls_its_providers(stack: Stack) -> None:
    env = {**stack.env, "OPENAI_BASE_URL": "http://127.0.0.1:1/v1", "MODELS_FILE": ""}
    del env["ANTHROPIC_API_KEY"]
    command = [sys.executable, "-m", "flask", "doctor"]
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAIL")]
    assert failed == ["FAIL  providers    openai, key 1: no answer (ConnectionError)"]
    assert "ok    workers      1 alive, 1000 calls at once\n" in result.stdout
    assert "ok    database     answers" in result.stdout
    assert OPENAI_KEY not in result.stdout + result.stderr
