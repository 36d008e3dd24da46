"""One call that waits for its response in the process that submitted it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import gevent
from gevent.event import Event as Signal

from gateway.errors import GatewayError, ReplyLost, SlowReader
from gateway.queue.protocol import CHUNKS, OUTCOME, RETRY, Event, Outcome, ProtocolError
from gateway.tokens import CHARACTERS_PER_TOKEN

BUFFER_BYTES = 2_000_000  # from here on a client that takes nothing for SLOW_SECONDS is too slow
MOST_BYTES = 8_000_000  # of one that still takes: it did not read while this process stood still
SLOW_SECONDS = 1.0
CHUNK_BYTES = 80  # of a chunk besides its text
EVENT_BYTES = 100  # that an event costs besides its payload
SUBMIT_SECONDS = 1.5  # within which the reply of a submission is read
TAKE_BYTES = 64_000  # taken at once by a request; what it sends is no longer counted here
# Of all calls of a process. Beyond it each is limited to FAIR_BYTES; beyond twice as much, at once.
SHARED_BYTES = 64_000_000
FAIR_BYTES = 64_000
FOLLOWED_BYTES = 1_000_000  # from here on a client's log is not read further


class Buffers:
    """How many bytes the pending calls of one process hold together.

    Without a limit, a thousand clients that do not read could hold gigabytes. `clock` measures how
    long a client is slow: seconds while this process was able to serve it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.held = 0


class PendingCall:
    """Collects the events of one call, in order, until its outcome.

    The inbox reader offers events and never waits; the request's greenlet takes their payloads. The
    first of outcome, loss and cancellation stands. `on_broken` is called with the call when it ends
    here while its worker may still run it.
    """

    def __init__(
        self,
        call_id: str,
        budget: float,
        on_broken: Callable[[PendingCall], None],
        buffers: Buffers | None = None,
    ) -> None:
        self.call_id = call_id
        self.since = time.monotonic()
        self.deadline = self.since + budget
        self.key = ""  # public id of the API key
        self.address = ""  # where its events go: see CallSpec
        self.logged = False  # whether that is a log
        self.position = (0, 0)  # id of the last entry of its log that was read
        self.ended_at = 0  # Unix seconds of the outcome of a logged call
        self.account: Mapping[str, Any] = {}  # see CallSpec
        self.route = ""  # of the first target
        self.first_sent = 0.0  # when a stream's first payload was taken, monotonic; 0: not yet
        self.admission: dict[str, Any] = {}  # what the queue admitted: see lua/submit.lua
        self.cache = ""  # "hit" or "miss", once that is known; "" for a call without a cache
        # What it costs if its worker is lost: see commands.lost_commands.
        self.estimate: Mapping[str, Any] = {}
        self.retry = False  # whether it may run once more if its worker is lost
        self.lost_claim: str | None = None  # of the worker that was lost, once it does
        self.submitted = False
        self.on_accepted: Callable[[], object] = lambda: None  # called once it is queued
        self.worker = ""  # known once the call has started
        self.claim = ""
        self.received = 0  # number of the last event
        self.outcome: Outcome | None = None
        self.fault: GatewayError | None = None  # what its client got where a renderer failed
        self.nudge_at: float | None = None  # when `wait_nudged` is to end, by the monotonic clock
        self.suspect: int | None = None  # `received` when its outcome was seen and events missing
        self.suspect_since = 0.0  # monotonic
        self.unknown_since = 0.0  # by the monitor's clock: Redis has lost its job; 0: it has not
        self.overdue_since = 0.0  # by the monitor's clock; 0: it is not
        self._full_since: float | None = None  # by the buffers' clock
        self._send: tuple[Callable[[bytes], bool], float] | None = None  # while `wait_nudged` runs
        self._parts: deque[bytes] = deque()
        self._bytes = 0
        self._chunks = self._chunk_bytes = 0  # that have come
        self._signal = Signal()
        self._on_broken = on_broken
        self._buffers = buffers or Buffers()

    def accepted(self) -> None:
        """Note that the call is queued."""
        self.submitted = True
        self.on_accepted()

    def when_accepted(self, action: Callable[[], object]) -> None:
        """Call `action` once it is queued."""
        if self.submitted:
            action()
        else:
            self.on_accepted = action

    def started(self, worker: str, claim: str, lost_claim: str = "") -> None:
        """Note who runs the call. A second claim, by a Redis that lost the first, ends the call.

        `lost_claim` is the first claim of a call that runs once more.
        """
        if claim == self.lost_claim:  # looked up before the loss was known
            return
        if self.claim and self.claim != claim:
            if self.claim == lost_claim:
                self.retried(lost_claim)
            else:
                self.stop(ReplyLost())
        self.worker, self.claim = worker, claim

    def retried(self, lost_claim: str) -> None:
        """Note that the call runs once more, because the worker with this claim was lost.

        Later events of that claim are dropped. If one has come before, the call ends: two responses
        must not mix. Calling it again changes nothing.
        """
        if self.lost_claim == lost_claim:
            return
        self.lost_claim = lost_claim
        if self.received:
            self.stop(ReplyLost())
            return
        self.worker = self.claim = ""
        self.since = time.monotonic()
        self.suspect, self.unknown_since = None, 0.0

    def offer(self, event: Event) -> None:
        """Take an event. A repeated one is dropped; a gap in the numbers ends the call."""
        if self.outcome is not None or event.claim == self.lost_claim:
            return
        if event.kind == RETRY:
            self.retried(event.payload.decode())
            return
        self.claim = self.claim or event.claim
        if event.claim != self.claim:
            self.stop(ReplyLost())
            return
        # Who ends a logged call whose worker is lost need not have read its whole log.
        if self.logged and event.kind == OUTCOME and event.number <= self.received + 1:
            self.received = max(self.received, event.number)
            self._close(event)
            return
        if event.number <= self.received:
            return
        if event.number != self.received + 1:
            self.stop(ReplyLost())
            return
        self.received = event.number
        if event.kind == OUTCOME:
            self._close(event)
        else:
            self._chunks += event.payload.count(b"\n") + 1
            self._chunk_bytes += len(event.payload)
            self._take(event.payload)

    def has_room(self) -> bool:
        """Whether more of a log may be read for this call: its client has taken what was read."""
        most = FOLLOWED_BYTES if self._buffers.held <= SHARED_BYTES else 0
        return self._bytes <= most

    def written(self) -> int:
        """Return about how many tokens of output have come: at least one in each chunk."""
        characters = self._chunk_bytes - CHUNK_BYTES * self._chunks
        return max(self._chunks, characters // CHARACTERS_PER_TOKEN)

    def end(self, outcome: Outcome) -> None:
        """Set the outcome, unless there is one."""
        if self.outcome is None:
            self.outcome = outcome
            self._signal.set()

    def fail(self, error: GatewayError) -> None:
        """End the call with an error, unless it has ended.

        Nobody should send a call again that a worker has run before.
        """
        if self.lost_claim is not None:
            error.should_retry = False
        self.end(Outcome(last=self.received, error=error))

    def stop(self, error: GatewayError) -> None:
        """End a call with an error, and have its worker stop it."""
        self.fail(error)
        self._on_broken(self)

    def wait(self, timeout: float | None) -> bool:
        """Wait up to `timeout` seconds for payloads or the outcome; return whether there is any."""
        return bool(self._signal.wait(timeout))

    def wait_nudged(
        self, seconds: float, send: Callable[[bytes], bool] = lambda payload: False
    ) -> bool:
        """Wait for payloads or the outcome; return whether there is any.

        A payload that comes meanwhile goes to `send`, and ends the wait if that returns False.
        `send` must not wait.

        The wait ends after `seconds` of silence and up to one tick of the monitor, whose nudge
        costs nothing until then. A timer for each token took 7 % of the web process' time at 256
        streams.
        """
        self.nudge_at = time.monotonic() + seconds
        self._send = send, seconds
        self._signal.wait()
        self.nudge_at = self._send = None
        if self._parts or self.outcome is not None:
            return True
        self._signal.clear()
        return False

    def nudge(self) -> None:
        """End `wait_nudged`."""
        self._signal.set()

    def answer(self, response: bytes, dropped: list[str], stream: bool) -> None:
        """End the call with a kept response: see gateway.account.cache.Entry."""
        self.cache = "hit"
        if stream:
            self.offer(Event(self.call_id, self.claim, 1, CHUNKS, response))
            self.end(Outcome(last=1))
        else:
            self.end(Outcome(answer=response, dropped=dropped))

    def until_accepted(self) -> None:
        """Wait until it is known whether the call is queued or refused."""
        while not self.submitted and self.outcome is None:
            gevent.sleep(0.001)
        self.until_admitted()

    def until_admitted(self) -> None:
        """Wait until it is known what was admitted, if an event came before the queue's reply."""
        end = time.monotonic() + SUBMIT_SECONDS
        while self.received and not self.submitted and time.monotonic() < end:
            gevent.sleep(0.001)

    def parts(self) -> list[bytes]:
        """Return the payloads since the last call, of many bytes about the first TAKE_BYTES.

        Empty once the outcome is there and everything was taken.
        """
        if self._bytes <= TAKE_BYTES:
            taken = list(self._parts)
            self.drop()
        else:
            taken = []
            size = 0
            while self._parts and size < TAKE_BYTES:
                taken.append(self._parts.popleft())
                size += len(taken[-1]) + EVENT_BYTES
            self._bytes -= size
            self._buffers.held -= size
        self._full_since = None
        if self.outcome is None and not self._parts:
            self._signal.clear()
        return taken

    def drop(self) -> None:
        """Drop the payloads that were not taken."""
        self._parts.clear()
        self._buffers.held -= self._bytes
        self._bytes = 0

    def _take(self, payload: bytes) -> None:
        """Send a payload at once if the request waits for it; keep it otherwise."""
        if self._send is not None and not self._signal.is_set():
            send, seconds = self._send
            if send(payload):
                self.nudge_at = time.monotonic() + seconds
                return
        self._buffer(payload)

    def _buffer(self, payload: bytes) -> None:
        size = len(payload) + EVENT_BYTES
        limit = BUFFER_BYTES if self._buffers.held + size <= SHARED_BYTES else FAIR_BYTES
        # One payload always fits: the client has kept up so far.
        if not self.logged and self._bytes + size > limit and self._parts and self._too_slow(size):
            self.stop(SlowReader())
            return
        self._parts.append(payload)
        self._bytes += size
        self._buffers.held += size
        self._signal.set()

    def _too_slow(self, size: int) -> bool:
        """Whether a client whose buffer is full has had its time to take some of it.

        Many events come at once after this process stood still, and the client could not read.
        """
        now = self._buffers.clock()
        if self._full_since is None:
            self._full_since = now
        most = MOST_BYTES if self._buffers.held + size <= 2 * SHARED_BYTES else FAIR_BYTES
        return self._bytes + size > most or now - self._full_since > SLOW_SECONDS

    def _close(self, event: Event) -> None:
        try:
            outcome = Outcome.decode(event.payload)
        except ProtocolError:
            self.fail(ReplyLost())
            return
        if outcome.last != event.number - 1:
            self.fail(ReplyLost())
        else:
            self.end(outcome)
