"""All that a worker process writes to Redis about its calls, in order, over one connection.

A batch is kept until every reply is read. Where a web process reads more slowly than its workers
write, its inbox fills; from half of it on the events of its running calls stay here, and what is
not sent yet joins. Other web processes go on.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from gevent.event import Event as Signal
from redis.exceptions import (
    DataError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from gateway.account.records import Record
from gateway.queue import commands, keys, scripts
from gateway.queue.batch_writer import BatchWriter
from gateway.queue.clients import Command, DedicatedConnection
from gateway.queue.protocol import CHUNKS, Event, Outcome

log = logging.getLogger(__name__)

KEEP_SECONDS = 120.0  # how long a batch is tried before it is given up
FAILING_SECONDS = 5.0  # without an accepted write: this worker is of no use
RETRY_SECONDS = 0.25
BATCH_EVENTS = 256  # most events in one script call
HOLD_PERCENT = 50  # of an inbox, at which events for it are held back
HOLD_SECONDS = 0.1  # between two looks at such an inbox
CALL_BYTES = 4_000_000  # unsent bytes of a call at which its provider is read no further

LATER = (ReadOnlyError, OutOfMemoryError, NoScriptError)


class Sender:
    """Sends the events of one call: numbers them, and joins chunks that are not sent yet."""

    __slots__ = ("_outbox", "call_id", "claim", "ended", "number", "unsent", "web")

    def __init__(self, outbox: Outbox, call_id: str, claim: str, web: str) -> None:
        self.call_id, self.claim, self.web, self.number = call_id, claim, web, 0
        self.unsent: bytearray | None = None
        self.ended = False  # its outcome follows: nothing of it is held back
        self._outbox = outbox

    def send(self, lines: bytes) -> None:
        """Send chunks, as lines of JSON; wait while too much of this call is unsent."""
        if self.unsent is None:
            self.number += 1
            self.unsent = bytearray(lines)
            self._outbox.ready(self)
        else:
            self.unsent += b"\n"
            self.unsent += lines
            while self.unsent is not None and len(self.unsent) > CALL_BYTES:
                self._outbox.wait_sent()

    def finish(self, worker: str, outcome: Outcome, record: Record | None) -> None:
        """Send the call's outcome and its record, after its events.

        Without a record, Redis makes one of what it knows.
        """
        self.ended = True
        self._outbox.put(
            *commands.finish_commands(
                self.call_id,
                self.claim,
                self.web,
                worker,
                outcome,
                record.encode() if record else b"",
                record.cost_nano if record else 0,
                record.tokens if record else 0,
            )
        )


class Outbox:
    """The process' queue of writes, and the greenlet that carries them to Redis.

    `clock` measures for how long Redis was away: seconds while this process was able to look.
    """

    def __init__(
        self, connection: DedicatedConnection, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._senders: list[Sender] = []
        self._writes: list[Command] = []
        self._in_turn: deque[Command] = deque()  # one in each batch
        self._full: set[str] = set()  # inboxes whose events are held back
        self._look_comes = False
        self._failing_since: float | None = None  # by `clock`
        self._sent = Signal()
        self._writer = BatchWriter("outbox", connection, self._flush)
        self._greenlet: Any = None

    def start(self) -> None:
        """Begin to write."""
        self._greenlet = gevent.spawn(self._writer.run)

    def ready(self, sender: Sender) -> None:
        """Send the call's unsent chunks with the next batch."""
        self._senders.append(sender)
        self._writer.wake()

    def put(self, *those: Command) -> None:
        """Send a command with the next batch, after its events.

        Several are the parts of a large write: each batch takes one, so that the writes of other
        calls go out between them.
        """
        (self._writes if len(those) == 1 else self._in_turn).extend(those)
        self._writer.wake()

    def put_by(self, command: Command) -> None:
        """Send a command along with the next batch, whenever something else makes one."""
        self._writes.append(command)

    def wake(self) -> None:
        """Send everything that waits."""
        self._writer.wake()

    def wait_sent(self) -> None:
        """Wait until the next batch has been taken."""
        self._sent.clear()
        self._sent.wait()

    def failing(self) -> bool:
        """Return whether Redis has accepted no write for FAILING_SECONDS.

        False while there is nothing to write. Any thread may call this.
        """
        since = self._failing_since
        return since is not None and self._clock() - since > FAILING_SECONDS

    def settled(self, timeout: float) -> bool:
        """Wait until all is written that is not held back; return whether it is in time.

        `timeout` is in seconds.
        """
        return self._writer.wait_idle(timeout)

    def close(self, timeout: float) -> bool:
        """Wait until everything is written, then stop and close the connection to Redis.

        Returns whether everything was written within `timeout` seconds.
        """
        done = self.settled(timeout)
        if self._greenlet is not None:
            self._greenlet.kill()
        self._writer.disconnect()
        return done

    def _flush(self) -> None:
        batch = self._take() or self._probe()
        end = self._clock() + KEEP_SECONDS
        while batch:
            batch = self._attempt(batch) or self._probe()
            if batch:
                if self._clock() > end:
                    log.error("outbox: %d writes given up", len(batch))
                    break
                gevent.sleep(RETRY_SECONDS)
        held_until_now = self._senders and not self._full
        if self._in_turn or held_until_now:
            self._writer.wake()
        elif self._full and not self._look_comes:
            self._look_comes = True
            gevent.spawn_later(HOLD_SECONDS, self._look)

    def _probe(self) -> list[Command]:
        """Return a write that changes nothing if Redis accepted none of the last ones."""
        return [] if self._failing_since is None else [("UNLINK", keys.call(""))]

    def _look(self) -> None:
        self._look_comes = False
        self._writer.wake()

    def _take(self) -> list[Command]:
        senders, self._senders = self._senders, []
        queued, self._writes = self._writes, []
        if self._in_turn:
            queued.append(self._in_turn.popleft())
        events: dict[str, list[bytes]] = {}
        for sender in senders:
            if keys.inbox(sender.web) in self._full and not sender.ended:
                self._senders.append(sender)
                events.setdefault(sender.web, [])  # asks how full the inbox is
                continue
            payload, sender.unsent = bytes(sender.unsent or b""), None
            event = Event(sender.call_id, sender.claim, sender.number, CHUNKS, payload)
            events.setdefault(sender.web, []).append(event.encode())
        self._full.intersection_update({keys.inbox(sender.web) for sender in self._senders})
        self._sent.set()
        return [*_emits(events), *queued]

    def _attempt(self, batch: list[Command]) -> list[Command]:
        """Write a batch; return the commands that must be tried again."""
        try:
            replies = self._writer.write(batch)
        except DataError:  # a command of ours cannot be encoded: another try would not help
            raise
        except (RedisError, OSError) as error:
            # Nobody knows which commands ran. All are sent again: events are numbered, and scripts
            # answer the same when run twice. A Redis that still loads its data is away too.
            log.warning("outbox: Redis is away (%s)", type(error).__name__)
            self._note(accepted=False)
            return batch
        self._note(any(not isinstance(reply, ResponseError) for reply in replies))
        again: list[Command] = []
        for command, reply in zip(batch, replies, strict=True):
            if command[1] == scripts.EMIT.sha and isinstance(reply, int):
                inbox = command[3]
                note = self._full.add if reply >= HOLD_PERCENT else self._full.discard
                note(inbox)
            elif isinstance(reply, LATER):
                again.append(command)
            elif isinstance(reply, ResponseError):
                log.error("outbox: a write was refused (%s)", type(reply).__name__)
        return again

    def _note(self, accepted: bool) -> None:
        if accepted:
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = self._clock()


def _emits(events: dict[str, list[bytes]]) -> Iterable[Command]:
    for web, encoded in events.items():
        for start in range(0, len(encoded) or 1, BATCH_EVENTS):
            yield commands.emit_command(web, encoded[start : start + BATCH_EVENTS])
