"""gateway/broker/inbox.py on a real Redis that drops its connections and forgets its streams.

`run` reads for ever: here the function that events are delivered to plays the other side, and
raises Enough when it has seen what it wanted.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import gevent
import pytest
from redis import Redis

from gateway.broker import inbox
from gateway.broker.inbox import InboxReader
from gateway.broker.pending_call import PendingCall
from gateway.queue import clients, commands, keys, scripts
from gateway.queue.clients import DedicatedConnection
from gateway.queue.protocol import CHUNKS, Event
from gateway.settings import Settings

WEB = "web-1"
KEY = keys.inbox(WEB)
CALL_ID = "a" * 32
PATIENCE = 15


class Enough(Exception):
    """Ends `run`: the reader knows no such error."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short waits, and an end for a reader that waits for what has passed it by."""
    monkeypatch.setattr(clients, "BLOCK_SECONDS", 0.1)
    monkeypatch.setattr(inbox, "RETRY_SECONDS", 0)

    def give_up(number: int, frame: FrameType | None) -> None:
        pytest.fail("the reader has not delivered what was expected")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def event(number: int) -> Event:
    return Event(CALL_ID, "claim", number, CHUNKS, b"%d\n{}" % number)


def add(redis: Redis, number: int, entry_id: str = "*") -> bytes:
    return redis.xadd(KEY, {"e": event(number).encode()}, id=entry_id)


def drop_others(redis: Redis) -> None:
    """Close every connection to Redis but this client's."""
    redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def connection(settings: Settings) -> DedicatedConnection:
    return DedicatedConnection(clients.blocking(settings))


def read(
    settings: Settings,
    wanted: int,
    between: dict[int, Callable[[], Any]] | None = None,
    connect: type[DedicatedConnection] = DedicatedConnection,
) -> tuple[InboxReader, list[Event]]:
    """Run a reader until it has delivered `wanted` entries; after the nth, `between[n]` happens."""
    seen: list[Event] = []

    def deliver(entry: Event) -> None:
        seen.append(entry)
        if len(seen) == wanted:
            raise Enough
        if between and len(seen) in between:
            between[len(seen)]()

    reader = InboxReader(connect(clients.blocking(settings)), WEB, deliver)
    with pytest.raises(Enough):
        reader.run()
    return reader, seen


def test_events_are_delivered_in_order(redis: Redis, settings: Settings) -> None:
    scripts.run(redis, commands.emit_command(WEB, [event(n).encode() for n in range(1, 101)]))
    _, seen = read(settings, 100)
    assert seen == [event(number) for number in range(1, 101)]


def test_events_that_come_later_are_delivered_too(redis: Redis, settings: Settings) -> None:
    add(redis, 1)
    _, seen = read(settings, 3, {1: lambda: add(redis, 2), 2: lambda: add(redis, 3)})
    assert seen == [event(1), event(2), event(3)]


def test_more_events_than_one_reading_takes_are_delivered(
    redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "READ_EVENTS", 2)
    for number in range(1, 8):
        add(redis, number)
    _, seen = read(settings, 7)
    assert seen == [event(number) for number in range(1, 8)]


def test_the_event_loop_turns_while_many_events_are_read(
    redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "TURN_EVENTS", 2)
    scripts.run(redis, commands.emit_command(WEB, [event(n).encode() for n in range(1, 7)]))
    turns: list[int] = []
    other = gevent.spawn(lambda: turns.append(len(turns)))
    _, seen = read(settings, 6, {3: lambda: turns.append(-1)})
    assert turns[0] == 0, "another greenlet had its turn before the third event"
    assert len(seen) == 6
    other.join()


def test_the_reader_knows_the_last_entry_it_has_read(redis: Redis, settings: Settings) -> None:
    ids = [add(redis, number) for number in (1, 2, 3)]
    reader, _ = read(settings, 2)
    assert reader.last == ids[1]


def test_a_reader_whose_connection_was_closed_goes_on_where_it_was(
    redis: Redis, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    def break_off() -> None:
        drop_others(redis)
        add(redis, 3)

    add(redis, 1)
    add(redis, 2)
    _, seen = read(settings, 4, {2: break_off, 3: lambda: add(redis, 4)})
    assert seen == [event(1), event(2), event(3), event(4)]
    assert caplog.text.count("Redis is away") == 1


def test_a_reader_whose_connection_is_closed_again_and_again_loses_nothing(
    redis: Redis, settings: Settings
) -> None:
    def then(number: int) -> Callable[[], None]:
        def break_off() -> None:
            drop_others(redis)
            add(redis, number)

        return break_off

    add(redis, 1)
    _, seen = read(settings, 6, {number: then(number + 1) for number in range(1, 6)})
    assert seen == [event(number) for number in range(1, 7)]


def test_a_stream_made_anew_under_an_older_clock_is_read_from_its_beginning(
    redis: Redis, settings: Settings
) -> None:
    def make_anew() -> None:
        redis.delete(KEY)
        add(redis, 2, "10-1")
        add(redis, 3, "10-2")
        drop_others(redis)

    add(redis, 1, "5000-1")
    reader, seen = read(settings, 4, {1: make_anew, 3: lambda: add(redis, 4, "11-0")})
    assert seen == [event(1), event(2), event(3), event(4)]
    assert reader.last == b"11-0"


def test_ids_are_compared_as_numbers(redis: Redis, settings: Settings) -> None:
    def make_anew() -> None:
        redis.delete(KEY)
        add(redis, 2, "900-1")  # as text, it would come after 5000-1
        drop_others(redis)

    add(redis, 1, "5000-1")
    _, seen = read(settings, 2, {1: make_anew})
    assert seen == [event(1), event(2)]


def test_a_stream_that_is_gone_is_awaited_from_its_beginning(
    redis: Redis, settings: Settings
) -> None:
    def remove() -> None:
        redis.delete(KEY)
        drop_others(redis)

    class Late(DedicatedConnection):
        """A connection over which the reader learns of its stream just before it is made anew."""

        def execute(self, *command: Any) -> Any:
            try:
                return super().execute(*command)
            finally:
                if command[0] == "XINFO" and not redis.exists(KEY):
                    add(redis, 2, "10-1")

    add(redis, 1, "5000-1")
    _, seen = read(settings, 2, {1: remove}, Late)
    assert seen == [event(1), event(2)]


def test_a_stream_that_was_trimmed_empty_goes_on(redis: Redis, settings: Settings) -> None:
    def trim() -> None:
        redis.xtrim(KEY, maxlen=0, approximate=False)
        drop_others(redis)
        add(redis, 2)

    add(redis, 1)
    _, seen = read(settings, 2, {1: trim})
    assert seen == [event(1), event(2)]


def test_entries_that_are_not_ours_are_passed_over(
    redis: Redis, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = [
        b"",
        b"CANARY",
        b"CANARY\xff\n{}",
        b"id c number p\n",
        b"a b c d e\n",
        b"\xff c 1 p\n",
    ]
    add(redis, 1)
    for payload in foreign:
        redis.xadd(KEY, {"e": payload})
    redis.xadd(KEY, {"s": "CANARY"})
    redis.xadd(KEY, {"one": "1", "two": "2"})
    add(redis, 2)
    _, seen = read(settings, 2)
    assert seen == [event(1), event(2)]
    assert caplog.text.count("not one of ours") == len(foreign) + 2
    assert "CANARY" not in caplog.text


def test_a_key_that_is_no_stream_is_waited_out(redis: Redis, settings: Settings) -> None:
    tries = []

    def deliver(event: Event) -> None:
        raise Enough

    def pause(seconds: float) -> None:
        tries.append(seconds)
        if len(tries) == 3:
            redis.delete(KEY)
            add(redis, 1)

    redis.set(KEY, "no stream")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Enough):
        patch.setattr(inbox.gevent, "sleep", pause)
        InboxReader(connection(settings), WEB, deliver).run()


def test_a_reader_knows_up_to_when_it_has_read_everything(
    redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "READ_EVENTS", 2)
    for number in range(1, 6):
        add(redis, number)
    started = time.monotonic()
    seen: list[float] = []

    def deliver(event: Event) -> None:
        seen.append(reader.caught_up)
        if len(seen) == 5:
            add(redis, 6)
        if len(seen) == 6:
            raise Enough

    reader = InboxReader(connection(settings), WEB, deliver)
    with pytest.raises(Enough):
        reader.run()
    assert seen[:5] == [0] * 5, "full readings say nothing"
    assert seen[5] > started


def test_few_large_events_are_read_at_once(
    redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "READ_BYTES", 1)
    for number in range(1, 8):
        add(redis, number)
    before = redis.info("commandstats").get("cmdstat_xread", {"calls": 0})["calls"]
    monkeypatch.setattr(inbox, "READ_EVENTS", 3)
    _, seen = read(settings, 7)
    assert seen == [event(number) for number in range(1, 8)]
    calls = redis.info("commandstats")["cmdstat_xread"]["calls"] - before
    assert calls >= 5, "the first reading knows no size and takes two, the others one each"


@pytest.mark.parametrize("limit", ["TRIM_EVENTS", "TRIM_BYTES"])
def test_what_was_read_is_trimmed_before_workers_count_it_as_unread(
    redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(inbox, "READ_EVENTS", 2)
    monkeypatch.setattr(inbox, limit, 4)
    lengths = []
    for number in range(1, 10):
        add(redis, number)
    read(settings, 9, {n: lambda: lengths.append(redis.xlen(KEY)) for n in range(1, 9)})
    assert min(lengths) < 7


def test_who_follows_a_log_during_a_read_gets_it_from_its_beginning(
    redis: Redis, settings: Settings
) -> None:
    log = keys.log(CALL_ID)
    early, late = follower(), follower()
    for number in (1, 2):
        redis.xadd(log, {"e": event(number).encode()})

    def follow_late() -> None:
        if early.received == 2 and late not in following:
            following.append(late)
            reader.follow(late)
            redis.xadd(log, {"e": event(3).encode()})
        elif late.received == 3:
            raise Enough

    class Reading(DedicatedConnection):
        def round_trip(self, batch: Any) -> Any:
            follow_late()
            return super().round_trip(batch)

    following = [early]
    reader = InboxReader(Reading(clients.blocking(settings)), WEB, lambda entry: None)
    reader.follow(early)
    with pytest.raises(Enough):
        reader.run()
    assert early.outcome is late.outcome is None
    assert early.parts() == late.parts() == [event(n).payload for n in (1, 2, 3)]


def follower() -> PendingCall:
    pending = PendingCall(CALL_ID, 60, lambda call: None)
    pending.logged = True
    return pending
