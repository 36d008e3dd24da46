"""Who may call what: every route of the app is public, for keys, for operators, or for both."""

from __future__ import annotations

import dataclasses
import re

import orjson
import pytest

from app import create_app
from gateway.account.api_keys import KeyStore
from gateway.settings import Settings
from tests.support.fakes import FakeBroker

ADMIN_KEY = "an-admin-key-of-forty-characters-or-more"
ROUTES = sorted(
    (method, rule.rule, rule.endpoint)
    for rule in create_app(Settings(key_pepper="p" * 40)).url_map.iter_rules()
    for method in rule.methods - {"HEAD", "OPTIONS"}
    if not rule.rule.startswith("/console")  # those have sessions: see test_console.py
)
# Bodies with which these addresses make a call: a route of another shape needs one here.
CLAUDE = "anthropic/claude-sonnet-5-5"  # whose tokens its provider counts
MESSAGES = {"model": "demo/echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
BODIES = {
    "/chat/completions": MESSAGES,
    "/messages": MESSAGES,
    "/messages/count_tokens": {**MESSAGES, "model": CLAUDE},
    "/responses": {"model": "demo/echo", "input": "hi"},
    "/responses/input_tokens": {"model": CLAUDE, "input": "hi"},
    "/embeddings": {"model": "demo/embed", "input": "hi"},
}


@pytest.fixture
def settings(settings):
    return dataclasses.replace(settings, admin_key=ADMIN_KEY)


@pytest.fixture
def send(client):
    def send(method, rule, key=""):
        path = re.sub(r"<(?:\w+:)?\w+>", "abc", rule)
        body = BODIES.get(rule.partition("/v1")[2], {})
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return client.open(
            path,
            method=method,
            data=orjson.dumps(body) if method in ("POST", "PATCH") else None,
            content_type="application/json",
            headers=headers,
            buffered=True,
        )

    return send


@pytest.fixture
def store(redis, settings):
    return KeyStore(redis, settings.key_pepper)


def access(client, endpoint):
    return getattr(client.application.view_functions[endpoint], "access", None)


def refusal(response):
    return response.status_code, response.get_json()["error"]


@pytest.mark.parametrize(("method", "rule", "endpoint"), ROUTES)
def test_every_route_says_who_may_call_it(client, method, rule, endpoint):
    assert access(client, endpoint) in ("public", "key", "operator", "reader")


@pytest.mark.parametrize(("method", "rule", "endpoint"), ROUTES)
def test_no_route_but_public_ones_answers_without_a_key(
    client, broker, send, store, method, rule, endpoint
):
    wrong = store.create("one")[:-49] + "0" * 49
    revoked = store.create("two")
    store.revoke(revoked[13:25])
    for key in ("", wrong, revoked, ADMIN_KEY[:-1], "mk_inference_"):
        response = send(method, rule, key)
        if access(client, endpoint) == "public":
            assert response.status_code in (200, 503)
        else:
            assert response.status_code == 401
            assert response.headers["x-should-retry"] == "false"
    assert broker.calls == []


@pytest.mark.parametrize(("method", "rule", "endpoint"), ROUTES)
def test_only_operators_reach_what_is_for_operators(
    client, broker, send, store, method, rule, endpoint
):
    status = send(method, rule, store.create("one")).status_code
    assert (status == 403) == (access(client, endpoint) == "operator")
    if access(client, endpoint) == "operator":
        assert broker.calls == []


@pytest.mark.parametrize(("method", "rule", "endpoint"), ROUTES)
def test_operators_call_no_model(client, broker, send, store, method, rule, endpoint):
    operator = store.create("one", operator=True)
    for key in (operator, ADMIN_KEY):
        status = send(method, rule, key).status_code
        assert (status == 403) == (access(client, endpoint) == "key")
    assert broker.calls == []


def test_these_bodies_would_reach_a_model(send, broker, store):
    """So the tests above mean something."""
    key = store.create("one")
    called = set()
    for method, rule, _ in ROUTES:
        before = len(broker.calls)
        send(method, rule, key)
        if len(broker.calls) > before:
            called.add(rule.partition("/v1")[2])
    assert called == set(BODIES)


def test_a_revoked_operator_key_is_refused_at_once_by_every_process(client, store):
    """An ordinary key may be known for ten seconds more, but its calls are refused by the queue."""
    key = store.create("one", operator=True)
    headers = {"Authorization": f"Bearer {key}"}
    assert client.get("/inference/v1/keys", headers=headers).status_code == 200
    store.revoke(key[13:25])
    assert client.get("/inference/v1/keys", headers=headers).status_code == 401
    assert client.get("/inference/v1/models", headers=headers).status_code == 401


@pytest.mark.parametrize("header", ["Authorization", "x-api-key"])
def test_the_admin_key_is_an_operator_s(client, header):
    value = f"Bearer {ADMIN_KEY}" if header == "Authorization" else ADMIN_KEY
    assert client.get("/inference/v1/keys", headers={header: value}).status_code == 200


def test_the_admin_key_is_shown_as_a_key_without_limits(client):
    response = client.get("/inference/v1/key", headers={"x-api-key": ADMIN_KEY})
    data = response.get_json()["data"]
    assert (data["id"], data["operator"], data["limit"]) == ("ADMIN_KEY", True, None)
    assert ADMIN_KEY not in response.get_data(as_text=True)


def test_without_an_operator_key_nobody_is_an_operator(make_client, settings, auth):
    client = make_client(dataclasses.replace(settings, admin_key=""), FakeBroker())
    response = client.get("/inference/v1/keys", headers=auth)
    assert response.status_code == 403
    assert response.get_json()["error"]["code"] == "insufficient_permissions"
    empty = client.get("/inference/v1/keys", headers={"Authorization": "Bearer "})
    assert empty.status_code == 401
    assert client.get("/inference/v1/keys", headers={"x-api-key": ""}).status_code == 401


def test_no_address_redirects():
    """Routing knows no host: see Application.create_url_adapter."""
    addresses = create_app(Settings(key_pepper="p" * 40)).url_map
    assert not addresses.merge_slashes
    for rule in addresses.iter_rules():
        assert rule.redirect_to is None, rule
        assert rule.is_leaf or not rule.strict_slashes, rule
