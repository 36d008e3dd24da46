"""The one reader of this web process' inbox stream."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import gevent
from redis.exceptions import RedisError, ResponseError

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
BEGINNING = b"0-0"


class InboxReader:
    """Reads the entries of one inbox, many at a time, and passes each event to `on_event`.

    It outlives every loss of Redis, and then goes on with the entry after the last one it read.
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
        self._mean = 1  # bytes of an entry, in the last reading

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
        """Find where to go on: a stream made anew under an older clock would never reach `last`."""
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
        read = ("XREAD", "COUNT", count, "BLOCK", block, "STREAMS", self._key, self.last)
        trim: list[Command] = []
        if self._events >= TRIM_EVENTS or self._bytes >= TRIM_BYTES:
            trim.append(trim_command(self._key, self.last))
            self._events = self._bytes = 0
        *_, reply = self._connection.round_trip([*trim, read])
        if isinstance(reply, ResponseError):
            raise reply
        entries = reply[0][1] if reply else ()
        size = sum(len(fields[1]) for _, fields in entries)
        self._bytes += size
        self._mean = size // len(entries) + 1 if entries else 1
        for number, (entry_id, fields) in enumerate(entries, 1):
            self.last = entry_id
            self._deliver(fields)
            if number % TURN_EVENTS == 0:
                gevent.sleep(0)  # let requests take what they got, before they get more
        self._events += len(entries)
        if len(entries) < count:
            self.caught_up = began
        # They send it on before Redis is asked for the next; twice, because what they wake (the
        # submitter, for a client that asks again at once) is to have its turn too.
        gevent.sleep(0)
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
