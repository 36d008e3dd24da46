"""gateway/broker/key_changes.py: what other processes have changed."""

from __future__ import annotations

import pytest
from redis import Redis

from gateway.account.api_keys import KeyStore, public_id
from gateway.broker import key_changes
from gateway.broker.key_changes import KeyChanges
from gateway.settings import Settings


@pytest.fixture
def seen() -> list[str]:
    return []


@pytest.fixture
def changes(redis: Redis, seen: list[str]) -> KeyChanges:
    return KeyChanges(redis, seen.append, lambda: seen.append("after"))


@pytest.fixture
def store(redis: Redis, settings: Settings) -> KeyStore:
    return KeyStore(redis, settings.key_pepper)


def test_every_change_is_passed_on_once(
    changes: KeyChanges, store: KeyStore, seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_changes, "READ_ENTRIES", 2)
    before = public_id(store.create("before"))
    changes.look()
    assert seen == []
    store.revoke(before)
    later = [public_id(store.create(name)) for name in ("a", "b")]
    changes.look()
    assert seen == [before, *later, "after"]
    changes.look()
    assert len(seen) == 4


def test_a_log_that_is_empty_at_first_is_followed(
    changes: KeyChanges, store: KeyStore, seen: list[str]
) -> None:
    changes.look()
    first = public_id(store.create("first"))
    changes.look()
    assert seen == [first, "after"]
