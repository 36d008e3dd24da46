"""All that a worker process writes to Redis about its calls, in order, through one connection.

What became ready while the last batch was on its way goes out as the next one: alone when there is
little to do, hundreds at a time when there is much. A batch is kept until every reply is read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

import gevent
from gevent.event import Event as Signal
from redis import Connection, Redis
from redis.exceptions import (
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from gateway.queue import clients, commands, scripts
from gateway.queue.protocol import CHUNKS, Event, Outcome

log = logging.getLogger(__name__)

Command = tuple[Any, ...]

KEEP_SECONDS = 120.0  # how long a batch is tried before it is given up
RETRY_SECONDS = 0.25
BATCH_EVENTS = 256  # most events in one script call
CALL_BYTES = 4_000_000  # unsent bytes at which a call's provider is read no further

LATER = (ReadOnlyError, OutOfMemoryError, NoScriptError)


class Sender:
    """One call's way to its web process: numbers its events and joins those not sent yet."""

    __slots__ = ("_outbox", "call_id", "claim", "number", "unsent", "web")

    def __init__(self, outbox: Outbox, call_id: str, claim: str, web: str) -> None:
        self.call_id, self.claim, self.web, self.number = call_id, claim, web, 0
        self.unsent: bytearray | None = None
        self._outbox = outbox

    def send(self, lines: bytes) -> None:
        """Send parts, as lines of JSON; waits while too much of this call is unsent."""
        if self.unsent is None:
            self.number += 1
            self.unsent = bytearray(lines)
            self._outbox.ready(self)
        else:
            self.unsent += b"\n"
            self.unsent += lines
            if len(self.unsent) > CALL_BYTES:
                self._outbox.wait_sent()

    def finish(self, worker: str, outcome: Outcome, milliseconds: int) -> None:
        """Send the call's end, after everything else of it."""
        self._outbox.put(
            commands.finish_command(
                self.call_id, self.claim, self.web, worker, outcome, milliseconds
            )
        )


class Outbox:
    """The process' queue of writes, and the greenlet that carries them to Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._connection: Connection | None = None
        self._senders: list[Sender] = []
        self._commands: list[Command] = []
        self._ready, self._sent, self._idle = Signal(), Signal(), Signal()
        self._idle.set()
        self._greenlet: Any = None

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)

    def ready(self, sender: Sender) -> None:
        """Send this call's unsent parts with the next batch."""
        self._senders.append(sender)
        self.wake()

    def put(self, command: Command) -> None:
        """Send a command with the next batch, after its events."""
        self._commands.append(command)
        self.wake()

    def put_by(self, command: Command) -> None:
        """Send a command along with the next batch, whenever something else makes one."""
        self._commands.append(command)

    def wait_sent(self) -> None:
        """Wait until the next batch has been taken."""
        self._sent.clear()
        self._sent.wait()

    def settled(self, timeout: float) -> bool:
        """Wait until everything is written; whether it was, in `timeout` seconds."""
        return bool(self._idle.wait(timeout))

    def close(self, timeout: float) -> bool:
        """Wait until everything is written, then stop; whether it was, in `timeout` seconds."""
        done = self.settled(timeout)
        if self._greenlet is not None:
            self._greenlet.kill()
        return done

    def disconnect(self) -> None:
        """Close the connection to Redis."""
        self._drop_connection()
        self._redis.connection_pool.disconnect()

    def wake(self) -> None:
        """Send what there is."""
        self._idle.clear()
        self._ready.set()

    def _run(self) -> None:
        while True:
            self._ready.wait()
            self._ready.clear()
            batch = self._take()
            if batch:
                self._write(batch)
            if not self._ready.is_set():
                self._idle.set()

    def _take(self) -> list[Command]:
        senders, self._senders = self._senders, []
        queued, self._commands = self._commands, []
        events: dict[str, list[bytes]] = {}
        for sender in senders:
            payload, sender.unsent = bytes(sender.unsent or b""), None
            event = Event(sender.call_id, sender.claim, sender.number, CHUNKS, payload)
            events.setdefault(sender.web, []).append(event.encode())
        self._sent.set()
        return [*_emits(events), *queued]

    def _write(self, batch: list[Command]) -> None:
        """Write a batch for as long as it takes, at most KEEP_SECONDS."""
        end = time.monotonic() + KEEP_SECONDS
        while batch:
            try:
                batch = self._attempt(batch)
            except RedisError as error:
                # Which of the batch arrived is unknown. All of it goes again: events are numbered,
                # and scripts answer the same when called twice. A Redis that is still loading its
                # data counts as away too: redis-py drops the connection.
                self._drop_connection()
                log.warning("outbox: Redis is away (%s)", type(error).__name__)
            if batch:
                if time.monotonic() > end:
                    log.error("outbox: %d writes given up", len(batch))
                    return
                gevent.sleep(RETRY_SECONDS)

    def _attempt(self, batch: list[Command]) -> list[Command]:
        """Send a batch and read all its replies; returns what must be tried again."""
        connection = self._connection
        if connection is None:
            connection = self._connection = clients.take(self._redis)
        replies = clients.round_trip(connection, batch)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            clients.round_trip(connection, scripts.loads())
        again: list[Command] = []
        for command, reply in zip(batch, replies, strict=True):
            if isinstance(reply, LATER):
                again.append(command)
            elif isinstance(reply, ResponseError):
                log.error("outbox: a write was refused (%s)", type(reply).__name__)
        return again

    def _drop_connection(self) -> None:
        if self._connection is not None:
            clients.give_back(self._redis, self._connection, broken=True)
            self._connection = None


def _emits(events: dict[str, list[bytes]]) -> Iterable[Command]:
    for web, encoded in events.items():
        for start in range(0, len(encoded), BATCH_EVENTS):
            yield commands.emit_command(web, encoded[start : start + BATCH_EVENTS])
