"""workers/webhooks.py: how events are delivered, and what becomes of those that are refused.

Receivers that hang need a process with gevent's sockets: see tests/e2e/test_webhooks.py.
"""

import dataclasses
import logging

import openai
import pytest
from redis.exceptions import ConnectionError

from gateway import webhooks
from gateway.account.api_keys import KeyStore, public_id
from gateway.queue import keys
from tests.support.receiver import Receiver
from workers.webhooks import PublicResolver, WebhookSender

SOON = (0.0, 0.0)  # events that failed are due again at once


@pytest.fixture(scope="module")
def receiver():
    with Receiver() as running:
        yield running


@pytest.fixture(autouse=True)
def cleared(receiver):
    receiver.deliveries.clear()


@pytest.fixture
def hosts(settings, receiver):
    return dataclasses.replace(settings, webhook_hosts=(receiver.host, "hooks.example.com"))


@pytest.fixture
def make(redis, hosts):
    """A function that makes a sender."""
    return lambda name="worker-1", **more: WebhookSender(redis, hosts, name, **more)


@pytest.fixture
def hooked(redis, settings, receiver):
    """A function that makes a key with a webhook at a path of the receiver, or at a URL."""
    store = KeyStore(redis, settings.key_pepper)

    def create(path):
        url = path if "://" in path else receiver.url + path
        return public_id(store.create("hooked", webhook_url=url, webhook_nonce="nonce"))

    return create


def run(sender, times=1):
    for _ in range(times):
        sender.step()
        sender.join()


def logged(caplog, message):
    """The fields of each line with this message."""
    return [record.fields for record in caplog.records if record.message == message]


def waiting(redis, key_id):
    """The ids of the events of a key that wait, and whether the sender will look for them."""
    ids = redis.zrange(keys.webhooks(key_id), 0, -1)
    assert (redis.zscore(keys.WEBHOOKS, key_id) is not None) == bool(ids)
    assert len(redis.keys("gw:webhooks:event:*")) == len(ids)
    return ids


def test_an_event_is_delivered_once_and_verified_by_openais_client(
    redis, make, hooked, receiver, settings
):
    key_id = hooked("/ok")
    webhooks.enqueue(redis, key_id, "response.completed", "resp_1")
    run(make(), 3)
    [delivery] = receiver.deliveries
    secret = webhooks.secret(settings.key_pepper, key_id, "nonce")
    client = openai.OpenAI(api_key="sk-none", webhook_secret=secret)
    event = client.webhooks.unwrap(delivery.body, delivery.headers)
    assert (event.type, event.data.id) == ("response.completed", "resp_1")
    assert event.id == delivery.headers["webhook-id"]
    assert delivery.headers["content-type"] == "application/json"
    assert not waiting(redis, key_id)


def test_all_events_of_a_key_are_delivered(redis, make, hooked, receiver):
    key_id = hooked("/ok")
    for number in range(20):
        webhooks.enqueue(redis, key_id, "response.completed", f"resp_{number}")
    run(make(), 3)  # 8 in a turn
    assert len({each.event["data"]["id"] for each in receiver.deliveries}) == 20
    assert not waiting(redis, key_id)


def test_a_receiver_that_fails_gets_the_same_event_again(redis, make, hooked, receiver, caplog):
    key_id = hooked("/twice")
    webhooks.enqueue(redis, key_id, "batch.completed", "batch_1")
    run(make(retry_seconds=SOON), 4)
    assert len({each.headers["webhook-id"] for each in receiver.deliveries}) == 1
    assert len(receiver.deliveries) == 3
    assert not waiting(redis, key_id)
    assert [line["result"] for line in logged(caplog, "webhook failed")] == [500, 500]


def test_pauses_grow_with_the_age_of_an_event(redis, make, hooked):
    key_id = hooked("/fail")
    webhooks.enqueue(redis, key_id, "batch.completed", "batch_1")
    sender = make(retry_seconds=(5.0, 7_200.0))
    [event_id] = waiting(redis, key_id)
    pauses = []
    for age in (0, 5, 100, 40_000):
        now = redis.time()[0]
        body = redis.get(keys.webhook(event_id.decode())).decode()
        head, _, tail = body.partition('"created_at":')
        body = f'{head}"created_at":{now - age},{tail.partition(",")[2]}'
        redis.set(keys.webhook(event_id.decode()), body)
        for name, member in ((keys.WEBHOOKS, key_id), (keys.webhooks(key_id), event_id)):
            redis.zadd(name, {member: 0})
        run(sender)
        pauses.append(redis.zscore(keys.webhooks(key_id), event_id) / 1000 - now)
    bounds = [(4, 30), (4, 30), (85, 150), (6_400, 8_000)]  # a slow machine makes events older
    assert all(least < pause < most for pause, (least, most) in zip(pauses, bounds, strict=True))
    assert redis.zscore(keys.WEBHOOKS, key_id) >= redis.zscore(keys.webhooks(key_id), event_id)


def test_an_event_is_given_up_after_a_day(redis, make, hooked, caplog):
    key_id = hooked("/fail")
    webhooks.enqueue(redis, key_id, "batch.completed", "batch_1")
    [event_id] = waiting(redis, key_id)
    name = keys.webhook(event_id.decode())
    created = redis.time()[0] - 86_400
    redis.set(name, b'{"id":"evt","type":"batch.completed","created_at":%d}' % created)
    run(make(retry_seconds=SOON))
    assert not waiting(redis, key_id)
    assert logged(caplog, "webhook given up")[0]["result"] == 500


def test_redirects_are_failures_and_not_followed(redis, make, hooked, receiver, caplog):
    key_id = hooked("/redirect")
    webhooks.enqueue(redis, key_id, "batch.completed", "batch_1")
    run(make())
    assert [each.path for each in receiver.deliveries] == ["/redirect"]
    assert waiting(redis, key_id)
    assert logged(caplog, "webhook failed")[0]["result"] == 307


def test_a_response_without_an_end_is_not_read_to_it(redis, make, hooked):
    key_id = hooked("/endless")
    webhooks.enqueue(redis, key_id, "batch.completed", "batch_1")
    run(make())
    assert not waiting(redis, key_id)


def test_a_name_that_resolves_to_a_private_address_is_not_connected_to(redis, make, hooked, caplog):
    key_id = hooked("https://hooks.example.com/secret-path")
    webhooks.enqueue(redis, key_id, "batch.completed", "batch_1")
    run(make(resolver=PublicResolver(lambda host: ["127.0.0.1", "10.0.0.1", "::ffff:10.0.0.1"])))
    assert waiting(redis, key_id)
    [line] = logged(caplog, "webhook failed")
    assert (line["host"], line["result"]) == ("hooks.example.com", "upstream_connect")


def test_only_the_public_addresses_of_a_name_are_used():
    addresses = ["10.0.0.1", "93.184.216.34", "fe80::1%eth0", "2606:2800:220:1::1"]
    resolver = PublicResolver(lambda host: addresses)
    assert list(resolver.addresses("hooks.example.com", 5)) == [addresses[1], addresses[3]]
    with pytest.raises(OSError):
        resolver.addresses("127.0.0.1", 5)


@pytest.mark.parametrize("change", ["revoked", "taken away", "host taken off the list"])
def test_events_for_a_webhook_that_is_gone_are_dropped(
    redis, make, hooked, receiver, settings, change
):
    key_id = hooked("https://gone.example.com/" if change.startswith("host") else "/ok")
    webhooks.enqueue(redis, key_id, "batch.completed", "batch_1")
    store = KeyStore(redis, settings.key_pepper)
    if change == "revoked":
        store.revoke(key_id)
    elif change == "taken away":
        store.change(key_id, lambda record: {"webhook_url": None, "webhook_nonce": None})
    run(make())
    assert not receiver.deliveries and not waiting(redis, key_id)


def test_one_of_two_workers_delivers_and_the_other_goes_on(redis, make, hooked, receiver):
    key_id = hooked("/ok")
    first, second = make("worker-1"), make("worker-2")
    run(first)
    webhooks.enqueue(redis, key_id, "batch.completed", "batch_1")
    run(second)
    assert not receiver.deliveries
    redis.delete(keys.WEBHOOK_SENDER)  # the lease of a worker that died expires
    run(second)
    run(first)
    assert len(receiver.deliveries) == 1


def test_a_redis_that_is_away_is_logged_once(make, redis, caplog, monkeypatch):
    sender = make()

    def fail(*_, **__):
        raise ConnectionError

    monkeypatch.setattr(redis, "set", fail)
    run(sender, 3)
    assert caplog.text.count("webhooks: events wait in Redis (ConnectionError)") == 1


def test_a_delivery_is_logged_without_its_secret(redis, make, hooked, caplog, settings):
    caplog.set_level(logging.INFO)
    key_id = hooked("/ok?token=a-secret-of-the-receiver")
    webhooks.enqueue(redis, key_id, "batch.completed", "batch_1")
    run(make())
    [line] = logged(caplog, "webhook delivered")
    assert (line["key_id"], line["result"]) == (key_id, 200)
    text = f"{caplog.text} {line}"
    assert "token" not in text and "nonce" not in text
    assert webhooks.secret(settings.key_pepper, key_id, "nonce")[6:] not in text
