"""What a call asks of the limits of its key, and which models the key may use."""

from __future__ import annotations

import dataclasses

import pytest

from gateway.account.api_keys import KeyStore
from gateway.errors import KeyChanged
from gateway.queue.protocol import CallSpec
from tests.support.fakes import FakeBroker

MODELS = """
[models."t/first"]
provider = "openai"
upstream = "first"
successor = "t/heir"
fallbacks = ["t/second", "t/third"]
max_output_tokens = 4_000
typical_output_tokens = 300
prices = { prompt = "1", completion = "2" }
[models."t/heir"]
provider = "openai"
upstream = "heir"
[models."t/second"]
provider = "anthropic"
upstream = "second"
max_output_tokens = 8_000
prices = { prompt = "5", completion = "1" }
[models."t/third"]
provider = "openai"
upstream = "third"
max_output_tokens = 2_000
[models."t/alias"]
provider = "openai"
upstream = "first"
[models."t/embed"]
provider = "openai"
kind = "embeddings"
"""
HELLO = [{"role": "user", "content": "12345678"}]
CHAT = "/inference/v1/chat/completions"


@pytest.fixture
def store(redis, settings):
    return KeyStore(redis, settings.key_pepper)


@pytest.fixture
def ask(make_client, settings, store, tmp_path):
    """A function that makes a call with a key of these values; returns its response and broker."""
    file = tmp_path / "models.toml"
    file.write_text(MODELS)
    settings = dataclasses.replace(settings, models_file=str(file), retired_models="successor")

    def ask(values, model="t/first", headers=None, broker=None, path=CHAT, **body):
        broker = broker or FakeBroker()
        key = store.create("tests", **values)
        body = {"model": model, "messages": HELLO, **body}
        client = make_client(settings, broker)
        headers = {"Authorization": f"Bearer {key}", **(headers or {})}
        return client.post(path, json=body, headers=headers), broker

    return ask


def models(spec: CallSpec) -> list[str]:
    return [target.model for target in spec.targets]


def test_the_script_learns_what_the_call_may_use(ask, store):
    _, broker = ask({})
    (call,) = broker.calls
    admission = call.admission
    record = store.get(admission.public_id)
    assert (admission.hmac, admission.version, admission.owner) == (record.hmac, record.version, "")
    # The dearest of all targets that may answer counts; the prompt is about two tokens.
    assert admission.prompt_tokens == 2
    assert admission.prompt_nano == 2 * 5_000
    assert admission.output_nano_per_token == 2_000
    assert admission.wait is True


def test_a_limit_of_the_caller_bounds_what_is_reserved(ask):
    _, broker = ask({"models": ("t/first",)}, max_tokens=50, n=2)
    admission = broker.calls[0].admission
    assert (admission.output_tokens, admission.max_output_tokens) == (100, 100)


def test_nobody_knows_the_most_of_a_call_that_a_model_without_a_limit_may_answer(ask):
    _, broker = ask({})  # t/heir has none
    assert broker.calls[0].admission.max_output_tokens == 0
    _, broker = ask({"models": ("t/first", "t/second")})
    assert broker.calls[0].admission.max_output_tokens == 8_000


def test_a_scheduled_call_asks_for_its_delay_and_is_not_looked_for_among_kept_responses(ask):
    headers = {"X-Not-Before": "30", "X-Deadline": "200", "X-Cache": "on"}
    _, broker = ask({}, headers=headers)
    (call,) = broker.calls
    assert (call.admission.delay, call.budget, call.spec.cache) == (30, 200, {})


@pytest.mark.parametrize(
    ("headers", "status", "param"),
    [
        ({"X-Not-Before": "soon"}, 400, "X-Not-Before"),
        ({"X-Not-Before": "601"}, 400, "X-Not-Before"),
        ({"X-Deadline": "Tue, 01 Dec 2020 00:01:00 GMT"}, 504, None),
    ],
)
def test_a_schedule_that_cannot_be_kept_is_refused_before_the_queue(ask, headers, status, param):
    response, broker = ask({}, headers=headers)
    assert (response.status_code, response.get_json()["error"]["param"]) == (status, param)
    assert broker.calls == []


def test_the_record_of_the_call_learns_of_its_request(ask):
    headers = {"X-Request-Id": "mine", "User-Agent": "x" * 500}
    _, broker = ask({"priority": "batch"}, headers=headers)
    account = broker.calls[0].spec.account
    assert account.pop("created_ms") > 1_700_000_000_000
    assert account == {
        "owner": "",
        "request_id": "mine",
        "user_agent": "x" * 200,
        "priority": "batch",
        "model": "t/first",
        "prompt_tokens": 2,
        "output_tokens": 1000,
    }


# Allowed models


def test_a_key_without_a_list_may_use_all_models(ask):
    response, broker = ask({})
    assert response.status_code == 200
    assert models(broker.calls[0].spec) == ["t/first", "t/heir", "t/second", "t/third"]


@pytest.mark.parametrize("allowed", [(), ("t/second",), ("t/firs",), ("t/s*", "first")])
def test_a_model_that_is_not_allowed_is_a_403(ask, allowed):
    response, broker = ask({"models": allowed})
    assert response.status_code == 403
    assert response.get_json()["error"] == {
        "message": "This API key does not have access to the model `t/first`.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
        "request_id": response.headers["X-Request-Id"],
    }
    assert broker.calls == []


@pytest.mark.parametrize(
    ("allowed", "left"),
    [
        (("t/first",), ["t/first"]),
        (("t/first", "t/third"), ["t/first", "t/third"]),
        (("t/first", "t/h*"), ["t/first", "t/heir"]),
        (("t/*",), ["t/first", "t/heir", "t/second", "t/third"]),
    ],
)
def test_successors_and_fallbacks_that_are_not_allowed_are_left_out(ask, allowed, left):
    response, broker = ask({"models": allowed})
    assert response.status_code == 200
    assert models(broker.calls[0].spec) == left


def test_the_caller_s_own_fallbacks_are_left_out_too(ask):
    allowed = ("t/first", "t/alias", "t/third")
    _, broker = ask({"models": allowed}, models=["t/second", "t/third"])
    assert models(broker.calls[0].spec) == ["t/first", "t/third"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/inference/v1/responses", {"input": "hi"}),
        ("/inference/v1/messages", {"max_tokens": 9}),
        ("/inference/v1/messages/count_tokens", {}),
        ("/inference/v1/responses/input_tokens", {"input": "hi"}),
        ("/inference/v1/embeddings", {"input": "hi"}),
    ],
)
def test_no_api_lets_a_model_through_that_is_not_allowed(ask, path, body):
    model = "t/embed" if path.endswith("embeddings") else "t/first"
    response, broker = ask({"models": ("t/second",)}, model, path=path, **body)
    assert response.status_code == 403
    assert broker.calls == []


def test_only_allowed_models_are_listed_and_shown(client, store):
    key = store.create("tests", models=("openai/gpt-4o*", "demo/echo"))
    headers = {"Authorization": f"Bearer {key}"}
    listed = client.get("/inference/v1/models", headers=headers).get_json()["data"]
    names = {model["id"] for model in listed}
    assert {"openai/gpt-4o", "openai/gpt-4o-mini", "demo/echo"} <= names
    assert all(name.startswith(("openai/gpt-4o", "demo/echo")) for name in names)
    assert client.get("/inference/v1/models/demo/echo", headers=headers).status_code == 200
    refused = client.get("/inference/v1/models/demo/slow", headers=headers)
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (404, "model_not_found")


# Waiting


@pytest.mark.parametrize(("value", "waits"), [("wait", True), ("refuse", False), ("Refuse", False)])
def test_the_caller_says_whether_the_call_waits_for_others_of_its_key(ask, value, waits):
    _, broker = ask({}, headers={"X-Queue": value})
    assert broker.calls[0].admission.wait is waits


@pytest.mark.parametrize("value", ["", "no", "wait, refuse"])
def test_another_value_is_refused(ask, value):
    response, broker = ask({}, headers={"X-Queue": value})
    assert response.status_code == 400
    assert response.get_json()["error"]["param"] == "X-Queue"
    assert broker.calls == []


# Calls that run once more


@pytest.mark.parametrize("by_key", [False, True])
@pytest.mark.parametrize("value", [None, "true", "false"])
def test_the_key_or_the_caller_says_whether_a_call_of_a_lost_worker_runs_again(ask, by_key, value):
    headers = {} if value is None else {"X-Retry-On-Worker-Loss": value}
    _, broker = ask({"retry_on_worker_loss": by_key}, headers=headers)
    assert broker.calls[0].admission.retry is (by_key if value is None else value == "true")


def test_whether_a_call_runs_again_is_true_or_false(ask):
    response, broker = ask({}, headers={"X-Retry-On-Worker-Loss": "once"})
    assert (response.status_code, broker.calls) == (400, [])
    assert response.get_json()["error"]["param"] == "X-Retry-On-Worker-Loss"


# Keys that change


class Changing(FakeBroker):
    """A broker whose first calls end because their key has changed; `change` is called before."""

    def __init__(self, times, change):
        super().__init__()
        self.times, self.change = times, change

    def submit(self, spec, body, admission, budget, logged_request):
        pending = super().submit(spec, body, admission, budget)
        if len(self.calls) <= self.times:
            self.change(admission.public_id)
            pending.fail(KeyChanged(retry_after=2))
        return pending


@pytest.mark.parametrize("stream", [False, True])
def test_a_key_that_has_changed_is_read_anew_and_the_call_sent_once_more(ask, store, stream):
    def change(public_id):
        store.change(public_id, lambda record: {"models": ("t/first",)})

    response, broker = ask({}, broker=Changing(1, change), stream=stream)
    assert response.status_code == 200
    first, second = broker.calls
    assert second.admission.version == first.admission.version + 1
    assert models(second.spec) == ["t/first"]
    assert first.spec.call_id != second.spec.call_id == response.headers["X-Generation-Id"]
    assert first.spec.call_id in broker.left


def test_a_model_that_is_no_longer_allowed_is_a_403(ask, store):
    def change(public_id):
        store.change(public_id, lambda record: {"models": ()})

    response, broker = ask({}, broker=Changing(1, change))
    assert response.status_code == 403
    assert len(broker.calls) == 1


def test_a_model_that_was_allowed_a_moment_ago_is_allowed(client, store):
    key = store.create("tests", models=("demo/slow",))
    headers = {"Authorization": f"Bearer {key}"}
    body = {"model": "demo/echo", "messages": HELLO}
    assert client.post(CHAT, json=body, headers=headers).status_code == 403
    store.change(key.split("_")[2], lambda record: {"models": ("demo/echo",)})
    assert client.post(CHAT, json=body, headers=headers).status_code == 200


@pytest.mark.parametrize("value", ["revoked", "disabled"])
def test_a_key_that_is_no_longer_valid_is_a_401(ask, store, value):
    def change(public_id):
        store.change(public_id, lambda record: {value: True})

    response, broker = ask({}, broker=Changing(1, change))
    assert response.status_code == 401
    assert len(broker.calls) == 1


def test_a_key_that_changes_all_the_time_is_a_503_that_is_worth_a_retry(ask):
    response, broker = ask({}, broker=Changing(9, lambda public_id: None))
    assert (response.status_code, response.headers["x-should-retry"]) == (503, "true")
    assert len(broker.calls) == 2
