"""The JavaScript clients that most people use, each in one run of Node: see the scripts here."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.programs import program
from tests.support.stack import PATIENCE_SECONDS, ROOT, Stack

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("javascript clients")]

HERE = Path(__file__).parent
QUESTION = "What is the capital of France?"
CITY = {"name": "Paris", "degrees": 0.5, "capital": True}
VECTORS = [[2, 2, 2], [3, 3, 3]]
TOO_HIGH = (
    "Invalid 'temperature': decimal above maximum value. "
    "Expected a value <= 2, but got 200 instead."
)
CUT = "The provider's stream ended before the answer was complete."


@pytest.fixture(scope="session")
def folder() -> Path:
    """Where the clients are installed: once for each package-lock.json."""
    program("node")
    program("npm")
    lock = (HERE / "package-lock.json").read_bytes()
    target = ROOT / ".data" / f"clients-{hashlib.sha256(lock).hexdigest()[:12]}"
    if not (target / "installed").exists():
        target.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, target)
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(command, cwd=target, check=True, timeout=300, capture_output=True)
        (target / "installed").touch()
    return target


def run(script: str, folder: Path, stack: Stack) -> dict[str, Any]:
    shutil.copy(HERE / script, folder)
    env = {"PATH": os.environ["PATH"], "BASE_URL": stack.url, "API_KEY": stack.key}
    done = subprocess.run(
        ["node", script],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def openai(folder: Path, stack: Stack) -> dict[str, Any]:
    return run("openai_client.mjs", folder, stack)


@pytest.fixture(scope="module")
def ai_sdk(folder: Path, stack: Stack) -> dict[str, Any]:
    return run("ai_sdk.mjs", folder, stack)


# OpenAI's client


def test_openai_gets_an_answer_whole_and_streamed(openai: dict[str, Any]) -> None:
    for answer in (openai["whole"], openai["stream"]):
        assert (answer["text"], answer["finish_reason"]) == (QUESTION, "stop")
        assert answer["usage"]["total_tokens"] > 3
    assert openai["whole"]["model"] == "gpt-4o-mini"


def test_openai_gets_a_tool_call_and_runs_its_own_loop_of_tools(openai: dict[str, Any]) -> None:
    call = openai["toolCall"]
    assert (call["id"], call["type"], call["reason"]) == ("call_1", "function", "tool_calls")
    assert json.loads(call["function"].pop("arguments")) == {"city": "Paris"}
    assert call["function"] == {"name": "get_weather"}
    assert openai["tools"] == {"text": "Sunny in Paris", "asked": ["Paris"]}


def test_openai_parses_an_answer_by_its_schema(openai: dict[str, Any]) -> None:
    assert openai["structured"] == CITY


def test_openai_makes_numbers_of_the_base64_that_it_asks_for(openai: dict[str, Any]) -> None:
    assert openai["embeddings"] == VECTORS


def test_openai_raises_its_own_errors_with_our_fields(openai: dict[str, Any]) -> None:
    assert openai["refused"] == {
        "kind": "BadRequestError",
        "status": 400,
        "code": "decimal_above_max_value",
        "param": "temperature",
        "type": "invalid_request_error",
        "message": f"400 {TOO_HIGH}",
        "named": True,
    }
    broken = openai["broken"]
    assert (broken["kind"], broken["code"]) == ("APIError", "upstream_truncated")
    assert CUT in broken["message"]


# Vercel's AI SDK


def test_ai_sdk_gets_an_answer_whole_and_streamed(ai_sdk: dict[str, Any]) -> None:
    for answer in (ai_sdk["whole"], ai_sdk["stream"]):
        assert (answer["text"], answer["finishReason"]) == (QUESTION, "stop")
        assert answer["tokens"] > 3


def test_ai_sdk_runs_its_loop_of_tools_whole_and_streamed(ai_sdk: dict[str, Any]) -> None:
    for answer in (ai_sdk["wholeTools"], ai_sdk["streamedTools"]):
        assert answer == {"text": "Sunny in Paris", "steps": 2, "asked": ["Paris"]}


def test_ai_sdk_parses_an_answer_by_its_schema(ai_sdk: dict[str, Any]) -> None:
    assert ai_sdk["structured"] == CITY


def test_ai_sdk_gets_embeddings(ai_sdk: dict[str, Any]) -> None:
    assert ai_sdk["embeddings"] == VECTORS


def test_ai_sdk_raises_its_own_errors_with_our_fields(ai_sdk: dict[str, Any]) -> None:
    assert ai_sdk["refused"] == {
        "name": "AI_APICallError",
        "known": True,
        "message": TOO_HIGH,
        "statusCode": 400,
        "isRetryable": False,
        "error": {
            "message": TOO_HIGH,
            "type": "invalid_request_error",
            "param": "temperature",
            "code": "decimal_above_max_value",
        },
    }
    assert ai_sdk["broken"] == {"failures": [CUT]}
