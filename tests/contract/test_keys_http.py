"""GET /key, /keys, /owners and /audit."""

from __future__ import annotations

import dataclasses
import logging
import re
import time
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from app import PREFIX, create_app
from gateway import webhooks
from gateway.account import counters
from gateway.account.api_keys import KeyStore, public_id
from gateway.queue import keys
from gateway.settings import Settings
from tests.contract.test_openapi import check, described  # noqa: F401

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@pytest.fixture(scope="module")
def app():
    return create_app(Settings(key_pepper="p" * 40, demo_models=True))


@pytest.fixture
def settings(settings):
    return dataclasses.replace(settings, webhook_hosts=("hooks.example.com", "127.0.0.1:80"))


@pytest.fixture
def store(redis, settings):
    return KeyStore(redis, settings.key_pepper)


@pytest.fixture
def operator(store):
    return store.create("boss", operator=True)


@pytest.fixture
def api(client, operator, described):  # noqa: F811
    """A function that sends a request of the operator and checks its response."""

    def send(method, path, body=None, headers=None, key=operator):
        response = client.open(
            PREFIX + path,
            method=method,
            data=None if body is None else orjson.dumps(body),
            content_type="application/json" if body is not None else None,
            headers={"Authorization": f"Bearer {key}", **(headers or {})},
        )
        template = path.partition("?")[0]
        template = re.sub(r"^/keys/[^/]+", "/keys/{key_id}", template)
        template = re.sub(r"^/owners/[^/]+", "/owners/{owner_id}", template)
        check(described, method.lower(), template, response)
        return response

    return send


def error(response):
    problem = response.get_json()["error"]
    return response.status_code, problem["code"], problem["param"]


LATER = "2100-01-01T00:00:00Z"
FIELDS = {
    "name": "Zoë",
    "owner": "team-a",
    "allowed_models": ["openai/*"],
    "limit": 25.5,
    "limit_unit": "usd",
    "limit_reset": "monthly",
    "limit_extra": 0.000000001,
    "limit_extra_until": "2100-01-01T00:00:00Z",
    "requests_per_minute": 60,
    "tokens_per_minute": 100_000,
    "max_in_flight": 4,
    "max_waiting": 0,
    "priority": "interactive",
    "weight": 3,
    "cache_seconds": 60,
    "retry_on_worker_loss": True,
    "webhook_url": "https://hooks.example.com/inference",
    "alerts": [0.8, 0.95],
    "metadata": {"cost_center": "42"},
    "expires_at": "2100-02-01T00:00:00Z",
    "disabled": False,
}


def test_a_key_is_created_with_every_field_and_works(api, store):
    api("POST", "/owners", {"id": "team-a"})
    response = api("POST", "/keys", FIELDS)
    assert response.status_code == 201
    assert response.headers["Cache-Control"] == "no-store"
    created = response.get_json()
    assert created["data"].items() >= FIELDS.items()
    assert store.verify(created["key"]).public_id == created["data"]["id"]
    shown = api("GET", f"/keys/{created['data']['id']}").get_json()["data"]
    assert shown == created["data"]
    assert shown["label"] == created["key"][:17] + "..."
    assert shown["limit_remaining"] == 25.500000001
    assert all(ISO.fullmatch(shown[name]) for name in ("created_at", "limit_resets_at"))


def test_a_change_leaves_what_it_does_not_name_and_null_takes_away(api):
    api("POST", "/owners", {"id": "team-a"})
    id = api("POST", "/keys", FIELDS).get_json()["data"]["id"]
    changed = api("PATCH", f"/keys/{id}", {"limit": 30, "alerts": None}).get_json()["data"]
    assert changed.items() >= {**FIELDS, "limit": 30, "alerts": []}.items()
    nulls = dict.fromkeys(FIELDS.keys() - {"name"})
    bare = api("PATCH", f"/keys/{id}", nulls).get_json()["data"]
    new = api("POST", "/keys", {"name": "Zoë"}).get_json()["data"]
    different = {"id", "label", "created_at", "updated_at"}
    assert {k: v for k, v in bare.items() if k not in different} == {
        k: v for k, v in new.items() if k not in different
    }


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_required_parameter", "name"),
        ({"name": "a", "budget": 5}, "unknown_parameter", "budget"),
        ({"name": "a", "id": "b"}, "unknown_parameter", "id"),
        ({"name": "a", "revoked_at": None}, "unknown_parameter", "revoked_at"),
        ({"name": ""}, "invalid_value", "name"),
        ({"name": "a\nb"}, "invalid_value", "name"),
        ({"name": None}, "invalid_type", "name"),
        ({"name": "a", "limit": "5"}, "invalid_type", "limit"),
        ({"name": "a", "limit": -1}, "decimal_below_min_value", "limit"),
        ({"name": "a", "limit": 4_000_001}, "decimal_above_max_value", "limit"),
        ({"name": "a", "limit": 1.5, "limit_unit": "tokens"}, "invalid_value", "limit"),
        ({"name": "a", "limit_reset": "hourly"}, "invalid_value", "limit_reset"),
        ({"name": "a", "limit_extra_until": LATER}, "invalid_value", "limit_extra_until"),
        ({"name": "a", "requests_per_minute": 0}, "integer_below_min_value", "requests_per_minute"),
        ({"name": "a", "requests_per_minute": 1.5}, "invalid_type", "requests_per_minute"),
        ({"name": "a", "webhook_url": "https://other.example/"}, "invalid_value", "webhook_url"),
        ({"name": "a", "webhook_url": "http://hooks.example.com"}, "invalid_value", "webhook_url"),
        ({"name": "a", "weight": True}, "invalid_type", "weight"),
        ({"name": "a", "priority": "high"}, "invalid_value", "priority"),
        ({"name": "a", "expires_at": "tomorrow"}, "invalid_value", "expires_at"),
        ({"name": "a", "expires_at": "2100-01-01T00:00:00"}, "invalid_value", "expires_at"),
        ({"name": "a", "expires_at": "9999-12-31T23:59:59-01:00"}, "invalid_value", "expires_at"),
        ({"name": "a", "allowed_models": ["open*ai"]}, "invalid_value", "allowed_models[0]"),
        ({"name": "a", "alerts": [1.5]}, "decimal_above_max_value", "alerts[0]"),
        ({"name": "a", "metadata": {"a": 1}}, "invalid_value", "metadata"),
        ({"name": "a", "owner": "no body"}, "invalid_value", "owner"),
        ({"name": "a", "owner": "nobody"}, "invalid_value", "owner"),
    ],
)  # fmt: skip
def test_what_cannot_hold_is_refused_and_changes_nothing(api, redis, body, code, param):
    before = redis.keys()
    assert error(api("POST", "/keys", body)) == (400, code, param)
    assert redis.keys() == before


def test_an_operator_key_cannot_be_made_of_another(api, store):
    id = public_id(store.create("one"))
    assert error(api("PATCH", f"/keys/{id}", {"operator": True}))[1] == "unknown_parameter"
    made = api("POST", "/keys", {"name": "second", "operator": True}).get_json()
    assert api("GET", "/keys", key=made["key"]).status_code == 200


def test_a_unit_changes_with_its_amounts_only(api):
    id = api("POST", "/keys", {"name": "a", "limit": 5}).get_json()["data"]["id"]
    refused = api("PATCH", f"/keys/{id}", {"limit_unit": "tokens"})
    assert error(refused) == (400, "invalid_value", "limit_unit")
    changed = api("PATCH", f"/keys/{id}", {"limit_unit": "tokens", "limit": 1_000}).get_json()
    assert (changed["data"]["limit"], changed["data"]["limit_remaining"]) == (1_000, 1_000)


def test_an_extra_ends_with_its_window_unless_it_says_otherwise(api):
    body = {"name": "a", "limit": 5, "limit_reset": "daily", "limit_extra": 2}
    key = api("POST", "/keys", body).get_json()["data"]
    assert key["limit_extra_until"] == key["limit_resets_at"]
    path = f"/keys/{key['id']}"
    later = {"limit_extra": 3, "limit_extra_until": "2100-01-01T00:00:00Z"}
    assert api("PATCH", path, later).get_json()["data"].items() >= later.items()
    gone = api("PATCH", path, {"limit_extra": None}).get_json()["data"]
    assert (gone["limit_extra"], gone["limit_extra_until"]) == (None, None)


@pytest.mark.parametrize("time", ["2100-01-01T02:00:00+02:00", "2100-01-01T00:00:00Z"])
def test_a_time_with_any_offset_is_shown_in_utc(api, time):
    key = api("POST", "/keys", {"name": "a", "expires_at": time}).get_json()["data"]
    assert key["expires_at"] == "2100-01-01T00:00:00Z"


def test_a_caller_sees_what_its_own_key_has_used_and_has_left(api, redis, store):
    key = store.create("one", limit=10_000_000_000, limit_reset="monthly")
    scope, now = public_id(key), time.time()
    month = counters.window("monthly", now)[0]
    redis.hset(keys.spend(scope), mapping={"usd": 9_000_000_000, "tokens": 700, "requests": 7})
    redis.hset(keys.spend(scope), mapping={"m": month, "m_usd": 4_000_000_000, "m_tokens": 70})
    redis.hset(keys.held(scope), mapping={"usd": 1_500_000_000, "tokens": 30})
    redis.zadd(keys.flight(scope), {"a": (now + 60) * 1000, "b": (now + 60) * 1000})
    redis.zadd(keys.parked(scope), {"c": 1})
    shown = api("GET", "/key", key=key).get_json()["data"]
    expected = {
        "id": scope,
        "usage": 9,
        "usage_monthly": 4,
        "usage_daily": 0,
        "tokens": 700,
        "tokens_monthly": 70,
        "requests": 7,
        "reserved": 1.5,
        "reserved_tokens": 30,
        "limit": 10,
        "limit_remaining": 4.5,
        "in_flight": 2,
        "waiting": 1,
    }
    assert shown.items() >= expected.items()


def test_an_operator_sees_its_own_key_too_and_admin_key_is_one(api, make_client, settings):
    assert api("GET", "/key").get_json()["data"]["operator"] is True
    client = make_client(dataclasses.replace(settings, admin_key="a" * 40))
    response = client.get(f"{PREFIX}/key", headers={"Authorization": f"Bearer {'a' * 40}"})
    assert response.get_json()["data"]["operator"] is True


def test_keys_are_listed_by_age_in_pages(api, store, redis, operator):
    made = [public_id(operator)]
    for number in range(5):
        id = public_id(store.create(f"key {number}"))
        redis.hset(keys.key(id), "created", 4_000_000_000 + number)
        made.append(id)
    pages, path = [], "/keys?limit=4"
    while path:
        page = api("GET", path).get_json()
        pages.append([key["id"] for key in page["data"]])
        path = page["has_more"] and f"/keys?limit=4&after={page['data'][-1]['id']}"
    assert pages == [made[:4], made[4:]]


def test_the_list_leaves_out_disabled_and_deleted_keys_and_those_of_others(api, store):
    api("POST", "/owners", {"id": "team-a"})
    disabled = public_id(store.create("disabled", disabled=True))
    deleted = public_id(store.create("deleted"))
    owned = public_id(store.create("owned", owner="team-a"))
    store.revoke(deleted)

    def ids(query=""):
        return {key["id"] for key in api("GET", f"/keys{query}").get_json()["data"]}

    assert {owned} == ids() & {disabled, deleted, owned}
    assert {owned, disabled} == ids("?include_disabled=true") & {disabled, deleted, owned}
    assert ids("?owner=team-a") == {owned}
    assert deleted not in ids(f"?after={deleted}")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("limit=%D9%A3", "limit"),
        ("after=nobody", "after"),
        ("include_disabled=yes", "include_disabled"),
        ("offset=3", "offset"),
    ],
)
def test_a_wrong_query_is_refused(api, query, param):
    status, _, name = error(api("GET", f"/keys?{query}"))
    assert (status, name) == (400, param)


def test_a_deleted_key_is_gone_and_its_record_stays(api, store):
    key = store.create("one")
    path = f"/keys/{public_id(key)}"
    assert api("DELETE", path).get_json() == {"deleted": True}
    gone = (404, "key_not_found", None)
    assert error(api("GET", path)) == gone
    assert error(api("PATCH", path, {"name": "two"})) == gone
    assert error(api("POST", f"{path}/rotate", {})) == gone
    assert error(api("DELETE", path)) == gone
    assert api("GET", "/key", key=key).status_code == 401
    assert store.get(public_id(key)).revoked


@pytest.mark.parametrize("id", ["abc", "000000000000", "%00", "a" * 300, "*"])
def test_an_unknown_key_is_404(api, redis, id):
    before = sorted(redis.keys())
    for method, path, body in (
        ("GET", f"/keys/{id}", None),
        ("PATCH", f"/keys/{id}", {"name": "a"}),
        ("DELETE", f"/keys/{id}", None),
        ("POST", f"/keys/{id}/rotate", {}),
    ):
        assert error(api(method, path, body)) == (404, "key_not_found", None)
    assert sorted(redis.keys()) == before


def test_a_rotation_gives_a_new_secret_and_leaves_the_old_one_for_a_while(api, store):
    old = store.create("one")
    path = f"/keys/{public_id(old)}"
    rotated = api("POST", f"{path}/rotate", {"grace_seconds": 3600})
    assert rotated.status_code == 201
    body = rotated.get_json()
    until = datetime.now(UTC) + timedelta(hours=1)
    assert abs(datetime.fromisoformat(body["previous_valid_until"]) - until) < timedelta(hours=1)
    assert body["data"]["id"] == public_id(old)
    for key in (old, body["key"]):
        assert api("GET", "/key", key=key).status_code == 200
    now = api("POST", f"{path}/rotate", {"grace_seconds": 0}).get_json()
    assert now["previous_valid_until"] is None
    assert api("GET", "/key", key=body["key"]).status_code == 401
    assert api("GET", "/key", key=now["key"]).status_code == 200


def test_a_rotation_needs_no_body_and_leaves_a_day(api, store):
    id = public_id(store.create("one"))
    body = api("POST", f"/keys/{id}/rotate").get_json()
    record = store.get(id)
    assert record.hmac_old_until - record.rotated == 86_400
    assert body["previous_valid_until"] == body["data"]["previous_valid_until"]


def test_a_rotation_whose_answer_was_lost_can_be_repeated(api, store):
    id = public_id(store.create("one"))
    send = ("POST", f"/keys/{id}/rotate", {"grace_seconds": 60}, {"Idempotency-Key": "try-1"})
    first, again = api(*send), api(*send)
    assert first.get_json() == again.get_json()
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    other = ("POST", f"/keys/{id}/rotate", {"grace_seconds": 61}, {"Idempotency-Key": "try-1"})
    assert error(api(*other)) == (409, "idempotency_conflict", None)


@pytest.mark.parametrize("name", ["", "a b", "a" * 256, "é"])
def test_an_idempotency_key_of_another_form_is_refused(api, store, name):
    id = public_id(store.create("one"))
    sent = api("POST", f"/keys/{id}/rotate", {}, {"Idempotency-Key": name})
    assert error(sent)[:2] == (400, "invalid_value")
    assert store.get(id).rotated == 0


@pytest.mark.parametrize("body", [{"grace_seconds": -1}, {"grace_seconds": 2_592_001}, {"x": 1}])
def test_a_wrong_grace_is_refused(api, store, body):
    id = public_id(store.create("one"))
    assert error(api("POST", f"/keys/{id}/rotate", body))[0] == 400


# Owners


def test_owners_are_created_changed_listed_and_deleted(api):
    body = {"id": "team-b", "name": "Team B", "limit": 500, "limit_reset": "monthly"}
    created = api("POST", "/owners", body)
    assert created.status_code == 201
    assert created.get_json()["data"].items() >= body.items()
    assert error(api("POST", "/owners", body)) == (409, "owner_exists", "id")
    changed = api("PATCH", "/owners/team-b", {"limit": None, "share_cache": True}).get_json()
    assert (changed["data"]["limit"], changed["data"]["share_cache"]) == (None, True)
    assert api("GET", "/owners/team-b").get_json() == changed
    api("POST", "/owners", {"id": "team-a"})
    assert [each["id"] for each in api("GET", "/owners").get_json()["data"]] == ["team-a", "team-b"]
    page = api("GET", "/owners?limit=1&after=team-a").get_json()
    assert ([each["id"] for each in page["data"]], page["has_more"]) == (["team-b"], False)
    assert api("DELETE", "/owners/team-b").get_json() == {"deleted": True}
    for method, body in (("GET", None), ("PATCH", {}), ("DELETE", None)):
        assert error(api(method, "/owners/team-b", body)) == (404, "owner_not_found", None)


def test_an_owner_shows_what_its_keys_have_used(api, redis):
    api("POST", "/owners", {"id": "team-a", "limit": 5})
    redis.hset(keys.spend("owner:team-a"), mapping={"usd": 2_000_000_000})
    shown = api("GET", "/owners/team-a").get_json()["data"]
    assert (shown["usage"], shown["limit_remaining"]) == (2, 3)


def test_an_owner_of_keys_is_not_deleted(api, store):
    api("POST", "/owners", {"id": "team-a"})
    id = api("POST", "/keys", {"name": "one", "owner": "team-a"}).get_json()["data"]["id"]
    assert error(api("DELETE", "/owners/team-a")) == (409, "owner_in_use", None)
    api("PATCH", f"/keys/{id}", {"owner": None})
    assert api("DELETE", "/owners/team-a").status_code == 200


@pytest.mark.parametrize("id", ["", "a b", "a" * 65, "ä", "a/b", "a:b"])
def test_the_id_of_an_owner_is_plain(api, id):
    assert error(api("POST", "/owners", {"id": id})) == (400, "invalid_value", "id")


# The audit log, and what nobody may see


def test_the_audit_log_says_who_changed_what_and_from_where(api, operator, store):
    forwarded = {"X-Forwarded-For": "192.0.2.7"}
    id = api("POST", "/keys", {"name": "a", "limit": 5}, forwarded).get_json()["data"]["id"]
    api("PATCH", f"/keys/{id}", {"limit": 7.5})
    api("DELETE", f"/keys/{id}")
    log = api("GET", "/audit").get_json()
    assert [(entry["action"], entry["target"]) for entry in log["data"]][:3] == [
        ("key.revoked", id),
        ("key.updated", id),
        ("key.created", id),
    ]
    deleted, changed, created = log["data"][:3]
    assert {entry["actor"] for entry in (deleted, changed, created)} == {public_id(operator)}
    assert changed["changes"] == {"limit": [5, 7.5]}
    assert created["forwarded_for"] == "192.0.2.7"
    assert created["address"] == "127.0.0.1"
    assert log["data"][3]["actor"] == "command line"
    assert not log["has_more"]
    page = api("GET", f"/audit?limit=1&after={deleted['id']}").get_json()
    assert (page["data"], page["has_more"]) == ([changed], True)


@pytest.mark.parametrize("after", ["0-0", "99999999999999999999-0", "1-99999999999999999999"])
def test_what_is_no_entry_of_the_audit_log_is_not_after_anything(api, after):
    assert error(api("GET", f"/audit?after={after}")) == (
        400,
        "invalid_value",
        "after",
    )


def test_no_response_log_or_audit_entry_has_a_secret_or_a_hash(api, store, redis, caplog):
    caplog.set_level(logging.DEBUG)
    created = api("POST", "/keys", {"name": "a"}).get_json()
    id = created["data"]["id"]
    rotated = api("POST", f"/keys/{id}/rotate", {}, {"Idempotency-Key": "try-1"}).get_json()
    stored = redis.hgetall(keys.key(id))
    hidden = [stored[name].decode() for name in (b"hmac", b"hmac_old", b"rotation")]
    hidden += [created["key"][26:], rotated["key"][26:]]
    texts = [
        api("GET", f"/keys/{id}").get_data(as_text=True),
        api("PATCH", f"/keys/{id}", {"name": "b"}).get_data(as_text=True),
        api("GET", "/keys").get_data(as_text=True),
        api("GET", "/audit").get_data(as_text=True),
        api("GET", "/key", key=rotated["key"]).get_data(as_text=True),
        repr(redis.xrange(keys.AUDIT)),
        caplog.text,
    ]
    for text in texts:
        assert not [each for each in hidden if each in text]


def test_no_redis_is_503_and_never_401(make_client, settings, tmp_path, store, operator):
    client = make_client(dataclasses.replace(settings, redis_url=f"unix://{tmp_path}/absent.sock"))
    for method, path in (("GET", "/key"), ("GET", "/keys"), ("POST", "/keys"), ("GET", "/audit")):
        response = client.open(
            PREFIX + path,
            method=method,
            json={"name": "a"} if method == "POST" else None,
            headers={"Authorization": f"Bearer {operator}"},
        )
        assert error(response)[:2] == (503, "queue_unavailable")


def test_the_secret_of_a_webhook_is_shown_once_and_changes_with_its_url(api, redis, settings):
    url, other = "https://hooks.example.com/one", "https://hooks.example.com/two"
    created = api("POST", "/keys", {"name": "a", "webhook_url": url}).get_json()
    id = created["data"]["id"]
    nonce = redis.hget(keys.key(id), "webhook_nonce").decode()
    assert created["webhook_secret"] == webhooks.secret(settings.key_pepper, id, nonce)
    for body in ({"webhook_url": url}, {"limit": 5}):
        assert set(api("PATCH", f"/keys/{id}", body).get_json()) == {"data"}
    assert set(api("GET", f"/keys/{id}").get_json()) == {"data"}
    changed = api("PATCH", f"/keys/{id}", {"webhook_url": other}).get_json()
    assert changed["data"]["webhook_url"] == other
    assert changed["webhook_secret"] not in (None, created["webhook_secret"])
    removed = api("PATCH", f"/keys/{id}", {"webhook_url": None}).get_json()
    assert set(removed) == {"data"} and removed["data"]["webhook_url"] is None
    assert not redis.hexists(keys.key(id), "webhook_nonce")
    log = api("GET", "/audit").get_data(as_text=True)
    assert other in log and nonce not in log and "whsec_" not in log
