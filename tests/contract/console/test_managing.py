"""The console's pages of keys, owners and models: what operators change, what others see."""

from __future__ import annotations

import dataclasses
import re
import time

import pytest

from gateway.account.api_keys import public_id
from gateway.account.key_fields import NANO
from gateway.account.owners import owner_store
from gateway.account.record_store import COMMAND
from gateway.queue import keys, steering
from tests.contract.console.conftest import ADMIN_KEY, Browser


def secret(page):
    return re.search(r"data-secret>([^<]+)<", page)[1]


def fields(page, form):
    """What the fields of a form hold."""
    text = page.partition(f'action="{form}"')[2].partition("</form>")[0]
    values = dict(re.findall(r'<input [^>]*?name="(\w+)" value="([^"]*)"', text))
    for name, options in re.findall(r'<select id="\w+" name="(\w+)"[^>]*>(.*?)</select>', text):
        values[name] = (re.search(r'value="(\w*)" selected', options) or [0, ""])[1]
    return values


@pytest.fixture
def owners(redis):
    return owner_store(redis)


def test_a_key_is_made_with_its_limits_and_its_secret_is_shown_once(operator, store, owners):
    owners.create("search", {}, COMMAND)
    page = operator.send(
        "/console/keys/new",
        name="nightly <report>",
        owner="search",
        limit="12.5",
        limit_unit="usd",
        limit_reset="daily",
        alerts="0.8 0.95",
        requests_per_minute="60",
        allowed_models="demo/*, openai/gpt-4o",
        priority="batch",
        weight="2",
        expires_at="30d",
        cache_seconds="1h",
        retry_on_worker_loss="on",
        metadata="team=search, level=2",
    )
    record = store.verify(secret(page))
    assert (record.name, record.owner, record.priority) == ("nightly <report>", "search", "batch")
    assert (record.limit, record.limit_reset, record.rpm) == (12.5 * NANO, "daily", 60)
    assert record.models == ("demo/*", "openai/gpt-4o")
    assert (record.alerts, record.weight, record.cache_seconds) == ((0.8, 0.95), 2, 3_600)
    assert record.metadata == {"team": "search", "level": "2"}
    assert record.retry_on_worker_loss
    assert abs(record.expires - time.time() - 30 * 86_400) < 60
    assert record.created_by == "ADMIN_KEY"
    one = operator.get(f"/console/keys/{record.public_id}")
    assert secret(page) not in one and "nightly &lt;report&gt;" in one


def test_a_form_shows_what_it_would_set(operator, store, make_key):
    values = {"limit": NANO // 3, "limit_reset": "weekly", "rpm": 7, "models": ("a/b", "c/*")}
    values |= {"metadata": {"a": "b"}, "retry_on_worker_loss": True}
    id = public_id(make_key("one", cache_seconds=90, **values))
    before = store.get(id)
    address = f"/console/keys/{id}"
    shown = fields(operator.get(address), address)
    assert shown["limit"] == "0.333333333" and shown["allowed_models"] == "a/b, c/*"
    page = operator.send(address, **shown)
    assert "has been changed" in page
    assert store.get(id) == before


def test_a_key_is_changed_and_what_is_emptied_is_taken_away(operator, store, make_key, redis):
    id = public_id(make_key("one", limit=5 * NANO, rpm=7, tpm=70))
    address = f"/console/keys/{id}"
    shown = fields(operator.get(address), address)
    operator.send(address, **{**shown, "limit": "", "requests_per_minute": "8", "name": "two"})
    record = store.get(id)
    assert (record.limit, record.rpm, record.tpm, record.name) == (None, 8, 70, "two")
    entry = redis.xrevrange(keys.AUDIT, count=1)[0][1]
    assert b"ADMIN_KEY" in b"".join(entry.values())


def test_what_two_operators_change_at_once_is_both_kept(operator, store, make_key):
    id = public_id(make_key("one", limit=5 * NANO, rpm=7))
    address = f"/console/keys/{id}"
    first = fields(operator.get(address), address)
    second = fields(operator.get(address), address)
    operator.send(address, **{**first, "requests_per_minute": "8"})
    page = operator.send(address, 400, **{**second, "limit": "much"})
    corrected = fields(page, address)
    operator.send(address, **{**corrected, "limit": "9"})
    assert (store.get(id).limit, store.get(id).rpm) == (9 * NANO, 8)


def test_an_amount_keeps_the_unit_that_was_shown_beside_it(operator, store, make_key):
    id = public_id(make_key("one", limit=500_000, limit_unit="tokens"))
    address = f"/console/keys/{id}"
    first = fields(operator.get(address), address)
    second = fields(operator.get(address), address)
    operator.send(address, **{**first, "limit": "50", "limit_unit": "usd"})
    operator.send(address, **{**second, "limit": "600000"})
    assert (store.get(id).limit, store.get(id).limit_unit) == (600_000, "tokens")


def test_a_page_of_the_previous_release_can_be_sent(operator, store, make_key):
    id = public_id(make_key("one", limit=5 * NANO, rpm=7))
    address = f"/console/keys/{id}"
    page = fields(operator.get(address), address)
    old = {name: text for name, text in page.items() if not name.startswith("shown_")}
    operator.send(address, **{**old, "limit": ""})
    assert (store.get(id).limit, store.get(id).rpm) == (None, 7)


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("limit", "much", "is no number"),
        ("requests_per_minute", "0", "below minimum value"),
        ("owner", "nobody", "there is no such owner"),
        ("expires_at", "soon", "is neither a time"),
        ("alerts", "7", "above maximum value"),
        ("allowed_models", "a*b", "Invalid"),
        ("name", "", "Missing required parameter"),
    ],
)
def test_a_wrong_field_is_named_and_what_was_entered_stays(operator, store, field, text, message):
    page = operator.send(
        "/console/keys/new", 400, **{"name": "one", "tokens_per_minute": "9k", field: text}
    )
    error = page.partition(f'id="error-{field}"')[2].partition("</p>")[0]
    assert message in error
    assert 'value="9k"' in page
    assert list(store.all()) == []


def test_a_wrong_change_is_named_too_and_changes_nothing(operator, store, make_key):
    id = public_id(make_key("one", rpm=7))
    page = operator.send(f"/console/keys/{id}", 400, name="two", requests_per_minute="-1")
    assert "is no number" in page.partition('id="error-requests_per_minute"')[2]
    assert (store.get(id).name, store.get(id).rpm) == ("one", 7)


def test_the_secret_of_a_webhook_is_shown_once(make_client, settings, broker, store):
    allowing = dataclasses.replace(settings, webhook_hosts=("example.com",))
    browser = Browser(make_client(allowing, broker))
    browser.sign_in(ADMIN_KEY)
    page = browser.send("/console/keys/new", name="a", webhook_url="https://example.com/one")
    first = re.search(r"data-webhook>(whsec_[^<]+)<", page)[1]
    address = f"/console/keys/{store.verify(secret(page)).public_id}"
    shown = fields(browser.get(address), address)
    assert "data-webhook" not in browser.send(address, **{**shown, "name": "b"})
    page = browser.send(address, **{**shown, "webhook_url": "https://example.com/two"})
    assert re.search(r"data-webhook>(whsec_[^<]+)<", page)[1] != first
    assert "data-secret" not in page
    page = browser.send(address, 400, **{**shown, "webhook_url": "https://other.com/"})
    assert "WEBHOOK_HOSTS" in page.partition('id="error-webhook_url"')[2]


def test_a_key_is_rotated(operator, store, make_key):
    key = make_key("one")
    page = operator.send(f"/console/keys/{public_id(key)}/rotate", grace="3600")
    assert store.verify(secret(page)).public_id == public_id(key)
    assert "stays valid for 1 hour" in page
    store.verify(key)
    page = operator.send(f"/console/keys/{public_id(key)}/rotate", grace="0")
    assert "no longer valid" in page


def test_a_key_is_disabled_enabled_and_revoked(operator, store, make_key):
    id = public_id(make_key("one"))
    operator.send(f"/console/keys/{id}/switch", disabled="1")
    assert store.get(id).disabled
    operator.send(f"/console/keys/{id}/switch", disabled="0")
    assert not store.get(id).disabled
    assert "has been revoked" in operator.send(f"/console/keys/{id}/revoke")
    assert store.get(id).revoked
    operator.get(f"/console/keys/{id}", 404)
    operator.send(f"/console/keys/{id}/revoke", 404)
    assert "No keys yet" in operator.get("/console/keys")


def test_extra_budget_is_for_the_current_window(operator, store, make_key):
    id = public_id(make_key("one", limit=NANO, limit_reset="daily"))
    operator.send(f"/console/keys/{id}/extra", limit_extra="2")
    record = store.get(id)
    assert record.limit_extra == 2 * NANO
    assert 0 < record.limit_extra_until - time.time() <= 86_400
    operator.send(f"/console/keys/{id}/extra", limit_extra="")
    assert store.get(id).limit_extra is None


def test_an_operator_key_is_made_when_it_is_ticked(operator, store):
    page = operator.send("/console/keys/new", name="ops", operator="1")
    assert store.verify(secret(page)).operator


def test_keys_are_searched_and_paged(operator, make_key):
    for number in range(103):
        make_key(f"key {number:03}")
    page = operator.get("/console/keys")
    assert page.count('<th scope="row"') == 100 and "key 099" in page and ">Next<" in page
    page = operator.get("/console/keys?start=100")
    assert page.count('<th scope="row"') == 3 and ">Previous<" in page
    assert operator.get("/console/keys?search=KEY%20007").count('<th scope="row"') == 1
    assert "No key matches" in operator.get("/console/keys?search=nothing")
    operator.get("/console/keys?start=-7")
    operator.get("/console/keys?start=x")


def test_a_caller_sees_its_own_limits_and_no_form(browser, make_key):
    browser.sign_in(make_key("mine", limit=3 * NANO, limit_reset="weekly", rpm=60))
    page = browser.get("/console/key")
    assert "$3.00" in page and "a week" in page and ">60<" in page
    assert page.partition("<main")[2].count("<form") == 0


def test_an_owner_is_made_changed_disabled_and_deleted(operator, owners, make_key, store):
    page = operator.send(
        "/console/owners/new", id="search", name="Search team", limit="500", limit_reset="monthly"
    )
    assert "has been created" in page and "Search team" in page
    assert operator.send("/console/owners/new", 409, id="search").count("owner with this id") == 1
    address = "/console/owners/search"
    shown = fields(operator.get(address), address)
    operator.send(address, **{**shown, "max_in_flight": "9"})
    record = owners.read("search")
    assert (record.limit, record.max_in_flight, record.name) == (500 * NANO, 9, "Search team")
    operator.send(f"{address}/extra", limit_extra="10")
    assert owners.read("search").limit_extra == 10 * NANO
    operator.send(f"{address}/switch", disabled="1")
    assert owners.read("search").disabled
    id = public_id(make_key("member", owner="search"))
    assert "member" in operator.get(address)
    assert "has 1 API keys" in operator.send(f"{address}/delete", 409)
    store.revoke(id)
    assert "has been deleted" in operator.send(f"{address}/delete")
    operator.get(address, 404)


def test_models_have_prices_limits_and_the_health_of_their_route(operator, redis, settings):
    now = int(time.time() * 1000)
    failures = settings.breaker_failures
    redis.hset(keys.BREAKERS, "openai/gpt-4o", f"{failures} {now} {now + 60_000} abc=5")
    redis.hset(keys.BREAKERS, "openai/gpt-4o-mini", f"1 {now} 0")
    page = operator.get("/console/models")
    health = dict(
        re.findall(
            r'models/([\w./-]+)">.*?</th>\s*<td[^>]*><span class="badge \w*">(\w+)<', page, re.S
        )
    )
    assert health["openai/gpt-4o"] == "open"
    assert health["openai/gpt-4o-mini"] == "failing"
    assert health["anthropic/claude-sonnet-5-5"] == "healthy"
    assert "2027-01-14" in page
    one = operator.get("/console/models/openai/gpt-4o-mini")
    for text in ("$0.15", "$0.60", "128,000 tokens", "Use openai/gpt-6-luna instead", "1 failures"):
        assert text in one
    operator.get("/console/models/unknown/model", 404)


def test_a_model_names_its_aliases(make_client, settings, broker, tmp_path):
    file = tmp_path / "models.toml"
    file.write_text('[models.fast]\nprovider = "openai"\nupstream = "gpt-4o-mini"\n')
    browser = Browser(make_client(dataclasses.replace(settings, models_file=str(file)), broker))
    browser.sign_in(ADMIN_KEY)
    assert '/console/models/fast">' in browser.get("/console/models/openai/gpt-4o-mini")
    assert '/console/models/openai/gpt-4o-mini">' in browser.get("/console/models/fast")


def test_models_of_providers_that_are_not_configured_are_shown_on_request(operator):
    assert "mistral/" not in operator.get("/console/models").partition("<main")[2]
    page = operator.get("/console/models?all=1")
    model = re.search(
        r'models/([\w.-]+/[\w.-]+)">[^<]*</a>\s*</th>\s*<td[^>]*>[^<]*<[^>]*>not conf', page
    )
    assert "not configured: set" in operator.get(f"/console/models/{model[1]}")


def test_keys_models_and_providers_are_paused_and_resumed(operator, key, redis):
    for kind, id in (("model", "demo/echo"), ("provider", "openai"), ("key", public_id(key))):
        page = operator.send("/console/queue/pause", kind=kind, id=id)
        assert "Paused. Calls that run go on" in page
        assert [pause.name for pause in steering.pauses(redis)] == [f"{kind}:{id}"]
        if kind == "model":
            assert ">paused<" in operator.get("/console/models")
            assert "Resume" in operator.get(f"/console/models/{id}")
        operator.send("/console/queue/resume", kind=kind, id=id)
        assert steering.pauses(redis) == []


def test_what_does_not_exist_cannot_be_steered(operator, redis):
    for kind, id, status in (("model", "no/such", 404), ("key", "abc", 404), ("all", "x", 400)):
        page = operator.send("/console/queue/pause", status, kind=kind, id=id)
        assert 'role="alert"' in page
    for path in ("abc/move", "abc/cancel", "workers/abc"):
        operator.send(f"/console/queue/{path}", 404, draining="1")
    assert steering.pauses(redis) == []


def test_an_empty_queue_says_so(operator):
    page = operator.get("/console/queue")
    assert "Nobody waits" in page and "No worker is alive" in page
    operator.get("/console/queue?after=wrong", 400)
    operator.get("/console/queue?after=q:wrong:x", 400)


def test_a_caller_sees_the_models_of_its_key(browser, make_key):
    browser.sign_in(make_key("narrow", models=("demo/echo",)))
    page = browser.get("/console/models?all=1").partition("<main")[2]
    assert re.findall(r'/console/models/([^"]+)">', page) == ["demo/echo"]
    browser.get("/console/models/openai/gpt-4o", 404)
