"""Limits of keys with real processes, as the official clients see them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI

from gateway.account.owners import owner_store
from gateway.account.record_store import COMMAND
from tests.support.stack import PATIENCE_SECONDS, Stack, until

TURNS: Any = [{"role": "user", "content": "one two three"}]
MODEL = "fake/echo"


class Clients:
    """The official clients with one key, and the requests that they have sent."""

    def __init__(self, stack: Stack, ending: ExitStack, **limits: Any) -> None:
        self.sent: list[httpx2.Request] = []
        self.key = stack.keys.create("limited", **limits)
        hooks = {"request": [self.sent.append]}
        http = ending.enter_context(httpx2.Client(event_hooks=hooks, timeout=PATIENCE_SECONDS))
        base = stack.url.removesuffix("/v1")
        self.openai = OpenAI(api_key=self.key, base_url=stack.url, http_client=http)
        self.anthropic = Anthropic(api_key=self.key, base_url=base, http_client=http)

    def chat(self, **more: Any) -> Any:
        return self.openai.chat.completions.with_raw_response.create(
            **{"model": MODEL, "messages": TURNS, **more}
        )

    def responses(self, **more: Any) -> Any:
        return self.openai.responses.with_raw_response.create(
            **{"model": MODEL, "input": "one two three", **more}
        )

    def messages(self, **more: Any) -> Any:
        return self.anthropic.messages.with_raw_response.create(
            **{"model": MODEL, "max_tokens": 9, "messages": TURNS, **more}
        )


@pytest.fixture
def clients(stack: Stack) -> Iterator[Any]:
    """A function that makes clients whose key has these limits."""
    with ExitStack() as ending:
        yield lambda **limits: Clients(stack, ending, **limits)


APIS = ["chat", "responses", "messages"]
LIBRARIES: dict[str, Any] = {"chat": openai, "responses": openai, "messages": anthropic}


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("stream", [False, True])
def test_each_call_says_what_is_left_and_the_last_is_refused(
    clients: Any, api: str, stream: bool
) -> None:
    limited = clients(rpm=2, tpm=100_000)
    limited.openai.max_retries = limited.anthropic.max_retries = 0
    call = getattr(limited, api)
    for left in ("1", "0"):
        headers = call(stream=stream).headers
        assert headers["x-ratelimit-limit-requests"] == "2"
        assert headers["x-ratelimit-remaining-requests"] == left
        assert headers["x-ratelimit-limit-tokens"] == "100000"
        assert int(headers["x-ratelimit-remaining-tokens"]) < 100_000
        assert headers["x-ratelimit-reset-requests"].endswith("s")
        if api == "messages":
            assert headers["anthropic-ratelimit-requests-remaining"] == left
    library = LIBRARIES[api]
    with pytest.raises(library.RateLimitError) as caught:
        call(stream=stream)
    headers = caught.value.response.headers
    assert headers["x-limit-name"] == "requests_per_minute"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert 25_000 < int(headers["retry-after-ms"]) <= 30_000


@pytest.mark.parametrize("api", APIS)
def test_a_small_rest_of_a_budget_caps_the_output_and_none_refuses_without_retries(
    stack: Stack, clients: Any, api: str
) -> None:
    limited = clients(limit=20, limit_unit="tokens", limit_reset="monthly")
    call = getattr(limited, api)
    stack.upstream.clear()
    first = call()
    cap = int(first.headers.get("X-Max-Tokens-Capped", "9"))
    assert 1 <= cap < 20
    (sent,) = stack.upstream.log()
    assert sent["body"]["max_tokens"] == cap
    library = LIBRARIES[api]

    def used_up() -> Any:
        try:
            call()
        except library.RateLimitError as error:
            return error
        return None

    error = until(used_up, what="a refusal")
    count = len(limited.sent)
    with pytest.raises(library.RateLimitError):
        call()
    assert len(limited.sent) == count + 1  # one request, no retry
    headers = error.response.headers
    assert (headers["x-limit-name"], headers["x-should-retry"]) == ("limit", "false")
    assert headers["x-limit-reset"].endswith("T00:00:00Z")
    if api != "messages":
        assert error.code == "insufficient_quota"


@pytest.mark.parametrize("api", APIS)
def test_a_model_that_is_not_allowed_is_a_permission_error(clients: Any, api: str) -> None:
    limited = clients(models=("demo/*",))
    with pytest.raises(LIBRARIES[api].PermissionDeniedError):
        getattr(limited, api)()
    assert len(limited.sent) == 1
    getattr(limited, api)(model="demo/echo")


def test_a_call_over_those_in_flight_waits_or_is_refused(stack: Stack, clients: Any) -> None:
    key = clients(max_in_flight=1).key
    headers = {"Authorization": f"Bearer {key}"}
    stack.upstream.clear()
    waiting = stack.in_background("fake/delay-1000", headers=headers)
    stack.until_called()
    refused = stack.ask(MODEL, headers={**headers, "X-Queue": "refuse"})
    assert (refused.status_code, refused.headers["x-limit-name"]) == (429, "max_in_flight")
    assert stack.ask(MODEL, headers=headers).status_code == 200
    assert waiting.get(timeout=PATIENCE_SECONDS).status_code == 200


def test_a_change_of_the_key_holds_for_the_next_call(stack: Stack, clients: Any) -> None:
    limited = clients()
    limited.chat()
    public_id = limited.key.split("_")[2]
    stack.keys.change(public_id, lambda record: {"models": ("demo/*",)})
    with pytest.raises(openai.PermissionDeniedError):
        limited.chat()
    stack.keys.change(public_id, lambda record: {"models": None, "rpm": 1})
    assert limited.chat().headers["x-ratelimit-limit-requests"] == "1"


def test_an_owner_s_limit_holds_for_all_its_keys(stack: Stack, clients: Any) -> None:
    owners = owner_store(stack.redis)
    owners.create("team", {"name": "Team", "rpm": 1}, COMMAND)
    first, second = clients(owner="team"), clients(owner="team", rpm=100)
    second.openai.max_retries = 0
    assert first.chat().headers["x-ratelimit-remaining-requests"] == "0"
    with pytest.raises(openai.RateLimitError) as caught:
        second.chat()
    assert caught.value.response.headers["x-limit-scope"] == "owner"
