"""gateway/webhooks.py: who may receive events, how they are signed, and how they wait in Redis."""

import time

import openai
import orjson
import pytest
import standardwebhooks

from gateway import webhooks
from gateway.account.api_keys import KeyStore, public_id
from gateway.queue import keys

HOSTS = ("hooks.example.com", "Other.example.com:8443", "127.0.0.1:9000", "[::1]:9000")
BODY = (
    b'{"id":"evt_1","object":"event","type":"response.completed","created_at":1,"data":{"id":"r"}}'
)


@pytest.mark.parametrize(
    "url, entry",
    [
        ("https://hooks.example.com/inference?token=1", "hooks.example.com"),
        ("https://HOOKS.example.com:443", "hooks.example.com"),
        ("https://other.example.com:8443/", "Other.example.com:8443"),
        ("http://other.example.com:8443/", "Other.example.com:8443"),
        ("http://127.0.0.1:9000/", "127.0.0.1:9000"),
        ("http://[::1]:9000/", "[::1]:9000"),
        ("http://hooks.example.com/", None),
        ("https://hooks.example.com:8443/", None),
        ("https://other.example.com/", None),
        ("https://hooks.example.com.evil.com/", None),
        ("https://evil.com/hooks.example.com", None),
        ("https://hooks.example.com@evil.com/", None),
        ("https://evil.com@hooks.example.com/", None),
        ("https://hooks.example.com:443@evil.com:443/", None),
        ("https://hooks.example.com:0443/", None),
        ("https://hooks.example.com:/", None),
        ("https://hooks.example.com\\@evil.com/", None),
        ("https://hooks.example.com/#fragment", None),
        ("https://hooks.example.com/a b", None),
        ("https://hooks.example.com:0/", None),
        ("https://hooks.example.com:x/", None),
        ("https://hooks.exämple.com/", None),
        ("ftp://hooks.example.com/", None),
        ("hooks.example.com", None),
        ("https:///", None),
        ("", None),
        ("https://hooks.example.com/" + "a" * webhooks.MAX_URL, None),
    ],
)
def test_the_list_of_hosts_decides_which_urls_may_receive_events(url, entry):
    assert webhooks.allowing(url, HOSTS) == entry


def test_no_url_is_allowed_without_a_list():
    assert webhooks.allowing("https://hooks.example.com/", ()) is None


def test_two_independent_verifiers_accept_the_signature():
    secret = webhooks.secret("p" * 40, "key1", "nonce")
    headers = webhooks.headers(("p" * 40, ""), "key1", "nonce", "evt_1", int(time.time()), BODY)
    assert standardwebhooks.Webhook(secret).verify(BODY, dict(headers)) == orjson.loads(BODY)
    client = openai.OpenAI(api_key="sk-none", webhook_secret=secret)
    assert client.webhooks.unwrap(BODY, headers).data.id == "r"


@pytest.mark.parametrize("change", [("webhook-id", "evt_2"), ("webhook-timestamp", "1")])
def test_a_changed_header_is_not_accepted(change):
    secret = webhooks.secret("p" * 40, "key1", "nonce")
    headers = webhooks.headers(("p" * 40,), "key1", "nonce", "evt_1", int(time.time()), BODY)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(secret).verify(BODY, {**headers, change[0]: change[1]})


def test_while_the_pepper_changes_the_secrets_of_both_are_accepted():
    new, old = "n" * 40, "o" * 40
    headers = webhooks.headers((new, old), "key1", "nonce", "evt_1", int(time.time()), BODY)
    for pepper in (new, old):
        secret = webhooks.secret(pepper, "key1", "nonce")
        standardwebhooks.Webhook(secret).verify(BODY, dict(headers))


def test_secrets_differ_by_key_and_by_nonce():
    pairs = [("key1", "a"), ("key1", "b"), ("key2", "a")]
    assert len({webhooks.secret("p" * 40, *pair) for pair in pairs}) == 3


@pytest.fixture
def hooked(redis, settings):
    store = KeyStore(redis, settings.key_pepper)
    return public_id(store.create("hooked", webhook_url="https://x.example/", webhook_nonce="n"))


def test_an_event_waits_in_redis_and_holds_no_more_than_an_id(redis, hooked):
    assert webhooks.enqueue(redis, hooked, "response.completed", "resp_1") == "ok"
    [(event_id, due)] = redis.zrange(keys.webhooks(hooked), 0, -1, withscores=True)
    seconds, _ = redis.time()
    event = orjson.loads(redis.get(keys.webhook(event_id.decode())))
    assert event == {
        "id": event_id.decode(),
        "object": "event",
        "created_at": pytest.approx(seconds, abs=2),
        "type": "response.completed",
        "data": {"id": "resp_1"},
    }
    assert redis.zrange(keys.WEBHOOKS, 0, -1, withscores=True) == [(hooked.encode(), due)]
    for name in (keys.webhooks(hooked), keys.webhook(event_id.decode())):
        assert 86_400 < redis.ttl(name) <= keys.WEBHOOK_SECONDS


def test_an_event_that_is_queued_again_is_the_same(redis, hooked):
    for _ in range(2):
        assert webhooks.enqueue(redis, hooked, "batch.failed", "batch_1") == "ok"
    assert redis.zcard(keys.webhooks(hooked)) == 1
    for occurrence in ("1", "2"):
        webhooks.enqueue(redis, hooked, "key.budget_threshold", hooked, occurrence)
    assert redis.zcard(keys.webhooks(hooked)) == 3


def test_a_key_without_a_webhook_has_no_events(redis, key):
    assert webhooks.enqueue(redis, public_id(key), "batch.failed", "batch_1") == "none"
    assert not redis.keys("gw:webhooks*")


def test_the_events_of_a_key_are_bounded(redis, hooked, monkeypatch):
    monkeypatch.setattr(webhooks, "MAX_EVENTS", 2)
    results = [webhooks.enqueue(redis, hooked, "batch.failed", f"batch_{n}") for n in range(3)]
    assert results == ["ok", "ok", "full"]
    assert len(redis.keys("gw:webhooks:event:*")) == 2
