"""Submissions: many at once, refused, unanswered, late."""

from __future__ import annotations

import logging
import re
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

import gevent
import pytest
from redis import Redis

from gateway import logs
from gateway.account import running
from gateway.account.api_keys import KeyRecord, KeyStore
from gateway.account.cache import Entry
from gateway.account.records import Record
from gateway.broker import submitter
from gateway.broker.pending_call import PendingCall
from gateway.broker.submitter import Submission, Submitter
from gateway.catalogue.target import Target
from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    KeyChanged,
    PayloadTooLarge,
    QueueUnavailable,
)
from gateway.queue import clients, keys
from gateway.queue.clients import DedicatedConnection
from gateway.queue.protocol import CallSpec, Event
from gateway.settings import Settings
from tests.support.fakes import admission


@dataclass
class Sending:
    """A submitter at work, and what it reported as unknown."""

    settings: Settings
    key: KeyRecord
    unknown: list[PendingCall] = field(default_factory=list)
    clocks: list[float] = field(default_factory=list)  # what Redis' clock shows, each time; then 0

    def __post_init__(self) -> None:
        connection = DedicatedConnection(clients.commands(self.settings, 1))
        self.submitter = Submitter(
            self.settings, connection, self.redis_time, self.unknown.append, float
        )
        self.greenlet = gevent.spawn(self.submitter.run)

    def redis_time(self, seconds: float) -> float:
        return self.clocks.pop(0) if self.clocks else 0

    def put(
        self, key: KeyRecord | None = None, budget: float = 60, body: bytes = b"{}"
    ) -> PendingCall:
        spec = CallSpec(uuid.uuid4().hex, "web-1", False, (Target("demo/echo", "demo", "echo"),))
        pending = PendingCall(spec.call_id, budget, lambda pending: None)
        self.submitter.put(Submission(spec, body, pending, admission(key or self.key)))
        return pending

    def close(self) -> None:
        self.greenlet.kill()
        self.submitter.close()


@pytest.fixture
def key(redis: Redis, settings: Settings) -> KeyRecord:
    store = KeyStore(redis, settings.key_pepper)
    return store.verify(store.create("tests"))


@pytest.fixture
def sending(settings: Settings, key: KeyRecord) -> Iterator[Sending]:
    made = Sending(settings, key)
    yield made
    made.close()


def settled(*pending_calls: PendingCall) -> None:
    with gevent.Timeout(10):
        while not all(pending.submitted or pending.outcome for pending in pending_calls):
            gevent.sleep(0.001)


def error(pending: PendingCall) -> GatewayError:
    assert pending.outcome is not None
    assert pending.outcome.error is not None
    return pending.outcome.error


def test_calls_put_together_go_out_together(redis: Redis, sending: Sending) -> None:
    settled(sending.put())
    before = redis.info("stats")["total_reads_processed"]
    settled(*(sending.put() for _ in range(50)))
    assert redis.llen(keys.RQ_QUEUE) == 51
    # Redis reads 16 kB at a time: a few reads for the batch, one or two for this test's question.
    assert redis.info("stats")["total_reads_processed"] - before < 20


def test_a_refusal_ends_its_own_call_only(redis: Redis, sending: Sending) -> None:
    bad = sending.put(key=replace(sending.key, hmac="0" * 64))
    good = sending.put()
    settled(bad, good)
    assert isinstance(error(bad), KeyChanged)
    assert good.submitted
    assert sending.unknown == []


def test_a_body_that_never_fits_redis_is_not_sent_again(redis: Redis, sending: Sending) -> None:
    redis.config_set("maxmemory", 20_000_000)  # Redis itself takes some, after other tests more
    body = b"x" * 9_000_000
    refused = sending.put(body=body)
    settled(refused)
    assert isinstance(error(refused), PayloadTooLarge)
    with pytest.raises(PayloadTooLarge):
        sending.put(body=body)
    small = sending.put()
    settled(small)
    assert small.submitted


def test_small_calls_go_before_large_ones_that_wait(redis: Redis, sending: Sending) -> None:
    large = [sending.put(body=b"x" * 1_000_000) for _ in range(3)]
    small = sending.put()
    settled(small, *large)
    order = [call_id.decode() for call_id in redis.lrange(keys.RQ_QUEUE, 0, -1)]
    assert order == [each.call_id for each in (small, *large)]


def test_forgotten_scripts_are_loaded_again(redis: Redis, sending: Sending) -> None:
    settled(sending.put())
    redis.script_flush()
    pending_calls = [sending.put() for _ in range(3)]
    settled(*pending_calls)
    assert all(pending.submitted for pending in pending_calls)


def test_a_connection_closed_meanwhile_costs_nothing(redis: Redis, sending: Sending) -> None:
    settled(sending.put())
    redis.client_kill_filter(_type="normal", skipme=True)
    pending = sending.put()
    settled(pending)
    assert pending.submitted
    assert redis.llen(keys.RQ_QUEUE) == 2


def test_a_call_whose_client_has_left_is_not_sent(redis: Redis, sending: Sending) -> None:
    pending = sending.put()
    pending.fail(GatewayError())
    settled(sending.put())
    assert redis.llen(keys.RQ_QUEUE) == 1


def test_a_call_that_comes_too_late_is_sent_again(redis: Redis, sending: Sending) -> None:
    sending.clocks += [redis.time()[0] - 1] * 2
    pending = sending.put()
    settled(pending)
    assert pending.submitted
    assert not sending.clocks
    assert redis.llen(keys.RQ_QUEUE) == 1


def test_the_time_until_a_call_is_late_begins_when_it_is_sent(
    redis: Redis, sending: Sending
) -> None:
    sending.clocks.append(redis.time()[0] + 60)
    pending = sending.put()
    assert sending.clocks, "it waits in line"
    settled(pending)
    assert pending.submitted
    assert not sending.clocks


def test_a_call_whose_deadline_passed_in_line_is_not_sent(redis: Redis, sending: Sending) -> None:
    pending = sending.put(budget=-1)
    settled(pending)
    assert isinstance(error(pending), DeadlineExceeded)
    assert error(pending).should_retry is True
    assert redis.llen(keys.RQ_QUEUE) == 0


def test_refusals_are_logged_as_counts(
    settings: Settings,
    key: KeyRecord,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # A log of its own: what submitters of other tests count is logged a second later.
    monkeypatch.setattr(submitter, "log", logging.getLogger("refusals"))
    monkeypatch.setattr(logs, "TALLY_SECONDS", 0.05)
    bad = replace(key, hmac="0" * 64)

    def count() -> int:  # in one line or two
        lines = [each.getMessage() for each in caplog.records if each.name == "refusals"]
        return sum(map(int, re.findall(r"submit: refused calls: (\d+) key", "\n".join(lines))))

    with closing(Sending(settings, key)) as sending:
        settled(*(sending.put(key=bad) for _ in range(5)))
        with gevent.Timeout(10):
            while count() < 5:
                gevent.sleep(0.01)
    assert count() == 5


def test_a_call_that_could_not_be_sent_may_be_sent_again(
    settings: Settings, key: KeyRecord
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{closed.getsockname()[1]}/0"
        sending = Sending(replace(settings, redis_url=url), key)
        pending = sending.put()
        settled(pending)
    assert error(pending).should_retry is True
    assert sending.unknown == []
    sending.close()


def test_a_call_that_was_sent_and_not_answered_is_cancelled_and_not_to_be_repeated(
    settings: Settings, key: KeyRecord, silent_redis: Callable[[], str]
) -> None:
    sending = Sending(replace(settings, redis_url=silent_redis()), key)
    pending = sending.put()
    settled(pending)
    assert isinstance(error(pending), QueueUnavailable)
    assert error(pending).should_retry is False
    assert sending.unknown == [pending]
    sending.close()


@pytest.fixture
def silent_redis(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """A server that greets, reads everything and then hangs up without a reply."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                while data := client.recv(65536):
                    if b"EVALSHA" in data:
                        break
                    client.sendall(b"+OK\r\n" * data.count(b"*"))

    thread = threading.Thread(target=serve)
    thread.start()
    # The fake serves in a thread, and an unpatched socket would keep it from running.
    yield lambda: f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def test_a_fault_of_ours_costs_its_batch_and_no_other(
    redis: Redis, sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*_: object) -> None:
        monkeypatch.undo()
        raise ZeroDivisionError

    monkeypatch.setattr(submitter, "refusal", faulty)
    first = sending.put()
    settled(first)
    assert error(first).should_retry is False
    second = sending.put()
    settled(second)
    assert second.submitted


@pytest.mark.parametrize("stream", [False, True])
def test_a_kept_response_of_a_logged_call_is_in_its_log(
    redis: Redis, sending: Sending, stream: bool
) -> None:
    call_id = uuid.uuid4().hex
    spec = CallSpec(
        call_id,
        keys.log_address(call_id, 600),
        stream,
        (Target("demo/echo", "demo", "echo"),),
        account={"response_id": f"resp_{call_id}"},
    )
    pending = PendingCall(call_id, 60, lambda pending: None)
    pending.logged = True
    entry = Entry(b'{"choices":[]}', 7, ["seed"])
    sending.submitter.put(Submission(spec, b"{}", pending, admission(sending.key), entry))
    settled(pending)
    assert (pending.cache, pending.outcome) == ("hit", None)  # which comes from the log
    for _, fields in redis.xrange(keys.log(call_id)):
        pending.offer(Event.decode(fields[b"e"]))
    assert pending.outcome is not None
    if stream:
        assert pending.parts() == [b'{"choices":[]}']
    else:
        assert (pending.outcome.answer, pending.outcome.dropped) == (b'{"choices":[]}', ["seed"])
    assert 0 < redis.ttl(keys.log(call_id)) <= 600
    ((_, fields),) = redis.xrange(keys.RECORDS)
    record = Record.decode(fields[b"r"])
    assert (record.cache_hit, record.response_id) == (True, f"resp_{call_id}")  # for its webhook
    unfinished = running.find(redis, call_id)
    assert unfinished is not None
    assert (unfinished.status, unfinished.key_id) == (running.SETTLING, sending.key.public_id)
    assert redis.llen(keys.RQ_QUEUE) == 0
