"""gateway/account/api_keys.py: how a key looks, and who gets in with it."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import re

import gevent
import pytest
from gevent.event import Event
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ConnectionError, RedisError, TimeoutError

from gateway.account import api_keys
from gateway.account.api_keys import (
    CACHE_SECONDS,
    DIGITS,
    KeyStore,
    base62,
    checksum,
    parse,
    revoked,
)
from gateway.account.owners import owner_store
from gateway.account.record_store import COMMAND, Actor
from gateway.errors import AuthenticationFailed, InvalidRequest, QueueUnavailable
from gateway.queue import keys, owner
from tests.support.fakes import Clock

PEPPER = "p" * 40
KEY = re.compile(r"mk_inference_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}")


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(api_keys, "time", made)
    return made


@pytest.fixture
def store(redis, clock):
    return KeyStore(redis, PEPPER, clock)


def public_id(key):
    return key.split("_")[2]


def refused(store, key):
    with pytest.raises(AuthenticationFailed) as caught:
        store.verify(key)
    return caught.value


def with_secret(key, secret):
    return f"mk_inference_{public_id(key)}_{secret}{checksum(public_id(key), secret)}"


def test_a_key_has_the_documented_form(store):
    made = [store.create("one") for _ in range(20)]
    assert all(KEY.fullmatch(key) for key in made)
    assert len({public_id(key) for key in made}) == 20


@given(st.integers(0, 62**43 - 1))
def test_base_62_loses_nothing(number):
    text = base62(number, 43)
    assert len(text) == 43
    value = 0
    for digit in text:
        value = value * 62 + DIGITS.index(digit)
    assert value == number


def test_a_key_is_taken_apart_into_public_id_and_secret(store):
    key = store.create("one")
    assert parse(key) == (key[13:25], key[26:69])


@pytest.mark.parametrize("place", [13, 20, 24, 26, 40, 68, 69, 74])
def test_one_mistyped_character_is_noticed_without_redis(place, store):
    key = store.create("one")
    typo = key[:place] + ("a" if key[place] != "a" else "b") + key[place + 1 :]
    with pytest.raises(AuthenticationFailed):
        parse(typo)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "mk_inference_",
        "sk-abcdefghijklmnop",
        "mk_inference_" + "a" * 62,
        "mk_inference_" + "é" * 12 + "_" + "a" * 49,
        "mk_inference_" + "٣" * 12 + "_" + "a" * 49,
        "x" * 8_192,
    ],
)
def test_what_is_no_key_is_refused_and_not_shown_back(key):
    with pytest.raises(AuthenticationFailed) as caught:
        parse(key)
    assert caught.value.message == "Incorrect API key provided: ***."


@pytest.mark.parametrize("change", ["{} ", " {}", "{}\n", "{}a"])
def test_nothing_may_stand_around_a_key(change, store):
    refused(store, change.format(store.create("one")))


def test_a_created_key_is_let_in(store, clock):
    key = store.create("Zoë’s laptop")
    record = store.verify(key)
    assert (record.public_id, record.name) == (public_id(key), "Zoë’s laptop")
    assert (record.created, record.last_used, record.revoked) == (int(clock.now), 0, 0)


def test_redis_holds_the_hmac_and_never_the_secret(store, redis):
    key = store.create("one")
    _, secret = parse(key)
    everything = b""
    for name in redis.keys():
        everything += name + redis.dump(name)
        everything += repr(
            redis.xrange(name) if name == b"gw:audit" else redis.hgetall(name)
        ).encode()
    assert hmac.new(PEPPER.encode(), secret.encode(), hashlib.sha256).hexdigest().encode() in (
        redis.hget(keys.key(public_id(key)), "hmac")
    )
    for hidden in (secret, secret[:12], key, PEPPER):
        assert hidden.encode() not in everything


def test_a_key_does_not_expire(store, redis):
    assert redis.ttl(keys.key(public_id(store.create("one")))) == -1


def test_wrong_secret_unknown_id_and_revoked_look_the_same(store):
    wrong, unknown, revoked = (store.create(name) for name in "abc")
    store.revoke(public_id(revoked))
    unknown = "mk_inference_" + "0" * 12 + "_" + "z" * 43 + checksum("0" * 12, "z" * 43)
    told = []
    for key in (with_secret(wrong, "z" * 43), unknown, revoked):
        error = refused(store, key)
        message = error.message.replace(public_id(key)[:4], "ABCD")
        told.append((type(error), error.status, error.type, error.code, error.param, message))
    assert set(told) == {
        (
            AuthenticationFailed,
            401,
            "invalid_request_error",
            "invalid_api_key",
            None,
            "Incorrect API key provided: mk_inference_ABCD***.",
        )
    }


def test_a_refusal_shows_four_characters_of_the_public_part_at_most(store):
    key = store.create("one")
    store.revoke(public_id(key))
    message = refused(store, key).message
    assert key[:17] in message
    assert key[:18] not in message


def test_a_key_is_worth_nothing_under_another_pepper(store, redis, clock):
    key = store.create("one")
    refused(KeyStore(redis, "q" * 40, clock), key)


def test_a_secret_is_worth_nothing_with_another_key_s_id(store):
    one, two = store.create("one"), store.create("two")
    refused(store, with_secret(one, parse(two)[1]))


def test_revoking_holds_at_once_where_it_was_done(store, clock):
    key = store.create("one")
    store.verify(key)
    assert store.revoke(public_id(key))
    refused(store, key)
    assert [record.revoked for record in store.all()] == [int(clock.now)]


def test_revoking_is_seen_elsewhere_when_the_memory_of_the_key_ends(store, redis, clock):
    key = store.create("one")
    elsewhere = KeyStore(redis, PEPPER, clock)
    elsewhere.verify(key)
    store.revoke(public_id(key))

    clock.now += CACHE_SECONDS - 0.1
    elsewhere.verify(key)
    clock.now += 0.2
    refused(elsewhere, key)


def test_a_known_key_needs_no_redis(store, redis, monkeypatch):
    key = store.create("one")
    first = store.verify(key)
    redis.flushall()
    assert store.verify(key) is first


def test_a_wrong_secret_is_refused_from_memory_too(store):
    key = store.create("one")
    store.verify(key)
    refused(store, with_secret(key, "z" * 43))


def test_an_unknown_key_is_remembered_no_longer_than_a_known_one(store, redis, clock):
    key = store.create("one")
    fields = redis.hgetall(keys.key(public_id(key)))
    redis.flushall()
    refused(store, key)
    redis.hset(keys.key(public_id(key)), mapping=fields)
    clock.now += CACHE_SECONDS + 0.1
    assert store.verify(key).name == "one"


class CountingRedis:
    """Redis, its reads of keys counted; while `gate` is closed none is answered."""

    def __init__(self, redis):
        self.reads = 0
        self.gate = Event()
        self.gate.set()
        self.error = None
        self._redis = redis

    def hgetall(self, name):
        self.reads += 1
        self.gate.wait()
        if self.error is not None:
            raise self.error
        return self._redis.hgetall(name)

    def __getattr__(self, name):
        return getattr(self._redis, name)


@pytest.fixture
def counting(redis):
    return CountingRedis(redis)


def test_the_cache_is_bounded_whoever_knocks(counting, clock, monkeypatch):
    monkeypatch.setattr(api_keys, "CACHE_KEYS", 3)
    store = KeyStore(counting, PEPPER, clock)
    first = store.create("first")
    store.verify(first)
    for number in range(3):
        refused(store, with_secret(first.replace(public_id(first), f"{number:012}"), "z" * 43))
    assert counting.reads == 4
    store.verify(first)
    assert counting.reads == 5, "the oldest was dropped"


def test_256_requests_with_a_cold_key_read_it_once(counting, clock):
    """Each on its own would wait for one of five connections, and some too long."""
    store = KeyStore(counting, PEPPER, clock)
    key = store.create("one")
    counting.gate.clear()
    requests = [gevent.spawn(store.verify, key) for _ in range(256)]
    gevent.idle()
    assert counting.reads == 1
    counting.gate.set()
    gevent.joinall(requests, timeout=10)
    assert {request.value.name for request in requests} == {"one"}
    assert counting.reads == 1


def test_keys_are_read_independently_of_each_other(counting, clock):
    store = KeyStore(counting, PEPPER, clock)
    made = [store.create(name) for name in ("one", "two")]
    counting.gate.clear()
    requests = [gevent.spawn(store.verify, key) for key in made * 3]
    gevent.idle()
    assert counting.reads == 2
    counting.gate.set()
    gevent.joinall(requests, timeout=10)
    assert [request.value.name for request in requests] == ["one", "two"] * 3


def outcome(store, key):
    try:
        return store.verify(key).name
    except RedisError as error:
        return type(error)


def test_a_failed_read_fails_for_all_who_share_it_and_is_not_remembered(counting, clock):
    store = KeyStore(counting, PEPPER, clock)
    key = store.create("one")
    counting.error = TimeoutError()
    counting.gate.clear()
    requests = [gevent.spawn(outcome, store, key) for _ in range(5)]
    gevent.idle()
    counting.gate.set()
    gevent.joinall(requests, timeout=10)
    assert [request.value for request in requests] == [TimeoutError] * 5
    assert counting.reads == 1
    counting.error = None
    assert store.verify(key).name == "one"


def test_who_shares_the_read_of_a_killed_request_is_not_killed(counting, clock):
    store = KeyStore(counting, PEPPER, clock)
    key = store.create("one")
    counting.gate.clear()
    first, second = (gevent.spawn(outcome, store, key) for _ in range(2))
    gevent.idle()
    first.kill()
    second.join(10)
    assert second.value is ConnectionError
    counting.gate.set()
    assert store.verify(key).name == "one"


def test_a_key_that_another_process_has_revoked_is_refused_once_this_one_knows(redis, clock):
    ours, other = KeyStore(redis, PEPPER, clock), KeyStore(redis, PEPPER, clock)
    key = ours.create("one")
    ours.verify(key)
    other.revoke(public_id(key))
    ours.forget(public_id(key))
    refused(ours, key)


def test_a_record_that_was_read_before_a_change_is_not_remembered(counting, clock):
    store = KeyStore(counting, PEPPER, clock)
    key = store.create("one")
    counting.gate.clear()
    before = gevent.spawn(store.verify, key)
    gevent.idle()
    store.forget(public_id(key))
    counting.gate.set()
    before.join(10)
    store.verify(key)
    assert counting.reads == 2


def test_an_unknown_key_cannot_be_revoked(store, redis):
    assert not store.revoke("0" * 12)
    assert redis.keys() == []


def test_a_disabled_owner_ends_the_calls_of_its_keys(store, redis):
    ids = [public_id(store.create(name)) for name in ("free", "owned", "revoked")]
    redis.hset(keys.key(ids[1]), "owner", "search")
    assert revoked(redis, ids[:2]) == set()
    redis.hset(keys.owner_record("search"), "disabled", "1")
    store.revoke(ids[2])
    assert revoked(redis, ids) == set(ids[1:])


def test_every_key_is_listed_and_nothing_else(store, redis):
    made = {public_id(store.create(name)): name for name in ("one", "two", "three")}
    redis.hset("gw:key:broken", "name", "no hmac")
    redis.set("gw:lease:web-1", 1)
    assert {record.public_id: record.name for record in store.all()} == made


# Changes


def change(store, key, **values):
    return store.change(public_id(key), lambda record: values)


def audit(redis):
    return [json.loads(fields[b"entry"]) for _, fields in redis.xrange(keys.AUDIT)]


VALUES = {
    "owner": "team-a",
    "models": ("openai/*", "demo/echo"),
    "rpm": 10,
    "tpm": 2_000,
    "max_in_flight": 3,
    "max_waiting": 0,
    "limit": 5_000_000_000,
    "limit_unit": "usd",
    "limit_reset": "monthly",
    "limit_extra": 1_000_000_000,
    "limit_extra_until": 2_000_000_000,
    "priority": "batch",
    "weight": 2,
    "alerts": (0.8, 0.95),
    "metadata": {"team": "Zoë"},
    "disabled": True,
    "operator": True,
    "cache_seconds": 0,
    "retry_on_worker_loss": True,
    "expires": 3_000_000_000,
}


def test_every_value_of_a_key_is_kept_and_counted_as_a_change(store, redis):
    owner_store(redis).create("team-a", {}, COMMAND)
    created = store.get(public_id(store.create("one", **VALUES)))
    key = store.create("one")
    assert store.get(public_id(key)).version == 1
    changed = change(store, key, **VALUES)
    assert changed == store.get(public_id(key))
    assert changed.version == 2
    for name, value in VALUES.items():
        assert getattr(created, name) == getattr(changed, name) == value


def test_none_takes_a_value_away(store, redis):
    key = store.create("one")
    before = store.get(public_id(key))
    change(store, key, **{k: v for k, v in VALUES.items() if k != "owner"})
    after = change(store, key, **dict.fromkeys(VALUES))
    assert after == dataclasses.replace(before, version=3)
    for name in ("models", "rpm", "limit", "limit_reset", "expires", "disabled", "alerts"):
        assert not redis.hexists(keys.key(public_id(key)), name)


def test_no_models_is_not_the_same_as_all_models(store):
    key = store.create("one", models=())
    assert store.get(public_id(key)).models == ()
    assert not store.verify(key).allows("demo/echo")
    assert store.verify(store.create("two")).allows("demo/echo")


@pytest.mark.parametrize(
    ("names", "allowed"),
    [
        (["openai/gpt-5"], True),
        (["demo/echo"], True),
        (["demo/echo2"], False),
        (["gpt-5", "openai/gpt-5"], True),
        (["anthropic/claude", "opena"], False),
    ],
)
def test_a_star_at_the_end_of_a_model_stands_for_all_that_begin_like_it(store, names, allowed):
    key = store.create("one", models=("openai/*", "demo/echo"))
    assert store.verify(key).allows(*names) is allowed


def test_a_change_to_what_it_is_already_is_none(store, redis):
    key = store.create("one", rpm=5)
    assert change(store, key, rpm=5).version == 1
    assert len(audit(redis)) == 1


def test_two_changes_at_once_are_both_made(store, redis, clock):
    """The first one that comes late is made again from what the other has left."""
    key = store.create("one", rpm=1)
    other = KeyStore(redis, PEPPER, clock)

    def edit(record):
        if record.rpm == 1:
            change(other, key, rpm=2, tpm=7)
        return {"rpm": record.rpm * 10}

    record = store.change(public_id(key), edit)
    assert (record.rpm, record.tpm, record.version) == (20, 7, 3)


def test_a_key_has_no_owner_that_does_not_exist(store, redis):
    with pytest.raises(InvalidRequest) as caught:
        store.create("one", owner="nobody")
    assert (caught.value.param, redis.keys()) == ("owner", [])
    key = store.create("one")
    with pytest.raises(InvalidRequest):
        change(store, key, owner="nobody")
    assert store.get(public_id(key)).owner == ""


def test_an_unknown_or_revoked_key_is_neither_changed_nor_rotated(store, redis):
    revoked = store.create("one")
    store.revoke(public_id(revoked))
    entries = len(audit(redis))
    unknown = with_secret(revoked.replace(public_id(revoked), "0" * 12), "z" * 43)
    for key in (revoked, unknown):
        assert change(store, key, rpm=1) is None
        assert store.rotate(public_id(key), 60) is None
    assert len(audit(redis)) == entries
    assert redis.exists(keys.key("0" * 12)) == 0


def test_a_key_is_revoked_once(store, redis, clock):
    key = store.create("one")
    assert store.revoke(public_id(key))
    first = store.get(public_id(key)).revoked
    clock.now += 100
    assert not store.revoke(public_id(key))
    assert store.get(public_id(key)).revoked == first


def test_a_key_is_revoked_and_rotated_while_redis_is_full(store, redis):
    key = store.create("one")
    redis.config_set("maxmemory", 1)
    with pytest.raises(RedisError):
        redis.set("another", 1)
    assert store.rotate(public_id(key), 0)
    assert store.revoke(public_id(key))


def test_a_change_that_is_sent_again_after_its_reply_was_lost_is_made_once(store, redis):
    key = store.create("one")
    sent = []

    class Lossy:
        """Redis, whose replies to scripts are lost."""

        def execute_command(self, *command):
            sent.append(redis.execute_command(*command))
            raise TimeoutError

        def __getattr__(self, name):
            return getattr(redis, name)

    lossy = KeyStore(Lossy(), PEPPER)
    with pytest.raises(RedisError):
        change(lossy, key, rpm=5)
    assert sent == [b"ok"]
    assert change(store, key, rpm=5).version == 2
    assert [entry["action"] for entry in audit(redis)] == ["key.created", "key.updated"]


def test_every_change_is_in_the_audit_log_with_who_and_from_where(store, redis, clock):
    by = Actor("0123456789ab", "10.1.2.3", "192.0.2.7")
    key = store.create("one", by, limit=5_000_000_000)
    store.change(public_id(key), lambda record: {"limit": None, "rpm": 3}, by)
    store.rotate(public_id(key), 60, by)
    store.revoke(public_id(key), by)
    log = audit(redis)
    assert [entry["action"] for entry in log] == [
        "key.created", "key.updated", "key.rotated", "key.revoked"
    ]  # fmt: skip
    for entry in log:
        assert entry["target"] == public_id(key)
        assert entry["time"] == int(clock.now)
        assert (entry["actor"], entry["address"]) == (by.id, by.address)
        assert entry["forwarded_for"] == by.forwarded_for
    assert log[0]["changes"]["limit"] == [None, 5]
    assert log[1]["changes"] == {"limit": [5, None], "requests_per_minute": [None, 3]}
    assert set(log[2]["changes"]) == {"rotated_at", "previous_valid_until"}


def test_the_audit_log_has_no_secret_and_no_hash(store, redis):
    key = store.create("one")
    rotated = store.rotate(public_id(key), 60, idempotency_key="a-key").key
    store.revoke(public_id(key))
    text = repr(redis.xrange(keys.AUDIT))
    hashes = [
        value.decode()
        for name, value in redis.hgetall(keys.key(public_id(key))).items()
        if name in (b"hmac", b"hmac_old", b"rotation")
    ]
    assert len(hashes) == 3
    for hidden in (*hashes, key[26:], rotated[26:], "a-key"):
        assert hidden not in text


def test_what_a_store_shows_of_itself_has_no_hash(store):
    key = store.create("one")
    rotation = store.rotate(public_id(key), 60, idempotency_key="a-key")
    for hidden in (rotation.record.hmac, rotation.record.hmac_old, rotation.record.rotation):
        assert hidden not in repr(rotation)
    assert rotation.key not in repr(rotation)


def test_the_audit_log_is_bounded(store, redis, monkeypatch):
    monkeypatch.setattr(keys, "AUDIT_ENTRIES", 100)
    key = store.create("one")
    for number in range(400):
        change(store, key, rpm=number + 1)
    assert redis.xlen(keys.AUDIT) < 300


# Who gets in


def test_a_disabled_key_is_refused_until_it_is_enabled(store):
    key = store.create("one")
    change(store, key, disabled=True)
    refused(store, key)
    change(store, key, disabled=None)
    assert store.verify(key).name == "one"


def test_a_key_is_refused_from_the_second_on_in_which_it_expires(store, clock):
    key = store.create("one", expires=int(clock.now) + 60)
    clock.now = float(int(clock.now)) + 59.9
    store.verify(key)
    clock.now += 0.2
    refused(store, key)


def test_disabled_and_expired_keys_look_like_unknown_ones(store):
    disabled, expired = store.create("a", disabled=True), store.create("b", expires=1)
    for key in (disabled, expired):
        error = refused(store, key)
        assert (error.status, error.code, error.should_retry) == (401, "invalid_api_key", False)
        assert error.message == f"Incorrect API key provided: {key[:17]}***."


def test_a_changed_record_is_read_anew(store, redis, clock):
    key = store.create("one")
    elsewhere = KeyStore(redis, PEPPER, clock)
    record = elsewhere.verify(key)
    change(store, key, rpm=5)
    assert elsewhere.verify(key).version == 1
    assert elsewhere.refresh(record).rpm == 5
    assert elsewhere.verify(key).version == 2


def test_a_record_read_anew_may_be_of_a_key_that_is_no_longer_valid(store, redis, clock):
    for values in ({"disabled": True}, {"revoked": 1}, {"expires": 1}, {"hmac": "f" * 64}):
        key = store.create("one")
        record = store.verify(key)
        change(store, key, **values)
        with pytest.raises(AuthenticationFailed):
            store.refresh(record)
    redis.flushall()
    with pytest.raises(AuthenticationFailed):
        store.refresh(record)


# Rotation


def test_both_secrets_are_valid_in_the_grace_period_and_one_after_it(store, clock):
    old = store.create("one")
    rotation = store.rotate(public_id(old), 60)
    assert public_id(rotation.key) == public_id(old)
    assert rotation.key != old
    for key in (old, rotation.key):
        assert store.verify(key).public_id == public_id(old)
    assert rotation.record.hmac_old_until == int(clock.now) + 60
    clock.now = float(rotation.record.hmac_old_until)
    refused(store, old)
    store.verify(rotation.key)


def test_a_record_has_the_hash_of_the_secret_that_was_shown(store, redis):
    """The submit script compares it with the record in Redis."""
    old = store.create("one")
    new = store.rotate(public_id(old), 60).key
    stored = redis.hgetall(keys.key(public_id(old)))
    assert store.verify(new).hmac.encode() == stored[b"hmac"]
    assert store.verify(old).hmac.encode() == stored[b"hmac_old"]
    assert store.refresh(store.verify(old)).hmac.encode() == stored[b"hmac_old"]


def test_without_grace_the_old_secret_is_refused_at_once(store, redis):
    old = store.create("one")
    store.rotate(public_id(old), 0)
    refused(store, old)
    assert not redis.hmget(keys.key(public_id(old)), "hmac_old", "hmac_old_until")[0]


def test_a_second_rotation_ends_the_grace_of_the_first(store):
    first = store.create("one")
    second = store.rotate(public_id(first), 60).key
    third = store.rotate(public_id(first), 60).key
    refused(store, first)
    assert store.verify(second) and store.verify(third)


def test_a_rotation_repeated_with_its_idempotency_key_returns_the_same_secret(store, redis):
    old = store.create("one")
    first = store.rotate(public_id(old), 60, idempotency_key="try-1")
    again = store.rotate(public_id(old), 60, idempotency_key="try-1")
    assert (again.key, again.record) == (first.key, first.record)
    assert (first.replayed, again.replayed) == (False, True)
    assert len(audit(redis)) == 2
    assert store.verify(old) and store.verify(first.key)


def test_one_idempotency_key_gives_two_keys_different_secrets(store):
    made = [store.create(name) for name in ("one", "two")]
    rotated = [store.rotate(public_id(key), 0, idempotency_key="same").key for key in made]
    assert parse(rotated[0])[1] != parse(rotated[1])[1]


@pytest.mark.parametrize(("grace", "later"), [(30, 0), (60, 601)])
def test_an_idempotency_key_that_was_used_is_refused(store, clock, grace, later):
    old = store.create("one")
    new = store.rotate(public_id(old), 60, idempotency_key="try-1").key
    clock.now += later
    with pytest.raises(InvalidRequest) as caught:
        store.rotate(public_id(old), grace, idempotency_key="try-1")
    assert (caught.value.status, caught.value.code) == (409, "idempotency_conflict")
    assert store.verify(new)


def test_no_earlier_secret_comes_back_with_an_earlier_idempotency_key(store):
    old = store.create("one")
    first = store.rotate(public_id(old), 0, idempotency_key="try-1").key
    store.rotate(public_id(old), 0, idempotency_key="try-2")
    third = store.rotate(public_id(old), 0, idempotency_key="try-1").key
    assert third != first
    refused(store, first)


# Peppers

NEW = "n" * 40


@pytest.fixture
def renewing(redis, clock):
    return KeyStore(redis, NEW, clock, PEPPER)


def test_a_key_of_the_old_pepper_is_valid_and_hashed_anew(store, renewing, redis, clock):
    key = store.create("one")
    record = renewing.verify(key)
    assert redis.hget(keys.key(public_id(key)), "hmac").decode() == record.hmac
    assert record.version == 2
    refused(KeyStore(redis, PEPPER, clock), key)
    assert KeyStore(redis, NEW, clock).verify(key).name == "one"


def test_the_secret_before_a_rotation_is_hashed_anew_too(store, renewing, redis, clock):
    old = store.create("one")
    new = store.rotate(public_id(old), 60).key
    renewing.verify(old)
    renewing.verify(new)
    only = KeyStore(redis, NEW, clock)
    assert only.verify(old) and only.verify(new)


def test_hashing_anew_is_no_change_that_somebody_made(store, renewing, redis):
    key = store.create("one")
    renewing.verify(key)
    assert [entry["action"] for entry in audit(redis)] == ["key.created"]


def test_a_key_that_another_process_has_hashed_anew_is_valid(store, renewing, redis, clock):
    key = store.create("one")
    elsewhere = KeyStore(redis, NEW, clock, PEPPER)
    change(elsewhere, key, rpm=1)
    renewing.refresh(store.verify(key))  # its cache has the old hash now
    elsewhere.verify(key)
    stored = redis.hget(keys.key(public_id(key)), "hmac").decode()
    assert renewing.verify(key).hmac == stored


def test_a_secret_of_the_old_pepper_that_was_rotated_away_is_refused(store, redis, clock):
    """Although the record that has its hash is still in the cache."""
    owner.take(redis, NEW)
    old = store.create("one")
    elsewhere = KeyStore(redis, NEW, clock, PEPPER)
    redis.set(keys.OWNER, owner.fingerprint(PEPPER))  # so that it reads, and renews nothing
    elsewhere.verify(old)
    redis.set(keys.OWNER, owner.fingerprint(NEW))
    store.rotate(public_id(old), 0)
    refused(elsewhere, old)


def test_a_key_that_was_deleted_from_redis_is_not_made_by_hashing_it_anew(store, redis, clock):
    key = store.create("one")
    elsewhere = KeyStore(redis, NEW, clock, PEPPER)
    redis.set(keys.OWNER, owner.fingerprint(PEPPER))
    elsewhere.verify(key)
    redis.delete(keys.key(public_id(key)), keys.OWNER)
    refused(elsewhere, key)
    assert not redis.exists(keys.key(public_id(key)))


def test_a_record_without_a_hash_is_of_no_secret(store):
    record = store.verify(store.create("one"))
    with pytest.raises(AuthenticationFailed):
        store.refresh(dataclasses.replace(record, hmac=""))


def test_a_wrong_secret_hashes_nothing_anew(store, renewing, redis):
    key = store.create("one")
    refused(renewing, with_secret(key, "z" * 43))
    assert store.get(public_id(key)).version == 1


def test_a_process_that_has_the_next_pepper_beside_its_own_undoes_nothing(store, redis, clock):
    """It was deployed first, so that no call is refused during the change."""
    key = store.create("one")
    before = KeyStore(redis, PEPPER, clock, NEW)
    owner.take(redis, PEPPER, NEW)
    owner.take(redis, NEW, PEPPER)
    KeyStore(redis, NEW, clock, PEPPER).verify(key)
    stored = redis.hget(keys.key(public_id(key)), "hmac").decode()
    assert before.verify(key).hmac == stored
    assert redis.hget(keys.key(public_id(key)), "hmac").decode() == stored


def test_as_many_hashes_are_compared_for_every_key(store, renewing, monkeypatch):
    """So the time of a refusal does not tell which ids exist."""
    compared = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda *pair: compared.append(1) or compare(*pair))
    key, rotated = store.create("one"), store.create("two")
    store.rotate(public_id(rotated), 60)
    unknown = with_secret(key.replace(public_id(key), "0" * 12), "z" * 43)
    counts = set()
    for each in (with_secret(key, "z" * 43), unknown, with_secret(rotated, "z" * 43)):
        compared.clear()
        refused(renewing, each)
        counts.add(len(compared))
    assert len(counts) == 1


def test_an_unknown_key_is_no_wrong_key_before_an_emptied_redis_is_restored(redis, clock):
    store = KeyStore(redis, PEPPER, clock, copied=True)
    key = store.create("app")
    redis.flushall()
    fresh = KeyStore(redis, PEPPER, clock, copied=True)
    with pytest.raises(QueueUnavailable):
        fresh.verify(key)
    redis.set(keys.LEDGER_RESTORED, 1)
    with pytest.raises(AuthenticationFailed):
        fresh.verify(key)
