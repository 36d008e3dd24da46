"""gateway/queue/batch_writer.py: batches over a real Redis that forgets scripts and connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import gevent
import pytest
from redis import Redis
from redis.exceptions import ConnectionError, ResponseError

from gateway.queue import clients, commands, keys
from gateway.queue.batch_writer import BatchWriter
from gateway.queue.clients import Command, DedicatedConnection
from gateway.settings import Settings

WEB = "web-1"
EMIT = commands.emit_command(WEB, [b"event"])  # its reply: the inbox is 0 % full


class Owner:
    """Collects commands, and keeps the replies to each batch."""

    def __init__(self, settings: Settings) -> None:
        self.ready: list[Command] = []
        self.batches: list[list[object]] = []
        connection = DedicatedConnection(clients.commands(settings, 1))
        self.writer = BatchWriter("owner", connection, self.flush)
        self.greenlet = gevent.spawn(self.writer.run)

    def put(self, command: Command) -> None:
        self.ready.append(command)
        self.writer.wake()

    def flush(self) -> None:
        batch, self.ready = self.ready, []
        self.batches.append(self.writer.write(batch))

    def close(self) -> None:
        self.greenlet.kill()
        self.writer.disconnect()


@pytest.fixture
def make(redis: Redis, settings: Settings) -> Iterator[Callable[..., Owner]]:
    owners = []

    def make(**changes: str) -> Owner:
        owners.append(Owner(replace(settings, **changes)))  # type: ignore[arg-type]
        return owners[-1]

    yield make
    for owner in owners:
        owner.close()


@pytest.fixture
def owner(make: Callable[..., Owner]) -> Owner:
    return make()


def test_what_is_ready_together_goes_out_as_one_batch(redis: Redis, owner: Owner) -> None:
    for _ in range(10):
        owner.put(EMIT)
    assert owner.writer.wait_idle(10)
    assert owner.batches == [[0] * 10]
    assert redis.xlen(keys.inbox(WEB)) == 10


def test_scripts_that_redis_forgot_are_loaded_and_each_command_runs_once(
    redis: Redis, owner: Owner
) -> None:
    redis.script_flush()
    owner.put(EMIT)
    owner.put(EMIT)
    assert owner.writer.wait_idle(10)
    assert owner.batches == [[0, 0]]
    assert redis.xlen(keys.inbox(WEB)) == 2


def test_a_refusal_is_the_reply_to_its_own_command(redis: Redis, owner: Owner) -> None:
    redis.set(keys.inbox("web-2"), "no stream")
    owner.put(commands.emit_command("web-2", [b"event"]))
    owner.put(EMIT)
    assert owner.writer.wait_idle(10)
    ((refused, done),) = owner.batches
    assert isinstance(refused, ResponseError)
    assert done == 0


def test_a_batch_is_sent_again_at_once_over_a_new_connection(
    redis: Redis, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "IDLE_SECONDS", 60)  # the closed connection is not noticed before
    for number in (1, 2):
        owner.put(EMIT)
        assert owner.writer.wait_idle(10)
        assert len(owner.batches) == number
        redis.client_kill_filter(_type="normal", skipme=True)


def test_where_there_is_no_redis_nothing_counts_as_sent(make: Callable[..., Owner]) -> None:
    owner = make(redis_url="unix:///nowhere/redis.sock")
    with pytest.raises(ConnectionError):
        owner.writer.write([EMIT])
    assert not owner.writer.sent


def test_a_connection_closed_before_the_batch_does_not_make_it_count_as_sent(
    redis: Redis, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "IDLE_SECONDS", 0)
    owner.put(EMIT)
    assert owner.writer.wait_idle(10)
    redis.client_kill_filter(_type="normal", skipme=True)
    owner.put(EMIT)
    assert owner.writer.wait_idle(10)
    assert redis.xlen(keys.inbox(WEB)) == 2, "and none was sent twice"


def test_a_fault_of_the_owner_is_logged_and_ends_nothing(
    owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    owner.put(("EVALSHA", object()))  # redis-py cannot encode it
    assert owner.writer.wait_idle(10)
    assert "owner: DataError" in caplog.text
    owner.put(EMIT)
    assert owner.writer.wait_idle(10)
    assert owner.batches == [[0]]
