"""A planted prompt, answer and key must be nowhere once their calls have ended."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from redis import Redis

from gateway.account.database import schema
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

PROMPT = "CANARY-in-a-prompt"  # the provider's answer repeats it
WRONG_KEY = "mk_inference_AbCdEfGh1234_CANARYinakey0123456789CANARYinakey0123456789abc"
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
    pytest.importorskip("sentry_sdk")
    with sentry_project() as project:
        yield project


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, sentry: tuple[str, list[str]]
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("canary")
    url = f"sqlite:///{folder}/account.db"
    schema.upgrade_url(url)
    env = {
        "LOG_LEVEL": "DEBUG",
        "LOG_FORMAT": "json",
        "DATABASE_URL": url,
        "SENTRY_DSN": sentry[0],
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


def make_calls(stack: Stack) -> list[requests.Response]:
    """Calls of each kind that are answered, that fail in each way, and that are refused."""
    question = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 99}
    responses = [
        call(stack, path, {"model": model, **body, "stream": stream})
        for stream in (False, True)
        for path, body in (
            ("/chat/completions", question),
            ("/messages", question),
            ("/responses", {"input": PROMPT}),
        )
        for model in ("fake/echo", "claude/echo", "fake/status-500", "fake/status-401", "closed/x")
    ]
    embeddings = {"model": "fake/embedding", "input": PROMPT}
    responses.append(call(stack, "/embeddings", embeddings))
    broken = {"model": "fake/echo", "messages": [{"role": "user", "content": [PROMPT]}]}
    responses.append(call(stack, "/chat/completions", broken))
    responses.append(call(stack, f"/{PROMPT}", question))
    return responses


def lines(stack: Stack) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stack.logs().splitlines() if line.startswith("{")]


def test_a_planted_prompt_answer_and_key_are_nowhere_when_their_calls_have_ended(
    stack: Stack, sentry: tuple[str, list[str]]
) -> None:
    responses = make_calls(stack)
    answered = [each for each in responses if each.status_code == 200]
    assert len(answered) >= 12
    assert any(PROMPT in each.text for each in answered)
    wrong = {"Authorization": f"Bearer {WRONG_KEY}"}
    refused = call(stack, "/chat/completions", {"model": "fake/echo", "messages": []}, **wrong)
    assert refused.status_code == 401
    assert "CANARYinakey" not in refused.text + str(refused.headers)
    stack.redis.set("control", PROMPT, px=500)  # that it would be found
    assert PROMPT in everything_in(stack.redis)
    until(lambda: PROMPT not in everything_in(stack.redis), what="the prompt gone from Redis")
    until(lambda: stack.redis.xlen("gw:records") == 0, what="the records in the database")
    until(lambda: sentry[1], what="a report at Sentry")
    places = {
        "the log": stack.logs(),
        "Redis": everything_in(stack.redis),
        "the database": "".join(
            path.read_bytes().decode("latin-1") for path in stack.folder.glob("account.db*")
        ),
        "Sentry": "".join(sentry[1]),
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
