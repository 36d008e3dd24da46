"""Webhooks of a running service: receivers that fail, hang and redirect, a worker that dies."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass

import openai
import pytest
import requests
import standardwebhooks

from gateway import webhooks
from gateway.account.api_keys import public_id
from gateway.queue import keys
from tests.support.receiver import Delivery, Receiver
from tests.support.stack import PATIENCE_SECONDS, Process, Stack, until

pytestmark = pytest.mark.slow


@dataclass
class Hooks:
    """A service whose two workers may send events to a receiver."""

    stack: Stack
    receiver: Receiver
    operator: str

    def key(self, path: str, **limits: object) -> tuple[str, str]:
        """A new key with a webhook at this path, and the secret of that webhook."""
        response = requests.post(
            f"{self.stack.url}/keys",
            json={"name": path, "webhook_url": f"{self.receiver.url}{path}", **limits},
            headers={"Authorization": f"Bearer {self.operator}"},
            timeout=PATIENCE_SECONDS,
        )
        response.raise_for_status()
        return response.json()["key"], response.json()["webhook_secret"]

    def enqueue(self, key: str, object_id: str, event_type: str = "batch.completed") -> None:
        assert webhooks.enqueue(self.stack.redis, public_id(key), event_type, object_id) == "ok"

    def until_delivered(self, path: str, count: int = 1) -> list[Delivery]:
        until(lambda: len(self.receiver.at(path)) >= count, what=f"{count} requests to {path}")
        return self.receiver.at(path)

    def sender(self) -> Process:
        """The worker that is elected."""
        name = until(lambda: self.stack.redis.get(keys.WEBHOOK_SENDER)).decode()
        return next(each for each in self.stack.workers if name in each.log.read_text())


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hooks]:
    folder = tmp_path_factory.mktemp("webhooks")
    with Receiver() as receiver:
        env = {"WEBHOOK_HOSTS": receiver.host}
        with Stack(folder / "stack", workers=2, env=env) as stack:
            yield Hooks(stack, receiver, stack.keys.create("boss", operator=True))


def test_a_budget_threshold_reaches_the_key_once_and_both_clients_verify_it(hooks: Hooks) -> None:
    key, secret = hooks.key("/budget", limit=10, limit_unit="tokens", alerts=[0.1])
    client = openai.OpenAI(api_key=key, base_url=hooks.stack.url, webhook_secret=secret)
    turn = {"role": "user", "content": "hello"}
    client.chat.completions.create(model="fake/echo", messages=[turn], max_tokens=1)  # type: ignore[list-item]
    [delivery] = hooks.until_delivered("/budget")
    event = client.webhooks.unwrap(delivery.body, delivery.headers)
    assert (event.type, event.data.id) == ("key.budget_threshold", public_id(key))
    standardwebhooks.Webhook(secret).verify(delivery.body, delivery.headers)
    assert sorted(delivery.event) == ["created_at", "data", "id", "object", "type"]


def test_the_end_of_a_background_response_reaches_the_key(hooks: Hooks) -> None:
    key, secret = hooks.key("/background")
    client = openai.OpenAI(api_key=key, base_url=hooks.stack.url, webhook_secret=secret)
    response = client.responses.create(model="fake/echo", input="hello", background=True)
    [delivery] = hooks.until_delivered("/background")
    event = client.webhooks.unwrap(delivery.body, delivery.headers)
    assert (event.type, event.data.id) == ("response.completed", response.id)
    assert client.responses.retrieve(response.id).output_text == "hello"


def test_a_receiver_that_hangs_holds_up_no_other_key(hooks: Hooks) -> None:
    hanging, _ = hooks.key("/hang")
    for number in range(20):
        hooks.enqueue(hanging, f"batch_{number}")
    hooks.until_delivered("/hang", 8)  # those of one turn are on their way
    ok, _ = hooks.key("/ok")
    for number in range(20):
        hooks.enqueue(ok, f"batch_{number}")
    hooks.until_delivered("/ok", 20)
    assert len(hooks.receiver.at("/hang")) < 20


def test_another_worker_goes_on_after_the_sender_is_killed(hooks: Hooks) -> None:
    redirected, failing, third = (hooks.key(f"/{name}")[0] for name in ("redirect", "twice", "3"))
    for key in (redirected, failing):
        hooks.enqueue(key, "batch_1")
    hooks.until_delivered("/redirect")
    hooks.until_delivered("/twice")
    hooks.sender().signal(signal.SIGKILL)
    for number in range(10):
        hooks.enqueue(third, f"batch_{number}")
    events = hooks.until_delivered("/3", 10)
    assert {each.event["data"]["id"] for each in events} == {f"batch_{n}" for n in range(10)}
    # What failed before is tried again, signed anew.
    events = hooks.until_delivered("/twice", 2)
    assert len({each.headers["webhook-id"] for each in events}) == 1
    assert len({each.headers["webhook-timestamp"] for each in events}) == len(events)
    hooks.until_delivered("/redirect", 2)
    assert not hooks.receiver.at("/other")


def test_the_logs_name_the_host_and_no_secret(hooks: Hooks) -> None:
    key, secret = hooks.key("/path-that-is-a-secret")
    hooks.enqueue(key, "batch_1")
    hooks.until_delivered("/path-that-is-a-secret")
    line = f"key_id={public_id(key)} host={hooks.receiver.host} result=200"
    until(lambda: line in hooks.stack.logs())
    logs = hooks.stack.logs()
    assert "path-that-is-a-secret" not in logs
    assert secret.removeprefix("whsec_") not in logs
