"""The console: who is signed in, what protects the session, and the playground's calls."""

from __future__ import annotations

import dataclasses
import re

import pytest
from werkzeug.datastructures import Headers

from api.console import session
from app import create_app
from gateway.account import sign_in_links
from gateway.account.api_keys import public_id
from gateway.queue import keys
from gateway.settings import Settings
from tests.support.fakes import FakeBroker

ADMIN_KEY = "an-admin-key-of-forty-characters-or-more"
ROUTES = sorted(
    (method, rule.rule, rule.endpoint)
    for rule in create_app(Settings(key_pepper="p" * 40)).url_map.iter_rules()
    for method in rule.methods - {"HEAD", "OPTIONS"}
    if rule.rule.startswith("/console")
)
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
CHAT = {"model": "demo/echo", "messages": [{"role": "user", "content": "hi"}]}


def token(page: str) -> str:
    return re.search(r'name="csrf_token" value="([^"]+)"', page)[1]


def sign_in(client, key, **fields):
    page = client.get("/console/sign-in", headers=BROWSER).get_data(as_text=True)
    data = {"csrf_token": token(page), "key": key, **fields}
    return client.post("/console/sign-in", data=data, headers=BROWSER)


def meta_token(client) -> str:
    page = client.get("/console/playground", headers=BROWSER).get_data(as_text=True)
    return re.search(r'name="csrf-token" content="([^"]+)"', page)[1]


def access(client, endpoint):
    return client.application.view_functions[endpoint].access


def path(rule):
    return re.sub(r"<(?:\w+:)?\w+>", "abc", rule)


def test_of_more_sessions_than_a_key_may_have_the_oldest_ends(client, redis, key, monkeypatch):
    monkeypatch.setattr(session, "MAX_SESSIONS", 2)
    browsers = [client.application.test_client() for _ in range(3)]
    for browser in browsers:
        sign_in(browser, key)
    pages = [browser.get("/console/playground", headers=BROWSER) for browser in browsers]
    assert [page.status_code for page in pages] == [303, 200, 200]
    assert len(redis.keys(keys.console_session("*"))) == 2


# Who may see what


def test_every_page_says_who_may_see_it(client):
    kinds = {endpoint: access(client, endpoint) for _, _, endpoint in ROUTES}
    assert set(kinds.values()) == {"public", "session", "operator session"}
    public = {endpoint for endpoint, kind in kinds.items() if kind == "public"}
    assert public == {"console.sign_in", "console.submit_sign_in", "console.static"}


def test_nobody_sees_a_page_without_signing_in(client, broker, key):
    # A key in a header is for the APIs: a page of another site could not send it, nor need it.
    headers = Headers({**BROWSER, "Authorization": f"Bearer {key}"})
    for method, rule, endpoint in ROUTES:
        if access(client, endpoint) == "public":
            continue
        response = client.open(path(rule), method=method, headers=headers)
        if method == "GET":
            assert response.status_code == 303
            assert response.location.startswith("/console/sign-in?next=/console")
        else:
            assert response.status_code == 401
        assert client.open(path(rule), method=method).status_code == 401  # a script
    assert broker.calls == []


def test_every_change_needs_the_token_of_the_session(client, broker, redis):
    sign_in(client, ADMIN_KEY)
    before = sorted(redis.keys("*"))
    for method, rule, _ in ROUTES:
        for sent in ({}, {"csrf_token": "0" * 64}) if method != "GET" else ():
            response = client.open(path(rule), method=method, data=sent, headers=BROWSER)
            assert response.status_code == 403
            assert "expired" in response.get_data(as_text=True)
    assert broker.calls == []
    assert sorted(redis.keys("*")) == before


def test_only_operators_see_what_is_for_operators(client, key):
    sign_in(client, key)
    headers = {**BROWSER, "X-CSRF-Token": meta_token(client)}
    for method, rule, endpoint in ROUTES:
        if access(client, endpoint) == "public" or endpoint == "console.sign_out":
            continue
        response = client.open(path(rule), method=method, headers=headers)
        operators = access(client, endpoint) == "operator session"
        assert (response.status_code == 403) == operators, rule
        response.close()


def test_a_change_from_another_site_is_refused_even_with_the_token(client, key):
    sign_in(client, key)
    headers = {**BROWSER, "Sec-Fetch-Site": "cross-site", "X-CSRF-Token": meta_token(client)}
    assert client.post("/console/sign-out", headers=headers).status_code == 403


# Sessions


def test_a_key_signs_in_and_out(client, key):
    response = sign_in(client, key)
    assert (response.status_code, response.location) == (303, "/console")
    assert client.get("/console").location == "/console/playground"
    page = client.get("/console/playground", headers=BROWSER)
    assert page.status_code == 200
    client.post("/console/sign-out", headers={"X-CSRF-Token": meta_token(client)})
    assert client.get("/console/playground", headers=BROWSER).status_code == 303


def test_signing_out_ends_the_session_and_not_only_its_cookie(client, key):
    sign_in(client, key)
    cookie = client.get_cookie("console_session", path="/console")
    client.post("/console/sign-out", headers={"X-CSRF-Token": meta_token(client)})
    client.set_cookie("console_session", cookie.value, path="/console")
    assert client.get("/console/playground", headers=BROWSER).status_code == 303


def test_the_cookie_is_for_the_console_alone_and_has_no_secret(client, key, redis):
    response = sign_in(client, key)
    cookie = client.get_cookie("console_session", path="/console")
    assert cookie.http_only and cookie.same_site == "Lax" and not cookie.secure
    secret = key[26:]
    assert secret not in cookie.value and key not in response.get_data(as_text=True)
    assert not any(secret.encode() in redis.dump(name) for name in redis.keys("*"))


def test_the_cookie_is_secure_where_the_service_is_reached_over_tls(client, key):
    page = client.get("/console/sign-in").get_data(as_text=True)
    data = {"csrf_token": token(page), "key": key}
    client.post("/console/sign-in", data=data, headers={"X-Forwarded-Proto": "https"})
    assert client.get_cookie("console_session", path="/console").secure


def test_a_cookie_that_was_changed_signs_nobody_in(client, key):
    sign_in(client, key)
    value = client.get_cookie("console_session", path="/console").value
    other = "A" if value[-2] != "A" else "B"  # the last character has bits that say nothing
    for changed in (value[:-2] + other + value[-1], value[1:], "", "x.y", "é"):
        client.set_cookie("console_session", changed, path="/console")
        assert client.get("/console/playground", headers=BROWSER).status_code == 303


@pytest.mark.parametrize("change", ["revoke", "disable", "expire", "rotate"])
def test_a_session_ends_with_the_secret_that_signed_in(client, key, store, change):
    sign_in(client, key)
    id = public_id(key)
    if change == "revoke":
        store.revoke(id)
    elif change == "rotate":
        store.rotate(id, 0)
    else:
        values = {"disabled": True} if change == "disable" else {"expires": 1}
        store.change(id, lambda record: values)
    assert client.get("/console/playground", headers=BROWSER).status_code == 303


def test_a_session_lives_on_while_the_secret_before_a_rotation_is_valid(client, key, store):
    sign_in(client, key)
    store.rotate(public_id(key), 60)
    assert client.get("/console/playground", headers=BROWSER).status_code == 200


def test_a_session_ends_with_the_admin_key(make_client, settings, client):
    sign_in(client, ADMIN_KEY)
    value = client.get_cookie("console_session", path="/console").value
    for admin_key in ("", ADMIN_KEY[::-1]):
        other = make_client(dataclasses.replace(settings, admin_key=admin_key), FakeBroker())
        other.set_cookie("console_session", value, path="/console")
        assert other.get("/console/playground", headers=BROWSER).status_code == 303


def test_a_session_that_is_not_used_expires(client, key, redis):
    sign_in(client, key)
    (name,) = redis.keys(keys.console_session("*"))
    assert keys.CONSOLE_SESSION_SECONDS - 5 < redis.ttl(name) <= keys.CONSOLE_SESSION_SECONDS
    redis.delete(name)
    assert client.get("/console/playground", headers=BROWSER).status_code == 303


def test_a_wrong_key_is_refused_without_repeating_it(client, key):
    wrong = key[:-49] + "0" * 49
    response = sign_in(client, wrong)
    page = response.get_data(as_text=True)
    assert response.status_code == 401
    assert 'role="alert"' in page and wrong not in page


def test_the_sign_in_form_needs_its_token_too(client, key):
    client.get("/console/sign-in")
    for sent in ("", "0" * 64):
        data = {"csrf_token": sent, "key": key}
        assert client.post("/console/sign-in", data=data, headers=BROWSER).status_code == 403
    assert client.get_cookie("console_session", path="/console") is None


def test_failed_attempts_are_throttled_and_good_ones_are_not(client, key):
    for _ in range(12):
        assert sign_in(client, key).status_code == 303
    statuses = [sign_in(client, "wrong").status_code for _ in range(11)]
    assert statuses == [401] * 10 + [429]
    response = sign_in(client, key)
    assert response.status_code == 429
    assert "Too many failed attempts" in response.get_data(as_text=True)


def test_clients_behind_a_proxy_are_throttled_one_by_one_and_then_together(client, key):
    page = client.get("/console/sign-in").get_data(as_text=True)

    def attempt(address, sent="wrong"):
        data = {"csrf_token": token(page), "key": sent}
        headers = {"X-Forwarded-For": f"spoofed, {address}"}
        return client.post("/console/sign-in", data=data, headers=headers).status_code

    assert [attempt("192.0.2.1") for _ in range(11)][-1] == 429
    assert attempt("192.0.2.2", key) == 303
    assert 429 in [attempt(f"192.0.2.{n}") for n in range(3, 120)]


@pytest.mark.parametrize(
    "address", ["https://example.com/console/", "//example.com/console/", "/other", "/console/\\x"]
)
def test_signing_in_leads_to_no_other_site(client, key, address):
    assert sign_in(client, key, next=address).location == "/console"


def test_signing_in_leads_to_the_page_that_was_asked_for(client, key):
    response = client.get("/console/playground?model=demo/echo", headers=BROWSER)
    page = client.get(response.location, headers=BROWSER).get_data(as_text=True)
    address = re.search(r'name="next" value="([^"]+)"', page)[1]
    assert sign_in(client, key, next=address).location == "/console/playground?model=demo/echo"


def test_a_link_signs_in_once(client, key, redis):
    link = sign_in_links.make(redis, public_id(key))
    (name,) = redis.keys(keys.console_link("*"))
    assert link.encode() not in name and redis.ttl(name) > 0
    page = client.get(f"/console/sign-in?link={link}", headers=BROWSER).get_data(as_text=True)
    assert redis.exists(name)  # a preview of the link does not use it up
    data = {"csrf_token": token(page), "link": link}
    assert client.post("/console/sign-in", data=data, headers=BROWSER).status_code == 303
    assert client.get("/console/playground", headers=BROWSER).status_code == 200
    again = client.post("/console/sign-in", data=data, headers=BROWSER)
    assert again.status_code == 401
    assert "has been used" in again.get_data(as_text=True)


# Pages


def test_a_page_may_load_and_run_nothing_but_the_console_s_own_files(client, key):
    sign_in(client, key)
    for address in ("/console/playground", "/console/sign-in", "/console/nowhere"):
        response = client.get(address, headers=BROWSER)
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "http" not in policy
        assert response.headers["Cache-Control"] == "no-store"
        page = response.get_data(as_text=True)
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]+src=)", page)
        files = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="([^"]+)"', page)
        assert files
        for name in files:
            assert name.startswith("/console/static/")
            assert "immutable" in client.get(name).headers["Cache-Control"]


def test_an_unknown_page_is_a_page(client, key):
    sign_in(client, key)
    response = client.get("/console/nowhere", headers=BROWSER)
    assert response.status_code == 404
    page = response.get_data(as_text=True)
    assert "<h1>Not found</h1>" in page and "Sign out" in page
    assert client.get("/console/static/nothing.css").status_code == 404


# Playground


def call(client, body=CHAT, **query):
    headers = {"X-CSRF-Token": meta_token(client)}
    return client.post("/console/playground/call", json=body, headers=headers, query_string=query)


def test_a_call_of_the_playground_is_a_call_of_the_key(client, broker, key):
    sign_in(client, key)
    response = call(client)
    assert response.get_json()["object"] == "chat.completion"
    assert response.headers["X-Generation-Id"] == broker.calls[0].spec.call_id
    assert broker.calls[0].admission.public_id == public_id(key)


def test_an_operator_chooses_the_key_that_pays(client, broker, key, store):
    sign_in(client, ADMIN_KEY)
    operator = store.create("more", operator=True)
    for payer in ("", "unknown", public_id(operator), "ADMIN_KEY"):
        assert call(client, key=payer).status_code == 400
    assert broker.calls == []
    assert call(client, key=public_id(key)).status_code == 200
    assert broker.calls[0].admission.public_id == public_id(key)


def test_a_caller_cannot_let_another_key_pay(client, broker, key, make_key):
    sign_in(client, key)
    call(client, key=public_id(make_key("other")))
    assert broker.calls[0].admission.public_id == public_id(key)


def test_the_playground_keeps_to_the_models_of_the_key(client, broker, make_key):
    sign_in(client, make_key("narrow", models=("demo/echo",)))
    page = client.get("/console/playground", headers=BROWSER).get_data(as_text=True)
    options = re.findall(r'<option value="([^"]+/[^"]+)">', page)
    assert options == ["demo/echo"]
    response = call(client, {**CHAT, "model": "demo/slow"})
    assert response.status_code == 403
    assert "does not have access" in response.get_json()["error"]["message"]
    assert broker.calls == []


def test_an_error_of_a_call_is_json(client, key):
    sign_in(client, key)
    response = call(client, {"model": "demo/echo", "messages": []})
    assert response.status_code == 400
    assert response.get_json()["error"]["param"] == "messages"
