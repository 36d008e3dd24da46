"""Kept responses, as the callers of each API ask for them and see them."""

from __future__ import annotations

import dataclasses

import orjson
import pytest

from gateway.account.api_keys import KeyStore
from gateway.account.owners import owner_store
from gateway.account.record_store import COMMAND
from gateway.queue.protocol import Outcome
from tests.support.fakes import FakeBroker

TURN = {"role": "user", "content": "A secret prompt."}
MODEL = "openai/gpt-4o-mini"
BODIES = {
    "/chat/completions": {"model": MODEL, "messages": [TURN]},
    "/responses": {"model": MODEL, "input": "A secret prompt."},
    "/messages": {"model": MODEL, "max_tokens": 9, "messages": [TURN]},
    "/embeddings": {"model": "openai/text-embedding-3-small", "input": "A secret prompt."},
}
VECTOR = {"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 1, "total_tokens": 1}}
CHAT = "/chat/completions"


@pytest.fixture
def store(redis, settings):
    return KeyStore(redis, settings.key_pepper)


@pytest.fixture
def ask(make_client, settings, store):
    """A function that makes a call; returns its response and the `cache` of its CallSpec."""
    client = None

    def ask(key=None, path=CHAT, header="on", found="miss", body=None, **changes):
        nonlocal client
        broker = FakeBroker(*[Outcome(answer=orjson.dumps(VECTOR))][: path == "/embeddings"])
        broker.cache = found
        client = make_client(dataclasses.replace(settings, **changes), broker)
        headers = {"Authorization": f"Bearer {key or store.create('tests')}"}
        if header is not None:
            headers["X-Cache"] = header
        response = client.post(
            f"/inference/v1{path}", json=BODIES[path] | (body or {}), headers=headers
        )
        return response, broker.calls[0].spec.cache if broker.calls else None

    return ask


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("found", ["hit", "miss"])
def test_a_response_says_whether_it_was_kept(ask, path, stream, found):
    if stream and path == "/embeddings":
        return
    body = {"stream": True} if stream else {}
    response, cache = ask(path=path, found=found, body=body)
    assert (response.status_code, response.headers["X-Cache"]) == (200, found)
    assert cache["seconds"] == 300


@pytest.mark.parametrize("header", [None, "off", "on; ttl=0"])
def test_nothing_is_kept_unless_somebody_wants_it(ask, header):
    response, cache = ask(header=header, found="")
    assert (response.status_code, cache) == (200, {})
    assert "X-Cache" not in response.headers


def test_the_key_may_want_it_for_all_its_calls(ask, store):
    key = store.create("tests", cache_seconds=60)
    assert ask(key, header=None)[1]["seconds"] == 60
    assert ask(key, header="on")[1]["seconds"] == 60
    assert ask(key, header="on; ttl=9")[1]["seconds"] == 9
    assert ask(key, header="off")[1] == {}


def test_an_operator_may_keep_nothing_at_all(ask):
    assert ask(cache_bytes=0)[1] == {}


def test_a_wrong_header_is_refused(ask):
    response, cache = ask(header="forever")
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, "X-Cache")
    assert cache is None


def test_the_name_says_nothing_of_the_prompt_and_is_that_of_the_same_request_alone(ask, store):
    key = store.create("tests")
    names = {
        ask(key, body=body)[1]["name"]
        for body in ({}, {"seed": 1}, {"stream": True}, {"messages": [{**TURN, "content": "B"}]})
    }
    assert len(names) == 4
    assert ask(key)[1]["name"] in names
    assert ask(key, body={"user": None})[1]["name"] in names
    assert ask(key, key_pepper="q" * 40)[1] is None  # another pepper knows no such key


def test_no_key_gets_the_responses_of_another_unless_their_owner_says_so(ask, store, redis):
    owners = owner_store(redis)
    for owner, shares in (("team", True), ("strangers", False)):
        owners.create(owner, {"name": owner, "share_cache": shares}, COMMAND)
    names = {
        owner: [
            ask(store.create("tests", **({"owner": owner} if owner else {})))[1]["name"]
            for _ in range(2)
        ]
        for owner in ("", "team", "strangers")
    }
    assert len(set(names["team"])) == 1
    assert len(set(names[""]) | set(names["strangers"]) | set(names["team"])) == 5


def test_counts_of_tokens_are_never_kept(ask, make_client, settings, store):
    broker = FakeBroker(Outcome(answer=b'{"input_tokens":3}'))
    headers = {"Authorization": f"Bearer {store.create('tests')}", "X-Cache": "on"}
    body = {"model": "anthropic/claude-sonnet-5-5", "messages": [TURN]}
    client = make_client(settings, broker)
    response = client.post("/inference/v1/messages/count_tokens", json=body, headers=headers)
    assert response.status_code == 200
    assert broker.calls[0].spec.cache == {}
