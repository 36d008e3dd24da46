"""gateway/account/owners.py: owners of keys, and what goes with them."""

from __future__ import annotations

import json

import pytest

from gateway.account import owners
from gateway.account.api_keys import KeyStore, public_id
from gateway.account.record_store import COMMAND, Actor
from gateway.errors import InvalidRequest, NotFound
from gateway.queue import keys


@pytest.fixture
def store(redis):
    return owners.owner_store(redis, lambda: 1_000)


def log(redis):
    return [json.loads(fields[b"entry"]) for _, fields in redis.xrange(keys.AUDIT)]


def test_an_owner_is_created_once(store):
    assert store.create("team-a", {"name": "Team A", "limit": 5_000_000_000}, COMMAND)
    assert not store.create("team-a", {"name": "another"}, COMMAND)
    owner = store.read("team-a")
    assert (owner.id, owner.name, owner.limit, owner.version) == ("team-a", "Team A", 5 * 10**9, 1)
    assert (owner.created, owner.updated) == (1_000, 1_000)


def test_an_unknown_owner_is_none_and_is_not_changed(store, redis):
    assert store.read("team-a") is None
    assert store.change("team-a", lambda owner: {"rpm": 1}, COMMAND) is None
    assert not store.delete("team-a", COMMAND)
    assert redis.keys() == []


def test_owners_are_changed_and_listed(store):
    for name in ("a", "b"):
        store.create(name, {}, COMMAND)
    store.change("b", lambda owner: {"share_cache": True, "rpm": 3}, COMMAND)
    assert {owner.id: (owner.rpm, owner.share_cache) for owner in store.all()} == {
        "a": (None, False),
        "b": (3, True),
    }


def test_what_a_deleted_owner_has_used_stays_as_in_the_ledger(store, redis):
    """Else a budget would be full again, and differ from the ledger, once it is created anew."""
    store.create("team-a", {}, COMMAND)
    spend = keys.spend(keys.owner_scope("team-a"))
    redis.hset(spend, "usd", 1)
    owners.delete(redis, [], "team-a", COMMAND)
    assert store.read("team-a") is None
    assert set(redis.keys()) == {keys.AUDIT.encode(), spend.encode()}
    with pytest.raises(NotFound):
        owners.delete(redis, [], "team-a", COMMAND)


def test_an_owner_with_keys_is_not_deleted(store, redis):
    """They would go on without its limits."""
    store.create("team-a", {}, COMMAND)
    api_keys = KeyStore(redis, "p" * 40)
    key = public_id(api_keys.create("one", owner="team-a"))
    with pytest.raises(InvalidRequest) as caught:
        owners.delete(redis, api_keys.all(), "team-a", COMMAND)
    assert (caught.value.status, caught.value.code) == (409, "owner_in_use")
    api_keys.revoke(key)
    owners.delete(redis, api_keys.all(), "team-a", COMMAND)


def test_no_key_gets_an_owner_while_it_is_deleted(store, redis):
    store.create("team-a", {}, COMMAND)
    api_keys = KeyStore(redis, "p" * 40)

    def records():
        with pytest.raises(InvalidRequest, match="no such owner"):
            api_keys.create("one", owner="team-a")
        yield from api_keys.all()

    owners.delete(redis, records(), "team-a", COMMAND)
    assert store.read("team-a") is None
    assert not redis.exists(keys.owner_deletion("team-a"))


def test_the_log_says_what_was_done_to_an_owner(store, redis):
    by = Actor("ADMIN_KEY", "10.0.0.1")
    store.create("team-a", {"limit": 2_000, "limit_unit": "tokens"}, by)
    store.change("team-a", lambda owner: {"limit": 5_000_000_000, "limit_unit": "usd"}, by)
    store.delete("team-a", by)
    assert [(entry["action"], entry["target"], entry["actor"]) for entry in log(redis)] == [
        (f"owner.{action}", "team-a", "ADMIN_KEY") for action in ("created", "updated", "deleted")
    ]
    created, updated, deleted = (entry["changes"] for entry in log(redis))
    assert created["limit"] == [None, 2_000]
    assert updated == {"limit": [2_000, 5], "limit_unit": ["tokens", "usd"]}
    assert deleted["limit"] == [5, None]
