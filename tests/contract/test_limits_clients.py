"""What the official clients make of limits: the class of the exception, and whether they retry."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI

from gateway.account.refusals import limited
from gateway.errors import ModelNotAllowed, RecordsBacklog
from tests.support.fakes import ANSWER, STREAM, FakeBroker

MODEL = "openai/gpt-4o-mini"
TURNS: Any = [{"role": "user", "content": "Hello!"}]
RETRIES = 2
RATE = {"name": "requests_per_minute", "scope": "key", "reset_ms": 10, "limit": 60}
BUDGET = {"name": "limit", "scope": "key", "unit": "usd", "window": "daily", "reset_ms": 10}


class Refusing(FakeBroker):
    """A broker that refuses the first calls with this error, and answers the rest."""

    def __init__(self, error: Any, times: int) -> None:
        super().__init__()
        self.error, self.times = error, times

    def submit(self, spec: Any, *args: Any) -> Any:
        refuses = len(self.calls) < self.times
        self.script = (self.error(),) if refuses else STREAM if spec.stream else (ANSWER,)
        return super().submit(spec, *args)


def chat(client: OpenAI, stream: bool) -> Any:
    return client.chat.completions.create(model=MODEL, messages=TURNS, stream=stream)


def responses(client: OpenAI, stream: bool) -> Any:
    return client.responses.create(model=MODEL, input="Hello!", stream=stream)


def messages(client: Anthropic, stream: bool) -> Any:
    return client.messages.create(model=MODEL, max_tokens=9, messages=TURNS, stream=stream)


@pytest.fixture
def call(make_client, connect, settings, key):
    """A function that returns a client's library, and a function that makes a call by it."""

    def call(send: Any, broker: FakeBroker, stream: bool) -> tuple[Any, Any]:
        app = make_client(settings, broker).application
        library, kind = (anthropic, Anthropic) if send is messages else (openai, OpenAI)
        client = connect(kind, app, api_key=key, max_retries=RETRIES)
        return library, lambda: send(client, stream)

    return call


every_call = pytest.mark.parametrize("send", [chat, responses, messages])
both_ways = pytest.mark.parametrize("stream", [False, True])


@every_call
@both_ways
def test_a_rate_limit_is_waited_for(call: Any, send: Any, stream: bool) -> None:
    broker = Refusing(lambda: limited(RATE), RETRIES)
    _, make = call(send, broker, stream)
    make()
    assert len(broker.calls) == 1 + RETRIES


@every_call
@both_ways
def test_a_rate_limit_that_stays_is_a_rate_limit_error(call: Any, send: Any, stream: bool) -> None:
    broker = Refusing(lambda: limited(RATE), 99)
    library, make = call(send, broker, stream)
    with pytest.raises(library.RateLimitError) as caught:
        make()
    assert len(broker.calls) == 1 + RETRIES
    assert "requests per minute" in str(caught.value)
    assert caught.value.response.headers["x-limit-name"] == "requests_per_minute"


@every_call
@both_ways
def test_a_budget_is_a_rate_limit_error_that_no_client_tries_again(
    call: Any, send: Any, stream: bool
) -> None:
    broker = Refusing(lambda: limited(BUDGET), 99)
    library, make = call(send, broker, stream)
    with pytest.raises(library.RateLimitError) as caught:
        make()
    assert len(broker.calls) == 1
    if library is openai:
        assert (caught.value.code, caught.value.type) == ("insufficient_quota",) * 2


@every_call
def test_a_model_that_is_not_allowed_is_a_permission_error(call: Any, send: Any) -> None:
    broker = Refusing(ModelNotAllowed, 99)
    library, make = call(send, broker, False)
    with pytest.raises(library.PermissionDeniedError) as caught:
        make()
    assert len(broker.calls) == 1
    if library is openai:
        assert caught.value.code == "model_not_found"


@every_call
def test_a_full_backlog_of_records_is_waited_for(call: Any, send: Any) -> None:
    broker = Refusing(lambda: RecordsBacklog(retry_after=0.01), 1)
    _, make = call(send, broker, False)
    make()
    assert len(broker.calls) == 2
