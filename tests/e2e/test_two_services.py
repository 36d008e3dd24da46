"""Two services on one Redis: refused with the same names, apart with names of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest
import requests

from tests.support.stack import PATIENCE_SECONDS, ROOT, Stack, reserved_port, until

pytestmark = pytest.mark.slow

PREFIX = {"REDIS_PREFIX": "staging:"}
CALLS = 20


def run(env: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )


@pytest.mark.parametrize(
    "command",
    [["gunicorn", "--bind", "127.0.0.1:0", "wsgi:app"], ["workers"], ["flask", "check-config"]],
    ids=["web", "worker", "check-config"],
)
def test_a_second_service_with_the_same_names_does_not_start(
    stack: Stack, command: list[str]
) -> None:
    second = run({**stack.env, "KEY_PEPPER": "another pepper " * 4}, *command)
    assert second.returncode != 0
    assert second.stderr.count("REDIS_PREFIX must be set") == 1
    assert "Traceback" not in second.stderr


def test_a_service_with_a_prefix_takes_only_its_own_calls(own_stack: Stack) -> None:
    env = {**own_stack.env, **PREFIX, "KEY_PEPPER": "another pepper " * 4}
    first = own_stack.redis.smembers("rq:workers").pop()
    created = run(env, "flask", "keys", "create", "tests")
    key = created.stdout.split()[-1]
    with reserved_port() as port:
        own_stack.env.update(env)
        own_stack.start_web(port)
        own_stack.start_worker()
        url = f"http://127.0.0.1:{port}/inference/v1"
        until(lambda: ready(url))
        for n in range(CALLS):
            assert own_stack.ask("fake/echo", f"production {n}").status_code == 200
            body = {"model": "fake/echo", "messages": [{"role": "user", "content": f"staging {n}"}]}
            response = requests.post(
                f"{url}/chat/completions",
                json=body,
                headers={"Authorization": f"Bearer {key}"},
                timeout=PATIENCE_SECONDS,
            )
            assert response.json()["choices"][0]["message"]["content"] == f"staging {n}"
        (second,) = own_stack.redis.smembers("rq:workers") - {first}
        for worker in (first, second):
            # Written with the worker's next heartbeat.
            until(lambda worker=worker: completed(own_stack, worker) == CALLS)
        names = own_stack.redis.scan_iter("*gw:*")
        assert {name.startswith(b"staging:") for name in names} == {True, False}


def completed(stack: Stack, worker: bytes) -> int:
    return int(stack.redis.hget(worker, "successful_job_count") or 0)


def ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/health/ready", timeout=PATIENCE_SECONDS).ok
    except requests.ConnectionError:
        return False
