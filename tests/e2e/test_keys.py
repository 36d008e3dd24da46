"""Keys in a running service: made over HTTP, changed while calls run, and a pepper that changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests

from gateway.account.api_keys import KeyStore, public_id
from tests.support.stack import PATIENCE_SECONDS, PEPPER, Stack, until

ADMIN_KEY = "an-admin-key-of-forty-characters-or-more"
NEW_PEPPER = "another-pepper-of-forty-characters-or-more"

pytestmark = pytest.mark.slow


def send(stack: Stack, method: str, path: str, key: str, body: Any = None) -> requests.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return requests.request(
        method, f"{stack.url}{path}", json=body, headers=headers, timeout=PATIENCE_SECONDS
    )


def call(stack: Stack, key: str, model: str = "fake/echo", **more: Any) -> requests.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    return requests.post(
        f"{stack.url}/chat/completions",
        json={**body, **more},
        headers={"Authorization": f"Bearer {key}"},
        timeout=PATIENCE_SECONDS,
        stream=more.get("stream", False),
    )


def test_the_admin_key_makes_an_operator_key_which_makes_and_disables_one_for_calls(
    tmp_path: Path,
) -> None:
    with Stack(tmp_path / "stack", env={"ADMIN_KEY": ADMIN_KEY}) as stack:
        made = send(stack, "POST", "/keys", ADMIN_KEY, {"name": "boss", "operator": True})
        operator = made.json()["key"]
        assert call(stack, operator).status_code == call(stack, ADMIN_KEY).status_code == 403
        made = send(stack, "POST", "/keys", operator, {"name": "caller", "limit": 5})
        caller, path = made.json()["key"], f"/keys/{made.json()['data']['id']}"
        assert call(stack, caller).json()["choices"][0]["message"]["content"] == "hello"

        with call(stack, caller, "fake/hang", stream=True) as running:
            until(lambda: len(stack.upstream.log()) == 2, what="the call that hangs")
            send(stack, "PATCH", path, operator, {"disabled": True})
            text = running.text  # ends within 5 s of the change
        assert "invalid_api_key" in text
        assert call(stack, caller).status_code == 401
        send(stack, "PATCH", path, operator, {"disabled": False})
        assert call(stack, caller).status_code == 200
        for secret in (operator[26:], caller[26:], ADMIN_KEY):
            assert secret not in stack.logs()


def test_a_pepper_changes_and_every_key_stays_valid(own_stack: Stack) -> None:
    stack = own_stack
    unused = stack.keys.create("unused")
    assert call(stack, stack.key).status_code == 200
    stack.env |= {"KEY_PEPPER": NEW_PEPPER, "KEY_PEPPER_OLD": PEPPER}
    # One after the other, as in a deploy: the new worker starts while the old web process runs.
    stack.workers[0].terminate()
    assert stack.workers[0].wait() == 0
    stack.start_worker()
    stack.until_ready()
    stack.web.terminate()
    stack.web.wait()
    stack.web = stack.start_web(stack.port)
    stack.until_ready()
    assert call(stack, stack.key).status_code == 200
    only_new = KeyStore(stack.redis, NEW_PEPPER)
    assert only_new.verify(stack.key).public_id == public_id(stack.key)
    assert stack.keys.get(public_id(unused)) == KeyStore(stack.redis, PEPPER).verify(unused)


def test_both_secrets_call_models_in_the_grace_period(stack: Stack) -> None:
    old = stack.keys.create("rotated")
    assert call(stack, old).status_code == 200
    new = stack.keys.rotate(public_id(old), 60, idempotency_key="try-1")
    again = stack.keys.rotate(public_id(old), 60, idempotency_key="try-1")
    assert new is not None and again is not None and new.key == again.key
    for key in (old, new.key):
        assert call(stack, key).status_code == 200
    last = stack.keys.rotate(public_id(old), 0)
    assert last is not None
    for key in (old, new.key):
        assert call(stack, key).status_code == 401
    assert call(stack, last.key).status_code == 200
