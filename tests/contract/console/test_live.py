"""The console's pages that keep themselves up to date: what they send, and when they end."""

from __future__ import annotations

import time
from contextlib import contextmanager

import orjson
import pytest

from api.console import stream
from gateway.account.api_keys import public_id
from gateway.account.records import Record
from gateway.broker.places import Places
from gateway.queue import keys
from tests.contract.console.conftest import BROWSER, Browser


@contextmanager
def opened(client, address):
    """The events of a stream, as pairs of name and data."""
    response = client.get(address, headers=BROWSER)
    assert response.status_code == 200
    assert response.mimetype == "text/event-stream"
    assert response.headers["Cache-Control"] == "no-store"

    def events():
        for piece in response.iter_encoded():
            if piece.startswith(b"event: "):
                name, _, data = piece.partition(b"\n")
                yield name[7:].decode(), orjson.loads(data.removeprefix(b"data: "))

    yield events()
    response.close()


def ended(redis, ledger, key, number):
    """Note a call that has ended, as a worker does and then the writer of the ledger."""
    now = int(time.time() * 1000)
    record = Record(f"{number:032x}", public_id(key), now, now + number, model="demo/echo")
    redis.xtrim(keys.RECORDS, maxlen=0)
    entry = redis.xadd(keys.RECORDS, {"r": record.encode()})
    ledger.write([record])
    redis.xdel(keys.RECORDS, entry)


@pytest.fixture
def busy(redis):
    """A minute with five calls, of which one has failed."""
    slot = int(time.time() // keys.RECENT_SLOT_SECONDS)
    figures = {"calls": 5, "status completed": 4, "status failed": 1}
    figures |= {"model calls demo/echo": 5, "model failed demo/echo": 1}
    redis.hset(keys.recent(slot), mapping=figures)


def test_live_shows_the_last_minute_before_any_script_runs(operator, busy):
    page = operator.get("/console/live")
    assert "20.0 %" in page and "1 failed" in page and "demo/echo" in page


def test_live_sends_figures_again_and_again(operator, busy):
    with opened(operator.client, "/console/live/stream") as events:
        for _ in range(2):
            name, data = next(events)
            assert name == "figures"
            assert "20.0 %" in data["html"]


def test_viewers_of_one_process_share_their_figures(operator, busy, redis):
    with (
        opened(operator.client, "/console/live/stream") as first,
        opened(operator.client, "/console/live/stream") as second,
    ):
        one = next(first)
        redis.flushdb()  # what is asked now would be nothing
        assert next(second) == one


def test_calls_are_sent_once_as_they_end(caller, redis, ledger, key):
    ended(redis, ledger, key, 1)
    with opened(caller.client, "/console/calls/stream?model=demo/echo") as events:
        stream = iter(events)
        ended(redis, ledger, key, 2)
        name, data = next(stream)
        assert name == "calls"
        assert f"{2:032x}" in data["html"] and f"{1:032x}" not in data["html"]
        ended(redis, ledger, key, 3)
        assert f"{2:032x}" not in next(stream)[1]["html"]


def test_a_stream_ends_with_the_session_although_it_has_events(operator, busy, redis, monkeypatch):
    monkeypatch.setattr(stream, "CHECK_SECONDS", 0.0)
    with opened(operator.client, "/console/live/stream") as events:
        assert next(events)[0] == "figures"
        redis.flushdb()  # all sessions
        assert list(events) == []


def test_a_stream_ends_with_the_process(operator, broker):
    broker.draining = True
    with opened(operator.client, "/console/live/stream") as events:
        assert list(events) == []


def test_a_key_cannot_hold_all_places_of_a_process_with_streams(make_client, settings, broker, key):
    browser = Browser(make_client(settings, broker, readers=Places(4)))
    browser.sign_in(key)
    responses = [browser.client.get("/console/calls/stream", headers=BROWSER) for _ in range(5)]
    assert [each.status_code for each in responses] == [200, 200, 200, 200, 503]
    for each in reversed(responses):
        each.close()
    again = browser.client.get("/console/calls/stream", headers=BROWSER)
    assert again.status_code == 200
    again.close()
