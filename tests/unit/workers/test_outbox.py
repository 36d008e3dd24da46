"""The outbox against a real Redis, one that forgets and one that is away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest
from redis import Redis

from gateway.account.records import Record
from gateway.queue import clients, commands, keys, scripts
from gateway.queue.clients import Command, DedicatedConnection
from gateway.queue.protocol import CHUNKS, OUTCOME, Event, Outcome
from gateway.settings import Settings
from local.redis_server import RedisServer
from tests.support.fakes import Clock
from workers import outbox as outbox_module
from workers.outbox import FAILING_SECONDS, Outbox, Sender

WEB = "web-1"
RECORD = Record("a" * 32, "key-1", 1, 2, usage={"input": 5, "output": 6}, cost_nano=70)


@pytest.fixture
def outbox(settings: Settings) -> Iterator[Outbox]:
    made = Outbox(DedicatedConnection(clients.blocking(settings)))
    made.start()
    yield made
    made.close(0)


def events(redis: Redis) -> list[Event]:
    return [Event.decode(fields[b"e"]) for _, fields in redis.xrange(keys.inbox(WEB))]


def test_events_of_a_call_are_numbered_and_end_with_its_outcome(
    redis: Redis, outbox: Outbox
) -> None:
    sender = Sender(outbox, "a" * 32, "claim", WEB)
    sender.send(b'{"n":1}')
    assert outbox.settled(5)
    sender.send(b'{"n":2}')
    sender.finish("worker", Outcome(last=sender.number), RECORD)
    assert outbox.settled(5)
    seen = events(redis)
    assert [(event.number, event.kind) for event in seen] == [
        (1, CHUNKS),
        (2, CHUNKS),
        (3, OUTCOME),
    ]
    assert Outcome.decode(seen[-1].payload).last == 2
    ((_, entry),) = redis.xrange(keys.RECORDS)
    assert Record.decode(entry[b"r"]) == RECORD


def test_what_is_not_sent_yet_is_joined(redis: Redis, outbox: Outbox) -> None:
    sender = Sender(outbox, "a" * 32, "claim", WEB)
    for number in range(100):
        sender.send(b'{"n":%d}' % number)
    assert outbox.settled(5)
    (event,) = events(redis)
    assert event.payload.split(b"\n") == [b'{"n":%d}' % number for number in range(100)]
    assert sender.number == 1


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inboxes that hold ten entries, and workers that look often."""
    monkeypatch.setattr(keys, "INBOX_EVENTS", 10)
    monkeypatch.setattr(outbox_module, "HOLD_SECONDS", 0.01)


def fill(redis: Redis, web: str = WEB) -> None:
    for _ in range(10):
        redis.xadd(keys.inbox(web), {"e": b"unread"})


def eventually(condition: Callable[[], bool]) -> None:
    with gevent.Timeout(10):
        while not condition():
            gevent.sleep(0.01)


@pytest.mark.usefixtures("small")
def test_events_for_a_full_inbox_join_here_until_it_was_read(redis: Redis, outbox: Outbox) -> None:
    fill(redis)
    sender = Sender(outbox, "a" * 32, "claim", WEB)
    other = Sender(outbox, "b" * 32, "claim", "web-2")
    sender.send(b"{}")  # its reply says that the inbox is full
    assert outbox.settled(5)
    for number in range(5):
        sender.send(b'{"n":%d}' % number)
        other.send(b"{}")
        assert outbox.settled(5)
        gevent.sleep(0.02)
    assert redis.xlen(keys.inbox(WEB)) == 11, "held back"
    assert redis.xlen(keys.inbox("web-2")) == 5, "other web processes go on"
    redis.xtrim(keys.inbox(WEB), maxlen=1, approximate=False)
    eventually(lambda: redis.xlen(keys.inbox(WEB)) == 2)
    last = events(redis)[-1]
    assert (last.number, last.payload.count(b"\n")) == (2, 4)


@pytest.mark.usefixtures("small")
def test_an_outcome_takes_the_events_before_it_along(redis: Redis, outbox: Outbox) -> None:
    fill(redis)
    sender = Sender(outbox, "a" * 32, "claim", WEB)
    for _ in range(3):
        sender.send(b"{}")
        assert outbox.settled(5)
    assert redis.xlen(keys.inbox(WEB)) == 11
    sender.finish("worker", Outcome(last=sender.number), RECORD)
    assert outbox.settled(5)
    entries = redis.xrange(keys.inbox(WEB))[10:]
    assert [Event.decode(fields[b"e"]).number for _, fields in entries] == [1, 2, 3]


def test_small_outcomes_go_out_between_the_pieces_of_a_large_one(
    redis: Redis, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be late by the time that Redis takes for all of it."""
    large = Outcome(answer=b"x" * 5 * commands.PIECE_BYTES)
    pieces: list[int] = []  # by batch
    write = outbox._writer.write

    def note(batch: list[Command]) -> list[Any]:
        if not pieces:
            Sender(outbox, "b" * 32, "claim", WEB).finish("worker", Outcome(), None)
        pieces.append(sum(command[1] == scripts.PIECE.sha for command in batch))
        return write(batch)

    monkeypatch.setattr(outbox._writer, "write", note)
    Sender(outbox, "a" * 32, "claim", WEB).finish("worker", large, None)
    assert outbox.settled(30)
    assert pieces == [1] * 6 + [0]
    assert [event.call_id for event in events(redis)] == ["b" * 32, ""]
    assert commands.outcomes(redis, ["a" * 32]) == [large]


def test_what_follows_writes_that_were_given_up_is_written(
    redis: Redis, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "KEEP_SECONDS", -1.0)
    monkeypatch.setattr(outbox, "_attempt", lambda batch: batch)
    Sender(outbox, "a" * 32, "claim", WEB).finish(
        "worker", Outcome(answer=b"x" * 5 * commands.PIECE_BYTES), None
    )
    assert outbox.settled(10)
    assert not outbox._in_turn


@pytest.mark.usefixtures("small")
def test_a_call_with_much_unsent_waits_until_it_may_be_sent(
    redis: Redis, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "CALL_BYTES", 10)
    fill(redis)
    sender = Sender(outbox, "a" * 32, "claim", WEB)
    sender.send(b"{}")
    assert outbox.settled(5)
    sender.send(b"{}")
    sending = gevent.spawn(sender.send, b"x" * 10)
    gevent.sleep(0.1)
    assert not sending.ready()
    redis.delete(keys.inbox(WEB))
    sending.join(10)
    assert sending.successful()


def test_many_calls_share_a_batch(redis: Redis, outbox: Outbox) -> None:
    before = redis.info("stats")["total_commands_processed"]
    for number in range(50):
        Sender(outbox, f"{number:032d}", "claim", WEB).send(b"{}")
    assert outbox.settled(5)
    assert len(events(redis)) == 50
    # One EVALSHA, the script's 50 XADD and EXPIRE; where the script was unknown, a second round.
    assert redis.info("stats")["total_commands_processed"] - before < 70


def test_a_forgotten_script_is_loaded_and_the_order_kept(redis: Redis, outbox: Outbox) -> None:
    sender = Sender(outbox, "a" * 32, "claim", WEB)
    redis.script_flush()
    sender.send(b"{}")
    sender.finish("worker", Outcome(last=sender.number), RECORD)
    assert outbox.settled(5)
    assert [event.number for event in events(redis)] == [1, 2]


def test_a_write_that_redis_refuses_for_good_does_not_hold_up_the_next(
    redis: Redis, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    redis.set(keys.inbox("web-2"), "not a stream")
    Sender(outbox, "a" * 32, "claim", "web-2").send(b'{"secret":"CANARY"}')
    Sender(outbox, "b" * 32, "claim", WEB).send(b"{}")
    assert outbox.settled(5)
    assert [event.call_id for event in events(redis)] == ["b" * 32]
    assert "refused" in caplog.text
    assert "CANARY" not in caplog.text


def test_answers_are_kept_while_redis_is_away(tmp_path: Path, settings: Settings) -> None:
    with RedisServer(tmp_path) as server:
        theirs = replace(settings, redis_url=server.url)
        outbox = Outbox(DedicatedConnection(clients.blocking(theirs)))
        outbox.start()
        sender = Sender(outbox, "a" * 32, "claim", WEB)
        sender.send(b'{"n":1}')
        assert outbox.settled(5)
        server.stop()
        sender.send(b'{"n":2}')
        sender.finish("worker", Outcome(last=sender.number), RECORD)
        assert not outbox.settled(0.5)
        server.start()
        assert outbox.settled(10)
        with Redis.from_url(server.url, protocol=2) as redis:
            numbers = [event.number for event in events(redis)]
        assert sorted(set(numbers)) == [1, 2, 3]
        outbox.close(0)


def test_an_outbox_is_failing_once_redis_has_accepted_nothing_for_a_while(
    tmp_path: Path, settings: Settings
) -> None:
    clock = Clock()
    with RedisServer(tmp_path) as server:
        theirs = replace(settings, redis_url=server.url)
        outbox = Outbox(DedicatedConnection(clients.blocking(theirs)), clock)
        outbox.start()
        sender = Sender(outbox, "a" * 32, "claim", WEB)
        sender.send(b"{}")
        assert outbox.settled(5)
        with Redis.from_url(server.url, protocol=2) as redis:
            redis.replicaof("127.0.0.1", 1)  # read-only from now on
            sender.send(b"{}")
            assert not outbox.settled(0.5)
            assert not outbox.failing()
            clock.now += FAILING_SECONDS + 1
            assert outbox.failing()
            redis.replicaof("no", "one")
            assert outbox.settled(10)
        assert not outbox.failing()
        outbox.close(0)


def test_an_outbox_with_nothing_left_to_write_finds_out_that_redis_accepts_again(
    tmp_path: Path, settings: Settings
) -> None:
    clock = Clock()
    with RedisServer(tmp_path) as server, Redis.from_url(server.url, protocol=2) as redis:
        redis.acl_setuser("default", enabled=True, nopass=True, commands=["-evalsha", "-unlink"])
        outbox = Outbox(
            DedicatedConnection(clients.blocking(replace(settings, redis_url=server.url))), clock
        )
        outbox.start()
        Sender(outbox, "a" * 32, "claim", WEB).send(b"{}")  # refused for good
        eventually(lambda: not outbox.settled(0))
        clock.now += FAILING_SECONDS + 1
        eventually(outbox.failing)
        redis.acl_setuser("default", commands=["+evalsha", "+unlink"])
        eventually(lambda: not outbox.failing())
        outbox.close(0)


def test_a_fault_of_ours_does_not_end_the_outbox(
    redis: Redis, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    outbox.put(("SET", object(), b"redis-py cannot encode this"))
    assert outbox.settled(5)
    assert "outbox: DataError" in caplog.text
    Sender(outbox, "a" * 32, "claim", WEB).send(b"{}")
    assert outbox.settled(5)
    assert len(events(redis)) == 1


def test_a_call_waits_when_too_much_of_it_is_unsent(redis: Redis, outbox: Outbox) -> None:
    sender = Sender(outbox, "a" * 32, "claim", WEB)
    chunk = b'"%s"' % (b"x" * 1_000_000)

    def produce() -> None:
        for _ in range(20):
            sender.send(chunk)

    producer = gevent.spawn(produce)
    producer.join(30)
    assert producer.successful()
    assert outbox.settled(30)
    seen = events(redis)
    assert sum(len(event.payload.split(b"\n")) for event in seen) == 20
    assert max(len(event.payload) for event in seen) < 7_000_000
