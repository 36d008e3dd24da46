"""The one reader of this web process' inbox, and of the logs that it follows."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import gevent
from redis.exceptions import RedisError, ResponseError

from gateway.broker.pending_call import PendingCall
from gateway.queue import clients, keys
from gateway.queue.clients import Command, DedicatedConnection
from gateway.queue.protocol import Event, ProtocolError

log = logging.getLogger(__name__)

READ_EVENTS = 512
READ_BYTES = 4_000_000  # about as many are read at once; events that were held back are large
# Read entries that are not trimmed yet; workers count them as unread, and the monitor trims too.
TRIM_EVENTS = 2_000
TRIM_BYTES = 1_000_000
TURN_EVENTS = 64
RETRY_SECONDS = 0.25
FULL_MS = 20  # of a read while a client has to take what was read of its log
BEGINNING = b"0-0"


class InboxReader:
    """Reads the entries of one inbox, many at a time, and passes each event to `on_event`.

    It also reads the logs of calls, each from its beginning, and offers their events to the pending
    calls that follow them. One blocking command reads all. It outlives every loss of Redis, and
    then goes on with the entry after the last one it read.
    """

    def __init__(
        self, connection: DedicatedConnection, web: str, on_event: Callable[[Event], None]
    ) -> None:
        self._connection = connection
        self._key = keys.inbox(web)
        self._on_event = on_event
        self.last = BEGINNING  # id of the last entry read: what may be trimmed
        # All that was in the inbox at this moment has been delivered: monotonic seconds.
        self.caught_up = 0.0
        self._events = self._bytes = 0  # read since the last trim
        self._logs: dict[bytes, list[PendingCall]] = {}  # who follows, by the name of the log
        self._blocked = False  # whether a read is on its way that nobody has ended
        self._mean = 1  # bytes of an entry, in the last reading

    def follow(self, pending: PendingCall) -> bool:
        """Read the log of a call for `pending`; return whether an event should end this read."""
        self._logs.setdefault(keys.log(pending.call_id).encode(), []).append(pending)
        blocked, self._blocked = self._blocked, False
        return blocked

    def unfollow(self, pending: PendingCall) -> None:
        """Read the log no further for `pending`."""
        name = keys.log(pending.call_id).encode()
        followers = self._logs.get(name, [])
        if pending in followers:
            followers.remove(pending)
        if not followers:
            self._logs.pop(name, None)

    def run(self) -> None:
        """Read for ever."""
        while True:
            try:
                self._resume()
                while True:
                    self._read()
            except RedisError as error:
                log.warning("inbox: Redis is away (%s)", type(error).__name__)
                gevent.sleep(RETRY_SECONDS)
            finally:
                self._connection.disconnect()

    def _resume(self) -> None:
        """Find where to go on: a stream made anew under an older clock would never reach `last`.

        Logs are read again from their beginning; what was offered before is dropped.
        """
        for followers in self._logs.values():
            for pending in followers:
                pending.position = (0, 0)
        try:
            info = self._connection.execute("XINFO", "STREAM", self._key)
        except ResponseError:  # no such stream
            self.last = BEGINNING
            return
        fields: dict[bytes, Any] = dict(zip(info[::2], info[1::2], strict=True))
        if _order(fields[b"last-generated-id"]) < _order(self.last):
            self.last = BEGINNING

    def _read(self) -> None:
        block = int(clients.BLOCK_SECONDS * 1000)
        began = time.monotonic()
        count = min(READ_EVENTS, READ_BYTES // self._mean + 1)
        streams: tuple[Any, ...] = (self._key, self.last)
        positions: dict[bytes, tuple[int, int]] = {}
        if self._logs:
            positions, full = self._positions()
            starts = (b"%d-%d" % position for position in positions.values())
            streams = (self._key, *positions, self.last, *starts)
            block = FULL_MS if full else block
        read = ("XREAD", "COUNT", count, "BLOCK", block, "STREAMS", *streams)
        trim: list[Command] = []
        if self._events >= TRIM_EVENTS or self._bytes >= TRIM_BYTES:
            trim.append(trim_command(self._key, self.last))
            self._events = self._bytes = 0
        self._blocked = True
        try:
            *_, reply = self._connection.round_trip([*trim, read])
        finally:
            self._blocked = False
        if isinstance(reply, ResponseError):
            raise reply
        entries: list[Any] = []
        more = False
        for name, those in reply or ():
            if name in self._logs:
                more |= len(those) == count
                self._offer(self._logs[name], positions[name], those)
            elif name == self._key.encode():
                entries = those
        size = sum(len(fields[1]) for _, fields in entries)
        self._bytes += size
        self._mean = size // len(entries) + 1 if entries else 1
        for number, (entry_id, fields) in enumerate(entries, 1):
            self.last = entry_id
            self._deliver(fields)
            if number % TURN_EVENTS == 0:
                gevent.sleep(0)  # let requests take what they got, before they get more
        self._events += len(entries)
        if len(entries) < count and not more:
            self.caught_up = began
        # They send it on before Redis is asked for the next; twice, because what they wake (the
        # submitter, for a client that asks again at once) is to have its turn too.
        gevent.sleep(0)
        gevent.sleep(0)

    def _positions(self) -> tuple[dict[bytes, tuple[int, int]], bool]:
        """Where to go on in each log, and whether a client has to take some of it before."""
        positions, full = {}, False
        for name, followers in self._logs.items():
            reading = [each for each in followers if each.outcome is None]
            ready = [each.position for each in reading if each.has_room()]
            full |= len(ready) < len(reading)
            if ready:
                positions[name] = min(ready)
        return positions, full

    def _offer(
        self, followers: list[PendingCall], start: tuple[int, int], entries: list[Any]
    ) -> None:
        """Offer the entries of a log after `start` to all who follow it and have it up to there."""
        events = [(_order(entry_id), fields[1]) for entry_id, fields in entries]
        for pending in list(followers):
            if pending.position < start:  # it came during the read, or had no room then
                continue
            for position, value in events:
                if position <= pending.position:
                    continue
                if not pending.has_room() or pending.outcome is not None:
                    break
                pending.position, pending.ended_at = position, position[0] // 1000
                try:
                    pending.offer(Event.decode(value))
                except ProtocolError:
                    log.error("a log has an entry that is not one of ours")
            gevent.sleep(0)

    def _deliver(self, fields: list[bytes]) -> None:
        try:
            self._on_event(Event.decode(fields[1]))
        except ProtocolError:
            log.error("inbox: an entry is not one of ours")


def trim_command(inbox: str, last: bytes) -> Command:
    """Return the command that removes the entries of an inbox up to `last`."""
    milliseconds, _, count = last.partition(b"-")
    return ("XTRIM", inbox, "MINID", b"%b-%d" % (milliseconds, int(count) + 1))


def _order(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, count = entry_id.partition(b"-")
    return int(milliseconds), int(count)
