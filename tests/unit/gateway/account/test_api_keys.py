"""gateway/account/api_keys.py: how a key looks, and who gets in with it."""

from __future__ import annotations

import hashlib
import hmac
import re

import gevent
import pytest
from gevent.event import Event
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ConnectionError, RedisError, TimeoutError

from gateway.account import api_keys
from gateway.account.api_keys import CACHE_SECONDS, DIGITS, KeyStore, base62, checksum, parse
from gateway.errors import AuthenticationFailed
from gateway.queue import keys
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
        everything += name + repr(redis.hgetall(name)).encode() + redis.dump(name)
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


def test_an_unknown_key_cannot_be_revoked(store, redis):
    assert not store.revoke("0" * 12)
    assert redis.keys() == []


def test_every_key_is_listed_and_nothing_else(store, redis):
    made = {public_id(store.create(name)): name for name in ("one", "two", "three")}
    redis.hset("gw:key:broken", "name", "no hmac")
    redis.set("gw:lease:web-1", 1)
    assert {record.public_id: record.name for record in store.all()} == made
